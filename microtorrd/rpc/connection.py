"""One client of the control socket: a greenlet that answers its lines, and one that streams notes to it.

Reading waits as long as the client likes. Answers are written whole and in the order of the calls; the next
line is not taken before the last answer is out, so a client that does not read stops itself. To end a
connection, its socket is shut down: both greenlets then come to their ends by themselves, and the last one
closes it.
"""

from __future__ import annotations

import select
import socket as system_socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from gevent import monkey, socket
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from msgspec.structs import replace

from microtorrd import logs
from microtorrd.errors import Busy, CallerError, NotAllowed
from microtorrd.greenlets import breathe
from microtorrd.proto import jsonrpc
from microtorrd.rpc.api import Caller, Note, Subscription

_log = logs.get(room="rpc")

#: What every client may hold without asking: the lines of people and scripts are far shorter.
FREE_BYTES = 64 << 10

#: How much is read at once; a big line is read in bigger chunks.
CHUNK_BYTES = 16 << 10
BIG_CHUNK_BYTES = 256 << 10

#: How often a stream with nothing to say looks whether its reader is still there.
HEARTBEAT_S = 30.0

#: How many notes go out in one write.
NOTES_AT_ONCE = 64

#: How long one client's lines are answered before others get a turn.
TURN_S = 0.004

#: How long, and how much, we swallow after an error that ends the connection, so that the client reads it.
LINGER_S = 10.0
LINGER_BYTES = 512 << 20


class MemoryBudget:
    """What half-sent lines of all clients may hold together, beyond the bytes that each has free."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def resize(self, before: int, after: int) -> bool:
        """Change one client's share; False when there is no room for more."""
        change = max(0, after - FREE_BYTES) - max(0, before - FREE_BYTES)
        if change > 0 and self.used_bytes + change > self.limit_bytes:
            return False
        self.used_bytes += change
        return True


class BoundsLike(Protocol):
    """The bounds that concern one connection."""

    @property
    def line_bytes(self) -> int: ...

    @property
    def subscribers(self) -> int: ...

    @property
    def answer_s(self) -> float: ...


class ServerLike(Protocol):
    """What a connection needs of its server."""

    budget: MemoryBudget

    @property
    def bounds(self) -> BoundsLike: ...

    @property
    def subscriber_count(self) -> int: ...

    def answer(self, line: bytes | bytearray, connection: Connection) -> bytearray | None: ...

    def start_stream(self, connection: Connection) -> None: ...

    def forget(self, connection: Connection) -> None: ...


