"""The tracker's HTTP server on real sockets: what it takes, what it refuses, and its bounds."""

from __future__ import annotations

import json
import re
import resource
import socket as constants
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.monkey import get_original

from microtorrd.errors import ConfigError
from microtorrd.greenlets import Crew
from microtorrd.tracker.head import MAX_HEAD_BYTES
from microtorrd.tracker.http import HttpLimits
from microtorrd.tracker.server import TrackerServer
from microtorrd.tracker.settings import TrackerSettings
from microtorrd.tracker.store import MemoryStore
from tests.conftest import HubWatch
from tests.tracker.store_contract import fixed_chance
from tests.tracker.talk import PATIENCE_S, House, Talker, announce
from tests.waiting import until

#: For tests in which time must run out. The others have the defaults, and never wait for them.
HASTY = HttpLimits(head_s=0.1, idle_s=0.1, send_s=0.1, tick_s=0.02)


@pytest.fixture
def house(crew: Crew) -> Iterator[House]:
    """A tracker with ample limits."""
    with House(crew) as house:
        yield house


def request(target: str, *headers: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"GET {target} HTTP/{version}", *headers, "", ""]).encode("latin-1")


# ------------------------------------------------------------------------------------------- the connection


def test_a_connection_serves_many_requests_of_all_kinds(house: House) -> None:
    with house.talk() as talker:
        for number in range(20):
            assert talker.ask(announce(f"p{number}")).status == 200
            assert talker.ask("/health").headers["connection"] == "keep-alive"
            assert talker.ask("/nowhere").status == 404
            assert talker.ask(announce("stranger", "alive")).status == 400
        assert json.loads(talker.ask("/health").body)["peers"] == 20


def test_pipelined_requests_are_answered_in_their_order(house: House) -> None:
    targets = [
        announce("ada"),
        "/health",
        announce("ada", "alive"),
        "/nowhere",
        "/announce",
        announce("ada"),
    ] * 20
    with house.talk() as talker:
        talker.send(b"".join(request(target, "Host: x") for target in targets))
        statuses = [talker.reply().status for _ in targets]
    assert statuses == [200, 200, 200, 404, 400, 200] * 20


def test_a_request_may_come_in_any_pieces(house: House) -> None:
    raw = request(announce("ada"), "Host: x", "Accept: */*") + request("/health", "Host: x")
    for cut in range(1, len(raw)):
        with house.talk() as talker:
            talker.sock.setsockopt(constants.IPPROTO_TCP, constants.TCP_NODELAY, 1)
            talker.send(raw[:cut])
            gevent.sleep(0)
            talker.send(raw[cut:])
            assert talker.reply().body.startswith(b'{"IdHash"')
            assert talker.reply().body.startswith(b'{"status"')


@pytest.mark.parametrize(
    ("version", "headers", "goes_on"),
    [
        ("1.1", ["Host: x"], True),
        ("1.1", ["Host: x", "Connection: keep-alive"], True),
        ("1.1", ["Host: x", "Connection: close"], False),
        ("1.0", [], False),
        ("1.0", ["Connection: close"], False),
        ("1.0", ["Connection: keep-alive"], True),
    ],
)
def test_the_client_says_whether_the_connection_goes_on(
    house: House, version: str, headers: list[str], goes_on: bool
) -> None:
    with house.talk() as talker:
        talker.send(request(announce("ada"), *headers, version=version))
        reply = talker.reply()
        expected = None if goes_on and version == "1.1" else "keep-alive" if goes_on else "close"
        assert reply.headers.get("connection") == expected
        if goes_on:
            talker.send(request(announce("ada"), *headers, version=version))
            assert talker.reply().status == 200
        else:
            assert talker.is_ended()


def test_http_1_0_gets_one_answer_of_the_application(house: House) -> None:
    with house.talk() as talker:
        talker.send(request("/health", "Connection: keep-alive", version="1.0"))
        assert talker.reply().headers["connection"] == "close"
        assert talker.is_ended()


def test_what_follows_a_last_request_is_not_answered_and_does_no_harm(house: House) -> None:
    with house.talk() as talker:
        talker.send(request("/announce", "Host: x", "Connection: close") + b"x" * 100_000)
        assert talker.reply().status == 400
        talker.sock.shutdown(constants.SHUT_WR)
        assert talker.is_ended()


@pytest.mark.parametrize("target", [announce("ada"), "/health", "/nowhere"])
@pytest.mark.parametrize("header", ["Content-Length: 200000", "Transfer-Encoding: chunked"])
def test_a_body_is_not_read_and_its_sender_gets_the_answer_all_the_same(
    house: House, target: str, header: str
) -> None:
    with house.talk() as talker:
        talker.send(request(target, "Host: x", header) + b"y" * 200_000)
        reply = talker.reply()
        assert reply.status == (404 if target == "/nowhere" else 200)
        assert reply.headers["connection"] == "close"
        talker.sock.shutdown(constants.SHUT_WR)
        assert talker.is_ended()


