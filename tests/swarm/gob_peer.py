"""The original program as its peers and its tracker see it, with its habits: a seeder or a leecher.

It announces itself, dials everybody who is listed already and takes it badly when one of them fails; both
sides send their handshake at once. A leecher has one request under way at a time and waits for its answer for
ever. What would crash the original is an `AssertionError` in here.

Its words are put together from recorded ones, with none of our own code for gob.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from hashlib import sha1
from pathlib import Path
from typing import Any

import gevent
from gevent import socket
from gevent.event import Event
from gevent.lock import RLock

RECORDED = Path(__file__).parents[1] / "corpus" / "original"
SEEDER = (RECORDED / "s2l.bin").read_bytes()
LEECHER = (RECORDED / "l2s.bin").read_bytes()

PACKAGE = b"github.com/rafaelbarbeta/MicroTorr/pkg/messages."
HANDSHAKE_TYPE = SEEDER[:55]
MESSAGE_TYPE = SEEDER[136:167]
#: What defines a type after its number, which stands in it once more, at the `%`.
INDEX_FIELD = b"\x0aPieceIndex\x01\x04\x00"
TYPES = {
    b"Bitfield": b"\x03\x01\x01\x08Bitfield\x01%\x00\x01\x01\x01\x08Bitfield\x01\xff\x88\x00\x00\x00",
    b"Request": b"\x03\x01\x01\x07Request\x01%\x00\x01\x01\x01" + INDEX_FIELD + b"\x00\x00",
    b"Have": b"\x03\x01\x01\x04Have\x01%\x00\x01\x01\x01" + INDEX_FIELD + b"\x00\x00",
    b"Piece": b"\x03\x01\x01\x05Piece\x01%\x00\x01\x02\x01"
    + INDEX_FIELD
    + b"\x01\x04Data\x01\x0a\x00\x00\x00",
}
assert all(
    any(shape.replace(b"%", bytes([255, number])) in SEEDER + LEECHER for number in (0x86, 0x8A, 0x8C))
    for shape in TYPES.values()
)
BOOLS_TYPE = SEEDER[264:285]

WAIT_S = 60.0


def uint(number: int) -> bytes:
    if number < 128:
        return bytes([number])
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return bytes([256 - len(raw)]) + raw


def frame(body: bytes) -> bytes:
    return uint(len(body)) + body


def read_uint(raw: bytes, at: int) -> tuple[int, int]:
    if raw[at] < 128:
        return raw[at], at + 1
    end = at + 257 - raw[at]
    return int.from_bytes(raw[at + 1 : end], "big"), end


class Link:
    """One connection of it, after `greet`."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.peer_id = b""
        self.theirs: set[int] = set()
        self.ready = False  # it has sent its bitfield
        self._numbers: dict[bytes, int] = {}  # of our types
        self._next = 67
        self._lock = RLock()
        self._buffer = b""
        self._names: dict[int, bytes] = {}  # of their types
        self._name = b""

    def greet(self, id_hash: bytes, peer_id: bytes) -> None:
        value = (
            b"\xff\x82\x01\x0bMICROTORRv1\x01\x28" + id_hash.hex().encode() + b"\x01\x14" + peer_id + b"\0"
        )
        self.sock.sendall(HANDSHAKE_TYPE + frame(value))
        assert self._frame() == HANDSHAKE_TYPE[1:], "its first words are no handshake"
        value = self._frame()
        assert value[: 4 + 11 + 2] == b"\xff\x82\x01\x0bMICROTORRv1\x01\x28", value
        assert value[17:57] == id_hash.hex().encode()
        self.peer_id = value[59:79]
        assert len(self.peer_id) == 20
        self.sock.sendall(MESSAGE_TYPE)

    def say(self, kind: bytes, value: bytes) -> None:
        with self._lock:
            start = b"\xff\x84\x01" + frame(PACKAGE + kind)
            number = self._numbers.get(kind)
            raw = b""
            if number is None:
                number = self._numbers[kind] = self._next
                self._next += 2 if kind == b"Bitfield" else 1
                own = uint(2 * number)
                raw = frame(start + uint(2 * number - 1) + TYPES[kind].replace(b"%", own))
                if kind == b"Bitfield":
                    raw += BOOLS_TYPE
                start = b""
            self.sock.sendall(raw + frame(start + uint(2 * number) + frame(value) + b"\0"))

    def say_index(self, kind: bytes, piece: int) -> None:
        self.say(kind, b"\1" + uint(2 * piece) + b"\0" if piece else b"\0")

    def hear(self) -> tuple[bytes, int, bytes]:
        """The next message: its kind, its piece, its data. OSError at the end."""
        while True:
            body = self._frame()
            number, at = read_uint(body, 0)
            if not self._name and number == 66 * 2 and body[at] == 1:
                size, at = read_uint(body, at + 1)
                name = body[at : at + size]
                assert name.startswith(PACKAGE), name
                self._name = name[len(PACKAGE) :]
                number, at = read_uint(body, at + size)
            if number & 1:
                if self._name and (number >> 1) + 1 not in self._names:
                    self._names.setdefault((number + 1) // 2, self._name)
                continue
            kind, self._name = self._name, b""
            assert self._names[number // 2] == kind or kind == b"Bitfield", "the type of another message"
            size, at = read_uint(body, at)
            assert at + size + 1 == len(body)
            assert body[-1] == 0
            return self._fields(kind, body[at:-1])

    def _fields(self, kind: bytes, value: bytes) -> tuple[bytes, int, bytes]:
        if kind == b"Bitfield":
            size, at = read_uint(value, 1)
            return kind, 0, value[at : at + size]
        piece, at = 0, 1
        if value[0] == 1:
            number, at = read_uint(value, 1)
            assert not number & 1, "a piece below zero: the original would crash"
            piece = number // 2
            at += 1
        data = b""
        if kind == b"Piece":
            size, at = read_uint(value, at)
            data = value[at : at + size]
        return kind, piece, data

    def _frame(self) -> bytes:
        while True:
            if self._buffer:
                need = 1 if self._buffer[0] < 128 else 257 - self._buffer[0]
                if len(self._buffer) >= need:
                    size, at = read_uint(self._buffer, 0)
                    if len(self._buffer) >= at + size:
                        body, self._buffer = self._buffer[at : at + size], self._buffer[at + size :]
                        return body
            part = self.sock.recv(1 << 20)
            if not part:
                raise ConnectionError("the end of the stream")
            self._buffer += part


class GobPeer:
    """One run of the original's `download`; with `seed` it has all the content from the start."""

    def __init__(self, content: bytes, piece_length: int, tracker: str, *, seed: bool, name: str) -> None:
        self.pieces = [content[at : at + piece_length] for at in range(0, len(content), piece_length)]
        self.got: dict[int, bytes] = dict(enumerate(self.pieces)) if seed else {}
        self.id_hash = sha1(content).digest()
        self.peer_id = f"{name:a<20}".encode()
        self.tracker = tracker
        self.links: list[Link] = []
        self.sources: dict[bytes, int] = {}  # peer id: pieces that came from it
        self.done = Event()
        self.crash = ""
        self.garbage = 0  # connections whose handshake was none
        self.requests = 0
        self._answer: Event = Event()
        self._news = Event()
        self._chance = random.Random(name)
        self._socks: list[socket.socket] = []
        self._greenlets: list[gevent.Greenlet] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]

    # ---- its life

    def start(self) -> None:
        """Announce, dial who is there, listen, and download what is missing."""
        listed = self.announce("started")
        assert listed[self.peer_id.decode()]["Port"] == self.port
        for peer in listed.values():
            if peer["Id"].encode() != self.peer_id:
                link = self._link(socket.create_connection((peer["Ip"], peer["Port"])))
                link.greet(self.id_hash, self.peer_id)
                assert link.peer_id == peer["Id"].encode(), "another peer than the tracker said"
                self._adopt(link)
        self._spawn(self._accept_all)
        if len(self.got) < len(self.pieces):
            self._spawn(self._download)
        else:
            self.done.set()

    def stop(self) -> None:
        """Leave, as after an interrupt. AssertionError where the original would have crashed."""
        self.announce("stopped")
        gevent.killall(self._greenlets)
        self._listening.close()
        for sock in self._socks:
            sock.close()
        assert not self.crash, self.crash

    def wait(self) -> None:
        """Until it has everything."""
        assert self.done.wait(WAIT_S), f"{len(self.got)} of {len(self.pieces)} pieces: {self.crash}"

    def announce(self, event: str) -> dict[str, dict[str, Any]]:
        """Go's very bytes."""
        host = self.tracker.removeprefix("http://")
        address = host.split(":")
        request = (
            f"GET /announce?peerId={self.peer_id.decode()}&swarmId={self.id_hash.hex()}&ip=127.0.0.1"
            f"&port={self.port}&event={event} HTTP/1.1\r\nHost: {host}\r\n"
            "User-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n"
        )
        with socket.create_connection((address[0], int(address[1]))) as sock:
            sock.sendall(request.encode())
            raw = b""
            while b"\r\n\r\n" not in raw:
                raw += sock.recv(65536)
            head, _, body = raw.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            while len(body) < size:
                body += sock.recv(65536)
        if event != "started":
            return {}
        peers: dict[str, dict[str, Any]] = json.loads(body)["Peers"]
        return peers

    # ---- within

    def _spawn(self, work: Callable[..., None], *args: object) -> None:
        def run() -> None:
            try:
                work(*args)
            except AssertionError as error:
                self.crash = self.crash or f"{error!r}"
                self._news.set()

        self._greenlets.append(gevent.spawn(run))

    def _accept_all(self) -> None:
        while True:
            sock, _ = self._listening.accept()
            link = self._link(sock)
            try:
                link.greet(self.id_hash, self.peer_id)
            except (AssertionError, OSError, IndexError):
                self.garbage += 1  # it goes on, and forgets to close the socket
                continue
            self._adopt(link)

    def _link(self, sock: socket.socket) -> Link:
        self._socks.append(sock)
        return Link(sock)

    def _adopt(self, link: Link) -> None:
        assert link.peer_id not in [other.peer_id for other in self.links], "a second connection of one peer"
        self.links.append(link)
        flags = bytes(piece in self.got for piece in range(len(self.pieces)))
        link.say(b"Bitfield", b"\1" + uint(len(flags)) + flags + b"\0")
        self._spawn(self._listen_to, link)

    def _listen_to(self, link: Link) -> None:
        try:
            while True:
                kind, piece, data = link.hear()
                if kind == b"Bitfield":
                    assert len(data) == len(self.pieces)
                    link.theirs = {number for number, flag in enumerate(data) if flag}
                    link.ready = True
                    self._news.set()
                    continue
                assert piece < len(self.pieces), "a piece out of range"
                if kind == b"Have":
                    link.theirs.add(piece)
                    self._news.set()
                elif kind == b"Request":
                    assert piece in self.got, "a request for a piece that is not here"
                    self.requests += 1
                    raw = self.got[piece]
                    head = b"\1" + uint(2 * piece) + b"\1" if piece else b"\2"
                    link.say(b"Piece", head + frame(raw) + b"\0")
                elif kind == b"Piece":
                    assert not self.done.is_set(), "a piece for a seeder"
                    assert piece not in self.got, "a piece that is here already"
                    assert data == self.pieces[piece], "Piece Hash does not match!"
                    self.got[piece] = data
                    self.sources[link.peer_id] = self.sources.get(link.peer_id, 0) + 1
                    for other in self.links:
                        other.say_index(b"Have", piece)
                    self._answer.set()
        except OSError:
            self.links.remove(link)
            self._news.set()

    def _download(self) -> None:
        """One request at a time, of a piece that few have, from one of those by lot."""
        while missing := [piece for piece in range(len(self.pieces)) if piece not in self.got]:
            self._news.clear()
            owners = {piece: [link for link in self.links if piece in link.theirs] for piece in missing}
            fewest = min((len(links) for links in owners.values() if links), default=0)
            if not fewest:
                self._news.wait()
                continue
            piece = self._chance.choice([piece for piece in missing if len(owners[piece]) == fewest])
            self._answer.clear()
            self._chance.choice(owners[piece]).say_index(b"Request", piece)
            self._answer.wait()
        self.done.set()


def original_mtorrent(path: Path, content: bytes, piece_length: int, tracker: str) -> Path:
    """Write the metadata of this file as the original's `createMtorr` does."""
    hashes = "".join(
        sha1(content[at : at + piece_length]).hexdigest() for at in range(0, len(content), piece_length)
    )
    mtorrent = path.with_name(path.name + ".mtorrent")
    mtorrent.write_text(
        f"d8:Announce{len(tracker)}:{tracker}4:Infod2:Id40:{sha1(content).hexdigest()}6:Lengthi{len(content)}e"
        f"4:Name{len(path.name)}:{path.name}12:Piece_lengthi{piece_length}e7:Sha1sum{len(hashes)}:{hashes}ee"
    )
    return mtorrent
