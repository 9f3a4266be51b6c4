"""Index arithmetic: known shapes in a table, and what must hold for every shape."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.errors import ProtocolError
from microtorrd.proto.geometry import BLOCK_BYTES, MAX_REQUEST_BYTES, Geometry

MIB = 1 << 20


@pytest.mark.parametrize(
    ("length", "piece_length", "sizes", "bitfield_bytes"),
    [
        (0, 16, [], 0),
        (1, 16, [1], 1),
        (16, 16, [16], 1),
        (17, 16, [16, 1], 1),
        (40, 16, [16, 16, 8], 1),
        (9, 1, [1] * 9, 2),
        (5, 1 << 40, [5], 1),
    ],
)
def test_known_shapes(length: int, piece_length: int, sizes: list[int], bitfield_bytes: int) -> None:
    geometry = Geometry(length, piece_length)
    assert geometry.piece_count == len(sizes)
    assert [geometry.piece_size(piece) for piece in range(geometry.piece_count)] == sizes
    assert geometry.bitfield_bytes == bitfield_bytes
    assert geometry.max_piece_bytes == max(sizes, default=0)


def test_blocks_of_an_uneven_piece() -> None:
    geometry = Geometry(BLOCK_BYTES * 3 + 5, BLOCK_BYTES * 2)
    assert geometry.blocks(0) == [(0, BLOCK_BYTES), (BLOCK_BYTES, BLOCK_BYTES)]
    assert geometry.blocks(1) == [(0, BLOCK_BYTES), (BLOCK_BYTES, 5)]
    assert geometry.block_count(1) == 2


@given(length=st.integers(0, 5 * MIB), piece_length=st.integers(7000, 6 * MIB))
def test_pieces_and_blocks_cover_the_content_once(length: int, piece_length: int) -> None:
    geometry = Geometry(length, piece_length)
    at = 0
    for piece in range(geometry.piece_count):
        assert geometry.piece_offset(piece) == at
        blocks = geometry.blocks(piece)
        assert len(blocks) == geometry.block_count(piece)
        for begin, size in blocks:
            assert geometry.piece_offset(piece) + begin == at
            assert 0 < size <= BLOCK_BYTES
            assert geometry.admit_request(piece, begin, size) == (piece, begin, size)
            at += size
    assert at == length


@pytest.mark.parametrize(("length", "piece_length"), [(-1, 16), (1, 0), (1, -5)])
def test_a_shape_that_cannot_be(length: int, piece_length: int) -> None:
    with pytest.raises(ValueError, match="cannot have"):
        Geometry(length, piece_length)


def test_pieces_within_a_span() -> None:
    geometry = Geometry(100, 10)
    assert list(geometry.pieces_within(0, 0)) == []
    assert list(geometry.pieces_within(9, 1)) == [0]
    assert list(geometry.pieces_within(9, 2)) == [0, 1]
    assert list(geometry.pieces_within(10, 90)) == list(range(1, 10))


@pytest.mark.parametrize("piece", [-1, 3, 4, 1 << 32])
def test_a_piece_outside_is_not_admitted(piece: int) -> None:
    with pytest.raises(ProtocolError, match="outside"):
        Geometry(40, 16).admit_piece(piece)


def test_no_piece_of_empty_content_is_admitted() -> None:
    with pytest.raises(ProtocolError):
        Geometry(0, 16).admit_piece(0)


def test_admitted_requests_need_no_block_borders() -> None:
    geometry = Geometry(MIB + 100, MIB)
    assert geometry.admit_piece(1) == 1
    assert geometry.admit_request(0, 17, 4) == (0, 17, 4)
    assert geometry.admit_request(0, MIB - MAX_REQUEST_BYTES, MAX_REQUEST_BYTES)
    assert geometry.admit_request(1, 0, 100)


@pytest.mark.parametrize(
    ("piece", "begin", "length"),
    [
        (0, 0, 0),
        (0, 0, -1),
        (0, 0, MAX_REQUEST_BYTES + 1),
        (0, -1, 16),
        (0, MIB, 1),
        (0, MIB - 15, 16),
        (0, 0xFFFFFFFF, 16),
        (1, 0, 101),
        (1, 100, 1),
        (2, 0, 1),
    ],
)
def test_a_request_outside_is_not_admitted(piece: int, begin: int, length: int) -> None:
    with pytest.raises(ProtocolError):
        Geometry(MIB + 100, MIB).admit_request(piece, begin, length)
