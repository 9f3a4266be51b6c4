"""Bencode: a table both ways, a table of what is refused, and garbage that must only give BencodeError."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from microtorrd.proto.bencode import (
    BencodeError,
    Value,
    decode,
    decode_document,
    encode,
)

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.integers(-(2**64), 2**64) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=6), inner, max_size=4),
    max_leaves=20,
)

TABLE: list[tuple[Value, bytes]] = [
    (0, b"i0e"),
    (-1, b"i-1e"),
    (2**64, b"i18446744073709551616e"),
    (b"", b"0:"),
    (b"spam", b"4:spam"),
    (b"\x00\xff:e", b"4:\x00\xff:e"),
    ([], b"le"),
    ([b"a", 1, [[]]], b"l1:ai1elleee"),
    ({}, b"de"),
    ({b"": b"", b"a": {b"b": []}}, b"d0:0:1:ad1:bleee"),
]


@pytest.mark.parametrize(("value", "raw"), TABLE)
def test_both_ways(value: Value, raw: bytes) -> None:
    assert decode(raw, require_sorted=True) == value
    assert encode(value) == raw
    assert decode_document(raw + b"trailing")[:2] == (value, len(raw))


@given(VALUES)
def test_what_is_encoded_decodes_to_the_same(value: Any) -> None:
    raw = encode(value)
    assert decode(raw, require_sorted=True) == value
    assert encode(decode(raw)) == raw


def test_text_is_encoded_as_utf8() -> None:
    assert encode({"schlüssel": ("é", True)}) == b"d10:schl\xc3\xbcssell2:\xc3\xa9i1eee"


@pytest.mark.parametrize("value", [1.5, None, {1: 2}, [object()], "\ud800"])
def test_what_has_no_bencode(value: object) -> None:
    with pytest.raises(BencodeError, match="not encodable"):
        encode(value)


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"", "ends at byte 0"),
        (b"d", "ends at byte 1"),
        (b"l", "ends at byte 1"),
        (b"d1:a", "ends at byte 4"),
        (b"d1:ae", "has no value"),
        (b"di1ei2ee", "a key must be a string"),
        (b"d1:ai1e1:ai2ee", "'a' stands there twice"),
        (b"d1:bi1e1:ai2e1:bi3ee", "'b' stands there twice"),
        (b"e", "no value begins with"),
        (b"x", "no value begins with"),
        (b"-1:a", "no value begins with"),
        (b"5:spam", "runs past the end"),
        (b"9999999999999:a", "runs past the end"),
        (b"4", "not the length"),
        (b"44444", "not the length"),
        (b"4 :spam", "not the length"),
        (b"04:spam", "not the length"),
        (b"1_0:0123456789", "not the length"),
        (b"9" * 5000 + b":a", "not the length"),
        (b"i", "canonical number"),
        (b"ie", "canonical number"),
        (b"i-e", "canonical number"),
        (b"i-0e", "canonical number"),
        (b"i00e", "canonical number"),
        (b"i01e", "canonical number"),
        (b"i-01e", "canonical number"),
        (b"i+1e", "canonical number"),
        (b"i 1e", "canonical number"),
        (b"i1_0e", "canonical number"),
        (b"i1", "canonical number"),
        (b"i1.5e", "canonical number"),
        (b"i" + b"9" * 21 + b"e", "canonical number"),
        (b"i-" + b"9" * 21 + b"e", "canonical number"),
        (b"i" + b"9" * 100_000 + b"e", "canonical number"),
        (b"i1ei2e", "3 bytes follow"),
        (b"le\n", "1 bytes follow"),
        (b"l" * 101 + b"e" * 101, "deeper than 100"),
        (b"l" * 1_000_000, "deeper than 100"),
        (b"d1:a" * 1_000_000, "deeper than 100"),
    ],
)
def test_refused(raw: bytes, match: str) -> None:
    with pytest.raises(BencodeError, match=match):
        decode(raw)


def test_the_deepest_allowed_nesting_decodes() -> None:
    assert encode(decode(b"l" * 100 + b"e" * 100)) == b"l" * 100 + b"e" * 100
    assert decode(b"ld1:aleee", max_depth=3)
    with pytest.raises(BencodeError, match="deeper than 2"):
        decode(b"ld1:aleee", max_depth=2)
    assert decode(b"l" * 300 + b"e" * 300, max_depth=300)


def test_nesting_beyond_what_the_library_can_recurse_is_still_our_error() -> None:
    with pytest.raises(BencodeError):
        decode(b"l" * 100_000 + b"e" * 100_000, max_depth=1_000_000)


def test_bounds_of_the_caller() -> None:
    with pytest.raises(BencodeError, match="at most 3 are allowed"):
        decode(b"3:abc", max_bytes=3)
    assert decode(b"llelee", max_items=3) == [[], []]
    with pytest.raises(BencodeError, match="more than 2 values"):
        decode(b"llelee", max_items=2)
    with pytest.raises(BencodeError, match="more than 2 values"):
        decode(b"d1:ai1e1:bi1ee", max_items=2)


def test_unsorted_keys_pass_unless_refused() -> None:
    raw = b"d1:bi1e1:ai2ee"
    assert decode(raw) == {b"a": 2, b"b": 1}
    with pytest.raises(BencodeError, match="'a' is not in order"):
        decode(raw, require_sorted=True)


@given(st.dictionaries(st.binary(max_size=8), VALUES, max_size=6), st.randoms(), st.binary(max_size=5))
def test_raw_spans_are_exact_in_any_order(values: dict[bytes, Any], chance: Any, trailing: bytes) -> None:
    keys = list(values)
    chance.shuffle(keys)
    raw = b"d" + b"".join(encode(key) + encode(values[key]) for key in keys) + b"e" + trailing
    document = decode_document(raw)
    assert document.value == values
    assert {key: raw[start:end] for key, (start, end) in document.spans.items()} == {
        key: encode(value) for key, value in values.items()
    }


def test_a_span_is_of_the_top_level_only() -> None:
    assert decode_document(b"d1:ad4:infoi1ee4:infoi2ee").spans == {b"a": (4, 15), b"info": (21, 24)}
    assert decode_document(b"ld4:infoi1eee").spans == {}
    assert decode_document(b"d1:al4:infoi3eee").spans == {b"a": (4, 15)}
    with pytest.raises(BencodeError):
        decode_document(b"d4:info")


@given(st.text(alphabet="dlei0123456789:-ab_ ", max_size=40).map(str.encode) | st.binary(max_size=40))
@example(b"d0:i0e")
def test_garbage_gives_a_value_or_our_error(raw: bytes) -> None:
    try:
        value, consumed, _ = decode_document(raw)
    except BencodeError:
        return
    again = encode(value)
    assert len(again) == consumed
    assert decode(again) == value


@given(VALUES, st.data())
def test_a_damaged_value_gives_a_value_or_our_error(value: Any, data: st.DataObject) -> None:
    raw = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(raw))
    except BencodeError as error:
        assert str(error)
