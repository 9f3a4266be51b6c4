"""What was run last of each scenario, kept beside the page: it can be made without running all of them again.

One small JSON file a scenario, with a `Result` for each seed; the curves are those of the first one.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

from bench.sim.figures import Figure, Result

#: Points of a curve that are kept.
POINTS = 200


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over all seeds."""

    name: str
    values: Sequence[float]
    bounds: Figure  # of the first run: the aim is the same for all

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def span(self) -> str:
        """From the least to the most, for people; nothing where there is one seed."""
        return f"{min(self.values):.2f} to {max(self.values):.2f}" if len(self.values) > 1 else ""

    @property
    def good(self) -> bool:
        """The aim is met with every seed."""
        return all(self.bounds.least <= value <= self.bounds.most for value in self.values)


@dataclass(frozen=True, slots=True)
class Runs:
    """One scenario, run with one seed or several."""

    name: str
    results: Sequence[Result]  # by seed

    @property
    def first(self) -> Result:
        return self.results[0]

    @property
    def good(self) -> bool:
        """Every figure is what it should be, with every seed."""
        return all(result.good for result in self.results)

    def spreads(self) -> list[Spread]:
        """Each figure over all seeds."""
        return [
            Spread(figure.name, [result[figure.name] for result in self.results], figure)
            for figure in self.first.figures
        ]


def keep(runs: Runs, folder: Path) -> None:
    """Write the file of this scenario, in place of an older one."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = [_plain(result, with_curves=not at) for at, result in enumerate(runs.results)]
    text = json.dumps(kept, indent=1)
    (folder / f"{runs.name}.json").write_text(text + "\n", encoding="utf-8")


def kept(names: Iterable[str], folder: Path) -> list[Runs]:
    """What is there of these scenarios, in this order."""
    found = []
    for name in names:
        path = folder / f"{name}.json"
        if path.exists():
            runs = json.loads(path.read_text(encoding="utf-8"))
            found.append(Runs(name, [_result(run) for run in runs]))
    return found


def _plain(result: Result, *, with_curves: bool) -> dict[str, object]:
    plain = asdict(result)
    plain["figures"] = {
        figure.name: [_number(figure.value), _number(figure.least), _number(figure.most)]
        for figure in result.figures
    }
    curves = result.curves.items() if with_curves else ()
    plain["curves"] = {name: _thin(curve) for name, curve in curves}
    plain["copies"] = result.copies if with_curves else []
    plain["cpu_s"], plain["virtual_s"] = round(result.cpu_s), round(result.virtual_s, 1)
    plain["limit_s"] = round(result.limit_s, 4)
    plain["memory_bytes"] = result.memory_bytes >> 20 << 20
    return plain


def _result(plain: dict[str, object]) -> Result:
    given = dict(plain)
    figures = given.pop("figures")
    curves = given.pop("curves")
    assert isinstance(figures, dict)
    assert isinstance(curves, dict)
    return Result(
        **given,  # type: ignore[arg-type]
        figures=[Figure(name, *(float(number) for number in numbers)) for name, numbers in figures.items()],
        curves={name: [(at, value) for at, value in curve] for name, curve in curves.items()},
    )


def _number(value: float) -> float | str:
    """As JSON has no infinities they are words, which `float` reads."""
    return str(value) if abs(value) == inf else round(value, 5)


def _thin(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Every so many-th point, and the last."""
    step = -(-len(curve) // POINTS)
    chosen = [*curve[:-1:step], *curve[-1:]] if curve else []
    return [(round(at, 2), round(value, 4)) for at, value in chosen]
