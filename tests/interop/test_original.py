"""The original Go program: what it asks of a tracker, byte by byte as recorded, and the files that it writes.

Its own peer wire is another matter; here its clients meet our tracker, and its metadata our daemons.
"""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha1
from pathlib import Path
from typing import Any

from gevent import socket

from tests.interop.meeting import Meeting
from tests.interop.meetings import wait_until_seeding

CONTENT = b"Hello, MicroTorr! This is a 40-byte file"
SWARM = "641057d4a3c5f2069380fcfa32ec3f7ea59566ca"
#: As its `createMtorr -l 16` wrote it; the tracker in it is the default one.
METAINFO = Path(__file__).parent.parent / "corpus" / "good" / "original_small.txt.mtorrent"
TRACKER_INSIDE = b"21:http://127.0.0.1:8888"

REQUEST = (
    "GET /announce?peerId={peer}&swarmId=" + SWARM + "&ip=127.0.0.1&port={port}&event={event} HTTP/1.1\r\n"
    "Host: 127.0.0.1:{tracker}\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n"
)
SEEDER, LEECHER = ("w3fcAR2XIgwocPDbdqgx", 3333), ("TU9dOwo0SFuskrq6N3Rc", 1111)


class GoClient:
    """One connection that is used for all requests, as its HTTP client does."""

    def __init__(self, port: int, who: tuple[str, int]) -> None:
        self._tracker = port
        self._who = who
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._received = b""

    def __enter__(self) -> GoClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def ask(self, event: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the reply."""
        peer, port = self._who
        request = REQUEST.format(peer=peer, port=port, event=event, tracker=self._tracker)
        self._sock.sendall(request.encode())
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers["Content-Length"])
        while len(self._received) < length:
            self._receive()
        body, self._received = self._received[:length], self._received[length:]
        return int(status.split()[1]), headers, body

    def _receive(self) -> None:
        chunk = self._sock.recv(65536)
        assert chunk, "the tracker closed the connection"
        self._received += chunk


def peers_for_go(body: bytes) -> dict[str, tuple[str, int]]:
    """What its decoder fills its struct with."""
    reply: dict[str, Any] = json.loads(body)
    assert reply["IdHash"] == SWARM
    for key, peer in reply["Peers"].items():
        assert peer["Id"] == key
    return {key: (peer["Ip"], peer["Port"]) for key, peer in reply["Peers"].items()}


def test_its_clients_live_on_our_tracker(loopback_meeting: Meeting) -> None:
    port = loopback_meeting.tracker.call("session.stats")["tracker_port"]
    with GoClient(port, SEEDER) as seeder, GoClient(port, LEECHER) as leecher:
        status, headers, body = seeder.ask("started")
        assert (status, headers["Content-Type"]) == (200, "application/json")
        # It reads its own listen address from there.
        assert peers_for_go(body) == {SEEDER[0]: ("127.0.0.1", 3333)}
        status, _, body = leecher.ask("started")
        assert status == 200
        assert peers_for_go(body) == {SEEDER[0]: ("127.0.0.1", 3333), LEECHER[0]: ("127.0.0.1", 1111)}

        status, headers, body = seeder.ask("alive")
        assert (status, headers["Content-Length"], body) == (200, "0", b"")
        status, _, body = leecher.ask("completed")  # … and leaves
        assert (status, body) == (200, b"Peer exited the swarm")
        assert leecher.ask("alive")[0] == 400
        assert peers_for_go(seeder.ask("started")[2]) == {SEEDER[0]: ("127.0.0.1", 3333)}
        assert seeder.ask("stopped")[0] == 200
        assert seeder.ask("no such event")[0] == 400


def test_a_client_of_it_meets_one_of_ours(loopback_meeting: Meeting) -> None:
    meeting = loopback_meeting
    content = meeting.directory / "small.txt"
    content.write_bytes(CONTENT)
    meeting.add(meeting.tracker, with_tracker(meeting), "--seed", str(content))
    meeting.wait_for_announce("-MD", holding=SWARM)
    stats = meeting.tracker.call("session.stats")
    with GoClient(stats["tracker_port"], LEECHER) as leecher:
        peers = peers_for_go(leecher.ask("started")[2])
        leecher.ask("stopped")
    assert set(peers.values()) == {("127.0.0.1", 1111), ("127.0.0.1", stats["listen_port"])}


def test_its_file_is_shown() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mtorrctl", "show", str(METAINFO), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    shown = json.loads(done.stdout)
    assert (shown["name"], shown["size_bytes"], shown["piece_length"]) == ("small.txt", 40, 16)
    assert shown["id_hash"] == SWARM == sha1(CONTENT).hexdigest()
    assert "http://127.0.0.1:8888/announce" in json.dumps(shown["trackers"])


def test_content_travels_by_its_file(loopback_meeting: Meeting) -> None:
    meeting = loopback_meeting
    content = meeting.directory / "small.txt"
    content.write_bytes(CONTENT)
    metainfo = with_tracker(meeting)
    meeting.add(meeting.tracker, metainfo, "--seed", str(content))
    meeting.wait_for_announce("-MD", holding="left=0")
    leecher = meeting.daemon("leecher")
    meeting.add(leecher, metainfo)
    meeting.wait_for_content(content, leecher.save_to / "small.txt", who="the leecher")
    wait_until_seeding(leecher)


def with_tracker(meeting: Meeting) -> Path:
    """Its file, naming the meeting's tracker as its `-t` would: without a path."""
    raw = METAINFO.read_bytes()
    assert raw.count(TRACKER_INSIDE) == 1
    url = meeting.url.removesuffix("/announce").encode()
    path = meeting.directory / "small.txt.mtorrent"
    path.write_bytes(raw.replace(TRACKER_INSIDE, b"%d:%b" % (len(url), url)))
    return path
