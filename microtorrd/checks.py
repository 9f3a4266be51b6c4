"""The long jobs on one torrent's content: reading pieces again, and comparing the whole with its `id_hash`.

Rules:
- one of them at a time for each torrent: the next one ends the one before (`Content.begin`);
- one that was ended answers nothing any more, whatever its threads still find;
- the files' sizes and times are taken before anything is read, so that a change meanwhile is found out;
- what a check found is on record before the core hears that the check is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from microtorrd.core.ending import CONTRADICTION
from microtorrd.core.events import ContentConfirmed, Fact, PiecesChecked, StorageFailed
from microtorrd.disk import jobs
from microtorrd.disk.files import FileStat
from microtorrd.disk.pool import Feed, PoolClosed
from microtorrd.errors import StorageError
from microtorrd.whole import WholeHash

if TYPE_CHECKING:
    from microtorrd.content import Content

Post = Callable[[Sequence[Fact]], None]


class Work:
    """Something long that can be ended from outside: a check, a confirmation, a move."""

    __slots__ = ("cancelled", "feed")

    def __init__(self) -> None:
        self.cancelled = False
        self.feed: Feed | None = None  # its jobs, where there are many

    def is_cancelled(self) -> bool:
        """Asked by the jobs, in their threads."""
        return self.cancelled

    def cancel(self) -> None:
        """End it. Again does nothing."""
        self.cancelled = True
        if self.feed is not None:
            self.feed.cancel()


class Check:
    """Reads pieces and compares; answered by PiecesChecked in parts, or by StorageFailed.

    Where all are read and all are good, the whole is compared with `id_hash`, unless it was once.
    """

    def __init__(self, content: Content, post: Post, work: Work) -> None:
        self._content = content
        self._post = post
        self._work = work
        self._bad: list[int] = []
        self._failed: StorageError | None = None
        self._whole: WholeHash | None = None
        self._seen: list[FileStat | None] = []

    def run(self, pieces: Sequence[int] | None) -> None:
        """Begin with these pieces (None: all). Waits for the hashes."""
        work, content = self._work, self._content
        if work.cancelled:
            return  # before it had its turn: another check was wanted, and another one
        files, geometry, pool = content.files, content.geometry, content.facilities.pool
        try:
            hashes = content.hashes()
            # Before anything is read: who changes a file from now on is found out at the next start.
            self._seen = pool.call(files.stat, lane="bulk", place=content.place)
        except StorageError as error:
            self._post((StorageFailed(error),))
            return
        todo = range(geometry.piece_count) if pieces is None else sorted(pieces)
        works = (
            partial(jobs.check, files, geometry, hashes, part, cancelled=work.is_cancelled)
            for part in jobs.chunks(geometry, todo)
        )
        is_to_be_confirmed = content.record.id_hash is not None and not content.record.confirmed
        if is_to_be_confirmed and len(todo) == geometry.piece_count:
            self._whole = _hash_whole(content, work)
        if not work.cancelled:
            work.feed = pool.feed(works, self._part_read, self._all_read, place=content.place)

    def _part_read(self, outcome: jobs.Checked | BaseException) -> None:
        work = self._work
        if isinstance(outcome, BaseException):
            if self._failed is None and work.feed is not None:
                work.feed.cancel()
            failure = failure_of(outcome, self._content.path)
            self._failed = self._failed or failure
        elif not work.cancelled:
            self._bad.extend(outcome.bad)
            if self._whole is not None and not self._bad:
                geometry, first, last = self._content.geometry, outcome.good[0], outcome.good[-1]
                end = geometry.piece_offset(last) + geometry.piece_size(last)
                self._whole.was_read(geometry.piece_offset(first), end)
            self._post((PiecesChecked(outcome.good, outcome.bad, done=False),))

    def _all_read(self) -> None:
        content, bad = self._content, self._bad
        self._work.feed = None
        if self._work.cancelled:
            return
        if self._failed is not None:
            self._post((StorageFailed(self._failed),))
        elif bad and content.record.seed_only:
            count, path = content.geometry.piece_count, content.path
            message = f"{path}: {len(bad)} of {count} pieces do not match the torrent"
            self._post((StorageFailed(StorageError(message, path=path, cause="mismatch")),))
        elif self._whole is not None and not bad:
            self._whole.finish(self._compare)
        else:
            given_up = content.give_up(bad)
            if given_up:
                bad.extend(given_up)
                self._post((PiecesChecked((), given_up, done=False),))
            self._write_down()

    def _compare(self, digest: bytes | BaseException) -> None:
        content = self._content
        if isinstance(digest, BaseException):
            self._post((StorageFailed(failure_of(digest, content.path)),))
        elif digest == content.record.id_hash:
            content.update(confirmed=True)
            self._write_down()
        else:
            error = StorageError(CONTRADICTION, path=content.path, cause="id_hash_mismatch")
            self._post((StorageFailed(error),))

    def _write_down(self) -> None:
        content = self._content
        then = partial(self._post, (PiecesChecked((), (), done=True),))
        content.facilities.ledger.checked(content.record.info_hash, self._bad, self._seen, then)


def confirm(content: Content, post: Post, work: Work) -> None:
    """Hash the whole content and compare with `id_hash`; ContentConfirmed or StorageFailed answers."""

    def compare(digest: bytes | BaseException) -> None:
        if isinstance(digest, BaseException):
            post((StorageFailed(failure_of(digest, content.path)),))
            return
        matches = digest == content.record.id_hash
        if matches:
            content.update(confirmed=True)
        post((ContentConfirmed(matches),))

    _hash_whole(content, work).finish(compare)


def _hash_whole(content: Content, work: Work) -> WholeHash:
    def progress(done_bytes: int) -> None:
        content.confirmed_share = done_bytes / content.record.length

    return WholeHash(
        content.files, content.facilities.pool, cancelled=work.is_cancelled, on_progress=progress
    )


def failure_of(outcome: BaseException, path: str) -> StorageError:
    """What went wrong in a disk job, as the error that parks a torrent. Bugs are raised on."""
    if isinstance(outcome, StorageError):
        return outcome
    if isinstance(outcome, PoolClosed):
        return StorageError(f"{path}: the daemon is stopping", path=path, cause="io_error")
    raise outcome
