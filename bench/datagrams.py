"""Announces over UDP, as `bench.tracker` sends them: a load where each waits for its answer, and a flood.

python -m bench.datagrams PORT SECONDS: flood whoever is at this port of loopback, waiting for nothing
"""

from __future__ import annotations

import random
import select
import socket
import struct
import subprocess
import sys
import time

from bench import hubwatch
from bench.daemons import Daemon
from bench.measure import percentile
from microtorrd.proto import udp_announce as udp

#: A server that says nothing for so long has lost a datagram.
SILENCE_S = 5.0

FLOOD_S = 3.0
#: Between an answer and the next question of who asks in the flood.
PAUSE_S = 0.005

_RECEIVE_BYTES = 4096
_REPLY_BYTES = 20  # and 6 for each peer
_ENTRY_BYTES = 6


def requests(swarms: list[bytes], peers: int, wanted: int, generator: random.Random) -> list[bytes]:
    """What `bench.tracker.requests` says for these peers, as datagrams; the connection id is left open."""
    found = []
    for number in range(peers):
        place = number // len(swarms)
        seeds = place % 10 == 0
        event = generator.choices(("", "started", "completed"), (18, 1, 1 if seeds else 0))[0]
        request = udp.AnnounceRequest(
            connection=0,
            transaction=number,
            info_hash=swarms[number % len(swarms)],
            peer_id=b"-XX0001-" + number.to_bytes(12, "big"),
            downloaded=number * 8192,
            left=0 if seeds else number + 1,
            uploaded=number * 16384,
            event="started" if event == "started" else "completed" if event == "completed" else "",
            key=number,
            numwant=wanted,
            port=1024 + place,
        )
        found.append(udp.encode_request(request))
    generator.shuffle(found)
    return found


def connect(sock: socket.socket) -> bytes:
    """A connection id from who is at the other end, 8 bytes."""
    sock.send(udp.encode_request(udp.ConnectRequest(1)))
    reply = udp.decode_reply(sock.recv(_RECEIVE_BYTES), ipv6=False)
    if not isinstance(reply, udp.ConnectReply):
        raise RuntimeError(f"not a connection id: {reply}")
    return struct.pack(">Q", reply.connection)


class Load:
    """So many sockets, each with one announce under way; each answer must hold `wanted` peers."""

    def __init__(self, port: int, load: list[bytes], sockets: int, wanted: int) -> None:
        self._load = load
        self._next = 0
        self._answer_bytes = _REPLY_BYTES + _ENTRY_BYTES * wanted
        self._sockets: dict[int, socket.socket] = {}
        self._epoll = select.epoll()
        for _ in range(sockets):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.settimeout(SILENCE_S)
            sock.connect(("127.0.0.1", port))
            self._sockets[sock.fileno()] = sock
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def run(self, seconds: float) -> tuple[int, float]:
        """For so long; how many answers came, in which time."""
        connection = connect(next(iter(self._sockets.values())))
        load = [connection + raw[8:] for raw in self._load]
        counted = 0
        began = time.perf_counter()
        try:
            for sock in self._sockets.values():
                self._send(sock, load)
            while time.perf_counter() - began < seconds:
                events = self._epoll.poll(SILENCE_S)
                if not events:
                    raise RuntimeError(f"no answer for {SILENCE_S:.0f} s")
                for fd, _ in events:
                    sock = self._sockets[fd]
                    answer = sock.recv(_RECEIVE_BYTES)
                    if len(answer) != self._answer_bytes or answer[:4] != b"\0\0\0\1":
                        raise RuntimeError(f"not the answer that was wanted: {answer!r}")
                    counted += 1
                    self._send(sock, load)
            return counted, time.perf_counter() - began
        finally:
            self._epoll.close()
            for sock in self._sockets.values():
                sock.close()

    def _send(self, sock: socket.socket, load: list[bytes]) -> None:
        sock.send(load[self._next])
        self._next = (self._next + 1) % len(load)


def in_a_flood(daemon: Daemon, port: int) -> tuple[float, float, float]:
    """How soon an HTTP request is answered that comes now and then while another process floods the tracker:
    99 of 100, and the slowest; and the longest stall of the hub, all in seconds. `daemon` is probed."""
    answers_s: list[float] = []
    began_s = time.monotonic()
    with (
        subprocess.Popen([sys.executable, "-m", "bench.datagrams", str(port), str(FLOOD_S)]) as flooder,
        socket.create_connection(("127.0.0.1", port), SILENCE_S) as talk,
    ):
        time.sleep(FLOOD_S / 6)  # until it is under way
        while time.monotonic() - began_s < FLOOD_S:
            asked = time.perf_counter()
            talk.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            if not talk.recv(_RECEIVE_BYTES).startswith(b"HTTP/1.1 200 "):
                raise RuntimeError("the flood has washed it away")
            answers_s.append(time.perf_counter() - asked)
            time.sleep(PAUSE_S)
        if flooder.wait(SILENCE_S):
            raise RuntimeError("the flood failed")
    stalls_s = hubwatch.durations_s(daemon.probe_path, since_s=began_s)
    return percentile(answers_s, 99), max(answers_s), max(stalls_s, default=0.0)


def flood(port: int, seconds: float) -> None:
    """Announces and long scrapes that are to be answered, and announces of nobody, as fast as they leave."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SILENCE_S)
        sock.connect(("127.0.0.1", port))
        connection = connect(sock)
        (announce,) = requests([b"S" * 20], 1, 50, random.Random(7))
        scrape = struct.pack(">II", udp.SCRAPE, 1) + b"S" * 20 * udp.MAX_SCRAPE
        datagrams = [connection + announce[8:], connection + scrape, bytes(8) + announce[8:]]
        end = time.perf_counter() + seconds
        sent = 0
        while time.perf_counter() < end:
            for raw in datagrams:
                sock.send(raw)
                sent += 1
        print(f"  flooded with {sent / seconds:,.0f} datagrams a second", flush=True)


if __name__ == "__main__":
    flood(int(sys.argv[1]), float(sys.argv[2]))
