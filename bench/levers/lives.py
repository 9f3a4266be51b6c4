"""Stages where no content moves: checks, thousands of torrents, choices, the tracker, the core by itself."""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar

from bench import core, hubwatch, idle, tracker
from bench.daemons import Daemon
from bench.levers.stages import Figure, Measure, Stage
from bench.levers.swaps import NOTHING
from bench.measure import (
    MIB,
    exact_cpu_s,
    for_rpc,
    hash_pieces,
    make_content,
    make_torrent,
    percentile,
    resident_mib,
)
from microtorrd.core import events
from microtorrd.core.events import BlocksReceived, Fetch, PieceStored, Store
from microtorrd.proto.messages import HaveAll, HaveNone, Unchoke
from microtorrd.proto.metainfo import FileEntry, build, parse
from mtorrctl.client import Client

PIECE = 4 * MIB
CHECK_S = 60.0

#: The filesystem that has no disk (statfs(2)).
IN_MEMORY = "tmpfs"


def wait_until_it_seeds(client: Client, daemon: Daemon) -> None:
    """Until a torrent does. RuntimeError when it ends otherwise."""
    while (note := client.next_note(CHECK_S)) is not None and note["state"] != "failed":
        if note["state"] == "seeding":
            return
    raise RuntimeError(f"not checked: {note}\n{daemon.log()}")


class Check(Stage):
    """A daemon that checks the same content again and again."""

    name = "check of 1 GiB"
    figures: ClassVar = {"time": Figure("time", "s")}
    size: ClassVar[int] = 1024 * MIB

    def prepare(self, stack: ExitStack) -> None:
        self.content = self.home / "payload"
        make_content(self.content, self.size)
        self.metainfo = make_torrent(self.content, PIECE, [])

    @contextmanager
    def side(self, lever: str, wanted: Set[str]) -> Iterator[Measure]:
        daemon = Daemon(self.new_place(lever), without=lever, daemon__log_level="warning")
        with daemon, daemon.client() as client:
            client.subscribe(kinds=["state_changed"])
            added = client.call("torrent.add", metainfo=for_rpc(self.metainfo), seed_path=str(self.content))
            wait_until_it_seeds(client, daemon)

            def measure() -> Mapping[str, float]:
                began = time.perf_counter()
                client.call("torrent.verify", id=added["info_hash"])
                wait_until_it_seeds(client, daemon)
                return {"time": time.perf_counter() - began}

            yield measure


class Confirm(Stage):
    """A daemon that is handed content with an `id_hash`: all is checked, and compared as a whole."""

    name = "512 MiB with an id_hash"
    figures: ClassVar = {"time": Figure("until it seeds", "s")}
    size: ClassVar[int] = 512 * MIB

    def prepare(self, stack: ExitStack) -> None:
        self.content = self.home / "payload"
        make_content(self.content, self.size)
        with self.content.open("rb") as file:
            id_hash = hashlib.file_digest(file, "sha1").digest()
        self.metainfo = build(
            name=self.content.name,
            piece_length=PIECE,
            files=[FileEntry((self.content.name,), self.size)],
            is_single_file=True,
            pieces=hash_pieces(self.content, PIECE),
            id_hash=id_hash,
            trackers=[],
        )

    @contextmanager
    def side(self, lever: str, wanted: Set[str]) -> Iterator[Measure]:
        daemon = Daemon(self.new_place(lever), without=lever, daemon__log_level="warning")
        with daemon, daemon.client() as client:
            client.subscribe(kinds=["state_changed"])

            def measure() -> Mapping[str, float]:
                began = time.perf_counter()
                added = client.call(
                    "torrent.add", metainfo=for_rpc(self.metainfo), seed_path=str(self.content)
                )
                wait_until_it_seeds(client, daemon)
                took_s = time.perf_counter() - began
                client.call("torrent.remove", id=added["info_hash"])
                return {"time": took_s}

            yield measure


