"""One seeder and many connections: what 200 leechers get together, beside what one alone gets, and what the
memory of each costs. With the usual upload slots most of them would wait; here all are served at once.

    python -m bench.connections [ROUNDS]
"""

from __future__ import annotations

import subprocess
import sys
import time
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


def rows(rounds: int) -> list[Row]:
    """Each round asks a fresh daemon: first one leecher, then all."""
    speed = Row(f"a seeder to {PEERS} leechers at once", "MB/s", "≥ 0.7", other="to one")
    memory = Row("… memory of a connection", "KiB", "≤ 200 KiB")
    stalls = Row("… longest stall of the hub", "ms", "≤ 50 ms")
    with workplace() as home:
        content = home / "payload"
        make_content(content, SIZE)
        metainfo = make_torrent(content, PIECE, [])
        for number in range(rounds):
            daemon = seeder(home / f"seeder-{number}", content, metainfo)
            began_s = time.monotonic()
            try:
                measure(daemon, metainfo, speed, memory)
            finally:
                daemon.kill()
            stalled = hubwatch.read(daemon.probe_path, since_s=began_s)
            longest_s = max((stall.stood_s for stall in stalled), default=0.0)
            stalls.add(longest_s * 1000)
            print(
                f"  round {number + 1}: one {speed.theirs[-1]:.0f} MB/s, {PEERS} {speed.ours[-1]:.0f} MB/s,"
                f" {memory.ours[-1]:.0f} KiB each, longest stall {stalls.ours[-1]:.0f} ms",
                flush=True,
            )
    return [speed, memory, stalls]


def seeder(home: Path, content: Path, metainfo: bytes, *, without: str = "") -> Daemon:
    """A daemon that seeds to all who come."""
    daemon = Daemon(
        home,
        probed=True,
        without=without,
        swarm__always_unchoke="true",
        limits__connections_per_torrent=PEERS + 50,
        daemon__log_level="warning",
    ).start()
    try:
        with daemon.client() as client:
            client.subscribe(kinds=["state_changed"])
            client.call("torrent.add", metainfo=for_rpc(metainfo), seed_path=str(content))
            while (note := client.next_note(60)) is None or note.get("state") != "seeding":
                if note is None:
                    raise RuntimeError(f"the seeder is not ready\n{daemon.log()}")
    except BaseException:
        daemon.kill()
        raise
    return daemon


def measure(daemon: Daemon, metainfo: bytes, speed: Row, memory: Row) -> None:
    """One leecher, then all of them."""
    assert daemon.process is not None
    described = parse(metainfo)
    port = str(daemon.call("session.stats")["listen_port"])
    arguments = [port, described.info_hash.hex(), str(SIZE // PIECE), str(PIECE)]
    with subprocess.Popen(
        [sys.executable, "-m", "bench.crowd", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as crowd:
        try:
            warm_up(GIB)
            alone = run(crowd, 1, ALONE)
            before = peak_mib(daemon.process.pid)
            together = run(crowd, PEERS, TOGETHER)
            speed.add(together, alone)
            memory.add((peak_mib(daemon.process.pid) - before) * 1024 / (PEERS - 1))
        finally:
            crowd.kill()


def run(crowd: subprocess.Popen[str], leechers: int, requests: int, seconds: float | None = None) -> float:
    """MB/s of so many leechers together. RuntimeError where one of them got nothing."""
    assert crowd.stdin is not None and crowd.stdout is not None
    crowd.stdin.write(f"{leechers} {requests} {RUN_S if seconds is None else seconds}\n")
    crowd.stdin.flush()
    said = crowd.stdout.readline().split()
    if len(said) != 3 or int(said[1]) != leechers:
        raise RuntimeError(f"of {leechers} leechers {said[1] if said else 'none'} were served")
    return int(said[0]) / float(said[2]) / 1e6


if __name__ == "__main__":
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        print(" | ".join(row.cells()))
