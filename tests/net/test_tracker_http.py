"""The HTTP exchange with a tracker, and everything that one may do wrong. Deadlines are short."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from microtorrd import __version__
from microtorrd.errors import TrackerError, TrackerUnreachable
from microtorrd.net.routes import Route, Routes
from microtorrd.net.tracker_http import HttpLimits, HttpReply, HttpTracker, next_hop
from tests.net.trackers import EMPTY, FakeTracker, RawTracker, closed_port, closing, http

SHORT = HttpLimits(connect_s=1.0, read_s=0.4, reply_bytes=20_000)


class Client:
    """Gets from a tracker and leaves no connection open."""

    def __init__(self) -> None:
        self.tracker = HttpTracker(Routes(), SHORT)

    def __call__(self, url: str, **options: Any) -> HttpReply:
        return self.tracker.get(url, accept="*/*", **options)


@pytest.fixture
def get() -> Iterator[Client]:
    client = Client()
    yield client
    client.tracker.close_idle()


def test_the_request_byte_for_byte(get: Client) -> None:
    tracker = RawTracker(lambda sock: sock.sendall(http(EMPTY)))
    with closing(tracker):
        reply = get(tracker.url + "?info_hash=%00%FFab-_.~&peer_id=-MT0001-%2B%2F&left=0")
    assert reply == (200, EMPTY, None)
    expected = (
        "GET /announce?info_hash=%00%FFab-_.~&peer_id=-MT0001-%2B%2F&left=0 HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{tracker.port}\r\n"
        f"User-Agent: microtorrd/{__version__}\r\n"
        "Accept-Encoding: gzip\r\n"
        "Accept: */*\r\n"
        "Connection: keep-alive\r\n\r\n"
    )
    assert tracker.requests == [expected.encode()]


def test_connections_are_kept_and_put_away_when_nobody_uses_them(get: Client) -> None:
    tracker = FakeTracker(lambda _: http(EMPTY))
    with closing(tracker):
        for _ in range(5):
            get(tracker.url)
        assert tracker.connections == 1
        get.tracker.close_idle()
        get(tracker.url)
        assert tracker.connections == 2


def test_a_kept_connection_that_the_tracker_closes_is_no_failure(get: Client) -> None:
    def only_once(sock: Any) -> None:
        sock.sendall(http(EMPTY))
        sock.recv(65536)  # the next request on this connection gets no answer

    tracker = RawTracker(only_once)
    with closing(tracker):
        for _ in range(3):
            assert get(tracker.url).status == 200


def test_gzip_is_unpacked(get: Client) -> None:
    tracker = FakeTracker(lambda _: http(gzip.compress(EMPTY), "200 OK", "Content-Encoding: gzip"))
    with closing(tracker):
        assert get(tracker.url).body == EMPTY


def test_any_status_comes_back_with_its_body(get: Client) -> None:
    tracker = FakeTracker(lambda _: http(b"Peer is not in this swarm\n", "400 Bad Request"))
    with closing(tracker):
        assert get(tracker.url) == (400, b"Peer is not in this swarm\n", None)


@pytest.mark.parametrize(
    ("status", "value", "expected"),
    [
        ("503 Busy", "120", 120.0),
        ("429 Too Many", " 7 ", 7.0),
        ("200 OK", "120", None),
        ("503 Busy", "Wed, 21 Oct 2015 07:28:00 GMT", None),
        ("503 Busy", "9" * 30, None),
        ("503 Busy", "-1", None),
    ],
)
def test_a_busy_tracker_may_say_when_to_come_back(
    get: Client, status: str, value: str, expected: float | None
) -> None:
    tracker = FakeTracker(lambda _: http(b"", status, f"Retry-After: {value}"))
    with closing(tracker):
        assert get(tracker.url).retry_after_s == expected


def test_nobody_listens(get: Client) -> None:
    with pytest.raises(TrackerUnreachable, match="Connection refused"):
        get(f"http://127.0.0.1:{closed_port()}/announce")


def test_a_tracker_that_never_answers(get: Client) -> None:
    tracker = FakeTracker(lambda _: None)
    with closing(tracker), pytest.raises(TrackerUnreachable, match=r"no answer within 0\.4 s"):
        get(tracker.url)


def say(raw: bytes) -> Callable[[Any], None]:
    return lambda sock: sock.sendall(raw)


def trickle_headers(sock: Any) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        sock.sendall(b"x")
        gevent.sleep(0.01)


def trickle_body(sock: Any) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        sock.sendall(b"x")
        gevent.sleep(0.01)


def flood(sock: Any) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        sock.sendall(b"x" * 65536)


def flood_of_headers(sock: Any) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        sock.sendall(b"X-Header: value\r\n" * 100)


@pytest.mark.parametrize(
    ("behave", "says"),
    [
        (say(b""), "closed the connection without an answer"),
        (say(b"garbage\r\n\r\n"), "does not speak HTTP"),
        (say(b"\x13BitTorrent protocol" + b"\0" * 48), "does not speak HTTP"),
        (say(b"HTTP/1.1 200 OK\r\n" + b"X: y" * 40_000), "does not speak HTTP"),
        (flood_of_headers, "does not speak HTTP"),
        (say(b"HTTP/1.1 999999 OK\r\n\r\n"), "does not speak HTTP"),
        (say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"), "broke off"),
        (say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n"), "broke off"),
        (say(http(b"no gzip at all", "200 OK", "Content-Encoding: gzip")), "cannot be unpacked"),
        (flood, "longer than 20000 bytes"),
        (say(http(gzip.compress(bytes(50 << 20)), "200 OK", "Content-Encoding: gzip")), "longer than 20000"),
    ],
)
def test_misbehaviour_has_a_name(get: Client, behave: Callable[[Any], None], says: str) -> None:
    tracker = RawTracker(behave)
    with closing(tracker), pytest.raises(TrackerError, match=says):
        get(tracker.url)


@pytest.mark.parametrize("behave", [trickle_headers, trickle_body])
def test_a_trickle_ends_with_the_caller_s_wall(get: Client, behave: Callable[[Any], None]) -> None:
    tracker = RawTracker(behave)
    started = time.monotonic()
    with closing(tracker), pytest.raises(gevent.Timeout), gevent.Timeout(0.5):
        get(tracker.url)
    assert time.monotonic() - started < 2


def redirect(location: str, status: str = "302 Found") -> bytes:
    return http(b"moved", status, f"Location: {location}")


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
def test_redirects_are_followed(get: Client, status: str) -> None:
    tracker = FakeTracker()
    tracker.answer = lambda seen: (
        http(EMPTY) if seen.path == "/new" else redirect("/new?" + seen.query, status)
    )
    with closing(tracker):
        assert get(tracker.url + "?a=%FF").body == EMPTY
    assert [seen.target for seen in tracker.seen] == ["/announce?a=%FF", "/new?a=%FF"]


def test_redirects_for_ever(get: Client) -> None:
    tracker = FakeTracker(lambda seen: redirect(f"/{len(seen.path)}/" + seen.path))
    with closing(tracker), pytest.raises(TrackerError, match="more than 5 redirects"):
        get(tracker.url)
    assert len(tracker.seen) == 6


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://x/", "gopher://x", "http://:80/", "http://a b/"]
)
def test_redirects_to_what_is_not_http(get: Client, location: str) -> None:
    tracker = FakeTracker(lambda _: redirect(location))
    with closing(tracker), pytest.raises(TrackerError, match="not an HTTP address"):
        get(tracker.url)


def test_where_redirects_lead() -> None:
    assert next_hop("http://a/announce?x=1", "/other?y=2") == "http://a/other?y=2"
    assert next_hop("http://a/announce", "https://b/") == "https://b/"
    assert next_hop("https://a/announce", "//b/x") == "https://b/x"
    with pytest.raises(TrackerError, match="https to http"):
        next_hop("https://a/announce", "http://a/announce")


def test_a_tracker_far_away_does_not_send_us_to_our_own_network() -> None:
    near = FakeTracker(lambda _: http(EMPTY))
    far = FakeTracker(lambda _: redirect(near.url))

    class Far(Routes):
        """The first tracker looks as if it were far away."""

        def find(self, host: str, port: int) -> tuple[Route, ...]:
            found = super().find(host, port)
            return (found[0]._replace(remote="203.0.114.5"),) if port == far.port else found

    client = HttpTracker(Far(), SHORT)
    with closing(near, far), pytest.raises(TrackerError, match="our own network"):
        client.get(far.url, accept="*/*")
    assert near.seen == []
    client.close_idle()


def test_the_environment_has_no_say(get: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{closed_port()}")
    tracker = FakeTracker(lambda _: http(EMPTY, "200 OK", "Set-Cookie: a=b"))
    with closing(tracker):
        get(tracker.url)
        get(tracker.url)
    assert all("authorization" not in seen.headers and "cookie" not in seen.headers for seen in tracker.seen)


def test_it_leaves_by_the_source_it_was_given() -> None:
    tracker = RawTracker(lambda sock: sock.sendall(http(sock.getpeername()[0].encode())))
    client = HttpTracker(Routes(lambda: ["127.0.0.5"]), SHORT)
    with closing(tracker):
        assert client.get(tracker.url, accept="*/*").body == b"127.0.0.5"
    client.close_idle()


def test_a_source_that_is_not_ours_fails_closed() -> None:
    tracker = FakeTracker(lambda _: http(EMPTY))
    client = HttpTracker(Routes(lambda: ["192.0.2.77"]), SHORT)
    with closing(tracker), pytest.raises(TrackerUnreachable):
        client.get(tracker.url, accept="*/*")
    assert tracker.seen == []


def test_one_family_on_demand() -> None:
    class Names(Routes):
        """`localhost` by both families, whatever this machine says."""

        def find(self, host: str, port: int) -> tuple[Route, ...]:
            return (Route("::1", "::1", False), Route("127.0.0.1", "127.0.0.1", False))

    tracker = FakeTracker(lambda _: http(EMPTY))
    client = HttpTracker(Names(), SHORT)
    url = f"http://localhost:{tracker.port}/announce"
    with closing(tracker):
        assert client.get(url, accept="*/*", ipv6=False).status == 200
        with pytest.raises(TrackerUnreachable):
            client.get(url, accept="*/*", ipv6=True)
    client.close_idle()
