"""The tracker as a whole: settings in, a running server out.

Put together here: the store, the rules, the answers, Flask, the HTTP server, the UDP server. All greenlets
belong to one crew. What is kept lives in memory and is gone with it, or in a Redis server that others share.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random

import gevent
from gevent.event import AsyncResult

from microtorrd import logs
from microtorrd.errors import ConfigError, StoreUnreachable
from microtorrd.greenlets import Crew, breathe
from microtorrd.tracker.admission import NameOf, admission, nobody
from microtorrd.tracker.answer import Answerer, IsWatched, OnRequest, always
from microtorrd.tracker.app import create_app
from microtorrd.tracker.census import Census
from microtorrd.tracker.connection_ids import ConnectionIds
from microtorrd.tracker.http import HttpLimits, HttpServer
from microtorrd.tracker.listening import listen, listen_on_both
from microtorrd.tracker.lists import NO_LISTS, Lists, read_lists
from microtorrd.tracker.pages import Pages
from microtorrd.tracker.service import OpenAdmission, TrackerService
from microtorrd.tracker.settings import TrackerSettings
from microtorrd.tracker.store import MemoryStore, PeerStore, StoreBounds
from microtorrd.tracker.udp import UdpServer
from microtorrd.tracker.udp_answer import UdpAnswerer

#: How long the lists may take: three of the longest are read in a few seconds, a disk that hangs never does.
READING_S = 10.0


class TrackerServer:
    """A tracker on one address. `clock` counts seconds (time.monotonic), `on_request` hears of all while
    `is_watched`, `name_of` knows the torrents of the daemon around it."""

    def __init__(
        self,
        settings: TrackerSettings,
        crew: Crew,
        clock: Callable[[], float],
        on_request: OnRequest | None = None,
        is_watched: IsWatched = always,
        *,
        name_of: NameOf = nobody,
    ) -> None:
        self._settings = settings
        self._name_of = name_of
        self._reading: AsyncResult[Lists] | None = None  # of the lists, the last time
        self._log = logs.get(room="tracker")
        bounds = store_bounds(settings)
        self._store = make_store(settings)
        # What others share has times of the clock that they share.
        self._clock = time.time if self._store.waits else clock
        self._service = TrackerService(settings, self._store, OpenAdmission())
        answerer = Answerer(settings, self._service, self._clock, on_request, is_watched)
        self._census = Census(self._store, clock)
        self._pages = Pages(
            self._service,
            self._census,
            answerer.sources,
            bounds,
            readers=settings.pages,
            name_of=name_of,
        )
        ours = crew.child("tracker")
        self._http = HttpServer(
            answerer,
            create_app(answerer, self._pages),
            crew=ours,
            limits=HttpLimits(connections=settings.max_connections),
            on_tick=self._tidy,
        )
        ids = ConnectionIds(os.urandom)
        datagrams = UdpAnswerer(
            settings,
            self._service,
            ids,
            clock=self._clock,
            steady=clock,
            on_request=on_request,
            is_watched=is_watched,
        )
        self._udp = UdpServer(
            datagrams.answer,
            counters=self._service.counters,
            waits=datagrams.waits,
            waits_in=ours if self._store.waits else None,
        )
        self._pages.figures = self._http.figures

    @property
    def port(self) -> int:
        """The port that it serves on."""
        return self._http.port

    @property
    def udp_port(self) -> int | None:
        """The same port where it answers over UDP, too; None where it does not."""
        return self._http.port if self._settings.udp else None

    def start(self) -> None:
        """Read the lists, bind and serve; raises ConfigError for a wrong list or an address that is taken."""
        self.prepare(self._settings)()
        if self._settings.udp:
            listener, datagrams = listen_on_both(self._settings.bind)
            self._udp.start(datagrams)
        else:
            listener = listen(self._settings.bind)
        self._http.start(listener)

    def prepare(self, settings: TrackerSettings) -> Callable[[], None]:
        """Read the lists of who may use the tracker; return what puts them, and who may read pages, in force.

        Reading waits for a disk, in a thread. Raises ConfigError: then everything is as it was.
        """
        lists = self._read(settings)

        def adopt() -> None:
            self._pages.readers = settings.pages
            self._service.admit_by(admission(settings.access, lists, self._name_of), lists.passkeys)
            if settings.access != "open" or lists != NO_LISTS:
                self._log.info(
                    "tracker_access",
                    access=settings.access,
                    allowed=len(lists.allowed),
                    denied=len(lists.denied),
                    users=None if lists.passkeys is None else len(lists.passkeys),
                )

        return adopt

    def close(self, timeout_s: float = 2.0) -> None:
        """End all connections and wait for their ends."""
        self._udp.close()
        self._http.close(timeout_s)
        self._store.close()

    def _tidy(self) -> None:
        """Forget whose time has come; step by step, since after a silence it can be a whole swarm."""
        self._census.tidy()
        with suppress(StoreUnreachable):  # it has said so, and there is a next time
            while self._service.expire(self._clock()):
                breathe()

    def _read(self, settings: TrackerSettings) -> Lists:
        """Read the lists in a thread; raises ConfigError, also where a disk does not answer."""
        if not (settings.allow_file or settings.deny_file or settings.passkeys_file):
            return NO_LISTS
        # A thread cannot be ended, and there are ten for the whole daemon: a disk that hangs gets one.
        if self._reading is not None and not self._reading.ready():
            raise ConfigError(
                "the tracker's lists are still being read since the last time: does their disk answer?",
                key="tracker.access",
            )
        reading = self._reading = gevent.get_hub().threadpool.spawn(read_lists, settings)
        with gevent.Timeout(READING_S) as wall:
            try:
                lists: Lists = reading.get()
            except gevent.Timeout as expired:
                if expired is not wall:
                    raise
                raise ConfigError(
                    f"the tracker's lists could not be read within {READING_S:g} s", key="tracker.access"
                ) from None
        return lists


def store_bounds(settings: TrackerSettings) -> StoreBounds:
    """Return how much may be in the store."""
    return StoreBounds(settings.max_swarms, settings.max_swarm_peers, settings.max_total_peers)


def make_store(settings: TrackerSettings) -> PeerStore:
    """Return the store that is chosen. Raises ConfigError."""
    bounds = store_bounds(settings)
    if settings.store == "memory":
        return MemoryStore(Random(), bounds)
    from microtorrd.tracker.redis_store import RedisStore  # its library is for those who use it

    try:
        return RedisStore(settings.store, Random(), bounds)
    except ValueError:
        # In our own words, and without the cause: those of the library quote parts of the URL, which may
        # have a password.
        raise ConfigError(
            "tracker.store is no URL of a Redis server, as redis://:password@host:6379/0", key="tracker.store"
        ) from None