def test_nagle_is_off(house: House) -> None:
    with house.talk() as talker:
        talker.ask("/health")
        (client,) = house.http._clients
        assert client.sock.getsockopt(constants.IPPROTO_TCP, constants.TCP_NODELAY)


def test_a_client_that_vanishes_is_no_event(
    house: House, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    for raw in (b"", b"GET /ann", request(announce("ada"), "Host: x"), request("/health", "Host: x")):
        with house.talk() as talker:
            talker.send(raw)
            # Closing with this set sends a reset.
            talker.sock.setsockopt(constants.SOL_SOCKET, constants.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with house.talk() as talker:
        assert talker.ask("/health").status == 200
    assert [line for line in log_lines() if line["level"] != "debug"] == []


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"HELLO\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /announce HTTP/1.1\r\n\r\n", 400),
        (b"GET /announce HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /announce HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET /announce HTTP/1.1\nHost: a\r\n\r\n", 400),
        (b"GET /announce HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"\r\n\r\n", 400),
        (b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 2000 + b"\r\n", 431),
        (b"x" * 100_000, 431),
    ],
)
def test_what_is_no_request_is_refused_and_ends_the_connection(house: House, raw: bytes, status: int) -> None:
    with house.talk() as talker:
        talker.send(request("/announce", "Host: x") + raw)
        assert talker.reply().headers["content-type"] == "application/json"
        reply = talker.reply()
        assert reply.status == status
        assert reply.headers["connection"] == "close"
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
        talker.sock.shutdown(constants.SHUT_WR)
        assert talker.is_ended()
    assert house.service.size() == (0, 0)


# ----------------------------------------------------------------------------------------------- the bounds


def test_who_says_nothing_is_cut_off(crew: Crew) -> None:
    with House(crew, limits=HASTY) as house, house.talk() as silent, house.talk() as served:
        served.ask("/health")
        assert silent.is_ended()
        assert served.is_ended()


def test_one_byte_now_and_then_gains_no_time(crew: Crew) -> None:
    limits = HttpLimits(head_s=0.2, idle_s=PATIENCE_S, tick_s=0.02)
    with House(crew, limits=limits) as house, house.talk() as talker:
        talker.sock.settimeout(0.02)
        sent = 0
        with pytest.raises(ConnectionError):
            for byte in request(announce("ada"), "Host: x", "X: " + "y" * 5000):
                talker.send(bytes([byte]))
                sent += 1
                try:
                    assert talker.sock.recv(1) == b""
                    raise ConnectionResetError
                except TimeoutError:
                    continue
        assert 2 < sent < 100


def test_who_takes_no_answers_is_cut_off_and_holds_nobody_up(crew: Crew, hub_watch: HubWatch) -> None:
    with House(crew, limits=HttpLimits(send_s=0.2, tick_s=0.02)) as house:
        for number in range(200):
            with house.talk() as talker:
                talker.ask(announce(f"p{number}"))
        with house.talk() as greedy, house.talk() as other:
            greedy.sock.settimeout(PATIENCE_S)
            many = request(announce("greedy"), "Host: x") * 100
            with pytest.raises(ConnectionError):
                while True:
                    greedy.send(many)
                    assert other.ask(announce("other", "stopped")).status == 200


def test_over_the_limit_the_one_that_idled_longest_makes_room(crew: Crew) -> None:
    with House(crew, limits=HttpLimits(connections=3)) as house:
        talkers = [house.talk() for _ in range(3)]
        for talker in talkers:
            talker.ask("/health")
        talkers[0].ask("/health")
        with house.talk() as late:
            assert late.ask("/health").status == 200
            assert talkers[1].is_ended()
            for still_served in (talkers[0], talkers[2], late):
                assert still_served.ask("/health").status == 200
        for talker in talkers:
            talker.sock.close()


def test_where_nobody_idles_there_is_no_room(crew: Crew) -> None:
    with House(crew, limits=HttpLimits(connections=2)) as house:
        with house.talk() as one, house.talk() as two:
            for talker in (one, two):
                talker.ask("/health")
                talker.send(b"GET /ann")
            while house.http._idle:
                gevent.sleep(0)
            with house.talk() as late:
                assert late.reply().status == 503
            one.send(b"ounce HTTP/1.1\r\nHost: x\r\n\r\n")
            assert one.reply().status == 400
        with house.talk() as talker:
            assert talker.ask("/health").status == 200


