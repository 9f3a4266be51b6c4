"""Messages of ut_metadata: both ways, and garbage in their shape."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.errors import ProtocolError
from microtorrd.proto.metadata import (
    PIECE_BYTES,
    MetadataData,
    MetadataMessage,
    MetadataReject,
    MetadataRequest,
    decode_metadata,
    encode_metadata,
    piece_count,
    piece_size,
)

TABLE: tuple[tuple[MetadataMessage, bytes], ...] = (
    (MetadataRequest(0), b"d8:msg_typei0e5:piecei0ee"),
    (MetadataReject(7), b"d8:msg_typei2e5:piecei7ee"),
    (MetadataData(1, 34256, b"xyz"), b"d8:msg_typei1e5:piecei1e10:total_sizei34256eexyz"),
    (MetadataData(1, None, b"e"), b"d8:msg_typei1e5:piecei1eee"),
)

BAD = (
    b"",
    b"le",
    b"de",
    b"d8:msg_typei1ee",
    b"d8:msg_type1:15:piecei0ee",
    b"d8:msg_typei0e5:piecei-1ee",
    b"d8:msg_typei0e5:piecei4096ee",
    b"d8:msg_typei1e5:piecei0e10:total_sizei0eex",
    b"d8:msg_typei1e5:piecei0e10:total_sizei99999999999eex",
    b"d8:msg_typei1e5:piecei0e10:total_size1:9ex",
    b"d8:msg_typei1e5:piecei0e10:total_sizei9ee",
    b"d8:msg_typei1e5:piecei0ee" + bytes(PIECE_BYTES + 1),
    bytes(20_000),
    b"l" * 10_000,
)


@pytest.mark.parametrize(("message", "raw"), TABLE)
def test_both_ways(message: MetadataMessage, raw: bytes) -> None:
    assert encode_metadata(message) == raw
    assert decode_metadata(raw) == message


@pytest.mark.parametrize("raw", BAD)
def test_what_cannot_be(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_metadata(raw)


def test_a_kind_that_is_unknown_is_ignored() -> None:
    assert decode_metadata(b"d8:msg_typei9e5:piecei0ee") is None


def test_sizes() -> None:
    assert [piece_count(size) for size in (1, PIECE_BYTES, PIECE_BYTES + 1)] == [1, 1, 2]
    assert [piece_size(PIECE_BYTES + 5, piece) for piece in (0, 1)] == [PIECE_BYTES, 5]


_SHAPED = st.lists(
    st.sampled_from([b"d", b"e", b"8:msg_type", b"5:piece", b"10:total_size", b"i0e", b"i1e", b"i-5e", b"l"])
    | st.binary(max_size=4),
    max_size=12,
).map(b"".join)


@given(_SHAPED)
def test_only_protocol_errors_come_out(raw: bytes) -> None:
    try:
        message = decode_metadata(raw)
    except ProtocolError:
        return
    if message is not None:
        assert decode_metadata(encode_metadata(message)) == message
