"""The UDP client against small UDP trackers: connection ids, repetition, strays."""

from __future__ import annotations

import random

import pytest

from microtorrd.errors import TrackerError, TrackerUnreachable
from microtorrd.net.routes import Route, Routes
from microtorrd.net.tracker_udp import UdpLimits, UdpTracker
from microtorrd.proto import udp_announce as udp
from microtorrd.proto.announce import AnnounceRequest
from tests.net.trackers import FakeUdpTracker, closed_port, closing

REQUEST = AnnounceRequest(
    swarm_id=b"i" * 20,
    peer_id=b"p" * 20,
    port=7777,
    event="started",
    uploaded=1,
    downloaded=2,
    left=3,
    numwant=50,
    key="deadbeef",
)


def client(**limits: float) -> UdpTracker:
    return UdpTracker(UdpLimits(**{"first_wait_s": 0.2, "total_s": 2.0, **limits}), chance=random.Random(1))


def route(host: str = "127.0.0.1") -> Route:
    return Routes().find(host, 1)[0]


def test_connect_then_announce() -> None:
    tracker = FakeUdpTracker()
    with closing(tracker):
        reply = client().announce(route(), tracker.port, REQUEST, url_data="/announce?auth=1")
    assert (reply.interval, reply.complete, reply.incomplete) == (900, 3, 4)
    assert reply.peers == (("192.0.2.1", 6881, None),)
    connect, announce = tracker.seen
    assert isinstance(connect, udp.ConnectRequest)
    assert announce == udp.AnnounceRequest(
        connection=tracker.connection,
        transaction=announce.transaction,
        info_hash=b"i" * 20,
        peer_id=b"p" * 20,
        downloaded=2,
        left=3,
        uploaded=1,
        event="started",
        key=0xDEADBEEF,
        numwant=50,
        port=7777,
        url_data="/announce?auth=1",
    )
    assert announce.transaction != connect.transaction


def test_a_connection_id_is_used_for_a_minute() -> None:
    now = [100.0]
    asker = UdpTracker(chance=random.Random(1), clock=lambda: now[0])
    tracker = FakeUdpTracker()
    with closing(tracker):
        for at in (100.0, 159.0, 161.0):
            now[0] = at
            asker.announce(route(), tracker.port, REQUEST)
    kinds = [type(request).__name__ for request in tracker.seen]
    assert kinds == [
        "ConnectRequest",
        "AnnounceRequest",
        "AnnounceRequest",
        "ConnectRequest",
        "AnnounceRequest",
    ]


def test_an_old_connection_id_that_is_refused_is_asked_for_anew() -> None:
    asker = client()
    tracker = FakeUdpTracker()
    with closing(tracker):
        asker.announce(route(), tracker.port, REQUEST)
        tracker.connection = 99  # restarted
        assert asker.announce(route(), tracker.port, REQUEST).interval == 900
    assert len(tracker.seen) == 5


def test_a_lost_datagram_is_sent_again() -> None:
    def deaf_at_first(tracker: FakeUdpTracker, request: udp.Request) -> list[bytes]:
        return [] if len(tracker.seen) in (1, 3) else tracker.well(request)

    tracker = FakeUdpTracker(deaf_at_first)
    with closing(tracker):
        assert client().announce(route(), tracker.port, REQUEST).interval == 900
    assert [type(request).__name__ for request in tracker.seen] == [
        "ConnectRequest",
        "ConnectRequest",
        "AnnounceRequest",
        "AnnounceRequest",
    ]
    assert tracker.seen[0] == tracker.seen[1]


def test_silence_is_waited_for_longer_each_time_and_not_for_ever() -> None:
    tracker = FakeUdpTracker(lambda *_: [])
    with closing(tracker), pytest.raises(TrackerUnreachable, match="no answer"):
        client(first_wait_s=0.1, total_s=0.6).announce(route(), tracker.port, REQUEST)
    assert len(tracker.seen) == 3  # at 0, 0.1 and 0.3; the next would be at 0.7


def test_nobody_listens() -> None:
    with pytest.raises(TrackerUnreachable, match="refused"):
        client().announce(route(), closed_port(), REQUEST)


def test_an_error_is_told_on_one_line_without_what_steers_a_terminal() -> None:
    def refuse(tracker: FakeUdpTracker, request: udp.Request) -> list[bytes]:
        if isinstance(request, udp.ConnectRequest):
            return tracker.well(request)
        return [udp.encode_reply(udp.ErrorReply(request.transaction, "not\x1b[2J\r\nhere " + "x" * 999))]

    tracker = FakeUdpTracker(refuse)
    with closing(tracker), pytest.raises(TrackerError) as caught:
        client().announce(route(), tracker.port, REQUEST)
    assert str(caught.value).startswith("not [2J here x")
    assert len(str(caught.value)) <= 200
    assert not isinstance(caught.value, TrackerUnreachable)


def test_strays_are_passed_over_until_there_are_too_many() -> None:
    def confused(tracker: FakeUdpTracker, request: udp.Request) -> list[bytes]:
        strays = [b"", b"garbage", udp.encode_reply(udp.ConnectReply(request.transaction ^ 1, 13)), b"\0" * 9]
        return strays + tracker.well(request)

    tracker = FakeUdpTracker(confused)
    with closing(tracker):
        assert client().announce(route(), tracker.port, REQUEST).interval == 900
    flooding = FakeUdpTracker(lambda *_: [b"garbage"] * 100)
    with closing(flooding), pytest.raises(TrackerError, match="garbage"):
        client().announce(route(), flooding.port, REQUEST)


def test_the_answer_to_another_question() -> None:
    def wrong(tracker: FakeUdpTracker, request: udp.Request) -> list[bytes]:
        return [udp.encode_reply(udp.ScrapeReply(request.transaction, ((1, 2, 3),)))]

    tracker = FakeUdpTracker(wrong)
    with closing(tracker), pytest.raises(TrackerError, match="something else"):
        client().announce(route(), tracker.port, REQUEST)


def test_by_ipv6_the_addresses_are_ipv6() -> None:
    def six(tracker: FakeUdpTracker, request: udp.Request) -> list[bytes]:
        if isinstance(request, udp.ConnectRequest):
            return tracker.well(request)
        return [udp.encode_reply(udp.AnnounceReply(request.transaction, 60, 0, 1, (("2001:db8::1", 6881),)))]

    tracker = FakeUdpTracker(six, host="::1")
    with closing(tracker):
        reply = client().announce(route("::1"), tracker.port, REQUEST)
    assert reply.peers == (("2001:db8::1", 6881, None),)


def test_it_leaves_by_the_source_it_was_given() -> None:
    tracker = FakeUdpTracker()
    pinned = Routes(lambda: ["127.0.0.5"]).find("127.0.0.1", tracker.port)[0]
    with closing(tracker):
        client().announce(pinned, tracker.port, REQUEST)
    assert {host for host, _ in tracker.came_from} == {"127.0.0.5"}


def test_connection_ids_are_bounded() -> None:
    asker = client()
    tracker = FakeUdpTracker()
    asker._connections = {("192.0.2.1", port): (1, 1e18) for port in range(512)}
    with closing(tracker):
        asker.announce(route(), tracker.port, REQUEST)
    assert len(asker._connections) == 512
