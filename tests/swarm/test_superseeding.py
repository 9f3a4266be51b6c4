"""Super-seeding (BEP 16) with real daemons: two leechers get it all, and the choice outlives a restart."""

from __future__ import annotations

import random
from pathlib import Path

from tests.swarm.conftest import MakeDaemon, mtorrctl, only_row, tracker_url, wait_until

MIB = 1 << 20


def test_two_leechers_of_a_super_seeder(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    content = tmp_path / "thing.bin"
    content.write_bytes(random.Random(9).randbytes(4 * MIB + 12_345))
    seeder = make_daemon("seeder", tracker__enabled="true", tracker__bind="127.0.0.1:0")
    made = mtorrctl(seeder, "seed", content, "--super", "-t", tracker_url(seeder), "-l", "65536")
    assert made.returncode == 0, made.stderr
    wait_until(seeder, lambda row: row["state"] == "seeding")
    leechers = [make_daemon(f"leecher-{number}") for number in (1, 2)]
    for leecher in leechers:
        assert mtorrctl(leecher, "add", f"{content}.mtorrent").returncode == 0
    for leecher in leechers:
        wait_until(leecher, lambda row: row["state"] == "seeding")
        assert (leecher.save_to / "thing.bin").read_bytes() == content.read_bytes()
    assert only_row(seeder)["uploaded_bytes"] < 1.3 * content.stat().st_size
    seeder.stop()
    seeder.start()
    wait_until(seeder, lambda row: row["state"] == "seeding")
    assert seeder.call("torrent.show", id="all")["settings"]["super_seed"] is True
    assert mtorrctl(seeder, "seed", "thing.bin", "--no-super", cwd=tmp_path / "seeder").returncode == 0
    assert seeder.call("torrent.show", id="all")["settings"]["super_seed"] is False
