"""Who may be asked now: the announces that wait for one host, and the rules by which they go.

Rules:
- at most `per_host` are under way, and the metered ones begin at most `per_host_per_s` times a second;
- urgent ones go first, the others in their order, but one that has to wait for its rate holds up nobody else;
- a service (a port of the host) that could not be reached `dead_after` times in a row is left alone for a
  while, and what waits for it is skipped; then one announce at a time probes it, until one gets through;
- one that never answered yet is asked by few, so that the dead ones of a long list do not take all workers;
- while draining, the rate does not count, and one announce that does not reach the service is enough.

No gevent here: time and chance are handed in, and the schedule does what `next` says.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Protocol

from msgspec import Struct

from microtorrd.core.tiers import Place
from microtorrd.rate import TokenBucket

#: How long a service that cannot be reached is left alone between two probes: doubled each time.
_REST_FIRST_S = 5.0
_REST_MOST_S = 60.0
#: So many are skipped at a time: telling all of thousands of torrents at once would hold up the hub.
_SKIPS = 50


class ScheduleLimits(Struct, frozen=True):
    """Bounds of announcing. High values find peers sooner, low ones spare the trackers."""

    workers: int = 64  # announces under way, over all hosts
    per_host: int = 8
    per_stranger: int = 2  # at a service that did not answer yet
    per_host_per_s: float = 50.0
    burst: int = 50  # so many to one host go at once after a pause
    dead_after: int = 3  # announces in a row that did not reach the service
    farewells_per_host: int = 16  # while draining
    farewell_s: float = 3.0  # for each


class Errand(Protocol):
    """One announce that waits for its turn."""

    place: Place
    is_urgent: bool
    is_metered: bool
    is_farewell: bool
    is_cancelled: bool  # nobody wants it any more

    def run(self, within_s: float | None) -> str | None:
        """Do it, in at most so many seconds. Says why when the service could not be reached, else None."""
        ...

    def skip(self, message: str) -> None:
        """It will not be done: the service is known to be out of reach, for this reason."""
        ...


class Entry:
    """Something whose time will come. While it waits it is a place in the schedule's heap."""

    __slots__ = ("ticket",)

    def __init__(self) -> None:
        self.ticket = 0  # the booking that counts; 0: none

    def call(self, now: float) -> Errand | None:
        """The time has come. Returns what to do, if anything."""
        raise NotImplementedError


class _Service:
    """One port of the host."""

    __slots__ = ("failures", "is_known", "message", "rest_until", "under_way", "waiting")

    def __init__(self) -> None:
        # Urgent, free and metered ones, each with the number of its arrival.
        self.waiting: tuple[deque[tuple[int, Errand]], ...] = (deque(), deque(), deque())
        self.under_way = 0
        self.is_known = False  # it has answered
        self.failures = 0
        self.rest_until = 0.0
        self.message = ""

    def __len__(self) -> int:
        return sum(len(queue) for queue in self.waiting)

    def __bool__(self) -> bool:
        return any(self.waiting)  # asked several times for each announce