class Many(Stage):
    """Starts of a daemon with many torrents that seed to nobody; their tracker does not exist."""

    name = "2,000 torrents"
    figures: ClassVar = {
        "memory": Figure("memory of one", "KiB"),
        "start-cpu": Figure("CPU of a start", "s"),
        "start-time": Figure("until all seed after a start", "s"),
        "stall": Figure("longest stall of the hub while they are loaded", "ms"),
        "list-cpu": Figure("CPU of a list of all", "ms"),
        "since": Figure("a list with `since` when nothing changed", "ms"),
    }
    rounds = 3
    warm_up_rounds = 0
    count: ClassVar[int] = 2000
    lists: ClassVar[int] = 5

    def prepare(self, stack: ExitStack) -> None:
        torrents = idle.make_many(self.home / "content", self.count, "http://127.0.0.1:1/announce")
        daemon = Daemon(self.home / "daemon", daemon__log_level="warning").start()
        stack.callback(daemon.kill)
        self.empty_mib = idle.fill(daemon, torrents, self.home / "content")

    @contextmanager
    def side(self, lever: str, wanted: Set[str]) -> Iterator[Measure]:
        yield lambda: self.life(lever)

    def life(self, lever: str) -> Mapping[str, float]:
        """From a start to a sudden end: all is on record."""
        # A state of its own is not needed: only one daemon lives at a time.
        daemon = Daemon(self.home / "daemon", probed=True, without=lever, daemon__log_level="error")
        began = time.perf_counter()
        daemon.start()
        try:
            began_s = time.monotonic()  # nobody can be held up before its socket answers
            assert daemon.process is not None
            pid = daemon.process.pid
            with daemon.client() as client:
                while client.call("session.stats")["states"].get("seeding") != self.count:
                    time.sleep(0.02)
                took_s, used_s = time.perf_counter() - began, exact_cpu_s(pid)
                token = client.call("torrent.list", since="")["token"]
                time.sleep(0.5)  # the tracker is given up
                memory_kib = (resident_mib(pid) - self.empty_mib) * 1024 / self.count
                stalls_s = hubwatch.durations_s(daemon.probe_path, since_s=began_s)
                before_s = exact_cpu_s(pid)
                for _ in range(self.lists):
                    client.call("torrent.list")
                list_s = (exact_cpu_s(pid) - before_s) / self.lists
                token = client.call("torrent.list", since=token)["token"]
                before = time.perf_counter()
                for _ in range(self.lists):
                    client.call("torrent.list", since=token)
                since_s = (time.perf_counter() - before) / self.lists
        finally:
            daemon.kill()
        return {
            "memory": memory_kib,
            "start-cpu": used_s,
            "start-time": took_s,
            "stall": max([hubwatch.NOTED_S, *stalls_s]) * 1000,
            "list-cpu": list_s * 1000,
            "since": since_s * 1000,
        }


class Pause(Stage):
    """A wish for many torrents at once, whose record lies on a disk."""

    name = "200 torrents on a disk"
    figures: ClassVar = {"time": Figure("pause and resume all", "ms")}
    count: ClassVar[int] = 200

    def prepare(self, stack: ExitStack) -> None:
        place = tempfile.TemporaryDirectory(prefix="microtorrd-bench-", dir=disk())
        self.disk = Path(stack.enter_context(place))
        if is_in_memory(self.disk):
            self.why_not = f"{self.disk.parent} is no disk"
        self.torrents = idle.make_many(self.home / "content", self.count, "http://127.0.0.1:1/announce")

    @contextmanager
    def side(self, lever: str, wanted: Set[str]) -> Iterator[Measure]:
        daemon = Daemon(self.new_place(lever, self.disk), without=lever, daemon__log_level="error")
        with daemon, daemon.client() as client:
            for torrent in self.torrents:
                path = str(self.home / "content" / torrent.name)
                client.call("torrent.add", metainfo=for_rpc(torrent.metainfo), seed_path=path)
            idle.wait_for_all(daemon, self.count)

            def measure() -> Mapping[str, float]:
                began = time.perf_counter()
                client.call("torrent.pause", id="all")
                client.call("torrent.resume", id="all")
                return {"time": (time.perf_counter() - began) * 1000}

            yield measure


class Announces(Stage):
    """The tracker that we serve, asked by one process."""

    name = "tracker"
    figures: ClassVar = {
        "cpu": Figure("CPU of an announce, 32 connections kept alive", "µs"),
        "closing-cpu": Figure("CPU of an announce, one a connection", "µs"),
    }
    seconds: ClassVar[float] = 0.7

    def prepare(self, stack: ExitStack) -> None:
        generator = random.Random(7)
        swarms = [generator.randbytes(20) for _ in range(tracker.SWARMS)]
        self.loads = {close: tracker.requests(swarms, generator, close=close) for close in (False, True)}

    @contextmanager
    def side(self, lever: str, wanted: Set[str]) -> Iterator[Measure]:
        daemon = Daemon(
            self.new_place(lever),
            without=lever,
            tracker__enabled="true",
            tracker__bind="127.0.0.1:0",
            daemon__log_level="warning",
        )
        with daemon:
            assert daemon.process is not None
            server = tracker.Server(daemon.call("session.stats")["tracker_port"], daemon.process.pid)
            case = tracker.Case(32, False)
            tracker.Load(server.port, self.loads[False], case).run(announces=tracker.PEERS)
            yield lambda: {
                name: self.measure(server, close)
                for name, close in (("cpu", False), ("closing-cpu", True))
                if name in wanted
            }

    def measure(self, server: tracker.Server, close: bool) -> float:
        """Microseconds of CPU for one announce."""
        load = tracker.Load(server.port, self.loads[close], tracker.Case(32, close))
        before_s = exact_cpu_s(server.pid)
        count, _ = load.run(seconds=self.seconds)
        return (exact_cpu_s(server.pid) - before_s) / count * 1e6


