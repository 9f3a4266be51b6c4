"""When Python looks for reference cycles: seldom, and never among those whom a rush has brought."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from microtorrd import cycles
from microtorrd.cycles import MANY, HighWater


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the collector was told."""
    told: list[str] = []
    monkeypatch.setattr(gc, "freeze", lambda: told.append("freeze"))
    monkeypatch.setattr(gc, "collect", lambda generation=2: told.append(f"collect {generation}"))
    thresholds, was_on = gc.get_threshold(), gc.isenabled()
    yield told
    gc.set_threshold(*thresholds)
    (gc.enable if was_on else gc.disable)()


def test_a_rush_is_set_aside_each_time_that_it_has_doubled(calls: list[str]) -> None:
    water = HighWater()
    for connections in (0, 10, MANY - 1):
        water.look(connections)
    assert calls == []
    water.look(MANY + 5)
    assert calls == ["collect 1", "freeze"]
    for connections in (2 * MANY, 3, 2 * MANY + 9):
        water.look(connections)
    assert calls == ["collect 1", "freeze"], "it went and came again"
    water.look(2 * MANY + 10)
    assert len(calls) == 4


def test_what_is_old_is_searched_seldom(calls: list[str]) -> None:
    gc.disable()
    cycles.resume_collections()
    young, middle, old = gc.get_threshold()
    assert calls == ["freeze"] and gc.isenabled()
    assert young * middle * old >= 500_000
