"""From an address, or from a stranger at the door, to a socket whose handshake is done: `Dialer`, `Listener`.

Rules
- Nobody learns which torrents we have: a handshake is answered only when it names one.
- Everything has an end: a handshake takes `HANDSHAKE_S` in all, however slowly its bytes drip, and the number
  of unfinished ones is bounded, in all and for each host, before anything is read.
- A connection to ourselves is found by the peer id, at both of its ends.
- What goes wrong while dialing is a `DialError` with a reason for people; what goes wrong at the door is a
  line in the debug log.
"""

from __future__ import annotations

import ipaddress
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

import gevent
from gevent import socket
from gevent.event import Event

from microtorrd import logs
from microtorrd.core.events import Address
from microtorrd.errors import MicrotorrError, ProtocolError
from microtorrd.greenlets import Crew
from microtorrd.net.interfaces import interface_addresses
from microtorrd.net.listening import name_of, open_sockets
from microtorrd.net.stream import tune
from microtorrd.proto.handshake import (
    OPENING_BYTES,
    PEER_ID_BYTES,
    Handshake,
    check_protocol,
    decode_opening,
)

#: For connecting and the handshake together; and for the handshake of somebody who came to us.
DIAL_S = 15.0
HANDSHAKE_S = 15.0

#: Strangers at the door, in all and of one host. Behind one address may be a whole office.
HALF_OPEN = 200
HALF_OPEN_PER_HOST = 32

#: When no descriptor is left for who knocks, try again after this time.
BREATH_S = 0.5

_log = logs.get(room="connect")


class DialError(MicrotorrError):
    """The dialed address did not become a peer. `ourselves`: it is this very daemon."""

    def __init__(self, reason: str, *, ourselves: bool = False) -> None:
        super().__init__(reason)
        self.ourselves = ourselves


@dataclass(frozen=True, slots=True)
class Joined:
    """A connection whose handshake is done in both directions; nothing after it was read."""

    sock: socket.socket
    handshake: Handshake  # theirs
    host: str  # numeric
    address: Address | None  # where it listens; unknown for one that came to us
    incoming: bool


