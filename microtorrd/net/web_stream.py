"""A connection to a web server, read without waiting into memory that the caller lends; `web_tls.py` has the
kind with TLS. Everything that goes wrong in either is a WebSeedError.
"""

from __future__ import annotations

import os
import socket as plain_socket
from collections.abc import Sequence
from time import monotonic

from microtorrd.errors import WebSeedError
from microtorrd.net.stream import TcpStream

#: For a connection, TLS included; and for a server to take a request.
CONNECT_S = 10.0


class WebStream:
    """A connected socket."""

    def __init__(self, sock: plain_socket.socket) -> None:
        self.requests = 0  # so far
        self._tcp = TcpStream(sock)

    def send(self, raw: bytes) -> None:
        """Send all of it."""
        self.requests += 1
        self._send_raw(raw, monotonic() + CONNECT_S)

    def read(self, buffers: Sequence[memoryview]) -> int | None:
        """Read what is there: how many bytes, 0 at the end, None when nothing has come. OSError as it is."""
        return self._tcp.read(buffers)

    def wait(self, timeout_s: float) -> bool:
        """Return when a read may not say None; False when that took too long."""
        return self._tcp.wait_readable_for(max(0.0, timeout_s))

    def give_turn(self, timeout_s: float) -> None:
        """Let others do something before the next read, for which more is to come."""
        self.wait(timeout_s)

    def close(self) -> None:
        """Give the descriptor back. Whoever waits must have been ended before."""
        self._tcp.close()

    def _send_raw(self, raw: bytes, deadline: float) -> None:
        view = memoryview(raw)
        while view:
            n = self._tcp.write([view])
            if n is not None:
                view = view[n:]
            elif not self._tcp.wait_writable(max(0.0, deadline - monotonic())):
                raise WebSeedError(f"it took no request within {CONNECT_S:g} s")


def why(error: OSError) -> str:
    """What went wrong, for people."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
