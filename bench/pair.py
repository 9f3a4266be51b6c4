"""One seeder, one leecher, 1 GiB in pieces of 1 MiB over loopback: each client to itself, and to the other.
Timed from the moment the leecher is told to start until all is there and verified.

   python -m bench.pair [PAIRS]
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.daemons import Daemon
from bench.measure import (
    GIB,
    MIB,
    Row,
    cpu_s,
    for_rpc,
    make_content,
    make_torrent,
    peak_mib,
    warm_up,
    workplace,
)

SIZE = GIB
PIECE = MIB

#: libtorrent's seeder gives a new connection one block at a time until its clock strikes the next second
#: (*Runs of the pair differ* in docs/BENCHMARKS.md).
STROKE_S = 1.0


@dataclass(frozen=True)
class Transfer:
    """What one transfer took."""

    mb_per_s: float
    seeder_cpu_s: float
    leecher_cpu_s: float
    leecher_peak_mib: float


@contextmanager
def our_seeder(
    home: Path, content: Path, *, probed: bool = False, without: str = "", piece: int = PIECE
) -> Iterator[tuple[Daemon, bytes]]:
    """A daemon that seeds the content and tracks it; and the metainfo."""
    daemon = Daemon(
        home,
        probed=probed,
        without=without,
        tracker__enabled="true",
        tracker__bind="127.0.0.1:0",
        daemon__log_level="warning",
    )
    with daemon:
        url = f"http://127.0.0.1:{daemon.call('session.stats')['tracker_port']}/announce"
        metainfo = make_torrent(content, piece, [url])
        with daemon.client() as client:
            client.subscribe(kinds=["state_changed"])
            client.call("torrent.add", metainfo=for_rpc(metainfo), seed_path=str(content))
            while (note := client.next_note(60)) is None or note.get("state") != "seeding":
                if note is None:
                    raise RuntimeError(f"the seeder is not ready\n{daemon.log()}")
        yield daemon, metainfo


@contextmanager
def their_process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """libtorrent in a process of its own."""
    command = [sys.executable, "-m", "bench.lt_client", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    """The next line it prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def out_of_step() -> None:
    """Wait for some part of a second. Rounds take about equally long: else all transfers of one kind would
    meet libtorrent's clock at the same moment, and those of another kind at another."""
    time.sleep(random.uniform(0.0, STROKE_S))


def our_fetch(home: Path, metainfo: bytes, seeder_pid: int) -> Transfer:
    """Our leecher against whatever seeds."""
    with Daemon(home, daemon__log_level="warning") as leecher, leecher.client() as client:
        assert leecher.process is not None
        pid = leecher.process.pid
        client.subscribe(kinds=["completed", "storage_failed"])
        out_of_step()
        warm_up()
        before = cpu_s(seeder_pid), cpu_s(pid)
        began = time.perf_counter()
        client.call("torrent.add", metainfo=for_rpc(metainfo))
        note = client.next_note(300)
        took = time.perf_counter() - began
        if note is None or note["kind"] != "completed":
            raise RuntimeError(f"the download failed: {note}\n{leecher.log()}")
        used = cpu_s(seeder_pid) - before[0], cpu_s(pid) - before[1]
        peak = peak_mib(pid)
    shutil.rmtree(home)
    return Transfer(SIZE / took / 1e6, *used, peak)


def their_fetch(home: Path, torrent: Path, seeder_pid: int, port: int) -> Transfer:
    """libtorrent's leecher against whatever seeds at that port."""
    home.mkdir()
    with their_process("fetch", str(torrent), str(home), "0", str(port)) as leecher:
        read_line(leecher)
        out_of_step()
        warm_up()
        before = cpu_s(seeder_pid), cpu_s(leecher.pid)
        began = time.perf_counter()
        assert leecher.stdin is not None
        leecher.stdin.write("\n")
        leecher.stdin.flush()
        if read_line(leecher) != "done":
            raise RuntimeError("libtorrent did not finish")
        took = time.perf_counter() - began
        used = cpu_s(seeder_pid) - before[0], cpu_s(leecher.pid) - before[1]
        peak = peak_mib(leecher.pid)
    shutil.rmtree(home)
    return Transfer(SIZE / took / 1e6, *used, peak)


