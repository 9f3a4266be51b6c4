"""The tracker as a whole: settings in, a running server out.

Put together here: the memory store, the rules, the answers, Flask, the HTTP server. All its greenlets belong
to one crew; everything that is kept lives in memory and is gone with it.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import gevent

from microtorrd.greenlets import Crew
from microtorrd.tracker.answer import Answerer, IsWatched, OnRequest, always
from microtorrd.tracker.app import create_app
from microtorrd.tracker.http import HttpLimits, HttpServer
from microtorrd.tracker.service import OpenAdmission, TrackerService
from microtorrd.tracker.settings import TrackerSettings
from microtorrd.tracker.store import MemoryStore, StoreBounds


class TrackerServer:
    """A tracker on one address. `clock` counts seconds (time.monotonic), `on_request` hears of all while
    `is_watched`."""

    def __init__(
        self,
        settings: TrackerSettings,
        crew: Crew,
        clock: Callable[[], float],
        on_request: OnRequest | None = None,
        is_watched: IsWatched = always,
    ) -> None:
        self._clock = clock
        bounds = StoreBounds(settings.max_swarms, settings.max_swarm_peers, settings.max_total_peers)
        self._service = TrackerService(settings, MemoryStore(Random(), bounds), OpenAdmission())
        answerer = Answerer(settings, self._service, clock, on_request, is_watched)
        self._http = HttpServer(
            settings.bind,
            answerer,
            create_app(answerer),
            crew=crew.child("tracker"),
            limits=HttpLimits(connections=settings.max_connections),
            on_tick=self._expire,
        )

    @property
    def port(self) -> int:
        """The port that it serves on."""
        return self._http.port

    def start(self) -> None:
        """Bind and serve; raises ConfigError if the address cannot be had."""
        self._http.start()

    def close(self, timeout_s: float = 2.0) -> None:
        """End all connections and wait for their ends."""
        self._http.close(timeout_s)

    def _expire(self) -> None:
        """Forget whose time has come; step by step, since after a silence it can be a whole swarm."""
        while self._service.expire(self._clock()):
            gevent.sleep(0)
