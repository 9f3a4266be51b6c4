"""Who knocks over UDP is sent to TCP at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gevent import socket

from microtorrd.greenlets import Crew
from microtorrd.net.utp_door import UtpDoor
from microtorrd.proto.utp import decline
from tests.proto.test_utp import SYN


@pytest.fixture
def door() -> Iterator[UtpDoor]:
    crew = Crew("test")
    door = UtpDoor(crew)
    yield door
    door.close()
    crew.stop(1.0)


def free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_declines_and_says_nothing_else(door: UtpDoor, host: str) -> None:
    port = free_port(host)
    door.open([(host, port)])
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as knocker:
        knocker.settimeout(5.0)
        knocker.connect((host, port))
        for noise in (b"", b"x", b"GET / HTTP/1.1\r\n\r\n", b"\x01" + SYN[1:]):
            knocker.send(noise)
        knocker.send(SYN)
        assert knocker.recv(100) == decline(SYN), "nothing before it"


def test_a_port_that_is_taken_is_no_harm(door: UtpDoor) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        door.open([("127.0.0.1", other.getsockname()[1])])
