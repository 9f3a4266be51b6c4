"""The picker in pictures: a digit a piece says how many peers have it, `*` what we have, `x` an offer."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from bitarray import bitarray
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.core.picker import Availability, Picker, blank, draw


def drawn(picture: str, mark: str) -> bitarray:
    return bitarray([char == mark for char in picture], endian="big")


def picker(
    availability: str, have: str = "", *, seed: int = 1, sequential: bool = False, wanted: str = ""
) -> Picker:
    size = len(availability)
    made = Picker(
        drawn(have.ljust(size), "*"),
        chance=random.Random(seed),
        sequential=sequential,
        wanted=drawn(wanted, "w") if wanted else None,
    )
    for piece, count in enumerate(availability):
        for _ in range(int(count)):
            made.availability.add_one(piece)
    return made


def offered(picture: str) -> bitarray:
    return drawn(picture, "x")


def picks(made: Picker, offer: bitarray | None = None, times: int = 60) -> set[int | None]:
    """All that can come out."""
    return {made.pick(offer) for _ in range(times)}


@pytest.mark.parametrize(
    ("availability", "have", "offer", "expected"),
    [
        ("2123", "", None, {1}),  # the rarest
        ("2123", " *  ", None, {0, 2}),  # not what we have; any of the equals
        ("2123", "*  *", "x..x", {None}),  # nothing that it has is missing
        ("2123", "", "x.xx", {0, 2}),  # the rarest of those offered
        ("1111", "", None, {0, 1, 2, 3}),
        ("0102", "", None, {0, 2}),  # nobody but the seeder has them
        ("9876", "", None, {3}),
        ("7777", "****", None, {None}),
        ("8", "", "x", {0}),
    ],
)
def test_it_picks_the_rarest_of_what_is_offered(
    availability: str, have: str, offer: str | None, expected: set[int | None]
) -> None:
    assert picks(picker(availability, have), None if offer is None else offered(offer)) == expected


def test_a_piece_that_is_begun_is_not_picked_until_it_is_put_back() -> None:
    made = picker("123")
    made.take(0)
    assert made.pick(None) == 1
    assert made.todo_count == 2
    made.put_back(0)
    made.put_back(0)
    assert made.pick(None) == 0
    assert made.todo_count == 3


def test_a_piece_that_is_here_is_needed_no_more() -> None:
    made = picker("12")
    made.take(0)
    assert made.got(0)
    assert not made.got(0)
    made.put_back(0)
    assert (made.needed_count, made.todo_count, made.pick(None)) == (1, 1, 1)


def test_in_order_the_first_goes_first_however_common() -> None:
    assert picker("9191", "*   ", sequential=True).pick(None) == 1
    assert picker("9191", sequential=True).pick(offered("..xx")) == 2


def test_unwanted_pieces_are_neither_needed_nor_picked() -> None:
    made = picker("1234", wanted=".w.w")
    assert made.needed_count == 2
    assert picks(made) == {1}


def test_a_hint_decides_among_equals_and_never_against_rarity() -> None:
    made = picker("11111112")
    assert all(made.pick(None, hints=[7, 4, 2]) == 4 for _ in range(20))


def test_seeders_do_not_change_the_order() -> None:
    made = picker("2123")
    made.availability.seeds += 5
    assert made.availability[0] == 7
    assert made.pick(None) == 1


@pytest.mark.parametrize("members", ["x", "xx..x", "x" + "." * 999 + "x", ("x" + "." * 30) * 20, "x" * 500])
def test_the_lot_reaches_every_member_and_nobody_else(members: str) -> None:
    bits = offered(members)
    chance = random.Random(3)
    count = bits.count()
    draws = Counter(draw(bits, chance) for _ in range(60 * count))
    assert set(draws) == set(bits.search(1))
    assert min(draws.values()) > 15  # 60 on average


@given(
    st.integers(1, 70).flatmap(
        lambda size: st.tuples(
            st.just(size),
            st.lists(
                st.one_of(
                    st.tuples(st.just("add"), st.integers(0, (1 << size) - 1)),
                    st.tuples(st.just("one"), st.integers(0, size - 1)),
                    st.tuples(st.just("remove"), st.integers(0, 30)),
                    st.tuples(st.just("less"), st.integers(0, size - 1)),
                ),
                max_size=40,
            ),
        )
    )
)
def test_counts_in_planes_are_plain_counts(case: tuple[int, list[tuple[str, int]]]) -> None:
    size, steps = case
    availability, counts, added = Availability(size), [0] * size, []
    for step, value in steps:
        if step == "add":
            bits = bitarray([value >> piece & 1 for piece in range(size)], endian="big")
            before = bits.copy()
            availability.add(bits)
            assert bits == before
            added.append(bits)
            counts = [count + bits[piece] for piece, count in enumerate(counts)]
        elif step == "one":
            availability.add_one(value)
            counts[value] += 1
            added.append(bitarray([piece == value for piece in range(size)], endian="big"))
        elif step == "remove" and added:
            bits = added.pop(value % len(added))
            availability.remove(bits)
            counts = [count - bits[piece] for piece, count in enumerate(counts)]
        elif step == "less" and (single := next((b for b in added if b.count() == 1 and b[value]), None)):
            added.remove(single)
            availability.remove_one(value)
            counts[value] -= 1
    assert [availability[piece] for piece in range(size)] == counts
    everything = blank(size, 1)
    rarest = availability.rarest(everything)
    assert list(rarest.search(1)) == [piece for piece in range(size) if counts[piece] == min(counts)]
    assert everything.all()
    assert list(availability.unowned().search(1)) == [piece for piece in range(size) if not counts[piece]]
