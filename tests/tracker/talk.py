"""Talking HTTP to a tracker under test, byte by byte, and a tracker whose chance is fixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gevent
from gevent import socket
from gevent.event import Event

from microtorrd.greenlets import Crew
from microtorrd.tracker.answer import Answerer, OnRequest
from microtorrd.tracker.app import create_app
from microtorrd.tracker.census import Census
from microtorrd.tracker.http import HttpLimits, HttpServer
from microtorrd.tracker.listening import listen
from microtorrd.tracker.pages import Pages
from microtorrd.tracker.service import OpenAdmission, TrackerService
from microtorrd.tracker.settings import TrackerSettings
from microtorrd.tracker.store import MemoryStore, PeerStore, StoreBounds
from tests.tracker.store_contract import fixed_chance

#: Longer than any of these conversations takes, on any machine.
PATIENCE_S = 20.0

SWARM_HEX = "641057d4a3c5f2069380fcfa32ec3f7ea59566ca"


class Reply(NamedTuple):
    """A response, its header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Talker:
    """A connection."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.sock = socket.create_connection((host, port), timeout=PATIENCE_S)
        self._received = b""

    def __enter__(self) -> Talker:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, raw: bytes) -> None:
        """Send these bytes."""
        self.sock.sendall(raw)

    def reply(self, *, bodiless: bool = False) -> Reply:
        """Read one response; `bodiless`: it answers a HEAD."""
        head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        pairs = [line.split(": ", 1) for line in head[1:-2]]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs)
        length = 0 if bodiless else int(headers["content-length"])
        while len(self._received) < length:
            self._more()
        body, self._received = self._received[:length], self._received[length:]
        version, status, _ = head[0].split(" ", 2)
        assert version == "HTTP/1.1"
        return Reply(int(status), headers, body)

    def rest(self) -> bytes:
        """Read up to the end of the connection."""
        while chunk := self.sock.recv(65536):
            self._received += chunk
        return self._received

    def is_ended(self) -> bool:
        """Wait for the end of the connection; False if something else comes."""
        try:
            return bool(self.sock.recv(1) == b"")
        except ConnectionError:
            return True

    def ask(self, target: str, *headers: str, method: str = "GET") -> Reply:
        """Send a request and read the response."""
        own = () if any(line.startswith("Host:") for line in headers) else ("Host: 127.0.0.1:8888",)
        lines = [f"{method} {target} HTTP/1.1", *own, *headers, "", ""]
        self.send("\r\n".join(lines).encode("latin-1"))
        return self.reply(bodiless=method == "HEAD")

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._received:
            self._more()
        head, _, self._received = self._received.partition(mark)
        return head + mark

    def _more(self) -> None:
        chunk = self.sock.recv(65536)
        assert chunk, f"the connection ended after {self._received!r}"
        self._received += chunk


class House:
    """A tracker with fixed chance, served on a port of its own; `ticked` is set at each tick."""

    def __init__(
        self,
        crew: Crew,
        *,
        limits: HttpLimits | None = None,
        store: PeerStore | None = None,
        on_request: OnRequest | None = None,
        application: Callable[..., Any] | None = None,
        names: dict[bytes, str] | None = None,
        **settings: Any,
    ) -> None:
        self.now = 1000.0
        chosen = TrackerSettings(**settings)
        store = store or MemoryStore(fixed_chance())
        self.names = names = {} if names is None else names
        self.service = TrackerService(chosen, store, OpenAdmission())
        self.answerer = Answerer(chosen, self.service, lambda: self.now, on_request)
        sources, census = self.answerer.sources, Census(store, lambda: self.now)
        self.pages = Pages(
            self.service, census, sources, StoreBounds(), readers=chosen.pages, name_of=names.get
        )
        self.app = create_app(self.answerer, self.pages)
        self.ticked = Event()
        self.http = HttpServer(
            self.answerer,
            application or self.app,
            crew=crew.child("tracker"),
            limits=limits or HttpLimits(),
            on_tick=self.ticked.set,
        )
        self.pages.figures = self.http.figures

    def __enter__(self) -> House:
        self.http.start(listen("127.0.0.1:0"))
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close(2.0)

    def talk(self) -> Talker:
        """Return a new connection."""
        return Talker(self.http.port)

    def tick(self) -> None:
        """Wait for the next tick."""
        self.ticked.clear()
        assert self.ticked.wait(PATIENCE_S)


def announce(peer: str, event: str = "started", *, port: int = 1111, more: str = "") -> str:
    """The target of an announce in the MicroTorr dialect."""
    return f"/announce?info_hash={SWARM_HEX}&peer_id={peer:x<20}&port={port}&event={event}{more}"


def at_once(work: Callable[[int], object], count: int) -> None:
    """Do this work in so many greenlets, all at once; raises what one of them raises."""
    greenlets = [gevent.spawn(work, number) for number in range(count)]
    try:
        gevent.joinall(greenlets, timeout=PATIENCE_S, raise_error=True)
        assert all(greenlet.ready() for greenlet in greenlets)
    finally:
        gevent.killall(greenlets)
