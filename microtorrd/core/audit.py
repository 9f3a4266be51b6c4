"""Recounts every invariant of a core, for tests: after each fact all the books must agree.

Each assertion names what is wrong. What is counted twice on purpose (because it is asked for on the hot path)
is counted here a third time, from the plainest state there is.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bitarray.util import count_and

from microtorrd.core.partial import OURSELVES
from microtorrd.core.picker import blank

if TYPE_CHECKING:
    from microtorrd.core.core import Core
    from microtorrd.core.peer import Peer


def audit(core: Core) -> None:
    """AssertionError when anything does not add up."""
    running = core.phase.value == "running"
    assert running or not core.swarm.peers, "peers although not running"
    assert running or not core.workshop.partials, "pieces in the making although not running"
    assert core.fetching.enabled <= running, "fetching although not running"
    assert not core.swarm.condemned, "somebody is still to be dropped"
    core.swarm.attendance.check()
    _availability(core)
    _pieces(core)
    _blocks(core)
    for peer in core.swarm.peers.values():
        _peer(core, peer)
    _slots(core)
    core.uploading.check()
    core.spreading.check()
    core.superseeding.check()


def _availability(core: Core) -> None:
    swarm = core.swarm
    owners: Counter[int] = Counter()
    seeds = 0
    for peer in swarm.peers.values():
        if peer.is_seed:
            seeds += 1
            assert peer.have is swarm.full
        elif peer.have is not None:
            assert not peer.have.complete, "a seeder that is not taken for one"
            owners.update(peer.have.present())
    assert swarm.availability.seeds == seeds, "number of seeders"
    for piece in range(swarm.geometry.piece_count):
        assert swarm.availability[piece] == owners[piece] + seeds, f"availability of piece {piece}"


def _pieces(core: Core) -> None:
    workshop, picker, have = core.workshop, core.workshop.picker, core.have
    assert have.count == have.bits.count()
    if core.phase.value == "checking":
        return  # what we have changes under the picker, which is made anew afterwards
    assert picker.needed == core.swarm.wishes.needed(have.bits), "needed pieces"
    assert core.swarm.satisfied == (not picker.needed_count), "whether all wishes are met"
    assert picker.needed_count == picker.needed.count()
    begun = blank(len(have))
    for piece in (*workshop.partials, *workshop.storing):
        assert not begun[piece], f"piece {piece} is fetched and stored"
        begun[piece] = 1
    todo = picker.needed & ~begun
    assert picker.todo == todo, "pieces to begin"
    assert picker.todo_count == todo.count()
    for piece in workshop.partials:
        assert picker.needed[piece], f"piece {piece} is fetched although not needed"


def _blocks(core: Core) -> None:
    workshop, swarm = core.workshop, core.swarm
    connected = set(swarm.peers.values())
    lent: Counter[Peer] = Counter()
    for piece, partial in workshop.partials.items():
        assert partial.piece == piece
        free, left, end = [], 0, 0
        holders: Counter[Peer] = Counter()
        for block in partial.blocks:
            held_by = [peer for peer in (block.holder, *(block.others or ())) if peer is not None]
            assert len(set(held_by)) == len(held_by), "asked twice of the same peer"
            assert connected.issuperset(held_by), "lent to somebody who is gone"
            assert not (block.done and held_by), "lent although it is here"
            assert block.begin == end, "blocks that do not follow each other"
            assert all(block.length <= peer.largest_block for peer in held_by), "a block that is too large"
            end += block.length
            if block.filled_by == OURSELVES:
                assert block.done and not any(block.view), "padding that is not zeros"
                assert (block.begin, end) in swarm.geometry.zero_blocks(piece), "padding that is none"
            if block.holder is None and block.others:
                assert all(peer.snubbed for peer in block.others), "free although asked"
                assert block.units == 1, "a large block that is free although it may still come"
            if not block.done:
                left += block.units
                if block.holder is None:
                    free.append(block)
            holders.update(dict.fromkeys(held_by, block.units))
        assert end == partial.buffer.size, "blocks that are not the whole piece"
        assert left == partial.left > 0, "blocks to come"
        assert {id(block) for block in free} == {id(block) for block in partial.free}, "free blocks"
        assert len(free) == len(partial.free)
        assert not free or partial in workshop.open, "free blocks that nobody looks for"
        assert holders == partial.holders, "who holds how much"
        for peer in holders:
            assert partial in peer.partials
        lent.update(holders)
    for piece, partial in workshop.storing.items():
        assert partial.piece == piece and not partial.left and not partial.holders
    for peer in connected:
        assert peer.pipeline.out == lent[peer], f"blocks asked of peer {peer.number}"
        assert all(peer in partial.holders for partial in peer.partials)
        assert peer.pipeline.depth >= 1


def _peer(core: Core, peer: Peer) -> None:
    picker = core.workshop.picker
    if peer.is_seed:
        interesting = bool(picker.needed_count)
    else:
        offers = 0 if peer.have is None else count_and(peer.have.bits, picker.needed)
        assert peer.offers == offers, f"what peer {peer.number} offers"
        interesting = bool(offers)
    assert peer.am_interested == interesting, f"interest in peer {peer.number}"
    if peer.am_choking:
        owed = {piece for piece, _, _ in peer.queue if piece not in peer.fast_given}
        assert len(owed) <= peer.fast, "a choked peer is served more than the rest of a piece"
    assert peer.queue_bytes == sum(length for _, _, length in peer.queue), "bytes queued"
    for piece, _, _ in peer.queue:
        assert core.have[piece], "serving what we do not have"


def _slots(core: Core) -> None:
    settings, slots = core.swarm.settings, core.uploading.slots
    served = sum(peer.peer_interested and not peer.am_choking for peer in core.swarm.peers.values())
    besides = 0 if settings.upload_slots else slots  # while slots lie idle
    assert settings.always_unchoke or served <= slots + 1 + besides, "more served than there are slots"
    waiting = sum(peer.peer_interested and peer.am_choking for peer in core.swarm.peers.values())
    assert not waiting or served >= slots, "somebody waits although a slot is free"
