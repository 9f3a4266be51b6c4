"""The web seeds of one torrent: which are in use, how many connections each has, who rests and how long.

Rules:
- they are used only while the torrent runs and lacks something; then every connection is let go;
- the first connection to one has to prove itself with a block before there are more;
- one that failed rests: twice as long each time, by lot a little longer, and at least as long as the fault
  deserves or the server wishes. One that delivered since then starts anew;
- one that sent corrupt pieces again and again is never used again by this torrent.

`look` never waits. Connections of web seeds are counted on their own, not as peers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from microtorrd import logs
from microtorrd.core.tiers import place_of
from microtorrd.net.webseed import WebSeedWire
from microtorrd.proto.web_files import WebFiles
from microtorrd.rate import Limiter, TokenBucket

if TYPE_CHECKING:
    from microtorrd.content import Content
    from microtorrd.facilities import Facilities
    from microtorrd.host import CoreHost

#: Connections to one URL, of one torrent, and of the daemon.
PER_URL = 3
PER_TORRENT = 12
PER_DAEMON = 100

#: The list is attacker-controlled: more than this are not used.
URLS_MAX = 50

#: The first rest after a failure, and the longest of our own making; each up to half as long again by lot.
REST_FIRST_S = 5.0
REST_LONGEST_S = 1800.0

#: After this time a connection that was closed by us, for reasons that were not the server's, is made again.
PARTED_S = 5.0


#: What people see of a web seed. `idle`: nothing is wanted of it now.
WebSeedState = Literal["idle", "connecting", "working", "resting", "banned"]


class WebSeedStatus(NamedTuple):
    """One web seed, for people."""

    url: str  # without a password
    state: WebSeedState
    connections: int
    retry_in_s: float | None  # where it rests
    message: str  # what went wrong last


class Seed:
    """One web seed."""

    __slots__ = ("banned", "failures", "files", "has_delivered", "message", "rest_until", "wires")

    def __init__(self, files: WebFiles) -> None:
        self.files = files
        self.wires: set[WebSeedWire] = set()
        self.failures = 0  # in a row
        self.rest_until = -math.inf
        self.has_delivered = False  # since it failed last
        self.banned = False
        self.message = ""  # what went wrong last


class WebSeeds:
    """Opens and closes the wires of one torrent's web seeds. `host` carries them."""

    def __init__(
        self, content: Content, facilities: Facilities, host: CoreHost, *, down: TokenBucket
    ) -> None:
        self._content = content
        self._facilities = facilities
        self._host = host
        self._down = down
        self._chance = facilities.chance
        self._wanted = False
        self._next_at = -math.inf
        usable = [url for url in content.web_seeds if is_usable(url)]
        self._seeds = [
            Seed(WebFiles(url, content.web_name, content.entries, is_single_file=content.is_single_file))
            for url in usable[:URLS_MAX]
        ]

    @property
    def expectant(self) -> bool:
        """There is something to be done for it later, without anything else happening."""
        return self._wanted and bool(self._seeds)

    def look(self, missing: int, now: float) -> None:
        """See what is to be opened or closed. `missing` pieces are wanted; 0: none, or not now."""
        wanted = missing > 0
        if not self._seeds or (wanted == self._wanted and now < self._next_at):
            return
        self._wanted = wanted
        self._next_at = now + 1.0 if wanted else math.inf
        if not wanted:
            for seed in self._seeds:
                for wire in tuple(seed.wires):
                    wire.drop("nothing more is wanted of it")
            return
        room = min(
            PER_TORRENT - sum(len(seed.wires) for seed in self._seeds),
            PER_DAEMON - self._facilities.web_connections,
        )
        # Fewest connections first: each URL gets one before another gets its third.
        for seed in sorted(self._seeds, key=lambda seed: len(seed.wires)):
            if room > 0 and self._may_open(seed, missing, now):
                room -= 1
                self._open(seed)

    def left(self, wire: WebSeedWire, reason: str, now: float) -> None:
        """A wire has ended."""
        self._facilities.web_connections -= 1
        seed = next(seed for seed in self._seeds if wire in seed.wires)
        seed.wires.discard(wire)
        seed.has_delivered = seed.has_delivered or wire.blocks > 0
        failure = wire.failure
        if failure is None:
            seed.rest_until = max(seed.rest_until, now + PARTED_S if self._wanted else now)
            return
        if seed.has_delivered:
            seed.failures, seed.has_delivered = 0, False
        seed.failures += 1
        seed.message = reason
        rest_s = min(REST_FIRST_S * 2.0 ** min(seed.failures - 1, 30), REST_LONGEST_S)
        rest_s = max(rest_s, failure.rest_s) * self._chance.uniform(1.0, 1.5)
        seed.rest_until = max(seed.rest_until, now + rest_s)
        self._next_at = min(self._next_at, now + 1.0)
        log = logs.get(room="webseeds", torrent=self._content.record.name)
        log.info("web_seed_failed", host=host_of(seed.files.url), reason=reason, rest_s=round(rest_s))

    @staticmethod
    def at_rest(content: Content) -> list[WebSeedStatus]:
        """The same as `status`, of a torrent that has no use for any."""
        usable = [url for url in content.web_seeds if is_usable(url)]
        return [WebSeedStatus(shown(url), "idle", 0, None, "") for url in usable[:URLS_MAX]]

    def ban(self, url: str, reason: str) -> None:
        """It sent bad data: never again."""
        for seed in self._seeds:
            if seed.files.url == url:
                seed.banned, seed.message = True, reason

    def status(self, now: float) -> list[WebSeedStatus]:
        """All of them that can be used, in the order of the metainfo."""
        return [self._status(seed, now) for seed in self._seeds]

    def _status(self, seed: Seed, now: float) -> WebSeedStatus:
        state: WebSeedState = "idle"
        rests_s = None
        if seed.banned:
            state = "banned"
        elif seed.wires:
            state = "working" if any(wire.has_joined for wire in seed.wires) else "connecting"
        elif seed.failures and seed.rest_until > now:
            state, rests_s = "resting", seed.rest_until - now
        return WebSeedStatus(shown(seed.files.url), state, len(seed.wires), rests_s, seed.message)

    def _may_open(self, seed: Seed, missing: int, now: float) -> bool:
        if seed.banned or seed.rest_until > now:
            return False
        if not seed.wires:
            return True
        proven = all(wire.blocks for wire in seed.wires)
        return proven and len(seed.wires) < min(PER_URL, missing)

    def _open(self, seed: Seed) -> None:
        facilities, content = self._facilities, self._content

        def make(peer: int) -> WebSeedWire:
            wire = WebSeedWire(
                peer=peer,
                files=seed.files,
                geometry=content.geometry,
                post=self._host.post,
                crew=self._host.crew,
                connector=facilities.web_connector,
                down=Limiter(facilities.down, self._down, facilities.down_of_a_peer()),
                memory=facilities.web_memory,
            )
            seed.wires.add(wire)
            facilities.web_connections += 1
            return wire

        self._host.adopt_web_seed(make)


def is_usable(url: str) -> bool:
    """Whether we can fetch from such a URL at all."""
    place = place_of(url)
    return place is not None and place.scheme in ("http", "https")


def host_of(url: str) -> str:
    """The host and no more: a URL may hold a password."""
    place = place_of(url)
    return "" if place is None else place.host


def shown(url: str) -> str:
    """The URL without name and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