def rows(pairs: int) -> list[Row]:
    """Measure all combinations in turns."""
    speed = Row("pair, 1 GiB, 1 MiB pieces", "MB/s", "≥ 2.0 (try for 3.0)", other="libtorrent to itself")
    cpu = Row("… CPU of both sides", "s", "≤ 0.6", other="libtorrent to itself")
    into_ours = Row("libtorrent seeds to microtorrd", "MB/s", "≥ 1.0", other="libtorrent to itself")
    from_ours = Row("microtorrd seeds to libtorrent", "MB/s", "≥ 1.0", other="libtorrent to itself")
    memory = Row("… peak memory of the leecher", "MiB", "≤ 160 MiB", other="libtorrent")
    with workplace() as home:
        content = home / "content"
        content.mkdir()
        make_content(content / "payload", SIZE)
        # Without a tracker: who fetches gets everything from the one seeder that it is told to connect to.
        torrent = home / "payload.torrent"
        torrent.write_bytes(make_torrent(content / "payload", PIECE, []))
        with (
            our_seeder(home / "seeder", content / "payload") as (seeder, metainfo),
            their_process("seed", str(torrent), str(content), "0") as libtorrent,
            their_announced_seeder(home / "tracker", content) as (announced, announced_metainfo),
        ):
            port = int(seeder.call("session.stats")["listen_port"])
            assert seeder.process is not None
            their_port = int(read_line(libtorrent).split()[1])
            for number in range(pairs):
                mine = our_fetch(home / f"ours-{number}", metainfo, seeder.process.pid)
                theirs = their_fetch(home / f"theirs-{number}", torrent, libtorrent.pid, their_port)
                crossed = their_fetch(home / f"crossed-{number}", torrent, seeder.process.pid, port)
                into = our_fetch(home / f"into-{number}", announced_metainfo, announced.pid)
                speed.add(mine.mb_per_s, theirs.mb_per_s)
                memory.add(mine.leecher_peak_mib, theirs.leecher_peak_mib)
                cpu.add(mine.seeder_cpu_s + mine.leecher_cpu_s, theirs.seeder_cpu_s + theirs.leecher_cpu_s)
                from_ours.add(crossed.mb_per_s, theirs.mb_per_s)
                into_ours.add(into.mb_per_s, theirs.mb_per_s)
                print(
                    f"  pair {number + 1}: ours {mine.mb_per_s:.0f} MB/s ({mine.seeder_cpu_s:.2f} +"
                    f" {mine.leecher_cpu_s:.2f} s CPU), libtorrent {theirs.mb_per_s:.0f}"
                    f" ({theirs.seeder_cpu_s:.2f} + {theirs.leecher_cpu_s:.2f}),"
                    f" ours to libtorrent {crossed.mb_per_s:.0f}, libtorrent to ours {into.mb_per_s:.0f}",
                    flush=True,
                )
    return [speed, cpu, memory, into_ours, from_ours]


@contextmanager
def their_announced_seeder(home: Path, content: Path) -> Iterator[tuple[subprocess.Popen[str], bytes]]:
    """libtorrent seeding, for our leecher to find it through a tracker that knows nobody else."""
    with Daemon(
        home, tracker__enabled="true", tracker__bind="127.0.0.1:0", daemon__log_level="warning"
    ) as tracker:
        url = f"http://127.0.0.1:{tracker.call('session.stats')['tracker_port']}/announce"
        metainfo = make_torrent(content / "payload", PIECE, [url])
        torrent = home / "announced.torrent"
        torrent.write_bytes(metainfo)
        with their_process("seed", str(torrent), str(content), "0") as libtorrent:
            read_line(libtorrent)
            yield libtorrent, metainfo


if __name__ == "__main__":
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
        print(" | ".join(row.cells()))
