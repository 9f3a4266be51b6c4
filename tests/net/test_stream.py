"""A socket as a stream: whether it can be written to, asked and waited for."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from gevent import monkey

from microtorrd.net.stream import TcpStream

WAIT_S = 10.0
CHUNK = bytes(1 << 16)

_Socket: type[socket.socket] = monkey.get_original("socket", "socket")


@pytest.fixture
def ends() -> Iterator[tuple[TcpStream, socket.socket]]:
    """A stream, and the plain socket at its other end."""
    with _Socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        ours = _Socket()
        ours.connect(listening.getsockname())
        theirs, _ = listening.accept()
    stream = TcpStream(ours)
    yield stream, theirs
    stream.close()
    theirs.close()


def fill(stream: TcpStream) -> int:
    """Write until nothing more fits; how much did."""
    filled = 0
    while (sent := stream.write([CHUNK])) is not None:
        filled += sent
    return filled


def test_a_stream_is_writable_until_it_is_full_and_again_when_it_was_read(
    ends: tuple[TcpStream, socket.socket],
) -> None:
    stream, theirs = ends
    stream.keep_room(len(CHUNK))
    assert stream.is_writable()
    left = fill(stream)
    assert not stream.is_writable() and not stream.wait_writable(0.01)
    while left:
        left -= len(theirs.recv(left))
    assert stream.wait_writable(WAIT_S) and stream.is_writable()


def test_of_a_connection_that_is_gone_a_write_tells_and_nobody_waits(
    ends: tuple[TcpStream, socket.socket],
) -> None:
    stream, _ = ends
    stream.end(abort=True)
    assert stream.is_writable()
    with pytest.raises(OSError, match=r"."):
        stream.write([CHUNK])


def test_a_closed_stream_says_so(ends: tuple[TcpStream, socket.socket]) -> None:
    stream, _ = ends
    assert stream.is_writable()
    stream.close()
    for ask in (stream.is_writable, lambda: stream.wait_writable(WAIT_S)):
        with pytest.raises(OSError, match="the connection is closed"):
            ask()
