"""Local discovery: both ways, as others write it, and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.errors import ProtocolError
from microtorrd.proto.lsd import (
    IDS_MAX,
    MAX_BYTES,
    READ_IDS_MAX,
    READ_MAX_BYTES,
    Presence,
    cookie_of,
    decode,
    encode,
)

ONE, OTHER = b"\x11" * 20, bytes(range(20))


def test_what_is_said() -> None:
    assert encode(Presence(7777, (ONE,), b"5f"), ipv6=False) == (
        b"BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 7777\r\n"
        b"Infohash: " + b"11" * 20 + b"\r\ncookie: 5f\r\n\r\n\r\n"
    )
    assert b"\r\nHost: [ff15::efc0:988f]:6771\r\n" in encode(Presence(1, (ONE,)), ipv6=True)


@pytest.mark.parametrize("presence", [Presence(1, (ONE,)), Presence(65535, (ONE, OTHER), cookie_of(-1))])
def test_both_ways(presence: Presence) -> None:
    assert decode(encode(presence, ipv6=False)) == presence
    assert decode(encode(presence, ipv6=True)) == presence


def test_the_largest_fits_into_a_packet() -> None:
    ids = tuple(bytes([number]) * 20 for number in range(IDS_MAX + 5))
    raw = encode(Presence(65535, ids, cookie_of(0x7FFFFFFF)), ipv6=True)
    assert len(raw) <= MAX_BYTES
    assert decode(raw).swarm_ids == ids[:IDS_MAX]


def test_as_others_say_it() -> None:
    raw = (
        b"bt-search * http/1.1\r\nHOST: 239.192.152.143:6771\r\nport:  51413 \r\nX-Later: no:matter\r\n"
        b"InfoHash: " + b"Aa" * 20 + b"\r\nInfohash: too short\r\nInfohash: " + b"zz" * 20 + b"\r\nline"
    )
    assert decode(raw) == Presence(51413, (b"\xaa" * 20,))
    many = b"".join(b"Infohash: %040d\r\n" % number for number in range(41))
    assert len(decode(b"BT-SEARCH * HTTP/1.1\r\nPort: 1\r\n" + many[:1900]).swarm_ids) <= READ_IDS_MAX


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"M-SEARCH * HTTP/1.1\r\nPort: 1\r\n",
        b"BT-SEARCH * HTTP/1.1\r\n\r\n",
        b"BT-SEARCH * HTTP/1.1\r\nPort: 1\r\n\r\n",
        *(
            b"BT-SEARCH * HTTP/1.1\r\nPort: " + port + b"\r\nInfohash: " + b"11" * 20 + b"\r\n"
            for port in (b"0", b"65536", b"-1", b"1e3", b"9" * 50, b"")
        ),
        b"x" * (READ_MAX_BYTES + 1),
    ],
)
def test_what_says_nothing_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(raw)


lines = st.one_of(
    st.binary(max_size=60),
    st.builds(lambda value: b"Port: " + value, st.one_of(st.binary(max_size=6), st.just(b"80"))),
    st.builds(lambda value: b"Infohash: " + value, st.one_of(st.binary(max_size=44), st.just(b"ab" * 20))),
    st.builds(lambda value: b"cookie: " + value, st.binary(max_size=99)),
)


@given(st.sampled_from([b"BT-SEARCH * HTTP/1.1", b"BT-SEARCH", b""]), st.lists(lines, max_size=12))
def test_only_protocol_errors_come_out(start: bytes, lines: list[bytes]) -> None:
    try:
        presence = decode(b"\r\n".join([start, *lines]))
    except ProtocolError:
        return
    assert 0 < presence.port < 65536
    assert presence.swarm_ids and all(len(swarm_id) == 20 for swarm_id in presence.swarm_ids)
    assert len(presence.cookie) <= 64
