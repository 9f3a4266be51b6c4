"""Where a run of content bytes lands: in the slots of neighbouring blocks, aside, or nowhere.

The rules of slots are those of `core/slots.py`: bytes go into a slot only while it is lent and open, in
parts only after it was claimed; where another wire has claimed it, the block is collected aside and put into
the slot when it is whole. So a block never consists of the bytes of two peers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from microtorrd.core.slots import Slot

#: Buffers of one read: 1 MiB of blocks.
VIEWS_MAX = 64


class WebMemory:
    """What nobody wants is read into this; shared by all, since nobody looks at it."""

    __slots__ = ("scrap",)

    def __init__(self) -> None:
        self.scrap = memoryview(bytearray(1 << 16))


class _Part:
    """One block of the run."""

    __slots__ = ("aside", "at", "is_live", "slot")

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.at = 0  # bytes that have landed
        self.aside: memoryview | None = None
        self.is_live = True  # the slot is lent to us


class Landing:
    """A run of blocks, each of which begins where the one before it ends."""

    __slots__ = ("_at", "_memory", "_parts", "_peer", "left", "wasted_bytes")

    def __init__(self, peer: int, slots: Sequence[Slot], memory: WebMemory) -> None:
        self._peer = peer
        self._memory = memory
        self._parts = [_Part(slot) for slot in slots]
        self._at = 0  # the part that the next byte belongs to
        self.left = sum(slot.length for slot in slots)  # bytes of the run to come
        self.wasted_bytes = 0  # of blocks that nobody wanted any more; for the taker to reset

    @property
    def is_wanted(self) -> bool:
        """Somebody still waits for some of what is to come."""
        return any(self._is_open(part) for part in self._parts[self._at :])

    def views(self, most: int) -> list[memoryview]:
        """Where the next bytes belong, up to `most` of them (1 or more). Valid until greenlets may switch."""
        found: list[memoryview] = []
        for part in self._parts[self._at : self._at + VIEWS_MAX]:
            view = self._place(part)[:most]
            found.append(view)
            most -= len(view)
            if most <= 0 or part.at + len(view) < part.slot.length:
                break
        return found

    def landed(self, n: int) -> list[Slot]:
        """So many bytes were put into `views`. Returns the slots that are filled by it."""
        filled: list[Slot] = []
        self.left -= n
        while n:
            part = self._parts[self._at]
            slot = part.slot
            step = min(n, slot.length - part.at)
            n -= step
            part.at += step
            if part.at == slot.length:
                self._at += 1
                if self._complete(part):
                    filled.append(slot)
                else:
                    self.wasted_bytes += slot.length
            elif self._is_open(part) and part.aside is None:
                slot.claimed_by = self._peer
        return filled

    def recall(self, slots: Iterable[Slot]) -> None:
        """These slots are no longer lent to us."""
        gone = set(map(id, slots))
        for part in self._parts[self._at :]:
            if id(part.slot) in gone:
                self._release(part)

    def release(self) -> list[Slot]:
        """Nothing more will come. Returns the slots that were not filled and are still lent."""
        live = [part for part in self._parts[self._at :] if part.is_live]
        for part in live:
            self._release(part)
        return [part.slot for part in live]

    def _is_open(self, part: _Part) -> bool:
        return part.is_live and part.slot.filled_by is None

    def _place(self, part: _Part) -> memoryview:
        slot, rest = part.slot, part.slot.length - part.at
        if not self._is_open(part):
            return self._memory.scrap[:rest]
        if part.aside is None and slot.claimed_by not in (None, self._peer):
            if part.at:  # cannot be: who claimed it first keeps it until it gives up
                part.is_live = False
                return self._memory.scrap[:rest]
            part.aside = memoryview(bytearray(slot.length))
        return (slot.view if part.aside is None else part.aside)[part.at :]

    def _complete(self, part: _Part) -> bool:
        """The last byte of the block is here. Is it of use?"""
        slot = part.slot
        if not self._is_open(part):
            return False
        if part.aside is not None:
            slot.view[:] = part.aside
        slot.filled_by = self._peer
        return True

    def _release(self, part: _Part) -> None:
        if part.is_live and part.slot.claimed_by == self._peer and part.slot.filled_by is None:
            part.slot.claimed_by = None
        part.is_live = False
