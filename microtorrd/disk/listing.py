"""Lists the files of a path that somebody wants to share, in the order in which they become the content.

The order is that of the bytes of the path's parts, so two runs over the same tree give the same torrent.
Empty files count; empty directories do not, for metainfo has no word for them. Files that their owner may
execute are marked so (BEP 47).

What is not a regular file is skipped and said so, with the reason: sockets, fifos, devices, and symbolic
links of every kind. Following a link would make a torrent whose content cannot be seeded from where it
lies, because the daemon goes through no link below its save directory. Only `path` itself may be one: it is
the caller's word.

A name that would not come back from metainfo as it is (not UTF-8, control characters) is an error rather
than skipped: it is a file that somebody meant to share.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from microtorrd.errors import NotAllowed, StorageError
from microtorrd.proto import paths
from microtorrd.proto.metainfo_model import MAX_FILES, FileEntry


class Listing(NamedTuple):
    """What a path holds that can be shared."""

    is_single_file: bool
    name: str  # the last part of the path
    files: list[FileEntry]
    paths: list[str]  # where each of `files` lies; `NOWHERE` of padding
    skipped: list[tuple[str, str]]  # path and reason of what is left out

    @property
    def length(self) -> int:
        """The bytes of all files together."""
        return sum(entry.length for entry in self.files)

    @property
    def sources(self) -> list[tuple[str, int]]:
        """Each file as `hash_content` takes it: where it lies, its length."""
        return [(path, entry.length) for path, entry in zip(self.paths, self.files, strict=True)]


#: Where padding lies.
NOWHERE = ""


def aligned(listing: Listing, piece_length: int) -> Listing:
    """The same files with padding (BEP 47), so that each that is not empty begins with a piece of its own."""
    files: list[FileEntry] = []
    where: list[str] = []
    offset = 0
    for entry, path in zip(listing.files, listing.paths, strict=True):
        lacking = -offset % piece_length
        if lacking and entry.length:
            files.append(FileEntry((listing.name, ".pad", str(len(files))), lacking, is_padding=True))
            where.append(NOWHERE)
            offset += lacking
        files.append(entry)
        where.append(path)
        offset += entry.length
    return listing._replace(files=files, paths=where)


def scan(path: str) -> Listing:
    """List a file, or a directory with everything below it.

    StorageError where something cannot be read; NotAllowed (`data["path"]`) where nothing is there to share,
    or a name or the number of files is beyond what metainfo can hold.
    """
    path = os.path.abspath(path)
    name = os.path.basename(path)
    if not name:
        raise NotAllowed(f"{path}: has no name that a torrent could have", path=path)
    try:
        top = os.stat(path)
    except OSError as error:
        raise StorageError.from_os(error, path) from error
    _check_name(name, path)
    if stat.S_ISREG(top.st_mode):
        return Listing(True, name, [_entry((name,), top)], [path], [])
    if not stat.S_ISDIR(top.st_mode):
        raise NotAllowed(f"{path}: {_kind(top.st_mode)}, where a file or directory belongs", path=path)
    found, skipped = _walk(path)
    if not found:
        raise NotAllowed(f"{path}: no file in it", path=path)
    found.sort(key=lambda file: [os.fsencode(part) for part in file[0]])
    return Listing(
        False,
        name,
        [_entry((name, *parts), status) for parts, status in found],
        [os.path.join(path, *parts) for parts, _ in found],
        sorted(skipped),
    )


def _entry(path: tuple[str, ...], status: os.stat_result) -> FileEntry:
    return FileEntry(path, status.st_size, attributes="x" if status.st_mode & stat.S_IXUSR else "")


def _walk(root: str) -> tuple[list[tuple[tuple[str, ...], os.stat_result]], list[tuple[str, str]]]:
    """The regular files below a directory as (parts, status), and what is skipped, in any order."""
    found: list[tuple[tuple[str, ...], os.stat_result]] = []
    skipped: list[tuple[str, str]] = []
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        above = waiting.pop()
        directory = os.path.join(root, *above)
        try:
            with os.scandir(directory) as entries:
                inside = [(entry, entry.stat(follow_symlinks=False)) for entry in entries]
        except OSError as error:
            raise StorageError.from_os(error, error.filename or directory) from error
        for entry, status in inside:
            parts = (*above, entry.name)
            if stat.S_ISDIR(status.st_mode):
                _check_name(entry.name, entry.path)
                waiting.append(parts)
            elif stat.S_ISREG(status.st_mode):
                _check_name(entry.name, entry.path)
                _check_length(parts, entry.path)
                found.append((parts, status))
            else:
                skipped.append((entry.path, _kind(status.st_mode)))
        if len(found) > MAX_FILES:
            raise NotAllowed(f"{root}: more than {MAX_FILES} files in it", path=root)
    return found, skipped


def _check_name(name: str, path: str) -> None:
    if not paths.is_clean(name):
        raise NotAllowed(
            f"{path!r}: a name that is not UTF-8 or has control characters cannot be shared; rename it",
            path=path,
        )


def _check_length(parts: tuple[str, ...], path: str) -> None:
    if sum(len(os.fsencode(part)) + 1 for part in parts) > paths.MAX_PATH_BYTES:
        raise NotAllowed(
            f"{path}: longer than the {paths.MAX_PATH_BYTES} bytes that a torrent can hold", path=path
        )


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISSOCK(mode):
        return "a socket"
    if stat.S_ISFIFO(mode):
        return "a fifo"
    return "a device"
