"""Where waiting for the disk happens: a few threads of our own, and the way from the hub to them and back.

Rules
- The threads are real ones also where gevent has patched the process. Work gets bytes and numbers and returns
  a value; it uses no gevent, no logging and no lock of `threading`.
- Two lanes. `urgent` is what a peer or the operator waits for, first come first served; `bulk` is what takes
  long (checks, moves). Each lane runs at most `threads` jobs at once. There is one thread more than that, so
  that urgent work never waits for bulk work to end; but a single thread is alone, for a disk that seeks.
- While there is urgent work, and a moment after it, bulk work has one thread less (if it has two or more): a
  check takes a core from a transfer, and not two.
- A job says on which disk it works, its `place`. One that takes very long is stuck, and does not count any
  more: there is one thread more, for work on other disks (`look`). So a disk that hangs holds up its own.
- Outcomes come back to the hub in batches, one wake-up for all that ended meanwhile. `done` runs on the hub
  and must not wait.
- Every piece of work has exactly one outcome, also when the pool is closed before it ran: `PoolClosed`.

Measured beside gevent's own ThreadPool: the same for one hop (a round trip of about 75 µs is two switches of
threads), a fifth of the cost for many in flight.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Literal, TypeVar, cast

from gevent import get_hub, monkey
from gevent.event import Event
from gevent.hub import Waiter

from microtorrd.errors import MicrotorrError, Stopping

_start_thread = monkey.get_original("_thread", "start_new_thread")
_Lock = monkey.get_original("_thread", "allocate_lock")

Lane = Literal["urgent", "bulk"]
T = TypeVar("T")

#: How long there must have been nothing urgent before bulk work may have as many threads as there are cores:
#: longer than the pauses of a transfer under way.
QUIET_S = 0.5

#: A job that takes longer than this is stuck: longer than a busy disk takes for a piece or a batch.
STUCK_S = 3.0


class PoolClosed(Stopping):
    """The pool was closed before this work began."""


#: What jobs work on: whatever tells one disk from another. None: no disk that could hang.
Place = Hashable


class _Job:
    __slots__ = ("done", "is_stuck", "lane", "place", "since", "work")

    def __init__(
        self, work: Callable[[], Any], done: Callable[[Any], None], lane: Lane, place: Place = None
    ) -> None:
        self.work, self.done, self.lane, self.place = work, done, lane, place
        self.since = 0.0  # when it began
        self.is_stuck = False


class _Worker:
    """A thread's own state. `wake` is held while it has nothing to wake up for."""

    __slots__ = ("job", "wake")

    def __init__(self) -> None:
        self.job: _Job | None = None  # that it is at
        self.wake = _Lock()
        self.wake.acquire()


