"""Blocks of more than 16 KiB: asked of quick peers that serve them, and of nobody else."""

from __future__ import annotations

import pytest

from microtorrd.core.events import BlocksReceived, Fetch, Recall, Store
from microtorrd.core.settings import SwarmSettings
from microtorrd.proto.extended import ExtendedHandshake
from microtorrd.proto.geometry import BLOCK_BYTES, MAX_REQUEST_BYTES
from microtorrd.proto.messages import Choke, Extended, Message, Reject, Unchoke
from tests.core.rig import INFO_HASH, Rig, of, told

QUICK = 500e6  # bytes a second
LARGE = MAX_REQUEST_BYTES


def words(largest_block: int | None = LARGE) -> Message:
    """An extended handshake as another microtorrd sends it."""
    said = ExtendedHandshake(m={}, reqq=2048, largest_block=largest_block, info_hash=INFO_HASH)
    return Extended(0, said.encode())


def joined(rig: Rig, number: int, *, largest_block: int | None = LARGE, rate: float = QUICK) -> None:
    """A seeder that says so, of which this rate was measured; it has not unchoked us yet."""
    rig.join(number, "all", extended=True, unchoke=False)
    rig.say(number, words(largest_block))
    rig.peer(number).pipeline.rate = rate


def sizes(rig: Rig, number: int) -> set[int]:
    return {slot.length for slot in rig.lent[number]}


def test_a_quick_peer_that_serves_large_blocks_is_asked_for_them() -> None:
    rig = Rig("....", blocks=20)
    joined(rig, 1)
    orders = rig.say(1, Unchoke())
    slots = of(orders, Fetch)[0].slots
    assert [(slot.begin, slot.length) for slot in slots][:2] == [(0, LARGE), (LARGE, LARGE)]
    assert rig.peer(1).pipeline.out == 16  # in blocks of the usual size
    rig.peer(1).pipeline.depth = 256
    rig.deliver(1)
    whole = [[slot.length for slot in rig.lent[1] if slot.piece == piece] for piece in rig.pieces_asked(1)]
    assert [LARGE, LARGE, 4 * BLOCK_BYTES] in whole


@pytest.mark.parametrize(
    ("largest_block", "rate"),
    [(None, QUICK), (LARGE, 1e6), (LARGE, 0.0), (BLOCK_BYTES, QUICK)],
    ids=["does not say", "slow", "never measured", "says 16 KiB"],
)
def test_others_are_asked_for_16_kib(largest_block: int | None, rate: float) -> None:
    rig = Rig("....", blocks=20)
    joined(rig, 1, largest_block=largest_block, rate=rate)
    rig.say(1, Unchoke())
    assert sizes(rig, 1) == {BLOCK_BYTES}


@pytest.mark.parametrize(
    ("said", "asked"),
    [(1 << 24, LARGE), (3 * BLOCK_BYTES + 1, 3 * BLOCK_BYTES), (BLOCK_BYTES - 1, BLOCK_BYTES)],
)
def test_what_a_peer_says_is_cut_to_whole_blocks_and_to_what_is_allowed(said: int, asked: int) -> None:
    rig = Rig("..", blocks=16)
    joined(rig, 1, largest_block=said)
    rig.say(1, Unchoke())
    assert max(sizes(rig, 1)) == asked


def test_we_say_what_we_serve() -> None:
    rig = Rig("x")
    orders = rig.connect(1, extended=True)
    said = next(m for m in told(orders, 1) if isinstance(m, Extended))
    assert ExtendedHandshake.decode(said.payload).largest_block == LARGE


def test_what_is_left_of_large_blocks_is_split_for_whoever_takes_over() -> None:
    rig = Rig(".", blocks=20)
    joined(rig, 1)
    rig.say(1, Unchoke())
    rig.deliver(1, 1)
    rig.leave(1)
    rig.join(2, "all")
    assert sizes(rig, 2) == {BLOCK_BYTES}
    assert len(rig.lent[2]) == 12
    assert of(rig.deliver(2), Store)


