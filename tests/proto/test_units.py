"""Sizes, rates and times as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.proto.units import parse_duration, parse_rate, parse_size, spell_duration, spell_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("123", 123),
        ("7 B", 7),
        ("64 MiB", 64 * 1024**2),
        ("64MiB", 64 * 1024**2),
        (" 1.5 KiB ", 1536),
        ("3 MB", 3_000_000),
        ("3mb", 3_000_000),
        ("2 kB", 2000),
        ("2 KB", 2000),
        (".5 GiB", 1 << 29),
        ("1 TiB", 1 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("0", 0),
        ("none", 0),
        ("3 MB/s", 3_000_000),
        ("3 MB", 3_000_000),
        ("300 KiB/s", 300 * 1024),
        ("20 Mbit/s", 2_500_000),
        ("8 bit/s", 1),
        ("1 Gbit", 125_000_000),
    ],
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [("0", 0), ("90", 90), ("1.5 s", 1.5), ("15 min", 900), ("2 h", 7200), ("1 d", 86400), ("250ms", 0.25)],
)
def test_durations(text: str, duration_s: float) -> None:
    assert parse_duration(text) == duration_s


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "does not begin with a number"),
        ("-1", "does not begin with a number"),
        ("MB", "does not begin with a number"),
        ("1e3", "unit 'e3'"),
        ("3 M", "write MB (1000) or MiB (1024)"),
        ("3 k", "write kB (1000) or KiB (1024)"),
        ("3 Mb", "write MB for bytes, Mbit for bits"),
        ("3 MB/s", "unknown"),
        ("3 parsecs", "unit 'parsecs'"),
        ("99999999 TB", "is more than"),
        ("٣ MB", "does not begin with a number"),
    ],
)
def test_a_size_that_is_none_says_what_would_be_right(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_size(text)
    assert hint in str(caught.value)


def test_an_ambiguous_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="Mbit for bits"):
        parse_rate("3 Mb/s")


@pytest.mark.parametrize("text", ["", "5 m", "5 fortnights", "soon"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"number|unit"):
        parse_duration(text)


@given(st.integers(0, 2**60))
def test_what_is_spelled_is_read_back(number: int) -> None:
    size = number >> (number % 50)
    assert abs(parse_size(spell_size(size)) - size) <= size >> 52  # a float has 53 bits
    if number < 2**31:
        assert parse_duration(spell_duration(float(number))) == pytest.approx(number, rel=1e-5)


@given(st.text(max_size=20))
def test_nothing_but_value_errors(text: str) -> None:
    for parse in (parse_size, parse_rate, parse_duration):
        try:
            assert parse(text) >= 0
        except ValueError as error:
            assert str(error)
