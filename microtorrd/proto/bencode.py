"""Bencode (BEP 3): the only door to the bencode library, and a stricter one than the library itself.

The library takes what it should not: `i1_0e`, repeated keys, strings that end early, any size. So every
input is walked first, without recursion and without building anything, and only what passed is handed to it.
Refused are: numbers and lengths that are not written canonically, numbers beyond `MAX_DIGITS` digits,
repeated keys, values nested deeper, longer or more numerous than the caller allows. Unsorted keys pass unless
`require_sorted`: old torrents have them, and nothing is lost because hashes are taken of raw spans, never of
a re-encoding.

Rule: whatever the bytes, nothing but BencodeError comes out.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple, TypeAlias

from bencodepy import BencodeDecodeError, BencodeDecoder, BencodeEncoder

from microtorrd.errors import MicrotorrError

Value: TypeAlias = "int | bytes | list[Value] | dict[bytes, Value]"

#: The file tree of a hybrid torrent nests once a directory; this is what other clients allow, too.
MAX_DEPTH = 100
MAX_BYTES = 64 << 20
#: Values and keys together. An empty list costs 2 bytes of input and 64 of memory: this is the bound on that.
MAX_ITEMS = 3_000_000
#: Enough for any 64-bit number.
MAX_DIGITS = 20

_DICT, _END, _INT, _LIST = b"deil"
_ZERO, _NINE = b"09"


#: The library's objects keep no state between calls, but each refers to itself: one for every message would
#: be a kilobyte of rubbish that only the cyclic collector finds.
_ENCODER = BencodeEncoder()


@cache
def _decoder(max_depth: int) -> BencodeDecoder:
    """The walk has bounded the depth; the library's own bound must not be the narrower one."""
    return BencodeDecoder(max_depth=max_depth)


class BencodeError(MicrotorrError, ValueError):
    """The bytes are no acceptable bencode (or, on the way out, the value has no bencode)."""


class Document(NamedTuple):
    """What stood at the start of some bytes."""

    value: Value
    consumed: int  # bytes
    spans: dict[
        bytes, tuple[int, int]
    ]  # where a dictionary's values stand: start, end; empty for other values


def decode(
    raw: bytes,
    *,
    max_depth: int = MAX_DEPTH,
    max_bytes: int = MAX_BYTES,
    max_items: int = MAX_ITEMS,
    require_sorted: bool = False,
) -> Value:
    """The one value that `raw` is, with keys and strings as bytes. BencodeError for anything else."""
    document = decode_document(
        raw, max_depth=max_depth, max_bytes=max_bytes, max_items=max_items, require_sorted=require_sorted
    )
    if document.consumed != len(raw):
        raise BencodeError(
            f"{len(raw) - document.consumed} bytes follow the value, which ends at byte {document.consumed}"
        )
    return document.value


def decode_document(
    raw: bytes,
    *,
    max_depth: int = MAX_DEPTH,
    max_bytes: int = MAX_BYTES,
    max_items: int = MAX_ITEMS,
    require_sorted: bool = False,
) -> Document:
    """The value that `raw` begins with, its size, and where the values of its top level stand in `raw`."""
    if len(raw) > max_bytes:
        raise BencodeError(f"{len(raw)} bytes, where at most {max_bytes} are allowed")
    consumed, spans = _walk(raw, max_depth=max_depth, max_items=max_items, require_sorted=require_sorted)
    try:
        value: Value = _decoder(max_depth).decode(raw if consumed == len(raw) else raw[:consumed])
    except BencodeDecodeError as error:
        raise BencodeError(f"not decodable: {error}") from error
    return Document(value, consumed, spans)


def encode(value: object) -> bytes:
    """The canonical bencode of bytes, str (as UTF-8), int, list, tuple, and dict with bytes or str keys."""
    try:
        encoded: bytes = _ENCODER.encode(value)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BencodeError(f"not encodable: {error}") from error
    return encoded


def _walk(
    raw: bytes, *, max_depth: int, max_items: int, require_sorted: bool
) -> tuple[int, dict[bytes, tuple[int, int]]]:
    """Walk over the value at the start of `raw`: where it ends, and the spans of a dictionary's values."""
    spans: dict[bytes, tuple[int, int]] = {}
    outer: list[dict[bytes, None] | None] = []  # the containers around the innermost one, outermost first
    keys: dict[bytes, None] | None = None  # the keys so far of the innermost container, None if it is a list
    depth = items = at = 0
    top_key, top_start = b"", 0
    size = len(raw)
    while True:
        if at >= size:
            raise BencodeError(f"ends at byte {size} in the middle of a value")
        token = raw[at]
        closing = token == _END and depth > 0
        if keys is not None and not closing:
            if not _ZERO <= token <= _NINE:
                raise BencodeError(f"byte {at}: a key must be a string")
            begin, at = _string(raw, at, size)
            key = raw[begin:at]
            if key in keys:
                raise BencodeError(f"byte {begin}: the key {key[:40]!r} stands there twice")
            if require_sorted and keys and key < next(reversed(keys)):
                raise BencodeError(f"byte {begin}: the key {key[:40]!r} is not in order")
            keys[key] = None
            items += 1
            if depth == 1:
                top_key, top_start = key, at
            if at >= size:
                raise BencodeError(f"ends at byte {size} in the middle of a value")
            token = raw[at]
            if token == _END:
                raise BencodeError(f"byte {at}: the key {key[:40]!r} has no value")
        if closing:
            keys = outer.pop()
            depth -= 1
            at += 1
        else:
            items += 1
            if items > max_items:
                raise BencodeError(f"byte {at}: more than {max_items} values")
            if _ZERO <= token <= _NINE:
                _, at = _string(raw, at, size)
            elif token == _INT:
                at = _integer(raw, at)
            elif token in (_DICT, _LIST):
                if depth == max_depth:
                    raise BencodeError(f"byte {at}: nested deeper than {max_depth} levels")
                outer.append(keys)
                keys = {} if token == _DICT else None
                depth += 1
                at += 1
                continue
            else:
                raise BencodeError(f"byte {at}: no value begins with {raw[at : at + 1]!r}")
        # A value ends here.
        if depth == 0:
            return at, spans
        if depth == 1 and keys is not None:
            spans[top_key] = (top_start, at)


def _string(raw: bytes, at: int, size: int) -> tuple[int, int]:
    """Where the bytes of the string at `at` begin and end."""
    colon = raw.find(b":", at, at + MAX_DIGITS)
    digits = raw[at:colon]
    # Without a colon `digits` runs to the byte before the end of `raw`; it may then even be all digits.
    if colon < 0 or not digits.isdigit() or (digits[0] == _ZERO and len(digits) > 1):
        raise BencodeError(f"byte {at}: not the length of a string")
    end = colon + 1 + int(digits)
    if end > size:
        raise BencodeError(f"byte {at}: a string of {int(digits)} bytes runs past the end")
    return colon + 1, end


def _integer(raw: bytes, at: int) -> int:
    """Where the number at `at` ends."""
    end = raw.find(b"e", at + 1, at + MAX_DIGITS + 3)
    text = raw[at + 1 : end] if end > 0 else b""
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or (digits[0] == _ZERO and text != b"0") or len(digits) > MAX_DIGITS:
        raise BencodeError(f"byte {at}: not a canonical number of at most {MAX_DIGITS} digits")
    return end + 1
