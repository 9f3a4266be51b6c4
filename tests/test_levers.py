"""Every lever can be taken away, and is gone then: else what it is worth would be measured of nothing."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from bench import connections
from bench.daemons import Daemon
from bench.levers import stages, suite, transfers
from bench.levers.catalogue import LEVERS
from bench.levers.stages import Figure, Measure, Stage
from bench.levers.swaps import NOTHING, Gone, Lever, Swap
from bench.measure import Row

ROOT = Path(__file__).parents[1]
SWAPS = [
    pytest.param(swap, id=f"{lever.name} {swap.target}") for lever in LEVERS.values() for swap in lever.swaps
]


@pytest.mark.parametrize("lever", LEVERS.values(), ids=LEVERS)
def test_a_lever_bites_and_can_be_put_back(lever: Lever) -> None:
    before = [swap.find()[2] for swap in lever.swaps]
    with lever.taken_away():
        during = [swap.find()[2] for swap in lever.swaps]
        assert all(one is not other for one, other in zip(before, during, strict=True))
    assert [swap.find()[2] for swap in lever.swaps] == before


@pytest.mark.parametrize("swap", SWAPS)
def test_what_is_replaced_is_read_there(swap: Swap) -> None:
    """What a module has by name and others have imported could be replaced there without any effect."""
    module, _, path = swap.target.partition(":")
    if "." in path:
        return  # of a class: it is looked up there each time
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    within = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    names = [node for function in within for node in ast.walk(function) if isinstance(node, ast.Name)]
    is_read = any(name.id == path and isinstance(name.ctx, ast.Load) for name in names)
    through_the_module = rf"\b{module.rpartition('.')[2]}\.{path}\b"
    others = [file.read_text() for file in (ROOT / "microtorrd").rglob("*.py")]
    assert is_read or any(re.search(through_the_module, text) for text in others)


@pytest.mark.parametrize(
    "swap",
    [
        Swap("microtorrd.nowhere:X", 1),
        Swap("microtorrd.notes:NOBODY", 1),
        Swap("microtorrd.notes:Subscription.nothing", len),
        Swap("microtorrd.notes:SUBSCRIPTION_BOUND", "of another type"),
        Swap("microtorrd.notes:SUBSCRIPTION_BOUND", 10_000),  # what it is anyway
        Swap("microtorrd.notes:Subscription.put", lambda self: None),  # has other parameters
    ],
    ids=lambda swap: swap.target,
)
def test_what_is_no_longer_there_is_said_aloud(swap: Swap) -> None:
    lever = Lever("stale", "was something once", (swap,), ())
    with pytest.raises(Gone), lever.taken_away():
        pass


def test_nothing_is_replaced_where_a_part_is_gone() -> None:
    bound = Swap("microtorrd.notes:SUBSCRIPTION_BOUND", 5)
    with pytest.raises(Gone):
        Lever("half", "", (bound, Swap("microtorrd.notes:NOBODY", 1)), ()).take_away()
    assert bound.find()[2] == 10_000


def test_levers_show_where_there_is_something_to_be_seen() -> None:
    assert len(LEVERS) == len({lever.what for lever in LEVERS.values()})
    for lever in LEVERS.values():
        assert lever.shows
        for show in lever.shows:
            key, _, figure = show.partition(".")
            assert figure in suite.STAGES[key].figures, f"{lever.name} shows {show}"


def test_the_document_tells_of_each_lever() -> None:
    found = (ROOT / "docs/BENCHMARKS.md").read_text(encoding="utf-8").partition("## What was found")[2]
    assert [name for name in LEVERS if f"`{name}`" not in found] == []


def test_a_daemon_runs_without_a_lever_and_with_a_watch(tmp_path: Path) -> None:
    with Daemon(tmp_path, without="gulps", probed=True) as daemon:
        assert daemon.call("daemon.ping")
        assert daemon.probe_path.exists()


def test_a_crowd_is_served_with_a_lever_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage that shares most with another suite; small, so that it fails here when they part."""
    monkeypatch.setattr(connections, "SIZE", 2 << 20)
    monkeypatch.setattr(connections, "PEERS", 5)
    monkeypatch.setattr(transfers.Crowd, "alone_s", 0.05)
    monkeypatch.setattr(transfers.Crowd, "together_s", 0.05)
    shown = ["alone", "cpu", "together", "stall"]
    with transfers.Crowd(tmp_path / "home") as stage, stage.side(NOTHING, frozenset(shown)) as plain:
        rows = stages.compare(stage, "turns", plain, shown, 1)
    assert [len(row.ours) == len(row.theirs) == 1 for row in rows] == [True] * 4
    assert all(row.ours[0] > 0 for row in rows)


