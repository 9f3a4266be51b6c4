"""What a command in the foreground says while it runs, by how much is wished to be heard.

The levels are those of the original program: CRITICAL is always said, the others from a verbosity of 1, 2 and
3 on. Lines of one thread never cut those of another; on a terminal they stand above a bar that is drawn.
"""

from __future__ import annotations

import sys
import threading
from typing import Literal

from mtorrctl import render
from mtorrctl.render import Color

Level = Literal["CRITICAL", "VERBOSE", "INFORMATION", "DEBUG"]

#: From which verbosity on each level is heard, and its colour.
LEVELS: dict[Level, tuple[int, Color]] = {
    "CRITICAL": (0, "red"),
    "VERBOSE": (1, "green"),
    "INFORMATION": (2, "blue"),
    "DEBUG": (3, "yellow"),
}


class Voice:
    """Says lines on standard output: results as they are, the rest with its level before it."""

    def __init__(self, verbosity: int) -> None:
        self.verbosity = verbosity
        self._lock = threading.Lock()
        # While a bar is drawn, rich puts itself in the place of sys.stdout to keep lines and bar apart. Only
        # a terminal needs that; a file or pipe gets its lines directly.
        self._stdout = sys.stdout
        self._is_terminal = render.is_terminal(sys.stdout)

    def hears(self, level: Level) -> bool:
        """Whether lines of this level are said at all."""
        return self.verbosity >= LEVELS[level][0]

    def say(self, level: Level, text: str) -> None:
        """One line of this level. Nothing in it can steer a terminal."""
        if self.hears(level):
            mark = render.paint(f"[{level}]:", LEVELS[level][1], self._stdout)
            self._write(f"{mark} {render.clean(text)}")

    def tell(self, *lines: str) -> None:
        """Lines of a result."""
        self._write("\n".join(render.clean(line) for line in lines))

    def _write(self, text: str) -> None:
        with self._lock:
            out = sys.stdout if self._is_terminal else self._stdout
            out.write(text + "\n")
            out.flush()
