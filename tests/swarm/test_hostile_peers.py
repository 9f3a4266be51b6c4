"""Peers that break every rule of the wire, against real daemons, from both ends of the connection.

After each of them the daemon is as it was: nobody else notices, and somebody honest is served.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

import gevent
import pytest
from gevent.pool import Pool

from bench.daemons import Daemon
from microtorrd.proto import metadata, pex
from microtorrd.proto import metainfo as metainfo_room
from microtorrd.proto.extended import DONT_HAVE_NUMBER
from mtorrctl.client import Client
from tests.metainfos import HONEST, mtorrent_of
from tests.net.trackers import FakeTracker, Seen, http
from tests.swarm import gob_peer
from tests.swarm.hostile import (
    ALLOWED_FAST,
    BITFIELD,
    CANCEL,
    CHOKE,
    EXTENDED,
    EXTENSION,
    FAST,
    HAVE,
    HAVE_ALL,
    HAVE_NONE,
    INTERESTED,
    NOT_INTERESTED,
    PATIENCE_S,
    PIECE,
    PLAIN,
    PORT,
    REJECT,
    REQUEST,
    SUGGEST,
    UNCHOKE,
    Health,
    RawPeer,
    Trap,
    frame,
    request,
    wait,
    words,
)

PIECE_BYTES = 32768
BLOCK_BYTES = 16384

#: Not a multiple of eight, so that a bitfield has spare bits; and the last piece is short.
PIECES = 67

Act = Callable[[RawPeer], object]


@dataclass(frozen=True)
class Sample:
    """Some content and its metainfo."""

    name: str
    data: bytes
    raw: bytes
    info_hash: bytes


def make_sample(name: str, tracker: str, *, pieces: int = PIECES, with_id: bool = False) -> Sample:
    """Content of so many pieces, whose torrent asks this tracker."""
    data = random.Random(name).randbytes(pieces * PIECE_BYTES - 777)
    raw = mtorrent_of(name, data, PIECE_BYTES, tiers=((tracker,),), id_hash=HONEST if with_id else None)
    return Sample(name, data, raw, metainfo_room.parse(raw).info_hash)


class Field:
    """The daemons that are attacked, an honest one, and the tracker that tells them of each other."""

    def __init__(self, place: Path, stack: ExitStack) -> None:
        self.place = place
        self.told: dict[str, list[int]] = {}  # path: ports that who asks there is told
        self.tracker = FakeTracker(self._answer)
        stack.enter_context(closing(self.tracker))
        bounds = {"storage__piece_memory": "16 MiB", "swarm__idle_timeout": 30, "swarm__request_timeout": 1}
        self.seeder = stack.enter_context(Daemon(place / "seeder", **bounds))
        self.leecher = stack.enter_context(Daemon(place / "leecher", **bounds))
        self.honest = stack.enter_context(Daemon(place / "honest"))
        self.ports = {
            daemon: int(daemon.call("session.stats")["listen_port"])
            for daemon in (self.seeder, self.leecher, self.honest)
        }
        self.seeded = self.sample("seeded")
        self.told["/seeded"] = [self.ports[self.seeder]]
        self.seed(self.seeder, self.seeded)

    def sample(self, name: str, *, pieces: int = PIECES) -> Sample:
        """Content whose torrent is announced at a path of its own."""
        self.told[f"/{name}"] = []
        return make_sample(name, f"http://127.0.0.1:{self.tracker.port}/{name}", pieces=pieces)

    def seed(self, daemon: Daemon, sample: Sample) -> None:
        """Let the daemon seed this."""
        path = self.place / f"{sample.name}.bin"
        path.write_bytes(sample.data)
        with daemon.client() as client:
            client.call("torrent.add", metainfo=sample.raw, seed_path=str(path))
            wait_for_state(client, sample, "seeding")

    def fetch(self, daemon: Daemon, sample: Sample) -> None:
        """Let the daemon have this, whole and right, and forget it again."""
        with daemon.client() as client:
            client.call("torrent.add", metainfo=sample.raw)
            self.finish(daemon, sample, client)

    def finish(self, daemon: Daemon, sample: Sample, client: Client) -> None:
        """The same for a torrent that is there already."""
        wait_for_state(client, sample, "seeding")
        assert (daemon.save_to / sample.name).read_bytes() == sample.data
        client.call("torrent.remove", id=sample.name, data=True)

    def _answer(self, seen: Seen) -> bytes:
        own = int(seen.params["port"])
        ports = [port for port in self.told.get(seen.path, []) if port != own]
        peers = b"".join(bytes((127, 0, 0, 1)) + port.to_bytes(2, "big") for port in ports)
        return http(b"d8:intervali600e5:peers%d:%be" % (len(peers), peers), "200 OK", "Connection: close")


def wait_for_state(client: Client, sample: Sample, state: str) -> None:
    """Return when the torrent is in this state."""

    def rows() -> list[dict[str, object]]:
        found: list[dict[str, object]] = client.call("torrent.list", ids=[sample.name])["torrents"]
        return found

    wait(lambda: rows()[0]["state"] == state, lambda: f"{rows()}")


#: What a child process does that has all the time in the world: connections that never get anywhere. It says
#: after how many seconds each of them was closed.
SLOW = """
import json, select, socket, sys, time
port, swarm_id, end_s = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), float(sys.argv[3])
hello = b"\\x13BitTorrent protocol" + bytes(8) + swarm_id
bodies = {
    "silent": (b"", b""),
    "drips its handshake": (b"", hello),
    "stops before its peer id": (hello, b""),
    "silent later": (hello + b"silent".rjust(20), b""),
    "drips a message": (hello + b"drips".rjust(20), bytes((0, 1, 0, 0, 20)) + bytes(1000)),
    "drips unknown ones": (hello + b"unknown".rjust(20), bytes((0, 1, 0, 0, 99)) + bytes(1000)),
}
began, open_now, closed = time.monotonic(), {}, {}
for name, (first, rest) in bodies.items():
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(first)
    open_now[sock] = [name, rest]