@pytest.mark.parametrize("rate", [1e6, 0.0])
def test_what_is_left_of_large_blocks_is_split_for_a_slower_peer(rate: float) -> None:
    rig = Rig(".", blocks=16)
    joined(rig, 1)
    rig.say(1, Unchoke())
    rig.deliver(1, 1)
    rig.leave(1)
    joined(rig, 2, rate=rate)
    rig.say(2, Unchoke())
    assert sizes(rig, 2) == {BLOCK_BYTES} and len(rig.lent[2]) == 8


def test_a_stalled_peer_loses_a_large_block_to_one_that_serves_only_small_ones() -> None:
    rig = Rig(".", blocks=8)
    joined(rig, 1)
    rig.say(1, Unchoke())
    (large,) = rig.lent[1]
    rig.join(2, "all")
    assert not rig.lent[2]
    orders = rig.tick(3)
    assert [(order.peer, list(order.slots)) for order in of(orders, Recall)] == [(1, [large])]
    assert sizes(rig, 2) == {BLOCK_BYTES} and len(rig.lent[2]) == 8
    # Its wire had the block by then, and the fact comes afterwards: too late, and no harm done.
    large.filled_by = 1
    rig.do(BlocksReceived(1, [large]))
    assert rig.core.swarm.wasted_bytes == LARGE
    assert of(rig.deliver(2), Store)


def test_a_stalled_peer_shares_a_large_block_with_one_that_serves_it() -> None:
    rig = Rig(".", blocks=8)
    joined(rig, 1)
    rig.say(1, Unchoke())
    joined(rig, 2)
    rig.say(2, Unchoke())
    rig.tick(3)
    assert rig.lent[1] == rig.lent[2] != []
    orders = rig.deliver(2)
    assert [order.peer for order in of(orders, Recall)] == [1]
    assert of(orders, Store)


def test_a_snubbed_peer_keeps_no_claim_on_large_blocks() -> None:
    rig = Rig("..", blocks=16, settings=SwarmSettings(request_timeout_s=5.0))
    joined(rig, 1)
    rig.say(1, Unchoke())
    assert sizes(rig, 1) == {LARGE}
    rig.tick(7)
    assert rig.peer(1).snubbed
    assert sizes(rig, 1) == {BLOCK_BYTES}  # one, to prove itself by
    rig.join(2, "all")
    rig.peer(2).pipeline.depth = 250
    rig.deliver(2, 1)
    assert sizes(rig, 2) == {BLOCK_BYTES}
    while rig.lent[2]:
        rig.deliver(2)
        rig.stored()
    rig.deliver(1)
    rig.stored()
    rig.deliver(2)
    rig.stored()
    assert rig.core.have.complete


def test_rejected_large_blocks_are_free_again() -> None:
    rig = Rig("..", blocks=16)
    joined(rig, 1)
    rig.say(1, Unchoke())
    slots = rig.lent[1][:]
    rig.lent[1] = []
    rig.say(1, Choke(), *(Reject(slot.piece, slot.begin, slot.length) for slot in slots))
    assert rig.peer(1).pipeline.out == 0
    rig.join(2, "all")
    assert sizes(rig, 2) == {BLOCK_BYTES}


def test_every_16_kib_of_a_corrupt_piece_has_its_giver() -> None:
    rig = Rig(".", blocks=16)
    joined(rig, 1)
    rig.say(1, Unchoke())
    rig.deliver(1, 1)
    rig.leave(1)
    rig.join(2, "all")
    rig.deliver(2)
    partial = rig.core.workshop.storing[0]
    assert partial.contributors() == [1] * 8 + [2] * 8
    rig.corrupt(0, [b"lie"] + [b"good"] * 15)  # who: one block of the first half is wrong
    rig.deliver(2)
    rig.stored(0)  # the digests of the good piece are all alike here
    assert rig.core.culprits._strikes == {"10.1.0.1": 1}


def test_shares_count_bytes_whatever_the_size_of_blocks() -> None:
    rig = Rig(".", blocks=16)
    joined(rig, 1)
    rig.say(1, Unchoke())
    rig.deliver(1, 1)
    rig.leave(1)
    rig.join(2, "all")
    rig.deliver(2)
    rig.stored()
    shares = rig.core.shares.summary(began_at=0.0, now=rig.now)["shares"]
    assert sorted(share["bytes"] for share in shares) == [LARGE, LARGE]
