"""From an address, or from a stranger at the door, to a socket whose handshake is done: `Dialer`, `Listener`.

Rules
- Nobody learns which torrents we have: a handshake is answered only when it names one.
- Everything has an end: a handshake takes `HANDSHAKE_S` in all, however slowly its bytes drip, and the number
  of unfinished ones is bounded, in all and for each host, before anything is read.
- A connection to ourselves is found by the peer id, at both of its ends.
- Two dialects are spoken, BitTorrent and the original's gob, and the first byte tells which. Who comes to us
  is answered in his own. Who is dialed hears BitTorrent first: the original speaks before it listens, and
  survives what it does not understand; it is dialed once more, in gob, and from then on in gob at once.
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
from microtorrd.net.utp_door import UtpDoor
from microtorrd.proto.gob_dialect import GobEncoder, GobOpening, GobStreams, begins_gob
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

#: Addresses of the original program that are remembered.
ORIGINALS_MAX = 1024

#: The reserved bytes of who has none.
_NO_ABILITIES = bytes(8)

#: When no descriptor is left for who knocks, try again after this time.
BREATH_S = 0.5

_log = logs.get(room="connect")


class DialError(MicrotorrError):
    """The dialed address did not become a peer. `ourselves`: it is this very daemon. `twin`: the id of the
    peer that it turned out to be, which is connected already."""

    def __init__(self, reason: str, *, ourselves: bool = False, twin: bytes = b"") -> None:
        super().__init__(reason)
        self.ourselves = ourselves
        self.twin = twin


class _SpeaksGob(ProtocolError):
    """Who was dialed answered in the original's dialect."""

    def __init__(self, opening: GobOpening) -> None:
        super().__init__("it speaks the original's protocol, in which this torrent has no id")
        self.opening = opening


@dataclass(frozen=True, slots=True)
class Joined:
    """A connection whose handshake is done in both directions; nothing after it was read."""

    sock: socket.socket
    handshake: Handshake  # theirs
    host: str  # numeric
    address: Address | None  # where it listens; unknown for one that came to us
    incoming: bool
    gob: GobStreams | None = None  # set where it speaks the original's dialect


