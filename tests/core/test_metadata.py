"""How metadata comes together: from several peers, from one at a time, and in spite of the unwilling."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtorrd.core.metadata import ANSWER_S, PIPELINE, REFUSED_S, STRIKES_MAX, Assembly
from microtorrd.errors import ProtocolError
from microtorrd.proto.metadata import PIECE_BYTES

SIZE = 9 * PIECE_BYTES + 5
RAW = random.Random(3).randbytes(SIZE)
WRONG = bytes(SIZE)


def piece(number: int, raw: bytes = RAW) -> bytes:
    return raw[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]


def assembly(*peers: int, alone: bool = False) -> Assembly:
    made = Assembly(SIZE, alone=alone)
    for peer in peers:
        made.add(peer)
    return made


def answer(made: Assembly, raws: dict[int, bytes], now: float = 0.0) -> bool:
    """Everybody answers what is asked, as long as anything is; True: it is whole."""
    while asked := made.wants(now):
        for peer, number in asked:
            if made.received(peer, number, piece(number, raws[peer])):
                return True
    return False


def test_several_peers_are_asked_for_different_pieces() -> None:
    made = assembly(1, 2)
    asked = made.wants(0.0)
    assert sorted(number for _, number in asked) == list(range(2 * PIPELINE))
    assert [sum(peer == who for peer, _ in asked) for who in (1, 2)] == [PIPELINE, PIPELINE]
    assert made.wants(0.0) == []
    for peer, number in asked:
        assert not made.received(peer, number, piece(number))
    assert answer(made, {1: RAW, 2: RAW})
    assert (made.whole(), made.givers, made.progress) == (RAW, {1, 2}, 1.0)


def test_after_a_wrong_one_each_is_asked_alone_and_the_liar_stands_out() -> None:
    made = assembly(1, 2)
    raws = {1: WRONG, 2: RAW}
    assert answer(made, raws)
    assert made.whole() != RAW
    assert made.givers == {1, 2}
    made.spoiled()
    found = []
    for _ in range(2):
        assert answer(made, raws)
        whole = made.whole()
        (giver,) = made.givers
        found.append((giver, whole == RAW))
        if whole != RAW:
            made.spoiled()
            made.remove(giver)
    assert (2, True) in found


def test_what_is_late_is_asked_of_another_and_counts_when_it_comes() -> None:
    made = assembly(1)
    first = made.wants(0.0)
    made.add(2)
    made.wants(0.0)
    assert made.look_after(ANSWER_S / 2) == []
    now = ANSWER_S + 1
    made.received(2, 4, piece(4))
    assert made.look_after(now) == []
    again = made.wants(now)
    assert {number for peer, number in again if peer == 2} <= {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
    assert made.received(1, first[0][1], piece(first[0][1])) is False
    assert made.progress == pytest.approx(0.2)


def test_who_never_answers_is_given_up() -> None:
    made = assembly(1)
    now, given_up = 0.0, []
    for _ in range(2 * STRIKES_MAX):
        made.wants(now)
        now += max(ANSWER_S, REFUSED_S) + 1
        given_up += made.look_after(now)
    assert given_up[0] == 1
    assert assembly().look_after(now) == []


def test_a_refusal_sends_us_to_others_and_back_later() -> None:
    made = assembly(1)
    for peer, number in made.wants(0.0):
        made.rejected(peer, number, 0.0)
    made.rejected(7, 0, 0.0)
    assert made.wants(1.0) == []
    made.add(2)
    assert {peer for peer, _ in made.wants(1.0)} == {2}
    assert {peer for peer, _ in made.wants(REFUSED_S + 1)} == {1}


def test_alone_the_next_one_begins_from_the_beginning() -> None:
    made = assembly(1, 2, alone=True)
    asked = made.wants(0.0)
    assert {peer for peer, _ in asked} == {1}
    made.received(1, 0, piece(0))
    made.rejected(1, 1, 0.0)
    assert made.progress == 0.0
    of_two = made.wants(0.0)
    assert {peer for peer, _ in of_two} == {2}
    assert made.received(1, 2, piece(2, WRONG)) is False  # late: it is not its turn any more
    assert made.progress == 0.0
    for peer, number in of_two:
        made.received(peer, number, piece(number))
    assert answer(made, {2: RAW})
    assert (made.whole(), made.givers) == (RAW, {2})


def test_it_stays_whole_when_those_who_gave_it_leave() -> None:
    made = assembly(1, alone=True)
    assert answer(made, {1: RAW})
    whole = made.whole()
    made.remove(1)
    assert (whole, made.givers) == (RAW, {1})
    assert made.wants(0.0) == []


@pytest.mark.parametrize(
    ("number", "raw"), [(0, b"short"), (9, piece(0)), (10, b"x"), (4095, b"x"), (8, piece(8))]
)
def test_what_cannot_be_right_is_a_fault(number: int, raw: bytes) -> None:
    made = assembly(1)
    assert {number for _, number in made.wants(0.0)} == {0, 1, 2, 3}
    with pytest.raises(ProtocolError):
        made.received(1, number, raw)


@settings(max_examples=60)
@given(st.data())
def test_whatever_happens_it_ends_when_one_honest_peer_stays(data: st.DataObject) -> None:
    chance = random.Random(data.draw(st.integers(0, 1 << 30)))
    made = assembly(0, alone=data.draw(st.booleans()))
    for _ in range(200):
        peer, now = chance.randrange(1, 4), chance.random() * 100
        match chance.randrange(5):
            case 0:
                made.add(peer)
            case 1:
                made.remove(peer)
            case 2:
                for who, number in made.wants(now):
                    if chance.random() < 0.5 and made.received(
                        who, number, piece(number, WRONG if who else RAW)
                    ):
                        made.whole()
                        made.spoiled()
                        break
            case 3:
                made.rejected(peer, chance.randrange(10), now)
            case 4:
                made.look_after(now)
    for liar in (1, 2, 3):
        made.remove(liar)
    now = 1000.0
    for _ in range(10):
        made.look_after(now)
        if answer(made, {0: RAW}, now) and made.whole() == RAW:
            return
        if made.judging:
            made.spoiled()
        now += 20.0
    raise AssertionError("it never ends")
