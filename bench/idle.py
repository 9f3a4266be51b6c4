"""Thousands of torrents in one daemon: memory and CPU while idle, list, start, stop with a dead tracker.

python -m bench.idle [TORRENTS]
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.daemons import Daemon
from bench.measure import Row, cpu_s, for_rpc, make_torrent, resident_mib, workplace

IDLE_S = 30.0
CONTENT_BYTES = 64 << 10


def rows(count: int) -> list[Row]:
    """Everything, over `count` small torrents that seed."""
    with workplace() as home, dead_tracker() as port:
        return measure(home, count, f"http://127.0.0.1:{port}/announce")


@contextmanager
def dead_tracker() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        yield int(silent.getsockname()[1])


def measure(home: Path, count: int, tracker: str) -> list[Row]:
    """One life of a daemon with many torrents, and a second start."""
    memory = Row(f"memory a torrent, {count:,} seeding", "KiB", "20 KiB")
    idle = Row("CPU while they are idle", "% of a core", "< 1 %")
    start = Row("the socket answers after a start", "s", "< 1 s")
    loaded = Row("all seed after a start", "s", "< 20 s")
    listing = Row("list of all", "ms", "50 ms in the daemon")
    size = Row("… bytes a torrent", "bytes", "≤ 1024")
    stop = Row("stop with a dead tracker", "s", "10 s")
    content = home / "content"
    content.mkdir()
    daemon = Daemon(home / "daemon", daemon__log_level="warning").start()
    assert daemon.process is not None
    empty = resident_mib(daemon.process.pid)
    with daemon.client() as client:
        for number in range(count):
            path = content / f"file-{number:05}"
            path.write_bytes(os.urandom(16) * (CONTENT_BYTES // 16))
            metainfo = make_torrent(path, 16 << 10, [tracker])
            client.call("torrent.add", metainfo=for_rpc(metainfo), seed_path=str(path))
        wait_for_all(daemon, count)
    daemon.stop()
    began = time.perf_counter()
    daemon.start()
    start.add(time.perf_counter() - began)
    wait_for_all(daemon, count)
    loaded.add(time.perf_counter() - began)
    pid = daemon.process.pid
    memory.add((resident_mib(pid) - empty) * 1024 / count)
    before = cpu_s(pid)
    with daemon.client() as client:
        client.next_note(IDLE_S)
    idle.add((cpu_s(pid) - before) / IDLE_S * 100)
    with daemon.client() as client:
        for _ in range(5):
            used, began = cpu_s(pid), time.perf_counter()
            reply = client.call("torrent.list")
            listing.add((time.perf_counter() - began) * 1000)
            listing.note = f"{(cpu_s(pid) - used) * 1000:.0f} ms of CPU in the daemon"
        size.add(len(json.dumps(reply)) / count)
    began = time.perf_counter()
    daemon.stop()
    stop.add(time.perf_counter() - began)
    return [memory, idle, start, loaded, listing, size, stop]


def wait_for_all(daemon: Daemon, count: int) -> None:
    """Until every torrent seeds."""
    with daemon.client() as client:
        client.subscribe(kinds=["moved"])
        for _ in range(1000):
            states = client.call("session.stats")["states"]
            if states.get("seeding") == count:
                return
            client.next_note(0.25)  # nothing comes: asking itself costs the daemon time
    raise RuntimeError(f"not all seed: {states}\n{daemon.log()[-2000:]}")


if __name__ == "__main__":
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 5000):
        print(" | ".join(row.cells()), row.note)
