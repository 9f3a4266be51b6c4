"""The daemon's control socket from its other end: calls, batches, and the stream of notes.

One connection does all three: after `subscribe` notes come between the answers and wait here until somebody
takes them. What the daemon refuses is raised as the `CallerError` that it stands for; a daemon that does not
answer, or leaves, as `Unreachable`.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from microtorrd.errors import CallerError, MicrotorrError, ProtocolError
from microtorrd.proto import jsonrpc
from microtorrd.proto.jsonrpc import Notification, Reply
from mtorrctl import sockets
from mtorrctl.exits import Failure, Unreachable, WrongUsage

Note = dict[str, Any]

#: The daemon answers from memory, so this is long; only a machine in trouble needs it.
ANSWER_S = 60.0

CHUNK_BYTES = 256 << 10


class Client:
    """A connection to a daemon. Use it in a `with`, or close it."""

    def __init__(self, sock: socket.socket, path: str, *, answer_s: float = ANSWER_S) -> None:
        self.path = path
        self._sock = sock
        self._answer_s = answer_s
        self._lines = jsonrpc.LineBuffer()
        self._replies: deque[Reply] = deque()
        self._notes: deque[Note] = deque()
        self._ids = itertools.count(1)

    @classmethod
    def open(
        cls,
        named: str | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        answer_s: float = ANSWER_S,
    ) -> Client:
        """Connect to the socket that was named, or to the usual ones (`sockets.candidates`). Unreachable."""
        sock, path = sockets.connect(named, environ)
        return cls(sock, path, answer_s=answer_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._sock.close()

    # ----------------------------------------------------------------------------------------------- calls

    def call(self, method: str, **params: Any) -> Any:
        """The result of a call. Raises the CallerError that the daemon answers with, or Unreachable."""
        call_id = next(self._ids)
        self._send(_encode(lambda: jsonrpc.encode_call(method, params, call_id)))
        reply = self._next_reply()
        if reply.error is not None:
            raise reply.error
        if reply.id != call_id:
            raise Failure(f"the daemon answered call {reply.id}, where {call_id} was asked")
        return reply.result

    def batch(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Any]:
        """The results of several calls, each in its place; a CallerError object where a call was refused."""
        results: list[Any] = []
        for start in range(0, len(calls), jsonrpc.MAX_BATCH):
            results += self._batch(calls[start : start + jsonrpc.MAX_BATCH])
        return results

    def _batch(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Any]:
        numbered = [(method, params, next(self._ids)) for method, params in calls]
        self._send(_encode(lambda: jsonrpc.encode_calls(numbered)))
        replies: dict[object, Reply] = {}
        while len(replies) < len(numbered):
            reply = self._next_reply()
            if reply.id is None:
                raise reply.error or Failure("the daemon answered a call that nobody made")
            replies[reply.id] = reply
        answers = [replies[call_id] for _, _, call_id in numbered if call_id in replies]
        if len(answers) != len(numbered):
            raise Failure("the daemon answered other calls than were made")
        return [reply.result if reply.error is None else reply.error for reply in answers]

    # ----------------------------------------------------------------------------------------------- notes

    def subscribe(self, *, kinds: Iterable[str] | None = None, ids: Iterable[str] | None = None) -> None:
        """From now on notes come: of these kinds (None: the usual ones), about these torrents (None: all)."""
        self.call(
            "events.subscribe",
            kinds=None if kinds is None else list(kinds),
            ids=None if ids is None else list(ids),
        )

    def next_note(self, timeout_s: float | None = None) -> Note | None:
        """The next note, None when `timeout_s` seconds went by without one. Unreachable at the end of all."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._notes:
            left_s = None if end is None else max(0.0, end - time.monotonic())
            if not self._receive(left_s):
                return None
        return self._notes.popleft()

    def notes(self) -> Iterator[Note]:
        """All notes until the daemon stops; the last one is `daemon_stopping` when it stops cleanly."""
        while (note := self.next_note()) is not None:
            yield note
            if note.get("kind") == "daemon_stopping":
                return

    # ----------------------------------------------------------------------------------------------- bytes

    def _send(self, line: bytes) -> None:
        if len(line) > jsonrpc.MAX_LINE_BYTES:
            raise Failure(f"this call has {len(line)} bytes, the daemon takes {jsonrpc.MAX_LINE_BYTES}")
        try:
            self._sock.settimeout(self._answer_s)
            self._sock.sendall(line)
        except TimeoutError:
            raise self._silent() from None
        except OSError as error:
            # It may have said why before it closed: that counts more than the broken pipe.
            self._raise_last_words()
            raise self._gone() from error

    def _next_reply(self) -> Reply:
        end = time.monotonic() + self._answer_s
        while not self._replies:
            left_s = end - time.monotonic()
            if left_s <= 0 or not self._receive(left_s):
                raise self._silent()
        return self._replies.popleft()

    def _receive(self, timeout_s: float | None) -> bool:
        """Take what comes next; False when nothing did in time."""
        self._sock.settimeout(max(timeout_s, 0.0001) if timeout_s is not None else None)
        try:
            chunk = self._sock.recv(CHUNK_BYTES)
        except TimeoutError:
            return False
        except OSError as error:
            raise self._gone() from error
        if not chunk:
            raise self._gone()
        self._lines.feed(chunk)
        try:
            while (line := self._lines.take()) is not None:
                for message in jsonrpc.parse_answers(line):
                    if isinstance(message, Notification):
                        self._notes.append(message.params)
                    else:
                        self._replies.append(message)
        except (ProtocolError, CallerError) as error:
            raise Failure(f"{self.path} does not speak as microtorrd does: {error}") from error
        return True

    def _raise_last_words(self) -> None:
        try:
            while not self._replies:
                if not self._receive(1.0):
                    return
        except MicrotorrError:
            return  # it said nothing: the caller tells that it is gone
        error = self._replies[0].error
        if error is not None:
            raise error

    def _gone(self) -> Unreachable:
        return Unreachable(
            f"the daemon on {self.path} closed the connection", "is it stopping? Its log says more"
        )

    def _silent(self) -> Unreachable:
        return Unreachable(f"the daemon on {self.path} did not answer within {self._answer_s:g} s")


def _encode(make: Callable[[], bytes]) -> bytes:
    try:
        return make()
    except UnicodeEncodeError as error:
        raise WrongUsage(f"{error.object!r} is not valid UTF-8, and cannot be sent to the daemon") from None
