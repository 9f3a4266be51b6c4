"""What we ask of whom: pieces begun, blocks lent, the end game, memory.

The order in which a peer with room is given work:
1. more of the piece that it works on;
2. a piece that somebody began and nobody works on;
3. a new piece, the rarest it has (only what it suggests, of a microtorrd that hands its pieces out);
4. free blocks of pieces that others work on. For a slow peer, or when memory is short, this comes before 3;
5. blocks that are late elsewhere (`endgame.py`).

Rules: the first copy of a block to arrive recalls the others; what a peer will not send is free for others at
once; nothing is asked before `enabled`. The pieces themselves are kept in `workshop.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from bitarray.util import count_and

from microtorrd.core.endgame import late_blocks
from microtorrd.core.events import Fetch, Recall
from microtorrd.core.partial import Block, Partial
from microtorrd.core.peer import LEAST_BLOCKS, Peer
from microtorrd.core.slots import Slot
from microtorrd.core.swarm import Swarm
from microtorrd.core.workshop import ORPHAN_S, Workshop
from microtorrd.proto.messages import Interested, NotInterested, Reject

#: A peer that needs longer than this for a whole piece joins pieces that are begun instead of beginning more.
SLOW_PIECE_S = 20.0

#: A seeder that hands its pieces out is asked for nothing else until it has been silent this long, or for as
#: long as two pieces of it take, up to the second figure: when it has handed out everything, others are still
#: getting their parts, as fast as we got ours, and what it were asked for now it would send twice.
HAND_PATIENCE_S = 0.5
HAND_PATIENCE_MOST_S = 10.0

#: A peer that choked us has to reject what it will not send (BEP 6); not all do, so we wait this long.
REJECTS_S = 10.0


class Fetching:
    """The fetching side of one torrent."""

    __slots__ = ("_swarm", "_workshop", "enabled")

    def __init__(self, swarm: Swarm, workshop: Workshop) -> None:
        self._swarm = swarm
        self._workshop = workshop
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
        pipeline = peer.pipeline
        room = pipeline.depth - pipeline.out
        return (
            self.enabled
            and peer.am_interested
            # A deep pipeline is refilled by the eighth, not by the block.
            and room > 0
            and (room >= pipeline.depth >> 3 or pipeline.out <= LEAST_BLOCKS)
            and (not peer.peer_choking or bool(peer.allowed))
            and peer.condemned is None
        )

    def _hand_out(self, ready: list[Peer], now: float) -> None:
        """Give work to these, the last first but for the lot, a piece at a time.

        What is lent is ordered at once: when memory runs short amid this, a piece that was given to
        a snubbed peer just now may be given up again, and its recall has to come after its request.
        """
        swarm = self._swarm
        by_lot, chance = swarm.settings.random_peer_share, swarm.chance.random
        given: dict[Peer, list[Slot]] = {}  # the lists of the orders, as long as nothing was recalled since
        orders = swarm.orders
        while ready:
            at = int(chance() * len(ready)) if len(ready) > 1 and chance() < by_lot else -1
            peer = ready[at]
            ordered = len(orders)
            blocks = self._next(peer, peer.room(), now)
            more = bool(blocks)
            if not more and not self._is_handing(peer):
                # Nothing is free for it: once, and no more, it may help with what is late.
                blocks = self._late(peer, peer.room(), now)
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

    def _next(self, peer: Peer, room: int, now: float) -> Sequence[Block]:
        """Some free blocks for a peer with room, now lent to it; empty: there are none for it."""
        current = peer.current
        if current is not None and current.free and self._may_ask(peer, current):
            return current.lend(peer, self._least(peer, current, room), now)
        partial: Partial | None = None
        if self._is_handing(peer):
            partial = self._handed_again(peer) or self._begin(peer, now)
            if partial is None and self._is_handing(peer):
                return ()
        if partial is None:
            orphan, joinable = self._begun(peer)
            if orphan is None and joinable is not None and (self._workshop.starved or self._is_slow(peer)):
                orphan = joinable
            partial = orphan or self._begin(peer, now) or joinable
        if partial is None:
            return ()
        peer.current = partial
        return partial.lend(peer, self._least(peer, partial, room), now)

    def _is_handing(self, peer: Peer) -> bool:
        """Whether it is asked for nothing but the pieces that it hands to us.

        What others began is theirs to finish: somebody whom the seeder does not see may have given it to
        them, and it would send that piece twice. Where memory is short whatever is begun has to end.
        """
        return peer.handing and not self._workshop.picker.has_an_order and not self._workshop.starved

    def _least(self, peer: Peer, partial: Partial, room: int) -> int:
        """How many of the free blocks to ask for; of some peers a piece comes as a whole anyway."""
        return max(room, partial.units) if peer.whole_pieces else room

    def _begun(self, peer: Peer) -> tuple[Partial | None, Partial | None]:
        """Of the pieces with free blocks: one that nobody works on, or else the one nearest its end."""
        joinable: Partial | None = None
        stale: list[Partial] = []
        orphan: Partial | None = None
        for partial in self._workshop.open:
            if not partial.free:
                stale.append(partial)
            elif self._may_ask(peer, partial):
                if not any(holder is not peer and not holder.snubbed for holder in partial.holders):
                    orphan = partial
                    break
                if not partial.solo and (joinable is None or partial.left < joinable.left):
                    joinable = partial
        for partial in stale:
            del self._workshop.open[partial]
        return orphan, joinable

    def _begin(self, peer: Peer, now: float) -> Partial | None:
        """A new piece for this peer, None: there is none, or no memory."""
        workshop = self._workshop
        while not workshop.starved and (piece := self._choose(peer, now)) is not None:
            partial = workshop.begin(piece, now, peer.block_bytes())
            if partial is None or partial.left:
                return partial
            workshop.store(partial)  # nothing but padding
        return None

    def _choose(self, peer: Peer, now: float) -> int | None:
        picker = self._workshop.picker
        if peer.peer_choking:
            return next((piece for piece in peer.allowed if picker.todo[piece] and peer.has(piece)), None)
        if peer.handing and not picker.has_an_order:
            piece = self._handed(peer)
            if piece is not None:
                return piece
            if peer.pipeline.out or now - max(peer.hinted_at, peer.fetched_at) < self._hand_patience_s(peer):
                return None
            peer.handing = False  # it has nothing more to hand out: choose freely
        offered = None
        if not peer.is_seed or peer.refused:
            if peer.have is None:
                return None
            offered = peer.have.bits
            if peer.refused:
                offered = offered.copy()
                for piece in peer.refused:
                    offered[piece] = 0
        piece = picker.pick(offered, hints=self._neighbour(peer) if peer.web_seed else peer.hints)
        if piece is not None:
            peer.hints.pop(piece, None)
        return piece

    def _handed_again(self, peer: Peer) -> Partial | None:
        """A piece that this seeder hands to us and that we have a part of: it choked us amid it."""
        for piece in peer.hints:
            partial = self._workshop.partials.get(piece)
            if partial is not None and partial.free and self._may_ask(peer, partial):
                del peer.hints[piece]
                return partial
        return None

    def _hand_patience_s(self, peer: Peer) -> float:
        rate = peer.pipeline.rate
        two_s = 2 * self._swarm.geometry.piece_length / rate if rate else 0.0
        return min(max(HAND_PATIENCE_S, two_s), HAND_PATIENCE_MOST_S)

    def _neighbour(self, peer: Peer) -> Sequence[int]:
        """The piece that follows: what a web seed is asked for at a time should be one long range."""
        following = 0 if peer.current is None else peer.current.piece + 1
        return (following,) if following < self._swarm.geometry.piece_count else ()

    def _handed(self, peer: Peer) -> int | None:
        """The next piece that this seeder hands to us, unless somebody else has it by now."""
        todo, availability = self._workshop.picker.todo, self._swarm.availability
        while peer.hints:
            piece = next(iter(peer.hints))
            del peer.hints[piece]
            if todo[piece] and availability[piece] <= availability.seeds and piece not in peer.refused:
                return piece
        return None

    def _late(self, peer: Peer, room: int, now: float) -> Sequence[Block]:
        workshop = self._workshop
        nothing_left = not workshop.picker.todo_count and not any(partial.free for partial in workshop.open)
        asked: list[Block] = []
        for partial, blocks in late_blocks(
            peer,
            self._swarm.peers.values(),
            self._may_ask,
            most=room,
            now=now,
            stalled_only=not (nothing_left or workshop.starved),
        ):
            large = [block for block in blocks if block.length > peer.largest_block]
            for block in large:
                self._break_up(partial, block)
                asked += partial.lend(peer, block.units, now)
            if len(large) < len(blocks):
                copies = [block for block in blocks if block.length <= peer.largest_block]
                partial.lend_also(peer, copies, now)
                asked += copies
        return asked

    def _break_up(self, partial: Partial, block: Block) -> None:
        """A block is late that is too large for others: it is taken back whole, to be asked in parts."""
        for holder in (block.holder, *(block.others or ())):
            if holder is not None:
                partial.release(block, holder)
                self._swarm.orders.append(Recall(holder.number, [block]))
        partial.split(block)
        self._workshop.open[partial] = None

    def _may_ask(self, peer: Peer, partial: Partial) -> bool:
        piece = partial.piece
        return (
            peer.would_serve(piece)
            and piece not in peer.refused
            and (not partial.solo or all(holder is peer or holder.snubbed for holder in partial.holders))
        )

    def _is_slow(self, peer: Peer) -> bool:
        rate = peer.pipeline.rate
        return bool(rate) and self._swarm.geometry.piece_length > rate * SLOW_PIECE_S

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
