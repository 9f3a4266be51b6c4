"""Some files of a torrent are wanted and others not: real daemons, and every byte and name compared."""

from __future__ import annotations

import json
import os
import random
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench.daemons import Daemon
from bench.measure import for_rpc
from microtorrd.proto.metainfo import FileEntry, build
from tests.swarm.conftest import MakeDaemon, mtorrctl, only_row, tracker_url, wait_until

PIECE = 1 << 16

#: Sizes that let pieces have bytes of two or three files.
SIZES = {"a/one": 700_001, "a/two": 90_000, "b/empty": 0, "b/three": 1_234_567, "b/tiny": 3, "four": 400_000}

#: What a daemon logs at the end of a move.
MOVED = re.compile(r"\bmoved\b")


def make_tree(root: Path) -> dict[str, bytes]:
    chance = random.Random(11)
    content = {name: chance.randbytes(size) for name, size in SIZES.items()}
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return content


def seen(daemon: Daemon, name: str = "tree") -> dict[str, bytes]:
    """What people see of the content."""
    root = daemon.save_to / name
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def of(content: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: content[name] for name in names}


def file_rows(daemon: Daemon) -> dict[str, dict[str, Any]]:
    rows = daemon.call("torrent.files", id="tree")["files"]
    return {row["path"].removeprefix("tree/"): row for row in rows}


def select(daemon: Daemon, priority: str, *files: str) -> None:
    daemon.call("torrent.select", id="tree", files=list(files), priority=priority)


def seeding(daemon: Daemon) -> dict[str, Any]:
    return wait_until(daemon, lambda row: row["state"] == "seeding")


@pytest.fixture
def content(tmp_path: Path, tracker_daemon: Daemon) -> dict[str, bytes]:
    content = make_tree(tmp_path / "tree")
    ran = mtorrctl(
        tracker_daemon, "seed", tmp_path / "tree", "-t", tracker_url(tracker_daemon), "-l", str(PIECE)
    )
    assert ran.returncode == 0, ran.stderr
    return content


def test_chosen_files_come_alone_and_others_follow_when_they_are_wanted(
    tmp_path: Path, content: dict[str, bytes], make_daemon: MakeDaemon
) -> None:
    leecher = make_daemon("leecher")
    link = tmp_path / "tree.mtorrent"
    wrong = mtorrctl(leecher, "add", link, "--files", "b/thre")
    assert wrong.returncode == 2 and "no file matches 'b/thre'" in wrong.stderr
    added = mtorrctl(leecher, "add", link, "--files", "b/three", "--priority", "high=a/two", "--wait")
    assert added.returncode == 0, added.stderr
    row = only_row(leecher)
    assert (row["state"], row["progress"], row["size_bytes"]) == ("seeding", 1.0, sum(SIZES.values()))
    assert row["done_bytes"] == row["wanted_bytes"] < row["size_bytes"]
    assert seen(leecher) == of(content, "a/two", "b/three")
    assert {name: row["priority"] for name, row in file_rows(leecher).items()} == {
        **dict.fromkeys(SIZES, "off"),
        "a/two": "high",
        "b/three": "normal",
    }

    # A restart, also after SIGKILL, knows what is wanted and reads nothing again.
    leecher.process.send_signal(signal.SIGKILL)
    leecher.process.wait()
    leecher.start()
    row = seeding(leecher)
    assert row["downloaded_bytes"] <= row["wanted_bytes"] and row["progress"] == 1.0
    assert seen(leecher) == of(content, "a/two", "b/three")

    # What moves, moves with what is aside.
    elsewhere = tmp_path / "elsewhere"
    leecher.call("torrent.move", id="tree", save_to=str(elsewhere))
    wait_until(leecher, lambda row: row["save_to"] == str(elsewhere) and row["state"] == "seeding")
    assert os.listdir(leecher.save_to) == []
    leecher.call("torrent.verify", id="tree")
    row = wait_until(leecher, lambda row: row["state"] == "seeding" and row["progress"] == 1.0)

    # One more is wanted, then one of them no more: it is whole, and stays.
    chosen = mtorrctl(leecher, "files", "tree", "--set", "low", "four", "b/empty", "--json")
    assert {row["priority"] for row in json.loads(chosen.stdout) if row["path"] == "tree/four"} == {"low"}
    wait_until(leecher, lambda row: row["state"] == "seeding" and row["wanted_bytes"] > 1_700_000)
    select(leecher, "off", "a/two")
    seeding(leecher)
    assert (elsewhere / "tree" / "a" / "two").read_bytes() == content["a/two"]

    # Who has nothing to give and nothing to take parts, and is called again when that changes.
    wait_until(leecher, lambda row: row["peers"] == 0)
    # All of it, in the end: confirmed as a whole, and nothing is left aside.
    select(leecher, "normal", "*")
    wait_until(leecher, lambda row: row["done_bytes"] == row["size_bytes"] and row["state"] == "seeding")
    root = elsewhere / "tree"
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert found == content
    assert os.listdir(elsewhere) == ["tree"]
    assert leecher.call("torrent.show", id="tree")["confirmed"] is True
    leecher.call("torrent.remove", id="tree", data=True)
    assert leecher.stop() == 0
    assert os.listdir(elsewhere) == []


