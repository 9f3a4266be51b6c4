"""What the tests of the peer wire share: content on disk, facts, and a peer that says anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gevent
from gevent import monkey, socket
from gevent.event import Event

from microtorrd.core.events import (
    BlocksReceived,
    BlocksSent,
    Fact,
    MessagesReceived,
    PeerLeft,
    RequestsReceived,
)
from microtorrd.core.slots import Slot
from microtorrd.disk.files import DescriptorCache, FileSet
from microtorrd.disk.pool import DiskPool
from microtorrd.greenlets import Crew
from microtorrd.net.peerwire import PeerWire, WireMemory
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.messages import Message, Request
from microtorrd.proto.wire import Blocks, Messages, ReceiveMemory, Requests, Wire, encode, encode_requests
from microtorrd.rate import Limiter

F = TypeVar("F")

_Lock = monkey.get_original("_thread", "allocate_lock")

PIECE_BYTES = 65536
DEFAULT_LENGTHS = (4 * PIECE_BYTES + 1000,)
WAIT_S = 10.0


def content(length: int) -> bytes:
    """Bytes that are different everywhere."""
    return b"".join(number.to_bytes(4, "big") for number in range(length // 4 + 1))[:length]


class Facts:
    """The inbox of a torrent: what a wire posted, and waiting for it."""

    def __init__(self) -> None:
        self.all: list[Fact] = []
        self._news = Event()

    def post(self, facts: Sequence[Fact]) -> None:
        assert facts, "an empty batch"
        assert not any(isinstance(fact, PeerLeft) for fact in self.all), "a fact after the last one"
        self.all.extend(facts)
        self._news.set()

    def of(self, kind: type[F]) -> list[F]:
        return [fact for fact in self.all if isinstance(fact, kind)]

    def wait(self, until: Callable[[], Any]) -> None:
        """Until this is true, which only facts can make it."""
        with gevent.Timeout(WAIT_S):
            while not until():
                self._news.clear()
                self._news.wait()

    def left(self) -> PeerLeft:
        """How the connection ended, when it has."""
        self.wait(lambda: self.of(PeerLeft))
        return self.of(PeerLeft)[0]

    @property
    def messages(self) -> list[Message]:
        return [message for fact in self.of(MessagesReceived) for message in fact.messages]

    @property
    def requests(self) -> list[tuple[int, int, int]]:
        return [request for fact in self.of(RequestsReceived) for request in fact.requests]

    @property
    def slots(self) -> list[Slot]:
        return [slot for fact in self.of(BlocksReceived) for slot in fact.slots]

    @property
    def wasted_bytes(self) -> int:
        return sum(fact.wasted_bytes for fact in self.of(BlocksReceived))

    @property
    def sent(self) -> int:
        return sum(fact.blocks for fact in self.of(BlocksSent))


class HeardBlock:
    """A block that a stranger got."""

    def __init__(self, slot: Slot) -> None:
        self.name = (slot.piece, slot.begin, slot.length)
        self.payload = bytes(slot.view)


class Stranger:
    """The other end of a connection: says what it is told, and remembers what it hears."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.heard: list[Any] = []  # messages, requests among them, and `HeardBlock`s
        self._wire: Wire[Slot] = Wire(1, ReceiveMemory())

    def say(self, *messages: Message | bytes) -> None:
        self.sock.sendall(b"".join(each if isinstance(each, bytes) else encode(each) for each in messages))

    def ask(self, *blocks: tuple[int, int, int]) -> None:
        """Request these, and expect them."""
        slots = [Slot(*block, memoryview(bytearray(block[2]))) for block in blocks]
        self._wire.expect(slots)
        self.say(encode_requests(slots))

    def expect(self, *blocks: tuple[int, int, int]) -> None:
        """Expect blocks that nobody has to be asked for."""
        self._wire.expect([Slot(*block, memoryview(bytearray(block[2]))) for block in blocks])

    def hear(self, limit: int | None = None) -> bool:
        """Read once, waiting for something to come; False at the end of the stream."""
        try:
            n = self.sock.recvmsg_into(self._wire.receive_buffers(limit))[0]
        except ConnectionError:
            return False
        for group in self._wire.received(n) if n else ():
            if isinstance(group, Blocks):
                assert not group.wasted_bytes, "payload that was not expected"
                self.heard += [HeardBlock(slot) for slot in group.slots]
            elif isinstance(group, Requests):
                self.heard += [Request(*request) for request in group.requests]
            elif isinstance(group, Messages):
                self.heard += group.messages
        return n > 0

    def hear_until(self, until: Callable[[list[Any]], Any]) -> None:
        with gevent.Timeout(WAIT_S):
            while not until(self.heard):
                assert self.hear(), f"the end of the stream after {self.heard[-3:]}"

    @property
    def blocks(self) -> dict[tuple[int, int, int], bytes]:
        return {heard.name: heard.payload for heard in self.heard if isinstance(heard, HeardBlock)}

    @property
    def asked(self) -> list[tuple[int, int, int]]:
        return [tuple(heard) for heard in self.heard if isinstance(heard, Request)]


