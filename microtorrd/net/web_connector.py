"""Connecting to web servers: names, routes, interface, certificates."""

from __future__ import annotations

import socket as plain_socket
from collections.abc import Sequence
from time import monotonic
from typing import Any

from gevent import socket

from microtorrd import libraries
from microtorrd.core.tiers import Place
from microtorrd.errors import TrackerUnreachable, WebSeedError
from microtorrd.greenlets import breathe
from microtorrd.net.routes import Route, Routes, Scope, is_nearer
from microtorrd.net.stream import tune
from microtorrd.net.web_stream import CONNECT_S, WebStream, why


class WebConnector:
    """One for the whole session."""

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
        sock: Any = socket.socket(socket.AF_INET6 if route.is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
        stream: WebStream | None = None
        is_ready = False
        try:
            tune(sock)
            if route.pinned:
                sock.bind((route.local, 0))
            sock.settimeout(max(0.0, deadline - monotonic()))
            sock.connect((route.remote, place.port))
            stream = self._speak_tls(sock, place, deadline) if place.scheme == "https" else WebStream(sock)
            is_ready = True
        finally:
            if not is_ready:
                (stream or sock).close()
        return stream

    def _speak_tls(self, sock: plain_socket.socket, place: Place, deadline: float) -> WebStream:
        libraries.warm_up(breathe)
        from microtorrd.net.web_tls import TlsStream

        stream = TlsStream(sock, place.host, self._bundle)
        stream.shake_hands(deadline)
        return stream
