"""Dialing and listening over real sockets: who gets in, who does not, and that nobody holds up the door."""

from __future__ import annotations

import errno
import os
import resource
import socket as plain
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import gevent
import ifaddr
import pytest
from gevent import socket
from gevent.event import Event

from microtorrd.errors import ConfigError
from microtorrd.greenlets import Crew
from microtorrd.net.dialer import Dialer, DialError
from microtorrd.net.greeting import Joined
from microtorrd.net.interfaces import interface_addresses, require_interface
from microtorrd.net.listener import Listener
from microtorrd.proto.handshake import HANDSHAKE_BYTES, PROTOCOL, Handshake, decode_handshake
from tests.waiting import until

SWARM = b"s" * 20
OTHER_SWARM = b"o" * 20
OURS = b"-MT0100-ours00000000"
THEIRS = b"-XX0100-theirs000000"
GREETING = Handshake(SWARM, THEIRS).encode()


class Door:
    """A listener that knows two swarm ids, and those who passed it."""

    def __init__(self, crew: Crew, **options: Any) -> None:
        self.joined: list[Joined] = []
        self.news = Event()
        self.asked: list[bytes] = []
        options = {"addresses": ("127.0.0.1",), "port": 0, "peer_id": OURS, **options}
        self.listener = Listener(resolve=self.resolve, accept=self.accept, crew=crew.child("door"), **options)
        self.listener.start()

    def resolve(self, swarm_id: bytes) -> object | None:
        self.asked.append(swarm_id)
        return self if swarm_id in (SWARM, OTHER_SWARM) else None

    def accept(self, joined: Joined) -> None:
        self.joined.append(joined)
        self.news.set()

    def wait(self) -> Joined:
        assert self.news.wait(5), "nobody joined"
        self.news.clear()
        return self.joined[-1]

    def knock(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.listener.port))
        sock.settimeout(5)
        return sock

    def close(self) -> None:
        self.listener.close()
        for joined in self.joined:
            joined.sock.close()


@pytest.fixture
def open_door(crew: Crew) -> Iterator[Callable[..., Door]]:
    doors: list[Door] = []

    def make(**options: Any) -> Door:
        doors.append(Door(crew, **options))
        return doors[-1]

    yield make
    for door in doors:
        door.close()


def is_closed(sock: socket.socket) -> bool:
    """The other side has closed it, without a word."""
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


# ---- passing the door


@pytest.mark.parametrize("swarm_id", [SWARM, OTHER_SWARM])
def test_a_dialer_and_a_listener_shake_hands(open_door: Callable[..., Door], swarm_id: bytes) -> None:
    door = open_door()
    address = ("127.0.0.1", door.listener.port)
    out = Dialer(peer_id=THEIRS).dial(address, swarm_id)
    into = door.wait()
    assert (out.host, out.address, out.incoming) == ("127.0.0.1", address, False)
    assert (into.host, into.address, into.incoming) == ("127.0.0.1", None, True)
    assert out.handshake == Handshake(swarm_id, OURS)
    assert into.handshake == Handshake(swarm_id, THEIRS)
    out.sock.sendall(b"hello")
    into.sock.settimeout(5)
    assert into.sock.recv(5) == b"hello"
    out.sock.close()


def test_both_families_have_the_same_port(open_door: Callable[..., Door]) -> None:
    door = open_door(addresses=("127.0.0.1", "::1"))
    port = door.listener.port
    assert door.listener.addresses == [f"127.0.0.1:{port}", f"[::1]:{port}"]
    dialer = Dialer(peer_id=THEIRS)
    for host in ("127.0.0.1", "::1"):
        joined = dialer.dial((host, port), SWARM)
        assert door.wait().host == host
        joined.sock.close()


def test_the_default_addresses_take_both_families(open_door: Callable[..., Door]) -> None:
    door = open_door(addresses=("0.0.0.0", "::"))
    joined = Dialer(peer_id=THEIRS).dial(("127.0.0.1", door.listener.port), SWARM)
    assert door.wait().host == "127.0.0.1", "not as an IPv4 address mapped into IPv6"
    joined.sock.close()