def test_a_partial_seed_gives_what_it_has_and_what_is_given_up_is_hidden(
    tmp_path: Path, tracker_daemon: Daemon, content: dict[str, bytes], make_daemon: MakeDaemon
) -> None:
    partial = make_daemon("partial")
    assert mtorrctl(partial, "add", tmp_path / "tree.mtorrent", "--files", "a", "--wait").returncode == 0
    tracker_daemon.call("torrent.pause", id="all")
    other = make_daemon("other")
    assert mtorrctl(other, "add", tmp_path / "tree.mtorrent").returncode == 0
    row = wait_until(other, lambda row: row["done_bytes"] >= 700_000)
    assert row["state"] == "downloading"
    rows = file_rows(other)
    wait_until(other, lambda row: file_rows(other)["a/one"]["done_bytes"] >= SIZES["a/one"] - PIECE)
    assert rows["four"]["done_bytes"] == 0
    # What is not whole goes out of sight when nobody wants it any more; nothing of it is lost.
    select(other, "off", "b", "four")
    seeding(other)
    assert seen(other) == of(content, "a/one", "a/two")
    select(other, "off", "*")
    other.call("torrent.pause", id="tree")
    other.call("torrent.verify", id="tree")
    wait_until(other, lambda row: row["state"] == "stopped" and row["checked"] is None)
    assert file_rows(other)["a/one"]["done_bytes"] >= SIZES["a/one"] - PIECE


def test_a_link_chooses_files_before_anybody_knows_them(
    tmp_path: Path, tracker_daemon: Daemon, content: dict[str, bytes], make_daemon: MakeDaemon
) -> None:
    leecher = make_daemon("leecher")
    link = mtorrctl(tracker_daemon, "magnet", "tree").stdout.strip()
    index = {name: row["index"] for name, row in file_rows(tracker_daemon).items()}
    assert mtorrctl(leecher, "add", f"{link}&so={index['a/two']},{index['b/tiny']},999").returncode == 0
    wait_until(leecher, lambda row: row["state"] == "seeding")
    assert seen(leecher) == of(content, "a/two", "b/tiny")
    leecher.call("torrent.remove", id="tree", data=True)
    # What the operator says counts, and is kept over a restart.
    tracker_daemon.call("torrent.pause", id="all")
    assert mtorrctl(leecher, "add", f"{link}&so=0", "--files", "four").returncode == 0
    assert only_row(leecher)["state"] == "resolving"
    assert leecher.stop() == 0
    leecher.start()
    tracker_daemon.call("torrent.resume", id="all")
    wait_until(leecher, lambda row: row["state"] == "seeding")
    assert seen(leecher) == of(content, "four")


def test_a_killed_download_of_chosen_files_goes_on_and_asks_for_nothing_else(
    tmp_path: Path, content: dict[str, bytes], make_daemon: MakeDaemon
) -> None:
    leecher = make_daemon("leecher")
    options = ("--files", "b", "--priority", "high=b/tiny", "--down", "1 MB/s")
    assert mtorrctl(leecher, "add", tmp_path / "tree.mtorrent", *options).returncode == 0
    wait_until(leecher, lambda row: row["done_bytes"] > 300_000)
    leecher.process.send_signal(signal.SIGKILL)
    leecher.process.wait()
    leecher.start()
    wait_until(leecher, lambda row: row["done_bytes"] > 300_000)
    assert mtorrctl(leecher, "limit", "tree", "--down", "none").returncode == 0
    # The choice changes while peers are connected and pieces are on their way.
    select(leecher, "low", "four")
    assert mtorrctl(leecher, "order", "tree", "sequential").returncode == 0
    row = wait_until(leecher, lambda row: row["state"] == "seeding" and row["wanted_bytes"] > 1_600_000)
    assert row["sequential"] is True
    assert row["downloaded_bytes"] <= row["wanted_bytes"] + 300_000  # what a kill can lose is little
    assert seen(leecher) == of(content, "b/empty", "b/three", "b/tiny", "four")


