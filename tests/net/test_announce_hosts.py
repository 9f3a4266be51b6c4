"""Who may be asked now: rates, numbers under way, dead services. Time is a number."""

from __future__ import annotations

import random
from typing import Any

from microtorrd.core.tiers import Place, place_of
from microtorrd.net.announce_hosts import Errand, HostGate, ScheduleLimits

LIMITS = ScheduleLimits(
    per_host=3, per_stranger=2, per_host_per_s=10.0, burst=3, dead_after=3, farewells_per_host=4
)


class Ask:
    """An errand that does nothing."""

    def __init__(
        self,
        name: str,
        *,
        url: str = "http://t/",
        metered: bool = False,
        urgent: bool = False,
        bye: bool = False,
    ) -> None:
        place = place_of(url)
        assert place is not None
        self.name = name
        self.place: Place = place
        self.is_metered = metered
        self.is_urgent = urgent or bye
        self.is_farewell = bye
        self.is_cancelled = False

    def run(self, within_s: float | None) -> str | None:
        return None

    def skip(self, message: str) -> None:
        raise AssertionError("the gate only says who is to be skipped")


class Door:
    """A gate with a clock and short names."""

    def __init__(self) -> None:
        self.gate = HostGate(LIMITS)
        self.now = 100.0
        self.skipped: list[str] = []
        self._under_way: dict[str, Errand] = {}

    def add(self, *names: str, **options: Any) -> list[Ask]:
        asks = [Ask(name, **options) for name in names]
        for ask in asks:
            self.gate.add(ask)
        return asks

    def next(self) -> str | None:
        errand, skipped = self.gate.next(self.now)
        self.skipped += [other.name for other, _ in skipped if isinstance(other, Ask)]
        if not isinstance(errand, Ask):
            return None
        self._under_way[errand.name] = errand
        return errand.name

    def end(self, name: str, unreached: str | None = None) -> None:
        self.gate.finished(self._under_way.pop(name), unreached=unreached, now=self.now)

    def fail(self, times: int) -> None:
        for number in range(times):
            self.add(f"failing {number}")
            assert self.next() == f"failing {number}"
            self.end(f"failing {number}", "refused")


def test_so_many_at_a_time_and_no_more() -> None:
    door = Door()
    door.add(*"abcdefg")
    assert [door.next(), door.next(), door.next()] == ["a", "b", None]
    assert door.gate.opens_at is None  # not time, but an end is waited for
    door.end("b")
    assert [door.next(), door.next(), door.next()] == ["c", "d", None]  # it has answered: one more at a time
    door.end("a")
    assert door.next() == "e"


def test_a_burst_at_once_and_then_the_rate() -> None:
    door = Door()
    door.add(*"abcde", metered=True)
    for name in "abc":
        assert door.next() == name
        door.end(name)
    assert door.next() is None
    assert door.gate.opens_at == 100.1
    door.now = 100.1
    assert door.next() == "d"
    door.end("d")
    assert door.next() is None
    assert door.gate.opens_at is not None
    door.now = door.gate.opens_at
    assert door.next() == "e"


def test_who_waits_for_the_rate_holds_up_nobody() -> None:
    door = Door()
    door.add(*"abcd", metered=True)
    for name in "abc":
        door.next()
        door.end(name)
    door.add("keep-alive")
    assert door.next() == "keep-alive"
    door.end("keep-alive")
    door.now = 100.1
    door.add("another")
    assert door.next() == "d"  # it came first


def test_urgent_ones_go_first_and_cancelled_ones_not_at_all() -> None:
    door = Door()
    first, _ = door.add("a", "b")
    door.add("completed", urgent=True)
    first.is_cancelled = True
    assert [door.next(), door.next()] == ["completed", "b"]
    assert door.gate.waiting == 0


