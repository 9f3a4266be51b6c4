"""The tracker's HTTP server: announces and scrapes at once, everything else through a WSGI application.

It exists because of what a framework costs on a request of 300 bytes. An announce is answered in the loop's
own callback, with one receive and one send, Nagle's algorithm off (else each answer waits for the
acknowledgement of the one before): there is no greenlet to switch to, since nothing here waits. What may wait
(the application, a store that lies elsewhere, a client that does not take its answer) gets a greenlet of the
crew. Equal blocks of headers are read once. Requests may come pipelined; answers go out together.

Bounds, because anybody may connect: 8 KiB a head, so long for a head, for an answer to be taken and for
idling (`HttpLimits`), and so many connections: over that, the one that has idled longest makes room.

A client is `working` while a greenlet has it; only that greenlet closes it then, and its watcher rests.
"""

from __future__ import annotations

import errno
import socket as constants
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from itertools import chain
from math import inf
from typing import Any, Literal
from wsgiref.types import WSGIApplication

import gevent
from gevent.monkey import get_original
from gevent.socket import wait_read, wait_write

from microtorrd import logs
from microtorrd.greenlets import Crew
from microtorrd.tracker import wsgi
from microtorrd.tracker.answer import TEXT, Answer, Answerer, Origin
from microtorrd.tracker.head import (
    MAX_HEAD_BYTES,
    Headers,
    Refusal,
    RequestLine,
    read_headers,
    read_request_line,
)
from microtorrd.tracker.metrics import ServerFigures
from microtorrd.tracker.passkeys import split_path

#: A connection, without what the standard library and gevent put around it: that costs 5 µs a connection,
#: and these never wait in a call. (Each call says so: sockets are born blocking.)
_Socket = get_original("socket", "SocketType")
_AT_ONCE = constants.MSG_DONTWAIT

_RECEIVE_BYTES = 16384
#: Connections accepted in one go, before others get their turn.
_ACCEPTED_AT_ONCE = 64
#: Blocks of headers kept as they were read. Clients of one kind send equal ones.
_KNOWN_HEADERS = 256
#: After a request that was not read whole, how much more is read and thrown away, and for how long.
_LINGER_BYTES = 256 << 10
_LINGER_S = 2.0

#: What is answered here; everything else is the application's.
_HOT = (b"/announce", b"/scrape")

_READABLE = 1  # to libev

_REASONS = {
    200: "OK",
    400: "Bad Request",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}

_FULL = Answer(503, TEXT, b"too many connections\n")

#: Out of descriptors or memory: not the listening socket's fault, and over when somebody leaves.
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

