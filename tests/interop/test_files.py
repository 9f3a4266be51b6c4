"""Chosen files, partial seeds and padding, with libtorrent at the other end, both ways."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.daemons import Daemon
from bench.foreign import Libtorrent
from tests.interop.conftest import require
from tests.swarm.conftest import mtorrctl, only_row, wait_until

SESSION = Path(__file__).with_name("files_session.py")
PIECE = 32_768
SIZES = {"a/one": 700_001, "a/two": 90_000, "b/empty": 0, "b/three": 1_234_567, "b/tiny": 3, "four": 400_000}

#: Makes a torrent with padding and attributes, as libtorrent does by default for hybrid ones.
MAKE = """
import sys, libtorrent as lt
content, target, piece_length = sys.argv[1:]
files = lt.file_storage()
lt.add_files(files, content, lambda path: True, lt.create_torrent.symlinks)
flags = lt.create_torrent.v1_only | lt.create_torrent.canonical_files | lt.create_torrent.symlinks
torrent = lt.create_torrent(files, int(piece_length), flags)
lt.set_piece_hashes(torrent, content.rpartition("/")[0])
open(target, "wb").write(lt.bencode(torrent.generate()))
"""


class Session:
    """The other end."""

    def __init__(self, torrent: Path, save_to: Path, *, peer: str = "", wanted: str = "") -> None:
        save_to.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", SESSION, torrent, save_to, peer, wanted],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer

    def wait(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 60) -> dict[str, Any]:
        end = time.monotonic() + timeout_s
        while True:
            answer = self.ask()
            if wanted(answer):
                return answer
            assert time.monotonic() < end, answer
            time.sleep(0.05)  # another program's process, which tells nothing by itself

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[tuple[Daemon, list[Session], dict[str, bytes]]]:
    """A daemon, the sessions that are to be closed, and the content of `tree`."""
    require(Libtorrent)
    chance = random.Random(12)
    content = {name: chance.randbytes(size) for name, size in SIZES.items()}
    for name, data in content.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    (tmp_path / "tree" / "four").chmod(0o755)
    (tmp_path / "tree" / "link").symlink_to("a/one")
    daemon = Daemon(tmp_path / "daemon")
    sessions: list[Session] = []
    daemon.start()
    yield daemon, sessions, content
    for session in sessions:
        session.close()
    daemon.kill()


def seen(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def follow(daemon: Daemon, torrent: Path, port: int, tmp_path: Path, *options: str) -> None:
    """Add the torrent as a link that names the peer."""
    facts = json.loads(mtorrctl(daemon, "show", torrent, "--json").stdout)
    link = f"magnet:?xt=urn:btih:{facts['info_hash']}&x.pe=127.0.0.1:{port}"
    assert mtorrctl(daemon, "add", link, *options).returncode == 0
    wait_until(daemon, lambda row: row["state"] == "seeding")


def test_chosen_files_of_a_torrent_that_libtorrent_padded(
    tmp_path: Path, stage: tuple[Daemon, list[Session], dict[str, bytes]]
) -> None:
    daemon, sessions, content = stage
    torrent = tmp_path / "tree.torrent"
    command = [sys.executable, "-W", "ignore", "-c", MAKE, tmp_path / "tree", torrent, str(PIECE)]
    subprocess.run(command, check=True)
    sessions.append(Session(torrent, tmp_path))
    port = sessions[0].wait(lambda answer: answer["finished"])["port"]
    follow(daemon, torrent, port, tmp_path, "--files", "b/three", "--files", "four")
    root = daemon.save_to / "tree"
    assert seen(root) == {name: content[name] for name in ("b/three", "four")}
    assert (root / "four").stat().st_mode & 0o100
    # The rest follows, without padding; and what is there without it is the whole content.
    assert mtorrctl(daemon, "files", "tree", "--set", "normal", "*").returncode == 0
    wait_until(daemon, lambda row: row["state"] == "seeding" and row["done_bytes"] == row["size_bytes"])
    assert seen(root) == {**content, "link": content["a/one"]}
    assert os.readlink(root / "link") == "a/one"
    assert sorted(os.listdir(daemon.save_to)) == ["tree"]
    assert mtorrctl(daemon, "remove", "tree").returncode == 0
    seeded = mtorrctl(daemon, "add", torrent, "--seed", tmp_path / "tree", "--wait")
    assert seeded.returncode == 0, seeded.stderr


def test_libtorrent_takes_from_our_partial_seed_what_we_have(
    tmp_path: Path, stage: tuple[Daemon, list[Session], dict[str, bytes]]
) -> None:
    daemon, sessions, content = stage
    torrent = tmp_path / "ours.torrent"
    made = mtorrctl(
        daemon,
        "create",
        tmp_path / "tree",
        "-o",
        torrent,
        "--align",
        "-l",
        str(PIECE),
        "-t",
        "http://127.0.0.1:9",
    )
    assert made.returncode == 0, made.stderr
    sessions.append(Session(torrent, tmp_path))
    port = sessions[0].wait(lambda answer: answer["finished"])["port"]
    follow(daemon, torrent, port, tmp_path, "--files", "a")
    ours = daemon.call("session.stats")["listen_port"]
    sessions.append(Session(torrent, tmp_path / "other", peer=f"127.0.0.1:{ours}"))
    had = -(-SIZES["a/one"] // PIECE) + -(-SIZES["a/two"] // PIECE)
    answer = sessions[1].wait(lambda answer: sum(answer["pieces"]) >= had)
    assert sum(answer["pieces"]) == had
    # It has understood that we want nothing: libtorrent parts with such a peer that has nothing new either.
    sessions[1].wait(lambda answer: not answer["peers"])
    # It counts a piece before all of its bytes are in the files.
    there = tmp_path / "other/tree"
    sessions[1].wait(
        lambda _: all((there / name).read_bytes() == content[name] for name in ("a/one", "a/two"))
    )
    assert only_row(daemon)["uploaded_bytes"] > 0
    # We want more: it is called again, and gets what we get.
    assert mtorrctl(daemon, "files", "tree", "--set", "high", "b").returncode == 0
    sessions[1].wait(lambda answer: sum(answer["pieces"]) > had + SIZES["b/three"] // PIECE)


def test_libtorrent_makes_the_links_that_we_keep(
    tmp_path: Path, stage: tuple[Daemon, list[Session], dict[str, bytes]]
) -> None:
    daemon, sessions, content = stage
    (tmp_path / "tree" / "a" / "chain").symlink_to("../link")
    torrent = tmp_path / "ours.torrent"
    options = ("--links", "--align", "-l", str(PIECE), "-t", "http://127.0.0.1:9")
    assert mtorrctl(daemon, "create", tmp_path / "tree", "-o", torrent, *options).returncode == 0
    assert mtorrctl(daemon, "add", torrent, "--seed", tmp_path / "tree", "--wait").returncode == 0
    ours = daemon.call("session.stats")["listen_port"]
    sessions.append(Session(torrent, tmp_path / "other", peer=f"127.0.0.1:{ours}"))
    sessions[0].wait(lambda answer: answer["finished"])
    copy = tmp_path / "other" / "tree"
    assert seen(copy) == {**content, "link": content["a/one"], "a/chain": content["a/one"]}
    assert (os.readlink(copy / "link"), os.readlink(copy / "a" / "chain")) == ("a/one", "one")


def test_we_take_from_a_partial_seed_of_libtorrent(
    tmp_path: Path, stage: tuple[Daemon, list[Session], dict[str, bytes]]
) -> None:
    daemon, sessions, content = stage
    torrent = tmp_path / "ours.torrent"
    options = ("-l", str(PIECE), "-t", "http://127.0.0.1:9")
    assert mtorrctl(daemon, "create", tmp_path / "tree", "-o", torrent, *options).returncode == 0
    sessions.append(Session(torrent, tmp_path))
    port = sessions[0].wait(lambda answer: answer["finished"])["port"]
    sessions.append(Session(torrent, tmp_path / "other", peer=f"127.0.0.1:{port}", wanted="3"))
    port = sessions[1].wait(lambda answer: answer["finished"])["port"]
    sessions.pop(0).close()
    follow(daemon, torrent, port, tmp_path, "--files", "b/three")
    assert seen(daemon.save_to / "tree") == {"b/three": content["b/three"]}
