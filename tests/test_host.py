"""The surroundings of a core: however much comes at once, others get their turn."""

from __future__ import annotations

import time
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest

from microtorrd import host as host_room
from microtorrd.core import events
from microtorrd.core.events import Fact
from microtorrd.core.states import Phase
from microtorrd.greenlets import Crew
from microtorrd.host import INBOX_MOST, TURN_S, CoreHost
from microtorrd.rate import TokenBucket
from tests.waiting import until


class SlowCore:
    """Takes its time for each fact."""

    phase = Phase.RUNNING
    lacking = 0

    def __init__(self, cost_s: float) -> None:
        self.orders: list[events.Order] = []
        self.handled: list[Fact] = []
        self._cost_s = cost_s

    def handle(self, fact: Fact, _: float) -> None:
        self.handled.append(fact)
        done_at = time.monotonic() + self._cost_s
        while time.monotonic() < done_at:
            sum(range(20))


def make_host(core: SlowCore, crew: Crew) -> CoreHost:
    facilities = SimpleNamespace(clock=time.monotonic, chance=None)
    content = SimpleNamespace(web_seeds=(), web_name="", entries=(), is_single_file=True)
    owner = SimpleNamespace(
        content=content, facilities=facilities, crew=crew, down=TokenBucket(), handled=lambda core: None
    )
    return CoreHost(cast(Any, core), cast(Any, owner), "it")


def some_facts(count: int) -> list[Fact]:
    return [events.DialFailed(("10.0.0.1", number + 1), "refused") for number in range(count)]


@pytest.fixture
def beats() -> Any:
    """How long the thread had worked when the hub looked at its timers."""
    seen: list[float] = []
    timer = gevent.get_hub().loop.timer(0.0005, 0.0005)
    timer.start(lambda: seen.append(time.thread_time()))
    yield seen
    timer.stop()
    timer.close()


def test_many_facts_at_once_do_not_hold_up_the_hub(crew: Crew, beats: list[float]) -> None:
    core, facts = SlowCore(0.001), some_facts(60)
    host = make_host(core, crew)
    host.post(facts[:50])
    host.post(facts[50:])
    until(lambda: len(core.handled) == len(facts))
    assert core.handled == facts, "in their order"
    assert len(beats) >= 60 * 0.001 / TURN_S / 2
    assert max(later - before for before, later in pairwise(beats)) < 3 * TURN_S


def test_a_wish_is_handled_at_once_after_all_that_came_before(crew: Crew) -> None:
    core, facts = SlowCore(0.001), some_facts(30)
    host = make_host(core, crew)
    host.post(facts)
    gevent.sleep(0.001)
    assert 0 < len(core.handled) < len(facts)
    host.act([events.Stopped()])
    assert core.handled == [*facts, events.Stopped()]


def test_what_waits_is_bounded(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_room, "TURN_S", 0.0)
    core, facts = SlowCore(0.0), some_facts(INBOX_MOST + 100)
    host = make_host(core, crew)
    host.post(facts)
    gevent.sleep(1e-9)
    assert len(core.handled) >= 100
    until(lambda: len(core.handled) == len(facts))
