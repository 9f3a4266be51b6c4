"""Signals that end a command in the foreground: heard at any time, heeded only where it waits.

Whoever waits does it in `heeded()`; there, and only there, a signal comes out as `Interrupted`, so that no
clean-up is cut short and nothing is left half made. A second signal asks to hurry.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody wants this to end. Like KeyboardInterrupt it is no error: no `except Exception` keeps it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interrupts:
    """Listens in a `with`; in the main thread only. `hurry` is called for every signal after the first."""

    def __init__(self) -> None:
        self.number: int | None = None  # the first signal that came
        self.hurry: Callable[[], None] | None = None
        self._heeded = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in SIGNALS:
            handler = signal.getsignal(number)
            # nohup(1) asks us to live on when the terminal goes.
            if number is not signal.SIGHUP or handler is not signal.SIG_IGN:
                self._before[number] = handler
                signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """A signal that came before, or comes while this lasts, is raised as Interrupted."""
        self._heeded = True
        try:
            if self.number is not None:
                raise Interrupted(self.number)
            yield
        finally:
            self._heeded = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            if self.hurry is not None:
                self.hurry()
            return
        self.number = number
        if self._heeded:
            raise Interrupted(number)