class Core(Stage):
    """The core of a leecher with many peers, by itself: what a piece costs that came and is told to all."""

    name = "core"
    figures: ClassVar = {"stored": Figure(f"a piece is stored, {core.PEERS} peers are told", "µs")}

    @contextmanager
    def side(self, lever: str, wanted: Set[str]) -> Iterator[Measure]:
        from bench.levers.catalogue import LEVERS

        def measure() -> Mapping[str, float]:
            if lever == NOTHING:
                return {"stored": stored_s() * 1e6}
            with LEVERS[lever].taken_away():
                return {"stored": stored_s() * 1e6}

        yield measure


def stored_s(pieces: int = 400, at_once: int = 8) -> float:
    """Seconds for one piece, when so many come at once from one seeder; all others have nothing."""
    made = core.make_core(pieces, 1 << 16)
    core.join(made, 1, HaveAll(), Unchoke())
    for peer in range(2, core.PEERS + 1):
        core.join(made, peer, HaveNone())
    stored: list[int] = []
    orders, spent_s, done, now = made.orders, 0.0, 0, 0.0
    while done < pieces:
        slots = [slot for order in orders if isinstance(order, Fetch) for slot in order.slots]
        stored += [order.buffer.piece for order in orders if isinstance(order, Store)]
        batch, stored = stored[:at_once], stored[at_once:]
        if not slots and not batch:
            raise RuntimeError(f"{done} of {pieces} pieces came")
        now += 0.01
        made.orders = []
        for slot in slots:
            slot.filled_by = 1
        if slots:
            made.handle(BlocksReceived(1, slots), now)
        facts: list[events.Fact] = [PieceStored(piece, ()) for piece in batch]
        begun = time.perf_counter()
        for fact in facts:
            made.handle(fact, now)
        spent_s += time.perf_counter() - begun
        done += len(batch)
        orders = made.orders
    return spent_s / pieces


def disk() -> str:
    """A directory that lies on a disk, one hopes."""
    return tempfile.gettempdir()


def is_in_memory(path: Path) -> bool:
    """Whether no disk is behind it."""
    best, kind = "", ""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mounted, filesystem, *_ = line.split()
        if path.is_relative_to(mounted) and len(mounted) >= len(best):
            best, kind = mounted, filesystem
    return kind == IN_MEMORY


class Waking(Stage):
    """A hub that wakes now and then, by itself, while a disk thread reads the metainfo of many files."""

    name = "waking"
    figures: ClassVar = {
        "late": Figure("the hub is late while a thread reads metainfo of 20,000 files, 95 of 100", "ms")
    }
    files: ClassVar[int] = 20_000

    def prepare(self, stack: ExitStack) -> None:
        entries = [FileEntry(("many", str(number)), 1) for number in range(self.files)]
        self.metainfo = build(
            name="many",
            piece_length=MIB,
            files=entries,
            is_single_file=False,
            pieces=bytes(20),
            id_hash=None,
            trackers=[],
        )

    @contextmanager
    def side(self, lever: str, wanted: Set[str]) -> Iterator[Measure]:
        from bench.levers.catalogue import LEVERS

        def measure() -> Mapping[str, float]:
            with nullcontext() if lever == NOTHING else LEVERS[lever].taken_away():
                return {"late": late_s(self.metainfo) * 1000}

        yield measure


def late_s(metainfo: bytes, pause_s: float = 0.003) -> float:
    """How late a thread is that sleeps again and again while another one reads metainfo."""
    from microtorrd.daemon import SWITCH_INTERVAL_S  # as it is now, with the lever or without it

    before_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        reader = threading.Thread(target=parse, args=(metainfo,))
        reader.start()
        late: list[float] = []
        while reader.is_alive():
            began = time.perf_counter()
            time.sleep(pause_s)
            late.append(time.perf_counter() - began - pause_s)
        return percentile(late, 95)
    finally:
        sys.setswitchinterval(before_s)
