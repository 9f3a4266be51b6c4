"""One announce to one tracker, whatever its URL: by HTTP or UDP, IPv4 or IPv6, with one bound on it all.

Owns what lies between the rounds of a torrent and the bytes of a tracker: our address that faces the tracker,
the choice of family, the sorting of replies into "understood" and "not this dialect", and which of the peers'
addresses may be used at all.

A tracker far away that has IPv4 and IPv6 hears a BitTorrent announce on both: it tells the peers of each
family only about those it saw there (BEP 7). Elsewhere one family is enough.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import gevent
from msgspec import Struct, field
from msgspec.structs import replace

from microtorrd import libraries
from microtorrd.core.events import Address
from microtorrd.core.tiers import Dialect, Place
from microtorrd.errors import DialectRefused, PeerForgotten, TrackerError, TrackerUnreachable
from microtorrd.greenlets import breathe
from microtorrd.net.routes import Route, Routes
from microtorrd.net.tracker_udp import UdpLimits, UdpTracker
from microtorrd.proto.announce import AnnounceRequest, encode_query
from microtorrd.proto.announce_reply import AnnounceReply, parse_reply
from microtorrd.proto.scrape import SwarmCounts, encode_scrape_query, parse_scrape_reply, scrape_url

if TYPE_CHECKING:
    from microtorrd.net.tracker_http import HttpLimits, HttpReply, HttpTracker

#: What an announce says about the form of reply it wants; the first byte tells whether it got it.
_ACCEPT: dict[Dialect, str] = {"microtorr": "application/json", "bittorrent": "*/*"}
_MOST_RESTING = 512


class ClientLimits(Struct, frozen=True):
    """Bounds of one announce; `total_s` holds for an HTTP one with everything: names, redirects, body."""

    total_s: float = 15.0
    rest_family_s: float = 1800.0  # a family that did not work while the other one did
    addresses: int = 1000
    http: HttpLimits | None = None
    udp: UdpLimits = field(default_factory=UdpLimits)


class Identity(Struct, frozen=True):
    """Who we are to every tracker, for as long as the session runs."""

    peer_id: bytes  # 20
    port: int  # where we listen
    key: int  # 32 random bits: tells a tracker that we are the same one behind a new address (BEP 7)


class Question(NamedTuple):
    """An announce, and to whom."""

    url: str
    place: Place  # of `url`
    dialect: Dialect
    request: AnnounceRequest


class Heard(NamedTuple):
    """What an announce brought: the reply, and those of its addresses that may be used."""

    reply: AnnounceReply
    addresses: list[Address]


class TrackerClient:
    """Announces and scrapes, one a call, in the calling greenlet. One for the session."""

    def __init__(
        self,
        *,
        sources: Callable[[], Sequence[str]] | None = None,
        verify: bool | str = True,
        limits: ClientLimits | None = None,
        routes: Routes | None = None,
        chance: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`sources`: the addresses of the configured interface. `verify`: see HttpTracker."""
        self._limits = limits or ClientLimits()
        self._clock = clock
        self._routes = routes or Routes(sources, clock=clock)
        self._verify = verify
        self._http_tracker: HttpTracker | None = None
        self._udp = UdpTracker(self._limits.udp, chance=chance, clock=clock)
        self._resting: dict[tuple[str, bool], float] = {}  # host and family, until when
        #: Told where a tracker sees us (BEP 24): the tracker's address and ours, both numeric.
        self.on_external_ip: Callable[[str, str], None] | None = None

    def announce(self, question: Question, *, within_s: float | None = None) -> Heard:
        """Announce and wait for the answer, at most `within_s` (or the client's own limit) altogether.

        Raises TrackerUnreachable, DialectRefused, PeerForgotten, or a plain TrackerError.
        """
        place = question.place
        total_s = self._limits.udp.total_s + 1.0 if place.scheme == "udp" else self._limits.total_s
        if within_s is not None:
            total_s = min(total_s, within_s)
        heard: dict[Route, AnnounceReply] = {}
        with gevent.Timeout(total_s) as wall:
            try:
                self._by_every_way(question, heard)
            except gevent.Timeout as expired:
                if expired is not wall:
                    raise
                self._routes.forget(place.host, place.port)
                if not heard:
                    raise TrackerUnreachable(f"no answer within {total_s:g} s") from None
        for route, reply in heard.items():
            self._resting.pop((place.host, route.is_ipv6), None)
            if reply.external_ip and self.on_external_ip is not None:
                self.on_external_ip(route.remote, reply.external_ip)
        return self._merged(heard, question.request.peer_id)

    def scrape(self, question: Question) -> SwarmCounts:
        """Ask that tracker for the figures of the request's swarm (BEP 48; by UDP BEP 15), over one family.

        Raises TrackerError; TrackerUnreachable where nothing came back in time.
        """
        url, place, swarm_id = question.url, question.place, question.request.swarm_id
        with gevent.Timeout(self._limits.total_s) as wall:
            try:
                route = self._ordered(self._routes.find(place.host, place.port), question)[0]
                if place.scheme == "udp":
                    return self._udp.scrape(route, place.port, swarm_id)
                where = scrape_url(url)
                if where is None:
                    raise TrackerError("it has no address for scrapes")
                reply = self._http.get(where, query=encode_scrape_query([swarm_id]), accept="*/*")
            except gevent.Timeout as expired:
                if expired is not wall:
                    raise
                raise TrackerUnreachable(f"no answer within {self._limits.total_s:g} s") from None
        counts = parse_scrape_reply(reply.body, status=reply.status).get(swarm_id)
        if counts is None:
            raise TrackerError("it tells no figures")
        return counts

    def close_idle(self) -> None:
        """Close connections that are kept open for nobody."""
        if self._http_tracker is not None:
            self._http_tracker.close_idle()

    @property
    def _http(self) -> HttpTracker:
        """Made with the first announce that is in need of it: its library is the largest of all."""
        if self._http_tracker is None:
            libraries.warm_up(breathe)
            from microtorrd.net.tracker_http import HttpTracker

            if self._http_tracker is None:  # somebody else may have waited for the same
                self._http_tracker = HttpTracker(self._routes, self._limits.http, verify=self._verify)
        return self._http_tracker

    def _by_every_way(self, question: Question, heard: dict[Route, AnnounceReply]) -> None:
        """Put one reply into `heard`, or one a family where each is worth an announce."""
        place = question.place
        every = self._routes.find(place.host, place.port)
        routes = self._ordered(every, question)
        everywhere = question.dialect == "bittorrent" and all(route.scope == "global" for route in routes)
        failure: TrackerError | None = None
        for route in routes:
            try:
                heard[route] = self._once(question, route, only=len(every) == 1)
            except TrackerUnreachable as error:
                if len(every) > 1:
                    self._rest(place.host, route)
                self._routes.forget(place.host, place.port)
                failure = error
                continue
            except TrackerError:
                if heard:
                    break
                raise
            if not everywhere:
                break
        if failure is not None and not heard:
            raise failure

    def _once(self, question: Question, route: Route, *, only: bool) -> AnnounceReply:
        """Announce by one route, or let the library choose when it is the only one."""
        url, place, dialect, request = question
        if place.scheme == "udp":
            parts = urlsplit(url)
            url_data = urlunsplit(("", "", parts.path, parts.query, ""))
            return self._udp.announce(route, place.port, request, url_data=url_data)
        if dialect == "microtorr":
            request = request._replace(ip=route.local)
        reply = self._http.get(
            url,
            query=encode_query(request, dialect),
            accept=_ACCEPT[dialect],
            ipv6=None if only else route.is_ipv6,
            is_keep_alive=request.event == "alive",
        )
        return understood(reply, dialect, request.event, is_joint=bool(request.swarm_ids))

    def _ordered(self, every: Sequence[Route], question: Question) -> list[Route]:
        """The routes to try. IPv4 first in the MicroTorr dialect: the original knows no other."""
        host, now = question.place.host, self._clock()
        awake = [route for route in every if self._resting.get((host, route.is_ipv6), 0.0) <= now]
        routes = awake or list(every)
        if question.dialect == "microtorr":
            routes.sort(key=lambda route: route.is_ipv6)
        return routes

    def _rest(self, host: str, route: Route) -> None:
        """Leave this family of the host alone for a while."""
        if len(self._resting) >= _MOST_RESTING:
            del self._resting[next(iter(self._resting))]
        self._resting[host, route.is_ipv6] = self._clock() + self._limits.rest_family_s

    def _merged(self, heard: dict[Route, AnnounceReply], ourselves: bytes) -> Heard:
        first, *more = heard.values()
        peers = first.peers + tuple(peer for reply in more for peer in reply.peers)
        if not peers:
            return Heard(first, [])
        is_near = any(route.scope != "global" for route in heard)
        addresses = [(host, port) for host, port, peer_id in peers if peer_id != ourselves]
        return Heard(
            replace(first, peers=peers), admitted(addresses, is_near=is_near, most=self._limits.addresses)
        )


