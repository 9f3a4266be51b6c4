"""What a torrent's files look like on disk before the first piece and after the last: made, sized, removed.

Called by `FileSet` with the descriptor of its root; the rules are those of `files.py`. Each path that is made
is noted in `made` as the directory whose entries changed, so that a later sync makes the names durable too.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from stat import S_ISDIR, S_ISREG
from typing import Protocol

from microtorrd.disk import syscalls
from microtorrd.disk.reach import Link
from microtorrd.disk.space import FreeSpaceFloor, require_space
from microtorrd.disk.tree import Parts, Walker, open_file
from microtorrd.errors import StorageError


class Files(Protocol):
    """The part of a `FileSet` that is needed here."""

    root: str
    paths: tuple[Parts, ...]
    lengths: tuple[int, ...]
    floor: FreeSpaceFloor | None
    virtual: frozenset[int]
    links: Mapping[int, Link]
    executable: frozenset[int]

    @property
    def aside(self) -> frozenset[int]: ...

    def path_of(self, number: int) -> str: ...
    def failed(self, error: OSError, number: int | None = None) -> StorageError: ...


#: Why there is no link then: something has its name, or the filesystem knows none, or none so long.
_NO_LINK = (errno.EEXIST, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENAMETOOLONG)


def create(
    files: Files,
    root: int,
    preallocate: str,
    *,
    made: set[Parts],
) -> None:
    """Make and size what is missing, but of what is aside nothing. A size that a crash takes back is no loss:
    this is called again."""
    absent = files.virtual | files.aside
    numbers = [number for number in range(len(files.paths)) if number not in absent]
    with Walker(root) as walker:
        present = {number: _examine(files, walker, number) for number in numbers}
    if preallocate == "full":
        needed = sum(
            max(0, files.lengths[number] - (found.st_blocks * 512 if found else 0))
            for number, found in present.items()
            if found is None or found.st_size < files.lengths[number]
        )
        require_space(root, needed, files.root, files.floor)

    def note(parts: Parts) -> None:
        made.add(parts[:-1])

    with Walker(root, on_made=note) as walker:
        for number, found in present.items():
            path, length = files.paths[number], files.lengths[number]
            if found and (preallocate == "none" or found.st_size == length):
                continue
            try:
                within = walker.enter(path[:-1])
                flags = os.O_RDWR | (0 if found else os.O_CREAT | os.O_EXCL)
                mode = 0o777 if number in files.executable else 0o666
                fd = open_file(path[-1], flags, within=within, mode=mode)
                if not found:
                    made.add(path[:-1])
                try:
                    _size(fd, length, preallocate)
                finally:
                    os.close(fd)
            except OSError as error:
                raise files.failed(error, number) from None


def make_links(files: Files, root: int, numbers: Iterable[int], *, made: set[Parts]) -> None:
    """Make these symbolic links where nothing has their name yet and what they lead to is there.

    They are no content: what stands in the place of one is left alone, and a filesystem that has no links
    does without. Nothing is reached through a link here either, be it one of these.
    """

    def note(parts: Parts) -> None:
        made.add(parts[:-1])

    with Walker(root) as looking, Walker(root, on_made=note) as walker:
        for number in numbers:
            link, path = files.links[number], files.paths[number]
            target = (path[0], *link.target)
            try:
                found = os.stat(target[-1], dir_fd=looking.enter(target[:-1]), follow_symlinks=False)
                if S_ISREG(found.st_mode) or S_ISDIR(found.st_mode):
                    os.symlink(link.text, path[-1], dir_fd=walker.enter(path[:-1]))
                    made.add(path[:-1])
            except OSError as error:
                if not _nothing_of_ours(error) and error.errno not in _NO_LINK:
                    raise files.failed(error, number) from None


def links_there(files: Files, root: int) -> list[int]:
    """The numbers of the symbolic links that are there as they were made."""
    with Walker(root) as walker:
        return [number for number in files.links if _is_link(files, walker, number)]


def _is_link(files: Files, walker: Walker, number: int) -> bool:
    path = files.paths[number]
    try:
        return os.readlink(path[-1], dir_fd=walker.enter(path[:-1])) == files.links[number].text
    except OSError as error:
        if not _nothing_of_ours(error) and error.errno != errno.EINVAL:  # no link has its name
            raise files.failed(error, number) from None
        return False


def sync_directories(files: Files, root: int, made: set[Parts]) -> None:
    """Make the names in these directories durable, and take each out of the set."""
    with Walker(root) as walker:
        while made:
            parts = made.pop()
            try:
                os.fsync(walker.enter(parts))
            except OSError as error:
                made.add(parts)
                raise StorageError.from_os(error, os.path.join(files.root, *parts)) from None


def delete(files: Files, root: int, numbers: Iterable[int] | None = None) -> None:
    """Remove the files (None: all, and the symbolic links), then their directories that are empty, the
    deepest first.

    What is no regular file, or is longer than the torrent's, was never ours: it was refused, and stays.
    """
    with Walker(root) as walker:
        chosen = range(len(files.paths)) if numbers is None else sorted(numbers)
        ours = {number: files.paths[number] for number in chosen if number not in files.virtual}
        for number, path in ours.items():
            try:
                within = walker.enter(path[:-1])
                found = os.stat(path[-1], dir_fd=within, follow_symlinks=False)
                if S_ISREG(found.st_mode) and found.st_size <= files.lengths[number]:
                    os.unlink(path[-1], dir_fd=within)
            except OSError as error:
                if not _nothing_of_ours(error):
                    raise files.failed(error, number) from None
        links = {number: files.paths[number] for number in files.links} if numbers is None else {}
        for number, path in links.items():
            if _is_link(files, walker, number):
                os.unlink(path[-1], dir_fd=walker.enter(path[:-1]))
        for parts in _directories((*ours.values(), *links.values())):
            try:
                os.rmdir(parts[-1], dir_fd=walker.enter(parts[:-1]))
            except OSError as error:
                if not _nothing_of_ours(error) and error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise StorageError.from_os(error, os.path.join(files.root, *parts)) from None
    os.fsync(root)


def _examine(files: Files, walker: Walker, number: int) -> os.stat_result | None:
    """What has the file's name; None for nothing. Raises `changed` where it is not a file of ours."""
    path = files.paths[number]
    try:
        found = os.stat(path[-1], dir_fd=walker.enter(path[:-1]), follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise files.failed(error, number) from None
    where = files.path_of(number)
    if not S_ISREG(found.st_mode):
        raise StorageError(f"{where}: is there, but not a regular file", path=where, cause="changed")
    if found.st_size > files.lengths[number]:
        raise StorageError(
            f"{where}: has {found.st_size} bytes, more than the {files.lengths[number]} of the torrent",
            path=where,
            cause="changed",
        )
    return found


def _size(fd: int, length: int, preallocate: str) -> None:
    if preallocate == "none" or not length:
        return
    if preallocate == "full":
        try:
            syscalls.allocate(fd, length)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
        else:
            return
    os.ftruncate(fd, length)


def _directories(paths: Iterable[Parts]) -> list[Parts]:
    found = {path[:depth] for path in paths for depth in range(1, len(path))}
    return sorted(found, key=len, reverse=True)


def _nothing_of_ours(error: OSError) -> bool:
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
