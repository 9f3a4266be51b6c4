"""One announce, whatever the URL: the exact query, the families, the sorting of replies, whom we dial."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest

from microtorrd.core.tiers import Dialect, place_of
from microtorrd.errors import DialectRefused, PeerForgotten, TrackerError, TrackerUnreachable
from microtorrd.net.routes import Route, Routes
from microtorrd.net.tracker_client import (
    ClientLimits,
    Heard,
    Question,
    TrackerClient,
    admitted,
    understood,
)
from microtorrd.net.tracker_http import HttpLimits, HttpReply, with_query
from microtorrd.net.tracker_udp import UdpLimits
from microtorrd.proto.announce import AnnounceRequest
from microtorrd.proto.scrape import SwarmCounts, encode_scrape_reply
from microtorrd.proto.udp_announce import AnnounceRequest as UdpAnnounce
from tests.net.trackers import (
    EMPTY,
    GO_REFUSAL,
    JSON,
    ONE_PEER,
    FakeTracker,
    FakeUdpTracker,
    RawTracker,
    closed_port,
    closing,
    http,
)

LIMITS = ClientLimits(
    total_s=5.0,
    http=HttpLimits(connect_s=1.0, read_s=0.5),
    udp=UdpLimits(first_wait_s=0.5, total_s=2.0),
)
REQUEST = AnnounceRequest(
    swarm_id=bytes(range(20)),
    peer_id=b"-MT0001-abcdefghi/+~",
    port=7777,
    event="started",
    uploaded=1,
    downloaded=2,
    left=3,
    numwant=50,
    no_peer_id=True,
    key="deadbeef",
)


class Client:
    """Announces by a URL."""

    def __init__(self, **options: Any) -> None:
        self.client = TrackerClient(limits=LIMITS, **options)

    def __call__(
        self, url: str, dialect: Dialect = "bittorrent", *, within_s: float | None = None, **changes: Any
    ) -> Heard:
        place = place_of(url)
        assert place is not None
        return self.client.announce(
            Question(url, place, dialect, REQUEST._replace(**changes)), within_s=within_s
        )


@pytest.fixture
def announce() -> Iterator[Client]:
    client = Client()
    yield client
    client.client.close_idle()


def test_the_bittorrent_query_byte_for_byte(announce: Client) -> None:
    tracker = FakeTracker()
    with closing(tracker):
        heard = announce(tracker.url, tracker_id=b"\x00t")
    assert tracker.seen[0].target == (
        "/announce?info_hash=%00%01%02%03%04%05%06%07%08%09%0A%0B%0C%0D%0E%0F%10%11%12%13"
        "&peer_id=-MT0001-abcdefghi%2F%2B~&port=7777&uploaded=1&downloaded=2&left=3&compact=1&event=started"
        "&numwant=50&no_peer_id=1&key=deadbeef&trackerid=%00t"
    )
    assert heard.addresses == [("192.0.2.1", 6881)]
    assert (heard.reply.interval, heard.reply.complete, heard.reply.incomplete) == (600, 2, 3)


def test_the_microtorr_query_byte_for_byte(announce: Client) -> None:
    tracker = FakeTracker()
    with closing(tracker):
        heard = announce(tracker.url, "microtorr")
    assert tracker.seen[0].target == (
        "/announce?peerId=-MT0001-abcdefghi%2F%2B~&swarmId=000102030405060708090a0b0c0d0e0f10111213"
        "&ip=127.0.0.1&port=7777&event=started"
    )
    assert tracker.seen[0].headers["accept"] == "application/json"
    assert heard.addresses == [("192.0.2.9", 1111)]


def scrape(client: Client, url: str) -> SwarmCounts:
    place = place_of(url)
    assert place is not None
    return client.client.scrape(Question(url, place, "bittorrent", REQUEST))


def test_a_scrape_by_http(announce: Client) -> None:
    tracker = FakeTracker()
    figures = {REQUEST.swarm_id: SwarmCounts(2, 9, 3), bytes(20): SwarmCounts(1, 1, 1)}
    tracker.figures = lambda _: http(encode_scrape_reply(figures))
    with closing(tracker):
        assert scrape(announce, f"{tracker.url}?key=1") == SwarmCounts(complete=2, downloaded=9, incomplete=3)
        with pytest.raises(TrackerError, match="it has no address for scrapes"):
            scrape(announce, tracker.url.replace("announce", "a"))
    assert [seen.target for seen in tracker.scrapes] == [
        "/scrape?key=1&info_hash=%00%01%02%03%04%05%06%07%08%09%0A%0B%0C%0D%0E%0F%10%11%12%13"
    ]


def test_a_scrape_by_udp(announce: Client) -> None:
    tracker = FakeUdpTracker()
    with closing(tracker):
        assert scrape(announce, tracker.url) == SwarmCounts(complete=3, downloaded=9, incomplete=4)
        assert tracker.scrapes[0].info_hashes == (REQUEST.swarm_id,)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the reply is empty"),
        (b"<html>", "the reply is a web page"),
        (b"d5:filesdee", "it tells no figures"),
        (b"d5:filesi1ee", "the reply has no files"),
        (b"d14:failure reason2:noe", "no"),
        (b"d5:filesd20:\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17\20\21\22\23d8:completei-1eeee", "no figures"),
    ],
)
def test_a_scrape_that_tells_nothing(announce: Client, body: bytes, reason: str) -> None:
    tracker = FakeTracker()
    tracker.figures = lambda _: http(body)
    with closing(tracker), pytest.raises(TrackerError, match=reason):
        scrape(announce, tracker.url)


def test_where_trackers_see_us(announce: Client) -> None:
    told: list[tuple[str, str]] = []
    announce.client.on_external_ip = lambda *pair: told.append(pair)
    tracker = FakeTracker(lambda _: http(b"d11:external ip4:\xc0\x00\x02\x07" + EMPTY[1:]))
    with closing(tracker):
        announce(tracker.url)
    assert told == [("127.0.0.1", "192.0.2.7")]


def test_ip_is_our_address_on_the_way_to_the_tracker() -> None:
    tracker = FakeTracker()
    bound = Client(sources=lambda: ["127.0.0.6"])
    with closing(tracker):
        bound(tracker.url, "microtorr")
        assert tracker.seen[0].params["ip"] == b"127.0.0.6"
        bound(tracker.url)
        assert "ip" not in tracker.seen[1].params  # a BitTorrent tracker sees where we come from
    bound.client.close_idle()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://t/announce", "http://t/announce?a=1"),
        ("http://t/announce?passkey=%41%FF", "http://t/announce?passkey=%41%FF&a=1"),
        ("http://t", "http://t/?a=1"),
        ("http://t/x#fragment", "http://t/x?a=1"),
        ("https://me:secret@t:8/x", "https://me:secret@t:8/x?a=1"),
    ],
)
def test_parameters_are_added_to_those_of_the_url(url: str, expected: str) -> None:
    assert with_query(url, "a=1") == expected


def test_a_tracker_that_never_answers_costs_no_more_than_the_limit(announce: Client) -> None:
    tracker = FakeTracker(lambda _: None)
    started = time.monotonic()
    with closing(tracker), pytest.raises(TrackerUnreachable, match="no answer"):
        announce(tracker.url)
    with closing(tracker), pytest.raises(TrackerUnreachable):
        announce(tracker.url, within_s=0.05)
    assert time.monotonic() - started < 3.0


def test_a_byte_now_and_then_ends_at_the_wall(announce: Client) -> None:
    def trickle(sock: Any) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            sock.sendall(b"d")
            gevent.sleep(0.02)

    tracker = RawTracker(trickle)
    started = time.monotonic()
    with closing(tracker), pytest.raises(TrackerUnreachable, match=r"no answer within 0\.4 s"):
        announce(tracker.url, within_s=0.4)
    assert time.monotonic() - started < 3.0


def test_a_list_of_a_million_peers_is_cut_off(announce: Client) -> None:
    million = b"d8:intervali60e5:peers6000000:" + b"\xc0\x00\x02\x01\x1a\xe1" * 1_000_000 + b"e"
    tracker = FakeTracker(lambda _: http(million))
    with closing(tracker), pytest.raises(TrackerError, match="longer than"):
        announce(tracker.url)


def test_as_many_peers_as_a_reply_holds_are_bounded_and_each_is_told_once(announce: Client) -> None:
    entries = b"".join(b"\x0a\x00%c%c\x1a\xe1" % (n >> 8, n & 255) for n in range(1, 3000)) * 2
    body = b"d8:intervali60e5:peers%d:%be" % (len(entries), entries)
    tracker = FakeTracker(lambda _: http(body))
    with closing(tracker):
        found = announce(tracker.url).addresses
    assert len(found) == len(set(found)) == 1000


def test_we_are_not_our_own_peer(announce: Client) -> None:
    ours = (
        b'{"IdHash":"","Peers":{"x":{"Ip":"10.0.0.1","Port":7777,"Id":"-MT0001-abcdefghi/+~"},'
        b'"y":{"Ip":"10.0.0.1","Port":7778,"Id":"yyyyyyyyyyyyyyyyyyyy"}}}'
    )
    tracker = FakeTracker(lambda _: http(ours))
    with closing(tracker):
        assert announce(tracker.url, "microtorr").addresses == [("10.0.0.1", 7778)]


def test_loopback_peers_count_only_where_the_tracker_is_near() -> None:
    peers = [("127.0.0.1", 1), ("::1", 2), ("10.0.0.1", 3), ("8.8.8.8", 4), ("fe80::1", 5), ("8.8.8.8", 0)]
    assert admitted(peers, is_near=False, most=10) == [("10.0.0.1", 3), ("8.8.8.8", 4)]
    assert admitted(peers, is_near=True, most=10) == peers[:4]
    assert admitted(peers, is_near=True, most=2) == peers[:2]


HTML = b"<!DOCTYPE html><html><body>It works!</body></html>"


@pytest.mark.parametrize(
    ("dialect", "status", "body", "error"),
    [
        # Understood, and refused for a reason.
        ("bittorrent", 200, b"d14:failure reason7:go awaye", TrackerError),
        ("bittorrent", 400, b"d14:failure reason7:go awaye", TrackerError),
        ("microtorr", 400, b'{"failure reason": "port is missing"}', TrackerError),
        # A server in trouble says nothing about dialects.
        ("bittorrent", 500, HTML, TrackerError),
        ("microtorr", 502, b"", TrackerError),
        ("microtorr", 429, b"slow down", TrackerError),
        # Not this dialect.
        ("bittorrent", 400, b"Missing required parameters\n", DialectRefused),
        ("bittorrent", 200, JSON, DialectRefused),
        ("bittorrent", 200, HTML, DialectRefused),
        ("bittorrent", 404, HTML, DialectRefused),
        ("bittorrent", 200, b"", DialectRefused),
        ("microtorr", 200, EMPTY, DialectRefused),
        ("microtorr", 200, b"d14:failure reason7:go awaye", DialectRefused),
        ("microtorr", 400, b"d14:failure reason7:go awaye", DialectRefused),
        ("microtorr", 200, HTML, DialectRefused),
        ("microtorr", 200, b"{}", DialectRefused),
        ("microtorr", 200, b"", DialectRefused),
        ("microtorr", 404, b"404 page not found\n", DialectRefused),
    ],
)
def test_an_answer_that_is_none_is_sorted_by_what_it_shows(
    dialect: Dialect, status: int, body: bytes, error: type[TrackerError]
) -> None:
    with pytest.raises(TrackerError) as caught:
        understood(HttpReply(status, body, None), dialect, "started")
    assert type(caught.value) is error
    assert str(caught.value)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b"Peer is not in this swarm\n"),
        (400, b'{"failure reason": "Peer is not in this swarm"}'),
        (200, b'{"failure reason": "Peer is not in this swarm"}'),
        (404, b'{"failure reason": "unknown peer"}'),
        (404, b"404 page not found\n"),
        (410, b""),
    ],
)
def test_a_tracker_that_forgot_us_wants_started_again(status: int, body: bytes) -> None:
    with pytest.raises(PeerForgotten):
        understood(HttpReply(status, body, None), "microtorr", "alive")


def test_the_time_to_come_back_is_taken_from_the_reply_or_the_header() -> None:
    for status, body, header, expected in [
        (503, b"busy", 30.0, 30.0),
        (200, b"d14:failure reason4:busy8:retry ini5ee", None, 300.0),
        (503, b"d14:failure reason4:busy8:retry ini5ee", 30.0, 300.0),
        (500, b"", None, None),
    ]:
        with pytest.raises(TrackerError) as caught:
            understood(HttpReply(status, body, header), "bittorrent", "started")
        assert caught.value.retry_s == expected


def test_the_original_s_tracker_knows_only_its_own_dialect(announce: Client) -> None:
    tracker = FakeTracker(lambda seen: GO_REFUSAL if seen.dialect == "bittorrent" else http(JSON))
    with closing(tracker):
        with pytest.raises(DialectRefused, match="Missing required parameters"):
            announce(tracker.url)
        assert announce(tracker.url, "microtorr").addresses


def test_udp(announce: Client) -> None:
    tracker = FakeUdpTracker()
    with closing(tracker):
        heard = announce(tracker.url + "/announce?auth=x")
    assert heard.addresses == [("192.0.2.1", 6881)]
    asked = tracker.seen[-1]
    assert isinstance(asked, UdpAnnounce)
    assert (asked.url_data, asked.key, asked.event) == ("/announce?auth=x", 0xDEADBEEF, "started")


class TwoWays(Routes):
    """`two.test` has an address of each family, both of them on this machine. `far` makes them look far."""

    def __init__(self, *, far: bool) -> None:
        super().__init__()
        self._far = far

    def find(self, host: str, port: int) -> tuple[Route, ...]:
        kind = _FarRoute if self._far else Route
        return kind("::1", "::1", False), kind("127.0.0.1", "127.0.0.1", False)


class _FarRoute(Route):
    @property
    def scope(self) -> Any:
        return "global"


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Knows `two.test`."""

    def look_up(host: str, port: int, *_: object, **__: object) -> list[tuple[Any, ...]]:
        assert host == "two.test"
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@contextmanager
def client_of(routes: Routes) -> Iterator[Client]:
    client = Client(routes=routes)
    try:
        yield client
    finally:
        client.client.close_idle()


