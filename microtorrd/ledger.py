"""What of the progress of torrents is written down, when and in which order.

What else is on record, and the thread of the database, is in `archive.py`, on which this builds.

Rules
- Progress is journalled at once (within `JOURNAL_S`), which survives the death of the process; every `SYNC_S`
  files are synced and the bitfield that was true before is committed as durable: that survives the machine's.
- A bad piece is taken back on record before anything is written in its place: `retract` comes first.
- A database that cannot be written is reported once and tried again; what is to be written stays pending.
- One greenlet at a time writes what is pending, and one syncs each disk: else the stop of the daemon, which
  does both, would meet them half-way, and write or forget things twice.
- A disk that hangs holds up the syncs of its own torrents only, and the end for a bounded time: what is not
  synced then stays on record as perhaps written to (`disk/trust.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from weakref import WeakValueDictionary

import gevent
from gevent.lock import BoundedSemaphore

from microtorrd import logs
from microtorrd.archive import Archive, Queued
from microtorrd.disk import jobs
from microtorrd.disk.files import FileSet, FileStat
from microtorrd.disk.pool import DiskPool
from microtorrd.disk.records import Durable
from microtorrd.errors import NotFound, StorageError
from microtorrd.greenlets import Crew

#: The journal's shortest period: what a killed process can lose, and a tenth of a percent of a core.
JOURNAL_S = 0.05

#: How often files are synced while they are written to: what a power cut makes us fetch again.
SYNC_S = 5.0

#: How often totals are journalled.
TOTALS_S = 15.0

#: After a failed commit.
RETRY_S = 5.0

_log = logs.get(room="ledger")


class Page:
    """What the ledger knows of one torrent that is open."""

    __slots__ = (
        "dirty",
        "files",
        "have",
        "in_flight",
        "info_hash",
        "on_failure",
        "seen",
        "since_sync",
        "sync_all",
        "totals",
        "unsynced",
    )

    def __init__(
        self,
        info_hash: bytes,
        *,
        files: FileSet,
        have: Callable[[], bytes],
        on_failure: Callable[[StorageError], None],
        dirty: bool,
    ) -> None:
        self.info_hash = info_hash
        self.files = files
        self.have = have  # the bitfield of verified pieces as it is now
        self.on_failure = on_failure
        self.dirty = dirty  # on record as perhaps written to
        self.in_flight = 0  # writes that have begun and not ended
        self.unsynced = False
        self.since_sync: list[int] = []  # pieces written since the files were last synced
        self.sync_all = False  # files were written by an earlier process: sync all of them once
        self.seen: Sequence[FileStat | None] | None = None  # before a check, if nothing was written since
        self.totals = (0, 0)  # as last recorded


class Ledger(Archive):
    """The records, and the pages of those torrents that are open."""

    def __init__(self, path: str, *, pool: DiskPool, crew: Crew) -> None:
        super().__init__(path)
        self._pool = pool
        self._crew = crew
        self._pages: dict[bytes, Page] = {}
        self._journal: set[bytes] = set()
        self._to_mark: set[bytes] = set()
        self._journalling = BoundedSemaphore(1)
        # By device, while somebody syncs it or waits to.
        self._syncing: WeakValueDictionary[int | None, BoundedSemaphore] = WeakValueDictionary()
        self._trouble: str | None = None
        self._closed = False  # no more is begun by ourselves

    def start(self) -> None:
        """Begin to journal and to sync."""
        self._crew.spawn("journal", self._keep_journal)
        self._crew.spawn("sync", self._keep_syncing)

    def remove(self, info_hash: bytes) -> None:
        """Strike a torrent out. Waits for the commit. Raises StorageError: nothing is changed then."""
        super().remove(info_hash)
        self.close_page(info_hash)

    # ------------------------------------------------------------------------------------ open torrents

    def open_page(self, page: Page, *, sync_all: bool) -> None:
        """From now on this torrent's progress is written down."""
        page.sync_all = page.unsynced = sync_all
        self._pages[page.info_hash] = page

    def close_page(self, info_hash: bytes) -> None:
        """Nothing more of this torrent is written down; the record keeps what it has."""
        self._pages.pop(info_hash, None)
        self._journal.discard(info_hash)
        self._to_mark.discard(info_hash)

    def is_settled(self, info_hash: bytes) -> bool:
        """Nothing of this torrent waits to be written down or synced. If it does, that is done soon."""
        page = self._pages.get(info_hash)
        if page is None:
            return True
        if page.dirty and not page.in_flight:
            page.unsynced = True  # perhaps by an earlier process only, which synced and had no time to say so
        return not (page.dirty or page.unsynced or page.in_flight or info_hash in self._journal)

    def follow(self, info_hash: bytes, files: FileSet) -> None:
        """The files of this torrent were moved: sync them there from now on."""
        page = self._pages.get(info_hash)
        if page is not None:
            page.files = files

    def settle(self, info_hash: bytes) -> None:
        """Sync this torrent's files and record it clean, before somebody moves them. Waits."""
        page = self._pages.get(info_hash)
        if page is not None and (page.unsynced or page.dirty):
            self._sync(page.files.root_device, [page])

    def will_write(self, info_hash: bytes) -> None:
        """A write of this torrent begins."""
        page = self._pages.get(info_hash)
        if page is None:
            return
        page.in_flight += 1
        page.unsynced = True
        page.seen = None
        if not page.dirty:
            page.dirty = True
            self._to_mark.add(info_hash)
            self._wake.set()

    def wrote(self, info_hash: bytes) -> None:
        """A write of this torrent has ended, well or not."""
        page = self._pages.get(info_hash)
        if page is not None:
            page.in_flight -= 1

    def progressed(self, info_hash: bytes, piece: int | None = None) -> None:
        """The bitfield has grown, by this piece that was written just now or by a check: journal it."""
        page = self._pages.get(info_hash)
        if page is not None:
            if piece is not None:
                page.since_sync.append(piece)
            self._journal.add(info_hash)
            self._wake.set()

    def unsynced_pieces(self, info_hash: bytes) -> list[int]:
        """The pieces that were written and are not known to be on the disk."""
        page = self._pages.get(info_hash)
        return [] if page is None else sorted(set(page.since_sync))

    def checked(
        self,
        info_hash: bytes,
        bad: Iterable[int],
        seen: Sequence[FileStat | None],
        then: Callable[[], None],
    ) -> None:
        """A check found what is there: take back the bad pieces on record, then call `then`, on the hub.

        `seen` are the figures of the files from before the check: those that its outcome is known for.
        """
        page = self._pages.get(info_hash)
        if page is None:
            return
        page.sync_all = page.unsynced = True
        page.seen = None if page.in_flight else seen
        mask = bytearray(b"\xff" * len(page.have()))
        for piece in bad:
            mask[piece >> 3] &= ~(0x80 >> (piece & 7)) & 0xFF

        def retract_first() -> None:
            if any(byte != 0xFF for byte in mask):
                try:
                    self._run(partial(self._store.retract, info_hash, bytes(mask)))
                except NotFound:  # the torrent was removed meanwhile
                    return
            then()
            self.progressed(info_hash)

        self._crew.spawn("retract", self._guarded, retract_first, page)

    def record_totals(self, totals: Iterable[tuple[bytes, int, int]]) -> None:
        """Journal bytes received and sent, ever, of the torrents where they changed."""
        changed = []
        for info_hash, down, up in totals:
            page = self._pages.get(info_hash)
            if page is not None and page.totals != (down, up):
                page.totals = (down, up)
                changed.append((info_hash, down, up))
        if changed:
            self._queued.append(Queued(partial(self._store.record_totals, changed), b"", {}))
            self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Journal, sync and record everything that is pending, and close the database. Waits; for disks to
        sync not longer than `timeout_s`."""
        if self._closed:
            return
        self._closed = True
        try:
            self._write_journal()
            self._sync_finally(timeout_s)
            self._write_journal()  # what came meanwhile
            self._is_over = True
            self._threads.apply(self._store.close)
        except StorageError as error:
            _log.error("state_not_saved", cause=error.cause, path=error.path, reason=str(error))
        self._is_over = True
        self._threads.kill()

    # ----------------------------------------------------------------------------------------- our own

    def _guarded(self, work: Callable[[], None], page: Page) -> None:
        try:
            work()
        except StorageError as error:
            page.on_failure(error)

    def _keep_journal(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            try:
                self._write_journal()
                self._trouble = None
                gevent.sleep(JOURNAL_S)
            except StorageError as error:
                if self._trouble != error.cause:
                    self._trouble = error.cause
                    _log.error("state_not_written", cause=error.cause, path=error.path, reason=str(error))
                gevent.sleep(RETRY_S)
                self._wake.set()

    def _write_journal(self) -> None:
        """Write what is pending. What fails stays pending. Raises StorageError."""
        with self._journalling:
            self._write_pending()

    def _write_pending(self) -> None:
        if self._to_mark:
            marked = set(self._to_mark)
            self._run(partial(self._store.mark_dirty, marked))
            self._to_mark -= marked
        self._write_queued()
        if self._journal:
            grown, self._journal = self._journal, set()
            batch = [(ih, self._pages[ih].have()) for ih in grown if ih in self._pages]
            try:
                self._run(partial(self._store.record_written, batch))
            except StorageError:
                self._journal |= grown
                raise

    def _keep_syncing(self) -> None:
        while True:
            gevent.sleep(SYNC_S)
            if self._closed:
                return
            for device, pages in self._by_device(lambda page: page.unsynced).items():
                if device not in self._syncing:  # else that goes on, and the rest has its turn later
                    self._crew.spawn("sync_disk", self._sync_disk, device, pages)

    def _sync_finally(self, timeout_s: float) -> None:
        """Sync what is not on the disks, as far as they do it within this time."""
        at_work = {
            self._crew.spawn("sync_disk", self._sync_disk, device, pages): pages
            for device, pages in self._by_device(lambda page: page.unsynced or page.dirty).items()
        }
        gevent.joinall(list(at_work), timeout=timeout_s)
        hanging = [greenlet for greenlet in at_work if not greenlet.dead]
        if hanging:
            pages = [page for greenlet in hanging for page in at_work[greenlet]]
            _log.warning("files_not_synced", torrents=len(pages), root=pages[0].files.root)
            gevent.killall(hanging, block=False)

    def _by_device(self, concerns: Callable[[Page], bool]) -> dict[int | None, list[Page]]:
        """The pages that this concerns, by the device that their files are on."""
        found: dict[int | None, list[Page]] = {}
        for page in self._pages.values():
            if concerns(page):
                found.setdefault(page.files.root_device, []).append(page)
        return found

    def _sync_disk(self, device: int | None, pages: list[Page]) -> None:
        try:
            self._sync(device, pages)
        except StorageError as error:
            _log.error("state_not_written", cause=error.cause, path=error.path, reason=str(error))

    def _sync(self, device: int | None, pages: list[Page]) -> None:
        """Sync the files of these torrents, which are on this device, then commit what was true before as
        durable. Raises StorageError where that cannot be committed."""
        syncing = self._syncing.setdefault(device, BoundedSemaphore(1))
        with syncing:
            self._sync_and_record(pages)

    def _sync_and_record(self, pages: list[Page]) -> None:
        synced: list[tuple[Page, Durable]] = []
        for page in pages:
            before, idle = page.have(), page.in_flight == 0
            everything, page.sync_all, page.unsynced = page.sync_all, False, False
            written, count = page.since_sync, len(page.since_sync)
            try:
                stats = self._pool.call(
                    partial(jobs.sync, page.files, everything), place=page.files.root_device
                )
            except StorageError as error:
                page.unsynced, page.sync_all = True, everything
                page.on_failure(error)
                continue
            if page.since_sync is written:  # not if it was on another device, and was synced there meanwhile
                page.since_sync = written[count:]
            clean = idle and page.in_flight == 0 and not page.unsynced and page.have() == before
            # Where we wrote nothing since a check, what it saw is recorded: not what others wrote since.
            synced.append((page, Durable(page.info_hash, before, page.seen or stats, clean)))
            page.seen = None
        if not synced:
            return
        # A write that begins from here on marks the torrent dirty again: in the same thread, after it.
        for page, durable in synced:
            if durable.clean:
                page.dirty = False
                self._journal.discard(page.info_hash)
        try:
            self._run(partial(self._store.record_all_durable, [durable for _, durable in synced]))
        except StorageError:
            for page, _ in synced:
                page.unsynced = page.dirty = True
            raise
