"""The files of one torrent as one run of bytes: offsets are everywhere those in the whole content.

Rules
- Only files below the root are touched, and nothing is reached through a symbolic link (`tree.py`).
- Only `create` makes anything. A root that was there once and is gone, or shows another filesystem without
  our files, is a missing mount: cause `missing_root`, and nothing is written.
- Nothing is ever truncated. A file longer than the torrent says is somebody's, and is refused.
- Padding is no file: it reads as zeros, and what is written to it goes nowhere (BEP 47).
- A file that is aside lies in a hidden directory, and is made when something is written to it (`aside.py`).
- Files are opened for reading until the first write, so read-only media can be seeded.
- Everything raises StorageError with the file's path, and nothing else.

Methods wait for the disk and belong into a disk thread, except `read_nowait` and the pure ones. Any number
of threads may read and write at once; the lists of what to sync rely on single set operations being atomic,
and a file changes its place while none is opened.
"""

from __future__ import annotations

import errno
import os
from _thread import RLock
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from stat import S_ISREG
from typing import Literal, NamedTuple

from microtorrd.disk import layout
from microtorrd.disk.aside import Arranged, arrange
from microtorrd.disk.descriptors import Descriptor, DescriptorCache
from microtorrd.disk.space import FreeSpaceFloor, require_space
from microtorrd.disk.tree import Parts, Walker, make_root, open_file, open_root
from microtorrd.errors import StorageError
from microtorrd.proto.selection import KEPT, OFF

__all__ = ["DescriptorCache", "FileSet", "FileStat", "FreeSpaceFloor", "Preallocate", "Span"]

#: How files get their size: as pieces land, at once without blocks, or at once with blocks.
Preallocate = Literal["none", "sparse", "full"]

FileStat = tuple[int, int]  # size in bytes, mtime in ns

#: What opening says where the name belongs to a link, a directory, a socket.
_SOMETHING_ELSE = (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO)


_ZEROS = bytes(1 << 16)


class Span(NamedTuple):
    """A run of content bytes within one file."""

    number: int  # of the file
    offset: int  # in the file
    length: int


