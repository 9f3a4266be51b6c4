"""The main job, to look at: a tracker and a seeder share a real file with two leechers, on this machine.

    make demo

Three daemons are started as processes, a file is made of what lies on this machine (so it is real, and 128
MiB), shared, fetched by two leechers at once, and compared. Everything lies in a temporary directory and ends
with the command.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.daemons import Daemon
from mtorrctl import render

SIZE_BYTES = 128 << 20
WIDTH = 32
LEECHERS = 2

#: Slow enough to be watched, and to show that the seeder is not the only source.
SEEDER_UP = "16 MB/s"


def main() -> int:
    """Run the demonstration; 0 when every byte arrived."""
    with tempfile.TemporaryDirectory(prefix="microtorrd-demo-") as name:
        return demonstrate(Path(name))


def demonstrate(home: Path) -> int:
    """Everything, below `home`."""
    print("microtorrd: one seeder, two leechers and a tracker, each a process of its own\n")
    seeder = Daemon(
        home / "seeder",
        tracker__enabled="true",
        tracker__bind="127.0.0.1:0",
        limits__up=SEEDER_UP,
        swarm__always_unchoke="true",
    )
    leechers = [Daemon(home / f"leecher-{number}") for number in range(1, LEECHERS + 1)]
    original = home / "archive.bin"
    step("making", f"{original.name} of {render.size(SIZE_BYTES)} from the files of this Python")
    expected = make_file(original)
    with seeder:
        tracker = f"http://127.0.0.1:{seeder.call('session.stats')['tracker_port']}/announce"
        step("tracker", f"serving on {tracker}")
        run_client(seeder, "seed", str(original), "--tracker", tracker)
        metainfo = original.with_name(original.name + ".mtorrent")
        step("seeder", f"wrote {metainfo.name}, seeds at most {SEEDER_UP}")
        wait_for(seeder, "seeding")
        with leechers[0], leechers[1]:
            for leecher in leechers:
                run_client(leecher, "add", str(metainfo), "--wait-leechers", str(LEECHERS))
            began = time.monotonic()
            rows = watch(leechers, began)
            return summarize(leechers, rows, expected, seeder, time.monotonic() - began)


def make_file(path: Path) -> str:
    """Write SIZE_BYTES of the machine's own files; the SHA-1 of it."""
    digest = hashlib.sha1()
    left = SIZE_BYTES
    with path.open("wb") as out:
        for chunk in real_bytes():
            part = chunk[:left]
            out.write(part)
            digest.update(part)
            left -= len(part)
            if not left:
                break
    return digest.hexdigest()


def real_bytes() -> Iterator[bytes]:
    """What lies in Python's own directories, over and over, each round told apart by its number."""
    roots = [Path(sysconfig.get_path("platlib")), Path(sysconfig.get_path("stdlib"))]
    files = [file for root in roots for file in sorted(root.rglob("*")) if file.is_file()]
    for number in range(1_000_000):
        yield f"round {number}\n".encode()
        for file in files:
            yield file.read_bytes()


def run_client(daemon: Daemon, *arguments: str) -> None:
    """What an operator would type."""
    status = os.spawnv(
        os.P_WAIT,
        sys.executable,
        [sys.executable, "-m", "mtorrctl", "--socket", str(daemon.socket), *arguments],
    )
    if status:
        raise SystemExit(f"mtorrctl {' '.join(arguments)} failed with exit code {status}")


def wait_for(daemon: Daemon, state: str) -> None:
    """Until the one torrent of this daemon is in that state, on its notes."""
    with daemon.client() as client:
        client.subscribe()
        while (row := client.call("torrent.list")["torrents"][0])["state"] != state:
            if row["state"] == "failed":
                raise SystemExit(f"the torrent failed: {row['error']}")
            client.next_note(0.5)


def watch(leechers: list[Daemon], began: float) -> list[dict[str, Any]]:
    """Show how far each is until all have everything; the last rows."""
    live = sys.stdout.isatty()
    clients = [leecher.client() for leecher in leechers]
    clients[0].subscribe(kinds=["completed"])
    said = -1
    while True:
        rows = [client.call("torrent.list")["torrents"][0] for client in clients]
        elapsed = time.monotonic() - began
        done = all(row["state"] == "seeding" for row in rows)
        if live:
            for number, row in enumerate(rows, 1):
                print(f"\x1b[2K{line(number, row)}")
            print(
                f"\x1b[2K  {elapsed:5.1f} s" + ("" if done else f"\x1b[{len(rows)}A\r"),
                end="\n" if done else "",
            )
            sys.stdout.flush()
        elif int(elapsed) > said or done:
            said = int(elapsed)
            for number, row in enumerate(rows, 1):
                print(f"{elapsed:5.1f} s {line(number, row)}", flush=True)
        failed = next((row for row in rows if row["state"] == "failed"), None)
        if failed is not None:
            raise SystemExit(f"a leecher failed: {failed['error']}")
        if done:
            for client in clients:
                client.close()
            return rows
        clients[0].next_note(0.2)  # or a fifth of a second, whichever comes first


def line(number: int, row: dict[str, Any]) -> str:
    """One leecher as a bar."""
    filled = round(row["progress"] * WIDTH)
    bar = "#" * filled + "-" * (WIDTH - filled)
    return (
        f"  leecher {number} [{bar}] {row['progress']:4.0%}  down {render.rate(row['down_bytes_per_s']):>10}"
        f"  up {render.rate(row['up_bytes_per_s']):>10}  {row['state']}"
    )


def summarize(
    leechers: list[Daemon], rows: list[dict[str, Any]], expected: str, seeder: Daemon, elapsed: float
) -> int:
    """Compare what arrived, and say who gave what."""
    print()
    good = True
    for number, (leecher, row) in enumerate(zip(leechers, rows, strict=True), 1):
        with (leecher.save_to / row["name"]).open("rb") as file:
            found = hashlib.file_digest(file, "sha1").hexdigest()
        good = good and found == expected
        details = leecher.call("torrent.show", id="all")
        share = (details["last_download"] or {}).get("from_seeders", 0.0)
        verdict = "identical" if found == expected else "DIFFERENT"
        step(f"leecher {number}", f"{verdict} (SHA-1 {found[:16]}…), {share:.0%} of it from the seeder")
    sent = seeder.call("session.stats")["uploaded_bytes"]
    step("seeder", f"sent {sent / SIZE_BYTES:.2f} copies for {len(leechers)} leechers")
    step("done", f"{render.size(SIZE_BYTES * len(leechers))} delivered and verified in {elapsed:.1f} s")
    return 0 if good else 1


def step(who: str, what: str) -> None:
    """One line of the story."""
    print(f"{who:>10}  {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
