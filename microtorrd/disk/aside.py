"""Where the bytes of files lie that nobody wants: in a hidden directory beside the content.

A piece at the border of two files has bytes of both. Where one of them is not wanted, its bytes are kept all
the same, because only whole pieces can be checked and served; but not in the tree, where people would take
them for the file. The hidden directory is `.INFO_HASH.parts` below the save directory, and has a file for
each one that is aside, named by its number. The bytes stand in it where they stand in the file itself; what
is not there is a hole. So a file comes into the tree, or leaves it, by a rename, and its size and mtime, by
which a restart knows it again (`trust.py`), stay what they are.

Marks say of each file what is wished of it and where it is. What is on disk and the marks agree after
`arrange`, whatever a crash left: the wish is on record before anything is renamed, and again after it.

- *off* (0): it is aside. A file of its name in the tree is somebody's, and is not touched.
- *low, normal, high*: it is in the tree. What is aside of it comes into the tree; where something has its
  name there, that is taken for the file, and whoever calls has to check it.
- *kept*: nobody wants it, but it was whole when that was said, and stays in the tree. Once it is gone from
  there, it is off.
- *leaving*: nobody wants it, and it is to be put aside; then it is off.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from stat import S_ISREG
from typing import NamedTuple, Protocol

from microtorrd.disk import syscalls
from microtorrd.disk.tree import Parts, Walker
from microtorrd.errors import StorageError
from microtorrd.proto.selection import KEPT, LEAVING, OFF, is_wanted


class Files(Protocol):
    """The part of a `FileSet` that is needed here."""

    in_tree: tuple[Parts, ...]
    virtual: frozenset[int]
    hidden: str

    def path_aside(self, number: int) -> Parts: ...
    def failed(self, error: OSError, number: int | None = None) -> StorageError: ...


class Arranged(NamedTuple):
    """The outcome."""

    marks: bytes  # as they are now
    replaced: tuple[int, ...]  # files that something else has taken the place of


def arrange(files: Files, root: int, marks: bytes) -> Arranged:
    """Bring each file to where its mark says, durably. `root` is the descriptor of the save directory."""
    now = bytearray(marks)
    replaced: list[int] = []
    touched: set[Parts] = set()
    has_hidden = os.access(files.hidden, os.F_OK, dir_fd=root, follow_symlinks=False)
    with Walker(root, on_made=lambda parts: touched.add(parts[:-1])) as making, Walker(root) as looking:
        for number, mark in enumerate(marks):
            if number in files.virtual or mark == OFF or (is_wanted(mark) and not has_hidden):
                continue
            path, aside = files.in_tree[number], files.path_aside(number)
            try:
                if is_wanted(mark):
                    if _is_there(aside, looking):
                        touched.update(((), aside[:-1], path[:-1]))
                        if not _bring(aside, path, looking, making):
                            replaced.append(number)
                elif not _is_there(path, looking):
                    now[number] = OFF
                elif mark == LEAVING:
                    touched.add(aside[:-1])
                    touched.update(path[:depth] for depth in range(len(path)))
                    target = making.enter(aside[:-1])
                    os.rename(path[-1], aside[-1], src_dir_fd=looking.enter(path[:-1]), dst_dir_fd=target)
                    now[number] = OFF
                else:
                    assert mark == KEPT, f"{mark} is no mark of a file"
            except OSError as error:
                raise files.failed(error, number) from None
        for parts in sorted(touched, key=len, reverse=True):
            _settle(parts, looking)
    return Arranged(bytes(now), tuple(replaced))


def _bring(aside: Parts, path: Parts, looking: Walker, making: Walker) -> bool:
    """Give what is aside its name in the tree. False where a file has it already: that one stays."""
    source, target = looking.enter(aside[:-1]), making.enter(path[:-1])
    try:
        syscalls.rename_noreplace(aside[-1], path[-1], source_dir=source, target_dir=target)
    except FileExistsError:
        if not _is_there(path, making):
            raise OSError(errno.EISDIR, "not a regular file") from None
        os.unlink(aside[-1], dir_fd=source)
        return False
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        # A filesystem that cannot refuse by itself: a second name, which fails where there is one.
        os.link(aside[-1], path[-1], src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        os.unlink(aside[-1], dir_fd=source)
    return True


def _is_there(path: Parts, looking: Walker) -> bool:
    """Whether a regular file has this name."""
    try:
        found = os.stat(path[-1], dir_fd=looking.enter(path[:-1]), follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return S_ISREG(found.st_mode)


def _settle(parts: Parts, looking: Walker) -> None:
    """A directory that is empty now goes; the names in any other are made durable."""
    with suppress(FileNotFoundError, NotADirectoryError):
        if parts:
            within = looking.enter(parts[:-1])
            with suppress(OSError):  # not empty, for the most part
                os.rmdir(parts[-1], dir_fd=within)
                return
        os.fsync(looking.enter(parts))
