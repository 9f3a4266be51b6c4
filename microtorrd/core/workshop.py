"""The pieces in the making: which are begun, which are with the disk, whose memory they lie in.

Rules:
- a piece is in `partials` from its first request until it is full, then in `storing` until the disk spoke;
- what is in neither and is needed is in the picker's `todo`;
- memory comes from `lend`; without any we are `starved` until the host says that some is free;
- before memory is given away its blocks are recalled from whoever they are lent to;
- memory in a piece without a source goes back when somebody needs it, or after `ORPHAN_S`;
- padding is filled in here, also pieces of nothing else, unless the piece came out wrong before: then what
  peers say it is decides.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from bitarray import bitarray

from microtorrd.core.events import Recall, Release, Store
from microtorrd.core.partial import Partial
from microtorrd.core.picker import Picker, blank
from microtorrd.core.slots import PieceBuffer
from microtorrd.core.swarm import Swarm
from microtorrd.proto.geometry import BLOCK_BYTES

#: Pieces of padding that are with the disk at a time.
BLANKS_AT_ONCE = 16

#: Memory in a piece without a source is kept this long in case the source comes back.
ORPHAN_S = 60.0


class Workshop:
    """Pieces being fetched and stored, of one torrent."""

    __slots__ = (
        "_blanks",
        "_lend",
        "_suspicious",
        "_swarm",
        "open",
        "partials",
        "picker",
        "starved",
        "stirred",
        "storing",
    )

    def __init__(
        self,
        swarm: Swarm,
        *,
        lend: Callable[[int], memoryview | None],
        suspicious: Callable[[int], bool],
    ) -> None:
        self._swarm = swarm
        self._lend = lend
        self._suspicious = suspicious  # came out wrong before: from one peer alone, with digests
        self.starved = False
        self.stirred = False  # blocks became free: everybody with room should look again
        self.partials: dict[int, Partial] = {}
        self.storing: dict[int, Partial] = {}
        self.open: dict[Partial, None] = {}  # all partials with free blocks, and some that had them
        self.picker = self._new_picker()
        self._blanks: bitarray | None = None  # pieces that are nothing but padding
        for pieces in swarm.geometry.zero_pieces():
            if self._blanks is None:
                self._blanks = blank(swarm.geometry.piece_count)
            self._blanks[pieces.start : pieces.stop] = 1

    def _new_picker(self) -> Picker:
        swarm = self._swarm
        return Picker(
            swarm.have.bits,
            chance=swarm.chance,
            availability=swarm.availability,
            wanted=swarm.wishes.bits,
            ranks=swarm.wishes.ranks,
            sequential=swarm.choices.sequential,
        )

    def start_over(self) -> None:
        """What we have was counted anew; nobody is connected and nothing is begun."""
        self.picker = self._new_picker()
        for piece in self.storing:
            if self.picker.todo[piece]:
                self.picker.take(piece)

    def wish_again(self) -> None:
        """Other pieces are wanted now: what is begun and is not among them is given up."""
        picker, wishes = self.picker, self._swarm.wishes
        begun = blank(len(picker.needed))
        for piece in (*self.partials, *self.storing):
            begun[piece] = 1
        picker.want(wishes.needed(self._swarm.have.bits), begun, wishes.ranks)
        for piece, partial in list(self.partials.items()):
            if not picker.needed[piece]:
                self.abandon(partial)
        self.stirred = True

    def begin(self, piece: int, now: float, block_bytes: int = BLOCK_BYTES) -> Partial | None:
        """Get memory for this piece of `todo` and begin it, in blocks of this size. None: there is none."""
        size = self._swarm.geometry.piece_size(piece)
        memory = self._lend(size)
        if memory is None:
            self.starved = True
            self.give_back_orphans()
            return None
        self.picker.take(piece)
        suspicious = self._suspicious(piece)
        partial = Partial(
            PieceBuffer(piece, size, memory),
            self._swarm.geometry,
            solo=suspicious,
            now=now,
            block_bytes=block_bytes,
            zeros=() if suspicious else self._swarm.geometry.zero_blocks(piece),
        )
        self.partials[piece] = partial
        self.open[partial] = None
        return partial

    def make_blanks(self, now: float) -> None:
        """Pieces of nothing but padding come from nobody: they are made, a few at a time."""
        if self._blanks is None or self.starved:
            return
        todo = self._blanks & self.picker.todo
        for piece in islice(todo.search(1), max(0, BLANKS_AT_ONCE - len(self.storing))):
            if self._suspicious(piece):
                self._blanks[piece] = 0  # what is hashed is no zeros: peers may know more
                continue
            partial = self.begin(piece, now)
            if partial is None:
                return
            self.store(partial)

    def store(self, partial: Partial) -> None:
        """All of its blocks are here: to the disk with it."""
        del self.partials[partial.piece]
        self.open.pop(partial, None)
        self.storing[partial.piece] = partial
        self._swarm.orders.append(Store(partial.buffer, self._suspicious(partial.piece)))

    def stored(self, piece: int) -> Partial | None:
        """The disk spoke about this piece, whatever it said. None: it was not asked by us."""
        partial = self.storing.pop(piece, None)
        if partial is not None and not partial.units:
            self.stirred = True  # the next piece of padding
        return partial

    def put_back(self, piece: int) -> None:
        """The piece came to nothing and is to be fetched again."""
        self.picker.put_back(piece)
        self.stirred = True

    def freed(self, partial: Partial) -> None:
        """Some of its blocks may be free again."""
        if partial.untouched and not partial.holders:
            self.abandon(partial)  # nothing lost: it can be chosen afresh
        elif partial.free:
            self.open[partial] = None
        self.stirred = True

    def abandon(self, partial: Partial) -> None:
        """Give a piece's memory back; whoever was asked for it is told."""
        swarm = self._swarm
        for peer, blocks in partial.lent().items():
            for block in blocks:
                partial.release(block, peer)
            swarm.orders.append(Recall(peer.number, blocks))
        swarm.wasted_bytes += partial.wasted()
        for block in partial.blocks:
            block.done = True  # whatever still comes for it is waste
        partial.free.clear()
        del self.partials[partial.piece]
        self.open.pop(partial, None)
        self.picker.put_back(partial.piece)
        swarm.orders.append(Release(partial.buffer))

    def give_back_orphans(self, touched_before: float | None = None) -> None:
        """Pieces that nobody can go on with give their memory back (only those idle since then)."""
        for partial in list(self.partials.values()):
            idle = touched_before is None or partial.touched_at < touched_before
            if idle and not self._has_source(partial):
                self.abandon(partial)

    def clear(self) -> None:
        """Nobody is connected any more: what was begun is given up."""
        for partial in list(self.partials.values()):
            self.abandon(partial)
        self.starved = self.stirred = False

    def _has_source(self, partial: Partial) -> bool:
        return any(
            not peer.snubbed and peer.am_interested and peer.would_serve(partial.piece)
            for peer in self._swarm.peers.values()
        )
