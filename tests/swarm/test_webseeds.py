"""Torrents without a peer complete from web servers, and servers that lie or fail are survived."""

from __future__ import annotations

import filecmp
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.daemons import Daemon
from mtorrctl.create import Recipe, create
from tests.net.trackers import Seen, http
from tests.net.web import Answer, WebServer, asked, part
from tests.swarm.conftest import MakeDaemon, mtorrctl, tracker_url, wait_until
from tests.swarm.test_sharing import make_tree, same_trees

MIB = 1 << 20
NOBODY = (("http://127.0.0.1:9/announce",),)


@pytest.fixture
def serve() -> Iterator[Callable[..., WebServer]]:
    """Starts web servers that have these files."""
    servers: list[WebServer] = []

    def start(files: dict[str, bytes], answer: Answer | None = None) -> WebServer:
        servers.append(WebServer(files, answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def torrent(path: Path, *web_seeds: str, trackers: Any = NOBODY, piece_length: int = 65536) -> Path:
    """The metainfo of this content."""
    recipe = Recipe(trackers=trackers, web_seeds=web_seeds, piece_length=piece_length)
    return Path(create(str(path), None, recipe).path)


def add(daemon: Daemon, metainfo: Path) -> None:
    added = mtorrctl(daemon, "add", metainfo)
    assert added.returncode == 0, added.stderr


def complete(row: dict[str, Any]) -> bool:
    return bool(row["state"] == "seeding")


def test_a_file_that_only_a_web_server_has(
    tmp_path: Path, make_daemon: MakeDaemon, serve: Callable[..., WebServer]
) -> None:
    content = tmp_path / "file.bin"
    content.write_bytes(os.urandom(5 * MIB + 77))
    server = serve({"/pub/file.bin": content.read_bytes()})
    leecher = make_daemon("leecher", limits__down="4 MB/s")
    add(leecher, torrent(content, f"{server.url}pub/"))
    row = wait_until(leecher, lambda row: row["progress"] > 0.1)
    assert (row["seeders"], row["peers"]) == (1, 1)
    peers = json.loads(mtorrctl(leecher, "peers", "all", "--json").stdout)
    assert {(peer["client"], peer["host"], peer["is_seeder"]) for peer in peers} == {
        ("web seed", "127.0.0.1", True)
    }
    row = wait_until(leecher, complete)
    assert filecmp.cmp(content, leecher.save_to / "file.bin", shallow=False)
    row = wait_until(leecher, lambda row: row["peers"] == 0)
    assert sum(end - first for _, first, end in server.ranges) == content.stat().st_size
    assert 0 < server.connections <= 3
    assert leecher.stop() == 0


def test_a_directory_that_only_a_web_server_has(
    tmp_path: Path, make_daemon: MakeDaemon, serve: Callable[..., WebServer]
) -> None:
    source = make_tree(tmp_path / "tree", 3 * MIB)
    files = {
        f"/tree/{path.relative_to(source)}": path.read_bytes() for path in source.rglob("*") if path.is_file()
    }
    server = serve(files)
    leecher = make_daemon("leecher")
    add(leecher, torrent(source, server.url))
    wait_until(leecher, complete)
    assert same_trees(source, leecher.save_to / "tree")
    assert all(server.well(seen).startswith(b"HTTP/1.1 206") for seen in server.seen)


def test_who_waits_for_a_seeder_takes_a_web_seed_for_one(
    tmp_path: Path, make_daemon: MakeDaemon, serve: Callable[..., WebServer]
) -> None:
    content = tmp_path / "file.bin"
    content.write_bytes(os.urandom(MIB))
    server = serve({"/file.bin": content.read_bytes()})
    leecher = make_daemon("leecher")
    assert mtorrctl(leecher, "add", torrent(content, server.url), "--wait-seeders", "1").returncode == 0
    wait_until(leecher, complete)


def test_a_server_of_wrong_bytes_is_banned_and_the_peers_are_not(
    tmp_path: Path, tracker_daemon: Daemon, make_daemon: MakeDaemon, serve: Callable[..., WebServer]
) -> None:
    content = tmp_path / "file.bin"
    content.write_bytes(os.urandom(6 * MIB))

    def lie(seen: Seen) -> bytes:
        first, end = asked(seen)
        return part(random.randbytes(end - first), first, 6 * MIB)

    liar = serve({}, lie)
    metainfo = torrent(content, liar.url, trackers=((tracker_url(tracker_daemon),),))
    leecher = make_daemon("leecher")
    add(leecher, metainfo)
    wait_until(leecher, lambda row: "peer_banned" in leecher.log())
    assert mtorrctl(tracker_daemon, "add", metainfo, "--seed", content).returncode == 0
    assert mtorrctl(leecher, "reannounce", "all").returncode == 0
    wait_until(leecher, complete)
    assert filecmp.cmp(content, leecher.save_to / "file.bin", shallow=False)
    shown = json.loads(mtorrctl(leecher, "inspect", "all", "--json").stdout)
    assert shown["corrupt_pieces"] >= 3
    assert [(seed["url"], seed["state"]) for seed in shown["web_seeds"]] == [(liar.url, "banned")]
    assert leecher.call("session.stats")["banned_hosts"] == 0


@pytest.mark.parametrize("how", ["404", "503", "html", "loop", "hang"])
def test_a_bad_server_beside_a_good_one_is_survived(
    tmp_path: Path, make_daemon: MakeDaemon, serve: Callable[..., WebServer], how: str
) -> None:
    content = tmp_path / "file.bin"
    content.write_bytes(os.urandom(3 * MIB))
    answers: dict[str, Answer] = {
        "404": lambda seen: http(b"", "404 Not Found"),
        "503": lambda seen: http(b"", "503 Busy", "Retry-After: 60"),
        "html": lambda seen: http(b"<html>welcome to the hotel</html>"),
        "loop": lambda seen: http(b"", "302 Found", f"Location: {seen.path}"),
        "hang": lambda seen: None,
    }
    bad = serve({}, answers[how])
    good = serve({"/file.bin": content.read_bytes()})
    leecher = make_daemon("leecher")
    add(leecher, torrent(content, bad.url, good.url))
    wait_until(leecher, complete)
    assert filecmp.cmp(content, leecher.save_to / "file.bin", shallow=False)
    (first, second) = leecher.call("torrent.show", id="all")["web_seeds"]
    assert first["state"] == ("idle" if how == "hang" else "resting")
    assert (first["retry_in_s"] or 0) > {"404": 3500, "503": 50, "html": 1700, "loop": 1700, "hang": -1}[how]
    assert (second["state"], second["connections"], second["message"]) == ("idle", 0, "")
    assert "WEB SEED" in mtorrctl(leecher, "inspect", "all").stdout
    assert len(bad.seen) <= (6 if how == "loop" else 1)
    assert len(good.seen) > 0


def test_a_server_that_comes_back_is_asked_again(
    tmp_path: Path, make_daemon: MakeDaemon, serve: Callable[..., WebServer]
) -> None:
    content = tmp_path / "file.bin"
    content.write_bytes(os.urandom(2 * MIB))

    def flaky(seen: Seen) -> bytes:
        return http(b"", "500 Oops") if len(server.seen) == 1 else server.well(seen)

    server = serve({"/file.bin": content.read_bytes()}, flaky)
    leecher = make_daemon("leecher")
    add(leecher, torrent(content, server.url))
    wait_until(leecher, complete)
    assert filecmp.cmp(content, leecher.save_to / "file.bin", shallow=False)
