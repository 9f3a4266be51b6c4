"""How fast one peer wire feeds another: two processes, loopback, a file on /dev/shm.

    python -m bench.wire [--mib 512] [--piece-kib 1024] [--block-kib 16] [--in-flight-mib 8] [--no-hash]

The leecher asks for whole pieces, has each hashed and written by the disk threads, and prints MB/s and the
CPU seconds a GiB of both sides, user and system. It stands in for the core with the least there can be of
one: what the daemon needs beyond this is its core's.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import argparse
import hashlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from gevent.event import Event

from microtorrd.core.events import BlocksReceived, Fact, PeerLeft, RequestsReceived
from microtorrd.core.slots import Slot
from microtorrd.disk.files import DescriptorCache, FileSet
from microtorrd.disk.pool import DiskPool
from microtorrd.greenlets import Crew
from microtorrd.net.peerwire import PeerWire, WireMemory
from microtorrd.net.stream import tune
from microtorrd.proto.geometry import Geometry
from microtorrd.rate import Limiter


class Side:
    """What both sides have: a wire, and a greenlet that handles its facts in batches, as a torrent does."""

    def __init__(self, sock: socket.socket, options: argparse.Namespace, path: Path) -> None:
        self.geometry = Geometry(options.mib << 20, options.piece_kib << 10)
        self.files = FileSet(
            str(path.parent), [((path.name,), self.geometry.length)], descriptors=DescriptorCache(8)
        )
        self.pool = DiskPool(2)
        self.crew = Crew("bench")
        self.inbox: list[Fact] = []
        self.news = Event()
        self.wire = PeerWire(
            sock=sock,
            peer=1,
            geometry=self.geometry,
            post=self.post,
            crew=self.crew,
            files=self.files,
            pool=self.pool,
            up=Limiter(),
            down=Limiter(),
            fast=True,
            extended=True,
            memory=WireMemory(),
        )

    def post(self, facts: Sequence[Fact]) -> None:
        self.inbox.extend(facts)
        self.news.set()

    def run(self) -> None:
        self.wire.start()
        while True:
            self.news.wait()
            self.news.clear()
            facts, self.inbox = self.inbox, []
            for fact in facts:
                if isinstance(fact, PeerLeft):
                    return
                self.handle(fact)

    def handle(self, fact: Fact) -> None:
        raise NotImplementedError


class Seeder(Side):
    def handle(self, fact: Fact) -> None:
        if isinstance(fact, RequestsReceived):
            admit = self.geometry.admit_request
            self.wire.serve([admit(*request) for request in fact.requests])


class Leecher(Side):
    def __init__(self, sock: socket.socket, options: argparse.Namespace, path: Path) -> None:
        super().__init__(sock, options, path)
        self.options = options
        self.files.create("sparse")
        self.todo = deque(range(self.geometry.piece_count))
        self.missing: dict[int, int] = {}
        self.buffers: dict[int, memoryview] = {}
        self.free: list[memoryview] = []
        self.in_flight = 0
        self.stored = 0
        self.digests: dict[int, bytes] = {}

    def fill(self) -> None:
        size = self.geometry.piece_length
        block = self.options.block_kib << 10
        while self.todo and self.in_flight < self.options.in_flight_mib << 20:
            piece = self.todo.popleft()
            view = self.buffers[piece] = self.free.pop() if self.free else memoryview(bytearray(size))
            slots = [
                Slot(piece, begin, block, view[begin : begin + block]) for begin in range(0, size, block)
            ]
            self.missing[piece] = len(slots)
            self.in_flight += size
            self.wire.fetch(slots)

    def handle(self, fact: Fact) -> None:
        if not isinstance(fact, BlocksReceived):
            return
        missing = self.missing
        for slot in fact.slots:
            self.in_flight -= slot.length
            missing[slot.piece] -= 1
            if not missing[slot.piece]:
                self.store(slot.piece)
        self.fill()

    def store(self, piece: int) -> None:
        view = self.buffers.pop(piece)

        def work() -> bytes:
            digest = b"" if self.options.no_hash else hashlib.sha1(view).digest()
            self.files.write(self.geometry.piece_offset(piece), view)
            return digest

        def done(result: object) -> None:
            if isinstance(result, BaseException):
                raise result
            assert isinstance(result, bytes)
            self.digests[piece] = result
            self.free.append(view)
            self.stored += 1
            if self.stored == self.geometry.piece_count:
                self.wire.drop("done")

        self.pool.submit(work, done)


def usage() -> dict[str, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"user": used.ru_utime, "system": used.ru_stime, "rss_mib": used.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--piece-kib", type=int, default=1024)
    parser.add_argument("--block-kib", type=int, default=16)
    parser.add_argument("--in-flight-mib", type=int, default=8)
    parser.add_argument("--no-hash", action="store_true")
    parser.add_argument(
        "--profile", default="", help="write cProfile's figures here, and the seeder's beside"
    )
    parser.add_argument("--seed", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)
    if options.seed:
        seed(options)
    else:
        leech(options)


def seed(options: argparse.Namespace) -> None:
    listener = socket.socket()
    tune(listener)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    print(listener.getsockname()[1], flush=True)
    sock, _ = listener.accept()
    side = Seeder(sock, options, Path(options.seed))
    before = usage()
    profiled(side.run, options.profile and options.profile + ".seed")
    after = usage()
    print(
        json.dumps(
            {key: after[key] - before[key] for key in ("user", "system")} | {"rss_mib": after["rss_mib"]}
        )
    )
    side.crew.stop(1)
    side.pool.close(1)


def leech(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        whole = hashlib.sha1()
        with source.open("wb") as file:
            for _ in range(options.mib):
                chunk = os.urandom(1 << 20)
                whole.update(chunk)
                file.write(chunk)
        arguments = [sys.executable, "-m", "bench.wire", *sys.argv[1:], "--seed", str(source)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            sock = socket.socket()
            tune(sock)
            sock.connect(("127.0.0.1", port))
            side = Leecher(sock, options, target)
            warm_up(Path(folder, "warm"), options.mib + 64)
            before, start = usage(), time.monotonic()
            side.fill()
            profiled(side.run, options.profile)
            took_s = time.monotonic() - start
            after = usage()
            seeder = json.loads(process.stdout.readline())
        side.crew.stop(1)
        side.pool.close(1)
        with target.open("rb") as file:
            assert hashlib.file_digest(file, "sha1").digest() == whole.digest(), "the copy differs"
        gib = options.mib / 1024
        leecher = {key: after[key] - before[key] for key in ("user", "system")}
        costs = [
            f"{name} {side_used['user'] / gib:.2f} + {side_used['system'] / gib:.2f}"
            for name, side_used in (("leecher", leecher), ("seeder", seeder))
        ]
        print(
            f"{(options.mib << 20) / took_s / 1e6:.0f} MB/s; CPU s/GiB: {', '.join(costs)}; "
            f"MiB: leecher {after['rss_mib']:.0f}, seeder {seeder['rss_mib']:.0f}"
        )


def warm_up(path: Path, mib: int) -> None:
    """Touch as much memory as will be written, and free it: on a virtual machine the first touch of a page
    can cost more than all the rest, and it is the host that takes that time."""
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(bytes(1 << 20))
    path.unlink()


def profiled(work: Callable[[], None], path: str) -> None:
    if not path:
        work()
        return
    import cProfile

    profile = cProfile.Profile()
    profile.runcall(work)
    profile.dump_stats(path)


if __name__ == "__main__":
    main()
