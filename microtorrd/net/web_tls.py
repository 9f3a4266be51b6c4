"""A connection to a web server with TLS.

It stands on memory instead of on the socket, so that both kinds wait on nothing but a plain socket, and the
memory of who reads is never held through a wait.
"""

from __future__ import annotations

import socket as plain_socket
import ssl
from collections.abc import Sequence
from functools import cache
from time import monotonic

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from microtorrd.errors import WebSeedError
from microtorrd.greenlets import breathe
from microtorrd.net.web_stream import CONNECT_S, WebStream

#: What is read at a time: TLS records have 16 KiB.
TLS_READ_BYTES = 1 << 18


class TlsStream(WebStream):
    """TLS over a connected socket. `bundle`: the path of trusted certificates; None for those that trackers
    are trusted by."""

    def __init__(self, sock: plain_socket.socket, host: str, bundle: str | None) -> None:
        super().__init__(sock)
        context = _context(bundle or str(DEFAULT_CA_BUNDLE_PATH))
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._raw = memoryview(bytearray(TLS_READ_BYTES))
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    def shake_hands(self, deadline: float) -> None:
        """Agree on TLS."""
        while True:
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
                raise WebSeedError(f"TLS failed: {_reason(error)}") from error
            else:
                self._flush(deadline)
                return

    def send(self, raw: bytes) -> None:
        """Send all of it."""
        self.requests += 1
        self._tls.write(raw)
        self._flush(monotonic() + CONNECT_S)

    def read(self, buffers: Sequence[memoryview]) -> int | None:
        """As without TLS."""
        # As much as there is: to lend buffers costs more than to fill them, and records do not end where
        # buffers do.
        got = 0
        for buffer in buffers:
            rest = buffer
            while rest:
                n = self._read_some(rest)
                if not n:
                    return got or n
                got += n
                rest = rest[n:]
        return got

    def give_turn(self, timeout_s: float) -> None:
        """As without TLS."""
        if self._tls.pending() or self._incoming.pending:
            breathe()
        else:
            self.wait(timeout_s)

    def _read_some(self, buffer: memoryview) -> int | None:
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
                raise WebSeedError(f"TLS failed: {_reason(error)}") from error

    def _fill(self) -> int | None:
        n = self._tcp.read([self._raw])
        if n:
            self._incoming.write(self._raw[:n])
        return n

    def _flush(self, deadline: float) -> None:
        raw = self._outgoing.read()
        if raw:
            self._send_raw(raw, deadline)


@cache
def _context(bundle: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=bundle)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _reason(error: ssl.SSLError) -> str:
    message = getattr(error, "verify_message", "") or error.reason or "no reason given"
    return str(message).lower().replace("_", " ")
