"""How the files of one torrent are found and opened.

Rules
- Only files below the root are touched, and nothing is reached through a symbolic link (`tree.py`).
- A root that was there once and is gone, or shows another filesystem without our files, is a missing mount:
  cause `missing_root`, and nothing is written.
- A file that is aside lies in a hidden directory, and is made when something is written to it (`aside.py`).
- Files are opened for reading until the first write, so read-only media can be seeded.
- Everything raises StorageError with the file's path, and nothing else.

What opens something waits for the disk and belongs into a disk thread.
"""

from __future__ import annotations

import errno
import os
from _thread import RLock
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import NamedTuple

from microtorrd.disk.descriptors import Descriptor, DescriptorCache
from microtorrd.disk.space import FreeSpaceFloor
from microtorrd.disk.tree import Parts, Walker, make_root, open_file, open_root
from microtorrd.errors import StorageError

#: What opening says where the name belongs to a link, a directory, a socket.
_SOMETHING_ELSE = (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO)


class Span(NamedTuple):
    """A run of content bytes within one file."""

    number: int  # of the file
    offset: int  # in the file
    length: int


class Link(NamedTuple):
    """A symbolic link of the torrent's."""

    text: str  # what is written in it
    target: Parts  # where that leads, from the directory of the torrent's files on


class Reach:
    """Where each file is, and the way to it. For the arguments see `FileSet`."""

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
        links: Mapping[int, Link] | None = None,
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
        self.links: Mapping[int, Link] = links or {}
        self.executable = frozenset(executable)
        self.tag = tag
        #: The directory of those that are aside.
        self.hidden = hidden_name(tag)
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

    def _changed(self, number: int, how: str) -> StorageError:
        path = self.path_of(number)
        return StorageError(f"{path}: {how}", path=path, cause="changed")

    def _missing_root(self, how: str) -> StorageError:
        message = f"{self.root}: the save directory {how}; is its disk mounted?"
        return StorageError(message, path=self.root, cause="missing_root")


def hidden_name(tag: str) -> str:
    """The directory of what is aside, for a torrent with this tag."""
    return f".{tag}.parts"


def _renamed(path: Parts, first: str | None) -> Parts:
    return path if first is None else (first, *path[1:])


def _exists(name: str, within: int) -> bool:
    try:
        os.stat(name, dir_fd=within, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
