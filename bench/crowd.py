"""Many leechers in one process, as cheap as can be.

    python -m bench.crowd PORT INFO_HASH PIECES PIECE_LENGTH

They speak just enough of the BitTorrent wire (BEP 3) to be served: each greets, is interested, keeps the same
number of requests under way, counts what comes and forgets it. Nothing is hashed or kept, so nearly all of
the machine is left to the seeder. It obeys its standard input: a line `COUNT REQUESTS SECONDS` connects so
many leechers with so many requests under way each, waits until all were served once, lets them run for so
long, prints how many payload bytes came, how many leechers were served, in how many seconds, and disconnects
them.

With 0 requests they are peers at rest: they are interested, say that they have nothing, exchange addresses
(BEP 11) and are told whatever peers are told, and ask for nothing.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from typing import NamedTuple

BLOCK = 16 << 10
HEAD = struct.Struct(">IB")
REQUEST = struct.Struct(">IBIII")
INTERESTED = HEAD.pack(1, 2)
UNCHOKE, PIECE = 1, 7
#: What a peer at rest says first: no pieces (BEP 6), and its extended handshake (BEP 10).
EXTENSIONS = bytes((0, 0, 0, 0, 0, 0x10, 0, 0x04))
HAVE_NONE = HEAD.pack(1, 15)
WORDS = b"d1:md6:ut_pexi1ee1:pi%de4:reqqi500ee"
BUFFER = bytearray(1 << 20)
#: How long all may take to be served for the first time.
BEGIN_S = 60.0


class Content(NamedTuple):
    """What they fetch."""

    info_hash: bytes
    pieces: int
    piece_length: int


class Leecher:
    """One connection. It takes its blocks in their order, from a piece of its own onwards."""

    __slots__ = ("_content", "_head", "_left", "_next", "_under_way", "payload_bytes", "sock")

    def __init__(self, number: int, port: int, content: Content, under_way: int) -> None:
        self._content = content
        self._under_way = under_way
        self._next = number * 7919 % content.pieces * (content.piece_length // BLOCK)
        #: Of the message that is coming in: what is still to come, or the beginning of its head.
        self._left = 0
        self._head = b""
        self.payload_bytes = 0
        self.sock = socket.socket()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Each from an address of its own: peers of one address may count as one.
        self.sock.bind((f"127.1.{number // 250}.{number % 250 + 1}", 0))
        self.sock.connect(("127.0.0.1", port))
        rests = not under_way
        reserved = EXTENSIONS if rests else bytes(8)
        greeting = b"\x13BitTorrent protocol" + reserved + content.info_hash + b"-XX0000-" + os.urandom(12)
        self.sock.sendall(
            greeting + (_first_words(self.sock.getsockname()[1]) if rests else b"") + INTERESTED
        )
        answer = self.sock.recv(68, socket.MSG_WAITALL)
        if answer[28:48] != content.info_hash:
            raise RuntimeError(f"leecher {number} was not greeted: {answer!r}")
        self.sock.setblocking(False)

    def receive(self) -> None:
        """Take what has come, and ask for as many blocks as arrived. ConnectionError at its end."""
        try:
            count = self.sock.recv_into(BUFFER)
        except BlockingIOError:
            return
        if not count:
            raise ConnectionError("the seeder hung up")
        wanted, at = 0, min(self._left, count)
        self._left -= at
        while at < count:
            head = self._head + BUFFER[at : min(at + HEAD.size - len(self._head), count)]
            at += len(head) - len(self._head)
            if head[:4] == bytes(4):  # a keep-alive is a length and nothing else
                at -= len(head) - 4
                self._head = b""
                continue
            if len(head) < HEAD.size:
                self._head = head
                break
            self._head = b""
            length, kind = HEAD.unpack(head)
            skipped = min(length - 1, count - at)
            self._left = length - 1 - skipped
            at += skipped
            if kind == PIECE:
                wanted += 1
                self.payload_bytes += length - 9
            elif kind == UNCHOKE:
                wanted += self._under_way
        if wanted:
            self._ask(wanted)

    def _ask(self, count: int) -> None:
        per_piece = self._content.piece_length // BLOCK
        total = self._content.pieces * per_piece
        requests = []
        for number in range(self._next, self._next + count):
            piece, block = divmod(number % total, per_piece)
            requests.append(REQUEST.pack(13, 6, piece, block * BLOCK, BLOCK))
        self._next += count
        # Blocks are asked for with a thousandth of their bytes: it always fits into the socket's buffer.
        self.sock.sendall(b"".join(requests))


def _first_words(port: int) -> bytes:
    words = WORDS % port
    return HAVE_NONE + HEAD.pack(2 + len(words), 20) + b"\0" + words


def run(leechers: list[Leecher], under_way: int, seconds: float) -> tuple[int, int, float]:
    """Payload bytes that came, leechers that were served meanwhile, and how long it took."""
    with select.epoll() as poll:
        by_number = {leecher.sock.fileno(): leecher for leecher in leechers}
        for number in by_number:
            poll.register(number, select.EPOLLIN)

        def turn() -> None:
            for number, _ in poll.poll(1.0):
                by_number[number].receive()

        give_up = time.perf_counter() + (BEGIN_S if under_way else 0.0)
        while time.perf_counter() < give_up and not all(leecher.payload_bytes for leecher in leechers):
            turn()
        before = {leecher: leecher.payload_bytes for leecher in leechers}
        began = time.perf_counter()
        while time.perf_counter() < began + seconds:
            turn()
        took_s = time.perf_counter() - began
        gains = [leecher.payload_bytes - before[leecher] for leecher in leechers]
    return sum(gains), sum(1 for gain in gains if gain), took_s


def main(port: str, info_hash: str, pieces: str, piece_length: str) -> None:
    """Obey until standard input ends."""
    content = Content(bytes.fromhex(info_hash), int(pieces), int(piece_length))
    for line in sys.stdin:
        count, under_way, seconds = line.split()
        leechers = [Leecher(number, int(port), content, int(under_way)) for number in range(int(count))]
        print(*run(leechers, int(under_way), float(seconds)), flush=True)
        for leecher in leechers:
            leecher.sock.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
