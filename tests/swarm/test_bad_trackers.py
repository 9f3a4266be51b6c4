"""Trackers that are down, slow, mad or mean: the torrents go on with peers found otherwise.

All of them at once, each with a torrent of its own whose next tracker is a good one, because some take the
time that a daemon gives a tracker at the most.
"""

from __future__ import annotations

import gzip
import json
import random
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import gevent
import pytest
from gevent.pool import Pool
from gevent.server import StreamServer

from bench.daemons import Daemon
from tests.metainfos import mtorrent_of
from tests.net.trackers import FakeTracker, Seen, http
from tests.swarm.conftest import mtorrctl
from tests.swarm.hostile import Health

PIECE_BYTES = 32768
OPEN_FILES = 8

#: More than a daemon gives to trackers one after the other, in both dialects.
LONGEST_S = 60.0

CLOSE = "Connection: close"

Behave = Callable[[Any], object]


def say(*raw: bytes) -> Behave:
    """Answer with these bytes, and close."""
    return lambda sock: sock.sendall(b"".join(raw))


def page(body: bytes, status: str = "200 OK", *headers: str) -> Behave:
    """Answer with a well-made HTTP reply."""
    return say(http(body, status, CLOSE, *headers))


def hang(sock: Any) -> None:
    """Say nothing for ever."""
    while sock.recv(65536):
        continue


def trickle(sock: Any) -> None:
    """One byte a second of an answer that would be right."""
    for byte in http(b"d8:intervali600e5:peers0:e"):
        sock.sendall(bytes((byte,)))
        gevent.sleep(1.0)


