"""The disk's threads, in a process that gevent has patched: real threads, two lanes, one outcome for each."""

from __future__ import annotations

import gc
import os
import weakref
from _thread import RLock
from collections.abc import Callable, Iterator
from functools import partial

import gevent
import pytest
from gevent import monkey
from gevent.event import Event

from microtorrd.disk import pool as pool_room
from microtorrd.disk.pool import DiskPool, Lane, PoolClosed
from microtorrd.errors import StorageError
from tests.conftest import HubWatch
from tests.waiting import until

_ident = monkey.get_original("_thread", "get_ident")
_Lock = monkey.get_original("_thread", "allocate_lock")
WAIT_S = 10.0


class Gate:
    """Holds up the threads that come to it until it is opened from the hub. Works across real threads."""

    def __init__(self) -> None:
        self._lock = _Lock()
        self._lock.acquire()
        self._arrivals: list[int] = []

    @property
    def arrived(self) -> int:
        return len(self._arrivals)

    def wait(self) -> int:
        self._arrivals.append(_ident())
        self._lock.acquire()
        self._lock.release()
        return _ident()

    def open(self) -> None:
        self._lock.release()


@pytest.fixture
def pool() -> Iterator[DiskPool]:
    pool = DiskPool(2)
    yield pool
    pool.close(WAIT_S)


