"""What survives `kill -9`, a clean stop, and somebody who meddles with files meanwhile."""

from __future__ import annotations

import filecmp
import os
import re
from pathlib import Path

import pytest
from gevent import monkey

from bench.daemons import Daemon
from microtorrd.disk.files import FileSet
from tests.swarm.conftest import MakeDaemon, mtorrctl, only_row, tracker_url, wait_until
from tests.swarm.house import House, make_file, make_house

MIB = 1 << 20


def states_since_start(daemon: Daemon) -> list[str]:
    """The states that the torrent went through since the daemon was last started, as its log has them."""
    log = re.sub(r"\x1b\[[0-9;]*m", "", daemon.log())
    return re.findall(r"state_changed.*?\bstate=(\w+)", log[log.rindex("starting") :])


def survive_kills(tmp_path: Path, make_daemon: MakeDaemon, *, size: int, down: str, timeout_s: float) -> None:
    """Kill the downloading daemon five times; each restart goes on with 95 % of what was verified."""
    seeder = make_daemon("seeder", tracker__enabled="true", tracker__bind="127.0.0.1:0")
    content = tmp_path / "file.bin"
    with content.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    mtorrctl(seeder, "seed", content, "-t", tracker_url(seeder))
    leecher = make_daemon("leecher", limits__down=down)
    assert mtorrctl(leecher, "add", f"{content}.mtorrent").returncode == 0
    for share in (0.15, 0.3, 0.45, 0.6, 0.8):
        before = wait_until(leecher, lambda row, share=share: row["progress"] >= share, timeout_s=timeout_s)
        leecher.kill()
        leecher.start()
        after = wait_until(leecher, lambda row: row["state"] in {"downloading", "seeding"})
        assert after["done_bytes"] >= 0.95 * before["done_bytes"]
        assert "checking" not in states_since_start(leecher)
    wait_until(leecher, lambda row: row["state"] == "seeding", timeout_s=timeout_s)
    assert filecmp.cmp(content, leecher.save_to / "file.bin", shallow=False)


def test_five_kills_lose_nothing(tmp_path: Path, make_daemon: MakeDaemon) -> None:
    # At this rate 5 % of what the first kill finds are nearly twice what comes in `ledger.JOURNAL_S`.
    survive_kills(tmp_path, make_daemon, size=96 * MIB, down="8 MB/s", timeout_s=30)


@pytest.mark.slow
def test_five_kills_of_two_gibibytes(tmp_path: Path, make_daemon: MakeDaemon) -> None:
    survive_kills(tmp_path, make_daemon, size=2048 * MIB, down="0", timeout_s=300)


def test_a_seeding_torrent_is_not_checked_again(tmp_path: Path, make_daemon: MakeDaemon) -> None:
    content = tmp_path / "file.bin"
    content.write_bytes(os.urandom(4 * MIB))
    daemon = make_daemon("daemon")
    assert mtorrctl(daemon, "seed", content).returncode == 0
    wait_until(daemon, lambda row: row["state"] == "seeding")
    for end in (daemon.stop, daemon.kill):
        end()
        daemon.start()
        wait_until(daemon, lambda row: row["state"] == "seeding")
        assert states_since_start(daemon) == ["seeding"]


def test_a_file_that_was_changed_meanwhile_is_checked_and_mended(
    tmp_path: Path, tracker_daemon: Daemon, make_daemon: MakeDaemon
) -> None:
    content = tmp_path / "file.bin"
    content.write_bytes(os.urandom(4 * MIB))
    mtorrctl(tracker_daemon, "seed", content, "-t", tracker_url(tracker_daemon))
    leecher = make_daemon("leecher")
    assert mtorrctl(leecher, "add", f"{content}.mtorrent", "--wait").returncode == 0
    leecher.stop()
    with (leecher.save_to / "file.bin").open("r+b") as file:
        file.seek(2 * MIB)
        file.write(b"meddled with")
    leecher.start()
    wait_until(leecher, lambda row: row["state"] == "seeding" and row["progress"] == 1)
    assert "checking" in states_since_start(leecher)
    assert filecmp.cmp(content, leecher.save_to / "file.bin", shallow=False)


def test_a_directory_that_vanishes_parks_the_torrent_until_it_is_back(
    tmp_path: Path, make_daemon: MakeDaemon
) -> None:
    content = tmp_path / "disk" / "file.bin"
    content.parent.mkdir()
    content.write_bytes(os.urandom(2 * MIB))
    daemon = make_daemon("daemon")
    assert mtorrctl(daemon, "seed", content).returncode == 0
    wait_until(daemon, lambda row: row["state"] == "seeding")
    daemon.stop()
    content.parent.rename(tmp_path / "unplugged")
    daemon.start()
    row = wait_until(daemon, lambda row: row["state"] == "failed")
    assert row["error"]["cause"] == "missing_root"
    assert not content.parent.exists()
    (tmp_path / "unplugged").rename(content.parent)
    wait_until(daemon, lambda row: row["state"] == "seeding", timeout_s=30)
    assert only_row(daemon)["error"] is None


def test_a_disk_that_hangs_in_a_sync_does_not_hold_up_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = monkey.get_original("_thread", "allocate_lock")()  # for threads without a hub
    house = make_house(tmp_path)
    house.add(make_file(tmp_path, 1), [])
    house.wait_until(house.all_seed)
    (torrent,) = house.torrents()
    ledger = house.session.facilities.ledger
    ledger.will_write(torrent.info_hash)
    ledger.wrote(torrent.info_hash)

    def hang(files: FileSet, everything: bool = False) -> None:
        with gate:
            return

    monkeypatch.setattr(FileSet, "sync", hang)
    gate.acquire()
    assert house.stop(1.0) < 5.0
    gate.release()
    monkeypatch.undo()
    house = House(tmp_path)
    heard = house.wait_until(house.all_seed)
    assert house.session.list()[0]["progress"] == 1.0
    assert not any(note.get("state") == "checking" for note in heard)
    house.stop()
