"""The memory of pieces in flight: lent by the piece, within one budget for the whole daemon.

Rules
- What is lent plus what is kept idle never exceeds the budget, with one exception: a piece larger than the
  whole budget is lent when nothing else is, else it could never be fetched.
- Memory that came back is lent again to pieces of the same size, since touching new pages costs more than
  copying into old ones. It may hold another piece's bytes; a piece is checked whole before it is used.
- Belongs to the hub: not for threads. A disk job hands its buffer back through its `done` there.
"""

from __future__ import annotations

import mmap
import time
from collections import OrderedDict
from collections.abc import Callable

#: Sizes are rounded up to this, so that odd pieces share memory. A multiple of the page size everywhere.
GRAIN_BYTES = 65536

#: How much may lie idle for the next pieces. More is only touched again when many torrents run at once.
IDLE_BYTES = 32 << 20

#: Idle memory goes back to the system after this long without use.
IDLE_S = 10.0


class BufferPool:
    """Lends up to `limit_bytes`."""

    def __init__(self, limit_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_bytes = limit_bytes
        self.lent_bytes = 0
        self.idle_bytes = 0
        self._clock = clock
        self._lent: dict[int, memoryview] = {}  # by identity: equal views are not the same memory
        self._idle: OrderedDict[int, tuple[memoryview, float]] = OrderedDict()  # oldest first, since when

    def lend(self, size: int) -> memoryview | None:
        """Memory of at least `size` bytes, or None until some comes back."""
        size = max(1, -(-size // GRAIN_BYTES)) * GRAIN_BYTES
        if self.lent_bytes and self.lent_bytes + size > self.limit_bytes:
            return None
        view = self._take_idle(size)
        if view is None:
            self._drop_idle(self.limit_bytes - self.lent_bytes - size)
            # Anonymous memory of its own: it goes back to the system at once, not into a fragmented heap.
            view = memoryview(mmap.mmap(-1, size))
        self._lent[id(view)] = view
        self.lent_bytes += size
        return view

    def give_back(self, view: memoryview) -> None:
        """The memory just as it was lent. Nobody may use it, or a slice of it, from now on."""
        if self._lent.pop(id(view), None) is None:
            raise ValueError("this memory is not lent")
        self.lent_bytes -= len(view)
        self._idle[id(view)] = (view, self._clock())
        self.idle_bytes += len(view)
        self._drop_idle(min(IDLE_BYTES, self.limit_bytes - self.lent_bytes))

    def trim(self) -> None:
        """Return to the system what has been idle for long. To be called now and then."""
        before = self._clock() - IDLE_S
        while self._idle and next(iter(self._idle.values()))[1] <= before:
            self._drop_oldest()

    def _take_idle(self, size: int) -> memoryview | None:
        # The youngest first: its pages are the likeliest to be in the processor's caches.
        for key, (view, _) in reversed(self._idle.items()):
            if len(view) == size:
                del self._idle[key]
                self.idle_bytes -= size
                return view
        return None

    def _drop_idle(self, keep_bytes: int) -> None:
        while self._idle and self.idle_bytes > keep_bytes:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, (view, _) = self._idle.popitem(last=False)
        self.idle_bytes -= len(view)