def test_the_answer_comes_before_the_peer_id_has_to(open_door: Callable[..., Door]) -> None:
    door = open_door()
    with door.knock() as sock:
        sock.sendall(GREETING[:48])
        answer = sock.recv(HANDSHAKE_BYTES)
        assert decode_handshake(answer) == Handshake(SWARM, OURS)
        assert door.joined == []
        sock.sendall(GREETING[48:])
        assert door.wait().handshake.peer_id == THEIRS


def test_what_follows_the_handshake_is_left_in_the_socket(open_door: Callable[..., Door]) -> None:
    door = open_door()
    with door.knock() as sock:
        sock.sendall(GREETING + b"more")
        joined = door.wait()
        joined.sock.settimeout(5)
        assert joined.sock.recv(10) == b"more"


def test_the_sockets_are_ready_for_the_peer_wire(open_door: Callable[..., Door]) -> None:
    door = open_door()
    out = Dialer(peer_id=THEIRS).dial(("127.0.0.1", door.listener.port), SWARM)
    for sock in (out.sock, door.wait().sock):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    out.sock.close()


# ---- not passing it


def test_who_names_no_torrent_of_ours_learns_nothing(open_door: Callable[..., Door]) -> None:
    door = open_door()
    with door.knock() as sock:
        sock.sendall(Handshake(b"?" * 20, THEIRS).encode())
        assert is_closed(sock)
    assert door.asked == [b"?" * 20]


def test_another_protocol_is_sent_away_with_its_first_bytes(open_door: Callable[..., Door]) -> None:
    door = open_door(timeout_s=60.0)
    for noise in (b"GET / HTTP/1.1\r\n", b"\x13BitTorrenX", b"\0"):
        with door.knock() as sock:
            sock.sendall(noise)
            assert is_closed(sock)
    assert door.asked == []


def test_who_says_nothing_is_sent_away(open_door: Callable[..., Door]) -> None:
    with open_door(timeout_s=0.1).knock() as sock:
        assert is_closed(sock)


@pytest.mark.parametrize("told", [0, 48])
def test_a_handshake_that_drips_has_no_more_time_than_others(
    open_door: Callable[..., Door], told: int
) -> None:
    door = open_door(timeout_s=0.3)
    with door.knock() as sock:
        sock.sendall(GREETING[:told])

        def drip() -> None:
            with suppress(OSError):  # sent away
                for byte in GREETING[told:]:
                    sock.send(bytes([byte]))
                    gevent.sleep(0.05)

        dripping = gevent.spawn(drip)
        sock.recv(HANDSHAKE_BYTES * bool(told))
        began = time.monotonic()
        assert is_closed(sock)
        assert time.monotonic() - began < 1
        dripping.kill()
    assert door.joined == []


def test_the_door_is_not_blocked_by_strangers(open_door: Callable[..., Door]) -> None:
    door = open_door(half_open=3)
    strangers = [door.knock() for _ in range(3)]
    with door.knock() as refused:
        assert is_closed(refused)
    strangers[0].sendall(GREETING)
    door.wait()
    late = door.knock()
    late.sendall(GREETING)
    door.wait()
    for sock in (late, *strangers):
        sock.close()


def test_one_host_cannot_take_all_places(open_door: Callable[..., Door]) -> None:
    door = open_door(addresses=("127.0.0.1", "::1"), half_open_per_host=2)
    strangers = [door.knock() for _ in range(2)]
    with door.knock() as refused:
        assert is_closed(refused)
    joined = Dialer(peer_id=THEIRS).dial(("::1", door.listener.port), SWARM)
    assert door.wait().host == "::1"
    joined.sock.close()
    for sock in strangers:
        sock.close()


def test_a_banned_host_is_refused(open_door: Callable[..., Door]) -> None:
    door = open_door(is_banned=lambda host: host == "127.0.0.1")
    with door.knock() as sock:
        assert is_closed(sock)
    assert door.asked == []


def test_we_do_not_become_our_own_peer(open_door: Callable[..., Door]) -> None:
    door = open_door()
    with pytest.raises(DialError, match="ourselves") as caught:
        Dialer(peer_id=OURS).dial(("127.0.0.1", door.listener.port), SWARM)
    assert caught.value.ourselves
    assert door.joined == []


def test_closing_sends_away_who_stands_at_the_door(open_door: Callable[..., Door], crew: Crew) -> None:
    door = open_door(timeout_s=60.0)
    with door.knock() as sock:
        sock.sendall(GREETING[:10])
        gevent.sleep(0)
        door.listener.close()
        assert is_closed(sock)
    with pytest.raises(OSError, match="refused"):
        door.knock()


