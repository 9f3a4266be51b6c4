"""One seeder, many leechers: how near to the fluid limit, and how often the seeder sends each byte.

    python -m bench.fanout [ROUNDS]

With a seeder that sends u bytes a second and N leechers that send U together, S bytes cannot be everywhere
before max(S/u, S·N/(u+U)). Uncapped there is no such limit on one machine: the figure is what all leechers
received.
"""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from bench.daemons import Daemon
from bench.measure import MIB, Row, for_rpc, make_content, make_torrent, warm_up, workplace

CAP = 8_000_000
PIECE = MIB


def rows(rounds: int) -> list[Row]:
    """The capped swarm of eight, and the uncapped one of four."""
    capped = Row("fan-out to 8, seeder capped at 8 MB/s, 64 MiB", "s", "≤ 1.15", other="fluid limit")
    copies = Row("… copies that the seeder sent", "copies", "≤ 1.1")
    free = Row("fan-out to 4, uncapped, 512 MiB, all together", "MB/s", "")
    for number in range(rounds):
        with workplace() as home:
            took, sent = spread(home / f"capped-{number}", size=64 * MIB, leechers=8, cap=CAP)
            capped.add(took, 64 * MIB / CAP)
            copies.add(sent / (64 * MIB))
            took, _ = spread(home / f"free-{number}", size=512 * MIB, leechers=4, cap=0)
            free.add(4 * 512 * MIB / took / 1e6)
            print(
                f"  round {number + 1}: capped {capped.ours[-1]:.2f} s, {copies.ours[-1]:.2f} copies,", end=""
            )
            print(f" uncapped {free.ours[-1]:.0f} MB/s", flush=True)
    return [capped, copies, free]


def spread(home: Path, *, size: int, leechers: int, cap: int) -> tuple[float, int]:
    """Seconds until the last leecher has everything, and the payload bytes that the seeder sent."""
    home.mkdir()
    content = home / "payload"
    make_content(content, size)
    with ExitStack() as stack:
        seeder = stack.enter_context(
            Daemon(
                home / "seeder",
                tracker__enabled="true",
                tracker__bind="127.0.0.1:0",
                limits__up=cap,
                daemon__log_level="warning",
            )
        )
        url = f"http://127.0.0.1:{seeder.call('session.stats')['tracker_port']}/announce"
        metainfo = for_rpc(make_torrent(content, PIECE, [url]))
        with seeder.client() as client:
            client.subscribe(kinds=["state_changed"])
            client.call("torrent.add", metainfo=metainfo, seed_path=str(content))
            while (note := client.next_note(60)) is not None and note["state"] != "seeding":
                continue
        daemons = [
            stack.enter_context(Daemon(home / f"leecher-{number}", daemon__log_level="warning"))
            for number in range(leechers)
        ]
        clients = [stack.enter_context(daemon.client()) for daemon in daemons]
        for client in clients:
            client.subscribe(kinds=["completed", "storage_failed"])
        warm_up(size * leechers)
        began = time.perf_counter()
        for client in clients:
            client.call("torrent.add", metainfo=metainfo)
        for client in clients:
            note = client.next_note(300)
            if note is None or note["kind"] != "completed":
                raise RuntimeError(f"a leecher did not finish: {note}")
        took = time.perf_counter() - began
        sent = int(seeder.call("session.stats")["uploaded_bytes"])
    shutil.rmtree(home)
    return took, sent


if __name__ == "__main__":
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        print(" | ".join(row.cells()))
