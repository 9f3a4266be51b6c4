"""The state database and its thread: what is asked of it, what it is to keep at once, and what soon.

Rules
- The database is used by one thread of its own; the hub never waits for it. `add`, `change` and `remove` wait
  (in their greenlet) until their commit is on the disk, because their callers acknowledge it to somebody.
- What is to be kept soon is queued. A wish of the operator's is written at once, and nothing older over it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from gevent.event import Event
from gevent.threadpool import ThreadPool

from microtorrd.disk.records import Kept, MagnetRecord, TorrentRecord
from microtorrd.disk.state import StateStore
from microtorrd.errors import NotFound, Stopping, StorageError

T = TypeVar("T")


class Queued(NamedTuple):
    """Something to be written soon; `fields` are those of one torrent's record that it changes."""

    work: Callable[[], None]
    info_hash: bytes
    fields: dict[str, Any]


class Archive:
    """The records of all torrents and links."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._threads = ThreadPool(1)
        self._wake = Event()  # for who writes what is queued
        self._queued: list[Queued] = []  # the first of them may be under way
        self._is_writing = False
        self._is_over = False  # nothing can be written any more
        self._store: StateStore = self._threads.apply(StateStore, (path,))
        self.boot_id = self._store.boot_id

    # ------------------------------------------------------------------------ torrents and their choices

    def summaries(self) -> list[TorrentRecord]:
        """All torrents on record. Waits."""
        return self._run(self._store.load_summaries)

    def metainfo(self, info_hash: bytes) -> bytes:
        """The metainfo file of a torrent. Waits."""
        return self._run(partial(self._store.metainfo, info_hash))

    def metainfos(self, info_hashes: Sequence[bytes], *, at_most_bytes: int) -> dict[bytes, Kept]:
        """The metainfo files of many torrents and their gists, as far as they fit. Waits. Raises
        StorageError."""
        return self._run(partial(self._store.metainfos, info_hashes, at_most_bytes=at_most_bytes))

    def record_gists(self, gists: Sequence[tuple[bytes, bytes]]) -> None:
        """What starts need of the metainfo of these torrents: soon, without waiting."""
        self._queued.append(Queued(partial(self._store.record_gists, gists), b"", {}))
        self._wake.set()

    def add(self, record: TorrentRecord) -> None:
        """Put a torrent on record. Waits for the commit. Raises StorageError."""
        self._run(partial(self._store.add, record))

    def change(self, info_hash: bytes, **fields: Any) -> None:
        """Change a record by the operator's wish. Waits for the commit. Raises StorageError."""
        self._overrule([info_hash], partial(self._store.update_fields, info_hash, **fields), fields)

    def change_all(self, info_hashes: Sequence[bytes], **fields: Any) -> None:
        """The same of many torrents, in one commit. Raises StorageError: then nothing is changed."""
        self._overrule(info_hashes, partial(self._store.update_all, info_hashes, **fields), fields)

    def _overrule(
        self, info_hashes: Sequence[bytes], work: Callable[[], None], fields: Mapping[str, Any]
    ) -> None:
        """Write these fields at once. What is queued for them is older, also what is queued meanwhile, and
        must not be written after them. Waits. Raises StorageError: then that still counts."""
        struck = self._strike(info_hashes, fields)
        try:
            self._run(work)
        except StorageError:
            for info_hash, older in struck.items():
                self.update(info_hash, **older)
            raise
        self._strike(info_hashes, fields)
        first = self._queued[0] if self._is_writing else None
        if (
            first is not None
            and first.info_hash in info_hashes
            and not fields.keys().isdisjoint(first.fields)
        ):
            self.update(first.info_hash, **fields)  # too late to be struck

    def _strike(self, info_hashes: Sequence[bytes], names: Iterable[str]) -> dict[bytes, dict[str, Any]]:
        """Take these fields out of what waits in the queue; what it was, the latest of each."""
        struck: dict[bytes, dict[str, Any]] = {}
        if len(self._queued) <= self._is_writing:
            return struck
        concerned = set(info_hashes)
        for queued in self._queued[self._is_writing :]:
            if queued.info_hash in concerned:
                for name in queued.fields.keys() & set(names):
                    struck.setdefault(queued.info_hash, {})[name] = queued.fields.pop(name)
        return struck

    def update(self, info_hash: bytes, **fields: Any) -> None:
        """Change a record in passing: soon, without waiting."""
        self._queued.append(Queued(lambda: self._store.update_fields(info_hash, **fields), info_hash, fields))
        self._wake.set()

    def remove(self, info_hash: bytes) -> None:
        """Strike a torrent out. Waits for the commit. Raises StorageError: nothing is changed then."""
        self._run(partial(self._store.remove, info_hash))

    # ------------------------------------------------------------------------------------- magnet links

    def magnets(self) -> list[MagnetRecord]:
        """All magnet links on record. Waits."""
        return self._run(self._store.load_magnets)

    def add_magnet(self, record: MagnetRecord) -> None:
        """Put a magnet link on record. Waits for the commit. Raises StorageError."""
        self._run(partial(self._store.add_magnet, record))

    def change_magnet(self, record: MagnetRecord) -> None:
        """Replace the record of a magnet link. Waits for the commit. Raises StorageError."""
        self._run(partial(self._store.update_magnet, record))

    def remove_magnet(self, swarm_id: bytes) -> None:
        """Strike a magnet link out. Waits for the commit. Raises StorageError."""
        self._run(partial(self._store.remove_magnet, swarm_id))

    def resolve_magnet(self, swarm_id: bytes, record: TorrentRecord) -> None:
        """Put a torrent on record in the place of its link. Waits for the commit. Raises StorageError."""
        self._run(partial(self._store.resolve_magnet, swarm_id, record))

    # ----------------------------------------------------------------------------------------- our own

    def _run(self, work: Callable[[], T]) -> T:
        """Run in the database's thread while this greenlet waits. Raises Stopping after the end."""
        if self._is_over:
            raise Stopping("the state database is closed")
        result: T = self._threads.apply(work)
        return result

    def _write_queued(self) -> None:
        """Write what is queued. What fails stays in the queue. Raises StorageError."""
        while self._queued:
            self._is_writing = True
            try:
                with suppress(NotFound):  # the torrent was removed meanwhile
                    self._run(self._queued[0].work)
            finally:
                self._is_writing = False
            del self._queued[0]