class Dialer:
    """Connects to peers. With an `interface` only from its addresses, and not at all while it has none."""

    def __init__(
        self,
        *,
        peer_id: bytes,
        interface: str = "",
        half_open: int = 64,
        is_banned: Callable[[str], bool] = lambda host: False,
        timeout_s: float = DIAL_S,
    ) -> None:
        self.half_open = half_open  # at most so many at a time; who comes later waits for a turn
        self._peer_id = peer_id
        self._interface = interface
        self._is_banned = is_banned
        self._timeout_s = timeout_s
        self._dialing = 0
        self._waiting: deque[Event] = deque()

    def dial(self, address: Address, swarm_id: bytes) -> Joined:
        """Connect and shake hands for this swarm; waits. Raises DialError."""
        host, port = address
        with self._turn():
            if self._is_banned(host):
                raise DialError("it is banned")
            if not 0 < port < 65536:
                raise DialError(f"{port} is no port")
            is_ipv6, source = self._way(host)
            try:
                sock = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
            except OSError as error:
                raise DialError(_why(error)) from error
            joined = None
            try:
                tune(sock)
                if source:
                    sock.bind((source, 0))
                handshake = self._greet(sock, address, swarm_id, monotonic() + self._timeout_s)
                joined = Joined(sock, handshake, host, address, incoming=False)
            except TimeoutError:
                raise DialError(f"no answer within {self._timeout_s:.0f} s") from None
            except OSError as error:
                raise DialError(_why(error)) from error
            except ProtocolError as error:
                raise DialError(str(error)) from error
            finally:
                if joined is None:
                    sock.close()
        return joined

    def _way(self, host: str) -> tuple[bool, str]:
        """Is it IPv6, and from which address may we speak to it? "" is any."""
        try:
            version = ipaddress.ip_address(host).version
        except ValueError:
            raise DialError(f"{host!r} is not a numeric address") from None
        if not self._interface:
            return version == 6, ""
        for source in interface_addresses(self._interface):
            if (":" in source) == (version == 6):
                return version == 6, source
        raise DialError(f"the interface {self._interface} has no IPv{version} address")

    def _greet(self, sock: socket.socket, address: Address, swarm_id: bytes, deadline: float) -> Handshake:
        sock.settimeout(max(0.0, deadline - monotonic()))
        sock.connect(address)
        sock.sendall(Handshake(swarm_id, self._peer_id).encode())
        reserved, answered_id = decode_opening(_read_exactly(sock, OPENING_BYTES, deadline))
        if answered_id != swarm_id:
            raise ProtocolError("it answered for another torrent")
        peer_id = _read_exactly(sock, PEER_ID_BYTES, deadline)
        if peer_id == self._peer_id:
            raise DialError("it is ourselves", ourselves=True)
        return Handshake(swarm_id, peer_id, reserved)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Be one of at most `half_open` that dial, in the order they came."""
        if self._dialing >= self.half_open:
            turn = Event()
            self._waiting.append(turn)
            try:
                turn.wait()
            except BaseException:  # killed while it waited
                if turn.is_set():
                    self._next()
                else:
                    self._waiting.remove(turn)
                raise
        else:
            self._dialing += 1
        try:
            yield
        finally:
            self._next()

    def _next(self) -> None:
        """Hand a turn on, or more than one where the bound was raised, or end it."""
        self._dialing -= 1
        while self._waiting and self._dialing < self.half_open:
            self._dialing += 1
            self._waiting.popleft().set()


class Listener:
    """Waits for peers at one port of several addresses, and shakes hands with who names a torrent of ours.

    `resolve` says whether a swarm id is of a torrent that takes peers; `accept` gets who passed, and owns the
    socket from then on.
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
        half_open: int = HALF_OPEN,
        half_open_per_host: int = HALF_OPEN_PER_HOST,
        timeout_s: float = HANDSHAKE_S,
    ) -> None:
        self.port = port  # the real one after `start`
        self.addresses: list[str] = []  # "host:port" of each socket, after `start`
        self._wanted = (addresses, port, interface)
        self._resolve = resolve
        self._accept = accept
        self._peer_id = peer_id
        self._crew = crew
        self._is_banned = is_banned
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
        for sock, name in zip(self._sockets, self.addresses, strict=True):
            self.port = sock.getsockname()[1]
            self._crew.spawn(f"accept {name}", self._accept_all, sock)

    def close(self) -> None:
        """Listen no more, and send away who stands at the door."""
        self._breath.set()
        for sock in [*self._sockets, *self._strangers]:
            sock.close()
        self._sockets = []
        self.addresses = []

    def _accept_all(self, listening: socket.socket) -> None:
        while not self._breath.is_set():
            try:
                sock, address = listening.accept()
            except ConnectionError:  # gone again before we looked
                continue
            except OSError as error:
                if self._breath.is_set():
                    return
                # Out of descriptors or of memory: those who knock wait in the backlog.
                _log.warning("accept_failed", reason=_why(error))
                self._breath.wait(BREATH_S)
                continue
            self._let_in(sock, str(address[0]))
            gevent.sleep(0)  # while somebody knocks `accept` does not wait, and others want a turn

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
            handshake = self._shake_hands(sock, monotonic() + self._timeout_s)
        except TimeoutError:
            reason = f"no handshake within {self._timeout_s:.0f} s"
        except OSError as error:
            reason = _why(error)
        except ProtocolError as error:
            reason = str(error)
        if reason:
            _log.debug("handshake_failed", host=host, reason=reason)
            return
        if self._strangers.pop(sock, None) is not None:
            self._accept(Joined(sock, handshake, host, None, incoming=True))

    def _shake_hands(self, sock: socket.socket, deadline: float) -> Handshake:
        reserved, swarm_id = decode_opening(_read_exactly(sock, OPENING_BYTES, deadline))
        if self._resolve(swarm_id) is None:
            raise ProtocolError(f"it wants the torrent {swarm_id.hex()}, which is not here or takes no peers")
        # Before its peer id has come: some wait with that for our answer.
        sock.settimeout(max(0.0, deadline - monotonic()))
        sock.sendall(Handshake(swarm_id, self._peer_id).encode())
        peer_id = _read_exactly(sock, PEER_ID_BYTES, deadline)
        if peer_id == self._peer_id:
            raise ProtocolError("it is ourselves")
        return Handshake(swarm_id, peer_id, reserved)

    def _done_with(self, sock: socket.socket, host: str) -> None:
        if self._strangers.pop(sock, None) is not None:
            sock.close()
        self._per_host[host] -= 1
        if not self._per_host[host]:
            del self._per_host[host]


def _read_exactly(sock: socket.socket, size: int, deadline: float) -> bytes:
    """The next bytes of a handshake. Who speaks another protocol is found out with the first of them."""
    raw = b""
    while len(raw) < size:
        left_s = deadline - monotonic()
        if left_s <= 0:
            raise TimeoutError
        sock.settimeout(left_s)
        part = sock.recv(size - len(raw))
        if not part:
            raise ProtocolError("it closed the connection during the handshake")
        raw += part
        if size == OPENING_BYTES:
            check_protocol(raw)
    return raw


def _why(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