class Connection:
    """A client. `heard_at` and `has_called` say how much it is worth when room is short."""

    def __init__(
        self, sock: socket.socket, number: int, credentials: tuple[int, int, int], server: ServerLike
    ) -> None:
        self.number = number
        self.pid, self.uid, gid = credentials
        self.caller = Caller(pid=self.pid, uid=self.uid, gid=gid, attach=self._attach)
        self.heard_at = time.monotonic()
        self.has_called = False
        self._turn_at = self.heard_at  # since then others had no turn, but for the time that we waited
        self._sock = sock
        self._server = server
        self._lines = jsonrpc.LineBuffer(server.bounds.line_bytes)
        self._held = 0  # of the server's memory budget
        self._subscription: Subscription | None = None
        self._users = 0  # greenlets at work here
        self._stream_due = False
        self._finishing = False
        self._writing = BoundedSemaphore(1)
        self._closed = Event()

    @property
    def streams(self) -> bool:
        """Whether it subscribed."""
        return self._subscription is not None

    # --------------------------------------------------------------------------------- two greenlets' work

    def run(self) -> None:
        """Answer lines until the client leaves. For a greenlet of its own."""
        self._work(self._serve)

    def stream(self) -> None:
        """Send notes until the client leaves. For a greenlet of its own."""
        self._work(self._stream)

    def _work(self, work: Callable[[], None]) -> None:
        self._users += 1
        try:
            work()
        except OSError as error:
            # The client left, or does not read: both are its own affair.
            _log.debug("rpc_client_lost", pid=self.pid, uid=self.uid, error=str(error))
            if not self._finishing:
                self._shutdown(system_socket.SHUT_RDWR)
        finally:
            self._users -= 1
            if self._users == 0:
                self.close()

    # --------------------------------------------------------------------------------------------- its end

    def refuse(self, error: CallerError) -> None:
        """Say why, if that can be done without waiting, and end the connection."""
        try:
            if not self._writing.locked():  # else it would land in the middle of an answer
                self._sock.send(jsonrpc.encode_error(None, error) + b"\n", 0, 0.0)
        except OSError as problem:
            _log.debug("rpc_client_not_told", pid=self.pid, error=str(problem))
        self._shutdown(system_socket.SHUT_RDWR)
        if self._users == 0:
            self.close()

    def finish(self) -> None:
        """The daemon stops: no more calls; a running answer still goes out, a stream gets its last note."""
        self._finishing = True
        if self._subscription is not None:
            self._subscription.close()
        self._shutdown(system_socket.SHUT_RD)

    def wait_closed(self, timeout_s: float) -> None:
        """Wait for its end."""
        self._closed.wait(timeout_s)

    def close(self) -> None:
        """Close the socket and give everything back. Again does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._subscription is not None:
            self._subscription.close()
        self._server.budget.resize(self._held, 0)
        self._sock.close()
        self._server.forget(self)
        # It knows the way back to us: a cycle, of which every call of `mtorrctl` would leave one behind.
        self.caller = replace(self.caller, attach=_refuse)

    def _shutdown(self, how: int) -> None:
        try:
            self._sock.shutdown(how)
        except OSError as error:
            _log.debug("rpc_client_already_gone", pid=self.pid, error=str(error))

    # --------------------------------------------------------------------------------------------- answers

    def _serve(self) -> None:
        while chunk := self._receive():
            self._lines.feed(chunk)
            try:
                while (line := self._lines.take()) is not None:
                    self._answer(line)
                    del line  # perhaps a big one: not kept while the next one is awaited
                    if self._finishing:
                        return
                    self._share_turns()
                self._hold(self._lines.held)
                self._share_turns()
            except CallerError as error:
                _log.warning("rpc_client_dropped", pid=self.pid, uid=self.uid, error=str(error))
                self._send(jsonrpc.encode_error(None, error) + b"\n")
                self._linger()
                return
        if self._subscription is not None and self._is_hung_up():
            self._subscription.close()

    def _receive(self) -> bytes:
        """What the client says next; b"": nothing more."""
        asked_at = time.monotonic()
        chunk: bytes = self._sock.recv(BIG_CHUNK_BYTES if self._held > FREE_BYTES else CHUNK_BYTES)
        self.heard_at = time.monotonic()
        self._turn_at += self.heard_at - asked_at  # others had that time
        return chunk

    def _share_turns(self) -> None:
        """A client that is never waited for, because it has always more to say, lets others speak, too."""
        if time.monotonic() - self._turn_at >= TURN_S:
            breathe()
            self._turn_at = time.monotonic()

    def _answer(self, line: bytes | bytearray) -> None:
        self.has_called = True
        reply = self._server.answer(line, self)
        if reply is not None:
            self._send(reply)
        if self._stream_due:
            self._stream_due = False
            self._server.start_stream(self)

    def _send(self, raw: bytes | bytearray) -> None:
        """Send an answer whole. TimeoutError when the client does not read it."""
        patience_s = self._server.bounds.answer_s
        if not self._writing.acquire(timeout=patience_s):
            raise TimeoutError("a stream of notes to this client is stuck")
        try:
            # Only this greenlet reads, so the timeout of the socket is its own to change while it writes.
            self._sock.settimeout(patience_s)
            self._sock.sendall(raw)
        finally:
            self._sock.settimeout(None)
            self._writing.release()

    def _hold(self, held: int) -> None:
        if not self._server.budget.resize(self._held, held):
            raise Busy("other clients are sending big lines; try again in a moment")
        self._held = held

    def _linger(self) -> None:
        """Swallow what the client is still sending, so that it comes to reading our last line."""
        self._lines = jsonrpc.LineBuffer(0)
        self._hold(0)
        self._shutdown(system_socket.SHUT_WR)
        end = time.monotonic() + LINGER_S
        scratch = bytearray(BIG_CHUNK_BYTES)
        swallowed = 0
        while swallowed < LINGER_BYTES and (left_s := end - time.monotonic()) > 0:
            self._sock.settimeout(left_s)
            count = self._sock.recv_into(scratch)
            if count == 0:
                break
            swallowed += count

    # ---------------------------------------------------------------------------------------------- stream

    def _attach(self, subscription: Subscription, wanted: Callable[[Note], bool]) -> None:
        """`events.subscribe` was called here. Notes flow once its answer is out."""
        problem: CallerError | None = None
        if self._subscription is not None:
            problem = NotAllowed("this connection has a subscription already")
        elif self._server.subscriber_count >= self._server.bounds.subscribers:
            problem = Busy(f"there are {self._server.bounds.subscribers} subscribers already")
        if problem is not None:
            subscription.close()
            raise problem
        self._subscription = subscription
        subscription.wanted = wanted
        self._stream_due = True

    def _stream(self) -> None:
        subscription = self._subscription
        assert subscription is not None, "a stream starts after _attach"
        told_lost = 0
        while True:
            note = subscription.get(HEARTBEAT_S)
            lines: list[bytes] = []
            if subscription.lost > told_lost:
                told_lost = subscription.lost
                lines.append(_event({"kind": "notes_lost", "time": time.time(), "lost": told_lost}))
            while note is not None:
                lines.append(_event(note))
                note = subscription.get(0) if len(lines) < NOTES_AT_ONCE else None
            if lines:
                self._send_notes(b"".join(lines))
                breathe()
            elif subscription.closed:
                break
            elif self._is_hung_up():
                return
        if self._finishing:
            self._send_notes(_event({"kind": "daemon_stopping", "time": time.time()}))
        self._shutdown(system_socket.SHUT_RDWR)

    def _send_notes(self, raw: bytes) -> None:
        # As slow as the reader likes: its queue is bounded, and nobody waits for this greenlet.
        with self._writing:
            self._sock.sendall(raw)

    def _is_hung_up(self) -> bool:
        """Whether the client closed its end altogether, not only its writing half."""
        # The unpatched one: gevent's knows no POLLHUP, and this does not wait.
        poll = monkey.get_original("select", "poll")()
        poll.register(self._sock.fileno(), select.POLLHUP)
        return any(flags & (select.POLLHUP | select.POLLERR) for _, flags in poll.poll(0))


def _refuse(subscription: Subscription, _: Callable[[Note], bool]) -> None:
    subscription.close()
    raise NotAllowed("this connection is closed")


def _event(note: Note) -> bytes:
    moment = note.get("time")
    if isinstance(moment, int | float):
        note = {**note, "time": rfc3339(moment)}
    return jsonrpc.encode_notification("event", note)


def rfc3339(moment: float) -> str:
    """Seconds since the epoch as text, with milliseconds, in UTC."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