def both_families(
    answer4: Callable[..., bytes | None], answer6: Callable[..., bytes | None]
) -> list[FakeTracker]:
    """Two trackers at one port, one for each family."""
    while True:
        six = FakeTracker(answer6, host="::1")
        try:
            return [FakeTracker(answer4, port=six.port), six]
        except OSError:  # the port is taken in the other family
            six.close()


SIX = b"d8:intervali700e6:peers618:" + b"\x20\x01\x0d\xb8" + b"\0" * 11 + b"\x01\x1a\xe1e"


@pytest.mark.usefixtures("name_server")
def test_a_tracker_far_away_hears_us_on_both_families() -> None:
    four, six = both_families(lambda _: http(ONE_PEER), lambda _: http(SIX))
    url = f"http://two.test:{four.port}/announce"
    with closing(four, six), client_of(TwoWays(far=True)) as announce:
        heard = announce(url)
        assert sorted(heard.addresses) == [("192.0.2.1", 6881), ("2001:db8::1", 6881)]
        assert four.seen[0].params["key"] == six.seen[0].params["key"]
        with pytest.raises(DialectRefused):
            announce(url, "microtorr", event="stopped")
        # MicroTorr knows one address a peer, and the original no IPv6.
        assert (len(four.seen), len(six.seen)) == (2, 1)


