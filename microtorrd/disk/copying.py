"""One file copied into another that is open: bytes, holes, mode and times.

Within the kernel where it can, and as shared extents where the filesystem can; by hand elsewhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from stat import S_IMODE

from microtorrd.disk.jobs import READ_BYTES

#: Copied at a time.
STEP_BYTES = 8 << 20


def copy_file(reading: int, writing: int, on_copied: Callable[[int], None]) -> bool:
    """Make the second what the first is. `on_copied` gets the bytes of each step, and may raise to end it.
    False: it became shorter meanwhile. Raises OSError."""
    found = os.fstat(reading)
    os.ftruncate(writing, found.st_size)
    for begin, end in _data(reading, found.st_size):
        at = begin
        while at < end:
            step = _transfer(reading, writing, at, min(STEP_BYTES, end - at))
            if not step:
                return False
            at += step
            on_copied(step)
    os.fchmod(writing, S_IMODE(found.st_mode))
    os.utime(writing, ns=(found.st_atime_ns, found.st_mtime_ns))
    return True


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where the file has data; all of it where the filesystem knows no holes."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            begin, end = end, size
        yield begin, end


def _transfer(reading: int, writing: int, at: int, length: int) -> int:
    """Copy bytes within the kernel, as a shared extent where the filesystem can; else by hand."""
    try:
        return os.copy_file_range(reading, writing, length, at, at)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    part = os.pread(reading, min(length, READ_BYTES), at)
    written = 0
    while written < len(part):
        written += os.pwrite(writing, part[written:], at + written)
    return len(part)
