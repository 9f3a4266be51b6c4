"""From an address to a socket whose handshake is done.

Rules
- What goes wrong is a `DialError` with a reason for people.
- A connection to ourselves is found by the peer id.
- Who is dialed hears BitTorrent first: the original speaks before it listens, and survives what it does not
  understand; it is dialed once more, in gob, and from then on in gob at once.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from gevent import socket
from gevent.event import Event

from microtorrd.core.events import Address
from microtorrd.errors import MicrotorrError, ProtocolError
from microtorrd.net.greeting import (
    Greeted,
    Joined,
    answer_in_gob,
    read_exactly,
    read_gob_opening,
    read_opening,
    why,
)
from microtorrd.net.interfaces import interface_addresses
from microtorrd.net.stream import tune
from microtorrd.proto.gob_dialect import GobOpening, begins_gob
from microtorrd.proto.handshake import PEER_ID_BYTES, Handshake, decode_opening

#: For connecting and the handshake together.
DIAL_S = 15.0

#: Addresses of the original program that are remembered.
ORIGINALS_MAX = 1024


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

            def greet(sock: socket.socket, deadline: float) -> Greeted:
                # It speaks first, so nothing is lost by waiting for its word.
                opening = read_gob_opening(sock, deadline)
                self._check_original(opening, id_hash, is_connected)
                return answer_in_gob(sock, opening, self._peer_id)

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

    def _connect(self, address: Address, greet: Callable[[socket.socket, float], Greeted]) -> Joined:
        host = address[0]
        deadline = monotonic() + self._timeout_s
        is_ipv6, source = self._way(host)
        try:
            sock = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
        except OSError as error:
            raise DialError(why(error)) from error
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
            raise DialError(why(error)) from error
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

    def _greet(self, sock: socket.socket, swarm_id: bytes, deadline: float) -> Greeted:
        sock.sendall(Handshake(swarm_id, self._peer_id).encode())
        start = read_exactly(sock, 1, deadline)
        if begins_gob(start):
            raise _SpeaksGob(read_gob_opening(sock, deadline, start))
        reserved, answered_id = decode_opening(read_opening(sock, deadline, start))
        if answered_id != swarm_id:
            raise ProtocolError("it answered for another torrent")
        peer_id = read_exactly(sock, PEER_ID_BYTES, deadline)
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
