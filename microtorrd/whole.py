"""The SHA-1 of a whole content, by which it is compared with its `id_hash`.

SHA-1 takes its bytes in order, and a check reads pieces in several threads at once. So the whole is hashed
right behind the check, one part after the other, as far as everything before is read and good: what was read
a moment ago still lies in the page cache, and a large content comes from its disk once. Where nothing is
checked, after a download, it is hashed on its own.

Calls come from the hub and wait for nothing; one part at a time is under way in the disk pool.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

from microtorrd.disk import jobs
from microtorrd.disk.files import FileSet
from microtorrd.disk.pool import DiskPool

#: Gets the digest, or what failed on the way there.
Done = Callable[[bytes | BaseException], None]


class WholeHash:
    """One pass over the content of `files`. After a cancellation nothing more comes of it."""

    def __init__(
        self,
        files: FileSet,
        pool: DiskPool,
        *,
        cancelled: Callable[[], bool],
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self._files = files
        self._pool = pool
        self._cancelled = cancelled
        self._on_progress = on_progress
        self._digest = hashlib.sha1()
        self._at = 0  # hashed
        self._end = 0  # may be read
        self._gaps: dict[int, int] = {}  # beyond it, what was read ahead of its turn: end by begin
        self._is_busy = False
        self._done: Done | None = None

    def was_read(self, begin: int, end: int) -> None:
        """These bytes of the content are good, and were read just now. Any order will do."""
        self._gaps[begin] = end
        while (further := self._gaps.pop(self._end, None)) is not None:
            self._end = further
        if self._end > self._at:
            self._go_on()

    def finish(self, done: Done) -> None:
        """All of the content may be read; `done` gets the digest when all of it is hashed."""
        self._end = self._files.length
        self._done = done
        self._go_on()

    def _go_on(self) -> None:
        if self._is_busy or self._cancelled():
            return
        self._is_busy = True
        job = partial(
            jobs.hash_on,
            self._files,
            self._digest,
            self._at,
            self._end,
            cancelled=self._cancelled,
            on_progress=self._on_progress,
        )
        self._pool.submit(job, partial(self._went_on, self._end), lane="bulk", place=self._files.root_device)

    def _went_on(self, end: int, failure: BaseException | None) -> None:
        self._is_busy = False
        if self._cancelled():
            return
        self._at = end
        if failure is not None:
            # Without anybody to hear of it: whoever reads these bytes finds the same, or is asked to finish.
            self._at = 0
            self._digest = hashlib.sha1()
            if self._done is not None:
                self._done(failure)
        elif self._at < self._end:
            self._go_on()
        elif self._done is not None:
            self._done(self._digest.digest())
