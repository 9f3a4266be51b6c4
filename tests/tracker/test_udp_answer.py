"""Answers to datagrams, without a socket: who is believed, what is never larger than what came, the rules."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.proto import udp_announce as udp
from microtorrd.proto.compact import pack, read_host
from microtorrd.proto.scrape import encode_scrape_query, parse_scrape_reply
from microtorrd.tracker.admission import NO_PASSKEY, WRONG_PASSKEY, admission, nobody
from microtorrd.tracker.answer import Answerer, Origin
from microtorrd.tracker.connection_ids import ConnectionIds
from microtorrd.tracker.lists import NO_LISTS
from microtorrd.tracker.passkeys import Passkeys
from microtorrd.tracker.service import OpenAdmission, TrackerService
from microtorrd.tracker.settings import TrackerSettings
from microtorrd.tracker.store import MemoryStore, Peer, StoreBounds
from microtorrd.tracker.udp_answer import ERRORS_PER_S, MOST_PEERS, MOST_PEERS6, UdpAnswerer
from tests.tracker.store_contract import fixed_chance

SWARM = b"S" * 20
HOST, OTHER, HOST6 = "192.0.2.1", "192.0.2.2", "2001:db8::1"


class Scene:
    """A tracker that answers datagrams, its clock, and its notes."""

    def __init__(self, bounds: StoreBounds | None = None, **settings: Any) -> None:
        self.now = 1000.0
        self.settings = TrackerSettings(**settings)
        self.store = MemoryStore(fixed_chance(), bounds)
        self.service = TrackerService(self.settings, self.store, OpenAdmission())
        self.notes: list[dict[str, Any]] = []
        self.is_watched = True
        self.answerer = UdpAnswerer(
            self.settings,
            self.service,
            ConnectionIds(Random(1).randbytes),
            clock=lambda: self.now,
            on_request=self.notes.append,
            is_watched=lambda: self.is_watched,
        )

    def connect(self, host: str = HOST) -> int:
        raw = self.answerer.answer(udp.encode_request(udp.ConnectRequest(7)), host)
        assert raw is not None
        reply = udp.decode_reply(raw, ipv6=":" in host)
        assert isinstance(reply, udp.ConnectReply) and reply.transaction == 7
        return reply.connection

    def ask(self, request: udp.Request, host: str = HOST) -> udp.Reply | None:
        raw = self.answerer.answer(udp.encode_request(request), host)
        return None if raw is None else udp.decode_reply(raw, ipv6=":" in host and "." not in host)

    def announce(self, host: str = HOST, **fields: Any) -> udp.AnnounceReply:
        reply = self.ask(announce(self.connect(host), **fields), host)
        assert isinstance(reply, udp.AnnounceReply), reply
        assert reply.transaction == 99
        return reply

    def fill(self, count: int, *, six: bool = False, complete: bool = False) -> None:
        for number in range(count):
            text = f"2001:db8:1::{number + 1:x}" if six else f"10.0.{number >> 8}.{number & 255}"
            packed = read_host(text)
            assert packed is not None
            peer = Peer(b"%020d" % number, pack(packed, 6881), complete)
            self.store.enter(SWARM, peer, expires_at=9e9, finished=False, want=0, named=False)


def announce(connection: int, **fields: Any) -> udp.AnnounceRequest:
    plain: dict[str, Any] = {
        "info_hash": SWARM,
        "peer_id": b"-XX0001-abcdefghijkl",
        "downloaded": 0,
        "left": 5,
        "uploaded": 0,
        "event": "started",
        "key": 0xDEADBEEF,
        "numwant": -1,
        "port": 6881,
    }
    return udp.AnnounceRequest(connection=connection, transaction=99, **{**plain, **fields})


# ------------------------------------------------------------------------------------- who is believed


def test_a_connect_request_is_answered_with_as_many_bytes() -> None:
    raw = udp.encode_request(udp.ConnectRequest(7))
    answer = Scene().answerer.answer(raw, HOST)
    assert answer is not None and len(answer) == len(raw) == 16


def test_who_brings_no_id_changes_nothing_and_is_told_so() -> None:
    scene = Scene()
    scene.connect()
    for connection in (0, 1, udp.PROTOCOL_ID, 2**64 - 1):
        request = announce(connection)
        assert scene.ask(request) == udp.ErrorReply(99, "unknown connection id")
    assert scene.ask(udp.ScrapeRequest(5, 99, (SWARM,))) == udp.ErrorReply(99, "unknown connection id")
    assert scene.service.size() == (0, 0)
    assert not scene.notes


def test_the_id_of_another_host_is_none() -> None:
    scene = Scene()
    stolen = scene.connect(OTHER)
    assert isinstance(scene.ask(announce(stolen), HOST), udp.ErrorReply)
    assert isinstance(scene.ask(announce(stolen), OTHER), udp.AnnounceReply)


def test_an_id_lasts_for_two_minutes() -> None:
    scene = Scene()
    connection = scene.connect()
    scene.now += 120
    assert isinstance(scene.ask(announce(connection)), udp.AnnounceReply)
    scene.now += 21
    assert isinstance(scene.ask(announce(connection)), udp.ErrorReply)


def test_errors_to_who_is_not_believed_are_bounded() -> None:
    scene = Scene()
    raw = udp.encode_request(announce(5))

    def told(count: int) -> int:
        return sum(scene.answerer.answer(raw, HOST) is not None for _ in range(count))

    assert told(3 * ERRORS_PER_S) == ERRORS_PER_S
    scene.now += 0.1
    assert told(ERRORS_PER_S) == ERRORS_PER_S // 10
    # Who knows how to ask is answered all the same.
    assert isinstance(scene.ask(announce(scene.connect())), udp.AnnounceReply)


heads = st.builds(
    lambda connection, action, transaction: struct.pack(">QII", connection, action, transaction),
    st.sampled_from([udp.PROTOCOL_ID, 0, 1]) | st.integers(0, 2**64 - 1),
    st.integers(0, 4) | st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)
datagrams = st.binary(max_size=120) | st.builds(bytes.__add__, heads, st.binary(max_size=200))
senders = st.sampled_from(
    [HOST, HOST6, f"::ffff:{HOST}", "fe80::1%eth0", "127.0.0.1", "0.0.0.0", "::", "ff02::1"]
)


@given(datagrams, senders)
def test_nothing_larger_goes_to_a_sender_that_may_be_a_lie(raw: bytes, sender: str) -> None:
    scene = Scene()
    answer = scene.answerer.answer(raw, sender)
    if answer is not None:
        assert len(answer) <= len(raw)
        # And it is nothing that another tracker would answer.
        assert scene.answerer.answer(answer, sender) is None
    assert scene.service.size() == (0, 0)


@given(st.integers(0, 2**32 - 1), st.binary(max_size=300), senders)
def test_whatever_comes_with_a_good_id_is_answered_or_not(action: int, rest: bytes, sender: str) -> None:
    scene = Scene()
    try:
        connection = scene.connect(sender)
    except AssertionError:  # nobody's address
        return
    for kind in (action, udp.ANNOUNCE, udp.SCRAPE, udp.ERROR):
        raw = struct.pack(">QII", connection, kind, 1) + rest
        answer = scene.answerer.answer(raw, sender)
        if kind != udp.CONNECT:
            assert answer is not None
            assert len(answer) <= udp.UNFRAGMENTED_BYTES
            assert udp.decode_reply(answer, ipv6=False).transaction == 1
    scene.store.check()


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        (struct.pack(">II", 1, 3), "an announce that is too short"),
        (struct.pack(">II", 1, 3) + bytes(81), "an announce that is too short"),
        (struct.pack(">II", 2, 3), "a scrape of 0 torrents"),
        (struct.pack(">II", 2, 3) + bytes(19), "a scrape of 0 torrents"),
        (struct.pack(">II", 2, 3) + bytes(75 * 20), "a scrape of 75 torrents"),
        (struct.pack(">II", 77, 3), "action 77 is unknown"),
    ],
)
def test_mistakes_of_who_is_believed_are_named(rest: bytes, says: str) -> None:
    scene = Scene()
    answer = scene.answerer.answer(struct.pack(">Q", scene.connect()) + rest, HOST)
    assert answer is not None
    assert udp.decode_reply(answer, ipv6=False) == udp.ErrorReply(3, says)


# ------------------------------------------------------------------------------------------- announces


def test_a_swarm_from_beginning_to_end() -> None:
    scene = Scene(interval=1234)
    reply = scene.announce(peer_id=b"s" * 20, left=0, port=7001)
    assert reply == udp.AnnounceReply(99, 1234, leechers=0, seeders=1, addresses=())
    reply = scene.announce(OTHER, port=7002)
    assert reply == udp.AnnounceReply(99, 1234, leechers=1, seeders=1, addresses=((HOST, 7001),))
    reply = scene.announce(OTHER, port=7002, left=0, event="completed")
    assert (reply.leechers, reply.seeders, reply.addresses) == (0, 2, ())
    assert scene.ask(udp.ScrapeRequest(scene.connect(), 1, (SWARM,))) == udp.ScrapeReply(1, ((2, 1, 0),))
    reply = scene.announce(peer_id=b"s" * 20, left=0, event="stopped", port=7001)
    assert (reply.leechers, reply.seeders, reply.addresses) == (0, 1, ())
    scene.now += 2 * 1234 + 1
    while scene.service.expire(scene.now):
        pass
    assert scene.service.size() == (0, 0)


def test_families_are_kept_apart() -> None:
    scene = Scene()
    scene.announce(HOST, peer_id=b"4" * 20)
    scene.announce(HOST6, peer_id=b"6" * 20)
    # A dual-stack socket shows IPv4 like this, and such a client reads entries of 6 bytes.
    reply = scene.announce(f"::ffff:{OTHER}", peer_id=b"m" * 20)
    assert (reply.leechers, reply.addresses) == (3, ((HOST, 6881),))
    reply = scene.announce("2001:db8::2", peer_id=b"n" * 20)
    assert (reply.leechers, reply.addresses) == (4, ((HOST6, 6881),))


@pytest.mark.parametrize(
    ("numwant", "told"), [(-1, 50), (-(2**31), 50), (0, 0), (7, 7), (200, 200), (2**31 - 1, MOST_PEERS)]
)
def test_as_many_peers_as_are_wanted_and_fit(numwant: int, told: int) -> None:
    scene = Scene(max_peers=1000)
    scene.fill(400)
    scene.fill(400, six=True)
    assert len(scene.announce(numwant=numwant).addresses) == told
    assert len(scene.announce(HOST6, numwant=numwant).addresses) == min(told, MOST_PEERS6)


def test_a_reply_is_one_packet_everywhere() -> None:
    scene = Scene(max_peers=1000, default_peers=1000)
    scene.fill(400)
    scene.fill(400, six=True)
    for host in (HOST, HOST6):
        for numwant in (-1, 1000):
            request = announce(scene.connect(host), numwant=numwant)
            raw = scene.answerer.answer(udp.encode_request(request), host)
            assert raw is not None
            assert 1220 <= len(raw) <= 1232


@pytest.mark.parametrize(
    ("rule", "host", "is_honoured"),
    [
        ("private", "10.1.1.1", True),
        ("private", "203.0.113.9", False),
        ("never", "10.1.1.1", False),
        ("always", "203.0.113.9", True),
        ("always", HOST6, False),  # its field has four bytes
    ],
)
def test_whose_ip_is_believed(rule: str, host: str, is_honoured: bool) -> None:
    scene = Scene(ip_parameter=rule)
    scene.announce(host, ip=int.from_bytes(b"\xc6\x33\x64\x07", "big"))
    asker = "2001:db8::99" if ":" in host else "203.0.113.77"
    (address,) = scene.announce(asker, peer_id=b"z" * 20).addresses
    assert address == (("198.51.100.7", 6881) if is_honoured else (host, 6881))


def test_what_no_peer_can_have_is_refused() -> None:
    scene = Scene()
    connection = scene.connect("10.1.1.1")
    refused = scene.ask(announce(connection, ip=0xE0000001), "10.1.1.1")
    assert refused == udp.ErrorReply(99, "ip must be a numeric address that a peer can have")
    refused = scene.ask(announce(connection, port=0), "10.1.1.1")
    assert refused == udp.ErrorReply(99, "port must be a number from 1 to 65535")
    assert scene.service.size() == (0, 0)


def test_a_full_tracker_says_so() -> None:
    scene = Scene(StoreBounds(swarms=1))
    scene.announce()
    refused = scene.ask(announce(scene.connect(), info_hash=b"T" * 20))
    assert isinstance(refused, udp.ErrorReply)
    assert "full" in refused.message


@pytest.mark.parametrize(
    ("url_data", "says"),
    [
        ("/announce/0123456789abcdef", None),
        ("/announce/0123456789abcdef?x=y", None),
        ("/announce/fedcba9876543210", WRONG_PASSKEY),
        ("", NO_PASSKEY),
        ("/announce", NO_PASSKEY),
        ("/announce/", NO_PASSKEY),
        ("/scrape/0123456789abcdef", NO_PASSKEY),
        ("/x/announce/0123456789abcdef", NO_PASSKEY),
        ("announce/0123456789abcdef", NO_PASSKEY),
    ],
)
def test_users_have_their_passkey_in_the_path(url_data: str, says: str | None) -> None:
    scene = Scene()
    passkeys = Passkeys([("0123456789abcdef", "ada")])
    rules = admission("open", NO_LISTS._replace(passkeys=passkeys), nobody)
    scene.service.admit_by(rules, passkeys)
    reply = scene.ask(announce(scene.connect(), url_data=url_data))
    if says is None:
        assert isinstance(reply, udp.AnnounceReply)
        (note,) = scene.notes
        assert (note["user"], note["failure"]) == ("ada", "")
        assert "0123456789abcdef" not in str(note)
    else:
        assert reply == udp.ErrorReply(99, says)
        assert scene.service.size() == (0, 0)


def test_a_path_that_no_user_has_is_for_nobody_where_there_are_no_users() -> None:
    scene = Scene()
    scene.announce(url_data="/announce/0123456789abcdef")
    assert "user" not in scene.notes[0]


# ----------------------------------------------------------------------------------------------- scrapes


def test_scrapes_say_what_they_say_over_http() -> None:
    scene = Scene()
    swarms = [bytes([number]) * 20 for number in range(udp.MAX_SCRAPE)]
    for number, swarm in enumerate(swarms[:-1]):
        for peer in range(number % 5 + 1):
            event = "completed" if peer == 2 else "started"
            scene.announce(info_hash=swarm, peer_id=b"%020d" % peer, left=peer % 2, event=event)
    raw = udp.encode_request(udp.ScrapeRequest(scene.connect(), 5, tuple(swarms)))
    answer = scene.answerer.answer(raw, HOST)
    assert answer is not None and len(answer) <= len(raw)
    reply = udp.decode_reply(answer, ipv6=False)
    assert isinstance(reply, udp.ScrapeReply)
    over_http = Answerer(scene.settings, scene.service, lambda: scene.now, None)
    answered = over_http.scrape(encode_scrape_query(swarms).encode(), Origin(HOST, False, ""))
    http = parse_scrape_reply(answered.body)
    assert len(http) == len(swarms) - 1
    assert reply.figures == tuple(http.get(swarm, (0, 0, 0)) for swarm in swarms)
    assert (2, 1, 2) in reply.figures and reply.figures[-1] == (0, 0, 0)


# ------------------------------------------------------------------------------------------------- notes


def test_announces_give_notes_while_somebody_reads_them() -> None:
    scene = Scene()
    scene.announce(left=0, event="completed")
    scene.ask(announce(scene.connect(), port=0))
    scene.is_watched = False
    scene.announce()
    good, bad = scene.notes
    assert good == {
        "kind": "tracker_request",
        "query": f"info_hash={'S' * 20}&peer_id=-XX0001-abcdefghijkl&port=6881&uploaded=0&downloaded=0&left=0"
        "&compact=1&event=completed&key=deadbeef",
        "host": HOST,
        "transport": "udp",
        "dialect": "bittorrent",
        "failure": "",
        "swarm_id": SWARM.hex(),
        "peer_id": "-XX0001-abcdefghijkl",
        "event": "completed",
        "port": 6881,
    }
    assert (bad["failure"], bad["port"]) == ("port must be a number from 1 to 65535", 0)


def test_a_wall_clock_that_is_set_back_takes_nobodys_connection_id() -> None:
    scene, wall = Scene(), [1_000_000.0]
    scene.answerer = UdpAnswerer(
        scene.settings,
        scene.service,
        ConnectionIds(Random(1).randbytes),
        clock=lambda: wall[0],
        steady=lambda: scene.now,
        on_request=None,
    )
    connection = scene.connect()
    wall[0] -= 100_000.0
    assert isinstance(scene.ask(announce(connection)), udp.AnnounceReply)
    assert not scene.store.expire(wall[0] + 1799.0, 10)
    assert scene.store.expire(wall[0] + 1801.0, 10) == 1
    scene.now += 3600.0
    assert isinstance(scene.ask(announce(connection)), udp.ErrorReply)


class BrokenStore(MemoryStore):
    """A store with a bug."""

    def enter(self, *_: Any, **__: Any) -> Any:
        """Fail."""
        raise RuntimeError("secret of the house")


def test_what_is_our_fault_is_logged_and_not_told(log_lines: Callable[[], list[dict[str, Any]]]) -> None:
    scene = Scene()
    scene.service._store = BrokenStore(fixed_chance())
    assert scene.ask(announce(scene.connect())) is None
    (line,) = [line for line in log_lines() if line["level"] == "error"]
    assert line["event"] == "datagram_failed"
    assert "secret of the house" in line["exception"]
