"""When announces are sent: one schedule for all torrents of the session.

Rules:
- what is idle costs an entry in a heap: no greenlet, no timer, no socket of its own;
- what becomes due within the same tenth of a second is called together;
- at most `workers` announces are under way; `announce_hosts` says who of those that are due may begin;
- the first announces of many torrents are spread over the time that their host allows; a few go at once;
- `drain` sends the farewells, as many at once as is decent, and is over when its time is.

Knows nothing of torrents, dialects and bytes: an `Entry` is told that its time has come and hands out an
`Errand`, which a worker runs. All of it happens on the hub's thread, and only workers wait for the network.
"""

from __future__ import annotations

import heapq
import math
import random
import time
from collections import deque
from collections.abc import Callable

import gevent
from gevent.event import Event

from microtorrd.core.tiers import Place
from microtorrd.greenlets import Crew, breathe
from microtorrd.net.announce_hosts import Entry, Errand, HostGate, ScheduleLimits
from microtorrd.net.announce_pages import Pages
from microtorrd.net.tracker_client import TrackerClient

#: How often connections that nobody used, and hosts that nobody remembers for anything, are put away.
_TIDY_S = 60.0
#: So many entries are called at a time: thousands due at once must not hold up the hub.
_CALLS = 100
#: Entries become due together, at the next of such steps: hundreds of keep-alives a second shall not wake the
#: hub one by one. What is due already waits for none.
_STEP_S = 0.1
#: While draining: how long announces that are no farewells may still go on when these are all sent.
_GRACE_S = 1.0


class _Alarm(Entry):
    """Calls a function of the schedule's own."""

    __slots__ = ("_ring",)

    def __init__(self, ring: Callable[[float], None]) -> None:
        super().__init__()
        self._ring = ring

    def call(self, now: float) -> None:
        self._ring(now)


