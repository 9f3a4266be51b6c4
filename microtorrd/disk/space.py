"""The floor under the free space of each filesystem: we stop writing before others get into trouble.

`statvfs` is asked at most once a second or once every 64 MiB written, whichever comes first, a filesystem.
Between two answers the bytes admitted are counted, so that many torrents at once do not each take the rest.
Counting is done without a lock: two threads that race may pass by one piece each, which a floor survives.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from microtorrd.errors import StorageError

#: How long, and for how many bytes, an answer of the filesystem holds.
ANSWER_HOLDS_S = 1.0
ANSWER_HOLDS_BYTES = 64 << 20


class FreeSpaceFloor:
    """Shared by all torrents. `floor_bytes` 0 admits everything that the filesystem takes."""

    def __init__(self, floor_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.floor_bytes = floor_bytes
        self._clock = clock
        self._allowed: dict[int, tuple[int, float]] = {}  # device: bytes, until when

    def admit(self, fd: int, device: int, size: int, path_of: Callable[[], str]) -> None:
        """May `size` new bytes be written to the open file or directory? StorageError `no_space` if not."""
        if not self.floor_bytes:
            return
        now = self._clock()
        allowed, until = self._allowed.get(device, (0, now))
        if now >= until or size > allowed:
            spare = free_bytes(fd) - self.floor_bytes
            if size > spare:
                self._allowed.pop(device, None)
                path = path_of()
                raise StorageError(
                    f"{path}: less than {self.floor_bytes} bytes would be left on this filesystem",
                    path=path,
                    cause="no_space",
                )
            # At least the piece in hand, else a large one would be asked for again and again.
            allowed, until = min(spare, max(size, ANSWER_HOLDS_BYTES)), now + ANSWER_HOLDS_S
        self._allowed[device] = (allowed - size, until)


def require_space(fd: int, needed: int, path: str, floor: FreeSpaceFloor | None) -> None:
    """Before much is written at once: StorageError `no_space` where it would not fit above the floor."""
    spare = free_bytes(fd) - (floor.floor_bytes if floor else 0)
    if needed > spare:
        raise StorageError(
            f"{path}: {needed} bytes are needed and {max(0, spare)} can be had", path=path, cause="no_space"
        )


def free_bytes(fd: int) -> int:
    """What a user without privileges may still write to this filesystem."""
    answer = os.fstatvfs(fd)
    return answer.f_bavail * answer.f_frsize
