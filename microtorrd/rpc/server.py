"""The control server: accepts clients, answers their lines, streams notes to those who subscribed.

Bounds, so that no client can hurt the daemon or another client: the number of clients (when it is reached,
the one that is idle longest makes room, those that never said anything first; subscribers stay), the length
of a line, the memory that half-sent lines of all clients hold together, the time that a client may take to
read an answer. A subscriber that reads slowly loses its oldest notes and is told how many.
"""

from __future__ import annotations

import errno
import itertools
import socket as system_socket
import struct
import time
from collections.abc import Callable
from typing import Protocol

from gevent import socket
from gevent.event import Event
from msgspec import Struct

from microtorrd import logs
from microtorrd.errors import Busy
from microtorrd.greenlets import breathe
from microtorrd.proto import jsonrpc
from microtorrd.rpc.api import Services
from microtorrd.rpc.connection import Connection, MemoryBudget
from microtorrd.rpc.dispatch import Dispatcher
from microtorrd.rpc.listening import ControlSocket

_log = logs.get(room="rpc")

#: Errors of accept(2) that mean "too much at the moment", not "this socket is done for".
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Bounds(Struct, frozen=True):
    """The limits of the control server."""

    clients: int = 256
    subscribers: int = 64
    line_bytes: int = jsonrpc.MAX_LINE_BYTES
    #: One line of the greatest length and a few small ones; a second big one at the same time is refused.
    buffered_bytes: int = jsonrpc.MAX_LINE_BYTES + (16 << 20)
    answer_s: float = 30.0  # to read one answer


class CrewLike(Protocol):
    """What the server needs of a crew."""

    def spawn(self, name: str, work: Callable[..., object], *args: object) -> object: ...

    def stop(self, timeout_s: float) -> object: ...


class ControlServer:
    """Serves the control socket from greenlets of `crew` until `stop`."""

    def __init__(
        self, control: ControlSocket, services: Services, crew: CrewLike, bounds: Bounds | None = None
    ) -> None:
        self.bounds = bounds or Bounds()
        self.budget = MemoryBudget(self.bounds.buffered_bytes)
        self._control = control
        self._dispatcher = Dispatcher(services, breathe=breathe)
        self._crew = crew
        self._connections: set[Connection] = set()
        self._numbers = itertools.count(1)
        self._stopping = Event()

    @property
    def client_count(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    @property
    def subscriber_count(self) -> int:
        """How many of them get notes."""
        return sum(connection.streams for connection in self._connections)

    def start(self) -> None:
        """Accept clients from now on."""
        self._crew.spawn("accept", self._accept)

    def stop(self, timeout_s: float = 2.0) -> None:
        """Accept nobody any more, tell subscribers, let running answers go out, close everything."""
        self._stopping.set()
        self._control.close()
        deadline = time.monotonic() + timeout_s
        for connection in list(self._connections):
            connection.finish()
        for connection in list(self._connections):
            connection.wait_closed(max(0.0, deadline - time.monotonic()))
        self._crew.stop(1.0)
        for connection in list(self._connections):
            connection.close()

    # ------------------------------------------------------------------------------------------- accepting

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, _ = self._control.sock.accept()
            except OSError as error:
                if self._stopping.is_set():
                    return
                if error.errno in _EXHAUSTED:
                    _log.warning("rpc_accept_failed", error=str(error), clients=len(self._connections))
                    self._make_room(idle_s=1.0)
                    self._stopping.wait(0.2)
                    continue
                if error.errno == errno.ECONNABORTED:
                    continue
                raise
            self._admit(sock)

    def _admit(self, sock: socket.socket) -> None:
        try:
            raw = sock.getsockopt(system_socket.SOL_SOCKET, system_socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            sock.close()  # it left before we looked
            return
        pid, uid, gid = struct.unpack("3i", raw)
        number = next(self._numbers)
        connection = Connection(sock, number, (pid, uid, gid), self)
        if len(self._connections) >= self.bounds.clients and not self._make_room():
            _log.warning("rpc_client_refused", pid=pid, uid=uid, clients=len(self._connections))
            connection.refuse(Busy(f"all {self.bounds.clients} connections are taken by subscribers"))
            return
        self._connections.add(connection)
        self._crew.spawn(f"client-{number}", connection.run)

    def _make_room(self, idle_s: float = 0.0) -> bool:
        """Close the client that is idle longest, and at least this long. False when there is none."""
        before = time.monotonic() - idle_s
        idle = [
            connection
            for connection in self._connections
            if not connection.streams and connection.heard_at <= before
        ]
        if not idle:
            return False
        victim = min(idle, key=lambda connection: (connection.has_called, connection.heard_at))
        _log.debug("rpc_client_evicted", pid=victim.pid, uid=victim.uid)
        self._connections.discard(victim)
        victim.refuse(Busy("too many connections, and this one was idle longest"))
        return True

    # ----------------------------------------------------------------------------- for the connections alone

    def answer(self, line: bytes | bytearray, connection: Connection) -> bytearray | None:
        """The answer to a line of this connection."""
        return self._dispatcher.answer(line, connection.caller)

    def start_stream(self, connection: Connection) -> None:
        """Run the connection's stream of notes."""
        self._crew.spawn(f"stream-{connection.number}", connection.stream)

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""
        self._connections.discard(connection)