def test_a_lever_that_does_not_exist_is_refused_with_a_list() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.without", "wishing"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert "gulps" in done.stderr and not done.stdout


def test_who_measures_is_not_patched() -> None:
    """gevent takes things away from the standard library that suites need, as `select.epoll`."""
    program = "import bench.__main__, select, socket; print(select.epoll, socket.socket.__module__)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    assert done.stdout == "<class 'select.epoll'> socket\n"


@pytest.mark.parametrize(
    ("ours", "theirs", "more_is_better", "said"),
    [
        ([11.0, 12.0, 13.0], [10.0, 10.0, 10.0], True, "pays"),
        ([9.0, 8.0, 7.0], [10.0, 10.0, 10.0], False, "pays"),
        ([9.0, 8.0, 7.0], [10.0, 10.0, 10.0], True, "**costs**"),
        ([10.1, 10.1, 10.1], [10.0, 10.0, 10.0], True, "not seen to pay"),
        ([9.0, 12.0, 13.0], [10.0, 10.0, 10.0], True, "pays, not in every pair"),
        ([9.0, 9.5, 13.0], [10.0, 10.0, 10.0], True, "not seen to pay"),
    ],
)
def test_a_lever_pays_when_every_pair_says_so(
    ours: list[float], theirs: list[float], more_is_better: bool, said: str
) -> None:
    assert suite.verdict(Row("", "", "", ours, theirs), Figure("", "", more_is_better)) == said


class Counted(Stage):
    """Counts who measured when."""

    name = "counted"
    figures: ClassVar = {"turn": Figure("whose turn it is", "turns")}
    rounds = 3

    @contextmanager
    def side(self, lever: str, wanted: object) -> Iterator[Measure]:
        yield self.measure_of(lever)

    def measure_of(self, lever: str) -> Measure:
        turns = self.__dict__.setdefault("turns", [])

        def measure() -> dict[str, float]:
            turns.append(lever or "plain")
            return {"turn": float(len(turns))}

        return measure


def test_sides_take_turns_and_the_first_pair_does_not_count(tmp_path: Path) -> None:
    stage = Counted(tmp_path / "home")
    with stage:
        (row,) = stages.compare(stage, "lever", stage.measure_of(""), ["turn"], 2)
    plain, lever = "plain", "lever"
    assert stage.__dict__["turns"] == [plain, lever, lever, plain, plain, lever]
    assert (row.ours, row.theirs) == ([4.0, 5.0], [3.0, 6.0])


def test_the_table_has_each_lever_with_its_rows() -> None:
    rows = [
        Row("pair: throughput", "MB/s", "pays", [2.0], [1.0], "without")
        for lever in LEVERS.values()
        for _ in lever.shows
    ]
    rows[0].note = "not measured: no disk"
    lines = suite.section("What each lever is worth", rows).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(rows) and len({line.count("|") for line in table}) == 1
    assert "| pair: throughput | 2.00 MB/s | 1.00 MB/s | 2.00 (2.00–2.00) | pays |" in table[2]
    assert any(line.endswith("not measured: no disk") for line in lines)
