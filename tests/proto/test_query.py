"""Query strings as bytes: escapes, repeated names, ids and numbers."""

from __future__ import annotations

from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.errors import ClientError
from microtorrd.proto.query import all_values, read_number, read_swarm_id, split_query, unescape


@given(st.binary(max_size=60), st.sampled_from(["", "!*'()~", "+/:@\\"]))
def test_whatever_bytes_were_escaped_come_back(raw: bytes, safe: str) -> None:
    escaped = quote_from_bytes(raw, safe=safe.replace("+", "")).encode("ascii")
    assert unescape(escaped) == raw


@given(st.binary(max_size=60) | st.text("%+\\x041fgG ", max_size=30).map(str.encode))
def test_malformed_escapes_stay_as_they_stand(raw: bytes) -> None:
    assert unescape(raw) == unquote_to_bytes(raw.replace(b"+", b" "))


@pytest.mark.parametrize(
    ("escaped", "raw"),
    [
        (b"", b""),
        (b"abc", b"abc"),
        (b"%41%42", b"AB"),
        (b"a+b%2Bc", b"a b+c"),
        (b"%zz%4", b"%zz%4"),
        (b"%%41", b"%A"),
        (b"\\x41%41", b"\\x41A"),
        (b"\xff%00", b"\xff\x00"),
        (b"%4\xe9%41", b"%4\xe9A"),
    ],
)
def test_escapes(escaped: bytes, raw: bytes) -> None:
    assert unescape(escaped) == raw


def test_the_first_of_repeated_names_wins_and_nothing_fails() -> None:
    assert split_query(b"a=1&b=2&a=3&&=&c&d=x=y") == {
        b"a": b"1",
        b"b": b"2",
        b"c": b"",
        b"d": b"x=y",
        b"": b"",
    }
    assert split_query(b"") == {b"": b""}


def test_all_values_of_a_name_in_their_order() -> None:
    assert all_values(b"h=%41&g=1&h=b&hh=2&h=", b"h") == [b"A", b"b", b""]


def test_an_id_is_20_bytes_or_40_hex_digits() -> None:
    assert read_swarm_id(b"\xff" * 20, "info_hash") == b"\xff" * 20
    assert read_swarm_id(b"0a" * 10 + b"FF" * 10, "info_hash") == b"\x0a" * 10 + b"\xff" * 10
    for wrong in (b"", b"a" * 19, b"a" * 21, b"g" * 40, b"a b " * 10, b"\xff" * 40):
        with pytest.raises(ClientError, match="swarmId") as caught:
            read_swarm_id(wrong, "swarmId")
        assert caught.value.parameter == "swarmId"


def test_numbers_are_digits_and_no_more_than_anybody_needs() -> None:
    assert read_number({b"left": b"0"}, b"left") == 0
    assert read_number({b"left": b"18446744073709551615"}, b"left") == 2**64 - 1
    assert read_number({}, b"left") is None
    assert read_number({b"left": b""}, b"left") is None
    for wrong in (b"-1", b"+1", b"1.5", b"1e3", b"0x1", b" 1", b"\xb2", b"9" * 21):
        with pytest.raises(ClientError, match="left must be") as caught:
            read_number({b"left": wrong}, b"left")
        assert caught.value.parameter == "left"
