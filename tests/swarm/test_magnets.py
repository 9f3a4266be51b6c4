"""Magnet links, followed by real daemons: over a tracker, from peer to peer, past liars, by other clients."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent import socket

from bench.daemons import Daemon
from microtorrd.proto import metainfo
from microtorrd.proto.extended import ExtendedHandshake
from microtorrd.proto.frames import encode
from microtorrd.proto.handshake import HANDSHAKE_BYTES, Handshake
from microtorrd.proto.messages import Extended, HaveNone
from microtorrd.proto.metadata import (
    NAME,
    NUMBER,
    MetadataData,
    MetadataRequest,
    decode_metadata,
    encode_metadata,
    piece_size,
)
from microtorrd.rpc import results
from tests.net.web import WebServer
from tests.swarm.conftest import MakeDaemon, mtorrctl, only_row, tracker_url, wait_until

MIB = 1 << 20

#: What resolving may take on loopback.
RESOLVE_S = 5.0


@pytest.fixture
def content(tmp_path: Path) -> Path:
    path = tmp_path / "thing.bin"
    path.write_bytes(random.Random(5).randbytes(3 * MIB + 12_345))
    return path


def share(daemon: Daemon, content: Path, *options: str | Path) -> str:
    """Seed it and have the link to it."""
    made = mtorrctl(daemon, "seed", content, *options)
    assert made.returncode == 0, made.stderr
    wait_until(daemon, lambda row: row["state"] == "seeding")
    answer = mtorrctl(daemon, "magnet", content.name)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def port_of(daemon: Daemon) -> int:
    port: int = daemon.call("session.stats")["listen_port"]
    return port


def with_peer(link: str, port: int) -> str:
    """The link without trackers, with this peer."""
    kept = [part for part in link.split("&") if not part.startswith("tr=")]
    return "&".join([*kept, f"x.pe=127.0.0.1:{port}"])


def test_over_a_tracker(
    tmp_path: Path, content: Path, tracker_daemon: Daemon, make_daemon: MakeDaemon
) -> None:
    link = share(tracker_daemon, content, "-t", tracker_url(tracker_daemon))
    leecher = make_daemon("leecher")
    began = time.monotonic()
    added = mtorrctl(leecher, "add", link, "--label", "mine", "--down", "50 MB/s", "--json")
    assert added.returncode == 0, added.stderr
    row = json.loads(added.stdout)
    assert (row["state"], row["name"], row["size_bytes"]) == ("resolving", "thing.bin", 0)
    row = wait_until(leecher, lambda row: row["size_bytes"] > 0, timeout_s=30)
    assert time.monotonic() - began < RESOLVE_S
    assert (row["label"], row["piece_count"] > 0) == ("mine", True)
    wait_until(leecher, lambda row: row["state"] == "seeding")
    assert (leecher.save_to / "thing.bin").read_bytes() == content.read_bytes()
    assert leecher.call("torrent.show", id="thing.bin")["settings"]["down"] == 50_000_000
    again = mtorrctl(leecher, "add", link)
    assert (again.returncode, "already here" in again.stderr) == (1, True)
    # The link that the leecher prints says the same, and what it is now survives a restart.
    assert mtorrctl(leecher, "magnet", "thing.bin").stdout.strip() == link
    leecher.stop()
    leecher.start()
    assert wait_until(leecher, lambda row: row["state"] == "seeding")["label"] == "mine"


@pytest.mark.parametrize("kind", ["btih", "mtid"])
def test_from_peer_to_peer(content: Path, make_daemon: MakeDaemon, kind: str) -> None:
    seeder, leecher = make_daemon("seeder"), make_daemon("leecher")
    link = with_peer(share(seeder, content, "-t", "http://127.0.0.1:9/announce"), port_of(seeder))
    other = {"btih": "x.mtid=", "mtid": "xt=urn:btih:"}[kind]
    head, _, query = link.partition("?")
    link = f"{head}?" + "&".join(part for part in query.split("&") if not part.startswith(other))
    link = link.replace("x.mtid=", "xt=urn:mtid:")
    began = time.monotonic()
    added = mtorrctl(leecher, "add", link, "--wait", "--timeout", "60")
    assert added.returncode == 0, added.stderr + leecher.log()[-3000:]
    assert time.monotonic() - began < 2 * RESOLVE_S
    assert (leecher.save_to / "thing.bin").read_bytes() == content.read_bytes()
    assert only_row(leecher)["info_hash"] == only_row(seeder)["info_hash"]


def test_it_waits_through_pauses_and_restarts(content: Path, make_daemon: MakeDaemon) -> None:
    leecher = make_daemon("leecher")
    seeder = make_daemon("seeder")
    port = port_of(seeder)
    link = with_peer(share(seeder, content, "-t", "http://127.0.0.1:9/announce"), port)
    info_hash = only_row(seeder)["info_hash"]
    assert mtorrctl(leecher, "add", link, "--paused").returncode == 0
    assert only_row(leecher)["state"] == "stopped"
    assert mtorrctl(leecher, "limit", info_hash[:6], "--up", "1 MB/s").returncode == 0
    assert mtorrctl(leecher, "verify", info_hash[:6]).returncode == 1
    for reading in ("inspect", "peers", "files", "trackers"):
        assert mtorrctl(leecher, reading, info_hash[:6]).returncode == 0
    assert mtorrctl(leecher, "magnet", info_hash[:6]).stdout.strip() == link
    leecher.kill()
    leecher.start()
    assert only_row(leecher)["state"] == "stopped"
    assert mtorrctl(leecher, "resume", info_hash[:6]).returncode == 0
    row = wait_until(leecher, lambda row: row["state"] == "seeding")
    assert row["info_hash"] == info_hash
    assert leecher.call("torrent.show", id=info_hash)["settings"]["up"] == 1_000_000


def test_a_link_with_everything_in_it_and_files_chosen_before_they_are_known(
    tmp_path: Path, tracker_daemon: Daemon, make_daemon: MakeDaemon
) -> None:
    """A peer, a tracker and a web seed in one link, each of which gives; files by the link, then by hand."""
    names = ("tree/a", "tree/b", "tree/c", "tree/d")
    files = {name: random.Random(name).randbytes(400_000) for name in names}
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    link = share(tracker_daemon, tmp_path / "tree", "-t", tracker_url(tracker_daemon), "-l", "16 KiB")
    untracked, leecher = make_daemon("untracked"), make_daemon("leecher", limits__down="400 kB/s")
    share(
        untracked,
        tmp_path / "tree",
        "-t",
        "http://127.0.0.1:9/announce",
        "-l",
        "16 KiB",
        "-o",
        tmp_path / "2.mtorrent",
    )
    server = WebServer({f"/{name}": data for name, data in files.items()})
    try:
        link += f"&x.pe=127.0.0.1:{port_of(untracked)}&ws={server.url}&so=0-1"
        assert mtorrctl(leecher, "add", link, "--paused").returncode == 0
        for priority, *words in (("off", "3"), ("high", "c"), ("off", "tree/a")):
            leecher.call("torrent.select", id="tree", files=words, priority=priority)
        wrong = mtorrctl(leecher, "files", "tree", "--set", "low", "3-2")
        assert wrong.returncode == 2 and "3-2 is no range" in wrong.stderr
        leecher.kill()
        leecher.start()
        leecher.call("torrent.resume", id="tree")
        wanted = {port_of(untracked), port_of(tracker_daemon), "web seed"}
        wait_until(leecher, lambda row: not wanted - givers(leecher))
        row = wait_until(leecher, lambda row: row["state"] == "seeding")
    finally:
        server.close()
    seen = {path.name: path.read_bytes() for path in (leecher.save_to / "tree").rglob("*") if path.is_file()}
    assert seen == {"b": files["tree/b"], "c": files["tree/c"]}
    assert row["done_bytes"] == row["wanted_bytes"] < row["size_bytes"]
    priorities = [row["priority"] for row in leecher.call("torrent.files", id="tree")["files"]]
    assert priorities == ["off", "normal", "high", "off"]


def givers(daemon: Daemon) -> set[object]:
    """Who has given something of the daemon's one torrent, if it is not resolving any more."""
    peers = daemon.call("torrent.peers", id="all")["peers"]
    return {
        "web seed" if peer["client"] == "web seed" else peer["port"] for peer in peers if peer["down_bytes"]
    }


