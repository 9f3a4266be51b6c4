"""Lists the files of a path that somebody wants to share, in the order in which they become the content.

The order is that of the bytes of the path's parts, so two runs over the same tree give the same torrent.
Empty files count; empty directories do not, for metainfo has no word for them. Files that their owner may
execute are marked so (BEP 47).

What is not a regular file is skipped and said so, with the reason: sockets, fifos, devices, and symbolic
links, but for those that are wished for and end in the tree (BEP 47): they are listed with where they end.
Following a link would make a torrent whose content cannot be seeded from where it lies, because the daemon
goes through no link below its save directory. Only `path` itself may be one: it is the caller's word.

A name that would not come back from metainfo as it is (not UTF-8, control characters) is an error rather
than skipped: it is a file that somebody meant to share.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from microtorrd.errors import NotAllowed, StorageError
from microtorrd.proto import paths
from microtorrd.proto.links import settle
from microtorrd.proto.metainfo_model import MAX_FILES, FileEntry

_Found = list[tuple[tuple[str, ...], os.stat_result]]


class Listing(NamedTuple):
    """What a path holds that can be shared."""

    is_single_file: bool
    name: str  # the last part of the path
    files: list[FileEntry]
    paths: list[str]  # where each of `files` lies; `NOWHERE` of padding and links
    skipped: list[tuple[str, str]]  # path and reason of what is left out

    @property
    def length(self) -> int:
        """The bytes of all files together."""
        return sum(entry.length for entry in self.files)

    @property
    def sources(self) -> list[tuple[str, int]]:
        """Each file as `hash_content` takes it: where it lies, its length."""
        return [(path, entry.length) for path, entry in zip(self.paths, self.files, strict=True)]


#: Where that lies which is not read.
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


def scan(path: str, *, links: bool = False) -> Listing:
    """List a file, or a directory with everything below it, on wish with its symbolic links.

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
    found, others = _walk(path)
    if not found:
        raise NotAllowed(f"{path}: no file in it", path=path)
    files = [_entry((name, *parts), status) for parts, status in found]
    if links:
        files += _links(path, files, others)
    _check_count(len(files), path)
    files.sort(key=lambda entry: [os.fsencode(part) for part in entry.path])
    kept = {entry.path for entry in files if entry.is_link}
    places = [NOWHERE if entry.is_link else os.path.join(path, *entry.path[1:]) for entry in files]
    skipped = [
        (os.path.join(path, *parts), _kind(status.st_mode))
        for parts, status in others
        if (name, *parts) not in kept
    ]
    return Listing(False, name, files, places, sorted(skipped))


def _links(root: str, files: list[FileEntry], others: _Found) -> list[FileEntry]:
    """The symbolic links that end in one of these files, or in a directory of them."""
    name, top = os.path.basename(root), os.path.join(os.path.realpath(root), "")
    entries: list[FileEntry] = []
    for parts, status in others:
        if stat.S_ISLNK(status.st_mode):
            end = os.path.realpath(os.path.join(root, *parts))
            target = tuple(end[len(top) :].split(os.sep)) if end.startswith(top) else ()
            entries.append(FileEntry((name, *parts), 0, attributes="l", link=target))
    kept = [entry for entry in settle((*files, *entries)) if entry.link]
    for entry in kept:
        where = os.path.join(root, *entry.path[1:])
        _check_name(entry.path[-1], where)
        _check_length(entry.path[1:], where)
    return kept


def _entry(path: tuple[str, ...], status: os.stat_result) -> FileEntry:
    return FileEntry(path, status.st_size, attributes="x" if status.st_mode & stat.S_IXUSR else "")


def _walk(root: str) -> tuple[_Found, _Found]:
    """The regular files below a directory as (parts, status), and what else there is, in any order."""
    found: _Found = []
    others: _Found = []
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
                others.append((parts, status))
        _check_count(len(found), root)
    return found, others


def _check_count(count: int, root: str) -> None:
    if count > MAX_FILES:
        raise NotAllowed(f"{root}: more than {MAX_FILES} files in it", path=root)


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
