"""The UDP server with real sockets: beside HTTP, in turns, from the right address, with our own client."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event

from microtorrd.errors import ConfigError, TrackerError
from microtorrd.greenlets import Crew
from microtorrd.net.routes import Route, Routes
from microtorrd.net.tracker_udp import UdpLimits, UdpTracker
from microtorrd.proto import udp_announce as udp
from microtorrd.proto.announce import AnnounceRequest
from microtorrd.proto.scrape import SwarmCounts, encode_scrape_query, parse_scrape_reply
from microtorrd.tracker import listening
from microtorrd.tracker.counters import Counters
from microtorrd.tracker.listening import listen, listen_on_both
from microtorrd.tracker.server import TrackerServer
from microtorrd.tracker.settings import TrackerSettings
from microtorrd.tracker.udp import MOST_WAITING, TURN_S, UdpServer
from tests.tracker.talk import PATIENCE_S, Talker
from tests.tracker.test_server import Clock, Stage

SWARM = b"S" * 20


@pytest.fixture
def make_stage(crew: Crew) -> Iterator[Callable[..., Stage]]:
    """Starts a tracker with these settings."""
    stages: list[Stage] = []

    def make(**settings: Any) -> Stage:
        stage = Stage(crew, **settings)
        stage.server.start()
        stages.append(stage)
        return stage

    yield make
    for stage in stages:
        stage.server.close()


def client() -> UdpTracker:
    return UdpTracker(UdpLimits(first_wait_s=PATIENCE_S / 2, total_s=PATIENCE_S), chance=random.Random(1))


def route(host: str) -> Route:
    return Routes().find(host, 1)[0]


def peer(name: str, port: int = 6881, **fields: Any) -> AnnounceRequest:
    return AnnounceRequest(SWARM, name.ljust(20).encode(), port, **{"event": "started", "left": 5, **fields})


# -------------------------------------------------------------------------------------- our own client


def test_our_own_client(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage()
    port, here = stage.server.port, route("127.0.0.1")
    assert stage.server.udp_port == port
    seeder, leecher = client(), client()
    reply = seeder.announce(here, port, peer("seeder", 7001, left=0), url_data="/announce")
    assert (reply.interval, reply.complete, reply.incomplete, reply.peers) == (900, 1, 0, ())
    reply = leecher.announce(here, port, peer("leecher", 7002))
    assert (reply.complete, reply.incomplete) == (1, 1)
    assert reply.peers == (("127.0.0.1", 7001, None),)
    leecher.announce(here, port, peer("leecher", 7002, event="completed", left=0))
    assert leecher.scrape(here, port, SWARM) == SwarmCounts(complete=2, downloaded=1, incomplete=0)
    with Talker(port) as talker:
        over_http = parse_scrape_reply(talker.ask(f"/scrape?{encode_scrape_query([SWARM])}").body)
    assert over_http == {SWARM: SwarmCounts(2, 1, 0)}
    assert [(note["event"], note["transport"]) for note in stage.notes] == [
        ("started", "udp"),
        ("started", "udp"),
        ("completed", "udp"),
    ]
    with pytest.raises(TrackerError, match="port must be a number"):
        leecher.announce(here, port, peer("leecher", 0))


def test_a_client_goes_on_after_a_restart(crew: Crew, make_stage: Callable[..., Stage]) -> None:
    """Its connection id is none any more; it is told so, and asks for another at once."""
    stage = make_stage()
    port, asker = stage.server.port, client()
    asker.announce(route("127.0.0.1"), port, peer("ada"))
    stage.server.close()
    again = make_stage(bind=f"127.0.0.1:{port}")
    with gevent.Timeout(PATIENCE_S / 4):
        assert asker.announce(route("127.0.0.1"), port, peer("ada")).incomplete == 1
    assert len(again.notes) == 1


def test_both_families_at_one_address(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(bind="[::]:0")
    port, asker = stage.server.port, client()
    asker.announce(route("127.0.0.1"), port, peer("four", 7004))
    reply = asker.announce(route("::1"), port, peer("six", 7006))
    assert (reply.incomplete, reply.peers) == (2, ())
    assert asker.announce(route("127.0.0.1"), port, peer("x")).peers == (("127.0.0.1", 7004, None),)
    assert asker.announce(route("::1"), port, peer("y")).peers == (("::1", 7006, None),)


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0"])
def test_an_answer_leaves_from_where_it_was_asked(make_stage: Callable[..., Stage], bind: str) -> None:
    """Else it would come from 127.0.0.1, and a client that asked 127.0.0.2 takes it for a stranger's."""
    stage = make_stage(bind=bind)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.bind(("127.0.0.1", 0))
        sock.connect(("127.0.0.2", stage.server.port))
        sock.send(udp.encode_request(udp.ConnectRequest(5)))
        assert udp.decode_reply(sock.recv(2048), ipv6=False).transaction == 5


# ------------------------------------------------------------------------------------------- the socket