def test_many_who_knock_at_once_leave_others_their_turn(open_door: Callable[..., Door]) -> None:
    beats: list[float] = []  # of processor time
    joined: list[Joined] = []

    def take_long(item: Joined) -> None:
        joined.append(item)
        item.sock.close()
        until_s = time.thread_time() + 0.001
        while time.thread_time() < until_s:
            sum(range(20))

    door = open_door(half_open_per_host=200)
    door.listener._accept = take_long
    knocking = [door.knock() for _ in range(100)]
    for sock in knocking:
        sock.sendall(GREETING)
    timer = gevent.get_hub().loop.timer(0.001, 0.001)
    timer.start(lambda: beats.append(time.thread_time()))
    until(lambda: len(joined) == len(knocking))
    timer.stop()
    timer.close()
    for sock in knocking:
        sock.close()
    assert max(later - before for before, later in pairwise(beats)) < 0.02


def test_without_descriptors_those_who_knock_wait(
    open_door: Callable[..., Door], log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    door = open_door()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as sock:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            sock.connect(("127.0.0.1", door.listener.port))
            gevent.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert [line["event"] for line in log_lines()] == ["accept_failed"]
        sock.sendall(GREETING)
        door.wait()


# ---- where to listen


def test_a_port_in_use_is_named(open_door: Callable[..., Door]) -> None:
    port = open_door().listener.port
    with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is in use") as caught:
        open_door(port=port)
    assert caught.value.key == "listen.port"


def test_when_one_address_fails_none_stays_open(open_door: Callable[..., Door]) -> None:
    port = open_door(addresses=("::1",)).listener.port
    # Not 127.0.0.1: there the port that is ours of the other family may be anybody's, now or in a moment.
    own = "127.86.0.1"
    with pytest.raises(ConfigError, match=f"port {port} of ::1 is in use"):
        open_door(addresses=(own, "::1"), port=port)
    open_door(addresses=(own,), port=port)


@pytest.mark.parametrize(
    ("options", "key", "reason"),
    [
        ({"addresses": ("localhost",)}, "listen.addresses", "'localhost' is not a numeric address"),
        (
            {"addresses": ("203.0.113.7",)},
            "listen.addresses",
            "203.0.113.7 is not an address of this machine",
        ),
        ({"interface": "nosuch0"}, "listen.interface", "no interface 'nosuch0'"),
        ({"interface": "lo0"}, "listen.interface", "did you mean 'lo'"),
        (
            {"interface": "lo", "addresses": ("203.0.113.7",)},
            "listen.addresses",
            "203.0.113.7 is no address of the interface 'lo', which has 127.0.0.1",
        ),
    ],
)
def test_where_we_cannot_listen(
    open_door: Callable[..., Door], options: dict[str, Any], key: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        open_door(**options)
    assert caught.value.key == key


def test_an_interface_without_an_address_is_refused() -> None:
    bare = [adapter.name for adapter in ifaddr.get_adapters(include_unconfigured=True) if not adapter.ips]
    if not bare:
        pytest.skip("every interface of this machine has an address")
    with pytest.raises(ConfigError, match="has no address"):
        require_interface(bare[0])
    with pytest.raises(DialError, match=f"the interface {bare[0]} has no IPv4 address"):
        Dialer(peer_id=OURS, interface=bare[0]).dial(("127.0.0.1", 9), SWARM)


def test_an_interface_stands_for_its_addresses(open_door: Callable[..., Door]) -> None:
    assert "127.0.0.1" in interface_addresses("lo")
    door = open_door(addresses=("0.0.0.0", "::"), interface="lo")
    port = door.listener.port
    assert f"127.0.0.1:{port}" in door.listener.addresses
    assert f"0.0.0.0:{port}" not in door.listener.addresses
    joined = Dialer(peer_id=THEIRS, interface="lo").dial(("127.0.0.1", port), SWARM)
    assert door.wait().host == "127.0.0.1"
    joined.sock.close()


def test_without_addresses_nobody_comes_in(open_door: Callable[..., Door]) -> None:
    door = open_door(addresses=(), port=7777)
    assert (door.listener.addresses, door.listener.port) == ([], 7777)


# ---- dialing what does not become a peer


@pytest.fixture
def server() -> Iterator[Callable[[bytes | None], int]]:
    """Listens, answers each connection with these bytes and closes it; None: says nothing and stays."""
    greenlets = []
    socks = []

    def serve(answer: bytes | None) -> int:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        socks.append(listening)

        def work() -> None:
            while True:
                sock, _ = listening.accept()
                socks.append(sock)
                if answer is not None:
                    sock.recv(HANDSHAKE_BYTES)
                    sock.sendall(answer)
                    sock.close()

        greenlets.append(gevent.spawn(work))
        return int(listening.getsockname()[1])

    yield serve
    gevent.killall(greenlets)
    for sock in socks:
        sock.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "closed the connection during the handshake"),
        (GREETING[:50], "closed the connection during the handshake"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak the BitTorrent protocol"),
        (PROTOCOL + bytes(8) + OTHER_SWARM + THEIRS, "answered for another torrent"),
    ],
)
def test_a_wrong_answer_has_its_reason(
    server: Callable[[bytes | None], int], answer: bytes, reason: str
) -> None:
    with pytest.raises(DialError, match=reason) as caught:
        Dialer(peer_id=OURS).dial(("127.0.0.1", server(answer)), SWARM)
    assert not caught.value.ourselves


