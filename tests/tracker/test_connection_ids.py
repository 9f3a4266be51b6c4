"""Connection ids: good for the host that got them, for two minutes, and for nobody and nothing else."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.tracker.connection_ids import EPOCH_S, EPOCHS_BACK, ConnectionIds

HOST, OTHER = b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x02"
HOST6 = b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01"

times = st.floats(0, 1e9)
hosts = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)


def make(seed: int = 1) -> ConnectionIds:
    return ConnectionIds(Random(seed).randbytes)


@given(hosts, times, st.floats(0, 120))
def test_good_for_two_minutes(host: bytes, now: float, later_s: float) -> None:
    ids = make()
    assert ids.is_good(ids.give(host, now), host, now + later_s)


@given(hosts, times, st.floats(141, 1e6))
def test_not_for_much_longer(host: bytes, now: float, later_s: float) -> None:
    ids = make()
    assert not ids.is_good(ids.give(host, now), host, now + later_s)


@given(hosts, hosts, times)
def test_not_for_another_host(host: bytes, other: bytes, now: float) -> None:
    ids = make()
    assert ids.is_good(ids.give(host, now), other, now) == (host == other)


@given(st.integers(0, 2**64 - 1), times)
def test_what_was_never_given_is_not_good(connection: int, now: float) -> None:
    ids = make()
    assert not ids.is_good(connection, HOST, now)  # without any key at all
    given_id = ids.give(HOST, now)
    assert ids.is_good(connection, HOST, now) == (connection == given_id)


@given(st.integers(0, 63))
def test_every_bit_counts(bit: int) -> None:
    ids = make()
    for age in range(EPOCHS_BACK + 1):
        ids.give(OTHER, 1000 + age * EPOCH_S)  # so that there is a key for each epoch
    now = 1000 + EPOCHS_BACK * EPOCH_S
    assert not ids.is_good(ids.give(HOST, now) ^ (1 << bit), HOST, now)


def test_the_key_changes() -> None:
    ids = make()
    numbers = [ids.give(HOST, epoch * EPOCH_S) for epoch in range(100)]
    assert len(set(numbers)) == 100
    assert len({number >> 3 for number in numbers}) == 100
    good = [number for number in numbers if ids.is_good(number, HOST, 99 * EPOCH_S)]
    assert good == numbers[-EPOCHS_BACK - 1 :]


def test_within_an_epoch_a_host_has_one() -> None:
    ids = make()
    assert ids.give(HOST, 1000) == ids.give(HOST, 1000 + EPOCH_S - 0.1)
    assert ids.give(HOST, 1000) != ids.give(OTHER, 1000) != ids.give(HOST6, 1000)


def test_another_tracker_gives_others() -> None:
    now = 5.0
    assert not make(2).is_good(make(1).give(HOST, now), HOST, now)


def test_keys_are_drawn_whole_and_not_kept() -> None:
    drawn: list[int] = []
    chance = Random(1)

    def draw(count: int) -> bytes:
        drawn.append(count)
        return chance.randbytes(count)

    ids = ConnectionIds(draw)
    for second in range(0, 2000, 5):
        ids.give(HOST, second)
    assert drawn == [64] * 100  # one for each 20 s
    assert len(ids._keys) == EPOCHS_BACK + 1


@pytest.mark.parametrize("silence_s", [140.0, 160.0, 161.0, 1e7])
def test_after_a_silence_old_ones_are_not_good_again(silence_s: float) -> None:
    """The last bits of the epochs come round every 160 s."""
    ids = make()
    old = ids.give(HOST, 1000.0)
    ids.give(HOST, 1000.0 + silence_s)
    assert not ids.is_good(old, HOST, 1000.0 + silence_s)
