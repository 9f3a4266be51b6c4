"""Padding (BEP 47): blocks of nothing but zeros are filled in here, and asked of nobody."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.core import events
from microtorrd.core.partial import Partial
from microtorrd.core.settings import SwarmSettings
from microtorrd.core.slots import PieceBuffer
from microtorrd.proto.geometry import BLOCK_BYTES as BLOCK
from microtorrd.proto.geometry import Geometry
from tests.core.rig import Rig, of


def test_a_block_of_padding_is_asked_of_nobody() -> None:
    """The second block of piece 0 is padding, and a part of the first one of piece 1, which has to come."""
    rig = Rig("..", zeros=((BLOCK, 2 * BLOCK), (3 * BLOCK - 5, 3 * BLOCK)))
    rig.join(1, "all")
    assert sorted(rig.asked(1)) == [(0, 0), (1, 0), (1, 1)]
    orders = rig.deliver(1)
    assert len(of(orders, events.Store)) == 2
    rig.stored()
    assert rig.core.have.complete


def test_pieces_of_nothing_but_padding_need_no_peer() -> None:
    rig = Rig("....", zeros=((BLOCK, 6 * BLOCK),))
    assert set(rig.storing) == {1, 2}
    assert all(not any(buffer.view) for buffer in rig.storing.values())
    rig.stored()
    assert list(rig.core.have.present()) == [1, 2]
    rig.join(1, "all")
    assert sorted(rig.asked(1)) == [(0, 0), (3, 0), (3, 1)]


def test_many_of_them_are_made_a_few_at_a_time() -> None:
    rig = Rig("." * 100, zeros=((0, 199 * BLOCK),))
    turns = 0
    while rig.storing:
        assert len(rig.storing) <= 16
        rig.stored(next(iter(rig.storing)))
        turns += 1
    assert turns == 99 and rig.core.lacking == 1


def test_they_wait_for_memory() -> None:
    rig = Rig("...", zeros=((0, 4 * BLOCK),), memory=2 * BLOCK)
    assert set(rig.storing) == {0}
    rig.stored()
    rig.do(events.MemoryFreed())
    assert set(rig.storing) == {1}


def test_the_memory_is_wiped() -> None:
    memory = memoryview(bytearray(b"\xff" * (3 * BLOCK)))
    geometry = Geometry(3 * BLOCK - 7, 3 * BLOCK, ((BLOCK - 1, 3 * BLOCK - 7),))
    buffer = PieceBuffer(0, 3 * BLOCK - 7, memory)
    partial = Partial(buffer, geometry, solo=False, now=0.0, zeros=geometry.zero_blocks(0))
    assert bytes(buffer.view) == b"\xff" * BLOCK + bytes(2 * BLOCK - 7)
    assert (partial.units, partial.left, partial.size) == (1, 1, BLOCK)
    assert partial.wasted() == 0 and partial.untouched


def test_where_padding_is_not_zeros_the_peers_say_what_it_is() -> None:
    """A metainfo whose hashes are of something else: nobody is blamed, and the piece is fetched."""
    rig = Rig("..", zeros=((0, 2 * BLOCK),))
    rig.corrupt(0)
    assert not rig.storing  # made once and no more
    rig.join(1, "all")
    assert sorted(rig.asked(1)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    rig.deliver(1)
    orders = rig.stored()
    assert rig.core.have.complete and not of(orders, events.Ban)


def test_who_sent_the_rest_of_a_wrong_piece_is_found_out() -> None:
    """What we filled in is no excuse: fetched again from one peer, the block that differs tells."""
    rig = Rig(".", zeros=((BLOCK, 2 * BLOCK),), settings=SwarmSettings(ban_after=1))
    rig.join(1, "all", host="10.0.0.1")
    rig.deliver(1)
    rig.corrupt(0, [b"bad", b"good"])
    rig.leave(1)
    rig.join(2, "all", host="10.0.0.2")
    assert rig.asked(2) == [(0, 0), (0, 1)]
    rig.deliver(2)
    orders = rig.stored()
    assert [ban.host for ban in of(orders, events.Ban)] == ["10.0.0.1"]


def test_the_figures_count_what_was_fetched() -> None:
    rig = Rig("..", zeros=((BLOCK, 2 * BLOCK),))
    rig.join(1, "all")
    rig.deliver(1)
    rig.stored()
    assert rig.core.shares.size == 3 * BLOCK
    assert rig.core.swarm.wasted_bytes == 0


def test_it_is_no_waste_when_a_piece_is_given_up() -> None:
    rig = Rig(".", blocks=3, zeros=((BLOCK, 2 * BLOCK),))
    rig.join(1, "all")
    rig.deliver(1, 1)
    rig.do(events.Stopped())
    assert rig.core.swarm.wasted_bytes == BLOCK


def test_large_blocks_leave_it_out() -> None:
    """A quick peer that serves four blocks at a time."""
    geometry = Geometry(8 * BLOCK, 8 * BLOCK, ((2 * BLOCK, 3 * BLOCK),))
    buffer = PieceBuffer(0, 8 * BLOCK, memoryview(bytearray(8 * BLOCK)))
    zeros = geometry.zero_blocks(0)
    partial = Partial(buffer, geometry, solo=False, now=0.0, block_bytes=4 * BLOCK, zeros=zeros)
    assert [block.length // BLOCK for block in partial.blocks] == [2, 1, 4, 1]
    assert [block.begin // BLOCK for block in reversed(partial.free)] == [0, 3, 7]
    assert len(partial.contributors()) == 8


RUNS = st.lists(st.integers(1, 90_000), max_size=8)


@given(gaps=RUNS, piece_length=st.sampled_from([1000, BLOCK, 40_000, 3 * BLOCK]), tail=st.integers(0, 50_000))
def test_zero_blocks_are_those_that_are_zeros(gaps: list[int], piece_length: int, tail: int) -> None:
    """Counted anew from a map of all bytes."""
    marks = bytearray()
    zeros = []
    for number, size in enumerate(gaps):
        if number % 2:
            zeros.append((len(marks), len(marks) + size))
        marks += bytes([number % 2]) * size
    marks += bytes(tail)
    geometry = Geometry(len(marks), piece_length, tuple(zeros))
    whole = []
    for piece in range(geometry.piece_count):
        offset = geometry.piece_offset(piece)
        expected = {
            begin
            for begin, length in geometry.blocks(piece)
            if all(marks[offset + begin : offset + begin + length])
        }
        runs = geometry.zero_blocks(piece)
        found = {begin for first, last in runs for begin in range(first, last, BLOCK)}
        assert found == expected
        if len(found) == geometry.block_count(piece):
            whole.append(piece)
    made = [piece for pieces in geometry.zero_pieces() for piece in pieces]
    assert made == whole


@pytest.mark.parametrize("seed", range(5))
def test_a_swarm_of_liars_and_padding_ends_well(seed: int) -> None:
    chance = random.Random(seed)
    rig = Rig("." * 8, blocks=3, zeros=((BLOCK, 7 * BLOCK), (10 * BLOCK - 1, 20 * BLOCK)), seed=seed)
    for number in (1, 2, 3):
        rig.join(number, "all", host=f"10.0.0.{number}")
    for _ in range(200):
        if rig.core.have.complete:
            break
        for number in list(rig.lent):
            rig.deliver(number, chance.randrange(3))
        for piece in list(rig.storing):
            if chance.random() < 0.2:
                rig.corrupt(piece)
            else:
                rig.stored(piece)
        rig.tick()
    assert rig.core.have.complete