def test_without_descriptors_it_waits_for_some(
    crew: Crew, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    with House(crew, limits=HttpLimits(tick_s=0.02)) as house:
        # Plain sockets, which connect without a turn of the hub: nobody is accepted yet.
        plain = [get_original("socket", "socket")() for _ in range(3)]
        for sock in plain:
            sock.connect(("127.0.0.1", house.http.port))
            sock.setblocking(False)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = open("/dev/null")  # noqa: SIM115
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare.fileno(), hard))
        try:
            spare.close()
            while not any(line["event"] == "tracker_out_of_descriptors" for line in log_lines()):
                gevent.sleep(0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with house.talk() as talker:
            assert talker.ask("/health").status == 200
        for sock in plain:
            sock.close()


# ------------------------------------------------------------------------------------------- the application


def test_an_application_that_crashes_gives_500_and_one_log_line(
    crew: Crew, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    with House(crew) as house:

        @house.app.get("/crash")
        def crash() -> str:
            raise RuntimeError("the page is broken")

        with house.talk() as talker:
            assert talker.ask("/crash").status == 500
            assert talker.ask("/health").status == 200
    (line,) = [line for line in log_lines() if line["level"] == "error"]
    assert "the page is broken" in line["exception"]


def test_a_slow_application_holds_nobody_up(crew: Crew) -> None:
    released = Event()

    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"first"
        released.wait(PATIENCE_S)
        yield b"last"

    with House(crew, application=application) as house, house.talk() as slow, house.talk() as quick:
        slow.send(request("/page", "Host: x") + request(announce("ada"), "Host: x"))
        received = b""
        while not received.endswith(b"5\r\nfirst\r\n"):
            received += slow.sock.recv(1000)
        assert quick.ask(announce("bob")).status == 200
        released.set()
        while b'{"IdHash"' not in received:
            received += slow.sock.recv(1000)
        assert re.search(rb"first\r\n4\r\nlast\r\n0\r\n\r\nHTTP/1\.1 200 OK\r\n", received)


# --------------------------------------------------------------------------------------- starting, stopping


def test_the_address_may_be_of_either_family(crew: Crew) -> None:
    for bind, hosts in (
        ("127.0.0.1:0", ["127.0.0.1"]),
        ("[::1]:0", ["::1"]),
        ("[::]:0", ["::1", "127.0.0.1"]),
        (":0", ["127.0.0.1"]),
        ("localhost:0", ["localhost"]),
    ):
        server = TrackerServer(TrackerSettings(bind=bind), crew, lambda: 0.0)
        server.start()
        for host in hosts:
            with Talker(server.port, host) as talker:
                told = json.loads(talker.ask(announce("ada")).body)["Peers"]["ada".ljust(20, "x")]["Ip"]
                assert told == {"localhost": told}.get(host, host)
        server.close()


def test_a_port_in_use_is_named(crew: Crew) -> None:
    first = TrackerServer(TrackerSettings(bind="127.0.0.1:0"), crew, lambda: 0.0)
    first.start()
    bind = f"127.0.0.1:{first.port}"
    second = TrackerServer(TrackerSettings(bind=bind), crew, lambda: 0.0)
    with pytest.raises(ConfigError, match=rf"tracker\.bind: {bind}: the address is already in use"):
        second.start()
    second.close()
    first.close()


@pytest.mark.parametrize("bind", ["192.0.2.1:0", "no-such-host.invalid:80", "nonsense"])
def test_an_address_that_cannot_be_had_is_named(crew: Crew, bind: str) -> None:
    server = TrackerServer(TrackerSettings(bind=bind), crew, lambda: 0.0)
    with pytest.raises(ConfigError, match=r"tracker\.bind") as caught:
        server.start()
    assert caught.value.key == "tracker.bind"
    assert "None" not in str(caught.value)
    server.close()


def test_closing_ends_every_connection_whatever_it_is_doing(crew: Crew) -> None:
    started = Event()

    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterator[bytes]:
        start_response("200 OK", [])
        started.set()
        Event().wait()
        yield b""

    with House(crew, application=application) as house:
        idle, partial, waiting = house.talk(), house.talk(), house.talk()
        idle.ask(announce("ada"))
        partial.send(b"GET /")
        waiting.send(request("/page", "Host: x"))
        assert started.wait(PATIENCE_S)
    for talker in (idle, partial, waiting):
        assert talker.is_ended()
        talker.sock.close()
    assert house.http._clients == set()
    house.http.close(0.1)


def test_an_application_may_take_longer_than_a_client_may(crew: Crew) -> None:
    released = Event()

    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterator[bytes]:
        released.wait(PATIENCE_S)
        start_response("200 OK", [("Content-Length", "4")])
        yield b"late"

    limits = HttpLimits(head_s=0.01, idle_s=0.01, send_s=0.01, tick_s=0.005)
    with House(crew, limits=limits, application=application) as house, house.talk() as talker:
        talker.send(request("/page", "Host: x", "Connection: close"))
        for _ in range(10):
            house.tick()
        released.set()
        assert talker.reply().body == b"late"


# ------------------------------------------------------------------------------------------------ the tick


class Elsewhere(MemoryStore):
    """A store that waits."""

    waits = True


def test_deadlines_are_kept_while_what_is_done_at_a_tick_waits(crew: Crew) -> None:
    """A store that hangs holds up nobody's, and is not asked a second time meanwhile."""
    begun: list[int] = []
    store_is_back = Event()

    def on_tick() -> None:
        begun.append(1)
        store_is_back.wait()

    house = House(crew, store=Elsewhere(fixed_chance()), limits=HttpLimits(idle_s=0.05, tick_s=0.01))
    house.http._on_tick = on_tick
    with house:
        for _ in range(3):
            with house.talk() as talker:
                assert talker.is_ended()
        assert len(begun) == 1
        store_is_back.set()
        until(lambda: len(begun) > 1)