class HostGate:
    """One host: what waits for it and what is under way."""

    def __init__(self, limits: ScheduleLimits) -> None:
        self.under_way = 0
        self.opens_at: float | None = None  # after `next` gave nothing: when to ask again, None: after an end
        self.is_listed = False  # among the hosts that are worth asking; the schedule's own mark
        self._limits = limits
        self._services: dict[str, _Service] = {}
        self._bucket = TokenBucket(limits.per_host_per_s, burst=limits.burst)
        self._clear_at: float | None = None  # when the token that was taken may be used
        self._horizon = 0.0  # until when the newcomers so far fill the rate
        self._arrivals = 0
        self._is_draining = False

    @property
    def waiting(self) -> int:
        """Errands that wait."""
        return sum(len(service) for service in self._services.values())

    def add(self, errand: Errand) -> None:
        """Take an errand in."""
        service = self._services.setdefault(errand.place.endpoint, _Service())
        self._arrivals += 1
        queue = 0 if errand.is_urgent else 2 if errand.is_metered else 1
        service.waiting[queue].append((self._arrivals, errand))

    def next(self, now: float) -> tuple[Errand | None, list[tuple[Errand, str]]]:
        """The errand that may begin now, if any, and those to be skipped, with their reasons."""
        self.opens_at = None
        skipped: list[tuple[Errand, str]] = []
        most = self._limits.farewells_per_host if self._is_draining else self._limits.per_host
        if self.under_way >= most:
            return None, skipped
        for key in list(self._services):
            service = self._services[key]
            if not service:
                continue
            # The services of a host take turns.
            self._services[key] = self._services.pop(key)
            errand = self._next_of(service, now, skipped)
            if errand is not None:
                service.under_way += 1
                self.under_way += 1
                return errand, skipped
        return None, skipped

    def finished(self, errand: Errand, *, unreached: str | None, now: float) -> None:
        """The end of an errand that `next` gave; `unreached` is what its `run` said."""
        service = self._services[errand.place.endpoint]
        service.under_way -= 1
        self.under_way -= 1
        if unreached is None:
            service.failures = 0
            service.is_known = True
            return
        service.failures += 1
        service.message = unreached
        beyond = service.failures - self._limits.dead_after
        if beyond >= 0:
            service.is_known = False
            service.rest_until = now + min(_REST_MOST_S, _REST_FIRST_S * 2.0 ** min(beyond, 10))

    def newcomer_delay(self, now: float, chance: random.Random) -> float:
        """How long one that begins waits for its first announce: nothing for a few, else up to the time that
        all newcomers need at this host's rate."""
        rate = self._limits.per_host_per_s
        self._horizon = max(self._horizon, now) + 1.0 / rate
        ahead_s = self._horizon - now
        return 0.0 if ahead_s * rate < self._limits.burst + 0.5 else chance.uniform(0.0, ahead_s)

    def is_calm(self, now: float) -> bool:
        """Nothing waits here, and no crowd of newcomers is on its way: there is room for what can wait."""
        crowd_s = self._limits.burst / self._limits.per_host_per_s
        return not (self._is_draining or self.waiting) and self._horizon - now <= crowd_s

    def drain(self) -> None:
        """From now on only farewells."""
        self._is_draining = True
        for service in self._services.values():
            if service.failures < self._limits.dead_after:
                service.failures = 0
            for queue in service.waiting:
                farewells = [item for item in queue if item[1].is_farewell]
                queue.clear()
                queue.extend(farewells)

    def is_idle(self, now: float) -> bool:
        """Nothing is remembered here that matters."""
        resting = any(service.rest_until > now for service in self._services.values())
        return not (self.under_way or self.waiting or resting or self._horizon > now)

    def _next_of(self, service: _Service, now: float, skipped: list[tuple[Errand, str]]) -> Errand | None:
        dead_after = 1 if self._is_draining else self._limits.dead_after
        if service.failures >= dead_after:
            if self._is_draining or service.rest_until > now:
                self._skip(service, now, skipped)
                return None
            if service.under_way:
                return None  # the probe is out
        if not service.is_known and service.under_way >= self._limits.per_stranger:
            return None
        best: deque[tuple[int, Errand]] | None = None
        for number, queue in enumerate(service.waiting):
            while queue and queue[0][1].is_cancelled:
                queue.popleft()
            if not queue or (number == 2 and not self._may_begin(now)):
                continue
            if number == 0:
                best = queue
                break
            if best is None or queue[0][0] < best[0][0]:
                best = queue
        if best is None:
            return None
        errand = best.popleft()[1]
        if best is service.waiting[2]:
            self._clear_at = None
        return errand

    def _may_begin(self, now: float) -> bool:
        """Whether the rate allows a metered one now; takes one token ahead."""
        if self._is_draining:
            return True
        if self._clear_at is None:
            self._clear_at = now + self._bucket.take(1, now)
        if self._clear_at <= now:
            return True
        self.opens_at = self._clear_at
        return False

    def _skip(self, service: _Service, now: float, skipped: list[tuple[Errand, str]]) -> None:
        for queue in service.waiting:
            while queue and len(skipped) < _SKIPS:
                errand = queue.popleft()[1]
                if not errand.is_cancelled:
                    skipped.append((errand, service.message))
        if service:
            self.opens_at = now
