"""The tracker controller of one torrent: which swarm ids it announces in which dialect, and what came of it.

Rules:
- a `.mtorrent` announces its id_hash in the MicroTorr dialect and its info_hash in the BitTorrent dialect, to
  the same trackers; each dialect goes its own way, and neither waits for the other;
- a dialect that a tracker does not understand is no trouble as long as the other one works;
- in between, the torrent is an entry or two in the schedule (`AnnounceScheduler`) and nothing else;
- whoever leaves says so once to each tracker that knows him; nobody waits for that.

All methods return at once. The `listener` is called from a worker of the schedule.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from microtorrd.core.events import Address
from microtorrd.core.rounds import Others, Rounds
from microtorrd.core.tiers import Dialect, Pacing, Tracker, TrackerState, drawn
from microtorrd.net.announce_hosts import ScheduleLimits
from microtorrd.net.announce_schedule import AnnounceScheduler
from microtorrd.net.announce_way import AnnounceStats, Farewell, Listener, Way
from microtorrd.net.tracker_client import Identity, TrackerClient

__all__ = [
    "AnnounceScheduler",
    "AnnounceStats",
    "Announcer",
    "Identity",
    "Listener",
    "ScheduleLimits",
    "TrackerClient",
    "TrackerStatus",
]

AnnounceAs = Literal["both", "microtorr", "bittorrent"]

_PACING = Pacing()


class TrackerStatus(Struct, frozen=True):
    """What people may know of one tracker in one dialect. Times are seconds since the epoch."""

    url: str
    tier: int  # from 0
    dialect: Dialect
    state: TrackerState
    last_announce_at: float | None
    next_announce_at: float | None
    interval_s: float | None
    min_interval_s: float | None
    peers_received: int | None  # that could be used, in its last reply that had any
    seeders: int | None
    leechers: int | None
    downloaded: int | None  # how often somebody finished, as its last scrape says
    message: str  # its warning, or why it failed


class Departed:
    """In the place of a listener that is gone: what it would have told the trackers, and deaf."""

    __slots__ = ("_stats",)

    def __init__(self, stats: AnnounceStats) -> None:
        self._stats = stats

    def announce_stats(self) -> AnnounceStats:
        """As they were when it went."""
        return self._stats

    def hear_of(self, addresses: list[Address]) -> None:
        """Nobody dials them."""

    def hear_tracker(self, kind: str, facts: dict[str, Any]) -> None:
        """Nobody is told."""


class Announcer:
    """One torrent's announces. `start` and `stop` may follow each other as often as the torrent's do."""

    __slots__ = (
        "_leaving",
        "_parting",
        "_restart",
        "_running",
        "_silent",
        "_ways",
        "identity",
        "listener",
        "pacing",
        "scheduler",
        "trackers",
    )

    def __init__(
        self,
        *,
        scheduler: AnnounceScheduler,
        trackers: Sequence[Sequence[str]],
        info_hash: bytes,
        id_hash: bytes | None,
        announce_as: AnnounceAs,
        identity: Identity,
        listener: Listener,
        pacing: Pacing = _PACING,
    ) -> None:
        self.scheduler = scheduler
        self.identity = identity
        self.listener = listener
        self.pacing = pacing
        self.trackers = drawn(trackers, scheduler.chance)
        self._ways = tuple(
            Way(self, dialect, swarm_id) for dialect, swarm_id in _swarms(info_hash, id_hash, announce_as)
        )
        self._parting: tuple[Way, ...] = ()  # in dialects that are no longer spoken
        self._running = False
        self._leaving: tuple[Farewell, ...] = ()  # no set: there are thousands, and most are empty
        self._restart = False
        self._silent = False  # somebody else speaks for us now

    def start(self) -> None:
        """Announce `started`, and go on announcing until `stop`."""
        if self._running:
            return
        self._running = True
        for farewell in [one for one in self._leaving if not one.is_running]:
            self.scheduler.cancel(farewell)
            self._forget(farewell)
        # A farewell that is under way must not come after our `started`.
        self._restart = bool(self._leaving)
        if not self._restart:
            self._begin()

    def completed(self, and_leaves: bool) -> None:
        """The content became whole. `completed` of the MicroTorr dialect is for those who leave, only."""
        for way in self._ways if self._running else ():
            if way.rounds.dialect == "bittorrent":
                way.rounds.complete(self.scheduler.clock())
                way.rebook()
            elif and_leaves:
                way.close("completed")

    def stop(self) -> None:
        """Announce `stopped` where anybody knows us, and nothing after that."""
        self._running = self._restart = False
        for way in self._ways:
            way.close("stopped")

    def speak(self, *, info_hash: bytes, id_hash: bytes | None, announce_as: AnnounceAs) -> None:
        """From now on announce in these dialects, and say goodbye in those that are none of them."""
        swarms = _swarms(info_hash, id_hash, announce_as)
        before = {way.rounds.dialect: way for way in self._ways}
        if list(before) == [dialect for dialect, _ in swarms]:
            return
        self._ways = tuple(
            before.get(dialect) or Way(self, dialect, swarm_id) for dialect, swarm_id in swarms
        )
        fresh = [way for way in self._ways if way.rounds.dialect not in before]
        self._parting = tuple(way for way in before.values() if way not in self._ways)
        for way in self._parting:
            way.close("stopped")
        for way in fresh if self._running and not self._restart else ():
            way.begin()

    def hand_over(self) -> None:
        """Fall silent for good without a farewell: another announcer goes on as the same peer, and a
        `stopped` of ours might come after its `started`."""
        self._silent = True
        self.stop()

    def depart(self) -> None:
        """The listener goes: what is still to be said is said without it."""
        self.listener = Departed(self.listener.announce_stats())

    def reannounce(self, *, insist: bool = False) -> None:
        """Ask for peers again as soon as the trackers allow it. An operator insists: trackers that failed are
        tried again, too, before their back-off is over."""
        for way in self._ways if self._running else ():
            way.rounds.hurry(self.scheduler.clock(), insist=insist)
            way.rebook()

    def status(self) -> list[TrackerStatus]:
        """Every tracker in every dialect, in the order in which they are asked."""
        to_epoch = time.time() - self.scheduler.clock()
        return [_status(way.rounds, tracker, to_epoch) for way in self._ways for tracker in way.rounds.tiers]

    # ------------------------------------------------------------------------------ for the ways below

    def outlook_beside(self, way: Way, url: str) -> Others:
        """How the other dialect does at that tracker."""
        return next((other.rounds.outlook(url) for other in self._ways if other is not way), "fail")

    def leave(self, way: Way) -> None:
        """Send the farewells that this way owes. After a restart the old ways owe none: we are back."""
        if self._silent:
            return
        for turn in way.rounds.farewells() if way in self._ways or way in self._parting else ():
            farewell = Farewell(way, turn)
            self._leaving = (*self._leaving, farewell)
            self.scheduler.submit(farewell)

    def left(self, farewell: Farewell) -> None:
        """A farewell is over."""
        self._forget(farewell)
        if self._restart and not self._leaving:
            self._restart = False
            self._begin()

    def _begin(self) -> None:
        if any(way.rounds.closed for way in self._ways):
            self._ways = tuple(Way(self, way.rounds.dialect, way.swarm_id) for way in self._ways)
        for way in self._ways:
            way.begin()

    def _forget(self, farewell: Farewell) -> None:
        self._leaving = tuple(other for other in self._leaving if other is not farewell)


def _swarms(info_hash: bytes, id_hash: bytes | None, announce_as: AnnounceAs) -> list[tuple[Dialect, bytes]]:
    """Which dialect announces which id. Without an id_hash MicroTorr has no word for us."""
    swarms: list[tuple[Dialect, bytes]] = []
    if announce_as != "microtorr" or id_hash is None:
        swarms.append(("bittorrent", info_hash))
    if announce_as != "bittorrent" and id_hash is not None:
        swarms.append(("microtorr", id_hash))
    return swarms


def _status(rounds: Rounds, tracker: Tracker, to_epoch: float) -> TrackerStatus:
    return TrackerStatus(
        url=tracker.url,
        tier=tracker.tier,
        dialect=tracker.dialect,
        state="idle" if rounds.closed and tracker.state == "working" else tracker.state,
        last_announce_at=None if tracker.last_at is None else tracker.last_at + to_epoch,
        next_announce_at=None if (at := rounds.next_for(tracker)) is None else at + to_epoch,
        interval_s=tracker.interval_s,
        min_interval_s=tracker.min_interval_s,
        peers_received=tracker.peers,
        seeders=tracker.seeders,
        leechers=tracker.leechers,
        downloaded=tracker.downloaded,
        message=tracker.message,
    )
