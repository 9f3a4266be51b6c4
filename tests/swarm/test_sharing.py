"""From one host to others: real daemons, a real tracker, the real client, and every byte compared."""

from __future__ import annotations

import filecmp
import json
import os
import random
from pathlib import Path

import pytest

from bench.daemons import Daemon
from tests.swarm.conftest import MakeDaemon, mtorrctl, only_row, tracker_url, wait_until

MIB = 1 << 20


def make_tree(root: Path, big: int) -> Path:
    """Files of uneven sizes: none, one byte, not a multiple of anything, and a large one."""
    chance = random.Random(7)
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").write_bytes(b"")
    (root / "one").write_bytes(b"x")
    (root / "sub" / "odd").write_bytes(chance.randbytes(1_234_567))
    (root / "sub" / "deep" / "big").write_bytes(chance.randbytes(big))
    return root


def same_trees(one: Path, other: Path) -> bool:
    """Both hold the same files with the same bytes."""
    found = [sorted(str(path.relative_to(root)) for path in root.rglob("*")) for root in (one, other)]
    return found[0] == found[1] and all(
        filecmp.cmp(one / name, other / name, shallow=False) for name in found[0] if (one / name).is_file()
    )


def test_a_directory_travels_and_every_command_works_on_it(
    tmp_path: Path, tracker_daemon: Daemon, make_daemon: MakeDaemon
) -> None:
    source = make_tree(tmp_path / "tree", 24 * MIB)
    leecher = make_daemon("leecher")
    seeded = mtorrctl(tracker_daemon, "seed", source, "-t", tracker_url(tracker_daemon))
    assert seeded.returncode == 0, seeded.stderr
    assert seeded.stdout.strip() == f"{source}.mtorrent"
    added = mtorrctl(leecher, "add", f"{source}.mtorrent", "--wait", "--timeout", "60")
    assert added.returncode == 0, added.stderr
    assert same_trees(source, leecher.save_to / "tree")

    row = json.loads(mtorrctl(leecher, "list", "--json").stdout)[0]
    assert (row["state"], row["progress"], row["name"]) == ("seeding", 1.0, "tree")
    files = json.loads(mtorrctl(leecher, "files", "tree", "--json").stdout)
    assert [file["size_bytes"] for file in files] == [0, 1, 24 * MIB, 1_234_567]
    assert all(file["done_bytes"] == file["size_bytes"] for file in files)
    trackers = json.loads(mtorrctl(leecher, "trackers", "tree", "--json").stdout)
    assert {tracker["dialect"] for tracker in trackers} == {"bittorrent", "microtorr"}

    assert mtorrctl(leecher, "pause", "tree").returncode == 0
    assert only_row(leecher)["state"] == "stopped"
    assert mtorrctl(leecher, "resume", row["info_hash"][:6]).returncode == 0
    assert only_row(leecher)["state"] == "seeding"
    limited = mtorrctl(leecher, "limit", "tree", "--down", "1 MB/s", "--up", "2 MB/s", "--json")
    assert json.loads(limited.stdout) == {"down": 1_000_000, "up": 2_000_000}
    assert mtorrctl(leecher, "verify", "tree").returncode == 0
    wait_until(leecher, lambda row: row["state"] == "seeding")

    elsewhere = tmp_path / "elsewhere"
    assert mtorrctl(leecher, "move", "tree", elsewhere).returncode == 0
    wait_until(leecher, lambda row: row["save_to"] == str(elsewhere) and row["state"] == "seeding")
    assert same_trees(source, elsewhere / "tree")
    assert not (leecher.save_to / "tree").exists()
    leecher.stop()
    leecher.start()
    assert wait_until(leecher, lambda row: row["state"] == "seeding")["save_to"] == str(elsewhere)

    assert mtorrctl(leecher, "remove", "tree", "--data").returncode == 0
    assert leecher.call("torrent.list")["torrents"] == []
    assert mtorrctl(leecher, "inspect", "tree").returncode == 4
    assert leecher.stop() == 0
    assert not (elsewhere / "tree").exists()


def test_events_tell_a_download_from_its_beginning_to_its_end(
    tmp_path: Path, tracker_daemon: Daemon, make_daemon: MakeDaemon
) -> None:
    content = tmp_path / "file.bin"
    content.write_bytes(os.urandom(3 * MIB))
    mtorrctl(tracker_daemon, "seed", content, "-t", tracker_url(tracker_daemon))
    leecher = make_daemon("leecher")
    with leecher.client() as client:
        client.subscribe()
        assert mtorrctl(leecher, "add", f"{content}.mtorrent").returncode == 0
        kinds = []
        completed = None
        while completed is None or kinds[-1] != "state_changed":
            note = client.next_note(30)
            assert note is not None, f"only {kinds} came"
            kinds.append(note["kind"])
            if note["kind"] == "completed":
                completed = note
    assert kinds[0] == "torrent_added"
    assert {"peer_joined", "tracker_announced", "state_changed", "completed"} <= set(kinds)
    assert completed["fetched_bytes"] == 3 * MIB
    assert completed["from_seeders"] == 1.0


