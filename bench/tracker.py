"""Announces a second over HTTP (connections that stay, and that close) and over UDP, beside opentracker.

Debian's opentracker closes every connection after its answer, also for clients that would stay; to those it
is asked on a new one each time, as they would do.

One process sends the load, the same bytes to both: announces of many peers in many swarms, in a fixed random
order, one at a time on each connection; each answer is read whole and must hold 50 peers. Before anything is
measured every peer has announced itself once. Over UDP the same peers say the same, one at a time from each
socket; and a flood of datagrams shows what is left for others.

python -m bench.tracker [PAIRS]
"""

from __future__ import annotations

import errno
import random
import re
import select
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote_from_bytes

from bench import datagrams
from bench.daemons import Daemon
from bench.foreign.opentracker import Opentracker
from bench.measure import Row, cpu_s, spread, workplace
from microtorrd.proto.announce_reply import parse_reply

SWARMS = 20
PEERS = 20_000  # in all; each swarm has a thousand
WANTED = 50
MEASURED_S = 2.0
#: A server that says nothing for so long has lost a request.
SILENCE_S = 10.0

_LENGTH = re.compile(rb"\r\nContent-Length: *(\d+)\r\n", re.IGNORECASE)
_RECEIVE_BYTES = 4096  # an answer has about 450


class Case(NamedTuple):
    """How many connections, and whether each serves one announce only."""

    connections: int
    close: bool

    @property
    def words(self) -> str:
        """For the table."""
        return f"{self.connections:,} connections, {'one a connection' if self.close else 'kept alive'}"


#: Of our daemon: bound to all addresses, as it is by default.
SETTINGS = {"tracker__enabled": "true", "tracker__bind": "0.0.0.0:0", "daemon__log_level": "warning"}

CASES = [Case(connections, close) for connections in (32, 1000) for close in (False, True)]


class Server(NamedTuple):
    """A tracker that runs."""

    port: int
    pid: int


def rows(rounds: int) -> list[Row]:
    """Each way of asking, both trackers in turns, and the CPU time that one announce takes."""
    if shutil.which("opentracker") is None:
        raise RuntimeError("opentracker is not installed")
    pairs = max(rounds, 5)
    generator = random.Random(7)
    swarms = [generator.randbytes(20) for _ in range(SWARMS)]
    with workplace() as home, both(home, swarms) as (ours, theirs):
        for server in (ours, theirs):
            Load(server.port, requests(swarms, generator, close=False), Case(32, False)).run(announces=PEERS)
        found = []
        for case in CASES:
            aim = "≥ 0.5" if case.close else "≥ 1.0"
            rate = Row(f"announces over HTTP, {case.words}", "/s", aim, other="opentracker")
            cost = Row(f"CPU time of one, {case.words}", "µs", "–", other="opentracker")
            load = requests(swarms, generator, close=case.close)
            for _ in range(pairs):
                one, other = (measure(server, load, case) for server in (ours, theirs))
                rate.add(one[0], other[0])
                cost.add(one[1], other[1])
            print(
                f"  {case.words}: ours {spread(rate.ours, '/s')}, opentracker {spread(rate.theirs, '/s')}",
                flush=True,
            )
            found += [rate, cost]
        found += over_udp(ours, theirs, swarms, generator, pairs)
    with workplace() as home:
        return found + in_a_flood(home, pairs)


def over_udp(
    ours: Server, theirs: Server, swarms: list[bytes], generator: random.Random, pairs: int
) -> list[Row]:
    """The same over UDP; and our own HTTP beside it, in the same turns."""
    case = Case(32, False)
    rate = Row("announces over UDP, 32 sockets", "/s", "–", other="opentracker")
    cost = Row("CPU time of one over UDP", "µs", "–", other="opentracker")
    beside = Row("announces over UDP, beside our own HTTP, kept alive", "/s", "> 1.0", other="HTTP")
    load = datagrams.requests(swarms, PEERS, WANTED, generator)
    http_load = requests(swarms, generator, close=False)
    for _ in range(pairs):
        one, other = (measure_udp(server, load, case.connections) for server in (ours, theirs))
        rate.add(one[0], other[0])
        cost.add(one[1], other[1])
        beside.add(one[0], measure(ours, http_load, case)[0])
    print(f"  over UDP: ours {spread(rate.ours, '/s')}, opentracker {spread(rate.theirs, '/s')}", flush=True)
    return [rate, cost, beside]


def in_a_flood(home: Path, rounds: int) -> list[Row]:
    """What a flood of datagrams leaves to others."""
    usual = Row("a request over HTTP in a flood of datagrams, 99 of 100", "ms", "≤ 20 ms")
    worst = Row("… the slowest", "ms", "≤ 50 ms")
    stall = Row("… longest stall of the hub (0: less than 10 ms)", "ms", "≤ 10 ms")
    with Daemon(home / "flooded", probed=True, **SETTINGS) as daemon:
        port = daemon.call("session.stats")["tracker_port"]
        for _ in range(rounds):
            for row, seconds in zip((usual, worst, stall), datagrams.in_a_flood(daemon, port), strict=True):
                row.add(seconds * 1000)
    return [usual, worst, stall]


