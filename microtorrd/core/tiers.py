"""The trackers of one torrent as one dialect sees them: in which order they are asked, and who rests.

Rules (BEP 12): tiers are asked from the first to the last, the trackers within a tier in an order drawn once;
a tracker that answers moves to the front of its tier; every announce begins at the top again. A tracker that
failed rests for a back-off of its own and is passed over meanwhile.

Pure: `now` is handed in (seconds of a monotonic clock), and so is chance.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from sys import intern
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from msgspec import Struct

Dialect = Literal["microtorr", "bittorrent"]

#: What people see of a tracker. `unsupported`: it does not speak this dialect, and that is fine.
TrackerState = Literal["idle", "announcing", "working", "failing", "unsupported"]

#: Why an announce came to nothing. `unreachable`: no answer at all; `failed`: an answer that says no;
#: `refused`: an answer that shows that this dialect is not understood; `unknown_peer`: it has forgotten us.
Fault = Literal["unreachable", "failed", "refused", "unknown_peer"]

#: More trackers than this a torrent are not asked: the list is attacker-controlled, and each costs announces.
MAX_TRACKERS = 100

#: Which URLs each dialect can use. The MicroTorr dialect is HTTP and nothing else.
SCHEMES: dict[Dialect, frozenset[str]] = {
    "microtorr": frozenset({"http", "https"}),
    "bittorrent": frozenset({"http", "https", "udp"}),
}
DEFAULT_PORTS = {"http": 80, "https": 443}


class Pacing(Struct, frozen=True):
    """The times of announcing, in seconds. Low values find peers sooner, high ones spare the trackers."""

    alive_s: float = 15.0  # MicroTorr: between keep-alives
    forgotten_s: float = 30.0  # MicroTorr: a tracker forgets us after this silence
    default_interval_s: float = 1800.0  # BitTorrent: when the tracker names none
    shortest_interval_s: float = 5.0  # whatever a tracker says: never more often
    longest_interval_s: float = 86_400.0  # whatever a tracker says: once a day
    hurry_s: float = 5.0  # asked-for announces keep this distance from the last one
    scrape_s: float = 3600.0  # between two scrapes; doubled with each that fails, up to a day
    backoff_first_s: float = 5.0
    backoff_most_s: float = 1800.0
    refused_first_s: float = 3600.0  # a dialect that is not understood, while the other one works
    refused_most_s: float = 6 * 3600.0
    jitter: float = 0.2  # of a back-off, either way

    def backoff_s(self, failures: int, *, rarely: bool, chance: random.Random) -> float:
        """How long to leave a tracker alone after so many failures in a row (1 or more).

        `rarely`: it does not understand us and is not needed.
        """
        first, most = (
            (self.refused_first_s, self.refused_most_s)
            if rarely
            else (self.backoff_first_s, self.backoff_most_s)
        )
        doubled = first * 2.0 ** min(failures - 1, 30)
        return max(first, min(most, doubled * chance.uniform(1 - self.jitter, 1 + self.jitter)))


class Place(NamedTuple):
    """Where a tracker URL points."""

    scheme: str
    host: str  # lower case, without brackets
    port: int

    @property
    def endpoint(self) -> str:
        """A key for "the same service": two URLs with it share their fate."""
        return f"{'udp' if self.scheme == 'udp' else 'tcp'}/{self.host}/{self.port}"


@lru_cache(maxsize=1024)  # thousands of torrents share a few trackers, and should share their places, too
def place_of(url: str) -> Place | None:
    """Where `url` (attacker-controlled) points; None when it is nothing that can be asked."""
    if len(url) > 2048 or any(ord(letter) <= 0x20 or ord(letter) == 0x7F for letter in url):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or parts.scheme not in SCHEMES["bittorrent"]:
        return None
    if port is None:
        port = DEFAULT_PORTS.get(parts.scheme)
    return Place(parts.scheme, host, port) if port else None


class Tracker:
    """What is known of one tracker in one dialect."""

    __slots__ = (
        "announcing",
        "asked",
        "dialect",
        "downloaded",
        "failures",
        "fault",
        "heard_at",
        "interval_s",
        "last_at",
        "leechers",
        "message",
        "min_interval_s",
        "peers",
        "place",
        "registered",
        "retry_at",
        "scrape_at",
        "scrape_failures",
        "seeders",
        "tier",
        "tolerated",
        "tracker_id",
        "url",
    )

    def __init__(self, url: str, tier: int, dialect: Dialect) -> None:
        self.url = url
        self.tier = tier
        self.dialect = dialect
        place = place_of(url)
        self.place = place if place is not None and place.scheme in SCHEMES[dialect] else None
        self.announcing = False
        self.registered = False  # it acknowledged a `started`, and no farewell since
        self.last_at: float | None = None  # when the last announce ended, well or not
        self.heard_at: float | None = None  # when it last answered well
        self.failures = 0  # in a row
        self.fault: Fault | None = None  # of the last announce
        self.tolerated = False  # the fault is no cause for worry: the other dialect works
        self.retry_at = -math.inf  # not asked before this
        self.asked = False  # `retry_at` is the tracker's own wish
        self.message = ""  # its warning, or what went wrong
        self.interval_s: float | None = None
        self.min_interval_s: float | None = None
        self.tracker_id: bytes | None = None
        self.peers: int | None = None  # in its last reply
        self.seeders: int | None = None
        self.leechers: int | None = None
        self.downloaded: int | None = None  # as its last scrape says
        self.scrape_at = -math.inf  # not scraped before this
        self.scrape_failures = 0  # in a row
        if self.place is None:
            self.message = "not a tracker that can be asked in this way"

    @property
    def state(self) -> TrackerState:
        if self.place is None:
            return "unsupported"
        if self.announcing:
            return "announcing"
        if self.fault is not None:
            return "unsupported" if self.tolerated else "failing"
        return "idle" if self.heard_at is None else "working"

    @property
    def failing(self) -> bool:
        """In trouble that people should know of, whether or not it is being asked at the moment."""
        return self.fault is not None and not self.tolerated


class Tiers:
    """All trackers of one torrent in one dialect, in their present order."""

    __slots__ = ("_tiers",)

    def __init__(self, tiers: Sequence[Sequence[str]], dialect: Dialect) -> None:
        # Tuples, for there are thousands of these, and most hold one tracker.
        self._tiers = tuple(
            tuple(Tracker(url, number, dialect) for url in tier) for number, tier in enumerate(tiers)
        )

    def __iter__(self) -> Iterator[Tracker]:
        for tier in self._tiers:
            yield from tier

    @property
    def top(self) -> Tracker | None:
        """The one that is asked first when nobody rests."""
        return next((tracker for tracker in self if tracker.place is not None), None)

    def candidate(self, now: float) -> Tracker | None:
        """The first tracker from the top that may be asked now."""
        for tracker in self:
            if tracker.place is not None and tracker.retry_at <= now:
                return tracker
        return None

    def next_try(self) -> float | None:
        """When the first of them has rested enough; None when none ever will."""
        times = [tracker.retry_at for tracker in self if tracker.place is not None]
        soonest = min(times, default=math.inf)
        return None if soonest == math.inf else soonest

    def promote(self, tracker: Tracker) -> None:
        """It answered: it is the first of its tier from now on."""
        tier = self._tiers[tracker.tier]
        if tier[0] is not tracker:
            tiers = list(self._tiers)
            tiers[tracker.tier] = (tracker, *(other for other in tier if other is not tracker))
            self._tiers = tuple(tiers)


def drawn(tiers: Sequence[Sequence[str]], chance: random.Random) -> tuple[tuple[str, ...], ...]:
    """The tiers with each one's order drawn by lot, without repeated URLs and empty tiers, and bounded."""
    seen: set[str] = set()
    result = []
    for tier in tiers:
        fresh = []
        for url in tier:
            if url not in seen and len(seen) < MAX_TRACKERS:
                seen.add(url)
                fresh.append(intern(url))  # thousands of torrents name the same ones
        chance.shuffle(fresh)
        if fresh:
            result.append(tuple(fresh))
    return _same(tuple(result))


@lru_cache(maxsize=1024)
def _same(tiers: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """The first of all that are equal to these: thousands of torrents have the same."""
    return tiers
