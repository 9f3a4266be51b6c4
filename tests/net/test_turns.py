"""The row of those who send: order, a bound on each turn of the hub, and who leaves it before its turn. The
gate of those who were woken by their sockets."""

from __future__ import annotations

import gevent
import pytest
from gevent import Greenlet, get_hub, socket

from microtorrd.net import turns
from microtorrd.net.turns import Gate, Turns
from tests.net.peers import WAIT_S


class Clock:
    """Says what it was told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(turns, "monotonic", clock)
    return clock


class Row:
    """Workers that take turns, and what they did in which turn of the hub."""

    def __init__(self, clock: Clock, *, workers: str, times: int, cost_s: float) -> None:
        self.turns = Turns()
        self.done: list[tuple[int, str]] = []
        self._clock = clock
        self._loops = 0
        self._loop_watcher = get_hub().loop.prepare()
        self._loop_watcher.start(self._count)
        self.workers = [gevent.spawn(self._work, name, times, cost_s) for name in workers]

    def _count(self) -> None:
        self._loops += 1

    def _work(self, name: str, times: int, cost_s: float) -> None:
        for _ in range(times):
            self.turns.wait()
            self.done.append((self._loops, name))
            self._clock.now += cost_s

    def finish(self) -> str:
        gevent.joinall(self.workers, timeout=WAIT_S, raise_error=True)
        self._loop_watcher.stop()
        return "".join(name for _, name in self.done)

    def by_loop(self) -> list[str]:
        """Who had a turn in each turn of the hub that somebody had one in."""
        loops = dict.fromkeys(loop for loop, _ in self.done)
        return ["".join(name for at, name in self.done if at == loop) for loop in loops]


def test_turns_come_in_the_order_of_asking(clock: Clock) -> None:
    row = Row(clock, workers="abcd", times=5, cost_s=0.0)
    assert row.finish() == "abcd" * 5


def test_all_have_a_turn_where_it_costs_little_and_none_has_two(clock: Clock) -> None:
    row = Row(clock, workers="abcd", times=3, cost_s=turns.TURN_S / 5)
    row.finish()
    assert row.by_loop() == ["abcd"] * 3


def test_a_long_row_holds_up_the_hub_for_no_longer_than_a_turn(clock: Clock) -> None:
    row = Row(clock, workers="abcdefg", times=2, cost_s=turns.TURN_S / 2 + 1e-6)
    row.finish()
    assert row.by_loop() == ["ab", "cd", "ef", "ga", "bc", "de", "fg"]


def test_who_is_killed_in_the_row_takes_nobodys_turn(clock: Clock) -> None:
    row = Row(clock, workers="abc", times=2, cost_s=turns.TURN_S)
    gevent.sleep(0)  # all stand in the row
    row.workers[1].kill()
    assert row.finish() == "acac"


def test_an_error_after_a_turn_is_its_own(clock: Clock) -> None:
    row = Turns()

    def fail() -> None:
        row.wait()
        raise OSError("gone")

    failing = Greenlet(fail)
    failing.start()
    waiting = gevent.spawn(row.wait)
    failing.join(WAIT_S)
    waiting.join(WAIT_S)
    assert isinstance(failing.exception, OSError) and waiting.successful()


def test_sockets_are_looked_at_between_two_turns() -> None:
    row, heard = Turns(), []
    ours, theirs = socket.socketpair()
    listening = gevent.spawn(lambda: heard.append(ours.recv(1)))
    with ours, theirs, gevent.Timeout(WAIT_S):
        gevent.sleep(0)
        theirs.send(b"!")
        for _ in range(2):
            row.wait()
        assert heard == [b"!"]
        listening.join()


class Woken:
    """Many who are woken by their sockets in the same turn of the hub, and what each then does."""

    def __init__(self, clock: Clock, count: int, cost_s: float) -> None:
        self.gate = Gate()
        self.loops = 0
        self.done: list[tuple[int, int]] = []  # in which turn of the hub, and who
        self._clock = clock
        self._cost_s = cost_s
        self._pairs = [socket.socketpair() for _ in range(count)]
        self._loop_watcher = get_hub().loop.prepare()
        self._loop_watcher.start(self._count)
        self._readers = [gevent.spawn(self._read, number) for number in range(count)]
        gevent.sleep(0.001)

    def _count(self) -> None:
        self.loops += 1

    def _read(self, number: int) -> None:
        while self._pairs[number][0].recv(1):
            self.gate.enter()
            self.done.append((self.loops, number))
            self._clock.now += self._cost_s

    def wake_all(self) -> list[int]:
        """How many went on in each turn of the hub."""
        self.done.clear()
        for _, end in self._pairs:
            end.send(b"!")
        with gevent.Timeout(WAIT_S):
            while len(self.done) < len(self._pairs):
                gevent.sleep(0.001)
        loops = [loop for loop, _ in self.done]
        return [loops.count(loop) for loop in dict.fromkeys(loops)]

    def close(self) -> None:
        for _, end in self._pairs:
            end.close()
        gevent.joinall(self._readers, timeout=WAIT_S, raise_error=True)
        for end, _ in self._pairs:
            end.close()
        self._loop_watcher.stop()


def test_who_was_woken_goes_on_at_once_while_there_is_time(clock: Clock) -> None:
    woken = Woken(clock, 10, turns.TURN_S / 20)
    assert woken.wake_all() == [10]
    woken.close()


def test_of_many_who_were_woken_a_turn_takes_as_many_as_fit(clock: Clock) -> None:
    woken = Woken(clock, 10, turns.TURN_S / 2 + 1e-6)
    for _ in range(3):
        assert woken.wake_all() == [2] * 5
        assert sorted(number for _, number in woken.done) == list(range(10))
    woken.close()


def test_the_gate_rests_while_nobody_comes(clock: Clock) -> None:
    woken = Woken(clock, 2, 0.0)
    woken.wake_all()
    for _ in range(3):
        gevent.sleep(0.001)
    assert not woken.gate._watcher.active
    woken.close()