def test_thirty_torrents_at_once(tmp_path: Path, tracker_daemon: Daemon, make_daemon: MakeDaemon) -> None:
    leecher = make_daemon("leecher")
    url = tracker_url(tracker_daemon)
    chance = random.Random(30)
    sizes = [chance.randrange(0, 3 * MIB) for _ in range(28)] + [0, 1]
    for number, size in enumerate(sizes):
        (tmp_path / f"file-{number:02}").write_bytes(chance.randbytes(size))
        assert mtorrctl(tracker_daemon, "seed", tmp_path / f"file-{number:02}", "-t", url).returncode == 0
    for number in range(len(sizes)):
        assert mtorrctl(leecher, "add", tmp_path / f"file-{number:02}.mtorrent").returncode == 0
    with leecher.client() as client:
        client.subscribe()
        for _ in range(1000):
            rows = client.call("torrent.list")["torrents"]
            if all(row["state"] == "seeding" for row in rows):
                break
            assert not [row for row in rows if row["state"] == "failed"], rows
            client.next_note(0.1)
    assert [row["state"] for row in rows] == ["seeding"] * len(sizes)
    for number in range(len(sizes)):
        name = f"file-{number:02}"
        assert filecmp.cmp(tmp_path / name, leecher.save_to / name, shallow=False), name


def test_what_is_seeded_must_match(tmp_path: Path, make_daemon: MakeDaemon) -> None:
    content = tmp_path / "file.bin"
    content.write_bytes(os.urandom(MIB))
    daemon = make_daemon("daemon")
    assert mtorrctl(daemon, "create", content).returncode == 0
    damaged = bytearray(content.read_bytes())
    damaged[500_000] ^= 1
    content.write_bytes(damaged)
    # It returns when some of it is read, which may be all.
    assert mtorrctl(daemon, "add", f"{content}.mtorrent", "--seed", content).returncode in (0, 1)
    row = wait_until(daemon, lambda row: row["state"] == "failed")
    assert row["error"]["cause"] == "mismatch"
    assert str(content) in row["error"]["message"]
    assert content.read_bytes() == bytes(damaged)


def test_a_limit_of_the_seeder_holds_for_all_its_peers_together(
    tmp_path: Path, make_daemon: MakeDaemon
) -> None:
    seeder = make_daemon("seeder", tracker__enabled="true", tracker__bind="127.0.0.1:0", limits__up="4 MB/s")
    content = tmp_path / "file.bin"
    content.write_bytes(os.urandom(12 * MIB))
    mtorrctl(seeder, "seed", content, "-t", tracker_url(seeder))
    leechers = [make_daemon(f"leecher-{number}") for number in range(2)]
    for leecher in leechers:
        assert mtorrctl(leecher, "add", f"{content}.mtorrent", "--wait-leechers", "2").returncode == 0
    for leecher in leechers:
        wait_until(leecher, lambda row: row["state"] == "seeding")
        assert filecmp.cmp(content, leecher.save_to / "file.bin", shallow=False)
    sent = seeder.call("session.stats")["uploaded_bytes"]
    # Two copies would be 24 MiB; what one gets from the seeder the other gets from it.
    assert sent <= 1.35 * 12 * MIB


@pytest.mark.parametrize("how", ["pause", "kill"])
def test_a_leecher_goes_on_when_its_only_source_comes_back(
    tmp_path: Path, make_daemon: MakeDaemon, how: str
) -> None:
    tracker = make_daemon("tracker", tracker__enabled="true", tracker__bind="127.0.0.1:0")
    seeder = make_daemon("seeder", limits__up="8 MB/s")
    content = tmp_path / "file.bin"
    content.write_bytes(os.urandom(8 * MIB))
    mtorrctl(seeder, "seed", content, "-t", tracker_url(tracker))
    leecher = make_daemon("leecher")
    assert mtorrctl(leecher, "add", f"{content}.mtorrent").returncode == 0
    wait_until(leecher, lambda row: row["progress"] > 0.2)
    if how == "pause":
        mtorrctl(seeder, "pause", "all")
    else:
        seeder.kill()
    wait_until(leecher, lambda row: row["peers"] == 0)
    assert only_row(leecher)["state"] == "downloading"
    if how == "pause":
        mtorrctl(seeder, "resume", "all")
    else:
        seeder.start()
    wait_until(leecher, lambda row: row["state"] == "seeding")
    assert filecmp.cmp(content, leecher.save_to / "file.bin", shallow=False)