class DiskPool:
    """`threads` threads for each lane, for the hub in which the pool is made."""

    def __init__(self, threads: int) -> None:
        self._hub = get_hub()
        # All below is shared with the threads and changed only under the lock.
        self._lock = _Lock()
        self._urgent: deque[_Job] = deque()
        self._bulk: deque[_Job] = deque()
        self._ended: list[tuple[Callable[[Any], None], Any]] = []
        self._idle: list[_Worker] = []
        self._threads = max(1, threads)
        self._usual = self._threads + (self._threads > 1)
        self._workers = {_Worker() for _ in range(self._usual)}
        self._urgent_running = self._bulk_running = 0
        self._stuck: list[_Job] = []
        self._urgent_at = -math.inf  # when the last urgent job began or ended
        self._closing = False
        self._signalled = False
        self._listening = True
        # The hub's own.
        self._batch: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._all_left = Event()
        self._probe: Event | None = None
        self._watcher = self._hub.loop.async_()
        self._watcher.start(self._deliver)
        for worker in self._workers:
            _start_thread(self._run, (worker,))

    # ---------------------------------------------------------------------------------------------- the hub

    @property
    def backlog(self) -> int:
        """Urgent jobs that have not begun."""
        return len(self._urgent)

    @property
    def waiting_bulk(self) -> int:
        """Bulk jobs that have not begun."""
        return len(self._bulk)

    def submit(
        self,
        work: Callable[[], T],
        done: Callable[[T | BaseException], None],
        *,
        lane: Lane = "urgent",
        place: Place = None,
    ) -> None:
        """Run `work` in a thread; `done` gets on the hub what it returned or raised."""
        if not self._put(_Job(work, done, lane, place)):
            self._hub.loop.run_callback(done, PoolClosed("the disk pool is closed"))

    def call(self, work: Callable[[], T], *, lane: Lane = "urgent", place: Place = None) -> T:
        """Run `work` in a thread while the calling greenlet waits; returns or raises what it does. Where the
        greenlet is killed meanwhile the work goes on, and its outcome is dropped."""
        waiter = Waiter(self._hub)
        self.submit(work, waiter.switch, lane=lane, place=place)
        outcome = waiter.get()
        if isinstance(outcome, BaseException):
            raise outcome
        return cast(T, outcome)

    def feed(
        self,
        works: Iterable[Callable[[], T]],
        done: Callable[[T | BaseException], None],
        finished: Callable[[], None],
        *,
        lane: Lane = "bulk",
        place: Place = None,
        at_once: int | None = None,
    ) -> Feed:
        """Run many works, taken from the iterable as threads come free: `done` for each, `finished` once
        after the last. By default as many at once as the lane can use."""
        width = at_once or self._threads
        return Feed(self, iter(works), done, finished, lane=lane, place=place, width=width)

    def look(self) -> None:
        """See what is stuck, and let work on other disks go on. To be called about once a second."""
        before = time.monotonic() - STUCK_S
        with self._lock:
            for worker in self._workers:
                job = worker.job
                if job is not None and not job.is_stuck and job.since <= before:
                    job.is_stuck = True
                    self._stuck.append(job)
            if not self._stuck or self._closing:
                return
            # An idle thread finds work now that it was not to do before; there may be none idle.
            idle, self._idle[:] = self._idle[:], []
            fresh = [_Worker() for _ in range(self._usual + self._relief() - len(self._workers))]
            self._workers.update(fresh)
        for worker in idle:
            worker.wake.release()
        for worker in fresh:
            _start_thread(self._run, (worker,))

    def heartbeat(self, within_s: float) -> bool:
        """Does a thread take up new urgent work within this time? The calling greenlet waits for the answer.

        The question goes ahead of the queue: a long queue is no standstill, but threads that never return
        from a dead disk are.
        """
        probe = self._probe
        if probe is None:
            probe = Event()
            if not self._put(_Job(_nothing, self._answered, "urgent"), ahead=True):
                return False
            self._probe = probe
        return bool(probe.wait(within_s))

    def _answered(self, _: object) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.set()

    def close(self, timeout_s: float) -> bool:
        """Finish the urgent work, drop the bulk work that has not begun, end the threads.

        False where that took longer than `timeout_s`: urgent work that had not begun is dropped then, and
        threads that hang in the kernel are left behind; they do not keep the process alive.
        """
        if not self._listening:
            return True
        with self._lock:
            self._closing = True
            dropped, idle = list(self._bulk), self._idle[:]
            self._bulk.clear()
            self._idle.clear()
        self._refuse(dropped)
        for worker in idle:
            worker.wake.release()
        clean = bool(self._all_left.wait(timeout_s))
        with self._lock:
            self._listening = False
            dropped = list(self._urgent)
            self._urgent.clear()
        self._watcher.stop()
        self._watcher.close()
        self._hub.loop.run_callback(self._deliver)
        self._refuse(dropped)
        return clean

    def _refuse(self, jobs: list[_Job]) -> None:
        for job in jobs:
            self._hub.loop.run_callback(job.done, PoolClosed("the disk pool is closed"))

    def _put(self, job: _Job, *, ahead: bool = False) -> bool:
        with self._lock:
            if self._closing:
                return False
            lane = self._bulk if job.lane == "bulk" else self._urgent
            if ahead:
                lane.appendleft(job)
            else:
                lane.append(job)
            worker = self._idle.pop() if self._idle else None
        if worker is not None:
            worker.wake.release()
        return True

    def _deliver(self) -> None:
        with self._lock:
            self._signalled = False
            self._batch.extend(self._ended)
            self._ended.clear()
        try:
            while self._batch:
                done, outcome = self._batch.popleft()
                done(outcome)
        finally:
            # A `done` that raised is reported by the hub; the others still get theirs.
            if self._batch:
                self._hub.loop.run_callback(self._deliver)

    # ------------------------------------------------------------------------------------------- the threads

    def _run(self, worker: _Worker) -> None:
        while (job := self._next(worker)) is not None:
            try:
                outcome = job.work()
            except BaseException as error:  # it is carried to the hub, not handled: whoever asked handles it
                outcome = _bare(error) if isinstance(error, MicrotorrError) else error
            self._end(worker, job, outcome)
            del job, outcome  # else an idle thread would hold them
        with self._lock:
            self._workers.discard(worker)
            if not self._workers:
                self._tell(self._left, None)

    def _next(self, worker: _Worker) -> _Job | None:
        """Wait for work that this thread may do; None when there will be no more."""
        while True:
            with self._lock:
                job = worker.job = self._pick()
                if job is not None:
                    return job
                if self._closing or len(self._workers) > self._usual + self._relief():
                    self._workers.discard(worker)  # at once, or more would go than are too many
                    return None
                self._idle.append(worker)
            worker.wake.acquire()

    def _pick(self) -> _Job | None:
        # A thread that finds no room here goes idle: who ends a job looks for the next one itself.
        now = time.monotonic()
        job = self._take(self._urgent, "urgent", self._urgent_running, self._threads)
        if job is not None:
            self._urgent_running += 1
            self._urgent_at = job.since = now
            return job
        job = self._take(self._bulk, "bulk", self._bulk_running, self._bulk_room(now)) if self._bulk else None
        if job is not None:
            self._bulk_running += 1
            job.since = now
        return job

    def _take(self, queue: deque[_Job], lane: Lane, running: int, room: int) -> _Job | None:
        """The next job of a lane in which so many run, and so many may; where some are stuck, as many more,
        but on other disks."""
        if not queue:
            return None
        if running < room:
            return queue.popleft()
        stuck = sum(job.lane == lane for job in self._stuck)
        if not stuck or running >= room + min(stuck, self._threads):
            return None
        places = {job.place for job in self._stuck}
        for at, job in enumerate(queue):
            if job.place is None or job.place not in places:
                del queue[at]
                return job
        return None

    def _relief(self) -> int:
        """How many threads more there are to be while some are stuck."""
        return min(len(self._stuck), 2 * self._threads)

    def _bulk_room(self, now: float) -> int:
        quiet = not self._urgent_running and now - self._urgent_at >= QUIET_S
        return self._threads if quiet else max(1, self._threads - 1)

    def _end(self, worker: _Worker, job: _Job, outcome: Any) -> None:
        with self._lock:
            worker.job = None
            if job.is_stuck:
                self._stuck.remove(job)
            if job.lane == "bulk":
                self._bulk_running -= 1
            else:
                self._urgent_running -= 1
                self._urgent_at = time.monotonic()
            self._tell(job.done, outcome)

    def _tell(self, done: Callable[[Any], None], outcome: Any) -> None:
        self._ended.append((done, outcome))
        if self._listening and not self._signalled:
            self._signalled = True
            self._watcher.send()

    def _left(self, _: object) -> None:
        self._all_left.set()