def understood(reply: HttpReply, dialect: Dialect, event: str, *, is_joint: bool = False) -> AnnounceReply:
    """Read the reply to this event; what does not look like this dialect at all is DialectRefused.

    A `failure reason` in the right form is a plain TrackerError: the tracker understood, and says no.
    """
    start = reply.body.lstrip()[:1]
    says_no = b'"failure reason"' in reply.body
    if dialect == "microtorr" and start == b"d":
        raise DialectRefused("it answers in the BitTorrent dialect")
    if dialect == "bittorrent" and start == b"{" and not says_no:
        raise DialectRefused("it answers in the MicroTorr dialect")
    if event == "started" and not start and reply.status == 200:
        raise DialectRefused("the reply is empty")  # which is enough for other events
    try:
        return parse_reply(reply.body, dialect, status=reply.status, is_joint=is_joint)
    except PeerForgotten:
        raise
    except TrackerError as error:
        if event == "alive" and reply.status in (400, 404, 410):
            raise PeerForgotten(str(error)) from error
        if reply.status == 429 or reply.status >= 500:
            raise TrackerError(str(error), retry_s=error.retry_s or reply.retry_after_s) from error
        if start == b"d" if dialect == "bittorrent" else says_no:
            raise
        raise DialectRefused(str(error), retry_s=error.retry_s) from error


def admitted(addresses: Sequence[Address], *, is_near: bool, most: int) -> list[Address]:
    """The addresses (numeric and canonical, but attacker-controlled) that are worth dialling, each once.

    Loopback ones count only when the tracker itself is near; otherwise they are a way to make us talk to our
    own services. Link-local IPv6 ones lack the interface that would make them complete.
    """
    found: dict[Address, None] = {}
    for host, port in addresses:
        if len(found) >= most:
            break
        is_loopback = host.startswith("127.") or host == "::1"
        if (is_near or not is_loopback) and not host.startswith("fe80:") and 0 < port <= 65535:
            found[host, port] = None
    return list(found)
