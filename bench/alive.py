"""What keep-alives of the MicroTorr dialect cost: four a minute of each torrent.

Thousands of our own `.mtorrent`s in one daemon: with a tracker of ours, which takes the keep-alives of many
in one request, and with one that takes them one by one, as the original's does. Besides, what one exchange
costs.

python -m bench.alive [TORRENTS]
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

from bench.daemons import Daemon
from bench.measure import Row, cpu_s, for_rpc, hash_pieces, workplace
from bench.silent_tracker import SilentTracker
from microtorrd.proto.metainfo import FileEntry, build

MEASURED_S = 30.0
CONTENT_BYTES = 16 << 10

#: How long all may take to announce themselves, 50 a second to one host.
ANNOUNCE_S = 200.0

#: After the last `started`: until every keep-alive has had its turn once.
SETTLE_S = 16.0

#: Exchanges of which the middle of a row of runs is told.
EXCHANGES = 500


def rows(count: int, rounds: int = 3) -> list[Row]:
    """Everything: so many torrents that share their keep-alives, and so many that cannot."""
    return [*together(count), *one_by_one(count), *exchanges(rounds)]


def together(count: int) -> list[Row]:
    """With a tracker of ours."""
    with workplace() as home, ExitStack() as stack:
        tracker = Daemon(home / "tracker", tracker__enabled="true", tracker__bind="127.0.0.1:0").start()
        stack.callback(tracker.kill)
        port = tracker.call("session.stats")["tracker_port"]
        daemon = seeding(home, f"http://127.0.0.1:{port}/announce", count)
        stack.callback(daemon.kill)
        wait_until(daemon, lambda: peers_of(port) >= count)
        assert daemon.process is not None
        assert tracker.process is not None
        ours, its = cpu_percent(daemon, daemon.process.pid, tracker.process.pid)
        if peers_of(port) != count:
            raise RuntimeError("the tracker forgot some")
        row = Row(f"{count:,} `.mtorrent`s kept alive together, CPU of the daemon", "% of a core", "< 1 %")
        row.add(ours)
        other = Row("… CPU of the tracker, ours", "% of a core", "")
        other.add(its)
        return [row, other]


def one_by_one(count: int) -> list[Row]:
    """With a tracker that knows nothing of joint keep-alives."""
    with workplace() as home, ExitStack() as stack:
        tracker = stack.enter_context(SilentTracker())
        daemon = seeding(home, tracker.url, count)
        stack.callback(daemon.kill)
        wait_until(daemon, lambda: tracker.count() >= count)
        assert daemon.process is not None
        before, began = tracker.count_alive(), time.monotonic()
        (ours,) = cpu_percent(daemon, daemon.process.pid)
        a_second = (tracker.count_alive() - before) / (time.monotonic() - began)
        row = Row(f"{count:,} kept alive one by one, CPU of the daemon", "% of a core", "")
        row.add(ours)
        row.note = f"{a_second:.0f} keep-alives a second"
        each = Row("… a keep-alive, all that it takes in a daemon", "µs", "")
        each.add(ours / 100 / a_second * 1e6)
        return [row, each]


def exchanges(rounds: int) -> list[Row]:
    """One exchange after the other, in a process that does nothing else."""
    found = []
    with SilentTracker() as tracker:
        for dialect, name in (("microtorr", "a keep-alive"), ("bittorrent", "an announce")):
            row = Row(f"CPU of {name} alone, from question to answer", "µs", "")
            for _ in range(rounds):
                row.add(exchange_us(tracker.url, dialect))
            found.append(row)
    return found


def exchange_us(url: str, dialect: str) -> float:
    """CPU of one exchange in a process of its own, µs."""
    command = [sys.executable, "-m", "bench.announcing", url, dialect, str(EXCHANGES)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def seeding(home: Path, tracker: str, count: int) -> Daemon:
    """A daemon that seeds so many small files of which the tracker is to know by their contents."""
    content = home / "content"
    content.mkdir()
    daemon = Daemon(home / "daemon", daemon__log_level="warning", swarm__announce_as="microtorr").start()
    try:
        with daemon.client() as client:
            for number in range(count):
                path = content / f"file-{number:05}"
                path.write_bytes(os.urandom(16) * (CONTENT_BYTES // 16))
                raw = for_rpc(mtorrent(path, tracker))
                client.call("torrent.add", metainfo=raw, seed_path=str(path))
    except BaseException:
        daemon.kill()
        raise
    return daemon


def mtorrent(path: Path, tracker: str) -> bytes:
    """One of our own, with an id hash."""
    return build(
        name=path.name,
        piece_length=CONTENT_BYTES,
        files=[FileEntry((path.name,), CONTENT_BYTES)],
        is_single_file=True,
        pieces=hash_pieces(path, CONTENT_BYTES),
        id_hash=hashlib.sha1(path.read_bytes()).digest(),
        trackers=[[tracker]],
    )


def peers_of(port: int) -> int:
    """How many peers that tracker knows."""
    with urlopen(f"http://127.0.0.1:{port}/health") as reply:
        peers: int = json.load(reply)["peers"]
        return peers


def wait_until(daemon: Daemon, is_so: Callable[[], bool]) -> None:
    """Until all have announced themselves."""
    end = time.monotonic() + ANNOUNCE_S
    with daemon.client() as client:
        while not is_so():
            if time.monotonic() > end:
                raise RuntimeError(f"not all announced themselves:\n{daemon.log()[-2000:]}")
            client.next_note(0.5)  # nothing comes: it is a pause


def cpu_percent(daemon: Daemon, *pids: int) -> list[float]:
    """What each of these processes uses while nothing happens, of a core."""
    with daemon.client() as client:
        client.next_note(SETTLE_S)
        before, began = [cpu_s(pid) for pid in pids], time.monotonic()
        client.next_note(MEASURED_S)
        span_s = time.monotonic() - began
        return [(cpu_s(pid) - used) / span_s * 100 for pid, used in zip(pids, before, strict=True)]


if __name__ == "__main__":
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 5000):
        print(" | ".join(row.cells()), row.note)
