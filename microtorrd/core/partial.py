"""A piece that is being fetched: its memory, its blocks, who is asked for which.

Every block is in one of three conditions:
- free: `holder` is None and it is in `free` (a snubbed peer may still owe it: then it is among `others`);
- asked: `holder` is the peer that is asked; `others` are peers asked as well (end game, snubbed ones);
- done: its bytes are here and counted; no holder.

`holders` counts for each peer what it holds, in whatever role; `Peer.partials` is the other end of the same
thread, and the peer's `pipeline.out` the sum over its partials. The methods here keep all three.

A piece is cut into blocks of one size, which is that of `BLOCK_BYTES` unless a quick peer that serves larger
ones begins it. All counts are in units of `BLOCK_BYTES`, also those begun: a block counts as its `units`.
A free block that is too large for who is asked next is split. So that this is always possible, nobody keeps a
claim on a large block that is free.

Blocks of nothing but padding (BEP 47) are zeros that we fill in ourselves: done from the beginning, given by
nobody, and in no count.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import cast

from microtorrd.core.peer import Peer
from microtorrd.core.slots import PieceBuffer, Slot
from microtorrd.proto.geometry import BLOCK_BYTES, Geometry

#: Who fills blocks of padding: no peer.
OURSELVES = -1

ZEROS = bytes(BLOCK_BYTES)


class Block(Slot):
    """A slot, and whom it is lent to."""

    __slots__ = ("done", "holder", "others", "units")

    def __init__(self, piece: int, begin: int, length: int, view: memoryview) -> None:
        # There are thousands a second: the slot's own part is spelled out, which saves a call.
        self.piece = piece
        self.begin = begin
        self.length = length
        self.view = view
        self.filled_by = self.claimed_by = None
        self.holder: Peer | None = None
        self.others: list[Peer] | None = None
        self.done = False
        self.units = -(-length // BLOCK_BYTES)


class Partial:
    """One piece on its way."""

    __slots__ = (
        "blocks",
        "buffer",
        "free",
        "givers",
        "holders",
        "left",
        "piece",
        "size",
        "solo",
        "touched_at",
        "units",
    )

    def __init__(
        self,
        buffer: PieceBuffer,
        geometry: Geometry,
        *,
        solo: bool,
        now: float,
        block_bytes: int = BLOCK_BYTES,
        zeros: Sequence[tuple[int, int]] = (),
    ) -> None:
        """`zeros`: what of it to fill in ourselves, see `Geometry.zero_blocks`."""
        self.piece = buffer.piece
        self.buffer = buffer
        self.units = geometry.block_count(buffer.piece)  # to be fetched, as are the bytes of `size`
        self.size = buffer.size
        self.blocks: list[Block] = []
        at = 0
        for begin, end in zeros:
            self.blocks += _cut(buffer, at, begin, block_bytes)
            self.blocks.append(filled := _filled(buffer, begin, end))
            self.units -= filled.units
            self.size -= filled.length
            at = end
        self.blocks += _cut(buffer, at, buffer.size, block_bytes)
        # To be asked next: the last of the list.
        self.free = self.blocks[::-1]
        if zeros:
            self.free = [block for block in self.free if not block.done]
        self.left = self.units  # not done
        self.holders: dict[Peer, int] = {}
        self.givers: dict[Peer, int] = {}  # what came from each
        self.solo = solo  # from one peer at a time, so that a culprit can be told
        self.touched_at = now  # when a block last came or was asked

    @property
    def untouched(self) -> bool:
        """No block has come yet."""
        return self.left == self.units

    def block_at(self, begin: int, length: int) -> Block | None:
        """The block of exactly these bounds, if we cut the piece so. The numbers may be anybody's."""
        at = self._index(begin)
        if at == len(self.blocks) or (self.blocks[at].begin, self.blocks[at].length) != (begin, length):
            return None
        return self.blocks[at]

    def _index(self, begin: int) -> int:
        return bisect_left(self.blocks, begin, key=attrgetter("begin"))

    # ------------------------------------------------------------------------------------ asking

    def lend(self, peer: Peer, most: int, now: float) -> list[Block]:
        """Ask this peer for free blocks, in order: one at least, then as long as they are no more than `most`
        units, none of them larger than suits it."""
        free, largest = self.free, peer.block_bytes()
        taken: list[Block] = []
        units = 0
        while free and units < most:
            block = free[-1]
            if block.length > largest:
                self.split(block)
                continue
            if taken and units + block.units > most:
                break
            free.pop()
            block.holder = peer
            taken.append(block)
            units += block.units
        self._count(peer, units, now)
        return taken

    def split(self, block: Block) -> None:
        """Cut a large block, the next of the free ones, into those of the size that everybody serves."""
        small = _cut(self.buffer, block.begin, block.begin + block.length, BLOCK_BYTES)
        at = self._index(block.begin)
        self.blocks[at : at + 1] = small
        self.free[-1:] = small[::-1]
        block.done = True  # whatever still comes for it is waste

    def lend_also(self, peer: Peer, blocks: Iterable[Block], now: float) -> None:
        """Ask this peer, too, for blocks that others hold."""
        added = 0
        for block in blocks:
            block.others = [*(block.others or ()), peer]
            added += block.units
        self._count(peer, added, now)

    def _count(self, peer: Peer, added: int, now: float) -> None:
        if added:
            self.holders[peer] = self.holders.get(peer, 0) + added
            peer.partials[self] = None
            peer.pipeline.asked(added, now)
            self.touched_at = now

    # ---------------------------------------------------------------------------------- receiving

    def arrived(self, peer: Peer, units: int, now: float) -> None:
        """So much that this peer alone held is done; the caller marked the blocks and tells its pipeline."""
        self.left -= units
        self.givers[peer] = self.givers.get(peer, 0) + units
        self.discount(peer, units)
        self.touched_at = now

    def arrived_oddly(self, block: Block, peer: Peer, now: float) -> list[Peer]:
        """One block is done that is not held by this peer alone. Returns all who held it, none of whom does
        any more; the pipelines of those others than `peer` know it."""
        holders = [other for other in (block.holder, *(block.others or ())) if other is not None]
        if block.holder is None:
            self.free.remove(block)
        block.holder = block.others = None
        block.done = True
        units = block.units
        self.left -= units
        self.givers[peer] = self.givers.get(peer, 0) + units
        self.touched_at = now
        for holder in holders:
            self.discount(holder, units)
            if holder is not peer:
                holder.pipeline.lost(units)
        return holders

    def discount(self, peer: Peer, units: int) -> None:
        """The peer holds so much less (its pipeline is told by the caller)."""
        rest = self.holders[peer] - units
        if rest:
            self.holders[peer] = rest
        else:
            del self.holders[peer]
            del peer.partials[self]

    # ------------------------------------------------------------------------------- taking back

    def take_back(self, peer: Peer) -> list[Block]:
        """The peer will send nothing more: what it alone was asked for is free again. Returns its blocks."""
        # The last one first: what is freed last is asked first, and neighbours are best asked in order.
        return [block for block in reversed(self.blocks) if self.release(block, peer)]

    def release(self, block: Block, peer: Peer) -> bool:
        """The peer will not send this block. False when it was not asked for it."""
        if block.holder is peer:
            others = block.others
            if others:  # another one that is asked already takes over
                block.holder = others[0]
                block.others = others[1:] or None
            else:
                block.holder = None
                self.free.append(block)
        elif block.others is not None and peer in block.others:
            block.others = [other for other in block.others if other is not peer] or None
        else:
            return False
        self.discount(peer, block.units)
        peer.pipeline.lost(block.units)
        return True

    def doubt(self, peer: Peer) -> list[Block]:
        """The peer is snubbed: whatever it holds may be asked of somebody else, yet it may still come. Large
        blocks are taken back and returned: nobody else may serve them as they are."""
        taken: list[Block] = []
        for block in reversed(self.blocks):
            if block.units > 1:
                if self.release(block, peer):
                    taken.append(block)
            elif block.holder is peer:
                others = block.others
                block.holder = None
                if others and (better := next((o for o in others if not o.snubbed), None)):
                    block.holder = better
                    others = [other for other in others if other is not better]
                else:
                    self.free.append(block)
                block.others = [*(others or ()), peer]
        return taken

    def trust(self, peer: Peer) -> None:
        """The reverse of `doubt`: the peer sends again."""
        for block in self.blocks:
            if block.others is not None and peer in block.others and block.holder is None:
                block.holder = peer
                block.others = [other for other in block.others if other is not peer] or None
                self.free.remove(block)

    def lent(self) -> dict[Peer, Sequence[Block]]:
        """All blocks that are lent now, by peer."""
        lent: dict[Peer, list[Block]] = {}
        for block in self.blocks:
            if block.holder is not None:
                lent.setdefault(block.holder, []).append(block)
            for other in block.others or ():
                lent.setdefault(other, []).append(block)
        return dict(lent)

    def contributors(self) -> list[int | None]:
        """Which peer each unit came from, in order."""
        return [block.filled_by for block in self.blocks for _ in range(block.units)]

    def wasted(self) -> int:
        """The bytes that came for nothing when all of it is given up."""
        return sum(block.length for block in self.blocks if block.done and block.filled_by != OURSELVES)


def _cut(buffer: PieceBuffer, begin: int, end: int, size: int) -> list[Block]:
    """This part of the piece in blocks of `size` bytes; the last one may be shorter."""
    piece, view = buffer.piece, buffer.view
    rest = end - (end - begin) % size
    blocks = [Block(piece, at, size, view[at : at + size]) for at in range(begin, rest, size)]
    if rest < end:
        blocks.append(Block(piece, rest, end - rest, view[rest:end]))
    return blocks


def _filled(buffer: PieceBuffer, begin: int, end: int) -> Block:
    """This part of the piece as one block that is zeros and done."""
    view = buffer.view[begin:end]
    for at in range(0, len(view), BLOCK_BYTES):  # the memory was used before
        view[at : at + BLOCK_BYTES] = ZEROS[: len(view) - at]
    block = Block(buffer.piece, begin, end - begin, view)
    block.filled_by = OURSELVES
    block.done = True
    return block


def reopen(slots: Iterable[Slot], peer: int) -> None:
    """The peer is gone, and its word on these comes too late to count: others may fill them."""
    for block in cast("Iterable[Block]", slots):  # the slots that come back are those that were lent here
        if not block.done and block.filled_by == peer:
            block.filled_by = None
