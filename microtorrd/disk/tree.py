"""Directories and files below a root, reached one name at a time and never through a symbolic link.

The root itself may be a link: it is the operator's word. Everything below it comes from metainfo, so each
step is taken with O_NOFOLLOW from the descriptor of the directory before; somebody who puts a link into the
tree cannot make us touch anything outside. Functions here raise OSError; `files.py` gives it a cause.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

#: Non-blocking, so that a fifo in the place of a file cannot hold a disk thread for ever.
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

Parts = tuple[str, ...]


def open_root(path: str) -> int:
    """Open an existing directory, named by the operator."""
    return os.open(path, _DIRECTORY)


def make_root(path: str) -> None:
    """Make the directory and those above it, durably. Where something has the name, nothing happens: opening
    it says what it is."""
    above, missing = os.path.abspath(path), []
    while not os.path.lexists(above):
        missing.append(above)
        above = os.path.dirname(above)
    for made in reversed(missing):
        try:
            os.mkdir(made)
        except FileExistsError:
            continue  # somebody else was quicker
        fd = os.open(os.path.dirname(made), _DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def open_file(name: str, flags: int, *, within: int, mode: int = 0o666) -> int:
    """Open a file in the directory `within`; never follows a link, never waits for a writer. A new one gets
    `mode`, less what the umask takes away."""
    return os.open(name, flags | _FILE, mode, dir_fd=within)


class Walker:
    """Goes from one directory below the root to the next and keeps the last one open, since neighbours in a
    torrent mostly share it. Use as a context manager."""

    def __init__(self, root: int, on_made: Callable[[Parts], None] | None = None) -> None:
        """`root` stays the caller's. With `on_made` missing directories are made, and told to it."""
        self._root = root
        self._on_made = on_made
        self._parts: Parts = ()
        self._fd = root

    def __enter__(self) -> Walker:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def enter(self, parts: Sequence[str]) -> int:
        """The descriptor of that directory, valid until the next call. OSError: ENOENT where it is missing,
        ENOTDIR or ELOOP where something else has its name."""
        wanted = tuple(parts)
        if wanted == self._parts:
            return self._fd
        self._leave()
        fd = self._root
        for depth, part in enumerate(wanted, start=1):
            try:
                below = self._step(fd, part, wanted[:depth])
            finally:
                if fd != self._root:
                    os.close(fd)
            fd = below
        self._fd, self._parts = fd, wanted
        return fd

    def _step(self, fd: int, part: str, parts: Parts) -> int:
        if self._on_made is None:
            return os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
        try:
            os.mkdir(part, 0o777, dir_fd=fd)
        except FileExistsError:
            return os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
        self._on_made(parts)
        return os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)

    def _leave(self) -> None:
        if self._fd != self._root:
            os.close(self._fd)
        self._fd, self._parts = self._root, ()
