"""A web seed's wire over real sockets, and servers that do everything wrong that servers do."""

from __future__ import annotations

import random
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from gevent.server import StreamServer

from microtorrd.core.events import MessagesReceived, PeerJoined, PeerLeft
from microtorrd.greenlets import Crew
from microtorrd.net import web_exchange
from microtorrd.net.routes import Route, Routes
from microtorrd.net.web_connector import WebConnector
from microtorrd.net.webseed import WebSeedWire
from microtorrd.proto.extended import ExtendedHandshake
from microtorrd.proto.messages import Extended, HaveAll, Unchoke
from microtorrd.rate import Limiter, TokenBucket
from tests.net.peers import PIECE_BYTES, Facts
from tests.net.trackers import Seen, closed_port, http
from tests.net.web import Answer, WebBench, WebServer, asked, part

Serve = Callable[..., WebServer]


@pytest.fixture
def bench(crew: Crew) -> Iterator[WebBench]:
    """A single file of four pieces and a bit."""
    bench = WebBench(crew)
    yield bench
    for wire in bench.wires:
        wire.drop("the test is over")


@pytest.fixture
def serve(bench: WebBench) -> Iterator[Serve]:
    """Starts servers that have the content of the bench."""
    servers: list[WebServer] = []

    def start(answer: Answer | None = None, host: str = "127.0.0.1") -> WebServer:
        servers.append(WebServer(bench.files, answer, host=host))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def fetch_all(bench: WebBench, url: str) -> tuple[WebSeedWire, Facts]:
    """Fetch everything, and compare it."""
    wire, facts = bench.connect(url)
    slots = bench.slots()
    wire.fetch(slots)
    facts.wait(lambda: len(facts.slots) == len(slots) or facts.of(PeerLeft))
    assert not facts.of(PeerLeft), facts.left()
    assert bench.right(slots)
    return wire, facts


def end_of(bench: WebBench, url: str) -> tuple[str, float]:
    """How it ends when everything is asked for: the reason, and the rest it deserves."""
    wire, facts = bench.connect(url)
    wire.fetch(bench.slots())
    left = facts.left()
    assert wire.closed and wire.failure is not None and str(wire.failure) == left.reason
    return left.reason, wire.failure.rest_s


# ---- what goes well


def test_to_the_core_it_is_a_seeder_that_unchokes_us(bench: WebBench, serve: Serve) -> None:
    server = serve()
    url = server.url.replace("//", "//me:secret@")
    wire, facts = bench.connect(url)
    facts.wait(lambda: len(facts.all) == 2)
    joined, said = facts.all
    assert isinstance(joined, PeerJoined) and isinstance(said, MessagesReceived)
    assert (joined.peer, joined.host, joined.web_seed, joined.address) == (1, "127.0.0.1", url, None)
    assert len(joined.peer_id) == 20
    first, *others = said.messages
    assert isinstance(first, Extended) and first.number == 0
    assert ExtendedHandshake.decode(first.payload).client == "web seed"
    assert others == [HaveAll(), Unchoke()]
    assert (server.seen, wire.has_joined) == ([], True)


def test_all_of_a_file_comes_as_one_range(bench: WebBench, serve: Serve) -> None:
    server = serve()
    _, facts = fetch_all(bench, server.url)
    assert server.ranges == [("/a%20name", 0, len(bench.raw))]
    assert facts.wasted_bytes == 0
    assert all(slot.filled_by == 1 for slot in facts.slots)
    assert server.seen[0].headers["host"] == f"127.0.0.1:{server.port}"


def test_a_url_without_a_slash_is_the_file_itself(bench: WebBench, serve: Serve) -> None:
    server = serve()
    server.files = {"/pub/other.bin": bench.raw}
    fetch_all(bench, f"{server.url}pub/other.bin?key=1&x=%20")
    assert server.seen[0].target == "/pub/other.bin?key=1&x=%20"


