"""The files of one torrent as one run of bytes: offsets are everywhere those in the whole content.

How a file is found and opened is in `reach.py`, on which this builds, with the rules of what may be touched.

Rules
- Only `create` makes anything, but for files that are aside (`aside.py`).
- Nothing is ever truncated. A file longer than the torrent says is somebody's, and is refused.
- Padding is no file: it reads as zeros, and what is written to it goes nowhere (BEP 47).
- Everything raises StorageError with the file's path, and nothing else.

Methods wait for the disk and belong into a disk thread, except `read_nowait` and the pure ones. Any number
of threads may read and write at once; the lists of what to sync rely on single set operations being atomic,
and a file changes its place while none is opened.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from functools import partial
from stat import S_ISREG
from typing import Literal

from microtorrd.disk import layout
from microtorrd.disk.aside import Arranged, arrange
from microtorrd.disk.descriptors import Descriptor, DescriptorCache
from microtorrd.disk.reach import Reach, Span
from microtorrd.disk.space import FreeSpaceFloor, require_space
from microtorrd.disk.tree import Walker
from microtorrd.errors import StorageError
from microtorrd.proto.selection import KEPT, OFF

__all__ = ["DescriptorCache", "FileSet", "FileStat", "FreeSpaceFloor", "Preallocate", "Span"]

#: How files get their size: as pieces land, at once without blocks, or at once with blocks.
Preallocate = Literal["none", "sparse", "full"]

FileStat = tuple[int, int]  # size in bytes, mtime in ns

_ZEROS = bytes(1 << 16)


class FileSet(Reach):
    """The files below `root`, in the order of the content: pairs of path parts and length in bytes.

    `rename_first` takes the place of the first part of every path. `root_device` is the device number of
    the root when the torrent was added, None before `create` made it; read it after `create` and keep it.
    `virtual` are the numbers of those that are no files on disk, `links` what symbolic links among them are,
    `executable` the numbers of those made so, `aside` of those that lie aside at first, in a directory that
    has its name by `tag`.
    """

    def at(self, root: str, root_device: int | None = None) -> FileSet:
        """The same files below another root."""
        return FileSet(
            root,
            list(zip(self.in_tree, self.lengths, strict=True)),
            descriptors=self._descriptors,
            root_device=root_device,
            floor=self.floor,
            virtual=self.virtual,
            links=self.links,
            executable=self.executable,
            aside=self._aside,
            tag=self.tag,
        )

    # -------------------------------------------------------------------------------------- reading, writing

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view`. A file that ends too early has cause `changed`."""
        done = 0
        for number, begin, length in self._spans(offset, len(view)):
            if number in self.virtual:
                _fill_with_zeros(view[done : done + length])
                done += length
                continue
            with self._leased(number, writable=False) as descriptor:
                part = view[done : done + length]
                got = 0
                while got < length:
                    step = os.preadv(descriptor.fd, [part[got:]], begin + got)
                    if step == 0:
                        raise self._changed(number, f"ends at {begin + got} bytes, before it should")
                    got += step
            done += length

    def read_nowait(self, offset: int, view: memoryview) -> bool:
        """Fill `view` from memory, never waiting for a disk. False: cold or in trouble; let a thread read,
        which then raises what there is to raise."""
        done = 0
        for number, begin, length in self._spans(offset, len(view)):
            if number in self.virtual:
                _fill_with_zeros(view[done : done + length])
                done += length
                continue
            # Not open means a disk may be needed to find it.
            descriptor = self._descriptors.lease((self._owner, number), writable=False)
            if descriptor is None:
                return False
            try:
                if not _read_now(descriptor, view[done : done + length], begin):
                    return False
            finally:
                self._descriptors.give_back(descriptor)
            done += length
        return True

    def write(self, offset: int, view: memoryview) -> None:
        """Write all of it, one call for each file concerned. The bytes are in the page cache after it."""
        done = 0
        for number, begin, length in self._spans(offset, len(view)):
            if number in self.virtual:
                done += length
                continue
            with self._leased(number, writable=True) as descriptor:
                self._admit(number, descriptor, length)
                part = view[done : done + length]
                written = 0
                while written < length:
                    written += os.pwritev(descriptor.fd, [part[written:]], begin + written)
            # After the write: what `sync` takes out of the set before it was added is written already.
            self._unsynced.add(number)
            done += length

    def next_data(self, offset: int, end: int) -> int:
        """The first offset from `offset` on where data may lie, at most `end`: before it are only holes."""
        for number, begin, length in self._spans(offset, end - offset):
            if number in self.virtual:
                offset += length
                continue
            with self._leased(number, writable=False) as descriptor:
                try:
                    found = os.lseek(descriptor.fd, begin, os.SEEK_DATA) - begin
                except OSError as error:
                    if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # knows no holes
                        return offset
                    if error.errno != errno.ENXIO:
                        raise
                    found = length  # a hole up to the end of the file
            if found < length:
                return offset + found
            offset += length
        return end

    def drop_cached(self, numbers: Iterable[int]) -> None:
        """Let the kernel forget what is synced of these files, so that the next read asks the disk."""
        for number in numbers:
            with self._leased(number, writable=False) as descriptor:
                os.posix_fadvise(descriptor.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    # ------------------------------------------------------------------------------------- the files as such

    def create(self, preallocate: Preallocate = "sparse") -> None:
        """Make what is missing of the root, the directories and the files, and size them.

        `none` leaves files to grow as pieces land, `sparse` gives them their size without blocks, `full`
        reserves the blocks too and says `no_space` before anything is made where they are not to be had
        (where the filesystem cannot reserve, it does as `sparse`). Files that are there keep their content.
        Symbolic links are made last, to what is there then.
        """
        with self._at_root(make=True) as root:
            layout.create(self, root, preallocate, made=self._made)
            layout.make_links(self, root, self.links, made=self._made)

    def make_links(self, numbers: Iterable[int]) -> None:
        """Make these symbolic links, too."""
        with self._at_root() as root:
            layout.make_links(self, root, numbers, made=self._made)

    def links_there(self) -> list[int]:
        """The numbers of the symbolic links that there are."""
        with self._at_root() as root:
            return layout.links_there(self, root)

    def arrange(self, marks: bytes) -> Arranged:
        """Bring files into the tree, or put them aside, as their marks say (`aside.py`). Makes the root."""
        with self._at_root(make=True) as root, self.placing:
            arranged = arrange(self, root, marks)
            self.put_aside(
                {number for number, mark in enumerate(arranged.marks) if mark == OFF} - self.virtual
            )
        gone = (number for number, mark in enumerate(marks) if mark == KEPT and number in self._aside)
        for number in (*arranged.replaced, *gone):
            self._descriptors.forget(self._owner, number)
        return arranged

    def let_go(self, number: int) -> None:
        """What is in the tree in the place of this file is not ours any more: from now on it is aside."""
        with self.placing:
            self.put_aside(self._aside | {number})
        self._descriptors.forget(self._owner, number)

    def sync(self, everything: bool = False) -> list[FileStat | None]:
        """Make durable what was written and created since the last sync; or `everything` there is, for files
        that an earlier process wrote to.

        Returns what `stat` said before, which is never newer than what is durable now: the figures to record.
        After a StorageError nothing written since the last sync counts as durable, and what the kernel still
        holds of it may be lost: it has to be checked again.
        """
        stats = self.stat()
        if everything:
            there = [number for number, found in enumerate(stats) if found and number not in self.virtual]
            self._unsynced.update(there)
            self._made.update(
                self.paths[number][:depth] for number in there for depth in range(len(self.paths[number]))
            )
        taken: list[int] = []
        try:
            for number in _take(self._unsynced):
                taken.append(number)
                with self._leased(number, writable=False) as descriptor:
                    # Not fdatasync: it leaves the mtime out, by which a restart knows its own file again.
                    os.fsync(descriptor.fd)
        except StorageError:
            self._unsynced.update(taken)
            raise
        if self._made:
            with self._at_root() as root:
                layout.sync_directories(self, root, self._made)
        return stats

    def stat(self, first: int = 0, end: int | None = None) -> list[FileStat | None]:
        """Size and mtime of each file, or of those numbered `first` to before `end`; None where there is no
        regular file. Padding has its length, always. Raises `missing_root`."""
        stats: list[FileStat | None] = []
        with self._at_root() as root, self.placing, Walker(root) as walker:
            for number, path in enumerate(self.paths[first:end], start=first):
                if number in self.virtual:
                    stats.append((self.lengths[number], 0))
                    continue
                try:
                    found = os.stat(path[-1], dir_fd=walker.enter(path[:-1]), follow_symlinks=False)
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                        raise self.failed(error, number) from None
                    stats.append(None)
                    continue
                stats.append((found.st_size, found.st_mtime_ns) if S_ISREG(found.st_mode) else None)
        return stats

    def delete(self) -> None:
        """Remove the torrent's files and those of its directories that are empty then; nothing else."""
        self.close()
        self._unsynced.clear()
        self._made.clear()
        if self.root_device is None and not os.path.lexists(self.root):
            return  # nothing was ever made
        with self._at_root() as root, self.placing:
            layout.delete(self, root)

    def delete_aside(self) -> None:
        """Remove what is aside, and its directory; nothing else."""
        with self._at_root() as root:
            layout.delete(self, root, self._aside)

    def require_room(self, size: int) -> None:
        """StorageError `no_space` where so many bytes more would not fit."""
        with self._at_root() as root:
            require_space(root, size, self.root, self.floor)

    def _admit(self, number: int, descriptor: Descriptor, length: int) -> None:
        """Before a write: is the open file still the one in the directory, and is there room?"""
        found = os.fstat(descriptor.fd)
        if found.st_nlink == 0:
            self._descriptors.forget(self._owner, number)
            with self._at_root():
                raise self._changed(number, "was deleted while it was in use")
        if self.floor is not None and found.st_blocks * 512 < self.lengths[number]:
            self.floor.admit(descriptor.fd, found.st_dev, length, partial(self.path_of, number))


def _fill_with_zeros(view: memoryview) -> None:
    for at in range(0, len(view), len(_ZEROS)):
        part = view[at : at + len(_ZEROS)]
        part[:] = _ZEROS[: len(part)]


def _take(numbers: set[int]) -> Iterator[int]:
    """Empty the set while others may add to it or take from it."""
    while True:
        try:
            yield numbers.pop()
        except KeyError:
            return


def _read_now(descriptor: Descriptor, view: memoryview, begin: int) -> bool:
    if descriptor.nowait == "never":
        return False
    flags = os.RWF_NOWAIT if descriptor.nowait == "ask" else 0
    try:
        return os.preadv(descriptor.fd, [view], begin, flags) == len(view)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP or not flags:
            return False
    descriptor.cannot_ask()
    return _read_now(descriptor, view, begin)