class AnnounceScheduler:
    """The schedule of the session."""

    def __init__(
        self,
        crew: Crew,
        *,
        client: TrackerClient | None = None,
        limits: ScheduleLimits | None = None,
        chance: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.client = client or TrackerClient()
        self.chance = chance or random.Random()
        self.clock = clock
        self._crew = crew
        self._limits = limits or ScheduleLimits()
        self._heap: list[tuple[float, int, Entry]] = []
        self._tickets = 0
        self._booked = 0  # entries whose booking counts; the heap may hold stale ones beside them
        self._changed = Event()
        self._dispatching = False
        self._gates: dict[str, HostGate] = {}
        self._alarms: dict[HostGate, _Alarm] = {}
        self._listed: deque[HostGate] = deque()  # where something may be able to begin
        self._workers = 0
        self.quiet = Event()  # no worker is busy
        self.quiet.set()
        self._farewells = 0  # not over yet
        self._parted = Event()  # no farewell is left
        self._parted.set()
        self._drain_until: float | None = None
        self._tidy = _Alarm(self._put_away)
        self.pages = Pages(self)  # the keep-alives that are sent together

    @property
    def under_way(self) -> int:
        """Announces that a worker is busy with."""
        return self._workers

    @property
    def waiting(self) -> int:
        """Announces that are due and wait for room at their host."""
        return sum(gate.waiting for gate in self._gates.values())

    @property
    def booked(self) -> int:
        """Entries whose time has not come."""
        return self._booked

    def book(self, entry: Entry, due: float | None) -> None:
        """Call the entry when it is due, instead of whenever it was booked for before; None: not at all."""
        if entry.ticket:
            entry.ticket = 0
            self._booked -= 1
        if due is None or self._drain_until is not None or self._crew.stopped:
            return
        self._tickets += 1
        self._booked += 1
        entry.ticket = self._tickets
        heapq.heappush(self._heap, (due, entry.ticket, entry))
        if len(self._heap) > 2 * self._booked + 64:
            self._heap = [booking for booking in self._heap if booking[2].ticket == booking[1]]
            heapq.heapify(self._heap)
        if self._heap[0][1] == entry.ticket:
            self._changed.set()
            if not self._dispatching:
                self._dispatching = True
                self._crew.spawn("announce schedule", self._dispatch)

    def submit(self, errand: Errand) -> None:
        """Do it as soon as its host has room for it."""
        if self._drain_until is not None:
            if not errand.is_farewell:
                return
            if self._drain_until <= self.clock():
                errand.skip("the time for farewells is over")
                return
        if errand.is_farewell:
            self._farewells += 1
            self._parted.clear()
        gate = self._gate(errand.place.host)
        gate.add(errand)
        self._list(gate)
        self._start_workers()

    def is_calm(self, place: Place) -> bool:
        """Whether that host has room for what can wait: see `HostGate.is_calm`."""
        return self._gate(place.host).is_calm(self.clock())

    def cancel(self, errand: Errand) -> None:
        """Nobody wants it any more; it must not have begun."""
        errand.is_cancelled = True
        self._ended(errand)

    def first_delay(self, place: Place) -> float:
        """How long one that begins should wait for its first announce there: longer the more there are."""
        return self._gate(place.host).newcomer_delay(self.clock(), self.chance)

    def drain(self, timeout_s: float) -> int:
        """Send the farewells that wait and nothing else from now on; returns how many were given up.

        An announce under way may end meanwhile, and become a farewell of its own. A service that cannot be
        reached costs one farewell. At the deadline everything is dropped.
        """
        self._drain_until = self.clock() + timeout_s
        self._heap.clear()
        self._booked = 0
        for gate in self._gates.values():
            gate.drain()
            self._list(gate)
        self._start_workers()
        with gevent.Timeout(timeout_s, False):
            while self._farewells or self._workers:
                self._parted.wait()
                if not self.quiet.wait(_GRACE_S) and not self._farewells:
                    break
        given_up, self._farewells = self._farewells, 0
        self._gates.clear()
        self._listed.clear()
        return given_up

    # --------------------------------------------------------------------------------- what becomes due

    def _dispatch(self) -> None:
        while True:
            self._changed.clear()
            self._changed.wait(self._pause_s() if self._heap else None)
            self._call_due()
            self._start_workers()

    def _pause_s(self) -> float:
        """Until the next step after the first entry is due."""
        due, now = self._heap[0][0], self.clock()
        return max(0.0, math.ceil(due / _STEP_S) * _STEP_S - now) if due > now else 0.0

    def _call_due(self) -> None:
        called = 0
        while self._heap and self._heap[0][0] <= (now := self.clock()):
            _, ticket, entry = heapq.heappop(self._heap)
            if entry.ticket != ticket:
                continue
            entry.ticket = 0
            self._booked -= 1
            errand = entry.call(now)
            if errand is not None:
                self.submit(errand)
            called += 1
            if called % _CALLS == 0:
                breathe()

    def _put_away(self, now: float) -> None:
        if not self._workers:
            self.client.close_idle()
        for host, gate in list(self._gates.items()):
            if gate.is_idle(now):
                del self._gates[host]
                self._alarms.pop(gate, None)
        if self._booked or self._workers or self._gates:
            self.book(self._tidy, now + _TIDY_S)

    # ----------------------------------------------------------------------------------- what may begin

    def _gate(self, host: str) -> HostGate:
        gate = self._gates.get(host)
        if gate is None:
            gate = self._gates[host] = HostGate(self._limits)
            if self._drain_until is not None:
                gate.drain()
            if not self._tidy.ticket:
                self.book(self._tidy, self.clock() + _TIDY_S)
        return gate

    def _list(self, gate: HostGate) -> None:
        if not gate.is_listed:
            gate.is_listed = True
            self._listed.append(gate)

    def _start_workers(self) -> None:
        while self._workers < self._limits.workers and not self._crew.stopped:
            found = self._next()
            if found is None:
                return
            self._workers += 1
            self.quiet.clear()
            self._crew.spawn("announce", self._work, *found)

    def _next(self) -> tuple[HostGate, Errand] | None:
        """The next errand that may begin; the hosts take turns."""
        while self._listed:
            gate = self._listed.popleft()
            gate.is_listed = False
            errand, skipped = gate.next(self.clock())
            for other, message in skipped:
                self._ended(other)
                other.skip(message)
            if errand is not None:
                self._list(gate)
                return gate, errand
            if self._drain_until is not None and skipped:
                self._list(gate)
            elif gate.opens_at is not None:
                self._set_alarm(gate, gate.opens_at)
        return None

    def _set_alarm(self, gate: HostGate, at: float) -> None:
        """Look at the host again then."""
        alarm = self._alarms.get(gate)
        if alarm is None:
            alarm = self._alarms[gate] = _Alarm(lambda now: self._list(gate))
        self.book(alarm, at)

    # -------------------------------------------------------------------------------------- the workers

    def _work(self, gate: HostGate, errand: Errand) -> None:
        try:
            found: tuple[HostGate, Errand] | None = (gate, errand)
            while found is not None:
                self._run(*found)
                found = self._next()
                self._start_workers()  # the end of one may make room for more than one
        finally:
            self._workers -= 1
            if not self._workers:
                self.quiet.set()
            self._start_workers()

    def _run(self, gate: HostGate, errand: Errand) -> None:
        within_s = None
        if self._drain_until is not None:
            within_s = max(0.0, min(self._limits.farewell_s, self._drain_until - self.clock()))
        message: str | None = None
        try:
            message = errand.run(within_s)
        finally:
            gate.finished(errand, unreached=message, now=self.clock())
            self._ended(errand)
            self._list(gate)

    def _ended(self, errand: Errand) -> None:
        if errand.is_farewell and self._farewells:
            self._farewells -= 1
            if not self._farewells:
                self._parted.set()
