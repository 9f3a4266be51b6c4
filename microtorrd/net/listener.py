"""From a stranger at the door to a socket whose handshake is done.

Rules
- Nobody learns which torrents we have: a handshake is answered only when it names one, in the dialect of who
  came.
- A handshake takes `HANDSHAKE_S` in all, and the number of unfinished ones is bounded, in all and for each
  host, before anything is read.
- A connection to ourselves is found by the peer id.
- What goes wrong at the door is a line in the debug log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from time import monotonic

from gevent import socket
from gevent.event import Event

from microtorrd import logs
from microtorrd.core.events import Address
from microtorrd.errors import ProtocolError
from microtorrd.greenlets import Crew, breathe
from microtorrd.net.greeting import (
    Greeted,
    Joined,
    answer_in_gob,
    read_exactly,
    read_gob_opening,
    read_opening,
    why,
)
from microtorrd.net.listening import name_of, open_sockets
from microtorrd.net.turns import Gate
from microtorrd.net.utp_door import UtpDoor
from microtorrd.proto.gob_dialect import begins_gob
from microtorrd.proto.handshake import PEER_ID_BYTES, Handshake, decode_opening

#: For the handshake of somebody who came to us.
HANDSHAKE_S = 15.0

#: Strangers at the door, in all and of one host. Behind one address may be a whole office.
HALF_OPEN = 200
HALF_OPEN_PER_HOST = 32

#: So many are let in at a time: their handshakes begin in one turn of the hub.
AT_A_TIME = 8

#: When no descriptor is left for who knocks, try again after this time.
BREATH_S = 0.5

_log = logs.get(room="listener")


class Listener:
    """Waits for peers at one port of several addresses, and shakes hands with who names a torrent of ours.

    `resolve` says whether a swarm id is of a torrent that takes peers; `accept` gets who passed, and owns the
    socket from then on. Through the `gate` they go a few at a time.
    """

    def __init__(
        self,
        *,
        addresses: Sequence[str],
        port: int,
        interface: str = "",
        resolve: Callable[[bytes], object | None],
        accept: Callable[[Joined], None],
        peer_id: bytes,
        crew: Crew,
        is_banned: Callable[[str], bool] = lambda host: False,
        gate: Gate | None = None,
        half_open: int = HALF_OPEN,
        half_open_per_host: int = HALF_OPEN_PER_HOST,
        timeout_s: float = HANDSHAKE_S,
    ) -> None:
        self.port = port  # the real one after `start`
        self._utp = UtpDoor(crew)
        self.addresses: list[str] = []  # "host:port" of each socket, after `start`
        self.places: list[Address] = []  # the same as host and port
        self._wanted = (addresses, port, interface)
        self._resolve = resolve
        self._accept = accept
        self._peer_id = peer_id
        self._crew = crew
        self._is_banned = is_banned
        self._gate = gate or Gate()
        self._half_open = half_open
        self._half_open_per_host = half_open_per_host
        self._timeout_s = timeout_s
        self._sockets: list[socket.socket] = []
        self._strangers: dict[socket.socket, str] = {}  # at the door, and from which host
        self._per_host: Counter[str] = Counter()
        self._breath = Event()  # set when the listener closes

    def start(self) -> None:
        """Open the sockets and begin to listen. Raises ConfigError where that cannot be."""
        self._sockets = open_sockets(*self._wanted)
        self.addresses = [name_of(sock) for sock in self._sockets]
        self.places = [sock.getsockname()[:2] for sock in self._sockets]
        for sock, name in zip(self._sockets, self.addresses, strict=True):
            self.port = sock.getsockname()[1]
            self._crew.spawn(f"accept {name}", self._accept_all, sock)
        self._utp.open(self.places)

    def close(self) -> None:
        """Listen no more, and send away who stands at the door."""
        self._breath.set()
        self._utp.close()
        for sock in [*self._sockets, *self._strangers]:
            sock.close()
        self._sockets = []
        self.addresses = []

    def _accept_all(self, listening: socket.socket) -> None:
        count = 0
        while not self._breath.is_set():
            count += 1
            if count % AT_A_TIME == 0:  # while somebody knocks `accept` does not wait, and others want a turn
                breathe()
            try:
                sock, address = listening.accept()
            except ConnectionError:  # gone again before we looked
                continue
            except OSError as error:
                if self._breath.is_set():
                    return
                # Out of descriptors or of memory: those who knock wait in the backlog.
                _log.warning("accept_failed", reason=why(error))
                self._breath.wait(BREATH_S)
                continue
            self._let_in(sock, str(address[0]))

    def _let_in(self, sock: socket.socket, host: str) -> None:
        refused = ""
        if self._is_banned(host):
            refused = "it is banned"
        elif len(self._strangers) >= self._half_open:
            refused = "too many unfinished handshakes"
        elif self._per_host[host] >= self._half_open_per_host:
            refused = "too many unfinished handshakes of this host"
        if refused:
            sock.close()
            _log.debug("peer_refused", host=host, reason=refused)
            return
        self._strangers[sock] = host
        self._per_host[host] += 1
        greeter = self._crew.spawn(f"handshake {host}", self._meet, sock, host)
        # Not at the end of `_meet`: a greenlet that is killed before its first turn never gets there.
        greeter.rawlink(lambda _: self._done_with(sock, host))

    def _meet(self, sock: socket.socket, host: str) -> None:
        reason = ""
        try:
            handshake, streams = self._shake_hands(sock, monotonic() + self._timeout_s)
        except TimeoutError:
            reason = f"no handshake within {self._timeout_s:.0f} s"
        except OSError as error:
            reason = why(error)
        except ProtocolError as error:
            reason = str(error)
        if reason:
            _log.debug("handshake_failed", host=host, reason=reason)
            return
        self._gate.enter()
        if not self._breath.is_set() and self._strangers.pop(sock, None) is not None:
            self._accept(Joined(sock, handshake, host, None, incoming=True, gob=streams))

    def _shake_hands(self, sock: socket.socket, deadline: float) -> Greeted:
        start = read_exactly(sock, 1, deadline)
        if begins_gob(start):
            return self._shake_hands_in_gob(sock, deadline, start)
        reserved, swarm_id = decode_opening(read_opening(sock, deadline, start))
        self._must_be_here(swarm_id)
        # Before its peer id has come: some wait with that for our answer.
        sock.settimeout(max(0.0, deadline - monotonic()))
        sock.sendall(Handshake(swarm_id, self._peer_id).encode())
        peer_id = read_exactly(sock, PEER_ID_BYTES, deadline)
        if peer_id == self._peer_id:
            raise ProtocolError("it is ourselves")
        return Handshake(swarm_id, peer_id, reserved), None

    def _shake_hands_in_gob(self, sock: socket.socket, deadline: float, start: bytes) -> Greeted:
        opening = read_gob_opening(sock, deadline, start)
        self._must_be_here(opening.id_hash)
        if opening.peer_id == self._peer_id:
            raise ProtocolError("it is ourselves")
        sock.settimeout(max(0.0, deadline - monotonic()))
        return answer_in_gob(sock, opening, self._peer_id)

    def _must_be_here(self, swarm_id: bytes) -> None:
        if self._resolve(swarm_id) is None:
            raise ProtocolError(f"it wants the torrent {swarm_id.hex()}, which is not here or takes no peers")

    def _done_with(self, sock: socket.socket, host: str) -> None:
        if self._strangers.pop(sock, None) is not None:
            sock.close()
        self._per_host[host] -= 1
        if not self._per_host[host]:
            del self._per_host[host]