class FileSet:
    """The files below `root`, in the order of the content: pairs of path parts and length in bytes.

    `rename_first` takes the place of the first part of every path. `root_device` is the device number of
    the root when the torrent was added, None before `create` made it; read it after `create` and keep it.
    `virtual` are the numbers of those that are no files on disk, `executable` of those made so, `aside` of
    those that lie aside at first, in a directory that has its name by `tag`.
    """

    def __init__(
        self,
        root: str,
        files: Sequence[tuple[Sequence[str], int]],
        *,
        descriptors: DescriptorCache,
        rename_first: str | None = None,
        root_device: int | None = None,
        floor: FreeSpaceFloor | None = None,
        virtual: Collection[int] = (),
        executable: Collection[int] = (),
        aside: Collection[int] = (),
        tag: str = "",
    ) -> None:
        self.root = root
        self.root_device = root_device
        self.remounted = False  # the root came back under another device number
        #: Where each file lies when it is not aside.
        self.in_tree: tuple[Parts, ...] = tuple(_renamed(tuple(path), rename_first) for path, _ in files)
        self.lengths: tuple[int, ...] = tuple(length for _, length in files)
        self.length = sum(self.lengths)
        self.virtual = frozenset(virtual)
        self.executable = frozenset(executable)
        self.tag = tag
        #: The directory of those that are aside.
        self.hidden = f".{tag}.parts"
        self.placing = RLock()  # a real one, as in `descriptors.py`; for disk threads only
        self._aside: frozenset[int] = frozenset()
        #: Where each file lies now.
        self.paths: tuple[Parts, ...] = self.in_tree
        self.put_aside(aside)
        self._descriptors = descriptors
        self._owner = descriptors.owner()
        self.floor = floor
        #: Where each file begins in the content.
        self.starts: tuple[int, ...] = tuple(accumulate(self.lengths, initial=0))[:-1]
        # Empty files hold no offset and would confuse the bisection.
        self._numbers = [number for number, length in enumerate(self.lengths) if length]
        self._begins = [self.starts[number] for number in self._numbers]
        self._unsynced: set[int] = set()
        self._made: set[Parts] = set()  # directories whose entries changed

    # ------------------------------------------------------------------------------------------ arithmetic

    def spans(self, offset: int, length: int) -> list[Span]:
        """The files that hold these bytes, in order."""
        return list(self._spans(offset, length))

    def _spans(self, offset: int, length: int) -> Iterator[Span]:
        at = bisect_right(self._begins, offset) - 1
        while length > 0:
            number = self._numbers[at]
            begin = offset - self._begins[at]
            part = min(length, self.lengths[number] - begin)
            yield Span(number, begin, part)
            offset, length, at = offset + part, length - part, at + 1

    @property
    def aside(self) -> frozenset[int]:
        """The numbers of the files that are aside."""
        return self._aside

    @property
    def top(self) -> str:
        """The name of the content: the single file, or the directory of several."""
        return self.in_tree[0][0]

    def put_aside(self, numbers: Collection[int]) -> None:
        """From now on these files are aside and no others; whoever calls has seen to what is on disk."""
        if self._aside == numbers:
            return
        self._aside = frozenset(numbers)
        paths = list(self.in_tree)
        for number in self._aside:
            paths[number] = self.path_aside(number)
        self.paths = tuple(paths)

    def path_aside(self, number: int) -> Parts:
        """Where the file lies while it is aside."""
        return (self.hidden, str(number))

    def path_of(self, number: int) -> str:
        """The file's path, for people."""
        return os.path.join(self.root, *self.paths[number])

    def at(self, root: str, root_device: int | None = None) -> FileSet:
        """The same files below another root."""
        return FileSet(
            root,
            list(zip(self.in_tree, self.lengths, strict=True)),
            descriptors=self._descriptors,
            root_device=root_device,
            floor=self.floor,
            virtual=self.virtual,
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

    def read_ahead(self, offset: int, length: int) -> None:
        """These bytes are wanted soon: let the kernel fetch them."""
        for number, begin, part in self._spans(offset, length):
            if number in self.virtual:
                continue
            with self._leased(number, writable=False) as descriptor:
                os.posix_fadvise(descriptor.fd, begin, part, os.POSIX_FADV_WILLNEED)

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
        """
        with self._at_root(make=True) as root:
            layout.create(self, root, preallocate, made=self._made)

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
        with self._at_root() as root:
            layout.delete(self, root)

    def delete_aside(self) -> None:
        """Remove what is aside, and its directory; nothing else."""
        with self._at_root() as root:
            layout.delete(self, root, self._aside)

    def require_room(self, size: int) -> None:
        """StorageError `no_space` where so many bytes more would not fit."""
        with self._at_root() as root:
            require_space(root, size, self.root, self.floor)

    def close(self) -> None:
        """Close the descriptors, each as soon as no thread uses it. The set stays usable."""
        self._descriptors.forget(self._owner)

    def failed(self, error: OSError, number: int | None = None) -> StorageError:
        """The error with its cause, at this file or at the root."""
        path = self.root if number is None else self.path_of(number)
        if error.errno in _SOMETHING_ELSE:
            return StorageError(
                f"{path}: on the way there is a symbolic link, or something else than a file or directory",
                path=path,
                cause="changed",
                errno=error.errno,
            )
        return StorageError.from_os(error, path)

    # ---------------------------------------------------------------------------------------------- our own

    @contextmanager
    def _leased(self, number: int, *, writable: bool) -> Iterator[Descriptor]:
        """The file's descriptor while it is used; an OSError on the way becomes a StorageError."""
        try:
            descriptor = self._descriptors.lease((self._owner, number), writable=writable)
            if descriptor is None:
                descriptor = self._open(number, writable=writable)
            try:
                yield descriptor
            finally:
                self._descriptors.give_back(descriptor)
        except OSError as error:
            raise self.failed(error, number) from None

    def _open(self, number: int, *, writable: bool) -> Descriptor:
        with self._at_root() as root, self.placing:
            makes = writable and number in self._aside
            flags = os.O_CREAT if makes else 0
            path = self.paths[number]
            with Walker(root, on_made=(lambda made: self._made.add(made[:-1])) if makes else None) as walker:
                try:
                    flags |= os.O_RDWR if writable else os.O_RDONLY
                    mode = 0o777 if number in self.executable else 0o666
                    fd = open_file(path[-1], flags, within=walker.enter(path[:-1]), mode=mode)
                except OSError as error:
                    raise self.failed(error, number) from None
            if makes:
                self._made.add(path[:-1])
        descriptor = Descriptor(fd, writable=writable)
        if not descriptor.is_regular():
            os.close(fd)
            raise self._changed(number, "is not a regular file")
        self._descriptors.keep((self._owner, number), descriptor)
        return descriptor

    @contextmanager
    def _at_root(self, *, make: bool = False) -> Iterator[int]:
        """The root's descriptor, once it is known to be the one that we had."""
        try:
            if make and self.root_device is None:
                make_root(self.root)
            root = open_root(self.root)
        except FileNotFoundError:
            raise self._missing_root("is gone") from None
        except NotADirectoryError:
            raise self._missing_root("is not a directory") from None
        except OSError as error:
            raise StorageError.from_os(error, self.root) from None
        try:
            self._recognize(root)
            yield root
        except OSError as error:
            raise StorageError.from_os(error, self.root) from None
        finally:
            os.close(root)

    def _recognize(self, root: int) -> None:
        device = os.fstat(root).st_dev
        if self.root_device is None:
            self.root_device = device
        elif device != self.root_device:
            # Some filesystems have a new number after each mount. What tells a missing mount from one that
            # came back is whether our files are there.
            if not any(_exists(name, root) for name in (self.top, self.hidden)):
                raise self._missing_root("is on another filesystem, and without our files")
            self.root_device, self.remounted = device, True

    def _admit(self, number: int, descriptor: Descriptor, length: int) -> None:
        """Before a write: is the open file still the one in the directory, and is there room?"""
        found = os.fstat(descriptor.fd)
        if found.st_nlink == 0:
            self._descriptors.forget(self._owner, number)
            with self._at_root():
                raise self._changed(number, "was deleted while it was in use")
        if self.floor is not None and found.st_blocks * 512 < self.lengths[number]:
            self.floor.admit(descriptor.fd, found.st_dev, length, self.path_of(number))

    def _changed(self, number: int, how: str) -> StorageError:
        path = self.path_of(number)
        return StorageError(f"{path}: {how}", path=path, cause="changed")

    def _missing_root(self, how: str) -> StorageError:
        message = f"{self.root}: the save directory {how}; is its disk mounted?"
        return StorageError(message, path=self.root, cause="missing_root")


def _renamed(path: Parts, first: str | None) -> Parts:
    return path if first is None else (first, *path[1:])


def _exists(name: str, within: int) -> bool:
    try:
        os.stat(name, dir_fd=within, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


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