@contextmanager
def both(home: Path, swarms: list[bytes]) -> Iterator[tuple[Server, Server]]:
    """A daemon of ours that does nothing but track, and opentracker."""
    daemon = Daemon(home / "ours", **SETTINGS)
    with daemon, Opentracker(Opentracker.free_port(), swarms) as opentracker:
        assert daemon.process is not None
        port = daemon.call("session.stats")["tracker_port"]
        yield Server(port, daemon.process.pid), Server(opentracker.port, opentracker.pid)


def requests(swarms: list[bytes], generator: random.Random, *, close: bool) -> list[bytes]:
    """An announce of each peer, in random order: a tenth has everything, a few come and go.

    Every peer has a port of its own within its swarm: opentracker knows peers by address and port.
    """
    connection = "close" if close else "keep-alive"
    found = []
    for number in range(PEERS):
        swarm, port = swarms[number % SWARMS], 1024 + number // SWARMS
        peer_id = b"-XX0001-" + number.to_bytes(12, "big")
        seeds = number // SWARMS % 10 == 0
        event = generator.choices(("", "&event=started", "&event=completed"), (18, 1, 1 if seeds else 0))[0]
        found.append(
            f"GET /announce?info_hash={quote_from_bytes(swarm, safe='')}"
            f"&peer_id={quote_from_bytes(peer_id, safe='')}&port={port}"
            f"&uploaded={number * 16384}&downloaded={number * 8192}&left={0 if seeds else number + 1}"
            f"&numwant={WANTED}&key={number:08x}&compact=1{event} HTTP/1.1\r\n"
            f"Host: 127.0.0.1\r\nUser-Agent: bench\r\nConnection: {connection}\r\n\r\n".encode()
        )
    generator.shuffle(found)
    return found


def measure(server: Server, load: list[bytes], case: Case) -> tuple[float, float]:
    """Announces a second, and the server's CPU time for one in microseconds."""
    before = cpu_s(server.pid)
    count, took = Load(server.port, load, case).run(seconds=MEASURED_S)
    return count / took, (cpu_s(server.pid) - before) / count * 1e6


def measure_udp(server: Server, load: list[bytes], sockets: int) -> tuple[float, float]:
    """The same over UDP."""
    before = cpu_s(server.pid)
    count, took = datagrams.Load(server.port, load, sockets, WANTED).run(MEASURED_S)
    return count / took, (cpu_s(server.pid) - before) / count * 1e6


class Load:
    """So many connections, each with one announce under way; as little work for each as Python allows."""

    def __init__(self, port: int, load: list[bytes], case: Case) -> None:
        self._address = ("127.0.0.1", port)
        self._load = load
        self._case = case
        self._next = 0
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._partial: dict[int, bytes] = {}
        self._counted = 0

    def run(self, *, seconds: float = 0.0, announces: int = 0) -> tuple[int, float]:
        """For so long, or for so many answers; how many came, in which time."""
        began = time.perf_counter()
        try:
            for _ in range(self._case.connections):
                self._connect()
            while self._counted < announces or time.perf_counter() - began < seconds:
                events = self._epoll.poll(SILENCE_S)
                if not events:
                    raise RuntimeError(f"port {self._address[1]} has been silent for {SILENCE_S:.0f} s")
                for fd, _ in events:
                    self._receive(fd)
            return self._counted, time.perf_counter() - began
        finally:
            for sock in self._sockets.values():
                sock.close()
            self._epoll.close()

    def _connect(self) -> None:
        """Loopback takes a connection at once, and the announce right behind it."""
        sock = socket.socket()
        try:
            sock.connect(self._address)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRNOTAVAIL:
                raise RuntimeError("too many connections have just closed: wait a minute") from error
            raise
        sock.setblocking(False)
        self._sockets[sock.fileno()] = sock
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._send(sock)

    def _send(self, sock: socket.socket) -> None:
        sock.send(self._load[self._next])
        self._next = (self._next + 1) % len(self._load)

    def _receive(self, fd: int) -> None:
        sock = self._sockets[fd]
        try:
            chunk = sock.recv(_RECEIVE_BYTES)
        except ConnectionResetError:
            chunk = b""
        partial = self._partial.pop(fd, b"")
        if not chunk:
            if partial:
                raise RuntimeError(f"an answer ended early: {partial!r}")
            self._reconnect(fd)  # it does not keep connections, or keeps this one no longer
            return
        if not self._is_whole(answer := partial + chunk):
            self._partial[fd] = answer
        elif self._case.close:
            self._reconnect(fd)
        else:
            self._send(sock)

    def _reconnect(self, fd: int) -> None:
        self._sockets.pop(fd).close()
        self._connect()

    def _is_whole(self, answer: bytes) -> bool:
        head_end = answer.find(b"\r\n\r\n")
        length = _LENGTH.search(answer, 0, head_end + 2) if head_end >= 0 else None
        if length is None or len(answer) < head_end + 4 + int(length[1]):
            return False
        self._counted += 1
        if self._counted % 1000 == 0 or not answer.startswith(b"HTTP/1.1 200 "):
            reply = parse_reply(answer[head_end + 4 :], "bittorrent", status=int(answer[9:12]))
            # The very first ones find their swarms empty.
            if len(reply.peers) < WANTED and self._counted > PEERS // 2:
                raise RuntimeError(f"an answer with {len(reply.peers)} peers")
        return True


if __name__ == "__main__":
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
        print(" | ".join(row.cells()))
