"""What a peer with room is asked for next.

The order in which it is given work:
1. more of the piece that it works on;
2. a piece that somebody began and nobody works on;
3. a new piece, the rarest it has (only what it suggests, of a microtorrd that hands its pieces out);
4. free blocks of pieces that others work on. For a slow peer, or when memory is short, this comes before 3;
5. blocks that are late elsewhere (`endgame.py`).

What is given is lent at once. To whom work is given, and when, is decided in `fetching.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from microtorrd.core.endgame import late_blocks
from microtorrd.core.events import Recall
from microtorrd.core.partial import Block, Partial
from microtorrd.core.peer import Peer
from microtorrd.core.swarm import Swarm
from microtorrd.core.workshop import Workshop

#: A peer that needs longer than this for a whole piece joins pieces that are begun instead of beginning more.
SLOW_PIECE_S = 20.0

#: A seeder that hands its pieces out is asked for nothing else until it has been silent this long, or for as
#: long as two pieces of it take, up to the second figure: when it has handed out everything, others are still
#: getting their parts, as fast as we got ours, and what it were asked for now it would send twice.
HAND_PATIENCE_S = 0.5
HAND_PATIENCE_MOST_S = 10.0


class Assignment:
    """The work that there is for the peers of one torrent."""

    __slots__ = ("_swarm", "_workshop")

    def __init__(self, swarm: Swarm, workshop: Workshop) -> None:
        self._swarm = swarm
        self._workshop = workshop

    def next(self, peer: Peer, room: int, now: float) -> Sequence[Block]:
        """Some free blocks for a peer with room, now lent to it; empty: there are none for it."""
        current = peer.current
        if current is not None and current.free and self._may_ask(peer, current):
            return current.lend(peer, self._least(peer, current, room), now)
        partial: Partial | None = None
        if self.is_handing(peer):
            partial = self._handed_again(peer) or self._begin(peer, now)
            if partial is None and self.is_handing(peer):
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

    def late(self, peer: Peer, room: int, now: float) -> Sequence[Block]:
        """Blocks that are late elsewhere, and that this peer may have sooner: also lent to it now."""
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

    def is_handing(self, peer: Peer) -> bool:
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
