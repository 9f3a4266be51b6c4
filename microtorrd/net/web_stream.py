"""A connection to a web server: plain or TLS, read without waiting into memory that the caller lends.

TLS stands on memory instead of on the socket, so that both kinds wait on nothing but a plain socket, and the
memory of who reads is never held through a wait. Everything that goes wrong here is a WebSeedError.
"""

from __future__ import annotations

import os
import socket as plain_socket
import ssl
from collections.abc import Sequence
from functools import cache
from time import monotonic
from typing import Any

import gevent
from gevent import socket
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from microtorrd.core.tiers import Place
from microtorrd.errors import TrackerUnreachable, WebSeedError
from microtorrd.net.routes import Route, Routes, Scope, is_nearer
from microtorrd.net.stream import TcpStream, tune

#: For a connection, TLS included; and for a server to take a request.
CONNECT_S = 10.0

#: What is read of a TLS connection at a time: its records have 16 KiB.
TLS_READ_BYTES = 1 << 18


class WebStream:
    """A connected socket, and TLS over it where `context` is given."""

    def __init__(self, sock: plain_socket.socket, context: ssl.SSLContext | None, host: str) -> None:
        self.requests = 0  # so far
        self._tcp = TcpStream(sock)
        self._tls: ssl.SSLObject | None = None
        if context is not None:
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._raw = memoryview(bytearray(TLS_READ_BYTES))
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    def shake_hands(self, deadline: float) -> None:
        """Agree on TLS, where that is wanted."""
        while self._tls is not None:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush(deadline)
                n = self._fill()
                if n == 0:
                    raise WebSeedError("it closed the connection while TLS was agreed on") from None
                if n is None and not self.wait(deadline - monotonic()):
                    raise WebSeedError(f"no TLS within {CONNECT_S:g} s") from None
            except ssl.SSLError as error:
                raise WebSeedError(f"TLS failed: {_tls_reason(error)}") from error
            else:
                self._flush(deadline)
                return

    def send(self, raw: bytes) -> None:
        """Send all of it."""
        self.requests += 1
        deadline = monotonic() + CONNECT_S
        if self._tls is not None:
            self._tls.write(raw)
            self._flush(deadline)
        else:
            self._send_raw(raw, deadline)

    def read(self, buffers: Sequence[memoryview]) -> int | None:
        """Read what is there: how many bytes, 0 at the end, None when nothing has come. OSError as it is."""
        if self._tls is None:
            return self._tcp.read(buffers)
        # As much as there is: to lend buffers costs more than to fill them, and records do not end where
        # buffers do.
        got = 0
        for buffer in buffers:
            rest = buffer
            while rest:
                n = self._read_tls(rest)
                if not n:
                    return got or n
                got += n
                rest = rest[n:]
        return got

    def wait(self, timeout_s: float) -> bool:
        """Return when a read may not say None; False when that took too long."""
        return self._tcp.wait_readable_for(max(0.0, timeout_s))

    def give_turn(self, timeout_s: float) -> None:
        """Let others do something before the next read, for which more is to come."""
        if self._tls is not None and (self._tls.pending() or self._incoming.pending):
            gevent.sleep(0)
        else:
            self.wait(timeout_s)

    def close(self) -> None:
        """Give the descriptor back. Whoever waits must have been ended before."""
        self._tcp.close()

    def _read_tls(self, buffer: memoryview) -> int | None:
        assert self._tls is not None
        while True:
            try:
                return self._tls.read(len(buffer), buffer)  # type: ignore[return-value]
            except ssl.SSLWantReadError:
                n = self._fill()
                if not n:
                    return n
            except ssl.SSLZeroReturnError:
                return 0
            except ssl.SSLError as error:
                raise WebSeedError(f"TLS failed: {_tls_reason(error)}") from error

    def _fill(self) -> int | None:
        n = self._tcp.read([self._raw])
        if n:
            self._incoming.write(self._raw[:n])
        return n

    def _flush(self, deadline: float) -> None:
        raw = self._outgoing.read()
        if raw:
            self._send_raw(raw, deadline)

    def _send_raw(self, raw: bytes, deadline: float) -> None:
        view = memoryview(raw)
        while view:
            n = self._tcp.write([view])
            if n is not None:
                view = view[n:]
            elif not self._tcp.wait_writable(max(0.0, deadline - monotonic())):
                raise WebSeedError(f"it took no request within {CONNECT_S:g} s")


class WebConnector:
    """Connects to web servers, for the whole session: names, routes, interface, certificates."""

    def __init__(self, routes: Routes, *, bundle: str | None = None) -> None:
        """`bundle`: the path of trusted certificates; None for those that trackers are trusted by."""
        self._routes = routes
        self._bundle = bundle

    def scope(self, place: Place) -> Scope:
        """How far away a server is. Waits. Raises WebSeedError."""
        return self._ways(place)[0].scope

    def connect(self, place: Place, *, origin: Scope) -> WebStream:
        """A new connection. Waits. One to a server nearer than `origin` is refused, see `Scope`."""
        deadline = monotonic() + CONNECT_S
        reason: WebSeedError | None = None
        for route in self._ways(place):
            if is_nearer(route.scope, origin):
                reason = reason or WebSeedError("it redirects to a host of our own network")
                continue
            try:
                return self._connect(route, place, deadline)
            except OSError as error:
                self._routes.forget(place.host, place.port)
                reason = WebSeedError(
                    f"no connection within {CONNECT_S:g} s" if isinstance(error, TimeoutError) else why(error)
                )
        assert reason is not None, "there is at least one way"
        raise reason

    def _ways(self, place: Place) -> Sequence[Route]:
        try:
            return self._routes.find(place.host, place.port)
        except TrackerUnreachable as error:
            raise WebSeedError(str(error)) from error

    def _connect(self, route: Route, place: Place, deadline: float) -> WebStream:
        context = _context(self._bundle or str(DEFAULT_CA_BUNDLE_PATH)) if place.scheme == "https" else None
        sock: Any = socket.socket(socket.AF_INET6 if route.is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
        stream: WebStream | None = None
        is_ready = False
        try:
            tune(sock)
            if route.pinned:
                sock.bind((route.local, 0))
            sock.settimeout(max(0.0, deadline - monotonic()))
            sock.connect((route.remote, place.port))
            stream = WebStream(sock, context, place.host)
            stream.shake_hands(deadline)
            is_ready = True
        finally:
            if not is_ready:
                (stream or sock).close()
        return stream


def why(error: OSError) -> str:
    """What went wrong, for people."""
    return os.strerror(error.errno).lower() if error.errno else str(error)


@cache
def _context(bundle: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=bundle)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _tls_reason(error: ssl.SSLError) -> str:
    message = getattr(error, "verify_message", "") or error.reason or "no reason given"
    return str(message).lower().replace("_", " ")
