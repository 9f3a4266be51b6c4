"""One seeder and many connections: what 200 leechers get together, beside what one alone gets, and what the
memory of each costs. With the usual upload slots most of them would wait; here all are served at once.

    python -m bench.connections [ROUNDS [LEECHERS]]
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import hubwatch
from bench.daemons import Daemon
from bench.measure import (
    GIB,
    MIB,
    Row,
    for_rpc,
    make_content,
    make_torrent,
    peak_mib,
    warm_up,
    workplace,
)
from microtorrd.proto.metainfo import parse

PEERS = 200
#: What each keeps asked for: alone as much as a fast leecher of ours, together a MiB each.
ALONE, TOGETHER = 512, 64
SIZE = 512 * MIB
PIECE = MIB
RUN_S = 3.0


def rows(rounds: int, peers: int = PEERS) -> list[Row]:
    """Each round asks a fresh daemon: first one leecher, then all."""
    speed = Row(f"a seeder to {peers:,} leechers at once", "MB/s", "≥ 0.7", other="to one")
    memory = Row("… memory of a connection", "KiB", "≤ 200 KiB")
    stalls = Row("… longest stall of the hub", "ms", "≤ 50 ms")
    with workplace() as home:
        content, metainfo = some_content(home)
        for number in range(rounds):
            with seeder(home / f"seeder-{number}", content, metainfo, peers=peers) as daemon:
                began_s = time.monotonic()
                measure(daemon, metainfo, peers, speed=speed, memory=memory)
            stalls.add(longest_stall_ms(daemon, began_s))
            print(
                f"  round {number + 1}: one {speed.theirs[-1]:.0f} MB/s, {peers} {speed.ours[-1]:.0f} MB/s,"
                f" {memory.ours[-1]:.0f} KiB each, longest stall {stalls.ours[-1]:.0f} ms",
                flush=True,
            )
    return [speed, memory, stalls]


def some_content(home: Path) -> tuple[Path, bytes]:
    """Where it lies, and its metainfo."""
    content = home / "payload"
    make_content(content, SIZE)
    return content, make_torrent(content, PIECE, [])


def longest_stall_ms(daemon: Daemon, since_s: float) -> float:
    """Of its hub, since that moment."""
    stalled = hubwatch.read(daemon.probe_path, since_s=since_s)
    return max((stall.stood_s for stall in stalled), default=0.0) * 1000


@contextmanager
def seeder(
    home: Path,
    content: Path,
    metainfo: bytes,
    *,
    peers: int,
    always_unchoke: bool = True,
    without: str = "",
) -> Iterator[Daemon]:
    """A daemon that seeds to so many."""
    daemon = Daemon(
        home,
        probed=True,
        without=without,
        swarm__always_unchoke=str(always_unchoke).lower(),
        limits__connections=peers + 50,
        limits__connections_per_torrent=peers + 50,
        daemon__log_level="warning",
    ).start()
    try:
        with daemon.client() as client:
            client.subscribe(kinds=["state_changed"])
            client.call("torrent.add", metainfo=for_rpc(metainfo), seed_path=str(content))
            while (note := client.next_note(60)) is None or note.get("state") != "seeding":
                if note is None:
                    raise RuntimeError(f"the seeder is not ready\n{daemon.log()}")
        yield daemon
    finally:
        daemon.kill()


@contextmanager
def crowd_at(daemon: Daemon, metainfo: bytes) -> Iterator[subprocess.Popen[str]]:
    """The program of the leechers."""
    port = str(daemon.call("session.stats")["listen_port"])
    arguments = [port, parse(metainfo).info_hash.hex(), str(SIZE // PIECE), str(PIECE)]
    command = [sys.executable, "-m", "bench.crowd", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crowd:
        try:
            yield crowd
        finally:
            crowd.kill()


def measure(daemon: Daemon, metainfo: bytes, peers: int, *, speed: Row, memory: Row) -> None:
    """One leecher, then all of them."""
    assert daemon.process is not None
    with crowd_at(daemon, metainfo) as crowd:
        warm_up(GIB)
        alone = run(crowd, 1, ALONE)
        before = peak_mib(daemon.process.pid)
        together = run(crowd, peers, TOGETHER)
        speed.add(together, alone)
        memory.add((peak_mib(daemon.process.pid) - before) * 1024 / (peers - 1))


def run(crowd: subprocess.Popen[str], leechers: int, requests: int, seconds: float | None = None) -> float:
    """MB/s of so many leechers together. RuntimeError where one of them got nothing."""
    begin(crowd, leechers, requests, RUN_S if seconds is None else seconds)
    payload_bytes, served, took_s = result(crowd)
    if served != leechers:
        raise RuntimeError(f"of {leechers} leechers {served} were served")
    return payload_bytes / took_s / 1e6


def begin(crowd: subprocess.Popen[str], leechers: int, requests: int, seconds: float) -> None:
    """So many leechers set out."""
    assert crowd.stdin is not None
    crowd.stdin.write(f"{leechers} {requests} {seconds}\n")
    crowd.stdin.flush()


def result(crowd: subprocess.Popen[str]) -> tuple[int, int, float]:
    """Payload bytes that came, leechers that were served, and in how many seconds."""
    assert crowd.stdout is not None
    said = crowd.stdout.readline().split()
    if len(said) != 3:
        raise RuntimeError("the leechers were cut short")
    return int(said[0]), int(said[1]), float(said[2])


if __name__ == "__main__":
    for row in rows(*(int(argument) for argument in sys.argv[1:3] or ["3"])):
        print(" | ".join(row.cells()))