def test_blocks_that_are_no_neighbours_are_asked_for_one_by_one_over_one_connection(
    bench: WebBench, serve: Serve
) -> None:
    server = serve()
    wire, facts = bench.connect(server.url)
    slots = bench.slots()
    random.Random(3).shuffle(slots)
    wire.fetch(slots[:9])
    facts.wait(lambda: len(facts.slots) == 9)
    wire.fetch(slots[9:])
    facts.wait(lambda: len(facts.slots) == len(slots))
    assert bench.right(slots)
    assert server.connections == 1
    assert len(server.seen) > 2


def test_files_and_padding_lie_where_they_belong(crew: Crew) -> None:
    bench = WebBench(crew, (1, 70_000, 61_071, 0, 5, 200_000, 16_384 - 5), padding=(2, 6))
    server = WebServer(bench.files)
    wire, facts = fetch_all(bench, f"{server.url}")
    assert [path for path, *_ in server.ranges] == [
        f"/a%20name/sub/file%20{number}" for number in (0, 1, 4, 5)
    ]
    assert len(facts.slots) == len(bench.slots())
    wire.drop("over")
    fetch_all(bench, server.url.removesuffix("/"))[0].drop("over")
    server.close()


def test_a_name_and_password_go_to_their_own_host_alone(bench: WebBench, serve: Serve) -> None:
    elsewhere = serve(host="127.0.0.2")
    server = serve(lambda seen: http(b"", "302 Found", f"Location: {elsewhere.url}a%20name"))
    fetch_all(bench, server.url.replace("//", "//me:sec%40ret@"))
    assert server.seen[0].headers["authorization"] == "Basic bWU6c2VjQHJldA=="
    assert "authorization" not in elsewhere.seen[0].headers


def test_a_redirect_is_followed_and_remembered(bench: WebBench, serve: Serve) -> None:
    mirror = serve()
    server = serve(lambda seen: http(b"over there", "301 Moved", f"Location: {mirror.url}a%20name"))
    wire, facts = bench.connect(server.url)
    for piece in range(3):
        wire.fetch(bench.slots(piece, piece + 1))
        facts.wait(lambda count=4 * piece + 4: len(facts.slots) == count)
    assert (len(server.seen), len(mirror.seen)) == (1, 3)
    assert bench.right(facts.slots)


def test_a_place_that_was_moved_to_for_a_while_is_asked_for_again(bench: WebBench, serve: Serve) -> None:
    def expiring(seen: Seen) -> bytes:
        return mirror.well(seen) if seen.query == f"ticket={len(server.seen)}" else http(b"", "403 Forbidden")

    mirror = serve(expiring)
    server = serve(
        lambda seen: http(b"", "307 X", f"Location: {mirror.url}a%20name?ticket={len(server.seen)}")
    )
    wire, facts = bench.connect(server.url)
    wire.fetch(bench.slots(0, 1))
    facts.wait(lambda: len(facts.slots) == 4)
    server.seen.append(server.seen[0])  # the ticket is another one now
    wire.fetch(bench.slots(1, 2))
    facts.wait(lambda: len(facts.slots) == 8)
    assert bench.right(facts.slots)


def test_a_server_without_ranges_is_read_from_the_beginning_while_the_file_is_small(
    bench: WebBench, serve: Serve
) -> None:
    server = serve(lambda seen: http(bench.raw))
    wire, facts = bench.connect(server.url)
    slots = bench.slots(1, 3)
    wire.fetch(slots)
    facts.wait(lambda: len(facts.slots) == len(slots))
    assert bench.right(slots)
    wire.fetch(bench.slots(4))
    facts.wait(lambda: len(facts.slots) == len(slots) + 1)
    assert bench.right(facts.slots)


def test_a_connection_that_was_closed_while_idle_is_made_again(bench: WebBench, serve: Serve) -> None:
    def once(seen: Seen) -> bytes:
        first, end = asked(seen)
        return part(bench.raw[first:end], first, len(bench.raw), "Connection: close")

    server = serve(once)
    wire, facts = bench.connect(server.url)
    for piece in range(3):
        wire.fetch(bench.slots(piece, piece + 1))
        facts.wait(lambda count=4 * piece + 4: len(facts.slots) == count)
    assert server.connections == 3 and not wire.closed


