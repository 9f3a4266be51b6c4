"""Messages of `ut_metadata` (BEP 9): asking for the info dictionary in pieces of 16 KiB, and giving it.

They travel as extended messages (BEP 10): a bencoded dictionary, and behind that of `data` the bytes of the
piece. Everything is attacker-controlled; ProtocolError is all that comes out of `decode`. A kind of message
that we do not know is no fault: BEP 9 wants it ignored.
"""

from __future__ import annotations

from typing import NamedTuple

from microtorrd.errors import ProtocolError
from microtorrd.proto.bencode import BencodeError, decode_document, encode
from microtorrd.proto.extended import MAX_METADATA_BYTES

#: What the extension is called in the extended handshake, and the number we want its messages to have.
NAME = "ut_metadata"
NUMBER = 2

PIECE_BYTES = 16384

#: The dictionary of a message has some 50 bytes.
_MAX_HEAD_BYTES = 1024
_REQUEST, _DATA, _REJECT = range(3)


class MetadataRequest(NamedTuple):
    """Send me this piece of the metadata."""

    piece: int


class MetadataData(NamedTuple):
    """Here it is. `total_bytes` is the size of the whole metadata, None where the peer does not say."""

    piece: int
    total_bytes: int | None
    raw: bytes


class MetadataReject(NamedTuple):
    """I have it not, or do not give it now."""

    piece: int


MetadataMessage = MetadataRequest | MetadataData | MetadataReject


def piece_count(size: int) -> int:
    """How many pieces metadata of this size has."""
    return -(-size // PIECE_BYTES)


def piece_size(size: int, piece: int) -> int:
    """The bytes of one piece: all have 16 KiB but the last."""
    return min(PIECE_BYTES, size - piece * PIECE_BYTES)


def encode_metadata(message: MetadataMessage) -> bytes:
    """The payload of the extended message."""
    if isinstance(message, MetadataRequest):
        return encode({b"msg_type": _REQUEST, b"piece": message.piece})
    if isinstance(message, MetadataReject):
        return encode({b"msg_type": _REJECT, b"piece": message.piece})
    head: dict[bytes, int] = {b"msg_type": _DATA, b"piece": message.piece}
    if message.total_bytes is not None:
        head[b"total_size"] = message.total_bytes
    return encode(head) + message.raw


def decode_metadata(raw: bytes) -> MetadataMessage | None:
    """Read the payload of an extended message; None for a kind that we do not know."""
    if len(raw) > PIECE_BYTES + _MAX_HEAD_BYTES:
        raise ProtocolError(f"a metadata message of {len(raw)} bytes")
    try:
        document = decode_document(raw, max_depth=4, max_items=64)
    except BencodeError as error:
        raise ProtocolError(f"its metadata message: {error}") from error
    head = document.value
    if not isinstance(head, dict):
        raise ProtocolError("its metadata message is no dictionary")
    kind, piece = head.get(b"msg_type"), head.get(b"piece")
    if not isinstance(kind, int) or not isinstance(piece, int):
        raise ProtocolError("its metadata message has no msg_type or no piece")
    if kind not in (_REQUEST, _DATA, _REJECT):
        return None
    if not 0 <= piece < piece_count(MAX_METADATA_BYTES):
        raise ProtocolError(f"metadata has no piece {piece}")
    if kind == _REQUEST:
        return MetadataRequest(piece)
    if kind == _REJECT:
        return MetadataReject(piece)
    total = head.get(b"total_size")
    if total is not None and (not isinstance(total, int) or not 0 < total <= MAX_METADATA_BYTES):
        raise ProtocolError("metadata of an absurd size")
    body = raw[document.consumed :]
    if not 0 < len(body) <= PIECE_BYTES:
        raise ProtocolError(f"a piece of metadata of {len(body)} bytes")
    return MetadataData(piece, total, body)