def test_a_dead_service_fails_who_waits_and_is_probed_by_one() -> None:
    door = Door()
    door.fail(3)
    door.add("a", "b")
    assert door.next() is None
    assert door.skipped == ["a", "b"]
    door.now = 105.0
    door.add("probe", "c", "d")
    assert [door.next(), door.next()] == ["probe", None]
    assert door.skipped == ["a", "b"]
    door.end("probe", "refused")
    assert door.next() is None
    assert door.skipped == ["a", "b", "c", "d"]
    door.now = 110.0
    door.add("e")
    assert door.next() is None  # the rest is longer each time
    door.now = 115.0
    door.add("probe", "f")
    assert door.next() == "probe"
    door.end("probe")
    assert [door.next(), door.skipped[-1]] == ["f", "e"]


def test_a_dead_service_does_not_take_its_host_along() -> None:
    door = Door()
    door.fail(3)
    door.add("a")
    door.add("udp", url="udp://t:80")
    assert door.next() == "udp"
    assert door.skipped == ["a"]


def test_one_good_answer_in_between_and_the_service_is_alive() -> None:
    door = Door()
    door.fail(2)
    door.add("good")
    door.next()
    door.end("good")
    door.fail(2)
    door.add("a")
    assert door.next() == "a"


def test_many_are_skipped_a_few_at_a_time() -> None:
    door = Door()
    door.fail(3)
    door.add(*(str(n) for n in range(130)))
    assert door.next() is None
    assert len(door.skipped) == 50
    assert door.gate.opens_at == door.now
    door.next()
    door.next()
    assert len(door.skipped) == 130
    assert door.gate.opens_at is None


def test_draining_sends_farewells_only_without_a_rate_and_more_at_a_time() -> None:
    door = Door()
    door.add(*(f"call {n}" for n in range(5)), metered=True)
    door.add(*(f"bye {n}" for n in range(6)), bye=True)
    door.gate.drain()
    assert door.next() == "bye 0"
    door.end("bye 0")
    assert [door.next() for _ in range(5)] == ["bye 1", "bye 2", "bye 3", "bye 4", None]
    assert door.gate.waiting == 1


def test_while_draining_one_failure_is_enough() -> None:
    door = Door()
    door.fail(2)
    door.gate.drain()
    door.add("bye 0", bye=True)
    assert door.next() == "bye 0"  # what was before does not count
    door.add("bye 1", "bye 2", bye=True)
    door.end("bye 0", "no answer")
    assert door.next() is None
    assert door.skipped == ["bye 1", "bye 2"]


def test_a_service_that_was_dead_gets_no_farewell() -> None:
    door = Door()
    door.fail(3)
    door.add("bye", bye=True)
    door.gate.drain()
    assert door.next() is None
    assert door.skipped == ["bye"]


def test_newcomers_go_at_once_until_they_are_many() -> None:
    gate = HostGate(ScheduleLimits(per_host_per_s=50.0, burst=50))
    chance = random.Random(1)
    delays = [gate.newcomer_delay(0.0, chance) for _ in range(5000)]
    assert delays[:50] == [0.0] * 50
    assert 0 < max(delays[50:100]) < 2.0
    assert 90 < max(delays) <= 100.0  # 5,000 at 50 a second
    in_a_second = [sum(second <= delay < second + 1 for delay in delays[50:]) for second in range(100)]
    assert max(in_a_second) < 400
    assert gate.newcomer_delay(200.0, chance) == 0.0  # later, one more is a single one again


def test_what_can_wait_goes_when_there_is_room() -> None:
    gate = HostGate(LIMITS)
    assert gate.is_calm(0.0)
    gate.add(Ask("a"))
    assert not gate.is_calm(0.0), "somebody waits"
    gate.next(0.0)
    assert gate.is_calm(0.0)
    for _ in range(4):
        gate.newcomer_delay(0.0, random.Random(1))
    assert not gate.is_calm(0.0), "a crowd is on its way"
    assert gate.is_calm(1.0)
    gate.drain()
    assert not gate.is_calm(1.0)


def test_a_host_that_nobody_needs_is_forgotten() -> None:
    door = Door()
    assert door.gate.is_idle(door.now)
    door.add("a")
    assert not door.gate.is_idle(door.now)
    door.next()
    assert not door.gate.is_idle(door.now)
    door.end("a")
    assert door.gate.is_idle(door.now)
    door.fail(3)
    assert not door.gate.is_idle(door.now)
    assert door.gate.is_idle(door.now + 60)
