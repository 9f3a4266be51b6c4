"""How soon a daemon answers while it works as hard as it can: the hubs and control sockets of both sides of a
transfer of 1 GiB over loopback.

    python -m bench.latency [ROUNDS]

Both sockets are asked again and again on connections that stay, as `mtorrctl watch` or a monitor would ask.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from bench import hubwatch
from bench.daemons import Daemon
from bench.measure import GIB, MIB, Row, for_rpc, make_content, percentile, stall_row, warm_up, workplace
from bench.pair import our_seeder

SIZE = GIB
PIECE = MIB
#: Between an answer and the next question. Asking itself must not become the load.
PAUSE_S = 0.01
METHODS = ("daemon.ping", "session.stats", "torrent.list")
DOWNLOAD_S = 120.0


def rows(rounds: int) -> list[Row]:
    """One transfer each round; each answer of all of them counts."""
    usual = Row("an answer of the control socket at full transfer, 99 of 100", "ms", "≤ 20 ms")
    worst = Row("… the slowest", "ms", "≤ 20 ms")
    stalls_s: list[float] = []
    with workplace() as home:
        content = home / "payload"
        make_content(content, SIZE)
        with our_seeder(home / "seeder", content, probed=True) as (seeder, metainfo):
            for number in range(rounds):
                answers_s, stood_s = transfer(home / f"leecher-{number}", seeder, metainfo)
                usual.add(percentile(answers_s, 99) * 1000)
                worst.add(max(answers_s) * 1000)
                stalls_s += stood_s
                print(
                    f"  round {number + 1}: {len(answers_s)} answers, 99 % within {usual.ours[-1]:.1f} ms,"
                    f" slowest {worst.ours[-1]:.1f} ms, hubs stood {max(stood_s, default=0) * 1000:.0f} ms",
                    flush=True,
                )
    return [usual, worst, stall_row("longest stall of a hub at full transfer", stalls_s)]


def transfer(home: Path, seeder: Daemon, metainfo: bytes) -> tuple[list[float], list[float]]:
    """Seconds that each answer took, of both sides, and that each stall of a hub lasted."""
    answers_s: list[float] = []
    with Daemon(home, probed=True, daemon__log_level="warning") as leecher, leecher.client() as client:
        client.subscribe(kinds=["completed", "storage_failed"])
        warm_up()
        over = threading.Event()
        askers = [
            threading.Thread(target=ask, args=(daemon, over, answers_s)) for daemon in (seeder, leecher)
        ]
        began_s = time.monotonic()
        for asker in askers:
            asker.start()
        try:
            client.call("torrent.add", metainfo=for_rpc(metainfo))
            note = client.next_note(DOWNLOAD_S)
        finally:
            over.set()
            for asker in askers:
                asker.join()
        if note is None or note["kind"] != "completed":
            raise RuntimeError(f"the download failed: {note}\n{leecher.log()}")
        stalls = [
            *hubwatch.read(seeder.probe_path, since_s=began_s),
            *hubwatch.read(leecher.probe_path, since_s=began_s),
        ]
    return answers_s, [stall.stood_s for stall in stalls]


def ask(daemon: Daemon, over: threading.Event, answers_s: list[float]) -> None:
    """Again and again, until it is over."""
    with daemon.client() as client:
        while True:
            for method in METHODS:
                began = time.perf_counter()
                client.call(method)
                answers_s.append(time.perf_counter() - began)
                if over.wait(PAUSE_S):
                    return


if __name__ == "__main__":
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        print(" | ".join(row.cells()))
