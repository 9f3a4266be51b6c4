"""Which pieces of the content are still to be checked, and how far the check is.

What is wanted stays wanted until it was checked, across stops and failures. What we have is not touched
before a result is there: an interrupted check loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from microtorrd.core.events import Check
from microtorrd.core.picker import blank


class Checking:
    """The check of one torrent."""

    __slots__ = ("_pending", "_size", "_started_with", "checked", "total", "wanted", "was_full")

    def __init__(self, size: int) -> None:
        self._size = size
        self._pending = blank(0)  # as long as nothing is wanted it takes no memory
        self._started_with = 0
        self.wanted = False
        self.was_full = False  # the check that is under way, or was last, began with all pieces
        self.checked = 0
        self.total = 0

    def want(self, pieces: Iterable[int]) -> None:
        """These pieces are to be checked."""
        if not self.wanted:
            self._begin()
        for piece in pieces:
            self._pending[piece] = 1
        self.total = self.checked + self._pending.count()
        self.wanted = self._pending.any()
        self.was_full = self.was_full or (self.wanted and self._pending.all())

    def want_all(self) -> None:
        """All pieces are to be checked (of content without pieces, too: the host looks at its files)."""
        self._begin()
        self._pending.setall(1)
        self.wanted = self.was_full = True
        self.total = self._size

    def order(self) -> Check:
        """The order for what is pending; progress counts from here."""
        count = self._pending.count()
        self._started_with = count
        return Check(None if count == self._size else list(self._pending.search(1)))

    def done(self, pieces: Sequence[int]) -> None:
        """These were checked."""
        for piece in pieces:
            if self._pending[piece]:
                self._pending[piece] = 0
                self.checked += 1
        if pieces:
            self.wanted = self._pending.any()

    @property
    def progressed(self) -> bool:
        """Anything was checked since the last order."""
        return self._pending.count() < self._started_with

    def give_up(self) -> list[int]:
        """The check is over. Returns what was to be checked and never was."""
        left = list(self._pending.search(1))
        self._pending = blank(0)
        self.wanted = False
        return left

    def _begin(self) -> None:
        self._pending = blank(self._size)
        self.checked = self.total = 0
        self.was_full = False