#: What happens to a connection after an answer.
After = Literal["go_on", "close", "linger"]


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How much of the server one client can have. Times in seconds."""

    connections: int = 1000
    head_s: float = 10.0  # from the first byte of a request to the last of its head
    idle_s: float = 60.0  # between two requests, and before the first
    send_s: float = 20.0  # for an answer to be taken
    tick_s: float = 1.0  # how exactly these times are kept


class _Client:
    """A connection."""

    __slots__ = (
        "address",
        "deadline",
        "headers",
        "in_head",
        "origin",
        "received",
        "sock",
        "watcher",
        "working",
    )

    def __init__(self, sock: Any, address: tuple[str, int]) -> None:
        self.sock = sock
        self.address = address
        self.watcher: Any = None  # made when it has to wait: most have sent their request when they come
        self.received = b""  # of a request that is not whole
        self.deadline = 0.0  # when it is cut off, by time.monotonic
        self.in_head = False  # the deadline is that of a head
        self.working = False
        self.origin = Origin(address[0], False, "")
        self.headers: Headers | None = None  # that `origin` was made of


class HttpServer:
    """Serves an Answerer, and the application for what that does not know, on one listening socket.

    `on_tick` is called every `limits.tick_s`, in a greenlet. Where the answerer waits it may wait, too: it
    has one of its own then, and is not called again before it is done.
    """

    def __init__(
        self,
        answerer: Answerer,
        application: WSGIApplication,
        *,
        crew: Crew,
        limits: HttpLimits,
        on_tick: Callable[[], None],
    ) -> None:
        self._answerer = answerer
        self._application = application
        self._crew = crew
        self._limits = limits
        self._on_tick = on_tick
        self._waits = answerer.waits
        self._ticked: gevent.Greenlet | None = None  # that does what is done at a tick
        self._log = logs.get(room="tracker")
        self._loop: Any = None
        self._listener: Any = None
        self._family = 0
        self._door: Any = None  # the watcher of the listening socket
        self._address: tuple[str, int] = ("", 0)
        self._clients: set[_Client] = set()
        self._idle: dict[_Client, None] = {}  # who waits for a request, the one that waits longest first
        self._headers: dict[bytes, Headers] = {}
        self._accepted = 0
        self._turned_away = 0
        self._received_bytes = 0
        self._sent_bytes = 0
        self._date = ""
        self._heads: dict[tuple[int, str, str], bytes] = {}

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._address[1]

    def figures(self) -> ServerFigures:
        """Return what has been counted."""
        return ServerFigures(
            connections=len(self._clients),
            accepted=self._accepted,
            turned_away=self._turned_away,
            received_bytes=self._received_bytes,
            sent_bytes=self._sent_bytes,
        )

    def start(self, listener: Any) -> None:
        """Serve on this socket (`tracker.listening`), which is ours from now on."""
        self._listener = listener
        self._family = int(self._listener.family)
        self._address = self._listener.getsockname()[:2]
        self._set_date()
        self._loop = gevent.get_hub().loop
        self._door = self._loop.io(self._listener.fileno(), _READABLE)
        self._door.start(self._on_connection)
        self._crew.spawn("ticks", self._tick)

    def close(self, timeout_s: float) -> None:
        """Stop listening and end every connection. Idempotent."""
        if self._listener is not None:
            self._door.stop()
            self._door.close()
            self._listener.close()
            self._listener = None
        for client in list(self._clients):
            self._cut_off(client)
        self._crew.stop(timeout_s)
        for client in list(self._clients):  # whose greenlet was stopped before it began
            self._close(client)

    # ------------------------------------------------------------------------------- in the loop's callbacks

    def _on_connection(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                fd, address = self._listener._accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._log.warning("tracker_out_of_descriptors", connections=len(self._clients))
                    self._door.stop()  # until the next tick
                    return
                continue  # it was gone before we took it
            sock = _Socket(self._family, constants.SOCK_STREAM, 0, fd)
            client = _Client(sock, (address[0], address[1]))
            self._accepted += 1
            has_room = len(self._clients) < self._limits.connections or self._make_room()
            self._clients.add(client)
            if has_room:
                self._on_readable(client)
            else:
                self._turned_away += 1
                # Without lingering: who is turned away must not stay for two seconds.
                self._send(client, [self._render(_FULL, "close")], "close")

    def _make_room(self) -> bool:
        longest = next(iter(self._idle), None)
        if longest is not None:
            self._close(longest)
        return longest is not None

    def _on_readable(self, client: _Client) -> None:
        try:
            chunk = client.sock.recv(_RECEIVE_BYTES, _AT_ONCE)
        except BlockingIOError:
            self._wait(client)
        except OSError as error:
            self._lose(client, error)
        else:
            if chunk:
                self._received_bytes += len(chunk)
                client.received += chunk
                self._proceed(client)
            else:
                self._close(client)

    def _proceed(self, client: _Client) -> None:
        """Answer all requests that are whole; then the client waits for more, has a greenlet, or ends."""
        raw, start = client.received, 0
        answers: list[bytes] = []
        while (end := raw.find(b"\r\n\r\n", start, start + MAX_HEAD_BYTES)) >= 0:
            client.in_head = False
            line_end = raw.find(b"\r\n", start, end + 2)
            line = read_request_line(raw, start, line_end)
            headers = self._read_headers(raw[line_end + 2 : end])
            start = end + 4
            if isinstance(line, Refusal):
                self._refuse(client, answers, line)
                return
            if isinstance(headers, Refusal):
                self._refuse(client, answers, headers)
                return
            if line.minor and not headers.has_host:
                self._refuse(client, answers, Refusal(400, "host is missing"))
                return
            if headers is not client.headers:
                client.headers = headers
                client.origin = Origin(client.address[0], headers.accepts_json, headers.forwarded_for)
            goes_on = not (headers.closes or headers.has_body) and (line.minor == 1 or headers.keeps_alive)
            path, passkey = line.path, None
            is_hot = path in _HOT
            if not is_hot and self._answerer.takes_passkeys:
                path, passkey = split_path(path)
                is_hot = passkey is not None
            if line.method != b"GET" or not is_hot:
                client.received = raw[start:]
                self._pass_on(client, answers, line, headers, goes_on=goes_on)
                return
            serve = self._answerer.announce if path == b"/announce" else self._answerer.scrape
            connection = "close" if not goes_on else "" if line.minor else "keep-alive"
            after: After = (
                "go_on" if goes_on else "linger" if headers.has_body or start < len(raw) else "close"
            )
            if self._waits:
                client.received = raw[start:]
                later = self._answered(partial(serve, line.query, client.origin, passkey), connection)
                self._hand_over(client, chain(answers, later), after)
                return
            answers.append(self._render(serve(line.query, client.origin, passkey), connection))
            if not goes_on:
                self._send(client, answers, after)
                return
        if len(raw) - start >= MAX_HEAD_BYTES:
            self._refuse(client, answers, Refusal(431, f"a head has {MAX_HEAD_BYTES} bytes at most"))
            return
        client.received = raw[start:]
        if answers:
            self._send(client, answers, "go_on")
        else:
            self._wait(client)

    def _read_headers(self, block: bytes) -> Headers | Refusal:
        known = self._headers.get(block)
        if known is not None:
            return known
        headers = read_headers(block)
        if isinstance(headers, Headers):
            if len(self._headers) >= _KNOWN_HEADERS:
                self._headers.clear()
            self._headers[block] = headers
        return headers

    def _answered(self, serve: Callable[[], Answer], connection: str) -> Iterator[bytes]:
        """The answer, made when somebody asks for it: in a greenlet, which may wait."""
        yield self._render(serve(), connection)

    def _pass_on(
        self, client: _Client, before: list[bytes], line: RequestLine, headers: Headers, *, goes_on: bool
    ) -> None:
        """Let the application answer, in a greenlet. HTTP/1.0 has no chunks: it gets one such answer only."""
        goes_on = goes_on and line.minor == 1
        environ = wsgi.make_environ(line, headers, client=client.address, server=self._address)
        parts = wsgi.answer(self._application, environ, date=self._date, keep_alive=goes_on)
        after: After = "go_on" if goes_on else "linger" if headers.has_body else "close"
        self._hand_over(client, chain(before, parts), after)

    def _refuse(self, client: _Client, before: list[bytes], refusal: Refusal) -> None:
        """Answer what came before and the refusal, after which the connection ends."""
        answer = Answer(refusal.status, TEXT, refusal.reason.encode() + b"\n")
        self._send(client, [*before, self._render(answer, "close")], "linger")

    def _render(self, answer: Answer, connection: str) -> bytes:
        """Return the answer as it goes over the wire. Heads are made once a second: they have the date."""
        status, content_type, body = answer
        head = self._heads.get((status, content_type, connection))
        if head is None:
            lines = [f"HTTP/1.1 {status} {_REASONS[status]}"]
            if content_type:
                lines.append(f"Content-Type: {content_type}")
            lines.append(f"Date: {self._date}")
            if connection:
                lines.append(f"Connection: {connection}")
            head = ("\r\n".join(lines) + "\r\nContent-Length: ").encode("ascii")
            self._heads[status, content_type, connection] = head
        return b"%b%d\r\n\r\n%b" % (head, len(body), body)

    def _send(self, client: _Client, answers: list[bytes], after: After) -> None:
        """Send at once, or let a greenlet do what the socket does not take."""
        data = answers[0] if len(answers) == 1 else b"".join(answers)
        try:
            sent = client.sock.send(data, _AT_ONCE)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose(client, error)
            return
        self._sent_bytes += sent
        if sent < len(data) or after == "linger":
            self._hand_over(client, (data[sent:],), after)
        elif after == "go_on":
            self._wait(client)
        else:
            self._close(client)

    def _wait(self, client: _Client) -> None:
        """Wait for a request, or for more of one."""
        if not client.received:
            client.deadline = time.monotonic() + self._limits.idle_s
            # Behind all the others.
            self._idle.pop(client, None)
            self._idle[client] = None
        elif not client.in_head:
            # One byte now and then gains no time: it counts from the first byte of a head.
            client.in_head = True
            client.deadline = time.monotonic() + self._limits.head_s
            self._idle.pop(client, None)
        if client.watcher is None:
            client.watcher = self._loop.io(client.sock.fileno(), _READABLE)
        if not client.watcher.active:
            client.watcher.start(self._on_readable, client)

    def _lose(self, client: _Client, error: OSError) -> None:
        self._log.debug("tracker_client_lost", host=client.address[0], error=str(error))
        self._close(client)

    def _close(self, client: _Client) -> None:
        self._clients.discard(client)
        self._idle.pop(client, None)
        if client.watcher is not None:
            client.watcher.stop()
            client.watcher.close()
        client.sock.close()

    def _cut_off(self, client: _Client) -> None:
        """End a connection. One that a greenlet has is shut down, which wakes that greenlet."""
        if not client.working:
            self._close(client)
            return
        try:
            client.sock.shutdown(constants.SHUT_RDWR)
        except OSError as error:
            self._log.debug("tracker_client_lost", host=client.address[0], error=str(error))

    # ------------------------------------------------------------------------------------------ in greenlets

    def _hand_over(self, client: _Client, parts: Iterable[bytes], after: After) -> None:
        client.working = True
        client.deadline = inf
        if client.watcher is not None:
            client.watcher.stop()
        self._idle.pop(client, None)
        self._crew.spawn("client", self._work, client, parts, after)

    def _work(self, client: _Client, parts: Iterable[bytes], after: After) -> None:
        """Send what can take a while, and what comes after it."""
        goes_on = False
        try:
            for part in parts:
                self._send_whole(client, part)
            if after == "linger":
                self._linger(client)
            goes_on = after == "go_on"
        except OSError as error:
            self._log.debug("tracker_client_lost", host=client.address[0], error=str(error))
        finally:
            client.working = False
            if not goes_on:
                self._close(client)
        if goes_on:
            self._proceed(client)

    def _send_whole(self, client: _Client, data: bytes) -> None:
        client.deadline = time.monotonic() + self._limits.send_s
        view = memoryview(data)
        while view:
            try:
                sent = client.sock.send(view, _AT_ONCE)
                self._sent_bytes += sent
                view = view[sent:]
            except BlockingIOError:
                wait_write(client.sock.fileno())
        client.deadline = inf  # how long the application takes for more is not the client's fault

    def _linger(self, client: _Client) -> None:
        """Let the client read its answer before the connection goes: bytes left unread would reset it."""
        client.sock.shutdown(constants.SHUT_WR)
        client.deadline = time.monotonic() + _LINGER_S
        left = _LINGER_BYTES
        while left > 0:
            try:
                chunk = client.sock.recv(_RECEIVE_BYTES, _AT_ONCE)
            except BlockingIOError:
                wait_read(client.sock.fileno())
            else:
                if not chunk:
                    return
                left -= len(chunk)

    def _tick(self) -> None:
        while True:
            gevent.sleep(self._limits.tick_s)
            self._set_date()
            now = time.monotonic()
            for client in list(self._clients):
                if client.deadline <= now:
                    self._cut_off(client)
            if self._listener is not None and not self._door.active:
                self._door.start(self._on_connection)
            if not self._waits:
                self._on_tick()
            elif self._ticked is None or self._ticked.dead:
                self._ticked = self._crew.spawn("tick", self._on_tick)

    def _set_date(self) -> None:
        self._date = formatdate(usegmt=True)
        self._heads.clear()