def test_a_call_returns_or_raises_what_the_work_does(pool: DiskPool) -> None:
    assert pool.call(lambda: 6 * 7) == 42
    with pytest.raises(ZeroDivisionError):
        pool.call(lambda: 1 // 0)


def test_work_runs_in_other_threads_at_the_same_time_and_the_hub_goes_on(
    pool: DiskPool, hub_watch: HubWatch
) -> None:
    gates = Gate(), Gate()
    outcomes: list[int | BaseException] = []
    for gate in gates:
        pool.submit(gate.wait, outcomes.append)
    until(lambda: all(gate.arrived for gate in gates))
    for gate in gates:
        gate.open()
    until(lambda: len(outcomes) == 2)
    assert len({_ident(), *outcomes}) == 3


def test_urgent_work_is_done_in_order_and_each_has_its_outcome(pool: DiskPool) -> None:
    started: list[int] = []
    outcomes: list[int | BaseException] = []
    alone = DiskPool(1)

    def work(number: int) -> int:
        started.append(number)
        return number

    for number in range(1000):
        alone.submit(partial(work, number), outcomes.append)
    assert alone.close(WAIT_S)
    assert started == outcomes == list(range(1000))


def test_bulk_work_leaves_a_thread_to_the_urgent() -> None:
    pool = DiskPool(3)
    gate = Gate()
    outcomes: list[int | BaseException] = []
    for _ in range(5):
        pool.submit(gate.wait, outcomes.append, lane="bulk")
    until(lambda: gate.arrived == 3)
    for _ in range(50):
        assert pool.call(lambda: 1) == 1
    assert gate.arrived == 3
    assert pool.waiting_bulk == 2
    gate.open()
    until(lambda: len(outcomes) == 5)
    assert pool.close(WAIT_S)


@pytest.mark.parametrize("lane", ["urgent", "bulk"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_disk_that_hangs_holds_up_its_own_and_nobody_else(
    threads: int, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = DiskPool(threads)
    hanging, elsewhere = Gate(), Gate()
    outcomes: list[object] = []
    before = len(os.listdir("/proc/self/task"))
    for _ in range(threads + 5):
        pool.submit(hanging.wait, outcomes.append, lane=lane, place="hanging")
    until(lambda: hanging.arrived == threads)
    for _ in range(threads + 1):
        pool.submit(elsewhere.wait, outcomes.append, lane=lane, place="elsewhere")
    pool.look()  # which is too early
    assert elsewhere.arrived == 0
    monkeypatch.setattr(pool_room, "STUCK_S", 0.0)
    pool.look()
    until(lambda: elsewhere.arrived == threads)  # as many at once as there are of usual
    elsewhere.open()
    until(lambda: len(outcomes) == threads + 1)
    assert pool.call(lambda: 1, lane=lane, place="elsewhere") == 1
    assert pool.call(lambda: 1, lane=lane) == 1
    assert pool.heartbeat(WAIT_S)
    assert hanging.arrived == threads
    hanging.open()
    until(lambda: len(outcomes) == 2 * threads + 6)
    # Threads that are too many end with the next work that there is.
    for _ in range(20):
        pool.call(lambda: 1)
    until(lambda: len(os.listdir("/proc/self/task")) <= before)
    assert pool.close(WAIT_S)


def test_what_hangs_without_end_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = DiskPool(2)
    gate = Gate()
    outcomes: list[object] = []
    monkeypatch.setattr(pool_room, "STUCK_S", 0.0)
    for disk in range(20):
        pool.submit(gate.wait, outcomes.append, place=disk)
    until(lambda: pool.look() or gate.arrived == 4)
    pool.look()
    assert not pool.heartbeat(0.05)  # all disks hang
    assert not pool.close(0.05)
    until(lambda: len(outcomes) == 16)
    gate.open()


def test_bulk_work_has_a_thread_less_while_there_is_urgent_work() -> None:
    pool = DiskPool(2)
    urgent, bulk = Gate(), Gate()
    outcomes: list[object] = []
    pool.submit(urgent.wait, outcomes.append)
    until(lambda: urgent.arrived == 1)
    for _ in range(3):
        pool.submit(bulk.wait, outcomes.append, lane="bulk")
    until(lambda: bulk.arrived == 1)
    assert pool.call(lambda: 1) == 1
    assert (bulk.arrived, pool.waiting_bulk) == (1, 2)
    urgent.open()
    bulk.open()
    until(lambda: len(outcomes) == 4)
    assert pool.close(WAIT_S)


def test_a_single_thread_does_both_and_the_urgent_first() -> None:
    pool = DiskPool(1)
    gate = Gate()
    order: list[str] = []
    pool.submit(gate.wait, lambda _: order.append("first"))
    pool.submit(lambda: None, lambda _: order.append("bulk"), lane="bulk")
    pool.submit(lambda: None, lambda _: order.append("urgent"))
    gate.open()
    until(lambda: len(order) == 3)
    assert order == ["first", "urgent", "bulk"]
    assert pool.close(WAIT_S)


def test_outcomes_come_on_the_hub_in_batches(pool: DiskPool) -> None:
    where: set[object] = set()
    done: list[object] = []

    def note(outcome: object) -> None:
        where.add(gevent.getcurrent())
        done.append(outcome)

    for _ in range(100):
        pool.submit(_ident, note)
    until(lambda: len(done) == 100)
    assert where == {gevent.get_hub()}


def test_a_done_that_fails_takes_nothing_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = DiskPool(1)
    reported: list[object] = []
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *about: reported.append(about[1]))
    outcomes: list[int | BaseException] = []

    def fails(_: object) -> None:
        raise KeyError("a bug")

    pool.submit(lambda: 1, outcomes.append)
    pool.submit(lambda: 2, fails)
    pool.submit(lambda: 3, outcomes.append)
    pool.submit(lambda: 4, outcomes.append)
    while pool.backlog:  # without a turn of the hub, so that they come back in one batch
        pass
    until(lambda: len(outcomes) == 3)
    assert outcomes == [1, 3, 4]
    assert reported == [KeyError]
    assert pool.close(WAIT_S)


def test_an_expected_error_keeps_nothing_of_the_work_alive(pool: DiskPool) -> None:
    class Buffer:
        pass

    seen: list[weakref.ref[Buffer]] = []

    def work() -> None:
        buffer = Buffer()
        seen.append(weakref.ref(buffer))
        try:
            raise OSError(5, "dying")
        except OSError as error:
            raise StorageError.from_os(error, "/there") from None

    outcomes: list[BaseException | None] = []
    pool.submit(work, outcomes.append)
    until(lambda: bool(outcomes))
    gc.collect()
    assert isinstance(outcomes[0], StorageError)
    assert seen[0]() is None


def test_the_backlog_says_how_much_the_disk_is_behind() -> None:
    pool = DiskPool(2)
    gate = Gate()
    for _ in range(2):
        pool.submit(gate.wait, lambda _: None)
    until(lambda: gate.arrived == 2)
    assert pool.backlog == 0
    for _ in range(3):
        pool.submit(lambda: None, lambda _: None)
    assert pool.backlog == 3
    gate.open()
    until(lambda: pool.backlog == 0)
    assert pool.close(WAIT_S)


def test_the_heartbeat_stops_with_the_threads_and_does_not_mind_a_queue() -> None:
    pool = DiskPool(2)
    assert pool.heartbeat(WAIT_S)
    gates = Gate(), Gate()
    pool.submit(gates[0].wait, lambda _: None)
    pool.submit(gates[1].wait, lambda _: None)
    until(lambda: all(gate.arrived for gate in gates))
    last = Event()
    late = Gate()
    pool.submit(late.wait, lambda _: last.set())
    assert not pool.heartbeat(0.02), "both threads hang"
    gates[0].open()
    assert pool.heartbeat(WAIT_S), "one thread is back, and the queue is behind the question"
    late.open()
    gates[1].open()
    assert last.wait(WAIT_S)
    assert pool.close(WAIT_S)
    assert not pool.heartbeat(WAIT_S)


def test_closing_finishes_the_urgent_and_refuses_the_rest() -> None:
    pool = DiskPool(2)
    gate = Gate()
    urgent: list[object] = []
    bulk: list[object] = []
    late: list[object] = []
    for _ in range(2):
        pool.submit(gate.wait, urgent.append)
    pool.submit(gate.wait, lambda _: None, lane="bulk")
    until(lambda: gate.arrived == 3)
    for number in range(10):
        pool.submit(partial(int, number), urgent.append)
        pool.submit(partial(int, number), bulk.append, lane="bulk")
    closing = gevent.spawn(pool.close, WAIT_S)
    until(lambda: len(bulk) == 10)
    assert all(isinstance(outcome, PoolClosed) for outcome in bulk)
    pool.submit(lambda: 1, late.append)
    with pytest.raises(PoolClosed):
        pool.call(lambda: 1)
    assert isinstance(late[0], PoolClosed)
    gate.open()
    assert closing.get(timeout=WAIT_S) is True
    assert len(urgent) == 12
    assert set(range(10)) < set(urgent)


def test_closing_does_not_wait_for_a_dead_disk() -> None:
    pool = DiskPool(1)
    gate = Gate()
    outcomes: list[object] = []
    pool.submit(gate.wait, lambda _: None)
    pool.submit(lambda: 1, outcomes.append)
    assert not pool.close(0.02)
    until(lambda: bool(outcomes))
    assert isinstance(outcomes[0], PoolClosed)
    gate.open()


def test_who_is_killed_while_it_waits_misses_the_outcome_and_no_more(pool: DiskPool) -> None:
    gate = Gate()
    waiting = gevent.spawn(pool.call, gate.wait)
    until(lambda: gate.arrived == 1)
    waiting.kill()
    gate.open()
    assert pool.call(lambda: 1) == 1


def test_a_feed_takes_works_as_threads_come_free() -> None:
    pool = DiskPool(3)
    taken: list[int] = []
    outcomes: list[object] = []
    finished = Event()
    gate = Gate()

    def works() -> Iterator[Callable[[], int]]:
        for number in range(20):
            taken.append(number)
            yield gate.wait if number < 3 else partial(int, number)

    pool.feed(works(), outcomes.append, finished.set)
    until(lambda: gate.arrived == 3)
    assert taken == [0, 1, 2]
    gate.open()
    assert finished.wait(WAIT_S)
    assert len(outcomes) == 20
    assert set(range(3, 20)) < set(outcomes)
    assert pool.close(WAIT_S)


def test_a_feed_can_be_cancelled_and_nothing_makes_it_finish_twice(pool: DiskPool) -> None:
    gate = Gate()
    finished: list[int] = []
    outcomes: list[object] = []
    feed = pool.feed((gate.wait for _ in range(100)), outcomes.append, lambda: finished.append(1))
    until(lambda: gate.arrived == 2)
    feed.cancel()
    gate.open()
    until(lambda: bool(finished))
    assert len(outcomes) == 2
    pool.feed(iter(()), outcomes.append, lambda: finished.append(2))
    until(lambda: len(finished) == 2)
    assert pool.call(lambda: 1) == 1
    assert finished == [1, 2]


def test_a_feed_ends_with_the_pool() -> None:
    pool = DiskPool(2)
    gate = Gate()
    finished = Event()
    outcomes: list[object] = []
    for _ in range(2):
        pool.submit(gate.wait, lambda _: None, lane="bulk")
    pool.feed((partial(int, 1) for _ in range(10_000)), outcomes.append, finished.set)
    until(lambda: pool.waiting_bulk == 2)
    gate.open()
    pool.close(WAIT_S)
    assert finished.wait(WAIT_S)
    assert isinstance(outcomes[-1], PoolClosed)
    assert len(outcomes) < 10_000


def test_the_lock_of_the_descriptors_is_a_real_one() -> None:
    """`_thread.RLock` must stay unpatched: greenlet locks do not hold between threads."""
    assert RLock.__module__ == "_thread"
    assert isinstance(RLock(), monkey.get_original("_thread", "RLock"))