@pytest.mark.usefixtures("name_server")
def test_one_family_is_enough_for_a_tracker_nearby() -> None:
    four, six = both_families(lambda _: http(ONE_PEER), lambda _: http(SIX))
    with closing(four, six), client_of(TwoWays(far=False)) as announce:
        announce(f"http://two.test:{four.port}/announce")
    assert (len(four.seen), len(six.seen)) == (0, 1)


@pytest.mark.usefixtures("name_server")
def test_a_family_that_does_not_work_is_left_alone_while_the_other_one_does() -> None:
    four, six = both_families(lambda _: http(ONE_PEER), lambda _: None)
    url = f"http://two.test:{four.port}/announce"
    with closing(four, six), client_of(TwoWays(far=True)) as announce:
        for _ in range(3):
            assert announce(url).addresses == [("192.0.2.1", 6881)]
    assert (len(four.seen), six.connections) == (3, 1)


@pytest.mark.usefixtures("name_server")
def test_what_one_family_said_is_kept_when_the_other_one_hangs() -> None:
    four, six = both_families(lambda _: None, lambda _: http(SIX))
    with closing(four, six), client_of(TwoWays(far=True)) as announce:
        heard = announce(f"http://two.test:{four.port}/announce", within_s=0.45)
    assert heard.addresses == [("2001:db8::1", 6881)]


@pytest.mark.usefixtures("name_server")
def test_nobody_there_by_any_family() -> None:
    with client_of(TwoWays(far=True)) as announce, pytest.raises(TrackerUnreachable, match="refused"):
        announce(f"http://two.test:{closed_port()}/announce")
