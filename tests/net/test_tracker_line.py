"""Lines to trackers that are asked again and again: they are a short way, and nothing but that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.errors import TrackerError, TrackerUnreachable
from microtorrd.net.routes import Routes
from microtorrd.net.tracker_http import HttpLimits, HttpReply, HttpTracker
from microtorrd.net.tracker_line import PLAIN_AFTER, Far, Lines, is_plain
from tests.net.trackers import EMPTY, FakeTracker, RawTracker, closing, http

SHORT = HttpLimits(connect_s=1.0, read_s=0.4, reply_bytes=20_000)


class Client:
    """Sends keep-alives and leaves no connection open."""

    def __init__(self) -> None:
        self.tracker = HttpTracker(Routes(), SHORT)

    def __call__(self, url: str, query: str = "event=alive", **options: Any) -> HttpReply:
        return self.tracker.get(url, query=query, accept="application/json", is_keep_alive=True, **options)


@pytest.fixture
def alive() -> Iterator[Client]:
    client = Client()
    yield client
    client.tracker.close_idle()


class Trained:
    """A tracker with a line to it: it has answered plainly often enough."""

    def __init__(self, alive: Client, *, url: str = "") -> None:
        self.tracker = FakeTracker(lambda _: http(b""))
        self.url = url.format(port=self.tracker.port) or self.tracker.url
        for _ in range(PLAIN_AFTER):
            assert alive(self.url) == (200, b"", None)
        assert self.tracker.connections == 1
        assert alive(self.url) == (200, b"", None)
        assert self.tracker.connections == 2, "the line is a connection of its own"
        self.heads = [(seen.method, seen.target, seen.version, seen.headers) for seen in self.tracker.seen]

    def close(self) -> None:
        self.tracker.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/announce",
        "http://127.0.0.1:{port}",
        "http://127.0.0.1:{port}/a/b?passkey=%C3%A4&x=(1,2)",
        "http://LOCALHOST:{port}/announce#fragment",
    ],
)
def test_by_line_the_tracker_sees_the_same_as_by_requests(alive: Client, url: str) -> None:
    trained = Trained(alive, url=url)
    with closing(trained):
        assert trained.heads[-1] == trained.heads[0]
        assert trained.heads[0][1].endswith("event=alive")


@pytest.mark.parametrize(
    "url", ["http://me:secret@127.0.0.1:{port}/announce", "http://127.0.0.1:{port}/ann{{o}}unce"]
)
def test_what_must_be_written_otherwise_is_left_to_requests(alive: Client, url: str) -> None:
    tracker = FakeTracker(lambda _: http(b""))
    with closing(tracker):
        for _ in range(PLAIN_AFTER + 3):
            alive(url.format(port=tracker.port))
        assert tracker.connections == 1
        assert len({seen.target for seen in tracker.seen}) == 1


def test_other_announces_never_go_by_it(alive: Client) -> None:
    tracker = FakeTracker(lambda _: http(b""))
    with closing(tracker):
        for _ in range(PLAIN_AFTER + 3):
            alive.tracker.get(tracker.url, accept="*/*")
        assert tracker.connections == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (http(b"Peer is not in this swarm\n", "400 Bad"), (400, b"Peer is not in this swarm\n", None)),
        (http(b"", "503 Busy", "Retry-After: 7"), (503, b"", 7.0)),
        (http(b"", "200 OK", "Retry-After: 7"), (200, b"", None)),
        (http(b"x" * 20_000), (200, b"x" * 20_000, None)),
    ],
)
def test_any_plain_reply_comes_back(alive: Client, answer: bytes, expected: tuple[Any, ...]) -> None:
    trained = Trained(alive)
    with closing(trained):
        count = len(trained.tracker.seen)
        trained.tracker.answer = lambda _: answer
        assert alive(trained.url) == expected
        assert alive(trained.url) == expected
        assert len(trained.tracker.seen) == count + 2
        assert trained.tracker.connections == 2


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (CHUNKED, (200, b"hi", None)),
        (http(b"hi", "200 OK", "Connection: close"), (200, b"hi", None)),
        (http(b"x" * 20_001), "longer than 20000 bytes"),
        (b"garbage\r\n\r\n", "does not speak HTTP"),
        (http(b"no gzip", "200 OK", "Content-Encoding: gzip"), "cannot be unpacked"),
        (http(b"", "302 Found", "Location: ftp://x/"), "not an HTTP address"),
        (http(b"") + b"more", None),
    ],
)
def test_for_anything_else_requests_has_the_last_word(
    alive: Client, answer: bytes, expected: tuple[Any, ...] | str | None
) -> None:
    trained = Trained(alive)
    with closing(trained):
        count = len(trained.tracker.seen)

        trained.tracker.answer = lambda _: answer
        if isinstance(expected, str):
            with pytest.raises(TrackerError, match=expected):
                alive(trained.url)
        elif expected is not None:
            assert alive(trained.url) == expected
        else:
            alive(trained.url)
        assert len(trained.tracker.seen) == count + 2, "it was asked once more, by requests"


def test_a_tracker_that_falls_silent_is_unreachable_in_the_same_words(alive: Client) -> None:
    trained = Trained(alive)
    with closing(trained):
        trained.tracker.answer = lambda _: None
        began = time.monotonic()
        with pytest.raises(TrackerUnreachable, match=r"no answer within 0\.4 s"):
            alive(trained.url)
        assert time.monotonic() - began < 2


def test_a_connection_that_was_closed_meanwhile_is_replaced(alive: Client) -> None:
    """And nobody is asked twice: what was closed has answered nothing."""

    def two_each(sock: Any) -> None:
        for _ in range(2):
            sock.sendall(http(EMPTY))
            if not sock.recv(65536):
                return

    tracker = RawTracker(two_each)
    with closing(tracker):
        for _ in range(PLAIN_AFTER + 20):
            assert alive(tracker.url).body == EMPTY


def test_what_nobody_asked_for_is_not_taken_for_the_next_reply(alive: Client) -> None:
    """As of servers that say 408 to a connection that idles, and keep it: all that follows is shifted."""

    asked, came = Event(), Event()

    def one_more(sock: Any) -> None:
        sock.sendall(http(b"it is yours"))
        asked.wait(5.0)
        sock.sendall(http(b"Peer is not in this swarm", "400 Bad Request"))
        came.set()
        sock.recv(65536)

    tracker = RawTracker(one_more)
    far = Far("127.0.0.1", tracker.port, None)
    lines = Lines(connect_s=1.0, read_s=1.0, reply_bytes=100, connections=1)
    for _ in range(PLAIN_AFTER):
        lines.heard(far, is_plain=True)
    with closing(tracker):
        for _ in range(3):
            assert lines.ask(far, b"GET / HTTP/1.1\r\n\r\n") == (200, b"it is yours", None)
            asked.set()
            assert came.wait(5.0)
            asked.clear()
            came.clear()
        assert len(tracker.requests) == 3, "each got a connection of its own"
        lines.close_idle()


def test_a_tracker_that_is_gone_says_so_by_requests(alive: Client) -> None:
    trained = Trained(alive)
    trained.close()
    alive.tracker.close_idle()
    with pytest.raises(TrackerUnreachable, match="Connection refused"):
        alive(trained.url)


def test_it_leaves_by_the_source_it_was_given() -> None:
    def who(sock: Any) -> None:
        sock.sendall(http(sock.getpeername()[0].encode()))
        while sock.recv(65536):
            sock.sendall(http(sock.getpeername()[0].encode()))

    tracker = RawTracker(who)
    client = HttpTracker(Routes(lambda: ["127.0.0.5"]), SHORT)
    with closing(tracker):
        for _ in range(PLAIN_AFTER + 3):
            assert client.get(tracker.url, accept="*/*", is_keep_alive=True).body == b"127.0.0.5"
    client.close_idle()


def test_so_many_connections_are_kept_and_no_more() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        far = Far("127.0.0.1", server.getsockname()[1], None)
        lines = Lines(connect_s=1.0, read_s=1.0, reply_bytes=10, connections=1)
        for _ in range(PLAIN_AFTER):
            assert lines.ask(far, b"GET") is None
            lines.heard(far, is_plain=True)
        asking = [gevent.spawn(lines.ask, far, b"GET") for _ in range(3)]
        accepted = [server.accept()[0] for _ in asking]
        for sock in accepted:
            sock.sendall(http(b"ok"))
        gevent.joinall(asking, raise_error=True)
        assert [one.value for one in asking] == [(200, b"ok", None)] * 3
        for sock in accepted:
            sock.settimeout(0.2)
        ended = 0
        for sock in accepted:
            try:
                while sock.recv(100):
                    pass
                ended += 1
            except TimeoutError:
                continue
            finally:
                sock.close()
        assert ended == 2
        lines.close_idle()


fields = st.dictionaries(
    st.sampled_from(["content-length", "transfer-encoding", "content-encoding", "connection"]),
    st.sampled_from(["5", "0", "", "-1", "chunked", "gzip", "identity", "close", "Keep-Alive, Close"]),
)


@given(st.integers(0, 999), fields, st.booleans())
def test_plain_is_what_has_its_end_where_its_head_says(
    status: int, fields: dict[str, str], is_1_1: bool
) -> None:
    if is_plain(status, fields, is_1_1=is_1_1):
        assert is_1_1
        assert fields["content-length"] in ("5", "0")
        assert "transfer-encoding" not in fields
        assert "close" not in fields.get("connection", "").lower()
        assert not 100 <= status < 200
        assert not 300 <= status < 400