def test_a_server_that_closes_idle_connections_without_a_word_is_asked_again(
    bench: WebBench, serve: Serve
) -> None:
    replies = 0

    def alternating(seen: Seen) -> bytes:
        nonlocal replies
        replies += 1
        return b"" if replies == 2 else server.well(seen)  # no bytes and no HTTP: the connection is closed

    server = serve(alternating)
    wire, facts = bench.connect(server.url)
    for piece in range(2):
        wire.fetch(bench.slots(piece, piece + 1))
        facts.wait(lambda count=4 * piece + 4: len(facts.slots) == count)
    assert (server.connections, wire.closed) == (2, False)


# ---- slots


def test_recalled_blocks_are_left_alone(bench: WebBench, serve: Serve) -> None:
    go = Event()

    def slow(seen: Seen) -> bytes:
        go.wait()
        return server.well(seen)

    server = serve(slow)
    wire, facts = bench.connect(server.url)
    slots = bench.slots(0, 2)
    wire.fetch(slots)
    server.wait_for(1)
    wire.recall(slots[2:5])
    wire.fetch(bench.slots(3, 4))
    wire.recall([])
    for slot in slots[2:5]:
        slot.view[:] = b"-" * slot.length  # somebody else's by now
    go.set()
    facts.wait(lambda: len(facts.slots) == 9)
    assert bench.right([*slots[:2], *slots[5:]])
    assert all(bytes(slot.view) == b"-" * slot.length and slot.filled_by is None for slot in slots[2:5])
    assert facts.wasted_bytes == sum(slot.length for slot in slots[2:5])


def test_what_is_recalled_before_it_was_asked_for_is_not_asked_for(bench: WebBench, serve: Serve) -> None:
    server = serve()
    wire, facts = bench.connect(server.url)
    slots = bench.slots(0, 2)
    wire.fetch(slots)
    wire.recall(slots[:4])
    facts.wait(lambda: len(facts.slots) == 4)
    assert server.ranges == [("/a%20name", PIECE_BYTES, 2 * PIECE_BYTES)]


def test_a_block_never_consists_of_the_bytes_of_two(bench: WebBench, serve: Serve) -> None:
    go = Event()

    def in_two(sock: socket.socket, first: bytes, rest: bytes) -> None:
        sock.sendall(first)
        go.wait()
        sock.sendall(rest)

    raw = part(b"x" * 16384, 0, len(bench.raw))
    liar = StreamServer(
        ("127.0.0.1", 0), lambda sock, _: (sock.recv(9999), in_two(sock, raw[:9000], raw[9000:]))
    )
    liar.start()
    slow, slow_facts = bench.connect(f"http://127.0.0.1:{liar.server_port}/a")
    slot = bench.slots()[0]
    slow.fetch([slot])
    with gevent.Timeout(10):
        while slot.claimed_by is None:
            gevent.sleep(0.005)
    quick, quick_facts = bench.connect(serve().url)
    quick.fetch([slot])
    quick_facts.wait(lambda: quick_facts.slots)
    assert bench.right([slot]) and slot.filled_by == quick.peer
    go.set()
    slow_facts.wait(lambda: slow_facts.wasted_bytes)
    assert bench.right([slot]) and not slow_facts.slots
    liar.stop()


def test_a_dropped_wire_writes_nothing_more_and_says_so_once(bench: WebBench, serve: Serve) -> None:
    go = Event()

    def slow(seen: Seen) -> bytes:
        go.wait()
        return server.well(seen)

    server = serve(slow)
    wire, facts = bench.connect(server.url)
    slots = bench.slots()
    wire.fetch(slots)
    server.wait_for(1)
    wire.drop("no reason")
    wire.drop("another one")
    go.set()
    assert facts.left() == PeerLeft(1, "no reason")
    gevent.sleep(0.05)
    assert not any(slot.claimed_by or slot.filled_by or any(slot.view) for slot in slots)
    assert wire.failure is None