def test_no_answer_ends_the_attempt(server: Callable[[bytes | None], int]) -> None:
    with pytest.raises(DialError, match="no answer within"):
        Dialer(peer_id=OURS, timeout_s=0.1).dial(("127.0.0.1", server(None)), SWARM)


def test_what_cannot_be_dialed() -> None:
    dialer = Dialer(peer_id=OURS, is_banned=lambda host: host == "127.0.0.9")
    with plain.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed_port = free.getsockname()[1]
    for address, reason in (
        (("127.0.0.1", closed_port), os.strerror(errno.ECONNREFUSED).lower()),
        (("127.0.0.9", closed_port), "banned"),
        (("localhost", closed_port), "'localhost' is not a numeric address"),
        (("127.0.0.1", 0), "0 is no port"),
        (("127.0.0.1", 65536), "65536 is no port"),
    ):
        with pytest.raises(DialError, match=reason):
            dialer.dial(address, SWARM)
    with pytest.raises(DialError, match="the interface nosuch0 has no IPv4 address"):
        Dialer(peer_id=OURS, interface="nosuch0").dial(("127.0.0.1", closed_port), SWARM)


def test_dials_beyond_the_bound_wait_for_their_turn(
    server: Callable[[bytes | None], int], open_door: Callable[..., Door]
) -> None:
    door, silent = open_door(), server(None)
    dialer = Dialer(peer_id=THEIRS, half_open=1, timeout_s=30.0)
    first = gevent.spawn(dialer.dial, ("127.0.0.1", silent), SWARM)
    gevent.sleep(0)
    killed = gevent.spawn(dialer.dial, ("127.0.0.1", silent), SWARM)
    waiting = [gevent.spawn(dialer.dial, ("127.0.0.1", door.listener.port), SWARM) for _ in range(2)]
    gevent.sleep(0.02)
    assert door.asked == []
    killed.kill()
    first.kill()
    assert gevent.wait(waiting, timeout=5) and all(dialing.successful() for dialing in waiting)
    again = dialer.dial(("127.0.0.1", door.listener.port), SWARM)  # nothing is left of the queue
    for joined in (again, *(dialing.value for dialing in waiting)):
        joined.sock.close()


def test_a_bound_that_was_raised_lets_more_go(
    server: Callable[[bytes | None], int], open_door: Callable[..., Door]
) -> None:
    door, silent = open_door(), server(None)
    dialer = Dialer(peer_id=THEIRS, half_open=1, timeout_s=30.0)
    blocking = [gevent.spawn(dialer.dial, ("127.0.0.1", silent), SWARM) for _ in range(2)]
    gevent.sleep(0)
    waiting = gevent.spawn(dialer.dial, ("127.0.0.1", door.listener.port), SWARM)
    gevent.sleep(0)
    dialer.half_open = 3
    blocking[0].kill()
    waiting.get(timeout=5).sock.close()
    gevent.killall(blocking)
