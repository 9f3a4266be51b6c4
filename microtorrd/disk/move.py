"""Moves the files of a torrent to another directory so that a crash at any point leaves one whole copy.

Everything is brought into a hidden directory beside the target first, made durable and verified there, and
then gets its name with one rename that never replaces anything. Whoever calls does, in this order:

1. record `moving_to`;
2. `relocate`, in a disk thread, while nobody writes to the files;
3. record the new `save_to`, its device and figures, and clear `moving_to`, in one commit;
4. `delete` the files at the old place.

A crash before 3 leaves the source whole, and `recover` says at the next start where to go on; one after it
leaves the target whole, and perhaps files at the old place, which are nobody's loss.

What is aside (`aside.py`) comes along, ahead of the content: a crash between the two leaves at the target
what is nobody's, and is cleared away.

Three ways, the first that works: hard links (within a filesystem; the source stays whole and nothing is
copied), a rename of all at once (where links are not possible and nothing foreign lies among the files), a
copy.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from stat import S_ISDIR
from typing import Literal, NamedTuple

from microtorrd.disk import jobs, syscalls
from microtorrd.disk.copying import copy_file
from microtorrd.disk.files import FileSet, FileStat
from microtorrd.disk.space import require_space
from microtorrd.disk.tree import Walker, make_root, open_file, open_root
from microtorrd.errors import NotAllowed, StorageError
from microtorrd.proto.geometry import Geometry

Way = Literal["link", "rename", "copy"]
WAYS: tuple[Way, ...] = ("link", "rename", "copy")

#: A way that ends with one of these is not possible between these two directories; the next one is tried.
_NOT_THIS_WAY = (
    errno.EXDEV,
    errno.EPERM,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EMLINK,
)


class Moved(NamedTuple):
    """The files are at the new place, and still at the old one unless they were renamed."""

    files: FileSet
    stats: list[FileStat | None]
    way: Way


class _Cancelled(Exception):
    pass


def relocate(
    files: FileSet,
    target_root: str,
    *,
    tag: str,
    geometry: Geometry,
    hashes: bytes,
    have: Sequence[int],
    ways: Sequence[Way] = WAYS,
    on_progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] = jobs.never,
) -> Moved | None:
    """Bring the files below `target_root`, which is made where it is missing. None where it was cancelled:
    nothing is changed then.

    `tag` names the torrent in the hidden directory; `have` are the pieces (ascending) whose `hashes` a copy
    must match. `on_progress` gets bytes done and to do, in this thread. Raises NotAllowed where the target
    has something of that name, StorageError where a disk fails; both leave the source as it was.
    """
    stats = files.stat()  # raises where the source is not there
    try:
        make_root(target_root)
        target = open_root(target_root)
    except OSError as error:
        raise StorageError.from_os(error, target_root) from None
    move = _Move(files, stats, target_root, target, tag=tag, on_progress=on_progress, cancelled=cancelled)
    try:
        move.refuse_existing()
        clear(files, target_root, tag=tag)
        way = move.bring(ways, geometry, hashes, have)
        arrived = files.at(target_root)
        return Moved(arrived, arrived.stat(), way)
    except _Cancelled:
        return None
    finally:
        move.end()
        os.close(target)


def clear(files: FileSet, target_root: str, *, tag: str) -> None:
    """Remove what a move that did not end left in its hidden directory."""
    hidden = _hidden(target_root, tag)
    if not os.path.isdir(hidden):
        return
    files.at(hidden).delete()
    try:
        os.rmdir(hidden)
    except OSError as error:
        raise StorageError.from_os(error, hidden) from None


def recover(files: FileSet, target_root: str, *, tag: str) -> FileSet | None:
    """After a crash in a move: the files at the target where they arrived there whole, so that step 3 can
    follow; None where the source is what counts. `files` are those at the source."""
    try:
        clear(files, target_root, tag=tag)
        target = files.at(target_root)
        there = target.stat()
    except StorageError as error:
        if error.cause == "missing_root":
            return None
        raise
    if not any(found for number, found in enumerate(there) if number not in files.virtual):
        return None
    # A copy has size and mtime of what it was made from, and all of it was there before it got its name.
    # Something else of that name is not our business.
    if all(old in (None, new) for old, new in zip(files.stat(), there, strict=True)):
        return target
    target.delete_aside()
    return None


class _Move:
    def __init__(
        self,
        files: FileSet,
        stats: list[FileStat | None],
        target_root: str,
        target: int,
        *,
        tag: str,
        on_progress: Callable[[int, int], None] | None,
        cancelled: Callable[[], bool],
    ) -> None:
        self._files = files
        self._target_root = target_root
        self._target = target
        self._tag = tag
        self._top = files.top
        self._final = os.path.join(target_root, self._top)
        self._present = {
            number: found for number, found in enumerate(stats) if found and number not in files.virtual
        }
        self._staged = files.at(_hidden(target_root, tag))
        self._on_progress = on_progress
        self._cancelled = cancelled
        self._done = 0
        self._total = 0

    def bring(self, ways: Sequence[Way], geometry: Geometry, hashes: bytes, have: Sequence[int]) -> Way:
        """Try the ways until one works."""
        for way in ways:
            if way == "link" and self.link():
                self.name()
                return way
            if way == "rename" and self.rename():
                return way
            if way == "copy":
                self.copy(sum(geometry.piece_size(piece) for piece in have))
                self.verify(geometry, hashes, have)
                self.name()
                return way
        raise NotAllowed(f"{self._final}: cannot be reached by {' or '.join(ways)}", path=self._final)

    def end(self) -> None:
        """Leave nothing hidden behind."""
        self._staged.close()
        clear(self._files, self._target_root, tag=self._tag)

    def refuse_existing(self) -> None:
        """Nothing is ever overwritten."""
        if os.path.lexists(self._final):
            raise self._exists()
        parts = os.path.join(self._target_root, self._files.hidden)
        if os.path.lexists(parts):
            raise NotAllowed(f"{parts} is there already, and is not overwritten", path=parts)

    def link(self) -> bool:
        """Give each file a second name. False where that is not possible here."""

        def one(number: int, name: str, source: int, staged: int) -> None:
            os.link(name, name, src_dir_fd=source, dst_dir_fd=staged, follow_symlinks=False)

        try:
            self._each(one)
        except OSError as error:
            if error.errno not in _NOT_THIS_WAY:
                raise StorageError.from_os(error, self._final) from None
            self.end()
            return False
        self._make_links()
        self._staged.sync(everything=True)
        return True

    def rename(self) -> bool:
        """Move all at once. False where that is not possible, or would take foreign files along."""
        if self._has_foreign() or not self._files.aside.isdisjoint(self._present):
            return False  # with something aside there would be two renames, and a crash between them
        self._files.sync(everything=True)
        source = open_root(self._files.root)
        try:
            syscalls.rename_noreplace(self._top, self._top, source_dir=source, target_dir=self._target)
            os.fsync(self._target)
            os.fsync(source)
        except FileExistsError:
            raise self._exists() from None
        except OSError as error:
            if error.errno in _NOT_THIS_WAY:
                return False
            raise StorageError.from_os(error, self._final) from None
        finally:
            os.close(source)
        self._files.close()
        return True

    def copy(self, verified_bytes: int) -> None:
        """Copy bytes, mode and mtime of each file, and make them durable. `verified_bytes` is the work that
        comes after, for the progress."""
        self._total = sum(size for size, _ in self._present.values()) + verified_bytes

        def one(number: int, name: str, source: int, staged: int) -> None:
            reading = open_file(name, os.O_RDONLY, within=source)
            try:
                writing = open_file(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, within=staged)
                try:
                    self._copy_file(number, reading, writing)
                finally:
                    os.close(writing)
            finally:
                os.close(reading)

        try:
            self._require_space()
            self._each(one)
        except OSError as error:
            raise StorageError.from_os(error, self._final) from None
        self._make_links()
        self._staged.sync(everything=True)

    def _make_links(self) -> None:
        """Symbolic links that were at the old place are at the new one, too."""
        self._staged.make_links(self._files.links_there())

    def verify(self, geometry: Geometry, hashes: bytes, have: Sequence[int]) -> None:
        """Read the copy back from its disk and compare the pieces that we have."""
        self._staged.drop_cached(self._present)
        for chunk in jobs.chunks(geometry, have):
            checked = jobs.check(self._staged, geometry, hashes, chunk, cancelled=self._stop)
            if checked.bad:
                piece = checked.bad[0]
                span = self._files.spans(geometry.piece_offset(piece), 1)[0]
                # Whose fault? Where the source is as bad, somebody changed it since it was verified.
                blamed, cause = self._staged, "io_error"
                if jobs.check(self._files, geometry, hashes, [piece]).bad:
                    blamed, cause = self._files, "changed"
                path = blamed.path_of(span.number)
                raise StorageError(
                    f"{path}: piece {piece} does not match its hash; nothing was moved",
                    path=path,
                    cause=cause,
                )
            self._advance(sum(geometry.piece_size(piece) for piece in chunk))

    def name(self) -> None:
        """The last step: what is whole in the hidden directory gets its name."""
        try:
            hidden = open_root(self._staged.root)
            try:
                for name in sorted(
                    {self._files.paths[number][0] for number in self._present}, key=self._is_top
                ):
                    _name(name, hidden, self._target)
                os.fsync(hidden)
            finally:
                os.close(hidden)
            os.fsync(self._target)
        except FileExistsError:
            raise self._exists() from None
        except OSError as error:
            raise StorageError.from_os(error, self._final) from None

    def _is_top(self, name: str) -> bool:
        return name == self._top

    def _each(self, act: Callable[[int, str, int, int], None]) -> None:
        """Call `act(number, name, source directory, staged directory)` for each file that there is."""
        os.mkdir(self._staged.root, 0o700)
        source, staged = open_root(self._files.root), open_root(self._staged.root)
        try:
            with Walker(source) as reading, Walker(staged, on_made=lambda _: None) as writing:
                for number in self._present:
                    self._stop()
                    path = self._files.paths[number]
                    act(number, path[-1], reading.enter(path[:-1]), writing.enter(path[:-1]))
        finally:
            os.close(source)
            os.close(staged)

    def _copy_file(self, number: int, reading: int, writing: int) -> None:
        def copied(step: int) -> None:
            self._stop()
            self._advance(step)

        self._stop()
        if not copy_file(reading, writing, copied):
            path = self._files.path_of(number)
            raise StorageError(f"{path}: became shorter while it was copied", path=path, cause="changed")

    def _require_space(self) -> None:
        needed = 0
        for number in self._present:
            found = os.stat(self._files.path_of(number), follow_symlinks=False)
            needed += min(found.st_size, found.st_blocks * 512)  # holes are copied as holes
        require_space(self._target, needed, self._target_root, self._files.floor)

    def _has_foreign(self) -> bool:
        root, paths = self._files.root, set(self._files.paths)
        for folder, _, names in os.walk(os.path.join(root, self._top)):
            inside = os.path.relpath(folder, root).split(os.sep)
            if any((*inside, name) not in paths for name in names):
                return True
        return False

    def _stop(self) -> bool:
        if self._cancelled():
            raise _Cancelled
        return False

    def _advance(self, step: int) -> None:
        self._done += step
        if self._on_progress is not None:
            self._on_progress(self._done, max(self._done, self._total))

    def _exists(self) -> NotAllowed:
        return NotAllowed(f"{self._final} is there already, and is not overwritten", path=self._final)


def _hidden(target_root: str, tag: str) -> str:
    return os.path.join(target_root, f".{tag}.moving")


def _name(name: str, hidden: int, target: int) -> None:
    """Rename from one directory into the other without ever replacing anything."""
    try:
        syscalls.rename_noreplace(name, name, source_dir=hidden, target_dir=target)
        return
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
    # A filesystem that cannot refuse by itself. A directory can only take the place of an empty one; a file
    # gets a second name, which fails where there is one.
    if S_ISDIR(os.stat(name, dir_fd=hidden, follow_symlinks=False).st_mode):
        os.rename(name, name, src_dir_fd=hidden, dst_dir_fd=target)
    else:
        os.link(name, name, src_dir_fd=hidden, dst_dir_fd=target, follow_symlinks=False)
        os.unlink(name, dir_fd=hidden)
