"""Trackers to announce to: real sockets on the loopback, each as well or as badly behaved as a test wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gevent import socket
from gevent.event import Event
from gevent.server import StreamServer

from microtorrd.proto import udp_announce as udp
from microtorrd.proto.query import split_query, unescape

#: Far more than any wait of a test that goes well.
PATIENCE_S = 20.0


class Seen:
    """One request as it came."""

    def __init__(self, head: bytes) -> None:
        line, *fields = head.decode("latin-1").split("\r\n")
        self.method, self.target, self.version = line.split(" ", 2)
        self.headers = {name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)}
        self.path, _, self.query = self.target.partition("?")
        self.params = {
            name.decode(): unescape(value)
            for name, value in split_query(self.query.encode("latin-1")).items()
        }

    @property
    def event(self) -> str:
        return self.params.get("event", b"").decode()

    @property
    def dialect(self) -> str:
        return "microtorr" if {"swarmId", "swarmIds"} & self.params.keys() else "bittorrent"


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A plain HTTP reply."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


#: A BitTorrent reply without peers, and with one; a MicroTorr reply with one.
EMPTY = b"d8:completei2e10:incompletei3e8:intervali600e5:peers0:e"
ONE_PEER = b"d8:completei2e10:incompletei3e8:intervali600e5:peers6:\xc0\x00\x02\x01\x1a\xe1e"
JSON = b'{"IdHash":"00","Peers":{"b":{"Ip":"192.0.2.9","Port":1111,"Id":"bbbbbbbbbbbbbbbbbbbb"}}}'
#: What the original's tracker answers to a request in the BitTorrent dialect.
GO_REFUSAL = http(b"Missing required parameters\n", "400 Bad Request")


def both_dialects(seen: Seen) -> bytes:
    """A tracker that speaks both, like our own."""
    if seen.dialect == "bittorrent":
        return http(ONE_PEER)
    return http(b"" if seen.event == "alive" else JSON)


class FakeTracker:
    """Answers every request with the bytes that `answer` gives; `seen` are the requests so far.

    `answer` may return None: then the tracker says nothing and keeps the connection open. Scrapes are in
    `scrapes` and answered by `figures`, by default with a refusal.
    """

    def __init__(
        self,
        answer: Callable[[Seen], bytes | None] = both_dialects,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.seen: list[Seen] = []
        self.scrapes: list[Seen] = []
        self.figures: Callable[[Seen], bytes] = lambda _: http(b"no such page", "404 Not Found")
        self.answer = answer
        self.connections = 0
        self.open_now = 0
        self.most_open = 0
        self._came = Event()
        self._holding = Event()
        self._server = StreamServer((host, port), self._serve)
        self._server.start()
        self.port = int(self._server.server_port)
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/announce"

    def wait_for(self, count: int) -> list[Seen]:
        """The first `count` requests, as soon as they are there."""
        with gevent.Timeout(PATIENCE_S):
            while len(self.seen) < count:
                self._came.clear()
                self._came.wait()
        return self.seen[:count]

    def close(self) -> None:
        self._holding.set()
        self._server.stop(timeout=0)

    def _serve(self, sock: Any, address: object) -> None:
        self.connections += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            self._talk(sock)
        except OSError:
            return
        finally:
            self.open_now -= 1
            sock.close()

    def _talk(self, sock: Any) -> None:
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending:
                more = sock.recv(65536)
                if not more:
                    return
                pending += more
            head, _, pending = pending.partition(b"\r\n\r\n")
            seen = Seen(head)
            if head.startswith(b"GET /scrape"):
                self.scrapes.append(seen)
                sock.sendall(self.figures(seen))
                continue
            self.seen.append(seen)
            self._came.set()
            reply = self.answer(seen)
            if reply is None:
                self._holding.wait()
                return
            sock.sendall(reply)
            if b"Connection: close" in reply.partition(b"\r\n\r\n")[0] or not reply.startswith(b"HTTP/"):
                return


class RawTracker:
    """Hands each connection to `behave`, after the request was read."""

    def __init__(self, behave: Callable[[Any], None]) -> None:
        self.requests: list[bytes] = []
        self._behave = behave
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.port = int(self._server.server_port)
        self.url = f"http://127.0.0.1:{self.port}/announce"

    def close(self) -> None:
        self._server.stop(timeout=0)

    def _serve(self, sock: Any, address: object) -> None:
        try:
            self.requests.append(sock.recv(65536))
            self._behave(sock)
        except OSError:
            return
        finally:
            sock.close()


class FakeUdpTracker:
    """A UDP tracker; `answer` gives the datagrams to send for a request, by default good ones."""

    def __init__(
        self,
        answer: Callable[[FakeUdpTracker, udp.Request], list[bytes]] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.seen: list[udp.Request] = []
        self.scrapes: list[udp.ScrapeRequest] = []
        self.came_from: list[tuple[str, int]] = []
        self.connection = 0x1122334455667788
        self._answer = answer or FakeUdpTracker.well
        self._sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind((host, 0))
        self.port = int(self._sock.getsockname()[1])
        self.url = f"udp://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._greenlet = gevent.spawn(self._serve)

    def close(self) -> None:
        self._greenlet.kill()
        self._sock.close()

    def well(self, request: udp.Request) -> list[bytes]:
        match request:
            case udp.ConnectRequest(transaction):
                return [udp.encode_reply(udp.ConnectReply(transaction, self.connection))]
            case udp.AnnounceRequest(connection, transaction) if connection == self.connection:
                peers = (("192.0.2.1", 6881),)
                return [udp.encode_reply(udp.AnnounceReply(transaction, 900, 4, 3, peers))]
            case udp.ScrapeRequest(connection, transaction, hashes) if connection == self.connection:
                return [udp.encode_reply(udp.ScrapeReply(transaction, ((3, 9, 4),) * len(hashes)))]
        return [udp.encode_reply(udp.ErrorReply(request.transaction, "connection id unknown\x1b[2J"))]

    def _serve(self) -> None:
        while True:
            raw, address = self._sock.recvfrom(2048)
            request = udp.decode_request(raw)
            if isinstance(request, udp.ScrapeRequest):
                self.scrapes.append(request)
            else:
                self.seen.append(request)
                self.came_from.append(address[:2])
            for reply in self._answer(self, request):
                self._sock.sendto(reply, address)


@contextmanager
def closing(*things: Any) -> Iterator[None]:
    """Close them all at the end, whatever happens."""
    try:
        yield
    finally:
        for thing in things:
            thing.close()


def closed_port() -> int:
    """A port of the loopback where nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
