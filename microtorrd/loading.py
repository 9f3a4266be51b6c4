"""How torrents come back to life when the daemon starts: some dozens at a time.

Each turn of a thread costs more than looking at a small torrent. So torrents whose files lie in the same
directory are looked at together: a directory on a disk that hangs holds up nobody but its own. What is large,
or was being moved, is loaded by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import zip_longest

import gevent

from microtorrd.content import Content, Trusted
from microtorrd.errors import StorageError
from microtorrd.facilities import Facilities
from microtorrd.greenlets import Crew
from microtorrd.torrent import Torrent

#: Batches looked at together; more would only queue at the disk threads.
LOADERS = 8

#: Torrents in a batch, and bytes of their metainfo: what does not fit is loaded by itself.
TOGETHER = 32
TOGETHER_BYTES = 4 << 20


class Loading:
    """The torrents of one start."""

    def __init__(self, torrents: Iterable[Torrent], facilities: Facilities) -> None:
        self._facilities = facilities
        self._batches = deque(batches(torrents))

    def run(self, crew: Crew) -> None:
        """Load them all. Waits."""
        width = min(LOADERS, len(self._batches))
        gevent.joinall([crew.spawn("loader", self._load_waiting) for _ in range(width)])

    def give_up(self) -> None:
        """Begin with no more of them."""
        self._batches.clear()

    def _load_waiting(self) -> None:
        while self._batches:
            self._load(self._batches.popleft())

    def _load(self, batch: Sequence[Torrent]) -> None:
        ledger, pool = self._facilities.ledger, self._facilities.pool
        settled = [torrent.info_hash for torrent in batch if torrent.record.moving_to is None]
        raws = ledger.metainfos(settled, at_most_bytes=TOGETHER_BYTES)
        contents = [torrent.content for torrent in batch]
        looked = pool.call(
            partial(look_at, contents, [raws.get(one.info_hash) for one in batch]), lane="bulk"
        )
        for torrent, found in zip(batch, looked, strict=True):
            torrent.load(None, found)


def batches(torrents: Iterable[Torrent]) -> list[list[Torrent]]:
    """The torrents of each directory in batches; the directories take turns."""
    places: dict[str, list[list[Torrent]]] = {}
    for torrent in torrents:
        runs = places.setdefault(torrent.record.save_to, [[]])
        if len(runs[-1]) == TOGETHER:
            runs.append([])
        runs[-1].append(torrent)
    return [run for turn in zip_longest(*places.values()) for run in turn if run is not None]


def look_at(contents: Sequence[Content], raws: Sequence[bytes | None]) -> list[Trusted | StorageError | None]:
    """In a disk thread: what is trusted of each of them, or why that is not known; None: not looked at."""
    found: list[Trusted | StorageError | None] = []
    for content, raw in zip(contents, raws, strict=True):
        try:
            found.append(None if raw is None else content.look(raw))
        except StorageError as error:
            found.append(error)
    return found
