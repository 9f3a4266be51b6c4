"""Stages where content moves: from one of ours to another, from libtorrent to ours, from ours to a crowd."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

from bench import arena, connections, hubwatch, latency, pair
from bench.arena import Arena
from bench.daemons import Daemon
from bench.levers.stages import Figure, Measure, Stage
from bench.measure import GIB, MIB, exact_cpu_s, for_rpc, make_content, make_torrent, percentile, warm_up
from bench.ours import Microtorrd

TRANSFER_S = 60.0

RATE = Figure("throughput", "MB/s", more_is_better=True)


class Pair(Stage):
    """A seeder and a leecher of ours, both without the lever; the leecher fetches again and again."""

    name = "pair"
    figures: ClassVar = {
        "rate": RATE,
        "cpu": Figure("CPU of both, a GiB", "s"),
        "leecher": Figure("CPU of the leecher, a GiB", "s"),
        "answer": Figure("an answer of the control socket meanwhile, 95 of 100", "ms"),
    }
    size: ClassVar[int] = 512 * MIB
    piece: ClassVar[int] = MIB

    def prepare(self, stack: ExitStack) -> None:
        self.content = self.home / "content" / "payload"
        self.content.parent.mkdir()
        make_content(self.content, self.size)

    @contextmanager
    def side(self, lever: str, wanted: Set[str]) -> Iterator[Measure]:
        place = self.new_place(lever)
        seeding = pair.our_seeder(place / "seeder", self.content, without=lever, piece=self.piece)
        with seeding as (seeder, metainfo), Leecher(place / "leecher", lever) as leecher:
            assert seeder.process is not None
            pids = [seeder.process.pid]
            asked = (seeder,) if "answer" in wanted else ()
            yield lambda: leecher.fetch(metainfo, self.size, pids, asked)


class SmallPieces(Pair):
    """The same with pieces so small that what a piece costs shows."""

    name = "small pieces"
    size = 128 * MIB
    piece = 64 << 10


class FromLibtorrent(Stage):
    """A leecher of ours, and libtorrent as the seeder."""

    name = "from libtorrent"
    figures: ClassVar = {"rate": RATE, "leecher": Figure("CPU of the leecher, a GiB", "s")}
    size: ClassVar[int] = 512 * MIB

    def prepare(self, stack: ExitStack) -> None:
        content = self.home / "content"
        content.mkdir()
        make_content(content / "payload", self.size)
        seeding = pair.their_announced_seeder(self.home / "tracker", content)
        self.seeder, self.metainfo = stack.enter_context(seeding)

    @contextmanager
    def side(self, lever: str, wanted: Set[str]) -> Iterator[Measure]:
        with Leecher(self.new_place(lever), lever) as leecher:
            yield lambda: leecher.fetch(self.metainfo, self.size, [self.seeder.pid], ())


class Leecher:
    """A daemon that fetches something, and forgets it afterwards, content and all."""

    def __init__(self, home: Path, without: str) -> None:
        self._daemon = Daemon(home, without=without, daemon__log_level="warning")
        self._stack = ExitStack()

    def __enter__(self) -> Leecher:
        with self._stack:
            self._stack.enter_context(self._daemon)
            self._client = self._stack.enter_context(self._daemon.client())
            self._client.subscribe(kinds=["completed", "storage_failed"])
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def fetch(
        self, metainfo: bytes, size: int, seeders: list[int], asked: tuple[Daemon, ...]
    ) -> Mapping[str, float]:
        """Fetch it from whoever is found; `asked` are asked something all the time, as the leecher is."""
        assert self._daemon.process is not None
        pid = self._daemon.process.pid
        answers_s: list[float] = []
        over = threading.Event()
        askers = [
            threading.Thread(target=latency.ask, args=(daemon, over, answers_s))
            for daemon in ((*asked, self._daemon) if asked else ())
        ]
        warm_up(size)
        before = exact_cpu_s(pid), sum(map(exact_cpu_s, seeders))
        for asker in askers:
            asker.start()
        try:
            began = time.perf_counter()
            self._client.call("torrent.add", metainfo=for_rpc(metainfo))
            note = self._client.next_note(TRANSFER_S)
            took_s = time.perf_counter() - began
        finally:
            over.set()
            for asker in askers:
                asker.join()
        if note is None or note["kind"] != "completed":
            raise RuntimeError(f"the download failed: {note}\n{self._daemon.log()}")
        leecher_s, seeders_s = exact_cpu_s(pid) - before[0], sum(map(exact_cpu_s, seeders)) - before[1]
        self._forget(note["info_hash"])
        return {
            "rate": size / took_s / 1e6,
            "cpu": (leecher_s + seeders_s) * GIB / size,
            "leecher": leecher_s * GIB / size,
            "answer": percentile(answers_s, 95) * 1000 if answers_s else 0.0,
        }

    def _forget(self, info_hash: str) -> None:
        self._client.call("torrent.remove", id=info_hash, data=True)
        end = time.monotonic() + TRANSFER_S
        while any(self._daemon.save_to.iterdir()):
            if time.monotonic() > end:
                raise RuntimeError("what was fetched is not deleted")
            time.sleep(0.002)


class Crowd(Stage):
    """A seeder of ours, and leechers that ask, count and forget: nearly all of the work is the seeder's."""

    name = "crowd"
    figures: ClassVar = {
        "alone": Figure("throughput to one", "MB/s", more_is_better=True),
        "cpu": Figure("CPU of the seeder, a GiB", "s"),
        "together": Figure(f"throughput to {connections.PEERS}", "MB/s", more_is_better=True),
        "stall": Figure(f"longest stall of the hub, {connections.PEERS} served", "ms"),
    }
    alone_s: ClassVar[float] = 0.6
    together_s: ClassVar[float] = 1.0

    def prepare(self, stack: ExitStack) -> None:
        self.content = self.home / "payload"
        make_content(self.content, connections.SIZE)
        self.metainfo = make_torrent(self.content, connections.PIECE, [])

    @contextmanager
    def side(self, lever: str, wanted: Set[str]) -> Iterator[Measure]:
        place, peers = self.new_place(lever), connections.PEERS
        with (
            connections.seeder(place, self.content, self.metainfo, peers=peers, without=lever) as daemon,
            connections.crowd_at(daemon, self.metainfo) as crowd,
        ):
            yield lambda: self.measure(daemon, crowd, wanted)

    def measure(self, daemon: Daemon, crowd: subprocess.Popen[str], wanted: Set[str]) -> Mapping[str, float]:
        """One leecher; and all of them, where that is wanted."""
        assert daemon.process is not None
        found: dict[str, float] = {}
        if wanted & {"alone", "cpu"}:
            before_s = exact_cpu_s(daemon.process.pid)
            found["alone"] = rate = connections.run(crowd, 1, connections.ALONE, self.alone_s)
            found["cpu"] = (exact_cpu_s(daemon.process.pid) - before_s) / (rate * 1e6 * self.alone_s) * GIB
        if wanted & {"together", "stall"}:
            began_s = time.monotonic()
            found["together"] = connections.run(
                crowd, connections.PEERS, connections.TOGETHER, self.together_s
            )
            # What is shorter is not noted: then it was no longer than this.
            stalls_s = [hubwatch.NOTED_S, *hubwatch.durations_s(daemon.probe_path, since_s=began_s)]
            found["stall"] = max(stalls_s) * 1000
        return found


class Fanout(Stage):
    """A capped seeder and eight leechers, each in a network namespace of its own."""

    name = "fan-out"
    figures: ClassVar = {
        "time": Figure("until the last of eight is done", "s"),
        "copies": Figure("copies that left the seeder", "copies"),
    }
    rounds = 2
    warm_up_rounds = 0
    size: ClassVar[int] = 48 * MIB
    cap: ClassVar[int] = 16_000_000
    leechers: ClassVar[int] = 8

    def prepare(self, stack: ExitStack) -> None:
        self.why_not = arena.missing(Microtorrd)
        if not self.why_not:
            self.arena = stack.enter_context(Arena(self.home / "arena", size=self.size, piece_length=MIB))

    @contextmanager
    def side(self, lever: str, wanted: Set[str]) -> Iterator[Measure]:
        kind = type("Side", (Microtorrd,), {"name": f"microtorrd-{lever}", "without": lever})
        yield lambda: self.measure(kind)

    def measure(self, kind: type[Microtorrd]) -> Mapping[str, float]:
        """One transfer."""
        outcome = self.arena.transfer(kind, leechers=self.leechers, upload_bytes_per_s=self.cap)
        return {"time": outcome.took_s, "copies": outcome.copies}
