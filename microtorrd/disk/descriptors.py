"""Open file descriptors, shared by all torrents and bounded in number.

A descriptor is leased, used and returned. The least recently used ones are closed when there are too many,
but never one that somebody holds: it is closed by the last who returns it. So there may be as many more than
the bound as there are threads using one.

Threads of the disk pool and the hub come here at once. The lock is the interpreter's own re-entrant one,
because the locks of `threading` belong to greenlets where gevent has patched the process; nothing is done
under it that could wait.
"""

from __future__ import annotations

import os
import stat
from _thread import RLock
from collections import OrderedDict
from itertools import count
from typing import Literal

from microtorrd.disk import syscalls

#: How a file can be read without waiting: `ask` the kernel for what it has in memory, read `inline` because
#: the filesystem is memory, or `never`.
NoWait = Literal["ask", "inline", "never"]

Key = tuple[int, int]  # owner, number of the file


class Descriptor:
    """An open regular file. `nowait` is found out once, by the first who reads without waiting."""

    __slots__ = ("dropped", "fd", "nowait", "users", "writable")

    def __init__(self, fd: int, *, writable: bool) -> None:
        self.fd = fd
        self.writable = writable
        self.nowait: NoWait = "ask"
        self.users = 1
        self.dropped = False

    def cannot_ask(self) -> None:
        """The filesystem knows no RWF_NOWAIT: decide what to do instead."""
        self.nowait = "inline" if syscalls.lives_in_memory(self.fd) else "never"

    def is_regular(self) -> bool:
        """A file with bytes in it, and not a directory, a device or a fifo."""
        return stat.S_ISREG(os.fstat(self.fd).st_mode)


class DescriptorCache:
    """At most `limit` descriptors that nobody uses stay open."""

    def __init__(self, limit: int) -> None:
        self._limit = max(1, limit)
        self._lock = RLock()
        self._open: OrderedDict[Key, Descriptor] = OrderedDict()
        self._owners = count(1)

    def __len__(self) -> int:
        return len(self._open)

    def owner(self) -> int:
        """A number for somebody whose files are to be kept apart from others'."""
        return next(self._owners)

    def lease(self, key: Key, *, writable: bool) -> Descriptor | None:
        """The open descriptor, which must come back through `give_back`; None where there is no such one."""
        with self._lock:
            found = self._open.get(key)
            if found is None or (writable and not found.writable):
                return None
            found.users += 1
            self._open.move_to_end(key)
            return found

    def give_back(self, descriptor: Descriptor) -> None:
        """The lease ends."""
        with self._lock:
            descriptor.users -= 1
            last = descriptor.dropped and descriptor.users == 0
        if last:
            os.close(descriptor.fd)

    def keep(self, key: Key, descriptor: Descriptor) -> None:
        """Put in a descriptor just opened, leased to who opened it. It takes the place of an older one."""
        with self._lock:
            gone = [self._open.pop(key)] if key in self._open else []
            self._open[key] = descriptor
            while len(self._open) > self._limit:
                gone.append(self._open.popitem(last=False)[1])
            idle = self._drop(gone)
        _close(idle)

    def forget(self, owner: int, number: int | None = None) -> None:
        """Close this one of the owner's files, or all of them, each as soon as nobody uses it."""
        with self._lock:
            if number is None:
                keys = [key for key in self._open if key[0] == owner]
            else:
                keys = [key for key in ((owner, number),) if key in self._open]
            idle = self._drop([self._open.pop(key) for key in keys])
        _close(idle)

    def close(self) -> None:
        """Close everything, each as soon as nobody uses it."""
        with self._lock:
            idle = self._drop(list(self._open.values()))
            self._open.clear()
        _close(idle)

    def _drop(self, gone: list[Descriptor]) -> list[Descriptor]:
        for descriptor in gone:
            descriptor.dropped = True
        return [descriptor for descriptor in gone if descriptor.users == 0]


def _close(descriptors: list[Descriptor]) -> None:
    # Outside of the lock: on a network filesystem closing can wait for a server.
    for descriptor in descriptors:
        os.close(descriptor.fd)
