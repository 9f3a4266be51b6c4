"""Twelve leechers, half of them foreign: nobody is starved, ours do their share. And super-seeding to six."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.foreign import ALL
from tests.interop import race
from tests.interop.conftest import require
from tests.interop.content import MIB
from tests.interop.meeting import Meeting

SEEDER_UP = 4_000_000  # bytes per second

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]


def tell(outcome: race.Outcome, record_property: Callable[[str, object], None]) -> None:
    """The figures belong to what `make interop` prints."""
    record_property(race.PROPERTY, "\n".join(outcome.lines()))


def test_twelve_leechers_half_of_them_foreign(
    network_meeting: Meeting, record_property: Callable[[str, object], None]
) -> None:
    for kind in ALL:
        require(kind)
    outcome = race.run(network_meeting, ALL, ours=12 - len(ALL), size_bytes=96 * MIB, seeder_up=SEEDER_UP)
    tell(outcome, record_property)
    assert outcome.slowest_s <= 1.5 * outcome.median_s
    assert outcome.ratio >= 0.8


@pytest.mark.parametrize("how", ["--no-super-seed", "--super-seed"])
def test_six_foreign_leechers(
    network_meeting: Meeting, record_property: Callable[[str, object], None], how: str
) -> None:
    for kind in ALL:
        require(kind)
    outcome = race.run(
        network_meeting, ALL, ours=0, size_bytes=48 * MIB, seeder_up=SEEDER_UP, seed_options=[how]
    )
    tell(outcome, record_property)
    if how == "--super-seed":
        assert outcome.copies <= 1.4
