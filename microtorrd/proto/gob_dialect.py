"""The words of the original's peer wire: its handshake, its messages, and how we say them in gob.

Both sides send a handshake at once, then what they have, then requests, pieces and haves as they like. Pieces
are the unit of all of it. There is no choking, no interest, no cancel and no keep-alive.

Rules
- Our streams are those of the original, byte for byte: types are defined where it defines them, with the
  numbers that it gives. So what is encoded first has to be sent first.
- A message is known by the name that Go registers for its type, and has exactly the fields that the original
  gives it; any other is refused.
"""

from __future__ import annotations

from typing import NamedTuple

from microtorrd.errors import ProtocolError
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.gob import (
    BOOL,
    BYTES,
    INT,
    INTERFACE,
    STRING,
    Decoder,
    Opened,
    Reader,
    message,
    sint,
    slice_definition,
    struct_definition,
    text,
    uint,
)
from microtorrd.proto.handshake import PEER_ID_BYTES

#: What a connection in this dialect begins with: the length of the definition of the handshake's type, which
#: differs by what numbers a release of Go gives (from 64 on, from 65 on, …); its number; and this.
GOB_LENGTHS = frozenset(b"\x35\x36\x38")
GOB_START = b"\x03\x01\x01\x09HandShake"

PROTOCOL = b"MICROTORRv1"

#: What of a handshake can be too long to be one: the original's has 136 bytes.
HANDSHAKE_BYTES_MAX = 512

#: The largest piece that is exchanged in this dialect: a piece is one message, and one request.
PIECE_BYTES_MAX = 64 << 20

_PACKAGE = "github.com/rafaelbarbeta/MicroTorr/pkg/messages."
HANDSHAKE = "HandShake"
BITFIELD = _PACKAGE + "Bitfield"
REQUEST = _PACKAGE + "Request"
HAVE = _PACKAGE + "Have"
PIECE = _PACKAGE + "Piece"
HELLO = _PACKAGE + "HelloDebug"

#: A slice of truth values, which has no number before a stream defines it.
_BOOLS = 0

#: The fields of each.
_FIELDS: dict[str, tuple[tuple[str, int], ...]] = {
    HANDSHAKE: (("Pstr", STRING), ("IdHash", STRING), ("PeerId", STRING)),
    BITFIELD: (("Bitfield", _BOOLS),),
    REQUEST: (("PieceIndex", INT),),
    HAVE: (("PieceIndex", INT),),
    PIECE: (("PieceIndex", INT), ("Data", BYTES)),
    HELLO: (("Msg", STRING),),
}

#: What follows the data of a piece in its message: the end of the piece, and of what it is in.
PIECE_END = b"\0\0"

_HANDSHAKE_ID, _MESSAGE_ID = 65, 66


def check_opened(opened: Opened) -> str:
    """Which of the names above this value has, if its fields are the original's. ProtocolError when not."""
    name = HANDSHAKE if opened.name is None else opened.name
    expected = _FIELDS.get(name)
    if expected is None or (opened.name is not None and name == HANDSHAKE):
        raise ProtocolError(f"a gob value called {name[:80]!r}, which is no message of this wire")
    if len(expected) != len(opened.type.fields) or any(
        field != known or known_kind not in (kind, _BOOLS)
        for (field, kind), (known, known_kind) in zip(opened.type.fields, expected, strict=True)
    ):
        raise ProtocolError(f"a gob type {opened.type.name[:80]!r} with other fields than the original's")
    return name


class GobOpening:
    """The other side's handshake while it comes: read `wants` bytes, hand them to `take`, until `done`."""

    __slots__ = ("_frame", "_taken", "decoder", "done", "id_hash", "peer_id", "wants")

    def __init__(self) -> None:
        self.decoder = Decoder()  # of the whole stream: what comes next builds on it
        self.done = False
        self.wants = 1  # never more than the handshake has
        self.id_hash = b""
        self.peer_id = b""
        self._frame = bytearray()
        self._taken = 0

    def take(self, raw: bytes) -> None:
        """The next bytes, `wants` at most. ProtocolError for what is no handshake of the original."""
        if self._taken < len(GOB_START):
            _check_start(bytes(self._frame) + raw)
        frame = self._frame
        frame += raw
        self._taken += len(raw)
        if self._taken > HANDSHAKE_BYTES_MAX:
            raise ProtocolError("a gob handshake that does not end")
        self.wants -= len(raw)
        if self.wants:
            return
        prefix = 1 if frame[0] < 128 else 257 - frame[0]
        if len(frame) < prefix:
            self.wants = prefix - len(frame)
            return
        size = Reader(bytes(frame)).uint()
        if not 0 < size <= HANDSHAKE_BYTES_MAX:
            raise ProtocolError(f"a message of {size} bytes in a gob handshake")
        self.wants = prefix + size - len(frame)
        if not self.wants:
            self._read(bytes(frame[prefix:]))
            self._frame = bytearray()
            self.wants = 1

    def _read(self, body: bytes) -> None:
        reader = Reader(body)
        opened = self.decoder.open(reader)
        if opened is None:
            return
        if check_opened(opened) != HANDSHAKE:
            raise ProtocolError("a gob message in front of the handshake")
        fields = self.decoder.fields(opened, reader)
        if fields.get("Pstr") != PROTOCOL:
            raise ProtocolError("a gob handshake of another protocol")
        self.id_hash = _id_hash(fields.get("IdHash"))
        peer_id = fields.get("PeerId")
        if not isinstance(peer_id, bytes) or len(peer_id) != PEER_ID_BYTES:
            raise ProtocolError(f"a peer id that has not {PEER_ID_BYTES} bytes")
        self.peer_id = peer_id
        self.done = True