def test_padding_is_fetched_from_nobody_and_programs_stay_programs(
    tmp_path: Path, tracker_daemon: Daemon, make_daemon: MakeDaemon
) -> None:
    content = make_tree(tmp_path / "tree")
    (tmp_path / "tree" / "four").chmod(0o755)
    options = ("--align", "-t", tracker_url(tracker_daemon), "-l", str(8 * PIECE))
    assert mtorrctl(tracker_daemon, "seed", tmp_path / "tree", *options).returncode == 0
    leecher = make_daemon("leecher")
    assert mtorrctl(leecher, "add", tmp_path / "tree.mtorrent", "--wait").returncode == 0
    assert seen(leecher) == content
    row = only_row(leecher)
    blocks = sum(-(-size // 16384) * 16384 for name, size in SIZES.items() if name != "four")
    assert row["downloaded_bytes"] == blocks + SIZES["four"] < row["size_bytes"] - 3 * PIECE
    assert {
        path.name for path in leecher.save_to.rglob("*") if path.is_file() and os.access(path, os.X_OK)
    } == {"four"}
    assert {name for name, row in file_rows(leecher).items() if row["attributes"] == "x"} == {"four"}


@pytest.mark.slow
def test_what_people_do_to_files_that_are_wanted_no_more_is_theirs(
    tmp_path: Path, content: dict[str, bytes], make_daemon: MakeDaemon
) -> None:
    leecher = make_daemon("leecher")
    added = mtorrctl(
        leecher, "add", tmp_path / "tree.mtorrent", "--files", "a", "--files", "b/three", "--wait"
    )
    assert added.returncode == 0, added.stderr
    root = leecher.save_to / "tree"
    # Whole, and turned off: they stay, and are given to others as before.
    select(leecher, "off", "a/*")
    assert seen(leecher) == of(content, "a/one", "a/two", "b/three")
    assert leecher.stop() == 0
    (root / "a" / "two").unlink()
    (root / "a" / "one").write_bytes(b"my own words")
    (root / "b" / "tiny").write_bytes(b"own")
    leecher.start()
    row = wait_until(leecher, lambda row: row["state"] == "seeding")
    assert row["progress"] == 1.0
    mine = {"a/one": b"my own words", "b/tiny": b"own"}
    assert seen(leecher) == {**mine, **of(content, "b/three")}
    # A mount that goes away parks the torrent, and it goes on when it is back.
    gone = tmp_path / "gone"
    leecher.save_to.rename(gone)
    leecher.call("torrent.verify", id="tree")
    wait_until(leecher, lambda row: row["state"] == "failed")
    gone.rename(leecher.save_to)
    wait_until(leecher, lambda row: row["state"] == "seeding")
    assert seen(leecher) == {**mine, **of(content, "b/three")}
    # Wanted again: what lies there is taken for the files, found wanting, and made whole.
    select(leecher, "normal", "*")
    wait_until(leecher, lambda row: row["state"] == "seeding" and row["done_bytes"] == row["size_bytes"])
    assert seen(leecher) == content


def test_choices_that_are_made_at_the_same_time_all_count_and_files_move_when_they_are_followed(
    tmp_path: Path, content: dict[str, bytes], tracker_daemon: Daemon, make_daemon: MakeDaemon
) -> None:
    leecher = make_daemon("leecher")
    assert mtorrctl(leecher, "add", tmp_path / "tree.mtorrent", "--down", "1 MB/s").returncode == 0
    wait_until(leecher, lambda row: row["done_bytes"] > 900_000)
    leecher.call("torrent.pause", id="tree")
    places = [leecher.save_to, tmp_path / "elsewhere"]
    with ThreadPoolExecutor(len(SIZES)) as pool:
        for turn, priority in enumerate(["off", "normal"] * 3):
            list(pool.map(lambda name, wish=priority: select(leecher, wish, name), SIZES))
            assert {row["priority"] for row in file_rows(leecher).values()} == {priority}
            # What is on its way aside, or back, is waited for.
            target = str(places[1 - turn % 2])
            leecher.call("torrent.move", id="tree", save_to=target)
            # The new place is on record a moment before the move is over.
            wait_until(leecher, lambda _, moves=turn + 1: len(MOVED.findall(leecher.log())) == moves)
    wait_until(leecher, lambda row: row["state"] == "stopped")
    leecher.call("torrent.verify", id="tree")
    row = wait_until(leecher, lambda row: row["state"] == "stopped" and row["checked"] is None)
    assert row["done_bytes"] > 900_000, "something was lost on the way"
    assert "move_failed" not in leecher.log()
    leecher.call("torrent.limit", id="tree", down=0)
    leecher.call("torrent.resume", id="tree")
    wait_until(leecher, lambda row: row["state"] == "seeding" and row["done_bytes"] == row["size_bytes"])
    assert seen(leecher) == content


def test_what_is_removed_while_its_files_are_made_leaves_nothing(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("hasty")
    entries = [FileEntry(("tree", f"{number % 9}", f"{number}"), 100) for number in range(3000)]
    raw = build(
        name="tree",
        piece_length=PIECE,
        files=entries,
        is_single_file=False,
        pieces=bytes(20 * -(-100 * len(entries) // PIECE)),
        id_hash=None,
        trackers=[],
    )
    daemon.call("torrent.add", metainfo=for_rpc(raw))
    wait_until(daemon, lambda row: (daemon.save_to / "tree").exists())
    daemon.call("torrent.remove", id="tree", data=True)
    assert daemon.stop() == 0
    assert os.listdir(daemon.save_to) == []
