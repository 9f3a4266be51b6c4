"""Data that is there already is compared as a whole, too: a metainfo that contradicts itself seeds nothing.

Piece hashes and `id_hash` are two statements about the same bytes. A file that matches all pieces and has
another `id_hash` would stand in a swarm of the original's dialect that is another content's.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from bench.daemons import Daemon
from tests.metainfos import HONEST, mtorrent_of
from tests.swarm.conftest import MakeDaemon, mtorrctl, only_row, wait_until
from tests.swarm.disks import plain_log

PIECE_BYTES = 64 << 10
SIZE = 9 * PIECE_BYTES + 5


def lay(place: Path, *, name: str, id_hash: bytes = HONEST) -> tuple[Path, Path]:
    """Content and its `.mtorrent`, by default an honest one."""
    data = random.Random(name).randbytes(SIZE)
    raw = mtorrent_of(name, data, PIECE_BYTES, id_hash=id_hash)
    place.mkdir(exist_ok=True)
    (place / name).write_bytes(data)
    (place / f"{name}.mtorrent").write_bytes(raw)
    return place / name, place / f"{name}.mtorrent"


def shown(daemon: Daemon) -> dict[str, Any]:
    row: dict[str, Any] = daemon.call("torrent.show", id="all.bin")
    return row


@pytest.mark.parametrize("way", ["brought along", "found in the save directory"])
def test_a_wrong_id_hash_is_named_and_nothing_is_announced(
    way: str, make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    daemon = make_daemon("daemon")
    brought = way == "brought along"
    content, mtorrent = lay(
        tmp_path / "there" if brought else daemon.save_to, name="all.bin", id_hash=bytes(20)
    )
    added = mtorrctl(daemon, "add", mtorrent, *(["--seed", content] if brought else []), "--wait")
    assert added.returncode == 1
    assert "does not match the id_hash" in added.stderr
    row = only_row(daemon)
    assert (row["state"], row["error"]["cause"]) == ("failed", "id_hash_mismatch")
    assert row["error"]["path"] == str(content)
    assert shown(daemon)["confirmed"] is False
    log = plain_log(daemon)
    assert sum("id_hash_mismatch" in line for line in log.splitlines()) == 1
    assert "tracker_failed" not in log and "seeding" not in log
    again = mtorrctl(daemon, "resume", "all.bin")
    assert again.returncode == 0
    assert wait_until(daemon, lambda row: row["state"] == "failed")["error"]["cause"] == "id_hash_mismatch"
    assert content.stat().st_size == SIZE


@pytest.mark.parametrize("way", ["brought along", "found in the save directory"])
def test_a_right_one_is_confirmed_once(way: str, make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon("daemon")
    brought = way == "brought along"
    content, mtorrent = lay(tmp_path / "there" if brought else daemon.save_to, name="all.bin")
    added = mtorrctl(daemon, "add", mtorrent, *(["--seed", content] if brought else []), "--wait")
    assert added.returncode == 0, added.stderr
    assert only_row(daemon)["state"] == "seeding"
    assert shown(daemon)["confirmed"] is True
    assert daemon.stop() == 0
    daemon.start()
    assert wait_until(daemon, lambda row: row["state"] != "stopped")["state"] == "seeding"
    assert shown(daemon)["confirmed"] is True


def test_without_a_wait_one_hears_at_once_what_came_of_it(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon("daemon")
    content, mtorrent = lay(tmp_path / "there", name="all.bin")
    added = mtorrctl(daemon, "add", mtorrent, "--seed", tmp_path / "nowhere")
    assert added.returncode == 1
    assert added.stdout == f"failed all.bin in {tmp_path}\n"
    assert f"all.bin failed: {tmp_path}/nowhere: there is no such file or directory" in added.stderr
    assert "it stays on record, and goes on by itself when the cause is gone" in added.stderr
    assert mtorrctl(daemon, "remove", "all.bin").returncode == 0
    (tmp_path / "file").write_text("in the way")
    added = mtorrctl(daemon, "add", mtorrent, "--save-to", tmp_path / "file")
    assert (added.returncode, added.stdout) == (1, f"failed all.bin in {tmp_path}/file\n")
    assert mtorrctl(daemon, "remove", "all.bin").returncode == 0
    added = mtorrctl(daemon, "add", mtorrent, "--save-to", tmp_path / "new")
    assert (added.returncode, added.stdout) == (0, f"downloading all.bin in {tmp_path}/new\n")
    assert mtorrctl(daemon, "remove", "all.bin").returncode == 0
    mistyped = mtorrctl(daemon, "seed", "nowhere")
    assert mistyped.returncode == 4
    assert "nor is there a file or directory of that name here" in mistyped.stderr
    shared = mtorrctl(daemon, "seed", content, "--json")
    assert shared.returncode == 0
    # It may be at it still; but it has read some of it.
    row = json.loads(shared.stdout)["torrent"]
    assert row["state"] == "seeding" or row["checked"] > 0
    wait_until(daemon, lambda row: row["state"] == "seeding")
    moved = mtorrctl(daemon, "move", "all.bin", tmp_path / "file/below")
    assert (moved.returncode, moved.stdout) == (1, "")
    assert f"all.bin stays where it is: {tmp_path}/file/below: Not a directory" in moved.stderr
    moved = mtorrctl(daemon, "move", "all.bin", tmp_path / "below")
    assert (moved.returncode, moved.stdout) == (0, f"moved all.bin to {tmp_path}/below\n")


def test_in_the_foreground_it_ends_with_the_reason(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon("unused")
    content, mtorrent = lay(tmp_path / "there", name="all.bin", id_hash=b"x" * 20)
    done = mtorrctl(daemon, "download", mtorrent, "--seed", content, "--port", "0")
    assert done.returncode == 1
    assert "does not match the id_hash" in done.stdout + done.stderr