def test_a_wire_can_be_dropped_before_it_has_begun(bench: WebBench, serve: Serve) -> None:
    wire, facts = bench.connect(serve().url)
    wire.drop("at once")
    assert facts.all == [PeerLeft(1, "at once")]
    gevent.sleep(0.01)
    assert facts.all == [PeerLeft(1, "at once")]


# ---- limits


def test_a_download_limit_is_kept(bench: WebBench, serve: Serve) -> None:
    wire, facts = bench.connect(serve().url, down=Limiter(TokenBucket(1 << 20, 1)))
    slots = bench.slots()
    began = time.monotonic()
    wire.fetch(slots)
    facts.wait(lambda: len(facts.slots) == len(slots))
    assert time.monotonic() - began > 0.15  # 0.25, and the last part of it is paid for afterwards
    assert bench.right(slots)


def test_the_interface_is_kept_to(bench: WebBench, serve: Serve) -> None:
    server = serve()
    nowhere = WebConnector(Routes(lambda: []))
    wire, facts = bench.connect(server.url, connector=nowhere)
    assert "the interface has no address" in facts.left().reason
    bound = WebConnector(Routes(lambda: ["127.0.0.7"]))
    wire, facts = bench.connect(server.url, connector=bound)
    wire.fetch(bench.slots())
    facts.wait(lambda: len(facts.slots) == len(bench.slots()))
    assert server.came_from == {"127.0.0.7"}


# ---- what goes wrong