def trickle_body(sock: Any) -> None:
    """The head at once, and the body never to its end."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        sock.sendall(b"d")
        gevent.sleep(1.0)


def endless(head: bytes, part: bytes) -> Behave:
    """Never stop."""

    def behave(sock: Any) -> None:
        sock.sendall(head)
        while True:
            sock.sendall(part)

    return behave


def redirect(to: str) -> Behave:
    """Send them elsewhere."""
    return page(b"", "302 Found", f"Location: {to}")


def million_peers() -> bytes:
    """A list of them in compact form."""
    peers = b"".join(struct.pack(">IH", 0x0A000000 + number, 6881) for number in range(1_000_000))
    return b"d8:intervali600e5:peers%d:%be" % (len(peers), peers)


def many_peers() -> bytes:
    """As many as fit into a reply that is read; nobody is at any of them."""
    peers = b"".join(struct.pack(">IH", 0x7F100000 + number, 9) for number in range(40_000))
    return b"d8:intervali600e5:peers%d:%be" % (len(peers), peers)


HTML = b"<!DOCTYPE html><html><body>It works!</body></html>"
PACKED_BOMB = gzip.compress(bytes(200 << 20), 9)
NONSENSE_PEERS = b"".join(
    struct.pack(">IH", address, port)
    for address in (0, 0xFFFFFFFF, 0xE0000001, 0x7F000001)
    for port in (0, 1, 65535)
)
ESCAPES = b"\x1b[2J\x1b]0;title\x07\nforged line\nno entry here"

#: What a tracker does, and what `mtorrctl trackers` says of it.
BAD: dict[str, tuple[Behave | None, str]] = {
    "down": (None, "refused"),
    "hangs": (hang, "no answer within"),
    "trickles": (trickle, "no answer within"),
    "trickles its body": (trickle_body, "no answer within"),
    "closes": (lambda sock: None, "closed the connection without an answer"),
    "garbage": (say(random.Random(5).randbytes(3000)), "does not speak HTTP"),
    "binary": (page(random.Random(6).randbytes(3000)), "neither bencoding nor JSON"),
    "HTML": (page(HTML), "the reply is a web page"),
    "nothing": (page(b""), "the reply is empty"),
    "error 500": (page(HTML, "500 Internal Server Error"), "500"),
    "error 404": (page(b"<h1>Not Found</h1>", "404 Not Found"), "404"),
    "error 503": (page(b"", "503 Service Unavailable", "Retry-After: 99999"), "503"),
    "redirects for ever": (
        lambda sock: redirect(f"http://{place_of(sock)}/again")(sock),
        "more than 5 redirects",
    ),
    "redirects to a file": (redirect("file:///etc/passwd"), "not an HTTP address"),
    "redirects to nowhere": (redirect("http://127.0.0.1:1/"), "refused"),
    "a million peers": (page(million_peers()), "longer than 262144 bytes"),
    "an endless body": (
        endless(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"4000\r\n" + bytes(0x4000) + b"\r\n"
        ),
        "longer than 262144 bytes",
    ),
    "an endless head": (endless(b"HTTP/1.1 200 OK\r\n", b"X-Field: value\r\n" * 100), "does not speak HTTP"),
    "an endless line": (endless(b"HTTP/1.1 200 OK\r\nX-Field: ", b"x" * 65536), "does not speak HTTP"),
    "a packed bomb": (page(PACKED_BOMB, "200 OK", "Content-Encoding: gzip"), "longer than 262144 bytes"),
    "badly packed": (page(b"\x1f\x8bnot packed", "200 OK", "Content-Encoding: gzip"), "cannot be unpacked"),
    "less than it says": (say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nd8:interval"), "broke off"),
    "deep nesting": (page(b"d5:peers" + b"l" * 100_000), "not bencoded"),
    "deep JSON": (page(b'{"Peers":' + b"[" * 100_000), "in the MicroTorr dialect"),
    "no": (page(b"d14:failure reason%d:%be" % (len(ESCAPES), ESCAPES)), "no entry here"),
}

#: Answers that are odd, and still answers.
ODD: dict[str, Behave] = {
    "many peers": page(many_peers()),
    "peers that are none": page(b"d8:intervali600e5:peers%d:%be" % (len(NONSENSE_PEERS), NONSENSE_PEERS)),
    "a mad interval": page(b"d8:intervali99999999999999999e5:peers0:e"),
    "a negative interval": page(b"d8:intervali-5e12:min intervali-1e5:peers0:e"),
    "half a peer": page(b"d8:intervali600e5:peers7:1234567e"),
    "slow": lambda sock: (gevent.sleep(3.0), page(b"d8:intervali600e5:peers0:e")(sock)),
}


def place_of(sock: Any) -> str:
    """Host and port of our own end."""
    host, port = sock.getsockname()
    return f"{host}:{port}"


class BadTracker:
    """Reads a request, then behaves. On a host of its own, as bad trackers seldom share one."""

    def __init__(self, host: str, behave: Behave) -> None:
        self._behave = behave
        self._callers = Pool()
        self._server = StreamServer((host, 0), self._serve, spawn=self._callers)
        self._server.start()
        self.url = f"http://{host}:{self._server.server_port}/announce"

    def _serve(self, sock: Any, address: object) -> None:
        try:
            sock.recv(65536)
            self._behave(sock)
        except OSError:
            return
        finally:
            sock.close()

    def close(self) -> None:
        self._server.stop(timeout=0)
        self._callers.kill()


@dataclass
class Evidence:
    """What became of them all, when everything is over: nothing of it outlives the fixture."""

    states: dict[str, str]  # of each torrent
    spoiled: list[str]  # torrents that came out wrong
    rows: dict[str, list[dict[str, Any]]]  # of each bad tracker: one a dialect
    shown: subprocess.CompletedProcess[str]
    listed: subprocess.CompletedProcess[str]
    log: str
    health: str  # what is wrong with the daemon, at the end
    exit_code: int
    stop_s: float


def make(name: str, tiers: tuple[tuple[str, ...], ...]) -> tuple[bytes, bytes]:
    """Content and its `.mtorrent`, which is announced in both dialects."""
    data = random.Random(name).randbytes(3 * PIECE_BYTES + 5)
    return data, mtorrent_of(name, data, PIECE_BYTES, tiers=tiers)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    place = tmp_path_factory.mktemp("fair")
    seeder_port = 0

    def answer(seen: Seen) -> bytes:
        if seen.dialect == "microtorr":
            return http(b'{"IdHash":"00","Peers":{}}', "200 OK", CLOSE)
        port = seeder_port.to_bytes(2, "big")
        return http(b"d8:intervali600e5:peers6:\x7f\0\0\x01%be" % port, "200 OK", CLOSE)

    with ExitStack() as stack:
        good = stack.enter_context(closing(FakeTracker(answer)))
        behaviours: dict[str, Behave | None] = {name: behave for name, (behave, _) in BAD.items()}
        behaviours |= ODD
        contents, raws, urls = {}, {}, {}
        for number, (name, behave) in enumerate(behaviours.items(), start=2):
            tracker = BadTracker(f"127.0.0.{number}", behave or hang)
            if behave is None:
                tracker.close()  # a port where nobody listens
            else:
                stack.callback(tracker.close)
            urls[name] = tracker.url
            contents[name], raws[name] = make(name, ((tracker.url,), (good.url,)))
        seeder = stack.enter_context(Daemon(place / "seeder", swarm__announce_as="bittorrent"))
        bounds = {"storage__piece_memory": "16 MiB", "storage__open_files": OPEN_FILES}
        daemon = stack.enter_context(Daemon(place / "daemon", **bounds))
        seeder_port = seeder.call("session.stats")["listen_port"]
        for name, raw in raws.items():
            path = place / name
            path.write_bytes(contents[name])
            seeder.call("torrent.add", metainfo=raw, seed_path=str(path))
        health = Health(daemon, spare_descriptors=OPEN_FILES)
        for raw in raws.values():
            daemon.call("torrent.add", metainfo=raw)
        end = time.monotonic() + LONGEST_S
        while time.monotonic() < end and not is_over(daemon, urls):
            gevent.sleep(0.2)
        found = states(daemon)
        rows = {name: rows_of(daemon, name, urls[name]) for name in behaviours}
        shown = mtorrctl(daemon, "trackers", "no")
        listed = mtorrctl(daemon, "trackers", "HTML", "--json")
        trouble = ""
        try:
            health.check()
        except AssertionError as error:
            trouble = str(error)
        began = time.monotonic()
        exit_code = daemon.stop()
        return Evidence(
            states=found,
            spoiled=[n for n in BAD if (daemon.save_to / n).read_bytes() != contents[n]],
            rows=rows,
            shown=shown,
            listed=listed,
            log=health.log(),
            health=trouble,
            exit_code=exit_code,
            stop_s=time.monotonic() - began,
        )


def states(daemon: Daemon) -> dict[str, str]:
    """The state of each torrent."""
    return {row["name"]: row["state"] for row in daemon.call("torrent.list")["torrents"]}


def rows_of(daemon: Daemon, name: str, url: str) -> list[dict[str, Any]]:
    """What the daemon says of this tracker of this torrent: a row a dialect."""
    rows = daemon.call("torrent.trackers", id=name)["trackers"]
    return [row for row in rows if row["url"] == url]


def is_over(daemon: Daemon, urls: dict[str, str]) -> bool:
    """All that could finish has, and each bad tracker is known as such."""
    found = states(daemon)
    return all(found[name] == "seeding" for name in BAD) and all(
        any(row["state"] == "failing" for row in rows_of(daemon, name, urls[name])) for name in BAD
    )


def test_every_torrent_finds_its_peers_all_the_same(evidence: Evidence) -> None:
    assert {name: evidence.states[name] for name in BAD} == dict.fromkeys(BAD, "seeding")
    assert evidence.spoiled == []


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_told(evidence: Evidence, name: str) -> None:
    """In the dialect of all trackers; the original's has answers of its own, and needs fewer."""
    rows = evidence.rows[name]
    row = next(row for row in rows if row["dialect"] == "bittorrent")
    assert BAD[name][1] in row["message"], row
    assert row["peers_received"] is None
    assert any(row["state"] == "failing" for row in rows), rows


