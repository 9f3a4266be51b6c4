"""Bitfields: known bytes, and a list of booleans as the model for everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.errors import ProtocolError
from microtorrd.proto.bitfield import Bitfield

BITS = st.lists(st.booleans(), max_size=70)


def bitfield(bits: list[bool]) -> Bitfield:
    made = Bitfield(len(bits))
    for piece, bit in enumerate(bits):
        if bit:
            made.set(piece)
    return made


@pytest.mark.parametrize(
    ("present", "size", "raw"),
    [([], 0, b""), ([0], 1, b"\x80"), ([7], 8, b"\x01"), ([8], 9, b"\x00\x80"), ([0, 2, 9], 10, b"\xa0\x40")],
)
def test_known_bytes_both_ways(present: list[int], size: int, raw: bytes) -> None:
    read = Bitfield.from_bytes(raw, size)
    assert list(read.present()) == present
    assert read.to_bytes() == raw
    assert len(read) == size


@given(BITS)
def test_agrees_with_a_list_of_booleans(bits: list[bool]) -> None:
    ours = bitfield(bits)
    assert [ours[piece] for piece in range(len(bits))] == bits
    assert ours.count == sum(bits)
    assert ours.complete is all(bits)
    assert list(ours.missing()) == [piece for piece, bit in enumerate(bits) if not bit]
    again = Bitfield.from_bytes(ours.to_bytes(), len(bits))
    assert again == ours
    assert again.count == ours.count


@given(BITS, st.data())
def test_the_count_follows_every_change(bits: list[bool], data: st.DataObject) -> None:
    ours = bitfield(bits)
    for piece in data.draw(st.lists(st.integers(0, len(bits) - 1), max_size=20) if bits else st.just([])):
        if data.draw(st.booleans()):
            assert ours.set(piece) is not bits[piece]
            bits[piece] = True
        else:
            assert ours.clear(piece) is bits[piece]
            bits[piece] = False
        assert ours.count == sum(bits) == ours.bits.count()


def test_full_and_copy() -> None:
    full = Bitfield.full(13)
    assert full.complete
    assert full.count == 13
    assert full.to_bytes() == b"\xff\xf8"
    twin = full.copy()
    twin.clear(3)
    assert full.complete
    assert not twin.complete
    assert full != twin


def test_missing_can_be_filled_while_it_is_walked() -> None:
    ours = Bitfield(20)
    for piece in ours.missing():
        ours.set(piece)
    assert ours.complete


def test_of_no_pieces_is_complete() -> None:
    assert Bitfield(0).complete
    assert Bitfield.from_bytes(b"", 0).complete


@pytest.mark.parametrize(("raw", "size"), [(b"", 1), (b"\x00", 0), (b"\x00\x00", 8), (b"\x00", 9)])
def test_a_wrong_length_is_refused(raw: bytes, size: int) -> None:
    with pytest.raises(ProtocolError, match="bytes"):
        Bitfield.from_bytes(raw, size)


@pytest.mark.parametrize(("raw", "size"), [(b"\x01", 7), (b"\xff", 1), (b"\xff\x40", 9)])
def test_spare_bits_are_refused(raw: bytes, size: int) -> None:
    with pytest.raises(ProtocolError, match="spare"):
        Bitfield.from_bytes(raw, size)


def test_an_index_outside_is_an_error() -> None:
    with pytest.raises(IndexError):
        Bitfield(3).set(3)
