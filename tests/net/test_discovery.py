"""Local discovery over real multicast sockets, on the loopback interface with a port of its own."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import gevent
import ifaddr
import pytest
from gevent import socket
from gevent.event import Event

from microtorrd.core.earshot import OF_A_HOST_BURST, PORTS_OF_A_HOST
from microtorrd.greenlets import Crew
from microtorrd.net.discovery import Discovery
from microtorrd.net.neighbourhood import Way, is_neighbour, ways
from microtorrd.proto import lsd

LOOPBACK = Way("127.0.0.1", 1, 8)
ID = b"\x11" * 20


class Neighbour:
    """Somebody who shares things, and what he heard."""

    def __init__(self, crew: Crew, port: int, group_port: int, way: Way, shared: list[bytes]) -> None:
        self.heard: list[tuple[bytes, tuple[str, int]]] = []
        self.shared = shared
        self._news = Event()
        self.discovery = Discovery(
            crew=crew.child(str(port)),
            port=port,
            ways=lambda: [way],
            present=lambda: self.shared,
            heard=self._hear,
            group_port=group_port,
        )
        self.discovery.start()

    def _hear(self, swarm_id: bytes, address: tuple[str, int]) -> None:
        self.heard.append((swarm_id, address))
        self._news.set()

    def wait(self, count: int = 1) -> None:
        with gevent.Timeout(10.0, AssertionError(f"heard only {self.heard}")):
            while len(self.heard) < count:
                self._news.clear()
                self._news.wait()


Meet = Callable[..., Neighbour]


@pytest.fixture
def group_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture
def meet(group_port: int) -> Iterator[Meet]:
    crew = Crew("test")
    here: list[Neighbour] = []

    def join(port: int, *shared: bytes, way: Way = LOOPBACK) -> Neighbour:
        here.append(Neighbour(crew, port, group_port, way, list(shared)))
        return here[-1]

    yield join
    for neighbour in here:
        neighbour.discovery.close()
    crew.stop(1.0)


def test_neighbours_hear_each_other_and_nobody_hears_himself(meet: Meet) -> None:
    one = meet(1111)
    other = meet(2222, ID)
    one.wait()
    assert one.heard == [(ID, ("127.0.0.1", 2222))]
    assert other.heard == []


def test_a_way_that_does_not_work_is_no_harm(meet: Meet) -> None:
    meet(1111, ID, way=Way("192.0.2.99", 77, 24))
    one = meet(2222)
    meet(3333, ID)
    one.wait()


def test_interfaces_that_cannot_be_looked_at_are_looked_at_again(
    meet: Meet, group_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microtorrd.net.discovery.PACE_S", 0.02)
    monkeypatch.setattr("microtorrd.net.discovery.LOOK_AT_WAYS_S", 0.0)
    listener = meet(1111)
    crew = Crew("late")
    looks: list[list[Way]] = [[LOOPBACK]]

    def find() -> list[Way]:
        if len(looks) < 3:
            looks.append([])
            raise OSError(errno.EMFILE, "Too many open files")
        return looks[0]

    late = Discovery(
        crew=crew, port=2222, ways=find, present=lambda: [ID], heard=lambda *_: None, group_port=group_port
    )
    late.start()
    listener.wait()
    assert listener.heard[0] == (ID, ("127.0.0.1", 2222))
    late.close()


def shout(group_port: int, *datagrams: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        for datagram in datagrams:
            sock.sendto(datagram, (lsd.GROUP4, group_port))


def test_nonsense_and_floods_are_survived(meet: Meet, group_port: int) -> None:
    listener = meet(1111)
    garbage = [
        b"",
        b"\0" * 3000,
        b"BT-SEARCH * HTTP/1.1\r\n",
        b"BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: x",
    ]
    shout(group_port, *garbage)
    shout(group_port, *[lsd.encode(lsd.Presence(1, (ID,)), ipv6=False)] * 200)
    listener.wait(OF_A_HOST_BURST - len(garbage))
    gevent.sleep(0.05)
    assert len(listener.heard) < OF_A_HOST_BURST + 5


def test_the_ports_of_one_host_are_not_all_knocked_at(meet: Meet, group_port: int) -> None:
    listener = meet(1111)
    said = [lsd.encode(lsd.Presence(port, (ID,)), ipv6=False) for port in range(1, 30)]
    last = lsd.encode(lsd.Presence(1, (bytes(20),)), ipv6=False)
    shout(group_port, *said, last)
    listener.wait(PORTS_OF_A_HOST + 1)
    assert [port for _, (_, port) in listener.heard] == [*range(1, PORTS_OF_A_HOST + 1), 1]


def test_who_is_a_neighbour() -> None:
    known = [Way("198.51.100.7", 2, 24), Way("2001:db8:1::7", 2, 64)]
    for host in ("198.51.100.200", "10.9.9.9", "192.168.1.1", "169.254.3.3", "2001:db8:1::9", "fd00::1"):
        assert is_neighbour(host, known), host
    for host in ("198.51.101.1", "8.8.8.8", "2001:db8:2::1", "127.0.0.1", "::1", "0.0.0.0", "x", ""):
        assert not is_neighbour(host, known), host
    assert is_neighbour("127.0.0.1", [LOOPBACK])


def adapter(name: str, *hosts: object) -> ifaddr.Adapter:
    ips = [ifaddr.IP(host, 24 if isinstance(host, str) else 64, name) for host in hosts]
    return ifaddr.Adapter(name, name, ips, index=len(name))


def test_only_interfaces_that_peers_come_by_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = [
        adapter("lo", "127.0.0.1", ("::1", 0, 0)),
        adapter("eth0", "192.0.2.1", ("2001:db8::1", 0, 0), ("fe80::1", 0, 2)),
        adapter("eth0:1", "192.0.2.2"),
        adapter("wg0", "10.0.0.1"),
    ]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda **_: machine)

    def hosts(interface: str, *listened: str) -> list[str]:
        return [way.host for way in ways(interface, listened)]

    assert hosts("", "0.0.0.0", "::") == ["192.0.2.1", "2001:db8::1", "192.0.2.2", "10.0.0.1"]
    assert hosts("", "0.0.0.0") == ["192.0.2.1", "192.0.2.2", "10.0.0.1"]
    assert hosts("", "192.0.2.2", "127.0.0.1") == ["192.0.2.2"]
    assert hosts("eth0", "0.0.0.0") == ["192.0.2.1", "192.0.2.2"]
    assert hosts("wg0", "10.0.0.1") == ["10.0.0.1"]
    # An interface that is gone never means any other.
    assert hosts("wg1", "0.0.0.0", "::") == hosts("lo", "0.0.0.0") == []