while open_now and time.monotonic() - began < end_s:
    readable, _, _ = select.select(list(open_now), [], [], 0.5)
    for sock in list(open_now):
        name, rest = open_now[sock]
        try:
            if sock in readable and not sock.recv(65536):
                raise ConnectionError
            sock.sendall(rest[:1])
            open_now[sock][1] = rest[1:]
        except OSError:
            closed[name] = time.monotonic() - began
            del open_now[sock]
print(json.dumps(closed))
"""

SLOW_END_S = 45.0


@dataclass
class SlowPeers:
    """The child process and where it tells its findings."""

    process: subprocess.Popen[bytes]
    output: Path


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with ExitStack() as stack:
        field = Field(tmp_path_factory.mktemp("field"), stack)
        # Once before anything is measured: what is opened or imported for the first time stays.
        field.fetch(field.honest, field.seeded)
        yield field


@pytest.fixture(scope="module", autouse=True)
def slow_peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlowPeers]:
    """They begin with the first test, against a daemon of their own, and have an end at the last one."""
    place = tmp_path_factory.mktemp("slow")
    output = place / "closed.json"
    sample = make_sample("slow", "http://127.0.0.1:1/announce", pieces=3)
    content = place / "content"
    content.write_bytes(sample.data)
    with Daemon(place / "daemon", swarm__idle_timeout=30) as daemon:
        with daemon.client() as client:
            client.call("torrent.add", metainfo=sample.raw, seed_path=str(content))
            wait_for_state(client, sample, "seeding")
            port = client.call("session.stats")["listen_port"]
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", SLOW, str(port), sample.info_hash.hex(), str(SLOW_END_S)], stdout=file
            )
        try:
            yield SlowPeers(process, output)
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in daemon.log()


@pytest.fixture
def health(field: Field) -> Iterator[Health]:
    """The seeder is as it was when a test is over, and serves."""
    wait(lambda: not connections(field.seeder), lambda: "peers of an earlier test are still connected")
    health = Health(field.seeder)
    yield health
    wait(lambda: not connections(field.seeder), lambda: f"still connected\n{health.log()[-3000:]}")
    field.fetch(field.honest, field.seeded)
    health.check()


def connections(daemon: Daemon) -> int:
    """How many peers are connected to it."""
    return int(daemon.call("session.stats")["connections"])


# -------------------------------------------------------------------------- who calls: before the handshake


STRANGERS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "another protocol name": (
        lambda swarm_id: b"\x13BitTorrent protocoL" + bytes(8) + swarm_id + bytes(20),
        "it does not speak the BitTorrent protocol",
    ),
    "another name length": (
        lambda swarm_id: b"\x14BitTorrent protocol" + bytes(8) + swarm_id + bytes(20),
        "it does not speak the BitTorrent protocol",
    ),
    "a browser": (
        lambda _: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "it does not speak the BitTorrent protocol",
    ),
    "TLS": (lambda _: b"\x16\x03\x01\x02\x00\x01\x00", "it does not speak the BitTorrent protocol"),
    "a wrong id": (
        lambda _: b"\x13BitTorrent protocol" + bytes(8) + b"no torrent has this " + bytes(20),
        "which is not here or takes no peers",
    ),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_is_sent_away_without_a_word(field: Field, health: Health, name: str) -> None:
    make, reason = STRANGERS[name]
    with RawPeer.dial(field.ports[field.seeder]) as peer:
        peer.send(make(field.seeded.info_hash))
        with pytest.raises((EOFError, ConnectionError)):
            peer.take(1)
    health.wait_for_log(reason)


def test_half_a_handshake_and_gone(field: Field, health: Health) -> None:
    port, raw = field.ports[field.seeder], b"\x13BitTorrent protocol" + bytes(8) + field.seeded.info_hash
    for size in (0, 1, 19, 47, 48, 67):
        peer = RawPeer.dial(port)
        peer.send((raw + bytes(20))[:size])
        peer.close()
        peer = RawPeer.dial(port)
        peer.send((raw + bytes(20))[:size])
        peer.reset()
    health.wait_for_log("it closed the connection during the handshake")


def test_its_own_id_comes_back_to_it(field: Field, health: Health) -> None:
    port, swarm_id = field.ports[field.seeder], field.seeded.info_hash
    with RawPeer.join(port, swarm_id, peer_id=b"a".rjust(20)) as peer:
        peer.shake(swarm_id)
    with RawPeer.dial(port) as peer:
        peer.send(b"\x13BitTorrent protocol" + bytes(8) + swarm_id)
        own_id = peer.take(68)[48:]
        peer.send(own_id)
        assert peer.is_closed()
    health.wait_for_log("it is ourselves")


# ---------------------------------------------------------------------------- who calls: after the handshake


def say(*raw: bytes) -> Act:
    """Send these bytes."""
    return lambda peer: peer.send(*raw)


BITFIELD_BYTES = (PIECES + 7) // 8
SPARE_BITS = b"\xff" * BITFIELD_BYTES
BIT_OF_FIRST = b"\x80" + bytes(BITFIELD_BYTES - 1)
HUGE = (1 << 32) - 1

#: What ends a connection at once: the peer's abilities, what it does, and the reason in the log.
FAULTS: dict[str, tuple[bytes, Act, str]] = {
    "a length of 4 GiB": (PLAIN, say(frame(99, length=HUGE)), "message 99 has 4294967295 bytes"),
    "a block of 4 GiB": (PLAIN, say(frame(PIECE, words(0, 0), length=HUGE)), "a block of 4294967286 bytes"),
    "a block just too long": (
        PLAIN,
        say(frame(PIECE, words(0, 0), length=9 + 131073)),
        "a block of 131073 bytes",
    ),
    "a block without data": (PLAIN, say(frame(PIECE, words(0, 0))), "a block of 0 bytes"),
    "a block without its place": (PLAIN, say(frame(PIECE, length=5)), "a block of -4 bytes"),
    "a long choke": (PLAIN, say(frame(CHOKE, b"x")), "message 0 has 2 bytes instead of 1"),
    "a short have": (PLAIN, say(frame(HAVE, b"xy")), "message 4 has 3 bytes instead of 5"),
    "a long request": (PLAIN, say(frame(REQUEST, bytes(13))), "message 6 has 14 bytes instead of 13"),
    "a long port": (PLAIN, say(frame(PORT, bytes(4))), "message 9 has 5 bytes instead of 3"),
    "a huge extended message": (
        EXTENDED,
        say(frame(EXTENSION, length=131073)),
        "message 20 has 131073 bytes, where at most 131072 may be",
    ),
    "an empty extended message": (EXTENDED, say(frame(EXTENSION)), "an extended message without its number"),
    "extended without the protocol": (
        FAST,
        say(frame(EXTENSION, b"\0de")),
        "an extended message without the extension protocol",
    ),
    "have of a piece beyond": (PLAIN, say(frame(HAVE, words(PIECES))), f"piece {PIECES} is outside"),
    "have of the last number": (PLAIN, say(frame(HAVE, words(HUGE))), "piece 4294967295 is outside"),
    "a suggestion beyond": (FAST, say(frame(SUGGEST, words(PIECES))), f"piece {PIECES} is outside"),
    "a gift beyond": (FAST, say(frame(ALLOWED_FAST, words(PIECES))), f"piece {PIECES} is outside"),
    "a reject that nobody needs": (
        PLAIN,
        say(frame(REJECT, words(0, 0, 1))),
        "a Reject without the fast extension",
    ),
    "have-all without fast": (PLAIN, say(frame(HAVE_ALL)), "a HaveAll without the fast extension"),
    "a bitfield with spare bits": (PLAIN, say(frame(BITFIELD, SPARE_BITS)), "spare bits"),
    "a short bitfield": (PLAIN, say(frame(BITFIELD, b"\x80")), "a bitfield of 1 bytes, where this torrent's"),
    "a long bitfield": (
        PLAIN,
        say(frame(BITFIELD, bytes(BITFIELD_BYTES + 1))),
        f"a bitfield of {BITFIELD_BYTES + 1} bytes",
    ),
    "a bitfield of 4 GiB": (PLAIN, say(frame(BITFIELD, length=HUGE)), "a bitfield of 4294967294 bytes"),
    "have-all and then none": (
        FAST,
        say(frame(HAVE_ALL), frame(HAVE_NONE)),
        "a have-none that is not the first message",
    ),
}


def unchoked(act: Act) -> Act:
    """Do this once we are served."""

    def after_unchoke(peer: RawPeer) -> None:
        peer.send(frame(INTERESTED))
        peer.wait_for(UNCHOKE)
        act(peer)

    return after_unchoke


LAST_BYTES = PIECE_BYTES - 777

FAULTS |= {
    name: (reserved, unchoked(say(request(*block))), reason)
    for reserved in (PLAIN, FAST)
    for name, block, reason in (
        (f"a request beyond the piece, {reserved[7]}", (0, PIECE_BYTES - 1, 2), "lies outside of piece 0"),
        (f"a request from its end, {reserved[7]}", (0, PIECE_BYTES, 1), "lies outside of piece 0"),
        (f"a request beyond the last, {reserved[7]}", (PIECES - 1, LAST_BYTES - 1, 2), "lies outside of"),
        (f"a request far outside, {reserved[7]}", (0, HUGE, BLOCK_BYTES), "lies outside of piece 0"),
        (f"a request of no piece, {reserved[7]}", (PIECES, 0, 1), f"piece {PIECES} is outside"),
        (f"a request of 2 GiB, {reserved[7]}", (0, 0, 1 << 31), "a block of 2147483648 bytes"),
        (f"a request of no bytes, {reserved[7]}", (0, 0, 0), "a block of 0 bytes"),
        (f"a request just too long, {reserved[7]}", (0, 0, 131073), "a block of 131073 bytes"),
    )
}

#: Extended handshakes that are none.
BOMBS = {
    "deep lists": b"l" * 10_000,
    "deep dictionaries": b"d1:m" * 4_000,
    "huge": b"d1:m" + b"131000:" + bytes(131_000) + b"e",
    "too many values": b"d1:ml" + b"i1e" * 5_000 + b"ee",
    "a string without an end": b"d1:v99999999999999999999:",
    "a negative length": b"d1:v-1:e",
    "a number without an end": b"d1:pi" + b"9" * 15_000,
    "a list": b"le",
    "no bencode": bytes(range(256)),
    "nothing": b"",
}

FAULTS |= {
    f"extended handshake: {name}": (EXTENDED, say(frame(EXTENSION, b"\0" + raw)), "its extended handshake")
    for name, raw in BOMBS.items()
}


FAULTS |= {
    "peer exchange of nonsense": (
        EXTENDED,
        say(frame(EXTENSION, b"\0d1:md6:ut_pexi3eee"), frame(EXTENSION, bytes((pex.NUMBER,)) + b"d5:added")),
        "its peer exchange",
    ),
    "a piece lost that is none": (
        EXTENDED,
        say(frame(EXTENSION, bytes((DONT_HAVE_NUMBER,)) + words(PIECES))),
        f"piece {PIECES} is outside",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_who_breaks_the_protocol_is_dropped(field: Field, name: str) -> None:
    reserved, act, reason = FAULTS[name]
    health = Health(field.seeder)
    with RawPeer.join(field.ports[field.seeder], field.seeded.info_hash, reserved=reserved) as peer:
        act(peer)
        assert peer.is_closed()
        health.wait_for_log(reason)
        assert "fault=True" in health.log()
    assert "Traceback" not in health.log()


def test_after_all_of_them_the_seeder_is_as_before(field: Field, health: Health) -> None:
    """What each of the many above leaves behind would add up here."""
    for reserved, act, _ in FAULTS.values():
        with RawPeer.join(field.ports[field.seeder], field.seeded.info_hash, reserved=reserved) as peer:
            act(peer)
            assert peer.is_closed()


#: Strange, and no reason to part: afterwards the peer is served on the same connection.
ODDITIES: dict[str, tuple[bytes, Act]] = {
    "unknown numbers": (
        PLAIN,
        say(*(frame(number, bytes(number)) for number in range(21, 256)), frame(10), frame(11), frame(12)),
    ),
    "an unknown message before the bitfield": (
        PLAIN,
        say(frame(99, bytes(9)), frame(BITFIELD, BIT_OF_FIRST)),
    ),
    # aria2 sends one in place of many haves.
    "a bitfield twice": (PLAIN, say(2 * frame(BITFIELD, BIT_OF_FIRST))),
    "a bitfield after a have": (PLAIN, say(frame(HAVE, words(1)), frame(BITFIELD, BIT_OF_FIRST))),
    "unknown extended messages": (
        EXTENDED,
        say(*(frame(EXTENSION, bytes((n,))) for n in range(16, 256))),
    ),
    "an extended handshake of nonsense": (
        EXTENDED,
        say(
            frame(
                EXTENSION,
                b"\0d1:mi1e1:pi-1e4:reqqi0e11:upload_onlyi99e1:vle6:yourip3:abc13:metadata_sizei-5ee",
            )
        ),
    ),
    "numbers out of range in it": (
        EXTENDED,
        say(frame(EXTENSION, b"\0d1:md1:ai999e1:bi-1ee1:pi99999e4:reqqi99999999999ee")),
    ),
    "data that nobody asked for": (PLAIN, say(50 * frame(PIECE, words(3, 0) + bytes(BLOCK_BYTES)))),
    "data of a place that is none": (PLAIN, say(50 * frame(PIECE, words(HUGE, HUGE) + bytes(1000)))),
    "cancels of what was never asked": (PLAIN, say(50 * frame(CANCEL, words(1, 0, BLOCK_BYTES)))),
    "cancels of nonsense": (PLAIN, say(50 * frame(CANCEL, words(HUGE, HUGE, HUGE)))),
    "a request before it may": (PLAIN, say(50 * request(1, 0, BLOCK_BYTES))),
}


@pytest.mark.parametrize("name", ODDITIES)
def test_who_is_only_odd_is_served_all_the_same(field: Field, name: str) -> None:
    reserved, act = ODDITIES[name]
    health = Health(field.seeder)
    with RawPeer.join(field.ports[field.seeder], field.seeded.info_hash, reserved=reserved) as peer:
        act(peer)
        peer.send(frame(INTERESTED))
        peer.wait_for(UNCHOKE)
        peer.send(request(5, 100, 1000))
        at = 5 * PIECE_BYTES + 100
        assert peer.wait_for(PIECE)[1] == words(5, 100) + field.seeded.data[at : at + 1000]
    assert "Traceback" not in health.log()


# --------------------------------------------------------------------------------------- who calls: too much


FEW = 4096

FLOODS: dict[str, tuple[bytes, bytes]] = {
    "keep-alives": (PLAIN, FEW * bytes(4)),
    "haves": (PLAIN, FEW * frame(HAVE, words(1))),
    "unknown messages": (PLAIN, FEW * frame(99)),
    "bitfields": (PLAIN, 100 * frame(BITFIELD, BIT_OF_FIRST)),
    "unknown extended messages": (EXTENDED, FEW * frame(EXTENSION, b"\x07")),
    "extended handshakes": (EXTENDED, FEW * frame(EXTENSION, b"\0d1:v3:abce")),
    "big extended handshakes": (
        EXTENDED,
        16 * frame(EXTENSION, b"\0d1:md" + b"".join(b"4:k%03di1e" % at for at in range(240)) + b"ee"),
    ),
    "small extended handshakes": (EXTENDED, FEW * frame(EXTENSION, b"\0de")),
    "interest": (PLAIN, FEW * (frame(INTERESTED) + frame(NOT_INTERESTED))),
    "chokes": (PLAIN, FEW * (frame(CHOKE) + frame(UNCHOKE))),
    "suggestions": (FAST, FEW * frame(SUGGEST, words(1))),
    "requests for metadata": (
        EXTENDED,
        frame(EXTENSION, b"\0d1:md11:ut_metadatai3eee")
        + FEW * frame(EXTENSION, bytes((metadata.NUMBER,)) + b"d8:msg_typei0e5:piecei0ee"),
    ),
    "peer exchange": (
        EXTENDED,
        frame(EXTENSION, b"\0d1:md6:ut_pexi3eee")
        + FEW * frame(EXTENSION, bytes((pex.NUMBER,)) + b"d5:added60:" + 10 * b"\x0a\1\2\3\4\5" + b"e"),
    ),
    "ports": (PLAIN, FEW * frame(PORT, b"ab")),
    "cancels": (PLAIN, FEW * frame(CANCEL, words(1, 0, 1))),
    "rejects": (FAST, FEW * frame(REJECT, words(1, 0, 1))),
    "small data": (PLAIN, FEW * frame(PIECE, words(1, 0) + b"x")),
    "requests and cancels": (
        FAST,
        frame(INTERESTED) + FEW * (request(1, 0, BLOCK_BYTES) + frame(CANCEL, words(1, 0, BLOCK_BYTES))),
    ),
    "the same request": (FAST, frame(INTERESTED) + FEW * request(1, 0, 1)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_cut_off(field: Field, health: Health, name: str) -> None:
    reserved, chunk = FLOODS[name]
    with RawPeer.join(field.ports[field.seeder], field.seeded.info_hash, reserved=reserved) as peer:
        assert peer.flood(chunk), f"never dropped\n{health.log()[-2000:]}"


def test_ten_thousand_requests_at_once_are_answered_each(field: Field, health: Health) -> None:
    blocks = [(n % (PIECES - 1), n // (PIECES - 1) * 16, 16) for n in range(10_000)]
    with RawPeer.join(field.ports[field.seeder], field.seeded.info_hash, reserved=FAST) as peer:
        peer.send(frame(INTERESTED))
        peer.wait_for(UNCHOKE)
        sending = gevent.spawn(peer.send, b"".join(request(*block) for block in blocks))
        answers = [peer.wait_for(PIECE, REJECT) for _ in blocks]
        sending.get()
    served = [body for number, body in answers if number == PIECE]
    assert len(served) >= 1000
    named = {tuple(int.from_bytes(body[at : at + 4], "big") for at in (0, 4)) for _, body in answers}
    assert named == {block[:2] for block in blocks}


def test_ten_thousand_requests_of_one_who_cannot_be_refused(field: Field, health: Health) -> None:
    blocks = [(n % (PIECES - 1), n // (PIECES - 1) * 16, 16) for n in range(10_000)]
    with RawPeer.join(field.ports[field.seeder], field.seeded.info_hash) as peer:
        peer.send(frame(INTERESTED))
        peer.wait_for(UNCHOKE)
        assert peer.flood(b"".join(request(*block) for block in blocks))
    health.wait_for_log("requests at a time")


def test_many_who_ask_and_never_read(field: Field, health: Health) -> None:
    """Each asks for 32 MiB and takes nothing; in the slot that is left somebody honest is served."""
    blocks = [(n % (PIECES - 1), 0, BLOCK_BYTES) for n in range(PIECES - 1)]
    blocks += [(piece, BLOCK_BYTES, BLOCK_BYTES) for piece, _, _ in blocks]
    with ExitStack() as stack:
        for _ in range(7):
            peer = RawPeer.join(field.ports[field.seeder], field.seeded.info_hash, reserved=FAST)
            stack.enter_context(peer)
            peer.send(frame(INTERESTED), *(request(*block) for block in blocks * 15))
        field.fetch(field.honest, field.seeded)
        assert connections(field.seeder) >= 7


def test_who_never_reads_its_rejects_is_dropped(field: Field, health: Health) -> None:
    """Refusals are ours, and would pile up."""
    with RawPeer.join(field.ports[field.seeder], field.seeded.info_hash, reserved=FAST) as peer:
        assert peer.flood(FEW * request(1, 0, 1))


@pytest.mark.parametrize("size", [1, 4, 5, 12, 13, 9000])
def test_half_a_message_and_gone(field: Field, size: int) -> None:
    health = Health(field.seeder)
    raw = frame(PIECE, words(0, 0) + bytes(BLOCK_BYTES))[:size]
    for end in (RawPeer.close, RawPeer.reset):
        peer = RawPeer.join(field.ports[field.seeder], field.seeded.info_hash)
        peer.send(raw)
        end(peer)
    wait(lambda: not connections(field.seeder), lambda: health.log()[-2000:])
    assert "Traceback" not in health.log()


def test_three_hundred_at_once(field: Field, health: Health) -> None:
    """Strangers that say nothing, and then as many peers whose handshake is done."""
    port = field.ports[field.seeder]
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(RawPeer.dial(port))
        health.wait_for_log("too many unfinished handshakes of this host")
    with ExitStack() as stack:
        for number in range(300):
            peer = RawPeer.dial(port)
            stack.enter_context(peer)
            peer.shake(field.seeded.info_hash, peer_id=str(number).encode().rjust(20))
        health.wait_for_log("this torrent has as many peers as it may have")
        assert len(field.seeder.call("torrent.peers", id="seeded")["peers"]) == 100


def test_one_host_cannot_keep_others_out(field: Field, health: Health) -> None:
    with ExitStack() as stack:
        for number in range(120):
            peer = RawPeer.dial(field.ports[field.seeder], source="127.0.0.2")
            stack.enter_context(peer)
            peer.shake(field.seeded.info_hash, peer_id=str(number).encode().rjust(20))
            peer.take(68)
        assert len(field.seeder.call("torrent.peers", id="seeded")["peers"]) == 100
        field.fetch(field.honest, field.seeded)
        health.wait_for_log("its host has many connections, and others want a place")
        assert connections(field.seeder) >= 99


# ------------------------------------------------------------------------------------------- bent words


def bend(raw: bytes, chance: random.Random) -> bytes:
    """The bytes with a few of them changed, left out or added."""
    bent = bytearray(raw)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at = chance.randrange(len(bent))
        how = chance.randrange(4)
        if how == 0:
            bent[at] = chance.choice((0, 1, 127, 128, 248, 255))
        elif how == 1:
            bent[at] ^= 1 << chance.randrange(8)
        elif how == 2:
            del bent[at : at + chance.randrange(1, 9)]
        else:
            bent[at:at] = chance.randbytes(chance.randrange(1, 9))
        bent = bent or bytearray(1)
    return bytes(bent)


def say_all(port: int, streams: list[bytes]) -> None:
    """Each of these on a connection of its own, some at a time, and a moment for the answer."""

    def converse(stream: bytes) -> None:
        with RawPeer.dial(port) as peer:
            try:
                peer.send(stream)
                peer.is_closed(0.1)
            except OSError:
                return  # it had heard enough

    talkers = Pool(16)
    talkers.map(converse, streams)


def test_messages_bent_in_every_way(field: Field, health: Health) -> None:
    chance = random.Random(11)
    swarm_id = field.seeded.info_hash
    words_of_a_peer = b"".join(
        (
            frame(EXTENSION, b"\0d1:md11:ut_metadatai3ee1:pi6881e4:reqqi250e1:v4:teste"),
            frame(BITFIELD, BIT_OF_FIRST),
            frame(INTERESTED),
            *(request(piece, 0, BLOCK_BYTES) for piece in range(8)),
            frame(CANCEL, words(1, 0, BLOCK_BYTES)),
            frame(HAVE, words(3)),
            frame(UNCHOKE),
            frame(PIECE, words(1, 0) + bytes(100)),
            frame(SUGGEST, words(4)),
            frame(EXTENSION, b"\1d8:msg_typei0e5:piecei0ee"),
            frame(CHOKE),
        )
    )
    hello = b"\x13BitTorrent protocol" + EXTENDED + swarm_id
    streams = [hello + b"%020d" % n + bend(words_of_a_peer, chance) for n in range(150)]
    streams += [bend(hello + b"%020d" % n + words_of_a_peer, chance) for n in range(150, 200)]
    say_all(field.ports[field.seeder], streams)


def test_the_originals_words_bent_in_every_way(field: Field, health: Health) -> None:
    chance = random.Random(12)
    sample = make_sample("gob", "http://127.0.0.1:1/", pieces=5, with_id=True)
    field.seed(field.seeder, sample)
    id_hash = sha1(sample.data).hexdigest().encode()
    value = b"\xff\x82\x01\x0bMICROTORRv1\x01\x28" + id_hash + b"\x01\x14"
    streams = []
    for number in range(200):
        hello = gob_peer.HANDSHAKE_TYPE + gob_peer.frame(value + b"%020d" % number + b"\0")
        rest = gob_peer.LEECHER[136 : 136 + chance.choice((200, 2000, 20_000))]
        streams.append(hello + bend(rest, chance) if number % 4 else bend(hello + rest, chance))
    say_all(field.ports[field.seeder], streams)
    field.seeder.call("torrent.remove", id="gob")


# --------------------------------------------------------------------------------- whom the daemon calls


LAIR_PIECES = 21
ALL_OF_LAIR = b"\xff\xff\xf8"

#: Longer than the daemon waits for an answer to its requests.
QUIET_S = 1.5


@dataclass
class Lair:
    """Where the leecher is led: to a trap first, and to somebody honest when the trap has done its worst."""

    field: Field
    sample: Sample
    health: Health

    def lead(self, act: Act) -> Trap:
        """Let the leecher call a peer that does this."""
        trap = Trap(act)
        self.field.told[f"/{self.sample.name}"] = [trap.port]
        self.field.leecher.call("torrent.add", metainfo=self.sample.raw)
        with gevent.Timeout(PATIENCE_S):
            trap.sprung.wait()
        return trap

    def rescue(self) -> None:
        """Somebody honest calls the leecher; it finishes, and is as before."""
        self.field.told[f"/{self.sample.name}"] = [self.field.ports[self.field.leecher]]
        self.field.seed(self.field.honest, self.sample)
        with self.field.leecher.client() as client:
            self.field.finish(self.field.leecher, self.sample, client)
        self.field.honest.call("torrent.remove", id=self.sample.name)
        self.health.check()


@pytest.fixture
def lair(field: Field, request: pytest.FixtureRequest) -> Iterator[Lair]:
    wait(lambda: not connections(field.leecher), lambda: "peers of an earlier test are still connected")
    name = f"lair-{sha1(request.node.name.encode()).hexdigest()[:12]}"
    sample = field.sample(name, pieces=LAIR_PIECES)
    yield Lair(field, sample, Health(field.leecher))
    for daemon in (field.leecher, field.honest):
        if any(row["name"] == name for row in daemon.call("torrent.list")["torrents"]):
            daemon.call("torrent.remove", id=name, data=daemon is field.leecher)


def shaken(act: Callable[[RawPeer, bytes], object], *, reserved: bytes = FAST) -> Callable[[bytes], Act]:
    """Shake hands with who calls, then do this."""

    def make(swarm_id: bytes) -> Act:
        def behave(peer: RawPeer) -> None:
            peer.take(68)
            peer.shake(swarm_id, reserved=reserved, peer_id=b"-XX0000-hostile peer")
            act(peer, swarm_id)

        return behave

    return make


def serve(answer: Callable[[int, int, int], list[bytes]]) -> Callable[[RawPeer, bytes], None]:
    """Say that we have all, and answer each request with these frames, until no more come."""

    def act(peer: RawPeer, _: bytes) -> None:
        peer.send(frame(BITFIELD, ALL_OF_LAIR), frame(UNCHOKE))
        peer.sock.settimeout(QUIET_S)
        end = time.monotonic() + 3 * QUIET_S
        while time.monotonic() < end:
            _, body = peer.wait_for(REQUEST)
            block = [int.from_bytes(body[at : at + 4], "big") for at in (0, 4, 8)]
            peer.send(*answer(block[0], block[1], block[2]))

    return act


def nothing(peer: RawPeer, _: bytes) -> None:
    """Be connected, and no more."""
    peer.is_closed(QUIET_S)


def promise_and_wait(peer: RawPeer, _: bytes) -> None:
    """Offer everything, take requests, send nothing."""
    peer.send(frame(HAVE_ALL), frame(UNCHOKE))
    for _ in range(4):
        peer.wait_for(REQUEST)
    gevent.sleep(QUIET_S)


def stop_half_way(peer: RawPeer, _: bytes) -> None:
    """Begin a block, and be gone."""
    peer.send(frame(HAVE_ALL), frame(UNCHOKE))
    _, body = peer.wait_for(REQUEST)
    peer.send(frame(PIECE, body[:8] + bytes(5000), length=9 + BLOCK_BYTES))


def stall_half_way(peer: RawPeer, swarm_id: bytes) -> None:
    """Begin a block, and stay."""
    stop_half_way(peer, swarm_id)
    gevent.sleep(QUIET_S)


def toggle(peer: RawPeer, _: bytes) -> None:
    """Be of two minds, with requests under way."""
    peer.send(frame(HAVE_ALL))
    assert peer.flood(20 * (frame(UNCHOKE) + frame(CHOKE)))


def flood_haves(peer: RawPeer, _: bytes) -> None:
    """Tell the same news for ever."""
    assert peer.flood(FEW * frame(HAVE, words(1)))


CALLED: dict[str, Callable[[bytes], Act]] = {
    "closes at once": lambda _: lambda peer: None,
    "closes after the handshake": shaken(lambda peer, _: None),
    "another protocol": lambda _: lambda peer: peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "another id": lambda _: lambda peer: (peer.shake(bytes(20)), peer.is_closed()),
    "half a handshake": lambda swarm_id: lambda peer: peer.send(b"\x13BitTorrent protocol" + bytes(5)),
    "nothing after the handshake": shaken(nothing),
    "a bad bitfield": shaken(lambda peer, _: (peer.send(frame(BITFIELD, b"\xff\xff\xff")), peer.is_closed())),
    "an endless length": shaken(lambda peer, _: (peer.send(frame(99, length=HUGE)), peer.is_closed())),
    "nothing for requests": shaken(promise_and_wait),
    "half a block and gone": shaken(stop_half_way),
    "half a block and silence": shaken(stall_half_way),
    "two minds": shaken(toggle),
    "endless haves": shaken(flood_haves),
    "rejects": shaken(serve(lambda *block: [frame(REJECT, words(*block))])),
    "rejects of nonsense": shaken(serve(lambda *_: [frame(REJECT, words(HUGE, HUGE, HUGE))])),
    "blocks of other places": shaken(
        serve(lambda piece, begin, size: [frame(PIECE, words(piece, begin + 1) + bytes(size))])
    ),
    "blocks that are too short": shaken(
        serve(lambda piece, begin, size: [frame(PIECE, words(piece, begin) + bytes(size - 1))])
    ),
    "blocks of pieces that are none": shaken(
        serve(lambda piece, begin, size: [frame(PIECE, words(HUGE, begin) + bytes(size))])
    ),
    "a choke for each request": shaken(serve(lambda *_: [frame(CHOKE), frame(UNCHOKE)]), reserved=PLAIN),
}


@pytest.mark.parametrize("name", CALLED)
def test_who_is_called_and_misbehaves_stops_no_download(lair: Lair, name: str) -> None:
    with lair.lead(CALLED[name](lair.sample.info_hash)):
        lair.rescue()


def test_a_liar_is_banned_and_the_content_comes_out_right(lair: Lair) -> None:
    lie = serve(lambda piece, begin, size: [frame(PIECE, words(piece, begin) + os.urandom(size))])
    with lair.lead(shaken(lie)(lair.sample.info_hash)) as trap:
        lair.health.wait_for_log("corrupt pieces")
        rows = lair.field.leecher.call("torrent.list", ids=[lair.sample.name])["torrents"]
        assert rows[0]["done_bytes"] == 0
        # It comes again, and is known.
        calls = trap.calls
        with RawPeer.join(
            lair.field.ports[lair.field.leecher],
            lair.sample.info_hash,
            reserved=FAST,
            peer_id=b"-XX0000-hostile peer",
        ) as again:
            assert again.is_closed()
        lair.health.wait_for_log("it is banned")
        lair.rescue()
        assert trap.calls == calls


def test_a_liar_beside_somebody_honest(lair: Lair) -> None:
    """Both are asked at the same time, so pieces are made of blocks of both: the liar alone is blamed."""
    data = lair.sample.data

    def half_true(piece: int, begin: int, size: int) -> list[bytes]:
        at = piece * PIECE_BYTES + begin
        raw = data[at : at + size]
        return [frame(PIECE, words(piece, begin) + (raw if piece % 2 else bytes(size)))]

    field = lair.field
    field.seed(field.honest, lair.sample)
    trap = Trap(shaken(serve(half_true))(lair.sample.info_hash))
    with trap:
        field.told[f"/{lair.sample.name}"] = [trap.port, field.ports[field.honest]]
        with field.leecher.client() as client:
            client.call("torrent.add", metainfo=lair.sample.raw)
            field.finish(field.leecher, lair.sample, client)
    field.honest.call("torrent.remove", id=lair.sample.name)
    assert f"peer_banned host={'127.0.0.1'}" not in lair.health.log()
    lair.health.check()


def test_a_piece_that_is_not_there_is_not_served(lair: Lair) -> None:
    field, swarm_id, port = lair.field, lair.sample.info_hash, lair.field.ports[lair.field.leecher]
    field.leecher.call("torrent.add", metainfo=lair.sample.raw)
    with field.leecher.client() as client:
        wait_for_state(client, lair.sample, "downloading")
    with RawPeer.join(port, swarm_id, reserved=FAST) as peer:
        peer.send(frame(INTERESTED))
        peer.wait_for(UNCHOKE)
        peer.send(request(3, 0, 100))
        assert peer.wait_for(PIECE, REJECT) == (REJECT, words(3, 0, 100))
    with RawPeer.join(port, swarm_id) as peer:
        peer.send(frame(INTERESTED))
        peer.wait_for(UNCHOKE)
        peer.send(request(3, 0, 100))
        assert peer.is_closed()
    lair.health.wait_for_log("a request for piece 3, which we do not have")
    lair.rescue()


# ------------------------------------------------------------------------------------------- all the time


def test_who_is_slow_is_not_waited_for(slow_peers: SlowPeers) -> None:
    """The last test: it waits for what has been going on beside all others."""
    began = time.monotonic()
    slow_peers.process.wait(SLOW_END_S + PATIENCE_S)
    closed = json.loads(slow_peers.output.read_text())
    before = ("silent", "drips its handshake", "stops before its peer id")
    after = ("silent later", "drips a message", "drips unknown ones")
    assert sorted(closed) == sorted((*before, *after)), f"after {time.monotonic() - began:.0f} s more"
    assert all(14 < closed[name] < 20 for name in before), closed
    assert all(29 < closed[name] < 38 for name in after), closed
