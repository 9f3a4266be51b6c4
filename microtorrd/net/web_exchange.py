"""Asking a web server for ranges of files: requests, redirects, connections that are kept open.

Rules:
- a reply is refused before its body is read unless it can be nothing but the bytes that were asked for; what
  they are worth is for the hash of the piece to say;
- redirects are followed as those of trackers are: five, to http and https only, from https to https only, and
  never to a host nearer to us than the first one was. Where a file moved to is remembered;
- every wait has an end, so a server that hangs is a WebSeedError like everything else that is wrong here;
- a password in the URL goes to the host of that URL and nowhere else, and is not shown to anybody.

An instance belongs to one greenlet.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from microtorrd import __version__
from microtorrd.core.tiers import DEFAULT_PORTS, Place, place_of
from microtorrd.errors import ProtocolError, TrackerError, WebSeedError
from microtorrd.net.redirects import next_hop
from microtorrd.net.routes import Scope
from microtorrd.net.web_connector import WebConnector
from microtorrd.net.web_stream import WebStream, why
from microtorrd.proto.http_head import ReplyHead, head_length, parse_head, request_head
from microtorrd.proto.web_files import WebSpan

USER_AGENT = f"microtorrd/{__version__}"

#: A server that is silent for this long hangs.
SILENCE_S = 20.0

REDIRECTS_MAX = 5

#: Servers that connections are kept open to: the seed itself, and where it redirects to.
STREAMS_MAX = 3

#: Files whose new place is remembered.
MOVED_MAX = 256

#: A server that does not know ranges sends the whole file. For one up to this size what comes before the
#: range is read and thrown away; more of that would be a waste of everybody's bandwidth.
WHOLE_FILE_BYTES = 8 << 20

#: Bodies of no interest up to this are read, so that the connection can be used again.
DISCARD_BYTES = 65536

#: How long to leave a server alone that has not got the file, or not for us; or that will not serve ranges.
GONE_S = 3600.0
WRONG_S = 1800.0

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Body:
    """The bytes that were asked for, about to come. `read` as of `WebStream`, and never beyond their end."""

    __slots__ = ("_early", "_left", "_stays_open", "_stream")

    def __init__(self, stream: WebStream, early: memoryview, left: int, *, stays_open: bool) -> None:
        self._stream = stream
        self._early = early  # what was read with the head
        self._left = left
        self._stays_open = stays_open

    @property
    def is_spent(self) -> bool:
        """Everything was read, and the connection is as good as before."""
        return not self._left and not self._early and self._stays_open

    @property
    def stream(self) -> WebStream:
        """The connection it comes through."""
        return self._stream

    def read(self, buffers: Sequence[memoryview]) -> int:
        """Fill the buffers, which have room for no more than is to come, with what there is. Waits only
        where there is nothing, and then returns 0: ask for buffers again. WebSeedError at an early end."""
        if self._early:
            n = 0
            for buffer in buffers:
                step = min(len(buffer), len(self._early))
                buffer[:step] = self._early[:step]
                self._early = self._early[step:]
                n += step
        else:
            try:
                got = self._stream.read(buffers)
            except OSError as error:
                raise WebSeedError(why(error)) from error
            if got is None:
                if not self._stream.wait(SILENCE_S):
                    raise WebSeedError(f"it sent nothing for {SILENCE_S:g} s")
                return 0
            if got == 0:
                raise WebSeedError(f"it closed the connection {self._left} bytes too early")
            n = got
        self._left -= n
        return n

    def skip(self, n: int, scrap: memoryview) -> None:
        """Throw away the next `n` bytes."""
        while n:
            n -= self.read([scrap[:n]])


class WebExchange:
    """The requests of one web seed's connection."""

    def __init__(self, url: str, connector: WebConnector, scrap: memoryview) -> None:
        self._url = url
        self._connector = connector
        self._scrap = scrap
        self._origin: Scope | None = None
        self._streams: dict[tuple[str, str, int], WebStream] = {}  # by scheme, host, port; oldest first
        self._moved: dict[str, str] = {}

    def connect(self) -> None:
        """Connect to the server. Waits. Raises WebSeedError."""
        self._stream(_place(self._url))

    def get(self, span: WebSpan) -> Body:
        """Ask for this part of a file. Waits. Raises WebSeedError where it will not come."""
        moved = self._moved.get(span.url)
        if moved is not None:
            try:
                return self._follow(span, moved)
            except WebSeedError:
                # It may have moved for a while only: links into object stores expire.
                del self._moved[span.url]
        return self._follow(span, span.url)

    def done(self, body: Body) -> None:
        """No more is read of it: keep the connection, or close it."""
        if not body.is_spent:
            self._drop(body.stream)

    def close(self) -> None:
        """Close all connections. Nobody may be waiting for one."""
        while self._streams:
            self._streams.popitem()[1].close()

    def _follow(self, span: WebSpan, url: str) -> Body:
        for _ in range(REDIRECTS_MAX + 1):
            stream, head, early = self._exchange(url, span)
            location = head.fields.get("location")
            if head.status not in _REDIRECTS or not location:
                if url != span.url:
                    if len(self._moved) >= MOVED_MAX:
                        del self._moved[next(iter(self._moved))]
                    self._moved[span.url] = url
                return self._admit(stream, head, early, span)
            self._discard(stream, head, early)
            try:
                url = next_hop(url, location)
            except TrackerError as error:
                raise WebSeedError(str(error), rest_s=WRONG_S) from error
        raise WebSeedError(f"more than {REDIRECTS_MAX} redirects", rest_s=WRONG_S)

    def _exchange(self, url: str, span: WebSpan) -> tuple[WebStream, ReplyHead, bytearray]:
        """One request and the head of its reply, with what came of the body."""
        place = _place(url)
        parts = urlsplit(url)
        target = parts.path or "/"
        target = f"{target}?{parts.query}" if parts.query else target
        is_home = place == _place(self._url)
        try:
            raw = request_head(
                target,
                host=_host_field(place),
                first=span.begin,
                end=span.begin + span.length,
                agent=USER_AGENT,
                authorization=_authorization(url) or (_authorization(self._url) if is_home else ""),
            )
        except UnicodeError as error:
            raise WebSeedError("a URL that cannot be asked for", rest_s=GONE_S) from error
        while True:
            stream = self._stream(place)
            is_used = stream.requests > 0
            heard = bytearray()
            try:
                stream.send(raw)
                return stream, self._head(stream, heard), heard
            except (OSError, WebSeedError) as error:
                self._drop(stream)
                # A connection kept open may have been closed by the other side just when we used it again.
                if is_used and not heard and not isinstance(error, _Silent):
                    continue
                if isinstance(error, OSError):
                    raise WebSeedError(why(error)) from error
                raise
            except ProtocolError as error:
                self._drop(stream)
                raise WebSeedError(str(error), rest_s=WRONG_S) from error

    def _head(self, stream: WebStream, heard: bytearray) -> ReplyHead:
        """The head of the reply; what came after it stays in `heard`."""
        while True:
            end = head_length(heard) if heard else None
            if end is not None:
                head = parse_head(bytes(heard[:end]))
                del heard[:end]
                if head.status >= 200:
                    return head
                continue
            # Little at a time: what is read beyond the head has to be copied.
            n = stream.read([self._scrap[:4096]])
            if n is None:
                if not stream.wait(SILENCE_S):
                    raise _Silent(f"no answer within {SILENCE_S:g} s")
            elif n == 0:
                raise WebSeedError("it closed the connection without an answer")
            else:
                heard += self._scrap[:n]

    def _admit(self, stream: WebStream, head: ReplyHead, early: bytearray, span: WebSpan) -> Body:
        """The body, if it is what was asked for."""
        try:
            skip, length = _judge(head, span)
        except WebSeedError:
            self._discard(stream, head, early)
            raise
        body = Body(
            stream,
            memoryview(bytes(early[:length])),
            length,
            stays_open=head.stays_open and len(early) <= length,
        )
        if skip:
            body.skip(skip, self._scrap)
        return body

    def _discard(self, stream: WebStream, head: ReplyHead, early: bytearray) -> None:
        """The body is of no interest."""
        length = head.content_length
        if not head.stays_open or head.is_coded or length is None or length > DISCARD_BYTES:
            self._drop(stream)
            return
        body = Body(stream, memoryview(bytes(early)), length, stays_open=len(early) <= length)
        try:
            body.skip(length, self._scrap)
        except WebSeedError:
            self._drop(stream)
        else:
            self.done(body)

    def _stream(self, place: Place) -> WebStream:
        """A connection to there: the one that is open, or a new one."""
        key = place.scheme, place.host, place.port
        stream = self._streams.get(key)
        if stream is None:
            if self._origin is None:
                self._origin = self._connector.scope(_place(self._url))
            while len(self._streams) >= STREAMS_MAX:
                self._drop(next(iter(self._streams.values())))
            stream = self._streams[key] = self._connector.connect(place, origin=self._origin)
        return stream

    def _drop(self, stream: WebStream) -> None:
        for key, kept in list(self._streams.items()):
            if kept is stream:
                del self._streams[key]
                stream.close()


