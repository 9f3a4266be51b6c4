"""The payload that is arriving on one connection, and where it goes: into its slot, aside, or nowhere.

Rules
- Bytes go into a slot only while it is lent and open, and in parts only after it was claimed.
- Where another wire has claimed the slot the block is collected aside, and put into the slot at once when it
  is whole, if the slot is open then. So a block never consists of the bytes of two peers, and a peer that
  stops in the middle of one holds up nobody.
"""

from __future__ import annotations

from typing import Generic

from microtorrd.proto.received import Received, S


class Arrival(Generic[S]):
    """At most one block, or one frame that nobody wants, at a time."""

    __slots__ = ("_aside", "_at", "_block", "_out", "_peer", "_skip", "_waste")

    def __init__(self, peer: int, out: Received[S]) -> None:
        self._peer = peer
        self._out = out  # where blocks go that are whole
        self._block: S | None = None  # its payload is arriving …
        self._at = 0  # … and this much is in its slot, which we claimed …
        self._aside: bytearray | None = None  # … or in here, because another wire has claimed it
        self._skip = 0  # bytes to come that nobody wants
        self._waste = 0  # of which this many bytes of payload count as waste once they are through

    @property
    def in_row(self) -> bool:
        """The next bytes are to be given to `take`."""
        return self._skip > 0 or self._aside is not None

    @property
    def block(self) -> S | None:
        """The block whose payload is arriving for its slot."""
        return self._block

    def place(self) -> memoryview | None:
        """The rest of the slot, where the next bytes should lie."""
        block = self._block
        if block is None:
            return None
        if block.filled_by is not None:  # another peer was faster
            self.give_up()
        elif self._aside is None:
            return block.view[self._at :]
        return None

    def landed(self, n: int) -> int:
        """`n` bytes were read, first of all into `place()`; how many came after it."""
        block = self._block
        if block is None or self._aside is not None:
            return n
        missing = block.length - self._at
        if n < missing:
            self._at += n
            return 0
        block.filled_by = self._peer
        self._block = None
        self._out.blocks().slots.append(block)
        return n - missing

    def begin_in_place(self, slot: S, arrived: int) -> None:
        """The first bytes of this block lie in its slot, which is open and unclaimed; more are to come."""
        slot.claimed_by = self._peer
        self._block, self._at = slot, arrived

    def begin(self, slot: S | None, length: int, view: memoryview, pos: int, end: int) -> int:
        """A block's payload stands in `view` from `pos` on, as far as it has come; where the rest begins."""
        if slot is None or slot.filled_by is not None:
            return pos + self.skip(length, end - pos, waste=length)
        stop = pos + length
        if stop <= end:
            slot.view[:] = view[pos:stop]
            slot.filled_by = self._peer
            self._out.blocks().slots.append(slot)
            return stop
        if slot.claimed_by is None:
            slot.view[: end - pos] = view[pos:end]
            self.begin_in_place(slot, end - pos)
        else:
            self._block, self._aside = slot, bytearray(view[pos:end])
        return end

    def skip(self, length: int, n: int, *, waste: int = 0) -> int:
        """Nobody wants the next `length` bytes, and `n` are here; how many of those are dropped."""
        self._skip, self._waste = length, waste
        return self._drop(n)

    def take(self, view: memoryview, end: int) -> int:
        """More has come that does not lie in a slot; how much of it was ours."""
        block, aside = self._block, self._aside
        if block is None or aside is None:
            return self._drop(end)
        taken = min(block.length - len(aside), end)
        aside += view[:taken]
        if len(aside) == block.length:
            self._block, self._aside = None, None
            if block.filled_by is None:
                block.view[:] = aside
                block.filled_by = self._peer
                self._out.blocks().slots.append(block)
            else:
                self._count_waste(block.length)
        return taken

    def give_up(self) -> None:
        """The slot of the arriving block, if any, is no longer ours: the rest of the payload is skipped."""
        block = self._block
        if block is None:
            return
        if self._aside is None:
            arrived = self._at
            if block.claimed_by == self._peer:
                block.claimed_by = None
        else:
            arrived = len(self._aside)
        self._block, self._aside = None, None
        self._skip, self._waste = block.length - arrived, block.length

    def _drop(self, n: int) -> int:
        dropped = min(self._skip, n)
        self._skip -= dropped
        if not self._skip and self._waste:
            self._count_waste(self._waste)
            self._waste = 0
        return dropped

    def _count_waste(self, size: int) -> None:
        blocks = self._out.blocks()
        blocks.wasted_blocks += 1
        blocks.wasted_bytes += size
