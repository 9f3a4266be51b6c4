"""One announce or scrape to a UDP tracker (BEP 15): connection ids, retransmission, nothing kept open.

Rules:
- each request is repeated after 15, 30, 60, … seconds without a reply, until the deadline of the announce;
- a connection id is used for a minute; a tracker that says no to an old one is asked for a new one, once;
- only datagrams of the tracker's own address count (the socket is connected), and of those only what carries
  our transaction id, which is drawn from a source that nobody can foresee.

Raises TrackerUnreachable where nothing came back and TrackerError where what came back is of no use.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from gevent import socket
from msgspec import Struct

from microtorrd.errors import ProtocolError, TrackerError, TrackerUnreachable
from microtorrd.net.routes import Route
from microtorrd.proto import udp_announce as udp
from microtorrd.proto.announce import AnnounceRequest
from microtorrd.proto.announce_reply import AnnounceReply
from microtorrd.proto.scrape import SwarmCounts

#: Datagrams that are not the reply we wait for, in one wait. More is somebody who means us ill.
_MOST_STRAYS = 64
_MOST_CONNECTIONS = 512

_R = TypeVar("_R", udp.ConnectReply, udp.AnnounceReply, udp.ScrapeReply)


class UdpLimits(Struct, frozen=True):
    """Bounds of one announce."""

    first_wait_s: float = 15.0  # doubled with each repetition
    total_s: float = 45.0  # two tries of 15 and 30 s


class UdpTracker:
    """The UDP client of all announces; remembers connection ids."""

    def __init__(
        self,
        limits: UdpLimits | None = None,
        *,
        chance: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits or UdpLimits()
        self._chance = chance or random.SystemRandom()
        self._clock = clock
        self._connections: dict[tuple[str, int], tuple[int, float]] = {}  # id, and until when

    def announce(
        self, route: Route, port: int, request: AnnounceRequest, *, url_data: str = ""
    ) -> AnnounceReply:
        """Announce in the BitTorrent dialect; `url_data` is path and query of the tracker's URL (BEP 41).

        The request's key must be hexadecimal, of 32 bits: it goes out as a number.
        """
        with self._talk(route, port) as talk:
            reply = talk.announce(request, url_data)
        return AnnounceReply(
            interval=reply.interval_s or None,
            complete=reply.seeders,
            incomplete=reply.leechers,
            peers=tuple((host, peer_port, None) for host, peer_port in reply.addresses),
        )

    def scrape(self, route: Route, port: int, swarm_id: bytes) -> SwarmCounts:
        """Ask for the figures of one swarm. A tracker that does not know it says zeros."""
        with self._talk(route, port) as talk:
            reply = talk.scrape(swarm_id)
        if not reply.figures:
            raise TrackerError("it tells no figures")
        complete, downloaded, incomplete = reply.figures[0]
        return SwarmCounts(complete=complete, downloaded=downloaded, incomplete=incomplete)

    @contextmanager
    def _talk(self, route: Route, port: int) -> Iterator[_Talk]:
        family = socket.AF_INET6 if route.is_ipv6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                if route.pinned:
                    sock.bind((route.local, 0))
                sock.connect((route.remote, port))
                yield _Talk(self, sock, route, port)
            except OSError as error:
                raise TrackerUnreachable(error.strerror or str(error)) from error


class _Talk:
    """One announce or scrape on its socket."""

    def __init__(self, client: UdpTracker, sock: Any, route: Route, port: int) -> None:
        self._client = client
        self._sock = sock
        self._server = (route.remote, port)
        self._ipv6 = route.is_ipv6
        self._give_up_at = client._clock() + client._limits.total_s

    def announce(self, request: AnnounceRequest, url_data: str) -> udp.AnnounceReply:
        return self._with_good_connection(lambda: self._announce(request, url_data))

    def scrape(self, swarm_id: bytes) -> udp.ScrapeReply:
        def ask(transaction: int) -> bytes:
            return udp.encode_request(udp.ScrapeRequest(self._connected(), transaction, (swarm_id,)))

        return self._with_good_connection(lambda: self._ask(ask, udp.ScrapeReply))

    def _with_good_connection(self, talk: Callable[[], _R]) -> _R:
        fresh = self._connection() is None
        try:
            return talk()
        except TrackerUnreachable:
            raise
        except TrackerError:
            if fresh:
                raise
        # It may have been restarted and not know the connection id any more.
        self._client._connections.pop(self._server, None)
        return talk()

    def _announce(self, request: AnnounceRequest, url_data: str) -> udp.AnnounceReply:
        def ask(transaction: int) -> bytes:
            return udp.encode_request(
                udp.AnnounceRequest(
                    connection=self._connected(),
                    transaction=transaction,
                    info_hash=request.swarm_id,
                    peer_id=request.peer_id,
                    downloaded=request.downloaded,
                    left=request.left or 0,
                    uploaded=request.uploaded,
                    event="" if request.event == "alive" else request.event,
                    key=int(request.key or "0", 16),
                    numwant=-1 if request.numwant is None else request.numwant,
                    port=request.port,
                    url_data=url_data,
                )
            )

        return self._ask(ask, udp.AnnounceReply)

    def _connection(self) -> int | None:
        known = self._client._connections.get(self._server)
        return known[0] if known is not None and self._client._clock() < known[1] else None

    def _connected(self) -> int:
        """A connection id that is good at present, asked for if need be."""
        known = self._connection()
        if known is not None:
            return known
        reply = self._ask(
            lambda transaction: udp.encode_request(udp.ConnectRequest(transaction)), udp.ConnectReply
        )
        connections = self._client._connections
        connections.pop(self._server, None)
        if len(connections) >= _MOST_CONNECTIONS:
            del connections[next(iter(connections))]
        connections[self._server] = (reply.connection, self._client._clock() + udp.CONNECTION_ID_S)
        return reply.connection

    def _ask(self, datagram: Callable[[int], bytes], kind: type[_R]) -> _R:
        """Send a request until its reply is there; `datagram` makes it anew each time."""
        transaction = self._client._chance.getrandbits(32)
        wait_s = self._client._limits.first_wait_s
        while True:
            raw = datagram(transaction)
            if self._client._clock() >= self._give_up_at:
                raise TrackerUnreachable("no answer")
            self._sock.send(raw)
            reply = self._receive(transaction, min(self._client._clock() + wait_s, self._give_up_at))
            if isinstance(reply, kind):
                return reply
            if isinstance(reply, udp.ErrorReply):
                raise TrackerError(_for_people(reply.message))
            if reply is not None:
                raise TrackerError("it answers something else than what was asked")
            wait_s *= 2

    def _receive(self, transaction: int, until: float) -> udp.Reply | None:
        """The reply to this transaction; None when it has not come by then."""
        for _ in range(_MOST_STRAYS):
            wait_s = until - self._client._clock()
            if wait_s <= 0:
                return None
            self._sock.settimeout(wait_s)
            try:
                raw = self._sock.recv(udp.MAX_DATAGRAM_BYTES)
            except TimeoutError:
                return None
            try:
                reply = udp.decode_reply(raw, ipv6=self._ipv6)
            except ProtocolError:
                continue
            if reply.transaction == transaction:
                return reply
        raise TrackerError("it answers with garbage")


def _for_people(message: str) -> str:
    """The tracker's words on one line, short, and without anything that steers a terminal."""
    words = "".join(letter if letter.isprintable() else " " for letter in message[:200]).split()
    return " ".join(words) or "refused without a reason"
