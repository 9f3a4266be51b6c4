"""How each message of the peer wire looks in bytes (BEP 3, 5, 6, 10): a length, a number, a body.

Encoding trusts its caller: the numbers are ours. Decoding trusts nothing: `admit` bounds the length of a
frame by what its number allows before anybody waits for its body. Numbers we do not know are let in, bounded,
and skipped, as deployed clients do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import Struct
from typing import Protocol

from microtorrd.errors import ProtocolError
from microtorrd.proto.geometry import MAX_REQUEST_BYTES
from microtorrd.proto.messages import (
    AllowedFast,
    BitfieldMessage,
    Cancel,
    Choke,
    Extended,
    Have,
    HaveAll,
    HaveNone,
    Interested,
    KeepAlive,
    Message,
    NotInterested,
    Port,
    Reject,
    Request,
    Suggest,
    Unchoke,
)

BITFIELD = 5
REQUEST = 6
PIECE = 7
REJECT = 16
EXTENDED = 20

#: Length, number, piece, begin: what stands before a block's payload.
PIECE_HEADER_BYTES = 13
REQUEST_BYTES = 17

#: The largest extended or unknown message. The largest in use, a 16 KiB piece of metadata (BEP 9), is far
#: below; a peer can make us hold as much while it sends one: times the connections it is memory we may need.
MAX_MESSAGE_BYTES = 131072

#: The largest bitfield while we do not know the torrent's piece count: as many pieces as metainfo may have.
MAX_BITFIELD_BYTES = 262144

_EMPTY = Struct(">IB")
_INDEX = Struct(">IBI")
_BLOCK = Struct(">IBIII")
_PORT = Struct(">IBH")
_PIECE = Struct(">IBII")
_EXTENDED = Struct(">IBB")

pack_piece_header = _PIECE.pack
pack_piece_header_into = _PIECE.pack_into
iter_requests = _BLOCK.iter_unpack

_KEEP_ALIVE = KeepAlive()

#: Messages without a body; one value of each is enough.
_BARE: dict[int, Message] = {
    0: Choke(),
    1: Unchoke(),
    2: Interested(),
    3: NotInterested(),
    14: HaveAll(),
    15: HaveNone(),
}
_INDEXED: dict[int, Callable[[int], Message]] = {4: Have, 13: Suggest, 17: AllowedFast}
_BLOCKS: dict[int, Callable[[int, int, int], Message]] = {REQUEST: Request, 8: Cancel, REJECT: Reject}
_NUMBERS: dict[type, int] = {
    **{type(message): number for number, message in _BARE.items()},
    **{Have: 4, Suggest: 13, AllowedFast: 17},
    **{Request: REQUEST, Cancel: 8, Reject: REJECT},
}

#: What the length field of a frame says, where its number leaves no choice.
FIXED_LENGTHS: dict[int, int] = {
    **dict.fromkeys(_BARE, 1),
    **dict.fromkeys(_INDEXED, 5),
    **dict.fromkeys(_BLOCKS, 13),
    9: 3,
}


class BlockName(Protocol):
    """Anything that says which block it is."""

    @property
    def piece(self) -> int: ...
    @property
    def begin(self) -> int: ...
    @property
    def length(self) -> int: ...


def encode(message: Message) -> bytes:
    """The frame of one message."""
    if isinstance(message, KeepAlive):
        return b"\0\0\0\0"
    if isinstance(message, Have | Suggest | AllowedFast):
        return _INDEX.pack(5, _NUMBERS[type(message)], message.piece)
    if isinstance(message, Request | Cancel | Reject):
        return _BLOCK.pack(13, _NUMBERS[type(message)], *message)
    if isinstance(message, BitfieldMessage):
        return _EMPTY.pack(1 + len(message.raw), BITFIELD) + message.raw
    if isinstance(message, Port):
        return _PORT.pack(3, 9, message.port)
    if isinstance(message, Extended):
        return _EXTENDED.pack(2 + len(message.payload), EXTENDED, message.number) + message.payload
    return _EMPTY.pack(1, _NUMBERS[type(message)])


def encode_requests(blocks: Iterable[BlockName]) -> bytes:
    """The frames that ask for these blocks, in order."""
    pack = _BLOCK.pack
    return b"".join([pack(13, REQUEST, block.piece, block.begin, block.length) for block in blocks])


def piece_header(piece: int, begin: int, length: int) -> bytes:
    """What stands on the wire before the `length` bytes of a block."""
    return _PIECE.pack(9 + length, PIECE, piece, begin)


def admit(number: int, length: int, bitfield_bytes: int | None) -> bool:
    """Is the number one we know? ProtocolError where `length`, attacker-controlled, cannot be for it."""
    fixed = FIXED_LENGTHS.get(number)
    if fixed is not None:
        if length != fixed:
            raise ProtocolError(f"message {number} has {length} bytes instead of {fixed}")
        return True
    if number == PIECE:
        # Blocks of nothing are asked for by nobody, and could be sent by the million.
        if not 9 < length <= 9 + MAX_REQUEST_BYTES:
            raise ProtocolError(f"a block of {length - 9} bytes, where 1 to {MAX_REQUEST_BYTES} may be")
        return True
    if number == BITFIELD:
        _admit_bitfield(length - 1, bitfield_bytes)
        return True
    if length > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"message {number} has {length} bytes, where at most {MAX_MESSAGE_BYTES} may be")
    if number == EXTENDED and length < 2:
        raise ProtocolError("an extended message without its number")
    return number == EXTENDED


def decode(number: int, view: memoryview, start: int, stop: int) -> Message:
    """The message of an admitted frame (not a block) whose body is `view[start:stop]`."""
    bare = _BARE.get(number)
    if bare is not None:
        return bare
    if number in _INDEXED:
        return _INDEXED[number](int.from_bytes(view[start:stop], "big"))
    if number in _BLOCKS:
        return _BLOCKS[number](*_BLOCK.unpack_from(view, start - 5)[2:])
    if number == BITFIELD:
        return BitfieldMessage(bytes(view[start:stop]))
    if number == EXTENDED:
        return Extended(view[start], bytes(view[start + 1 : stop]))
    return Port(int.from_bytes(view[start:stop], "big"))


def _admit_bitfield(size: int, expected: int | None) -> None:
    if expected is None:
        if size > MAX_BITFIELD_BYTES:
            raise ProtocolError(f"a bitfield of {size} bytes, where at most {MAX_BITFIELD_BYTES} are allowed")
    elif size != expected:
        raise ProtocolError(f"a bitfield of {size} bytes, where this torrent's has {expected}")