class _Silent(WebSeedError):
    """The server has taken the request, and says nothing."""


def _judge(head: ReplyHead, span: WebSpan) -> tuple[int, int]:
    """How many bytes come before those asked for, and how many there are in all. WebSeedError: refused."""
    status = head.status
    if status in (404, 410):
        raise WebSeedError(f"it has no such file (status {status})", rest_s=GONE_S)
    if status in (429, 503):
        raise WebSeedError(f"it is busy (status {status})", rest_s=head.retry_after_s or 0.0)
    if status == 416:
        raise WebSeedError("the file there is shorter", rest_s=GONE_S)
    if status not in (200, 206):
        raise WebSeedError(f"it answers with status {status}", rest_s=WRONG_S if status < 500 else 0.0)
    if head.is_coded:
        raise WebSeedError("it sends the file packed or in chunks", rest_s=WRONG_S)
    length = head.content_length
    if status == 206:
        found = head.content_range
        if found is None:
            raise WebSeedError("it does not say which bytes it sends", rest_s=WRONG_S)
        if found.total not in (None, span.file_length):
            raise WebSeedError(
                f"the file there has {found.total} bytes, not {span.file_length}", rest_s=GONE_S
            )
        if (found.first, found.last) != (span.begin, span.begin + span.length - 1) or length not in (
            None,
            span.length,
        ):
            raise WebSeedError("it sends other bytes than those asked for", rest_s=WRONG_S)
        return 0, span.length
    if length is None:
        raise WebSeedError("it knows no ranges, and does not say how much it sends", rest_s=WRONG_S)
    if length != span.file_length:
        raise WebSeedError(
            f"it sends {length} bytes of {head.content_type} in place of the file", rest_s=WRONG_S
        )
    if length > WHOLE_FILE_BYTES and span.length < length:
        raise WebSeedError(f"it knows no ranges, and sends all {length} bytes of the file", rest_s=WRONG_S)
    return span.begin, length


def _place(url: str) -> Place:
    place = place_of(url)
    if place is None or place.scheme not in ("http", "https"):
        raise WebSeedError("not an HTTP address", rest_s=GONE_S)
    return place


def _host_field(place: Place) -> str:
    host = f"[{place.host}]" if ":" in place.host else place.host.encode("idna").decode("ascii")
    return host if place.port == DEFAULT_PORTS[place.scheme] else f"{host}:{place.port}"


def _authorization(url: str) -> str:
    parts = urlsplit(url)
    if parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {b64encode(pair.encode()).decode()}"