@pytest.mark.slow
def test_a_choice_that_matches_nothing_can_be_mended(
    tmp_path: Path, content: Path, make_daemon: MakeDaemon
) -> None:
    seeder, leecher = make_daemon("seeder"), make_daemon("leecher")
    link = with_peer(share(seeder, content, "-t", "http://127.0.0.1:9/announce"), port_of(seeder))
    assert mtorrctl(leecher, "add", link, "--paused").returncode == 0
    assert mtorrctl(leecher, "files", "thing.bin", "--set", "off", "nothing.jpg").returncode == 0
    assert mtorrctl(leecher, "resume", "thing.bin").returncode == 0
    row = wait_until(leecher, lambda row: row["state"] == "failed")
    assert "no file matches 'nothing.jpg'" in row["error"]["message"]
    assert mtorrctl(leecher, "files", "thing.bin", "--set", "normal", "*").returncode == 0
    assert mtorrctl(leecher, "resume", "thing.bin").returncode == 0
    wait_until(leecher, lambda row: row["state"] == "seeding")
    assert (leecher.save_to / "thing.bin").read_bytes() == content.read_bytes()


def test_one_that_leads_nowhere_can_be_removed(make_daemon: MakeDaemon) -> None:
    leecher = make_daemon("leecher")
    link = f"magnet:?xt=urn:btih:{'ab' * 20}&x.pe=127.0.0.1:1"
    assert mtorrctl(leecher, "add", link).returncode == 0
    waited = mtorrctl(leecher, "add", f"magnet:?xt=urn:btih:{'cd' * 20}", "--wait", "--timeout", "1 s")
    assert waited.returncode == 124, waited.stderr
    assert mtorrctl(leecher, "remove", "all", "--data").returncode == 0
    assert leecher.call("torrent.list")["torrents"] == []
    leecher.stop()
    leecher.start()
    assert leecher.call("torrent.list")["torrents"] == []


