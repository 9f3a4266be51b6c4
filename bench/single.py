"""One process at a time: making a `.mtorrent`, checking, memory while seeding and downloading, a ping.

python -m bench.single
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
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
    resident_mib,
    stall_row,
    workplace,
)

SIZE = 4 * GIB
PIECE = 4 * MIB


def rows(rounds: int) -> list[Row]:
    """All of them, over one content of 4 GiB in memory."""
    stalls_s: list[float] = []
    with workplace() as home:
        content = home / "payload"
        make_content(content, SIZE)
        return [
            *create_and_check(home, content, rounds, stalls_s),
            *memory(home, content, stalls_s),
            ping(home, max(rounds, 5)),
            stall_row("longest stall of a hub that checks, seeds or downloads 4 GiB", stalls_s),
        ]


def create_and_check(home: Path, content: Path, rounds: int, stalls_s: list[float]) -> list[Row]:
    """Against what hashing the two halves with two `sha1sum` at once takes."""
    create = Row("create a .mtorrent of 4 GiB", "s", "≤ 1.3 of the time", other="two sha1sum")
    check = Row("check of 4 GiB", "s", "≤ 1.1 of the time", other="two sha1sum")
    libtorrent = Row("check of 4 GiB", "s", "< 1.0", other="libtorrent")
    output = home / "made.mtorrent"
    torrent = home / "payload.torrent"
    torrent.write_bytes(make_torrent(content, PIECE, []))
    for number in range(rounds):
        theirs = two_sha1sums(content)
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "mtorrctl", "create", str(content), "-o", str(output)],
            check=True,
            capture_output=True,
        )
        create.add(time.perf_counter() - began, theirs)
        ours = our_check(home / f"check-{number}", content, torrent.read_bytes(), stalls_s)
        check.add(ours, theirs)
        libtorrent.add(ours, libtorrent_check(home, torrent))
    return [create, check, libtorrent]


def two_sha1sums(content: Path) -> float:
    """Seconds that two processes of coreutils take for half of the content each."""
    half = content.stat().st_size // 2
    commands = [
        f"dd if={content} bs=1M count={half // MIB} status=none | sha1sum",
        f"dd if={content} bs=1M skip={half // MIB} status=none | sha1sum",
    ]
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(
            pool.map(
                lambda command: subprocess.run(command, shell=True, check=True, capture_output=True), commands
            )
        )
    return time.perf_counter() - began


def our_check(home: Path, content: Path, metainfo: bytes, stalls_s: list[float]) -> float:
    """Seconds until a daemon that is handed the content has checked it."""
    with Daemon(home, probed=True, daemon__log_level="warning") as daemon, daemon.client() as client:
        client.subscribe(kinds=["state_changed"])
        began_s = time.monotonic()
        began = time.perf_counter()
        client.call("torrent.add", metainfo=for_rpc(metainfo), seed_path=str(content))
        while (note := client.next_note(120)) is not None:
            if note["state"] == "seeding":
                took_s = time.perf_counter() - began
                stalls_s += hubwatch.durations_s(daemon.probe_path, since_s=began_s)
                return took_s
    raise RuntimeError(f"not checked\n{daemon.log()}")


def libtorrent_check(home: Path, torrent: Path) -> float:
    """The same for libtorrent."""
    command = [sys.executable, "-m", "bench.lt_client", "seed", str(torrent), str(home), "0"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        took = time.perf_counter() - began
        process.kill()
    return took


def memory(home: Path, content: Path, stalls_s: list[float]) -> list[Row]:
    """Of a daemon that seeds 4 GiB, and of one that downloads them."""
    seeding = Row("memory of a daemon seeding 4 GiB", "MiB", "< 80 MiB")
    downloading = Row("peak memory of a daemon downloading 4 GiB", "MiB", "< 160 MiB")
    metainfo = base64.b64decode(for_rpc(make_torrent(content, PIECE, [])))
    with Daemon(
        home / "seeder",
        probed=True,
        tracker__enabled="true",
        tracker__bind="127.0.0.1:0",
        daemon__log_level="warning",
    ) as seeder:
        began_s = time.monotonic()
        url = f"http://127.0.0.1:{seeder.call('session.stats')['tracker_port']}/announce"
        metainfo = make_torrent(content, PIECE, [url])
        with seeder.client() as client:
            client.subscribe(kinds=["state_changed"])
            client.call("torrent.add", metainfo=for_rpc(metainfo), seed_path=str(content))
            while (note := client.next_note(120)) is not None and note["state"] != "seeding":
                continue
        with (
            Daemon(home / "leecher", probed=True, daemon__log_level="warning") as leecher,
            leecher.client() as client,
        ):
            leeching_s = time.monotonic()
            client.subscribe(kinds=["completed"])
            client.call("torrent.add", metainfo=for_rpc(metainfo))
            assert client.next_note(300) is not None
            assert leecher.process is not None and seeder.process is not None
            downloading.add(peak_mib(leecher.process.pid))
            seeding.add(resident_mib(seeder.process.pid))
            stalls_s += hubwatch.durations_s(seeder.probe_path, since_s=began_s)
            stalls_s += hubwatch.durations_s(leecher.probe_path, since_s=leeching_s)
        shutil.rmtree(home / "leecher")
    return [seeding, downloading]


def ping(home: Path, rounds: int) -> Row:
    """Wall clock of `mtorrctl ping`, Python's start included."""
    row = Row("mtorrctl ping", "ms", "< 150 ms", other="python -c pass")
    with Daemon(home / "pinged", daemon__log_level="warning") as daemon:
        program = Path(sys.executable).with_name("mtorrctl")
        for _ in range(rounds):
            began = time.perf_counter()
            subprocess.run([program, "--socket", str(daemon.socket), "ping"], check=True, capture_output=True)
            middle = time.perf_counter()
            subprocess.run([sys.executable, "-c", "pass"], check=True)
            row.add((middle - began) * 1000, (time.perf_counter() - middle) * 1000)
    return row


if __name__ == "__main__":
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        print(" | ".join(row.cells()))
