"""Virtual time, in ticks, and what is to happen when."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

TICK_S = 0.1
TICKS_PER_S = round(1 / TICK_S)


class Clock:
    """Counts ticks; nothing happens between two of them."""

    __slots__ = ("_due", "tick")

    def __init__(self) -> None:
        self.tick = 0
        self._due: dict[int, list[tuple[Callable[..., None], tuple[Any, ...]]]] = {}

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self.tick * TICK_S

    def at(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call this after a time, at the next tick at the earliest."""
        self.in_ticks(ceil(delay_s / TICK_S), call, *arguments)

    def in_ticks(self, ticks: int, call: Callable[..., None], *arguments: Any) -> None:
        """The same, in ticks."""
        due = self.tick + (ticks if ticks > 1 else 1)
        calls = self._due.get(due)
        if calls is None:
            calls = self._due[due] = []
        calls.append((call, arguments))

    def advance(self) -> None:
        """The next tick begins: what is due happens."""
        self.tick += 1
        for call, arguments in self._due.pop(self.tick, ()):
            call(*arguments)
