"""Three things of Linux that Python's `os` does not offer, called through the C library.

Each says with an errno when the kernel, the filesystem or the C library lacks it (ENOSYS, EOPNOTSUPP,
EINVAL); what to do then is the caller's affair. This room knows nothing of torrents.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)

_RENAME_NOREPLACE = 1

#: Filesystems that live in memory (tmpfs, ramfs): reading them never waits for a disk.
_IN_MEMORY = (0x01021994, 0x858458F6)

#: More than `struct statfs` of any architecture; its first word is the type of the filesystem.
_STATFS_BYTES = 256


def rename_noreplace(source: str, target: str, *, source_dir: int, target_dir: int) -> None:
    """Rename between two directories, given by descriptors; FileExistsError where `target` is taken."""
    names = os.fsencode(source), os.fsencode(target)
    call = _function("renameat2")
    if call(source_dir, names[0], target_dir, names[1], ctypes.c_uint(_RENAME_NOREPLACE)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source, None, target)


def allocate(fd: int, length: int) -> None:
    """Reserve blocks for the first `length` bytes and grow the file to them; what is in it stays.

    `os.posix_fallocate` is not used: where the filesystem cannot reserve, the C library quietly writes to
    every block instead, for hours on a large file.
    """
    call = _function("fallocate64" if hasattr(_libc, "fallocate64") else "fallocate")
    while call(fd, 0, ctypes.c_int64(0), ctypes.c_int64(length)) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def lives_in_memory(fd: int) -> bool:
    """Is the file on a filesystem without a disk? OSError as `fstatfs`."""
    raw = ctypes.create_string_buffer(_STATFS_BYTES)
    if _function("fstatfs")(fd, raw) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    word = ctypes.sizeof(ctypes.c_long)
    return int.from_bytes(raw.raw[:word], sys.byteorder) & 0xFFFFFFFF in _IN_MEMORY


def _function(name: str) -> Callable[..., int]:
    try:
        found: Callable[..., int] = getattr(_libc, name)
    except AttributeError as error:
        raise OSError(errno.ENOSYS, f"the C library has no {name}") from error
    return found