class Feed:
    """Work that `DiskPool.feed` hands to the pool bit by bit."""

    def __init__(
        self,
        pool: DiskPool,
        works: Iterator[Callable[[], Any]],
        done: Callable[[Any], None],
        finished: Callable[[], None],
        *,
        lane: Lane,
        place: Place,
        width: int,
    ) -> None:
        self._pool, self._works, self._done, self._finished = pool, works, done, finished
        self._lane, self._place = lane, place
        self._running = 0
        self._exhausted = False
        pool._hub.loop.run_callback(self._begin, width)

    def cancel(self) -> None:
        """Hand out no more work. `finished` is called when what runs has ended."""
        self._exhausted = True

    def _begin(self, width: int) -> None:
        for _ in range(width):
            self._submit_next()
        self._finish()

    def _submit_next(self) -> None:
        work = None if self._exhausted else next(self._works, None)
        if work is None:
            self._exhausted = True
            return
        self._running += 1
        self._pool.submit(work, self._ended, lane=self._lane, place=self._place)

    def _ended(self, outcome: Any) -> None:
        self._running -= 1
        if isinstance(outcome, PoolClosed):
            self._exhausted = True
        try:
            self._done(outcome)
        finally:
            self._submit_next()
            self._finish()

    def _finish(self) -> None:
        if self._exhausted and not self._running:
            self._finished()


def _bare(error: MicrotorrError) -> MicrotorrError:
    """Without tracebacks: it has a known cause, is kept as long as the failure lasts, and the frames would
    keep buffers and descriptors alive as long."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _nothing() -> None:
    return None
