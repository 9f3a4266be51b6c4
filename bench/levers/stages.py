"""Where levers are measured: small versions of the other suites, with two sides that take turns.

A stage makes what all its levers share once. `side` is a daemon (or two, or none) with one lever taken away,
or with none: what it gives measures once, and returns the figures of the stage that are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from bench.measure import Row

#: Measures once; the figures by their names.
Measure = Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Figure:
    """One of a stage's figures: what it is, in which unit, and whether more of it is better."""

    words: str
    unit: str
    more_is_better: bool = False


class Stage:
    """Use it in a `with`; `why_not` says there whether it can be used on this machine."""

    name: ClassVar[str]
    figures: ClassVar[Mapping[str, Figure]]
    #: Pairs that count, and pairs before them that do not.
    rounds: ClassVar[int] = 5
    warm_up_rounds: ClassVar[int] = 1

    def __init__(self, home: Path) -> None:
        self.home = home
        self.why_not = ""
        self._stack = ExitStack()
        self._places = count()

    def __enter__(self) -> Stage:
        with self._stack:
            self.home.mkdir(parents=True)
            self.prepare(self._stack)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def new_place(self, lever: str, below: Path | None = None) -> Path:
        """A directory for something of one side, that nobody has used before."""
        return (below or self.home) / f"{next(self._places)}-{lever}"

    def prepare(self, stack: ExitStack) -> None:
        """Make what all sides share."""

    @contextmanager
    def side(self, lever: str, wanted: Set[str]) -> Iterator[Measure]:
        """Everything there, with this lever taken away; with `NOTHING` none is."""
        raise NotImplementedError
        yield


def compare(stage: Stage, lever: str, plain: Measure, wanted: list[str], most_rounds: int) -> list[Row]:
    """The wanted figures with the lever and without it, in turns; who goes first changes."""
    rows = [
        Row(f"{stage.name}: {stage.figures[name].words}", stage.figures[name].unit, "", other="without")
        for name in wanted
    ]
    with stage.side(lever, frozenset(wanted)) as without:
        for number in range(-stage.warm_up_rounds, min(stage.rounds, most_rounds)):
            sides = (plain, without) if number % 2 else (without, plain)
            found = {side: side() for side in sides}
            if number >= 0:
                for row, name in zip(rows, wanted, strict=True):
                    row.add(found[plain][name], found[without][name])
    return rows
