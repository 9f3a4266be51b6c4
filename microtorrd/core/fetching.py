"""Who is given work when, and what becomes of it: blocks arrive, or will not come.

Which work a peer is given says `assignment.py`; the pieces that are begun are kept in `workshop.py`.

Rules: the first copy of a block to arrive recalls the others; what a peer will not send is free for others at
once; nothing is asked before `enabled`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from bitarray.util import count_and

from microtorrd.core.assignment import Assignment
from microtorrd.core.events import Fetch, Recall
from microtorrd.core.partial import Block, Partial
from microtorrd.core.peer import Peer
from microtorrd.core.slots import Slot
from microtorrd.core.swarm import Swarm
from microtorrd.core.workshop import ORPHAN_S, Workshop
from microtorrd.proto.messages import Interested, NotInterested, Reject

#: A peer that choked us has to reject what it will not send (BEP 6); not all do, so we wait this long.
REJECTS_S = 10.0


class Fetching:
    """The fetching side of one torrent."""

    __slots__ = ("_assignment", "_swarm", "_workshop", "enabled")

    def __init__(self, swarm: Swarm, workshop: Workshop) -> None:
        self._swarm = swarm
        self._workshop = workshop
        self._assignment = Assignment(swarm, workshop)
        self.enabled = False  # running, and what was to be waited for is there

    # --------------------------------------------------------------------------------- blocks arrive

    def received(self, peer: Peer, slots: Sequence[Slot], now: float) -> int:
        """Blocks are in their slots. Returns the bytes that were of use. The hot path: no call a block."""
        blocks = cast("Sequence[Block]", slots)  # the slots that come back are those that were lent here
        if peer.snubbed:
            self._forgive(peer)
        useful = count = run = 0  # the last two in units
        partial: Partial | None = None
        crossed: dict[Peer, list[Slot]] = {}
        partials = self._workshop.partials
        for block in blocks:
            if block.holder is not peer or block.others is not None:
                held = self._received_oddly(block, peer, crossed, now)
                if held is not None:
                    useful += block.length
                    count += held
                continue
            if partial is None or block.piece != partial.piece:
                if partial is not None:
                    self._arrived(partial, peer, run, now)
                    count += run
                partial, run = partials[block.piece], 0
            block.holder = None
            block.done = True
            run += block.units
            useful += block.length
        if partial is not None:
            self._arrived(partial, peer, run, now)
            count += run
        peer.fetched_at = now
        if count:
            peer.pipeline.received(count, useful, now)
        for loser, copies in crossed.items():
            self._swarm.orders.append(Recall(loser.number, copies))
        self.refill(peer, now)
        for loser in crossed:
            self.refill(loser, now)
        return useful

    def _arrived(self, partial: Partial, peer: Peer, units: int, now: float) -> None:
        partial.arrived(peer, units, now)
        if not partial.left:
            self._workshop.store(partial)

    def _received_oddly(
        self, block: Block, peer: Peer, crossed: dict[Peer, list[Slot]], now: float
    ) -> int | None:
        """A block that is not asked of this peer alone. How much of what it was asked for is it? None: it is
        of no use."""
        if block.done:
            self._swarm.wasted_bytes += block.length
            return None
        partial = self._workshop.partials[block.piece]
        holders = partial.arrived_oddly(block, peer, now)
        for holder in holders:
            if holder is not peer:
                crossed.setdefault(holder, []).append(block)
        if not partial.left:
            self._workshop.store(partial)
        return block.units if peer in holders else 0

    # ------------------------------------------------------------------------------------- asking

    def refill(self, peer: Peer, now: float) -> None:
        """Ask this peer for as much as it has room for."""
        if self._ready(peer):
            self._hand_out([peer], now)

    def refill_all(self, now: float) -> None:
        """Ask everybody with room; the fastest first in most choices, one by lot in the others."""
        self._workshop.stirred = False
        if self.enabled:
            self._workshop.make_blanks(now)
        ready = [peer for peer in self._swarm.peers.values() if self._ready(peer)]
        ready.sort(key=lambda peer: peer.pipeline.rate or float("inf"))  # a new one is tried at once
        self._hand_out(ready, now)

    def _ready(self, peer: Peer) -> bool:
        return (
            self.enabled
            and peer.am_interested
            and peer.room() > 0
            and (not peer.peer_choking or bool(peer.allowed))
            and peer.condemned is None
        )

    def _hand_out(self, ready: list[Peer], now: float) -> None:
        """Give work to these, the last first but for the lot, a piece at a time.

        What is lent is ordered at once: when memory runs short amid this, a piece that was given to
        a snubbed peer just now may be given up again, and its recall has to come after its request.
        """
        swarm = self._swarm
        by_lot, chance, assignment = swarm.settings.random_peer_share, swarm.chance.random, self._assignment
        given: dict[Peer, list[Slot]] = {}  # the lists of the orders, as long as nothing was recalled since
        orders = swarm.orders
        while ready:
            at = int(chance() * len(ready)) if len(ready) > 1 and chance() < by_lot else -1
            peer = ready[at]
            ordered = len(orders)
            blocks = assignment.next(peer, peer.room(), now)
            more = bool(blocks)
            if not more and not assignment.is_handing(peer):
                # Nothing is free for it: once, and no more, it may help with what is late.
                blocks = assignment.late(peer, peer.room(), now)
            if len(orders) != ordered:
                given.clear()
            if blocks:
                if peer not in given:
                    given[peer] = []
                    orders.append(Fetch(peer.number, given[peer]))
                    asked = sum(block.units for block in blocks)
                    if peer.pipeline.out == asked:  # it was asked for nothing: patience begins now
                        peer.fetched_at = now
                    if swarm.began_at is None:
                        swarm.began_at = now
                given[peer] += blocks
            if not more or peer.room() <= 0:
                del ready[at]

    # ------------------------------------------------------------------------- blocks that will not come

    def choked(self, peer: Peer, now: float) -> None:
        """The peer will not answer: at once, or (fast) as soon as it has rejected each request."""
        if peer.fast:
            peer.fetched_at = now
        else:
            self._take_back(peer, recall=True, cancel=False)

    def rejected(self, peer: Peer, message: Reject) -> None:
        """The peer will not send a block (its wire knows). ProtocolError when there is no such block."""
        piece, begin, length = self._swarm.geometry.admit_request(*message)
        partial = self._workshop.partials.get(piece)
        block = None if partial is None else partial.block_at(begin, length)
        if partial is None or block is None or not partial.release(block, peer):
            self._swarm.hear_noise(peer)  # it crossed with our cancel
            return
        peer.allowed.discard(piece)
        if not peer.peer_choking:
            # It has its reasons: too much asked at a time, or it has lost the piece. Ask less, and others.
            peer.refused.add(piece)
            peer.pipeline.cut()
        self._workshop.freed(partial)

    def lost(self, peer: Peer, piece: int) -> None:
        """The peer has this piece no more: what was asked of it there is asked of others."""
        peer.hints.pop(piece, None)
        peer.allowed.discard(piece)
        partial = self._workshop.partials.get(piece)
        taken = [] if partial is None else partial.take_back(peer)
        if partial is not None and taken:
            self._swarm.orders.append(Recall(peer.number, taken))
            self._workshop.freed(partial)

    def left(self, peer: Peer) -> None:
        """The connection is closed."""
        self._take_back(peer, recall=False)

    def _take_back(self, peer: Peer, *, recall: bool, cancel: bool = True) -> None:
        touched = list(peer.partials)
        taken: list[Slot] = [block for partial in touched for block in partial.take_back(peer)]
        if taken and recall:
            self._swarm.orders.append(Recall(peer.number, taken, cancel))
        for partial in touched:
            self._workshop.freed(partial)

    def watch(self, now: float) -> None:
        """Once a second: peers that answer no more, blocks that became late, memory that lies idle."""
        timeout_s = self._swarm.settings.request_timeout_s
        for peer in self._swarm.peers.values():
            if not peer.pipeline.out:
                continue
            silent_s = now - peer.fetched_at
            if peer.peer_choking and not peer.allowed and silent_s > REJECTS_S:
                self._take_back(peer, recall=True)
            elif silent_s > timeout_s and not peer.snubbed:
                self._snub(peer)
        self._workshop.give_back_orphans(touched_before=now - ORPHAN_S)
        if self.enabled:
            self.refill_all(now)

    def _snub(self, peer: Peer) -> None:
        peer.snubbed = True
        peer.pipeline.shrink()
        touched = list(peer.partials)
        taken: list[Slot] = [block for partial in touched for block in partial.doubt(peer)]
        if taken:
            self._swarm.orders.append(Recall(peer.number, taken))
        for partial in touched:
            self._workshop.freed(partial)

    def _forgive(self, peer: Peer) -> None:
        peer.snubbed = False
        for partial in peer.partials:
            partial.trust(peer)

    def memory_freed(self, now: float) -> None:
        """There may be memory for new pieces again."""
        self._workshop.starved = False
        self.refill_all(now)

    def stop(self) -> None:
        """Everybody is gone: what was begun is given up."""
        self.enabled = False
        self._workshop.clear()

    # -------------------------------------------------------------------------------------- interest

    def recount(self, peer: Peer) -> None:
        """What we need has changed: what of it does this peer offer?"""
        if not peer.is_seed and peer.have is not None:
            peer.offers = count_and(peer.have.bits, self._workshop.picker.needed)
        self.show_interest(peer)

    def show_interest(self, peer: Peer) -> None:
        """Tell the peer whether it has anything we need, when that has changed."""
        interested = bool(self._workshop.picker.needed_count if peer.is_seed else peer.offers)
        if interested != peer.am_interested:
            peer.am_interested = interested
            self._swarm.tell(peer, Interested() if interested else NotInterested())
