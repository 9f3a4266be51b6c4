"""How many are in each swarm: a count of all of them, for the pages that people and programs read.

Rules:
- A count goes over the store in slices and lets everybody have a turn between two: a tracker with 100,000
  swarms is counted in a fifth of a second, of which announces notice nothing.
- It serves everybody for as long as a count can be said to be live, and for twenty times as long as it took:
  however many ask, counting takes a twentieth of the time at most.
- It is made when somebody asks, and dropped when nobody has for a while: it has 7 MB at its largest. Its rows
  are packed, for Python looks for reference cycles the more often, and through everything, the more tuples
  there are: a hundred thousand of them made it stand still for 140 ms.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

from gevent.lock import BoundedSemaphore

from microtorrd.greenlets import breathe
from microtorrd.tracker.store import PeerStore

#: Swarms looked at between two turns of the others: about 1 ms.
SLICE = 500

#: Of so many the largest ones are known.
LARGEST = 1000

#: For how long a count is good at least, seconds, and for how many times as long as it took.
FRESH_S = 2.0
FRESH_TIMES = 20.0

#: After how long without a reader it is dropped, seconds; not while it is good.
KEPT_S = 60.0


#: A row: ids come first, so that rows are in the order of these.
_ROW = struct.Struct(">20sIII")
_LAST = b"\xff" * 12
_MOST = 2**32 - 1


class SwarmRow(NamedTuple):
    """The figures of one swarm."""

    swarm_id: bytes  # 20
    complete: int
    incomplete: int
    downloaded: int


class Count:
    """All swarms at one time. `packed` are rows by their ids, `largest` those with the most peers, the
    largest first; equal ones by their ids."""

    def __init__(self, taken_at: float, packed: list[bytes], largest: list[SwarmRow]) -> None:
        self.taken_at = taken_at
        self.largest = largest
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed)

    def rows(self, start: int, count: int) -> list[SwarmRow]:
        """Return so many rows, by their ids, from `start` on; fewer at the end."""
        return [SwarmRow(*_ROW.unpack(raw)) for raw in self._packed[start : start + count]]

    def after(self, swarm_id: bytes) -> int:
        """Return where those rows begin that come after this id."""
        return bisect_right(self._packed, swarm_id + _LAST)


class Census:
    """Takes counts of a store, and keeps the last one. `clock` counts seconds."""

    def __init__(self, store: PeerStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._counting = BoundedSemaphore()
        self._last: Count | None = None
        self._fresh_s = FRESH_S
        self._asked_at = 0.0

    def take(self) -> Count:
        """Return a count that is good. May take a while, in which others have their turns."""
        with self._counting:
            self._asked_at = self._clock()
            if self._last is None or self._asked_at - self._last.taken_at > self._fresh_s:
                began = perf_counter()
                self._last = self._count()
                self._fresh_s = max(FRESH_S, FRESH_TIMES * (perf_counter() - began))
                self._asked_at = self._clock()  # counting may have taken longer than it would be kept
            return self._last

    def age_s(self, count: Count) -> float:
        """Return how old it is."""
        return self._clock() - count.taken_at

    def tidy(self) -> None:
        """Drop the last count if nobody asks for it any more, and the next may be taken."""
        if self._last is not None and self._clock() - self._asked_at > max(KEPT_S, self._fresh_s):
            self._last = None

    def _count(self) -> Count:
        # A SHA-1 falls into any of these with equal chance: each is short, and sorted within a slice's time.
        bins: list[list[bytes]] = [[] for _ in range(256)]
        largest: list[SwarmRow] = []
        counts_of, pack = self._store.counts_many, _ROW.pack
        swarm_ids, taken_at = self._store.swarm_ids(), self._clock()
        for start in range(0, len(swarm_ids), SLICE):
            if start:
                breathe()
            candidates = []
            least = _size(largest[-1]) if len(largest) == LARGEST else None
            # Without those that have gone since.
            for swarm_id, counts in counts_of(swarm_ids[start : start + SLICE]).items():
                row = SwarmRow(swarm_id, counts.complete, counts.incomplete, min(counts.downloaded, _MOST))
                bins[swarm_id[0]].append(pack(*row))
                if least is None or _size(row) < least:
                    candidates.append(row)
            if candidates:
                largest = sorted(largest + candidates, key=_size)[:LARGEST]
        rows: list[bytes] = []
        sorted_since = 0
        for part in bins:
            part.sort()
            rows += part
            sorted_since += len(part)
            if sorted_since > SLICE:
                sorted_since = 0
                breathe()
        return Count(taken_at, rows, largest)


def _size(row: SwarmRow) -> tuple[int, bytes]:
    return -row.complete - row.incomplete, row.swarm_id