#: Their handshake, and the gob streams where that is what they speak.
_Greeted = tuple[Handshake, GobStreams | None]


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
        self._originals: dict[Address, None] = {}
        self._dialing = 0
        self._waiting: deque[Event] = deque()

    def dial(
        self,
        address: Address,
        swarm_id: bytes,
        *,
        id_hash: bytes | None = None,
        is_connected: Callable[[bytes], bool] = lambda peer_id: False,
    ) -> Joined:
        """Connect and shake hands for this swarm; waits. Raises DialError.

        With the `id_hash` of its content a peer that runs the original is welcome, too, unless one with its
        id `is_connected`: it is not made for a second connection with us.
        """
        with self._turn():
            if self._is_banned(address[0]):
                raise DialError("it is banned")
            if not 0 < address[1] < 65536:
                raise DialError(f"{address[1]} is no port")
            if id_hash is None or address not in self._originals:
                try:
                    return self._connect(address, lambda sock, end: self._greet(sock, swarm_id, end))
                except _SpeaksGob as error:
                    if id_hash is None:
                        raise DialError(str(error)) from error
                    self._check_original(error.opening, id_hash, is_connected)
            self._originals.pop(address, None)  # until it has proven itself

            def greet(sock: socket.socket, deadline: float) -> _Greeted:
                # It speaks first, so nothing is lost by waiting for its word.
                opening = _read_gob_opening(sock, deadline)
                self._check_original(opening, id_hash, is_connected)
                return _answer_in_gob(sock, opening, self._peer_id)

            joined = self._connect(address, greet)
            self._remember(address)
            return joined

    def _check_original(
        self, opening: GobOpening, id_hash: bytes | None, is_connected: Callable[[bytes], bool]
    ) -> None:
        if opening.id_hash != id_hash:
            raise DialError("it answered for another torrent")
        if opening.peer_id == self._peer_id:
            raise DialError("it is ourselves", ourselves=True)
        if is_connected(opening.peer_id):
            raise DialError("the same peer is connected already", twin=opening.peer_id)

    def _remember(self, address: Address) -> None:
        """At this address the original listens."""
        if len(self._originals) >= ORIGINALS_MAX:
            del self._originals[next(iter(self._originals))]
        self._originals[address] = None

    def _connect(self, address: Address, greet: Callable[[socket.socket, float], _Greeted]) -> Joined:
        host = address[0]
        deadline = monotonic() + self._timeout_s
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
            sock.settimeout(max(0.0, deadline - monotonic()))
            sock.connect(address)
            handshake, streams = greet(sock, deadline)
            joined = Joined(sock, handshake, host, address, incoming=False, gob=streams)
        except TimeoutError:
            raise DialError(f"no answer within {self._timeout_s:.0f} s") from None
        except OSError as error:
            raise DialError(_why(error)) from error
        except _SpeaksGob:
            raise
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

    def _greet(self, sock: socket.socket, swarm_id: bytes, deadline: float) -> _Greeted:
        sock.sendall(Handshake(swarm_id, self._peer_id).encode())
        start = _read_exactly(sock, 1, deadline)
        if begins_gob(start):
            raise _SpeaksGob(_read_gob_opening(sock, deadline, start))
        reserved, answered_id = decode_opening(_read_opening(sock, deadline, start))
        if answered_id != swarm_id:
            raise ProtocolError("it answered for another torrent")
        peer_id = _read_exactly(sock, PEER_ID_BYTES, deadline)
        if peer_id == self._peer_id:
            raise DialError("it is ourselves", ourselves=True)
        return Handshake(swarm_id, peer_id, reserved), None

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
        self._utp = UtpDoor(crew)
        self.addresses: list[str] = []  # "host:port" of each socket, after `start`
        self.places: list[Address] = []  # the same as host and port
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
            handshake, streams = self._shake_hands(sock, monotonic() + self._timeout_s)
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
            self._accept(Joined(sock, handshake, host, None, incoming=True, gob=streams))

    def _shake_hands(self, sock: socket.socket, deadline: float) -> _Greeted:
        start = _read_exactly(sock, 1, deadline)
        if begins_gob(start):
            return self._shake_hands_in_gob(sock, deadline, start)
        reserved, swarm_id = decode_opening(_read_opening(sock, deadline, start))
        self._must_be_here(swarm_id)
        # Before its peer id has come: some wait with that for our answer.
        sock.settimeout(max(0.0, deadline - monotonic()))
        sock.sendall(Handshake(swarm_id, self._peer_id).encode())
        peer_id = _read_exactly(sock, PEER_ID_BYTES, deadline)
        if peer_id == self._peer_id:
            raise ProtocolError("it is ourselves")
        return Handshake(swarm_id, peer_id, reserved), None

    def _shake_hands_in_gob(self, sock: socket.socket, deadline: float, start: bytes) -> _Greeted:
        opening = _read_gob_opening(sock, deadline, start)
        self._must_be_here(opening.id_hash)
        if opening.peer_id == self._peer_id:
            raise ProtocolError("it is ourselves")
        sock.settimeout(max(0.0, deadline - monotonic()))
        return _answer_in_gob(sock, opening, self._peer_id)

    def _must_be_here(self, swarm_id: bytes) -> None:
        if self._resolve(swarm_id) is None:
            raise ProtocolError(f"it wants the torrent {swarm_id.hex()}, which is not here or takes no peers")

    def _done_with(self, sock: socket.socket, host: str) -> None:
        if self._strangers.pop(sock, None) is not None:
            sock.close()
        self._per_host[host] -= 1
        if not self._per_host[host]:
            del self._per_host[host]


def _read_opening(sock: socket.socket, deadline: float, start: bytes) -> bytes:
    """The opening of a BitTorrent handshake. Another protocol is found out with its first bytes."""
    check_protocol(start)
    return _read_exactly(sock, OPENING_BYTES, deadline, start, check_protocol)


def _read_gob_opening(sock: socket.socket, deadline: float, start: bytes = b"") -> GobOpening:
    """The handshake of the original, and not a byte more."""
    opening = GobOpening()
    if start:
        opening.take(start)
    while not opening.done:
        opening.take(_read_some(sock, opening.wants, deadline))
    return opening


def _answer_in_gob(sock: socket.socket, opening: GobOpening, peer_id: bytes) -> _Greeted:
    encoder = GobEncoder()
    sock.sendall(encoder.handshake(opening.id_hash, peer_id))
    handshake = Handshake(opening.id_hash, opening.peer_id, _NO_ABILITIES)
    return handshake, GobStreams(opening.decoder, encoder)


def _read_exactly(
    sock: socket.socket,
    size: int,
    deadline: float,
    raw: bytes = b"",
    check: Callable[[bytes], None] = lambda raw: None,
) -> bytes:
    """So many bytes of a handshake, with those that are here already; `check` looks at them as they come."""
    while len(raw) < size:
        raw += _read_some(sock, size - len(raw), deadline)
        check(raw)
    return raw


def _read_some(sock: socket.socket, most: int, deadline: float) -> bytes:
    left_s = deadline - monotonic()
    if left_s <= 0:
        raise TimeoutError
    sock.settimeout(left_s)
    part: bytes = sock.recv(most)
    if not part:
        raise ProtocolError("it closed the connection during the handshake")
    return part


def _why(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
