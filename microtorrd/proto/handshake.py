"""The handshake of the peer wire (BEP 3): 68 bytes, of the protocol, abilities, a swarm and a peer.

Who accepts a connection reads `OPENING_BYTES` first, because they say which swarm is meant: it answers only
when it knows that swarm. The peer id follows, and some clients send theirs only after our answer.
"""

from __future__ import annotations

from msgspec import Struct

from microtorrd.errors import ProtocolError

PROTOCOL = b"\x13BitTorrent protocol"

#: Protocol name, reserved bits and swarm id: what must be there before the other side answers.
OPENING_BYTES = len(PROTOCOL) + 8 + 20
PEER_ID_BYTES = 20
HANDSHAKE_BYTES = OPENING_BYTES + PEER_ID_BYTES

#: Which byte of the reserved ones says it, and by which bit.
_EXTENDED = (5, 0x10)  # BEP 10
_DHT = (7, 0x01)  # BEP 5
_FAST = (7, 0x04)  # BEP 6


def reserved_bits(*, fast: bool = True, extended: bool = True, dht: bool = False) -> bytes:
    """The eight reserved bytes that claim these abilities."""
    reserved = bytearray(8)
    for wanted, (at, bit) in ((fast, _FAST), (extended, _EXTENDED), (dht, _DHT)):
        if wanted:
            reserved[at] |= bit
    return bytes(reserved)


#: What we say of ourselves.
OUR_RESERVED = reserved_bits()


class Handshake(Struct, frozen=True):
    """One side's handshake. The peer id is attacker-controlled: any 20 bytes."""

    swarm_id: bytes
    peer_id: bytes
    reserved: bytes = OUR_RESERVED

    @property
    def fast(self) -> bool:
        """It speaks the fast extension (BEP 6)."""
        return _says(self.reserved, _FAST)

    @property
    def extended(self) -> bool:
        """It speaks the extension protocol (BEP 10)."""
        return _says(self.reserved, _EXTENDED)

    @property
    def dht(self) -> bool:
        """It has a DHT node (BEP 5)."""
        return _says(self.reserved, _DHT)

    def encode(self) -> bytes:
        """The 68 bytes. ValueError where a part of ours has the wrong size."""
        if (len(self.reserved), len(self.swarm_id), len(self.peer_id)) != (8, 20, 20):
            raise ValueError("a handshake has 8 reserved bytes, a swarm id and a peer id of 20 bytes")
        return PROTOCOL + self.reserved + self.swarm_id + self.peer_id


def check_protocol(start: bytes) -> None:
    """Do these first bytes of a connection, as many as came, begin a handshake? ProtocolError when not."""
    if not PROTOCOL.startswith(start[: len(PROTOCOL)]):
        raise ProtocolError("it does not speak the BitTorrent protocol")


def decode_opening(raw: bytes) -> tuple[bytes, bytes]:
    """The reserved bytes and the swarm id that the first 48 bytes name. ProtocolError for anything else."""
    if len(raw) != OPENING_BYTES:
        raise ProtocolError(f"a handshake that begins with {len(raw)} bytes instead of {OPENING_BYTES}")
    check_protocol(raw)
    return raw[20:28], raw[28:48]


def decode_handshake(raw: bytes) -> Handshake:
    """Read the 68 bytes. ProtocolError for anything else."""
    if len(raw) != HANDSHAKE_BYTES:
        raise ProtocolError(f"a handshake of {len(raw)} bytes instead of {HANDSHAKE_BYTES}")
    reserved, swarm_id = decode_opening(raw[:OPENING_BYTES])
    return Handshake(swarm_id, raw[OPENING_BYTES:], reserved)


def _says(reserved: bytes, ability: tuple[int, int]) -> bool:
    at, bit = ability
    return bool(reserved[at] & bit)