WRONG: dict[str, tuple[Answer, str, float]] = {
    "404": (lambda seen: http(b"", "404 Not Found"), "no such file", 3600),
    "410": (lambda seen: http(b"", "410 Gone"), "no such file", 3600),
    "416": (lambda seen: http(b"", "416 Range"), "is shorter", 3600),
    "403": (lambda seen: http(b"", "403 Forbidden"), "status 403", 1800),
    "500": (lambda seen: http(b"", "500 Oops"), "status 500", 0),
    "503": (lambda seen: http(b"", "503 Busy"), "busy", 0),
    "503 for a while": (lambda seen: http(b"", "503 Busy", "Retry-After: 77"), "busy", 77),
    "429 for a while": (lambda seen: http(b"", "429 Slow", "Retry-After: 9999999"), "busy", 86_400),
    "503 until a date": (
        lambda seen: http(b"", "503 Busy", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"),
        "busy",
        0,
    ),
    "HTML": (lambda seen: http(b"<html>", "200 OK", "Content-Type: text/html"), "6 bytes of text/html", 1800),
    "no length": (lambda seen: b"HTTP/1.1 200 OK\r\n\r\nwhatever", "does not say how much", 1800),
    "no Content-Range": (lambda seen: http(b"x" * 263_144, "206 Partial Content"), "which bytes", 1800),
    "another range": (lambda seen: part(b"x" * 100, 5, 263_144), "other bytes", 1800),
    "a shorter range": (lambda seen: part(b"x" * 100, 0, 263_144), "other bytes", 1800),
    "another file": (lambda seen: part(b"x" * 100, 0, 100), "has 100 bytes, not 263144", 3600),
    "a mad range": (
        lambda seen: http(b"", "206 Partial Content", "Content-Range: bytes 9-5/3"),
        "which bytes",
        1800,
    ),
    "several parts": (
        lambda seen: http(b"--x", "206 Partial Content", "Content-Type: multipart/byteranges; boundary=x"),
        "which bytes",
        1800,
    ),
    "packed": (lambda seen: http(b"", "206 Partial", "Content-Encoding: gzip"), "packed or in chunks", 1800),
    "chunks": (
        lambda seen: b"HTTP/1.1 206 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "packed or in chunks",
        1800,
    ),
    "a short body": (
        lambda seen: part(b"x" * 263_144, 0, 263_144, "Connection: close")[:-9],
        "9 bytes too early",
        0,
    ),
    "no HTTP": (lambda seen: b"220 mail.example ESMTP\r\n\r\n", "does not speak HTTP", 1800),
    "an endless head": (lambda seen: b"HTTP/1.1 206 X\r\nA: " + b"x" * 40_000, "is longer than", 1800),
    "two lengths": (
        lambda seen: b"HTTP/1.1 206 X\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "two different lengths",
        1800,
    ),
    "no answer": (lambda seen: b"", "without an answer", 0),
    "a redirect to nowhere": (
        lambda seen: http(b"", "302 X", "Location: ftp://127.0.0.1/a"),
        "not an HTTP address",
        1800,
    ),
    "a redirect without an aim": (lambda seen: http(b"", "302 X"), "status 302", 1800),
    "a loop": (lambda seen: http(b"", "302 X", f"Location: {seen.path}"), "more than 5 redirects", 1800),
    "a redirect to a refused port": (
        lambda seen: http(b"", "302 X", f"Location: http://127.0.0.1:{closed_port()}/"),
        "connection refused",
        0,
    ),
}


@pytest.mark.parametrize("how", WRONG)
def test_what_is_wrong_with_a_server_ends_the_wire_with_the_reason(
    bench: WebBench, serve: Serve, how: str
) -> None:
    answer, reason, rest_s = WRONG[how]
    told, rests_s = end_of(bench, serve(answer).url)
    assert reason in told
    assert rests_s == rest_s


@pytest.mark.parametrize("stage", ["head", "body"])
def test_a_server_that_hangs(
    bench: WebBench, serve: Serve, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_exchange, "SILENCE_S", 0.2)
    answers: dict[str, Answer] = {
        "head": lambda seen: None,
        "body": lambda seen: part(b"x" * 263_144, 0, 263_144)[:-1000],
    }
    reason, rest_s = end_of(bench, serve(answers[stage]).url)
    assert reason == ("no answer within 0.2 s" if stage == "head" else "it sent nothing for 0.2 s")
    assert rest_s == 0


def test_a_large_file_without_ranges_is_refused(crew: Crew) -> None:
    bench = WebBench(crew, (9 << 20,))
    server = WebServer({}, lambda seen: http(bench.raw))
    wire, facts = bench.connect(server.url)
    wire.fetch(bench.slots(0, 1))
    assert facts.left().reason == f"it knows no ranges, and sends all {9 << 20} bytes of the file"
    server.close()


def test_nobody_listens(bench: WebBench) -> None:
    wire, facts = bench.connect(f"http://127.0.0.1:{closed_port()}/")
    assert facts.all == [] and facts.left().reason == "connection refused"
    assert not wire.has_joined


def test_a_host_far_away_does_not_send_us_to_our_own_network(
    bench: WebBench, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(lambda seen: http(b"", "302 X", f"Location: http://127.0.0.2:{server.port}/"))
    monkeypatch.setattr(
        Route, "scope", property(lambda route: "global" if route.remote == "127.0.0.1" else "loopback")
    )
    assert end_of(bench, server.url)[0] == "it redirects to a host of our own network"


# ---- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=x"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", f"{path}.crt"],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def tls(bench: WebBench, certificate: Path) -> Iterator[WebServer]:
    """A server that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = WebServer(bench.files, tls=context)
    yield server
    server.close()


def test_https(bench: WebBench, tls: WebServer, certificate: Path) -> None:
    bench.connector = WebConnector(Routes(), bundle=str(certificate))
    wire, facts = fetch_all(bench, tls.url)
    wire.fetch(bench.slots(0, 1))
    facts.wait(lambda: len(facts.slots) == len(bench.slots()) + 4)
    assert bench.right(facts.slots)
    assert tls.connections == 1


def test_a_certificate_that_nobody_vouches_for(bench: WebBench, tls: WebServer) -> None:
    wire, facts = bench.connect(tls.url)
    assert "TLS failed: self-signed certificate" in facts.left().reason.replace("self signed", "self-signed")
    assert not wire.has_joined


def test_from_https_to_http_no_redirect_leads(
    bench: WebBench, tls: WebServer, certificate: Path, serve: Serve
) -> None:
    plain = serve()
    tls.answer = lambda seen: http(b"", "302 X", f"Location: {plain.url}a%20name")
    bench.connector = WebConnector(Routes(), bundle=str(certificate))
    assert "from https to http" in end_of(bench, tls.url)[0]
    assert not plain.seen
