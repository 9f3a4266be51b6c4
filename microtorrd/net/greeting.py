"""Shaking hands over a socket, at either end: what is common to who dials and who is called.

- A handshake has a deadline in all, however slowly its bytes drip.
- Two dialects are spoken, BitTorrent and the original's gob, and the first byte tells which.
- Nothing after the handshake is read.

What comes in is attacker-controlled: ProtocolError, TimeoutError and OSError come out of here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic

from gevent import socket
from msgspec import Struct

from microtorrd.core.events import Address, PeerJoined
from microtorrd.errors import ProtocolError
from microtorrd.proto.gob_dialect import GobEncoder, GobOpening, GobStreams
from microtorrd.proto.handshake import OPENING_BYTES, Handshake, check_protocol

#: The reserved bytes of who has none.
_NO_ABILITIES = bytes(8)


class Joined(Struct, frozen=True):
    """A connection whose handshake is done in both directions; nothing after it was read."""

    sock: socket.socket
    handshake: Handshake  # theirs
    host: str  # numeric
    address: Address | None  # where it listens; unknown for one that came to us
    incoming: bool
    gob: GobStreams | None = None  # set where it speaks the original's dialect

    def fact(self, peer: int) -> PeerJoined:
        """What the core is told of it, under this number."""
        return PeerJoined(
            peer=peer,
            address=self.address,
            peer_id=self.handshake.peer_id,
            incoming=self.incoming,
            fast=self.handshake.fast,
            extended=self.handshake.extended,
            host=self.host,
            whole_pieces=self.gob is not None,
        )


#: Their handshake, and the gob streams where that is what they speak.
Greeted = tuple[Handshake, GobStreams | None]


def read_opening(sock: socket.socket, deadline: float, start: bytes) -> bytes:
    """The opening of a BitTorrent handshake. Another protocol is found out with its first bytes."""
    check_protocol(start)
    return read_exactly(sock, OPENING_BYTES, deadline, start, check_protocol)


def read_gob_opening(sock: socket.socket, deadline: float, start: bytes = b"") -> GobOpening:
    """The handshake of the original, and not a byte more."""
    opening = GobOpening()
    if start:
        opening.take(start)
    while not opening.done:
        opening.take(_read_some(sock, opening.wants, deadline))
    return opening


def answer_in_gob(sock: socket.socket, opening: GobOpening, peer_id: bytes) -> Greeted:
    """Shake hands with who has said this, in the original's dialect."""
    encoder = GobEncoder()
    sock.sendall(encoder.handshake(opening.id_hash, peer_id))
    handshake = Handshake(opening.id_hash, opening.peer_id, _NO_ABILITIES)
    return handshake, GobStreams(opening.decoder, encoder)


def read_exactly(
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


def why(error: OSError) -> str:
    """What went wrong, for people."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