def begins_gob(start: bytes) -> bool:
    """Whether the first byte of a connection may be that of one in this dialect."""
    return start[0] in GOB_LENGTHS


def _check_start(start: bytes) -> None:
    """Do these first bytes of a connection, as many as came, begin this dialect? ProtocolError if not."""
    number_bytes = 1 if len(start) < 2 or start[1] < 128 else 257 - start[1]
    rest = start[1 + number_bytes : 1 + number_bytes + len(GOB_START)]
    if not begins_gob(start) or number_bytes > 3 or not GOB_START.startswith(rest):
        raise ProtocolError("it speaks neither BitTorrent nor the original's protocol")


def _id_hash(raw: object) -> bytes:
    if isinstance(raw, bytes) and len(raw) == 40:
        try:
            return bytes.fromhex(raw.decode("ascii"))
        except ValueError:
            raise ProtocolError("a swarm id that is not hexadecimal") from None
    raise ProtocolError("a swarm id that has not 40 digits")


class GobEncoder:
    """One outgoing stream: messages as the original encodes them, in the order in which they are sent."""

    __slots__ = ("_ids", "_next_id")

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._next_id = _MESSAGE_ID + 1

    def handshake(self, id_hash: bytes, peer_id: bytes) -> bytes:
        """The first bytes of the stream."""
        parts = (PROTOCOL, id_hash.hex().encode(), peer_id)
        value = b"".join(b"\1" + text(part) for part in parts) + b"\0"
        return message(_definition(HANDSHAKE, _HANDSHAKE_ID)) + message(sint(_HANDSHAKE_ID) + value)

    def bitfield(self, have: Bitfield) -> bytes:
        """What we have: a byte a piece."""
        flags = have.bits.unpack(zero=b"\0", one=b"\1")
        return self._message(BITFIELD, b"\1" + text(flags) + b"\0" if flags else b"\0")

    def have(self, piece: int) -> bytes:
        """We have this piece now."""
        return self._message(HAVE, _indexed(piece))

    def request(self, piece: int) -> bytes:
        """We want this piece."""
        return self._message(REQUEST, _indexed(piece))

    def piece_head(self, piece: int, size: int) -> bytes:
        """A piece up to its data, which follow, and after them `PIECE_END`."""
        fields = (b"\1" + sint(piece) + b"\1" if piece else b"\2") + uint(size)
        raw, body = self._begin(PIECE)
        body += uint(len(fields) + size + 1) + fields
        return raw + uint(len(body) + size + len(PIECE_END)) + body

    def _message(self, name: str, value: bytes) -> bytes:
        raw, body = self._begin(name)
        return raw + message(body + uint(len(value)) + value + b"\0")

    def _begin(self, name: str) -> tuple[bytes, bytes]:
        """What goes ahead of the message with the value, and that up to the number of its type."""
        raw = b""
        if not self._ids:
            fields = ((b"Data", INTERFACE),)
            raw = message(struct_definition(_MESSAGE_ID, b"Message", fields))
        body = sint(_MESSAGE_ID) + b"\1" + text(name.encode())
        type_id = self._ids.get(name)
        if type_id is None:
            type_id = self._ids[name] = self._next_id
            self._next_id += 1
            # As Go does it: the definition ends the message that the value has begun.
            raw += message(body + _definition(name, type_id))
            body = b""
            if name == BITFIELD:
                raw += message(slice_definition(self._next_id, b"[]bool", BOOL))
                self._next_id += 1
        return raw, body + sint(type_id)


class GobStreams(NamedTuple):
    """Both directions of a connection, as its handshake has left them."""

    decoder: Decoder
    encoder: GobEncoder


def _definition(name: str, type_id: int) -> bytes:
    """The definition of one of the types above. The slice in a bitfield has the number after its own."""
    fields = tuple((field.encode(), kind or type_id + 1) for field, kind in _FIELDS[name])
    return struct_definition(type_id, name.rpartition(".")[2].encode(), fields)


def _indexed(piece: int) -> bytes:
    return b"\1" + sint(piece) + b"\0" if piece else b"\0"
