"""The UDP tracker protocol: a table used both ways, and nothing but ProtocolError from the network."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.errors import ProtocolError
from microtorrd.proto import udp_announce as udp

ANNOUNCE = udp.AnnounceRequest(
    connection=0x0102030405060708,
    transaction=0x0A0B0C0D,
    info_hash=b"i" * 20,
    peer_id=b"p" * 20,
    downloaded=1,
    left=2,
    uploaded=3,
    event="started",
    key=0xDEADBEEF,
    numwant=-1,
    port=7777,
)
ANNOUNCE_BYTES = (
    bytes.fromhex("0102030405060708 00000001 0a0b0c0d")
    + b"i" * 20
    + b"p" * 20
    + bytes.fromhex(
        "0000000000000001 0000000000000002 0000000000000003 00000002 00000000 deadbeef ffffffff 1e61"
    )
)

REQUESTS: list[tuple[udp.Request, bytes]] = [
    (udp.ConnectRequest(5), bytes.fromhex("00000417 27101980 00000000 00000005")),
    (ANNOUNCE, ANNOUNCE_BYTES),
    (ANNOUNCE._replace(url_data="/dir?a=b&c=d"), ANNOUNCE_BYTES + b"\x02\x0c/dir?a=b&c=d"),
    (
        ANNOUNCE._replace(url_data="x" * 300),
        ANNOUNCE_BYTES + b"\x02\xff" + b"x" * 255 + b"\x02\x2d" + b"x" * 45,
    ),
    (
        udp.ScrapeRequest(1, 2, (b"a" * 20, b"b" * 20)),
        bytes.fromhex("0000000000000001 00000002 00000002") + b"a" * 20 + b"b" * 20,
    ),
]

V4_REPLY = udp.AnnounceReply(9, 1800, 4, 3, (("192.0.2.1", 6881), ("198.51.100.7", 1)))
V6_REPLY = udp.AnnounceReply(9, 1800, 4, 3, (("2001:db8::1", 6881),))
REPLIES: list[tuple[udp.Reply, bytes, bool]] = [
    (udp.ConnectReply(5, 0x1122334455667788), bytes.fromhex("00000000 00000005 1122334455667788"), False),
    (
        V4_REPLY,
        bytes.fromhex("00000001 00000009 00000708 00000004 00000003 c0000201 1ae1 c6336407 0001"),
        False,
    ),
    (
        V6_REPLY,
        bytes.fromhex("00000001 00000009 00000708 00000004 00000003 20010db8000000000000000000000001 1ae1"),
        True,
    ),
    (
        udp.ScrapeReply(9, ((1, 2, 3), (4, 5, 6))),
        struct.pack(">8I", 2, 9, 1, 2, 3, 4, 5, 6),
        False,
    ),
    (udp.ErrorReply(9, "go away"), b"\0\0\0\3\0\0\0\x09go away", False),
]


@pytest.mark.parametrize(("request_", "raw"), REQUESTS)
def test_requests_both_ways(request_: udp.Request, raw: bytes) -> None:
    assert udp.encode_request(request_) == raw
    assert udp.decode_request(raw) == request_


@pytest.mark.parametrize(("reply", "raw", "ipv6"), REPLIES)
def test_replies_both_ways(reply: udp.Reply, raw: bytes, ipv6: bool) -> None:
    assert udp.encode_reply(reply) == raw
    assert udp.decode_reply(raw, ipv6=ipv6) == reply


@pytest.mark.parametrize(
    ("options", "url_data"),
    [
        (b"\x02\x0c/dir?a=b&c=d\x01\x01\x00", "/dir?a=b&c=d"),  # the examples of BEP 41
        (b"\x02\x00", ""),
        (b"\x00\x02\x01x", ""),
        (b"\x07\x02zz\x02\x01x", "x"),  # an option nobody knows is passed over
        (b"\x02\x02/a\x01\x02\x02/b", "/a/b"),
        (b"\x02\xff/short", "/short"),
        (b"\x02", ""),
    ],
)
def test_options_of_an_announce(options: bytes, url_data: str) -> None:
    assert udp.decode_request(ANNOUNCE_BYTES + options) == ANNOUNCE._replace(url_data=url_data)


def test_packets_may_be_longer_than_what_we_know() -> None:
    connect = udp.encode_request(udp.ConnectRequest(5))
    assert udp.decode_request(connect + b"future") == udp.ConnectRequest(5)
    reply = udp.encode_reply(udp.ConnectReply(5, 6))
    assert udp.decode_reply(reply + b"future", ipv6=False) == udp.ConnectReply(5, 6)


def test_an_event_nobody_knows_is_none() -> None:
    raw = bytearray(ANNOUNCE_BYTES)
    raw[83] = 77
    assert udp.decode_request(bytes(raw)) == ANNOUNCE._replace(event="")


def test_addresses_that_no_peer_has_and_fragments_are_left_out() -> None:
    head = udp.encode_reply(V4_REPLY._replace(addresses=()))
    raw = head + bytes.fromhex("00000000 1ae1 e0000001 1ae1 c0000201 0000 c0000201 1ae1 c000")
    assert udp.decode_reply(raw, ipv6=False) == V4_REPLY._replace(addresses=(("192.0.2.1", 6881),))


def test_a_reply_is_read_up_to_a_bound() -> None:
    addresses = tuple(("192.0.2.1", port) for port in range(1, 2001))
    raw = udp.encode_reply(V4_REPLY._replace(addresses=addresses))
    reply = udp.decode_reply(raw, ipv6=False)
    assert isinstance(reply, udp.AnnounceReply)
    assert len(reply.addresses) == 1000


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        ANNOUNCE_BYTES[:97],
        bytes.fromhex("00000417 27101981 00000000 00000005"),
        struct.pack(">QII", 1, 2, 3),  # a scrape of nothing
        struct.pack(">QII", 1, 2, 3) + b"h" * 20 * 75,
        struct.pack(">QII", 1, 9, 3),
    ],
)
def test_bad_requests(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        udp.decode_request(raw)


@pytest.mark.parametrize(
    "raw", [b"", b"\0" * 7, b"\0" * 15, b"\0\0\0\1" + b"\0" * 15, struct.pack(">II", 4, 3)]
)
def test_bad_replies(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        udp.decode_reply(raw, ipv6=False)


u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
announces = st.builds(
    udp.AnnounceRequest,
    connection=u64,
    transaction=u32,
    info_hash=st.binary(min_size=20, max_size=20),
    peer_id=st.binary(min_size=20, max_size=20),
    downloaded=u64,
    left=u64,
    uploaded=u64,
    event=st.sampled_from(["", "completed", "started", "stopped"]),
    key=u32,
    numwant=st.integers(-(2**31), 2**31 - 1),
    port=st.integers(0, 65535),
    ip=u32,
    url_data=st.text(max_size=400).filter(lambda text: text.isascii()),
)


@given(announces)
def test_any_announce_comes_back(request_: udp.AnnounceRequest) -> None:
    assert udp.decode_request(udp.encode_request(request_)) == request_


def shaped(head: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """What looks like a packet: a known head and a body of any kind."""
    return st.tuples(head, st.binary(max_size=200)).map(b"".join)


@given(shaped(st.builds(lambda c, a, t: struct.pack(">QII", c, a, t), u64, st.integers(0, 4), u32)))
def test_requests_raise_nothing_but_protocol_errors(raw: bytes) -> None:
    try:
        udp.decode_request(raw)
    except ProtocolError as error:
        assert str(error)


@given(shaped(st.builds(lambda a, t: struct.pack(">II", a, t), st.integers(0, 4), u32)), st.booleans())
def test_replies_raise_nothing_but_protocol_errors(raw: bytes, ipv6: bool) -> None:
    try:
        udp.decode_reply(raw, ipv6=ipv6)
    except ProtocolError as error:
        assert str(error)


def test_sizes_that_a_tracker_goes_by() -> None:
    assert len(udp.encode_request(udp.ConnectRequest(1))) == udp.HEAD_BYTES == 16
    assert {udp.ANNOUNCE: len(ANNOUNCE_BYTES), udp.SCRAPE: 36} == udp.LEAST_BYTES
    # 1,280 bytes are the least that an IPv6 packet may have anywhere; 40 and 8 are its headers.
    full = udp.encode_announced(1, 2, 3, 4, bytes(udp.PEERS_BYTES))
    assert len(full) == 1280 - 40 - 8


def test_peers_that_are_compact_already_go_out_as_they_are() -> None:
    peers = bytes.fromhex("c0000201 1ae1 c6336407 0001")
    assert udp.encode_announced(9, 1800, 4, 3, peers) == udp.encode_reply(V4_REPLY)