class ColdFiles(FileSet):
    """On a disk that has to be asked for everything."""

    def read_nowait(self, offset: int, view: memoryview) -> bool:
        return False


class HangingFiles(ColdFiles):
    """On a disk that answers only when it is let go."""

    reading = 0  # so many threads wait for it

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._gate = _Lock()
        self._gate.acquire()

    def let_go(self) -> None:
        """From now on it answers."""
        self._gate.release()

    def read_into(self, offset: int, view: memoryview) -> None:
        self.reading += 1
        with self._gate:
            super().read_into(offset, view)


class Bench:
    """Makes peer wires with strangers at their other ends; all of them read the same content."""

    def __init__(
        self, folder: Path, crew: Crew, *, lengths: Sequence[int] = DEFAULT_LENGTHS, threads: int = 1
    ) -> None:
        self.raw = content(sum(lengths))
        self.geometry = Geometry(len(self.raw), PIECE_BYTES)
        self.crew = crew
        self.pool = DiskPool(threads)
        self.descriptors = DescriptorCache(8)
        files = [((f"file{number}",), length) for number, length in enumerate(lengths)]
        self.files = FileSet(str(folder), files, descriptors=self.descriptors)
        self.files.create()
        self.files.write(0, memoryview(self.raw))
        self.memory = WireMemory()
        self.wires: list[PeerWire] = []
        self.ends: list[socket.socket] = []
        self.others: list[ColdFiles] = []

    def connect(self, *, buffers: int = 0, **options: Any) -> tuple[PeerWire, Stranger, Facts]:
        """A wire, its other end, and its facts. `buffers`: of the kernel, on both sides."""
        ours, theirs = self.sockets(buffers)
        wire, facts = self.adopt(ours, **options)
        self.ends.append(theirs)
        return wire, Stranger(theirs), facts

    def adopt(self, sock: socket.socket, *, start: bool = True, **options: Any) -> tuple[PeerWire, Facts]:
        """A wire at this end of a connection."""
        facts = Facts()
        options = {
            "up": Limiter(),
            "down": Limiter(),
            "fast": True,
            "memory": self.memory,
            "files": self.files,
            **options,
        }
        wire = PeerWire(
            sock=sock,
            peer=len(self.wires) + 1,
            geometry=self.geometry,
            post=facts.post,
            crew=self.crew,
            pool=self.pool,
            extended=True,
            **options,
        )
        self.wires.append(wire)
        if start:
            wire.start()
        return wire, facts

    def slots(self, *blocks: tuple[int, int, int]) -> list[Slot]:
        return [Slot(*block, memoryview(bytearray(block[2]))) for block in blocks]

    def payload(self, piece: int, begin: int, length: int) -> bytes:
        offset = piece * PIECE_BYTES + begin
        return self.raw[offset : offset + length]

    def all_blocks(self, size: int = 16384) -> list[tuple[int, int, int]]:
        return [
            (piece, begin, min(size, self.geometry.piece_size(piece) - begin))
            for piece in range(self.geometry.piece_count)
            for begin in range(0, self.geometry.piece_size(piece), size)
        ]

    def on_disk(self, device: int, kind: type[ColdFiles]) -> ColdFiles:
        """The same files on another disk, none of whose pages are in memory."""
        files = kind(
            self.files.root,
            list(zip(self.files.in_tree, self.files.lengths, strict=True)),
            descriptors=self.descriptors,
            root_device=device,
        )
        self.others.append(files)
        return files

    def close(self) -> None:
        for wire in self.wires:
            wire.drop("the test is over")
        for end in self.ends:
            end.close()
        self.pool.close(1)
        for files in (self.files, *self.others):
            files.close()

    def sockets(self, buffers: int) -> tuple[socket.socket, socket.socket]:
        """Both ends of a connection."""
        with socket.socket() as listening:
            if buffers:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            ours = socket.socket()
            if buffers:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
            ours.connect(listening.getsockname())
            theirs, _ = listening.accept()
        return ours, theirs