@pytest.mark.parametrize("name", ODD)
def test_an_odd_answer_is_still_one(evidence: Evidence, name: str) -> None:
    row = next(row for row in evidence.rows[name] if row["dialect"] == "bittorrent")
    assert (row["state"], row["message"]) == ("working", "")
    assert row["interval_s"] is None or 0 < row["interval_s"] < 1 << 40
    assert (row["peers_received"] or 0) <= 1000


def test_mtorrctl_shows_the_reason(evidence: Evidence) -> None:
    shown = evidence.shown
    assert shown.returncode == 0, shown.stderr
    assert "no entry here" in shown.stdout
    assert "\x1b" not in shown.stdout and "\x07" not in shown.stdout
    assert not any(line.startswith("forged") for line in shown.stdout.splitlines())
    listed = json.loads(evidence.listed.stdout)
    assert "the reply is a web page" in {row["message"] for row in listed}
    assert len({row["url"] for row in listed}) == 2


def test_each_has_its_line_in_the_log(evidence: Evidence) -> None:
    lines = [line for line in evidence.log.splitlines() if " tracker_failed " in line]
    for name in BAD:
        told = [line for line in lines if f"torrent={name!r}" in line or f"torrent={name} " in line]
        reasons = {row["message"] for row in evidence.rows[name] if row["message"]}
        assert any(reason in line for line in told for reason in reasons), f"{name}: {told}"
        assert len(told) <= 2, f"{name}: more than one line a dialect: {told}"


def test_the_daemon_is_as_before_and_stops_in_time(evidence: Evidence) -> None:
    assert evidence.health == ""
    assert "Traceback" not in evidence.log
    assert evidence.exit_code == 0
    assert evidence.stop_s < 10
