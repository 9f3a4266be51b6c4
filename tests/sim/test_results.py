"""Results that are kept: nothing is lost on the way, and one bad seed is not hidden by two good ones."""

from __future__ import annotations

import pathlib
from math import inf

import pytest

from bench.sim import report, scenarios
from bench.sim.figures import Figure, Result
from bench.sim.results import POINTS, Runs, keep, kept


def result(seed: int, value: float, **what: object) -> Result:
    figure = Figure("how long", value, most=1.3)
    return Result("ten at once", seed, 11, 8.0, [figure, Figure("how many", 2.0)], **what)  # type: ignore[arg-type]


def test_what_is_kept_is_what_was_found(tmp_path: pathlib.Path) -> None:
    found = Runs(
        "ten", [result(1, 1.25, curves={"done": [(0.5, 0.0), (1.0, 1.0)]}, copies=[1, 2]), result(2, inf)]
    )
    keep(found, tmp_path)
    assert kept(["nine", "ten"], tmp_path) == [found]


def test_long_curves_are_thinned_and_end_where_they_ended(tmp_path: pathlib.Path) -> None:
    curve = [(at / 10, at / 1000) for at in range(1001)]
    keep(Runs("ten", [result(1, 1.0, curves={"done": curve})]), tmp_path)
    (again,) = kept(["ten"], tmp_path)
    thin = again.first.curves["done"]
    assert len(thin) <= POINTS + 1
    assert (thin[0], thin[-1]) == (curve[0], curve[-1])


def test_the_median_is_shown_and_every_seed_counts() -> None:
    runs = Runs("ten", [result(1, 1.1), result(2, 1.2), result(3, 1.4)])
    assert not runs.good
    assert runs.spreads()[0].median == 1.2
    row = next(line for line in report.table([runs]).splitlines() if "how long" in line)
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        "ten at once (3 seeds)",
        "how long",
        "1.20",
        "1.10 to 1.40",
        "at most 1.3",
        "**not met**",
    ]
    assert Runs("ten", runs.results[:2]).good


def test_every_figure_of_a_scenario_has_a_name_of_its_own() -> None:
    for found in (scenarios.fan_out(4, pieces=8), scenarios.spread(4, pieces=8)):
        names = [figure.name for figure in found.figures]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_scenario_says_with_which_seed_it_ran(seed: int) -> None:
    found = scenarios.fan_out(4, pieces=8, seed=seed)
    assert found.seed == seed
    assert found.memory_bytes > 1 << 20
