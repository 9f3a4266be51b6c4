"""Swarms in which the original program takes part: its seeders, its leechers, and both kinds of ours."""

from __future__ import annotations

import filecmp
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.daemons import Daemon
from tests.swarm.conftest import MakeDaemon, mtorrctl, only_row, tracker_url, wait_until
from tests.swarm.gob_peer import GobPeer, original_mtorrent

MakePeer = Callable[..., GobPeer]


class Stage:
    """A content, its metadata as the original writes it, and who shares it."""

    def __init__(self, folder: Path, tracker: Daemon, size: int, piece_length: int) -> None:
        self.tracker = tracker_url(tracker).removesuffix("/announce")
        self.content = random.Random(size).randbytes(size)
        self.path = folder / "file.bin"
        self.path.write_bytes(self.content)
        self.piece_length = piece_length
        self.mtorrent = original_mtorrent(self.path, self.content, piece_length, self.tracker)
        self.peers: list[GobPeer] = []

    def original(self, name: str, *, seed: bool = False) -> GobPeer:
        peer = GobPeer(self.content, self.piece_length, self.tracker, seed=seed, name=name)
        self.peers.append(peer)
        peer.start()
        return peer

    def seed(self, daemon: Daemon) -> None:
        assert mtorrctl(daemon, "add", self.mtorrent, "--seed", self.path).returncode == 0
        wait_until(daemon, lambda row: row["state"] == "seeding")
        self.wait_until_listed(daemon)

    def leech(self, daemon: Daemon, *options: str) -> None:
        assert mtorrctl(daemon, "add", self.mtorrent, *options).returncode == 0

    def wait_until_listed(self, daemon: Daemon) -> None:
        """Both dialects of the tracker know the daemon: who comes later is told of it."""
        wait_until(
            daemon,
            lambda _: all(
                tracker["state"] == "working"
                for tracker in daemon.call("torrent.trackers", id="all")["trackers"]
            ),
        )

    def wait_for(self, daemon: Daemon) -> None:
        wait_until(daemon, lambda row: row["state"] == "seeding")
        assert filecmp.cmp(self.path, daemon.save_to / "file.bin", shallow=False)


@pytest.fixture
def make_stage(tmp_path: Path, make_daemon: MakeDaemon) -> Iterator[Callable[[int, int], Stage]]:
    stages: list[Stage] = []

    def make(size: int, piece_length: int) -> Stage:
        tracker = make_daemon("tracker", tracker__enabled="true", tracker__bind="127.0.0.1:0")
        stages.append(Stage(tmp_path, tracker, size, piece_length))
        return stages[-1]

    yield make
    for stage in stages:
        for peer in stage.peers:
            peer.stop()


MakeStage = Callable[[int, int], Stage]


@pytest.mark.parametrize(("size", "piece_length"), [(1_000_003, 16_000), (9_000_000, 4 << 20)])
def test_an_original_leecher_is_served(
    make_stage: MakeStage, make_daemon: MakeDaemon, size: int, piece_length: int
) -> None:
    stage, seeder = make_stage(size, piece_length), make_daemon("seeder")
    stage.seed(seeder)
    stage.original("leecher").wait()
    assert only_row(seeder)["uploaded_bytes"] == size


@pytest.mark.parametrize(("size", "piece_length"), [(1_000_003, 16_000), (9_000_000, 4 << 20)])
def test_an_original_seeder_is_found_dialed_and_used(
    make_stage: MakeStage, make_daemon: MakeDaemon, size: int, piece_length: int
) -> None:
    stage = make_stage(size, piece_length)
    seeder = stage.original("seeder", seed=True)
    leecher = make_daemon("leecher")
    stage.leech(leecher)
    stage.wait_for(leecher)
    assert seeder.garbage == 1  # our first words were BitTorrent's
    assert seeder.requests == len(seeder.pieces)


def test_an_original_seeder_comes_to_us(make_stage: MakeStage, make_daemon: MakeDaemon) -> None:
    stage, leecher = make_stage(1_000_003, 16_000), make_daemon("leecher")
    stage.leech(leecher)
    stage.wait_until_listed(leecher)
    seeder = stage.original("seeder", seed=True)
    stage.wait_for(leecher)
    assert (seeder.garbage, seeder.requests) == (0, len(seeder.pieces))


def test_a_swarm_of_both_programs(make_stage: MakeStage, make_daemon: MakeDaemon) -> None:
    stage = make_stage(6_000_003, 16_000)
    ours = [make_daemon(f"ours-{number}", limits__up="3 MB/s") for number in range(2)]
    for daemon in ours:
        stage.leech(daemon)
        stage.wait_until_listed(daemon)
    theirs = [stage.original(f"leecher{number}") for number in range(2)]
    stage.original("seeder", seed=True)
    for daemon in ours:
        stage.wait_for(daemon)
    for peer in theirs:
        peer.wait()
        assert len(peer.sources) > 1  # ours gave, too


def test_an_original_leecher_that_has_to_wait_for_a_slot_is_not_forgotten(
    make_stage: MakeStage, make_daemon: MakeDaemon
) -> None:
    stage = make_stage(1_500_003, 16_000)
    seeder = make_daemon("seeder", swarm__upload_slots=1, limits__up="400 KB/s")
    stage.seed(seeder)
    theirs = [stage.original(f"leecher{number}") for number in range(4)]
    for peer in theirs:
        peer.wait()
