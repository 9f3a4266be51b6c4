"""The extended handshake: both ways, as others write it, and as nobody should."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.errors import ProtocolError
from microtorrd.proto.bencode import encode
from microtorrd.proto.extended import (
    MAX_BYTES,
    MAX_CLIENT,
    MAX_EXTENSIONS,
    ExtendedHandshake,
    decode_dont_have,
    decode_upload_only,
)

WHOLE = ExtendedHandshake(
    m={"ut_metadata": 2, "ut_pex": 1},
    client="microtorrd 0.1",
    listen_port=7777,
    reqq=2048,
    yourip=b"\x7f\0\0\1",
    upload_only=True,
    metadata_size=31235,
    largest_block=131072,
    info_hash=b"i" * 20,
)

TABLE = [
    (ExtendedHandshake(), b"d1:mdee"),
    (ExtendedHandshake(listen_port=1), b"d1:mde1:pi1ee"),
    (
        WHOLE,
        b"d1:md11:ut_metadatai2e6:ut_pexi1ee13:metadata_sizei31235e8:mt_blocki131072e"
        b"12:mt_info_hash20:iiiiiiiiiiiiiiiiiiii"
        b"1:pi7777e4:reqqi2048e11:upload_onlyi1e1:v14:microtorrd 0.16:yourip4:\x7f\0\0\1e",
    ),
]


@pytest.mark.parametrize(("handshake", "raw"), TABLE)
def test_both_ways(handshake: ExtendedHandshake, raw: bytes) -> None:
    assert handshake.encode() == raw
    assert ExtendedHandshake.decode(raw) == handshake


def test_as_libtorrent_and_transmission_say_it() -> None:
    # Keys that mean nothing to us, an extension switched off, IPv6 addresses, an upload_only extension.
    raw = encode(
        {
            "complete_ago": -1,
            "e": 0,
            "ipv4": b"\x0a\0\0\1",
            "ipv6": b"\xfd" + bytes(15),
            "m": {"lt_donthave": 7, "ut_holepunch": 4, "ut_pex": 0, "upload_only": 3},
            "metadata_size": 0,
            "p": 51413,
            "reqq": 2000,
            "v": "libtorrent/2.1.1 é",
            "yourip": b"\xfe\x80" + bytes(14),
        }
    )
    assert ExtendedHandshake.decode(raw + b"padding") == ExtendedHandshake(
        m={"lt_donthave": 7, "ut_holepunch": 4, "ut_pex": 0, "upload_only": 3},
        client="libtorrent/2.1.1 é",
        listen_port=51413,
        reqq=2000,
        yourip=b"\xfe\x80" + bytes(14),
        ipv4=b"\x0a\0\0\1",
        ipv6=b"\xfd" + bytes(15),
    )


def test_a_later_handshake_says_whether_anything_is_still_wanted() -> None:
    for said, raw in ((True, b"d1:mde11:upload_onlyi1ee"), (False, b"d1:mde11:upload_onlyi0ee")):
        assert ExtendedHandshake(upload_only=said).encode() == raw
        assert ExtendedHandshake.decode(raw).upload_only is said
    assert ExtendedHandshake.decode(b"d1:mdee").upload_only is None


def test_the_small_extensions_say_a_number() -> None:
    assert decode_dont_have(b"\0\0\1\2") == 258
    assert (decode_upload_only(b"\1"), decode_upload_only(b"\0")) == (True, False)
    for raw in (b"", b"\0\0\1", b"\0\0\0\1\2"):
        with pytest.raises(ProtocolError, match="lt_donthave"):
            decode_dont_have(raw)
        with pytest.raises(ProtocolError, match="upload_only"):
            decode_upload_only(raw)


@given(st.binary(max_size=6))
def test_nothing_but_a_number_is_read_as_one(raw: bytes) -> None:
    for decode, size in ((decode_dont_have, 4), (decode_upload_only, 1)):
        try:
            said = decode(raw)
        except ProtocolError:
            assert len(raw) != size
        else:
            assert len(raw) == size and bool(said) == any(raw)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("m", [1, b"x", [1], {"a": 256}, {"a": -1}, {"a": b"1"}, {b"\xff\xfe": 1}, {"n" * 65: 1}]),
        ("v", [1, {}, [b"x"], b"\x1b\n\0"]),
        ("p", [0, -1, 65536, b"80", {}, [80]]),
        ("reqq", [0, -5, 10**19, b"1"]),
        ("yourip", [b"", b"12345", 4, b"x" * 17]),
        ("ipv4", [b"", b"123", 7, b"x" * 16]),
        ("ipv6", [b"", b"1234", [], b"x" * 15]),
        ("upload_only", [b"1", {}, [1]]),
        ("metadata_size", [-1, 10**12, b"5"]),
        ("mt_block", [0, 16383, -16384, 1 << 25, b"131072", [131072]]),
        ("mt_info_hash", [b"", b"x" * 19, 20, [b"x" * 20]]),
    ],
)
def test_what_is_of_a_wrong_type_or_range_counts_as_not_said(key: str, values: list[Any]) -> None:
    for value in values:
        assert ExtendedHandshake.decode(encode({key: value})) == ExtendedHandshake(), value


def test_long_things_are_cut() -> None:
    raw = encode({"m": {f"x{number}": 1 for number in range(100)}, "v": "é" * 300})
    handshake = ExtendedHandshake.decode(raw)
    assert len(handshake.m) == MAX_EXTENSIONS
    assert handshake.client == "é" * MAX_CLIENT


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"le",
        b"i1e",
        b"5:hello",
        b"d1:m",
        b"d1:pi1e1:pi2ee",
        b"d1:m" + b"l" * 20 + b"e" * 20 + b"e",
        b"d1:ml" + b"le" * 600 + b"ee",
        encode({"v": b"x" * MAX_BYTES}),
    ],
)
def test_what_is_no_small_dictionary_is_a_protocol_error(raw: bytes) -> None:
    with pytest.raises(ProtocolError, match="extended handshake"):
        ExtendedHandshake.decode(raw)


values = st.recursive(
    st.one_of(st.integers(), st.binary(max_size=30)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.binary(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
KEYS = ["m", "v", "p", "reqq", "yourip", "ipv4", "ipv6", "upload_only", "metadata_size"]
KEYS += ["mt_block", "mt_info_hash"]


@given(st.dictionaries(st.sampled_from(KEYS), values), st.integers(0, 60), st.binary(max_size=2))
def test_only_protocol_errors_come_out(said: dict[str, Any], at: int, noise: bytes) -> None:
    raw = encode(said)
    for attempt in (raw, raw[:at] + noise + raw[at + len(noise) :], noise + raw):
        try:
            handshake = ExtendedHandshake.decode(attempt)
        except ProtocolError:
            continue
        # What was let in can be said on.
        assert ExtendedHandshake.decode(handshake.encode()) == handshake