def test_it_can_be_left_out(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(udp=False)
    assert stage.server.udp_port is None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", stage.server.port))  # nobody has it


def test_a_port_that_udp_has_not_is_an_error(crew: Crew) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        bind = f"127.0.0.1:{sock.getsockname()[1]}"
        server = TrackerServer(TrackerSettings(bind=bind), crew, Clock())
        with pytest.raises(ConfigError, match=r"UDP: the address is already in use \(tracker.udp = false"):
            server.start()
        server.close()
        listen(bind).close()  # nothing has kept it


def test_a_free_port_is_free_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones that TCP gets are taken by others over UDP."""
    taken: list[Any] = []

    def listen_where_it_is_taken(bind: str) -> Any:
        listener = listen(bind)
        if len(taken) < 5:
            taken.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            taken[-1].bind(listener.getsockname())
        return listener

    monkeypatch.setattr(listening, "listen", listen_where_it_is_taken)
    listener, datagrams = listen_on_both("127.0.0.1:0")
    assert len(taken) == 5
    assert listener.getsockname() == datagrams.getsockname()
    for sock in (listener, datagrams, *taken):
        sock.close()


# ------------------------------------------------------------------------------------------------ turns


class Ticker:
    """A clock that goes on by so much with each look at it."""

    def __init__(self, step_s: float) -> None:
        self._ticks = count()
        self._step_s = step_s

    def __call__(self) -> float:
        return next(self._ticks) * self._step_s


def test_a_turn_is_bounded_by_time_and_the_rest_waits() -> None:
    listener, datagrams = listen_on_both("127.0.0.1:0")
    server = UdpServer(lambda raw, host: raw[::-1], clock=Ticker(TURN_S / 10))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(listener.getsockname())
        server.start(datagrams)
        for number in range(25):
            sock.send(b"%03d" % number)
        # On loopback they are all there now, and the loop has had no turn yet.
        assert [server.take_turn() for _ in range(4)] == [10, 10, 5, 0]
        assert [sock.recv(100)[::-1] for _ in range(25)] == [b"%03d" % number for number in range(25)]
    server.close()
    server.close()
    listener.close()


def test_one_that_takes_long_is_alone_in_its_turn() -> None:
    listener, datagrams = listen_on_both("127.0.0.1:0")
    server = UdpServer(lambda raw, host: None, clock=Ticker(10 * TURN_S))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        server.start(datagrams)
        for _ in range(3):
            sock.sendto(b"x", listener.getsockname())
        assert [server.take_turn() for _ in range(4)] == [1, 1, 1, 0]
    server.close()
    listener.close()


def test_while_answers_wait_others_are_given_at_once_and_all_are_counted(crew: Crew) -> None:
    """A client that asks for a connection id has it, however many wait for the store."""
    listener, datagrams = listen_on_both("127.0.0.1:0")
    counters, store_is_back, waiting = Counters(), Event(), []

    def answer(raw: bytes, host: str) -> bytes:
        if raw == b"announce":
            waiting.append(raw)
            store_is_back.wait()
        return raw

    server = UdpServer(
        answer, clock=Ticker(0), counters=counters, waits=lambda raw: raw == b"announce", waits_in=crew
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(listener.getsockname())
        server.start(datagrams)
        sent = 0
        while sent < MOST_WAITING + 20:  # in portions that the socket's buffer takes
            for _ in range(23):
                sock.send(b"announce")
            sent += server.take_turn()
        sock.send(b"connect")
        assert sock.recv(100) == b"connect"
        assert (counters.datagrams, len(waiting)) == (sent + 1, MOST_WAITING)
        store_is_back.set()
        assert [sock.recv(100) for _ in range(20)] == [b"announce"] * 20
    server.close()
    listener.close()


def test_what_cannot_be_sent_is_lost_and_nothing_else(
    log_lines: Callable[[], list[dict[str, Any]]],
) -> None:
    listener, datagrams = listen_on_both("127.0.0.1:0")
    too_large = bytes(70_000)
    server = UdpServer(lambda raw, host: too_large if raw == b"large" else raw)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(listener.getsockname())
        server.start(datagrams)
        for raw in (b"large", b"", b"small"):
            sock.send(raw)
        assert [sock.recv(100), sock.recv(100)] == [b"", b"small"]
    server.close()
    listener.close()
    assert [line["event"] for line in log_lines()] == ["datagram_not_sent"]


def test_a_flood_leaves_the_others_their_turns(make_stage: Callable[..., Stage]) -> None:
    """Datagrams wait by the hundred all the time, and meanwhile an HTTP client is served again and again."""
    stage = make_stage()
    scrape = udp.encode_request(udp.ScrapeRequest(7, 7, (SWARM,) * 70))
    flooding = True

    def flood() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", stage.server.port))
            while flooding:
                for _ in range(50):
                    sock.send(scrape)
                gevent.sleep(0)

    flooder = gevent.spawn(flood)
    with gevent.Timeout(PATIENCE_S), Talker(stage.server.port) as talker:
        for _ in range(20):
            assert talker.ask("/health").status == 200
    flooding = False
    flooder.join(PATIENCE_S)
    assert flooder.successful()