class Liar:
    """A peer that has the metadata, it says, and hands over as many zeros as it promised; or has none."""

    def __init__(self, info_hash: bytes, size: int | None) -> None:
        self.info_hash = info_hash
        self.size = size
        self.given = 0
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        self._greenlets = [gevent.spawn(self._accept)]

    def close(self) -> None:
        gevent.killall(self._greenlets)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            self._greenlets.append(gevent.spawn(self._talk, sock))

    def _talk(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as stream:
            stream.read(HANDSHAKE_BYTES)
            number = 0
            words = ExtendedHandshake(m={NAME: NUMBER}, client="liar", metadata_size=self.size)
            sock.sendall(Handshake(self.info_hash, b"-LI0000-%012d" % self.port).encode())
            sock.sendall(encode(Extended(0, words.encode())) + encode(HaveNone()))
            while len(head := stream.read(4)) == 4:
                frame = stream.read(int.from_bytes(head, "big"))
                if frame[:2] == b"\x14\x00":
                    number = ExtendedHandshake.decode(frame[2:]).m.get(NAME, 0)
                elif frame[:2] == bytes((20, NUMBER)):
                    asked = decode_metadata(frame[2:])
                    assert isinstance(asked, MetadataRequest)
                    assert self.size is not None
                    zeros = bytes(piece_size(self.size, asked.piece))
                    answer = encode_metadata(MetadataData(asked.piece, self.size, zeros))
                    sock.sendall(encode(Extended(number, answer)))
                    self.given += 1


def test_what_people_see_has_the_same_keys_as_of_a_torrent(make_daemon: MakeDaemon) -> None:
    leecher = make_daemon("leecher")
    useless = Liar(b"\xab" * 20, None)
    link = (
        f"magnet:?xt=urn:btih:{'ab' * 20}&dn=some+thing&tr=http://127.0.0.1:9/&x.pe=127.0.0.1:{useless.port}"
    )
    try:
        assert mtorrctl(leecher, "add", link).returncode == 0
        row = wait_until(leecher, lambda row: row["peers"] == 1)
        assert (row["name"], row["state"], row["progress"]) == ("some thing", "resolving", 0.0)
        assert row.keys() == results.Torrent.__annotations__.keys()
        details = leecher.call("torrent.show", id="some thing")
        assert (
            details.keys()
            == {**results.Torrent.__annotations__, **results.TorrentDetails.__annotations__}.keys()
        )
        (peer,) = leecher.call("torrent.peers", id="some thing")["peers"]
        assert peer.keys() == results.Peer.__annotations__.keys()
        (tracker,) = leecher.call("torrent.trackers", id="some thing")["trackers"]
        assert tracker["url"] == "http://127.0.0.1:9/"
        assert mtorrctl(leecher, "pause", "some thing").returncode == 0
        assert leecher.call("session.stats")["connections"] == 0
    finally:
        useless.close()


@pytest.mark.parametrize("lie", ["about the bytes", "about the size"])
def test_past_liars(content: Path, make_daemon: MakeDaemon, lie: str) -> None:
    seeder, leecher = make_daemon("seeder"), make_daemon("leecher")
    link = share(seeder, content, "-t", "http://127.0.0.1:9/announce", "-l", "1024")
    meta = metainfo.parse(Path(f"{content}.mtorrent").read_bytes())
    assert len(meta.raw_info) > 3 * 16384
    size = len(meta.raw_info) + (0 if lie == "about the bytes" else 100_000)
    liar = Liar(meta.info_hash, size)
    try:
        link = with_peer(link, liar.port)
        # The honest one comes when the liar was heard, or it would be done before.
        seeder.call("torrent.pause", id="all")
        assert mtorrctl(leecher, "add", f"{link}&x.pe=127.0.0.1:{port_of(seeder)}").returncode == 0
        wait_until(leecher, lambda _: liar.given > 0)
        seeder.call("torrent.resume", id="all")
        wait_until(leecher, lambda row: row["state"] == "seeding")
    finally:
        liar.close()
    assert (leecher.save_to / "thing.bin").read_bytes() == content.read_bytes()


class Libtorrent:
    """libtorrent in a process of its own, which says what it has done."""

    def __init__(self, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.swarm.magnet_client", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self, word: str) -> str:
        """What follows this word on its next line."""
        assert self._process.stdout is not None
        with gevent.Timeout(60):
            first, _, rest = self._process.stdout.readline().strip().partition(" ")
        assert first == word
        return rest

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def libtorrent() -> Iterator[list[Libtorrent]]:
    """Put them in here, and they end with the test."""
    clients: list[Libtorrent] = []
    yield clients
    for client in clients:
        client.end()


def test_libtorrent_follows_our_link(
    tmp_path: Path, content: Path, make_daemon: MakeDaemon, libtorrent: list[Libtorrent]
) -> None:
    seeder = make_daemon("seeder")
    link = share(seeder, content, "-t", "http://127.0.0.1:9/announce", "-l", "1024")
    directory = tmp_path / "libtorrent"
    directory.mkdir()
    began = time.monotonic()
    client = Libtorrent("fetch", link, directory, port_of(seeder))
    libtorrent.append(client)
    assert client.says("resolved") == only_row(seeder)["info_hash"]
    assert time.monotonic() - began < RESOLVE_S
    client.says("done")
    assert (directory / "thing.bin").read_bytes() == content.read_bytes()


def test_we_follow_the_link_to_a_seeding_libtorrent(
    tmp_path: Path, content: Path, make_daemon: MakeDaemon, libtorrent: list[Libtorrent]
) -> None:
    made = mtorrctl(make_daemon("unused"), "create", content, "-l", "1024", "-o", tmp_path / "x.torrent")
    assert made.returncode == 0, made.stderr
    client = Libtorrent("seed", tmp_path / "x.torrent", tmp_path)
    libtorrent.append(client)
    port = client.says("ready")
    info_hash = metainfo.parse((tmp_path / "x.torrent").read_bytes()).info_hash.hex()
    leecher = make_daemon("leecher")
    began = time.monotonic()
    link = f"magnet:?xt=urn:btih:{info_hash}&x.pe=127.0.0.1:{port}"
    assert mtorrctl(leecher, "add", link).returncode == 0
    wait_until(leecher, lambda row: row["size_bytes"] > 0, timeout_s=30)
    assert time.monotonic() - began < RESOLVE_S
    row = wait_until(leecher, lambda row: row["state"] == "seeding")
    assert row["name"] == "thing.bin"
    assert (leecher.save_to / "thing.bin").read_bytes() == content.read_bytes()
