"""Announce requests and replies: both dialects, both directions."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.errors import ClientError, PeerForgotten, TrackerError
from microtorrd.proto import bencode
from microtorrd.proto.announce import AnnounceRequest, Dialect, choose_dialect, encode_query, parse_query
from microtorrd.proto.announce_reply import (
    MAX_REPLY_BYTES,
    MAX_REPLY_PEERS,
    AnnounceReply,
    encode_compact_reply,
    encode_failure,
    encode_json_reply,
    encode_list_reply,
    parse_reply,
)
from microtorrd.proto.query import split_query
from tests.trees import trees

#: The request of the original, as recorded.
GO_QUERY = (
    "peerId=TU9dOwo0SFuskrq6N3Rc&swarmId=641057d4a3c5f2069380fcfa32ec3f7ea59566ca"
    "&ip=127.0.0.1&port=1111&event=started"
)
GO_SWARM = bytes.fromhex("641057d4a3c5f2069380fcfa32ec3f7ea59566ca")
GO_REQUEST = AnnounceRequest(GO_SWARM, b"TU9dOwo0SFuskrq6N3Rc", 1111, "started", "127.0.0.1")
#: Its tracker's reply, as recorded.
GO_REPLY = (
    b'{"IdHash":"641057d4a3c5f2069380fcfa32ec3f7ea59566ca","Peers":{"TU9dOwo0SFuskrq6N3Rc":{"Ip":"127.0.0.1",'
    b'"Port":1111,"Id":"TU9dOwo0SFuskrq6N3Rc"},"w3fcAR2XIgwocPDbdqgx":{"Ip":"127.0.0.1","Port":3333,'
    b'"Id":"w3fcAR2XIgwocPDbdqgx"}}}'
)
GO_PEERS = [(b"w3fcAR2XIgwocPDbdqgx", "127.0.0.1", 3333), (b"TU9dOwo0SFuskrq6N3Rc", "127.0.0.1", 1111)]

ID = bytes(range(0, 200, 10))
ID_ESCAPED = b"%00%0A%14%1E%28%32%3C%46%50%5A%64%6E%78%82%8C%96%A0%AA%B4%BE"


def read(query: bytes, dialect: Dialect | None = None) -> AnnounceRequest:
    params = split_query(query)
    return parse_query(params, dialect or choose_dialect(params, False))


# ----------------------------------------------------------------------------------------------- the request


def test_the_originals_request_both_ways() -> None:
    assert encode_query(GO_REQUEST, "microtorr") == GO_QUERY
    assert read(GO_QUERY.encode()) == GO_REQUEST


def test_a_bittorrent_clients_request() -> None:
    query = (
        b"info_hash="
        + ID_ESCAPED
        + b"&peer_id=-LT20B0-ab%63%ffefghijkl&port=6881&uploaded=1&downloaded=2&left=3"
        b"&corrupt=0&key=1A2B&event=completed&numwant=200&compact=1&no_peer_id=1&supportcrypto=1&trackerid=%00x"
        b"&ip=2001:db8::1"
    )
    assert read(query) == AnnounceRequest(
        swarm_id=ID,
        peer_id=b"-LT20B0-abc\xffefghijkl",
        port=6881,
        event="completed",
        ip="2001:db8::1",
        uploaded=1,
        downloaded=2,
        left=3,
        numwant=200,
        compact=True,
        no_peer_id=True,
        key="1A2B",
        tracker_id=b"\x00x",
    )


requests = st.builds(
    AnnounceRequest,
    swarm_id=st.binary(min_size=20, max_size=20),
    peer_id=st.binary(min_size=20, max_size=20),
    port=st.integers(1, 65535),
    event=st.sampled_from(["started", "stopped", "completed"]),
    ip=st.sampled_from(["", "192.0.2.1", "2001:db8::1"]),
    uploaded=st.integers(0, 2**63),
    downloaded=st.integers(0, 2**63),
    left=st.none() | st.integers(0, 2**63),
    numwant=st.none() | st.integers(0, 200),
    compact=st.booleans(),
    no_peer_id=st.booleans(),
    key=st.text(bytes(range(256)).decode("latin-1"), max_size=8),
    tracker_id=st.binary(max_size=20),
    paused=st.just(False),
    swarm_ids=st.just(()),
    asks_joint=st.just(False),
)


def test_a_partial_seed_says_so_where_there_is_nothing_else_to_say() -> None:
    request = AnnounceRequest(ID, b"p" * 20, 1, left=5, paused=True)
    assert "&event=paused" in encode_query(request, "bittorrent")
    assert "paused" not in encode_query(request._replace(event="started"), "bittorrent")
    assert "paused" not in encode_query(request._replace(event="alive"), "microtorr")
    # To a tracker that is an announce like any other.
    assert read(encode_query(request, "bittorrent").encode()).event == ""


@given(requests)
def test_what_a_client_says_the_tracker_reads(request: AnnounceRequest) -> None:
    params = split_query(encode_query(request, "bittorrent").encode("ascii"))
    assert choose_dialect(params, False) == "bittorrent"
    assert parse_query(params, "bittorrent") == request
    params = split_query(encode_query(request, "microtorr").encode("ascii"))
    assert choose_dialect(params, False) == "microtorr"
    assert parse_query(params, "microtorr") == AnnounceRequest(
        request.swarm_id, request.peer_id, request.port, request.event, request.ip
    )


@pytest.mark.parametrize(
    ("query", "accepts_json", "dialect"),
    [
        (b"", False, "microtorr"),
        (b"info_hash=a&peer_id=b&port=1&event=started", False, "microtorr"),
        (b"left=0", False, "bittorrent"),
        (b"compact=0", False, "bittorrent"),
        (b"compact=1&left=0", False, "bittorrent"),
        (b"compact=1&left=0", True, "microtorr"),
        (b"uploaded=0&numwant=5", False, "microtorr"),
    ],
)
def test_the_dialect_is_told_by_what_the_request_carries(
    query: bytes, accepts_json: bool, dialect: Dialect
) -> None:
    assert choose_dialect(split_query(query), accepts_json) == dialect


GOOD = {"info_hash": ID_ESCAPED.decode(), "peer_id": "A" * 20, "port": "1", "event": "started"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"info_hash": None}, "info_hash is missing"),
        ({"info_hash": ""}, "info_hash is missing"),
        ({"info_hash": "abc"}, "info_hash must be 20 bytes or 40 hex digits, not 3 bytes"),
        ({"info_hash": "g" * 40}, "info_hash has 40 characters that are not all hex digits"),
        ({"info_hash": None, "swarmId": "abc"}, "swarmId must be 20 bytes or 40 hex digits, not 3 bytes"),
        ({"peer_id": None}, "peer_id is missing"),
        ({"peer_id": "A" * 21}, "peer_id must be 20 bytes, not 21"),
        ({"peer_id": None, "peerId": "A%A"}, "peerId must be 20 bytes, not 3"),
        ({"port": None}, "port is missing"),
        ({"port": "0"}, "port must be a number from 1 to 65535"),
        ({"port": "65536"}, "port must be a number from 1 to 65535"),
        ({"port": "-1"}, "port must be a number from 1 to 65535"),
        ({"port": "http"}, "port must be a number from 1 to 65535"),
        ({"port": "9" * 5000}, "port must be a number from 1 to 65535"),
        ({"event": None}, "event is missing"),
        ({"event": "STARTED"}, "event must be started, stopped, completed or alive"),
        ({"left": "-1"}, "left must be a whole number of 0 or more"),
        ({"left": "0", "uploaded": "many"}, "uploaded must be a whole number of 0 or more"),
        ({"left": "0", "numwant": "many"}, "numwant must be a whole number of 0 or more"),
        ({"left": "0", "event": "alive"}, "event must be started, stopped, completed or none"),
    ],
)
def test_a_clients_mistake_names_the_parameter(change: dict[str, str | None], reason: str) -> None:
    fields = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(ClientError) as caught:
        read("&".join(f"{name}={value}" for name, value in fields.items()).encode())
    assert str(caught.value) == reason
    assert caught.value.parameter == reason.partition(" ")[0]


def test_what_clients_are_known_to_send_is_taken() -> None:
    query = b"info_hash=" + ID.hex().encode() + b"&peer_id=AAAAAAAAAA+AAAAAAAA%2B&port=1&left=0"
    assert read(query).swarm_id == ID
    assert read(query).peer_id == b"AAAAAAAAAA AAAAAAAA+"
    assert read(query).compact
    assert read(query + b"&event=").event == ""
    assert read(query + b"&event=paused").event == ""
    assert read(query + b"&event=empty").event == ""
    assert read(query + b"&numwant=-1").numwant is None
    assert not read(query + b"&compact=0").compact
    assert not read(query + b"&no_peer_id=0").no_peer_id


NAMES = [b"info_hash", b"peer_id", b"peerId", b"swarmId", b"port", b"event", b"ip", b"left", b"compact"]
NAMES += [b"numwant", b"uploaded", b"key", b"trackerid"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(NAMES),
            st.binary(max_size=41)
            | st.sampled_from([b"started", b"1", b"A" * 20, b"a" * 40, b"%41" * 20, b"%" * 60]),
        ),
        max_size=12,
    ),
    st.sampled_from(get_args(Dialect)),
)
def test_a_request_raises_nothing_but_client_error(
    pairs: list[tuple[bytes, bytes]], dialect: Dialect
) -> None:
    try:
        request = parse_query(split_query(b"&".join(name + b"=" + value for name, value in pairs)), dialect)
    except ClientError as error:
        assert error.parameter
    else:
        assert len(request.swarm_id) == len(request.peer_id) == 20
        assert 0 < request.port < 65536


# ------------------------------------------------------------------------------------------------- the reply


def test_the_originals_reply_both_ways() -> None:
    assert encode_json_reply(GO_SWARM, GO_PEERS) == GO_REPLY
    assert parse_reply(GO_REPLY, "microtorr") == AnnounceReply(
        peers=(
            ("127.0.0.1", 1111, b"TU9dOwo0SFuskrq6N3Rc"),
            ("127.0.0.1", 3333, b"w3fcAR2XIgwocPDbdqgx"),
        )
    )


def test_ids_are_escaped_as_go_escapes_them() -> None:
    peer_id = b'<&>"\\\n\x01\x7f\xff\xc3\xa9\xe2\x80\xa8\xe2\x28abc'
    written = encode_json_reply(bytes(20), [(peer_id, "::1", 1)]).decode()
    name = '"\\u003c\\u0026\\u003e\\"\\\\\\n\\u0001\x7f\\ufffd\u00e9\\u2028\\ufffd(abc"'
    assert written == f'{{"IdHash":"{"00" * 20}","Peers":{{{name}:{{"Ip":"::1","Port":1,"Id":{name}}}}}}}'


@given(st.dictionaries(st.binary(min_size=20, max_size=20), st.integers(1, 65535), max_size=5))
def test_the_json_reply_is_json_with_sorted_keys(ports: dict[bytes, int]) -> None:
    raw = encode_json_reply(ID, [(peer_id, "192.0.2.1", port) for peer_id, port in ports.items()])
    fields = json.loads(raw)
    assert list(fields) == ["IdHash", "Peers"]
    assert fields["IdHash"] == ID.hex()
    ids = [peer_id for peer_id in ports if peer_id.isascii()]
    for peer_id in ids:
        assert fields["Peers"][peer_id.decode()] == {
            "Ip": "192.0.2.1",
            "Port": ports[peer_id],
            "Id": peer_id.decode(),
        }
    keys = [key.encode() for key in fields["Peers"] if key.isascii()]
    assert keys == sorted(keys)


def test_of_two_peers_with_one_id_the_later_is_told() -> None:
    raw = encode_json_reply(ID, [(b"A" * 20, "192.0.2.1", 1), (b"A" * 20, "192.0.2.2", 2)])
    assert json.loads(raw)["Peers"]["A" * 20]["Ip"] == "192.0.2.2"


FIGURES = {"interval": 900, "min_interval": 60, "complete": 3, "incomplete": 4}
HERE = bytes([192, 0, 2, 7])


def test_the_compact_reply_both_ways() -> None:
    peers = b"\x7f\x00\x00\x01\x1a\xe1" + b"\xc0\x00\x02\x01\x00\x01"
    peers6 = bytes(15) + b"\x01\x00\x02"
    raw = encode_compact_reply(**FIGURES, external_ip=HERE, peers=peers, peers6=peers6)
    assert raw == (
        b"d8:completei3e11:external ip4:\xc0\x00\x02\x0710:incompletei4e"
        b"8:intervali900e12:min intervali60e5:peers12:" + peers + b"6:peers618:" + peers6 + b"e"
    )
    assert parse_reply(raw, "bittorrent") == AnnounceReply(
        **FIGURES,
        external_ip="192.0.2.7",
        peers=(("127.0.0.1", 6881, None), ("192.0.2.1", 1, None), ("::1", 2, None)),
    )
    assert b"peers6" not in encode_compact_reply(**FIGURES, external_ip=HERE, peers=b"", peers6=b"")


def test_the_list_reply_both_ways() -> None:
    peers = [(b"\xff" * 20, "192.0.2.1", 1), (None, "2001:db8::1", 65535)]
    raw = encode_list_reply(**FIGURES, external_ip=HERE, peers=peers)
    assert bencode.decode(raw, require_sorted=True) == {
        b"complete": 3,
        b"incomplete": 4,
        b"interval": 900,
        b"min interval": 60,
        b"peers": [
            {b"ip": b"192.0.2.1", b"peer id": b"\xff" * 20, b"port": 1},
            {b"ip": b"2001:db8::1", b"port": 65535},
        ],
        b"external ip": HERE,
    }
    assert parse_reply(raw, "bittorrent") == AnnounceReply(
        **FIGURES,
        external_ip="192.0.2.7",
        peers=(("192.0.2.1", 1, b"\xff" * 20), ("2001:db8::1", 65535, None)),
    )


def test_what_other_trackers_say_besides() -> None:
    raw = bencode.encode(
        {
            b"external ip": bytes([192, 0, 2, 7]),
            b"interval": 10**15,
            b"min interval": -5,
            b"complete": -1,
            b"peers": b"",
            b"tracker id": b"\x00\xff",
            b"warning message": "älter\x1b[31m\nTracker".encode(),
        }
    )
    assert parse_reply(raw + b"\r\n", "bittorrent") == AnnounceReply(
        interval=86_400, warning="älter [31m Tracker", tracker_id=b"\x00\xff", external_ip="192.0.2.7"
    )


def test_peers_that_nobody_can_dial_are_left_out() -> None:
    peers: list[Any] = [
        {b"ip": b"tracker.example", b"port": 1},
        {b"ip": b"0.0.0.0", b"port": 1},
        {b"ip": b"192.0.2.1", b"port": 0},
        {b"ip": b"192.0.2.1", b"port": b"80"},
        {b"ip": 5, b"port": 1},
        {b"port": 1},
        7,
        {b"ip": b"::ffff:192.0.2.1", b"port": 5, b"peer id": b"short"},
    ]
    reply = parse_reply(bencode.encode({b"peers": peers}), "bittorrent")
    assert reply.peers == (("192.0.2.1", 5, None),)


def test_the_originals_short_answers() -> None:
    assert parse_reply(b"", "microtorr") == AnnounceReply()
    assert parse_reply(b"Peer exited the swarm", "microtorr") == AnnounceReply()
    with pytest.raises(TrackerError, match="the reply is empty"):
        parse_reply(b"", "bittorrent")


@pytest.mark.parametrize(
    "body", [b"Peer is not in this swarm\n", encode_failure("Peer is not in this swarm", "microtorr")]
)
def test_being_forgotten_is_told_from_other_refusals(body: bytes) -> None:
    with pytest.raises(PeerForgotten):
        parse_reply(body, "microtorr", status=400)


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"Missing required parameters\n", 400, "Missing required parameters"),
        (b"<html>404</html>", 404, "HTTP status 404"),
        (b"x" * 300, 500, "HTTP status 500"),
        (b"", 502, "HTTP status 502"),
        (b"d5:peers0:e", 500, "HTTP status 500"),
        (b"<!DOCTYPE html><html>", 200, "the reply is a web page"),
        (b"hello", 200, "the reply is neither bencoding nor JSON"),
        (b"\x00\xff\xfe", 200, "the reply is neither bencoding nor JSON"),
        (b"d5:peers", 200, "the reply is not bencoded"),
        (b"d5:peers0:eGARBAGE", 200, "the reply is not bencoded"),
        (b"{", 200, "the reply is not JSON"),
        (b'{"Peers":' + b"[" * 100_000, 200, "the reply is not JSON"),
        (b"d1:a" + b"l" * 100_000, 200, "the reply is not bencoded"),
        (b'{"IdHash":"00"}', 200, "the reply has no Peers"),
        (b'{"Peers":[]}', 200, "the reply has no Peers"),
        (encode_failure("not authorized", "bittorrent"), 200, "not authorized"),
        (encode_failure("nö", "microtorr"), 400, "nö"),
        (b"d14:failure reason0:e", 200, "refused without a reason"),
        (b"d14:failure reason" + b"300:" + b"x" * 300 + b"e", 200, "x" * 200),
        (b"d14:failure reason4:\x1b[2Je", 200, "[2J"),
        (b"d14:failure reasonli1eee", 200, "[1]"),
    ],
)
def test_what_is_no_reply_has_a_short_reason(body: bytes, status: int, reason: str) -> None:
    for dialect in get_args(Dialect):
        if body or dialect == "bittorrent" or status != 200:
            with pytest.raises(TrackerError) as caught:
                parse_reply(body, dialect, status=status)
            assert str(caught.value).startswith(reason)
            assert len(str(caught.value)) <= 200


@pytest.mark.parametrize(
    ("retry_in", "retry_s"),
    [
        (b"5", 300),
        (5, 300),
        (b"never", 86_400),
        (10**9, 86_400),
        (0, None),
        (-3, None),
        (b"soon", None),
        ([], None),
    ],
)
def test_a_tracker_may_say_when_to_come_back(retry_in: Any, retry_s: int | None) -> None:
    with pytest.raises(TrackerError) as caught:
        parse_reply(bencode.encode({b"failure reason": b"busy", b"retry in": retry_in}), "bittorrent")
    assert caught.value.retry_s == retry_s


def test_a_million_peers_are_refused_and_thousands_cut() -> None:
    with pytest.raises(TrackerError, match="longer than"):
        parse_reply(
            encode_compact_reply(
                **FIGURES, external_ip=HERE, peers=b"\x01\x02\x03\x04\x05\x06" * 10**6, peers6=b""
            ),
            "bittorrent",
        )
    many = encode_compact_reply(
        **FIGURES, external_ip=HERE, peers=b"\x01\x02\x03\x04\x05\x06" * 10_000, peers6=b"\x01" * 18_000
    )
    assert len(many) < MAX_REPLY_BYTES
    assert len(parse_reply(many, "bittorrent").peers) == MAX_REPLY_PEERS
    many = encode_list_reply(**FIGURES, external_ip=HERE, peers=[(None, "192.0.2.1", 1)] * 4000)
    assert len(parse_reply(many, "bittorrent").peers) == MAX_REPLY_PEERS
    many = encode_json_reply(ID, [(b"%020d" % number, "192.0.2.1", 1) for number in range(2000)])
    assert len(parse_reply(many, "microtorr").peers) == MAX_REPLY_PEERS


#: Letters that are trouble somewhere.
ODD = 'aZ09 "\\/\0\n\r\t\x1b\x7f\x85\xe9\u0300\u200b\u2028\u202e\ufeff\ufffd\uffff\U0001f600'

NUMBERS = [0, 1, -1, 65535, 65536, 1800, 2**31, -(2**70), 2**70]
bencodable = trees(
    [
        *NUMBERS,
        b"",
        b"x",
        b"\xff" * 6,
        b"\x7f\0\0\1\x1a\xe1" * 3,
        b"::1",
        b"10.0.0.1",
        ODD.encode(),
        b"never",
    ],
    [b"ip", b"port", b"peer id", b"x", b"peers", b"failure reason"],
)
jsonable = trees(
    [
        *NUMBERS,
        None,
        True,
        False,
        1.5,
        float("nan"),
        float("inf"),
        "",
        "x",
        "10.0.0.1",
        ODD,
        "p" * 20,
        "\ud800",
    ],
    ["Ip", "Port", "Id", "Peers", "failure reason"],
)
KEYS = [
    b"interval",
    b"min interval",
    b"complete",
    b"incomplete",
    b"peers",
    b"peers6",
    b"warning message",
    b"tracker id",
    b"external ip",
    b"failure reason",
    b"retry in",
]


@given(
    st.binary(max_size=100)
    | st.dictionaries(st.sampled_from(KEYS), bencodable, max_size=4).map(bencode.encode)
    | st.dictionaries(st.sampled_from(["Peers", "IdHash", "failure reason"]), jsonable, max_size=3).map(
        lambda value: json.dumps(value).encode()
    )
    | st.binary(max_size=60).map(lambda raw: b"d" + raw)
    | st.binary(max_size=60).map(lambda raw: b"{" + raw),
    st.sampled_from(get_args(Dialect)),
    st.sampled_from([200, 400, 500]),
)
def test_a_reply_raises_nothing_but_tracker_error(raw: bytes, dialect: Dialect, status: int) -> None:
    try:
        reply = parse_reply(raw, dialect, status=status)
    except TrackerError as error:
        assert len(str(error)) <= 300
        assert "\n" not in str(error)
    else:
        assert all(0 < port < 65536 for _, port, _ in reply.peers)
        assert reply.interval is None or 0 < reply.interval <= 86_400


def test_failures_in_both_dialects() -> None:
    assert encode_failure("port is missing", "bittorrent") == b"d14:failure reason15:port is missinge"
    assert encode_failure("full", "bittorrent", 15) == b"d14:failure reason4:full8:retry ini15ee"
    assert encode_failure("no", "bittorrent", "never") == b"d14:failure reason2:no8:retry in5:nevere"
    assert encode_failure("port is missing", "microtorr") == b'{"failure reason": "port is missing"}'
