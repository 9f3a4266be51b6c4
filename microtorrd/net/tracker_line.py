"""Open lines to trackers that are asked again and again: the plainest of HTTP/1.1, without a library.

An exchange by requests costs three quarters of a millisecond of CPU, and thousands of keep-alives come to a
large part of a core. So who has answered so many in a row in the plainest form, by plain HTTP, gets a line,
on which one costs a tenth of that. Rules:
- keep-alives only: their replies are short, and one that is said twice does no harm;
- requests has the last word. Whatever is not as plain as before (no connection, a redirect, chunks, anything
  packed, without its length or too long) ends the line, and the same is asked by requests, which knows what
  is wrong or is content with it;
- a connection that was kept open and is closed just then is replaced once; one on which something came that
  nobody asked for is given up, or each reply from then on would be taken for that to the next request;
- waits are bounded as they are there.
"""

from __future__ import annotations

import select
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from gevent import monkey, socket

from microtorrd.errors import ProtocolError, TrackerUnreachable
from microtorrd.proto.http_head import ReplyHead, head_length, parse_head

#: So many plain replies in a row show that the next one will be plain.
PLAIN_AFTER = 16

_READ_BYTES = 16 << 10
#: Trackers remembered for how they answer.
_MOST_KNOWN = 512
_BUSY = frozenset({429, 503})

#: The kernel's own, which can be asked without waiting.
_Poll: Any = monkey.get_original("select", "poll")


class Far(NamedTuple):
    """The other end of a line: where, and from which of our addresses (None: any)."""

    host: str  # numeric
    port: int
    source: str | None


class LineReply(NamedTuple):
    """What came back."""

    status: int
    body: bytes
    retry_after_s: float | None


class _Line:
    """What is known of one end, and the connections to it that nobody uses at the moment."""

    __slots__ = ("idle", "plain")

    def __init__(self) -> None:
        self.plain = 0  # replies in a row that were
        self.idle: list[Any] = []

    def hang_up(self) -> None:
        while self.idle:
            self.idle.pop().close()


class _Cut(Exception):
    """The other side closed the connection before it said anything."""


class Lines:
    """All lines of the session."""

    def __init__(self, *, connect_s: float, read_s: float, reply_bytes: int, connections: int) -> None:
        """Seconds for a connection and between two reads; bytes of a reply; idle connections to one end."""
        self._connect_s = connect_s
        self._read_s = read_s
        self._reply_bytes = reply_bytes
        self._connections = connections
        self._lines: dict[Far, _Line] = {}

    def heard(self, far: Far, *, is_plain: bool) -> None:
        """It answered a keep-alive by requests; `is_plain`: see `is_plain`."""
        line = self._lines.get(far)
        if line is None:
            if len(self._lines) >= _MOST_KNOWN:
                self._lines.pop(next(iter(self._lines))).hang_up()
            line = self._lines[far] = _Line()
        line.plain = line.plain + 1 if is_plain else 0

    def ask(self, far: Far, request: bytes) -> LineReply | None:
        """Send a request and return the reply; None where there is no line (any more): ask by requests.

        Raises TrackerUnreachable where a connection or an answer takes too long.
        """
        line = self._lines.get(far)
        if line is None or line.plain < PLAIN_AFTER:
            return None
        try:
            while line.idle:
                sock = line.idle.pop()
                if not _is_quiet(sock):
                    sock.close()
                    continue
                try:
                    return self._exchange(line, sock, request)
                except _Cut:
                    line.hang_up()  # those that are left are as old
            return self._exchange(line, self._connect(far), request)
        except TimeoutError:
            raise TrackerUnreachable(f"no answer within {self._read_s:g} s") from None
        except (OSError, ProtocolError, _Cut):
            line.plain = 0
            line.hang_up()
            return None

    def close_idle(self) -> None:
        """Close the connections that nobody uses at the moment."""
        for line in self._lines.values():
            line.hang_up()

    def _connect(self, far: Far) -> Any:
        source = None if far.source is None else (far.source, 0)
        try:
            sock = socket.create_connection((far.host, far.port), self._connect_s, source)
        except TimeoutError:
            raise TrackerUnreachable(f"no connection within {self._connect_s:g} s") from None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(self._read_s)
        return sock

    def _exchange(self, line: _Line, sock: Any, request: bytes) -> LineReply:
        stays = False
        try:
            try:
                sock.sendall(request)
                raw = sock.recv(_READ_BYTES)
            except (ConnectionResetError, BrokenPipeError) as error:
                raise _Cut from error
            if not raw:
                raise _Cut
            head, body = self._read(sock, raw)
            stays = head.stays_open and len(line.idle) < self._connections
        finally:
            if not stays:
                sock.close()
        if stays:
            line.idle.append(sock)
        return LineReply(head.status, body, head.retry_after_s if head.status in _BUSY else None)

    def _read(self, sock: Any, raw: bytes) -> tuple[ReplyHead, bytes]:
        """The reply that began with `raw` (attacker-controlled). ProtocolError if it is not plain."""
        while (start := head_length(raw)) is None:
            raw += self._more(sock)
        head = _parsed(raw[:start])
        if not is_plain(head.status, head.fields, is_1_1=head.is_1_1):
            raise ProtocolError("the reply is not plain")
        end = start + (head.content_length or 0)
        if end - start > self._reply_bytes:
            raise ProtocolError("the reply is too long")
        while len(raw) < end:
            raw += self._more(sock)
        if len(raw) > end:
            raise ProtocolError("more than a reply came")
        return head, raw[start:]

    def _more(self, sock: Any) -> bytes:
        more: bytes = sock.recv(_READ_BYTES)
        if not more:
            raise ProtocolError("the reply broke off")
        return more


def _is_quiet(sock: Any) -> bool:
    """Whether nothing came on a connection that nobody used: no end, and nothing that was not asked for."""
    poll = _Poll()
    poll.register(sock.fileno(), select.POLLIN)
    return not poll.poll(0)


def is_plain(status: int, fields: Mapping[str, str], *, is_1_1: bool) -> bool:
    """Whether a reply is of the plainest form: HTTP/1.1, its length said, nothing packed, no way elsewhere.

    `fields` are found by their names in lower case.
    """
    return (
        is_1_1
        and status >= 200
        and status != 204  # which has no body, whatever its head says
        and not 300 <= status < 400
        and fields.get("content-length", "").isdigit()
        and "transfer-encoding" not in fields
        and fields.get("content-encoding", "identity") == "identity"
        and "close" not in fields.get("connection", "").lower()
    )


# Heads differ by their date, once a second.
_parsed = lru_cache(maxsize=16)(parse_head)
