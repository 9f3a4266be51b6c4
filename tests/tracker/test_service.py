"""The tracker's rules, as a course of announces with the time handed in."""

from __future__ import annotations

from typing import Any

import pytest

from microtorrd.errors import ClientError
from microtorrd.proto.announce import AnnounceRequest, Dialect
from microtorrd.proto.compact import host_text, read_host, unpack
from microtorrd.proto.scrape import SwarmCounts
from microtorrd.tracker.service import OpenAdmission, TrackerService
from microtorrd.tracker.settings import TrackerSettings
from microtorrd.tracker.source import Source
from microtorrd.tracker.store import MemoryStore, Sample, StoreBounds
from tests.tracker.store_contract import fixed_chance

SWARM = b"S" * 20


class Scene:
    """A tracker and a clock. Each person has an id of its own, and a host."""

    def __init__(self, bounds: StoreBounds | None = None, **changes: Any) -> None:
        self.settings = TrackerSettings(**{"interval": 900, **changes})
        self.store = MemoryStore(fixed_chance(), bounds or StoreBounds())
        self.service = TrackerService(self.settings, self.store, OpenAdmission())
        self.now = 1000.0

    def announce(
        self,
        who: str,
        event: Any = "started",
        *,
        dialect: Dialect = "microtorr",
        host: str = "192.0.2.1",
        may_name_host: bool = False,
        **fields: Any,
    ) -> Sample:
        packed = read_host(host)
        assert packed is not None
        request = AnnounceRequest(SWARM, who.ljust(20).encode(), event=event, **{"port": 6881, **fields})
        return self.service.announce(request, dialect, Source(packed, may_name_host), self.now)

    def bittorrent(self, who: str, event: Any = "", **fields: Any) -> Sample:
        return self.announce(who, event, dialect="bittorrent", **{"left": 5, **fields})

    def wait(self, seconds: float) -> None:
        self.now += seconds
        while self.service.expire(self.now):
            self.store.check()

    def here(self) -> set[str]:
        """Who is in the swarm, as the next to come is told; it leaves again."""
        sample = self.announce("reader", host="203.0.113.1")
        self.announce("reader", "stopped", host="203.0.113.1")
        return {peer.peer_id.decode().strip() for peer in sample.named}


def test_a_peer_of_the_microtorr_dialect_lives_30_seconds_after_its_last_request() -> None:
    scene = Scene()
    scene.announce("ada")
    scene.wait(29)
    assert scene.here() == {"ada"}
    scene.announce("ada", "alive")
    scene.wait(29)
    assert scene.here() == {"ada"}
    scene.wait(2)
    assert scene.here() == set()


def test_a_bittorrent_peer_lives_two_intervals() -> None:
    scene = Scene(interval=100)
    scene.bittorrent("bob")
    scene.wait(199)
    assert scene.here() == {"bob"}
    scene.wait(2)
    assert scene.here() == set()


def test_a_second_started_refreshes() -> None:
    scene = Scene()
    scene.announce("ada", port=1)
    scene.wait(20)
    scene.announce("ada", port=2)
    scene.wait(20)
    sample = scene.announce("bob")
    assert [unpack(peer.entry) for peer in sample.named] == [("192.0.2.1", 2)]


def test_alive_from_a_stranger_is_an_error_and_leaves_no_ghost() -> None:
    scene = Scene()
    with pytest.raises(ClientError, match="Peer is not in this swarm"):
        scene.announce("ada", "alive")
    assert scene.service.size() == (0, 0)
    scene.announce("ada")
    scene.wait(31)
    with pytest.raises(ClientError):
        scene.announce("ada", "alive")
    assert scene.service.size() == (0, 0)


def test_alive_after_the_time_is_an_error_even_before_anybody_swept() -> None:
    scene = Scene()
    scene.announce("ada")
    scene.now += 31
    with pytest.raises(ClientError):
        scene.announce("ada", "alive")


def test_alive_does_not_move_a_peer() -> None:
    scene = Scene()
    scene.announce("ada", port=1)
    scene.announce("ada", "alive", port=2)
    assert [unpack(peer.entry)[1] for peer in scene.announce("bob").named] == [1]


def test_completed_of_the_microtorr_dialect_counts_and_leaves() -> None:
    scene = Scene()
    scene.announce("ada")
    scene.announce("bob")
    assert scene.announce("ada", "completed") == Sample(complete=0, incomplete=1)
    assert scene.here() == {"bob"}
    assert scene.service.scrape([SWARM]) == {SWARM: SwarmCounts(0, 1, 1)}


def test_completed_of_bittorrent_counts_and_stays() -> None:
    scene = Scene()
    scene.bittorrent("ada", "started")
    scene.bittorrent("ada", "completed", left=0)
    scene.bittorrent("ada", "completed", left=0)
    assert scene.here() == {"ada"}
    assert scene.service.scrape([SWARM]) == {SWARM: SwarmCounts(1, 1, 0)}


@pytest.mark.parametrize("dialect", ["microtorr", "bittorrent"])
def test_stopped_leaves_and_a_stranger_may_stop_too(dialect: Dialect) -> None:
    scene = Scene()
    assert scene.announce("ada", "stopped", dialect=dialect) == Sample(0, 0)
    assert scene.service.size() == (0, 0)
    scene.announce("ada", dialect=dialect)
    scene.announce("ada", "stopped", dialect=dialect)
    assert scene.service.size() == (0, 0)


def test_a_refused_request_changes_nothing() -> None:
    scene = Scene()
    with pytest.raises(ClientError, match="ip must be"):
        scene.announce("ada", ip="tracker.example", may_name_host=True)
    assert scene.service.size() == (0, 0)


@pytest.mark.parametrize(("may_name_host", "told"), [(True, "203.0.113.9"), (False, "192.0.2.1")])
def test_the_ip_parameter_counts_only_for_those_who_may(may_name_host: bool, told: str) -> None:
    scene = Scene()
    scene.announce("ada", ip="203.0.113.9", may_name_host=may_name_host)
    (peer,) = scene.announce("bob").named
    assert host_text(peer.entry[:-2]) == told
    # What is not honoured is not even read.
    if not may_name_host:
        scene.announce("ada", ip="tracker.example")


def test_seeders_are_not_told_seeders() -> None:
    scene = Scene()
    for name in ("s1", "s2"):
        scene.bittorrent(name, left=0)
    scene.bittorrent("leecher")
    sample = scene.bittorrent("s1", left=0, compact=False)
    assert [peer.peer_id.decode().strip() for peer in sample.named] == ["leecher"]
    assert (sample.complete, sample.incomplete) == (2, 1)


def test_both_dialects_meet_in_one_swarm() -> None:
    scene = Scene()
    scene.announce("ada")
    scene.bittorrent("bob")
    assert scene.here() == {"ada", "bob"}
    # A peer that speaks both is one peer, and lives as its last word says.
    scene.bittorrent("ada")
    assert scene.service.size().peers == 2
    scene.wait(31)
    assert scene.here() == {"ada", "bob"}
    scene.announce("ada", "alive")
    scene.wait(31)
    assert scene.here() == {"bob"}


def test_how_many_peers_are_told() -> None:
    scene = Scene(max_peers=60)
    for number in range(100):
        scene.bittorrent(f"p{number}", port=1 + number)

    def told(sample: Sample) -> int:
        return len(sample.entries) // 6 + len(sample.named)

    assert told(scene.bittorrent("p1")) == 50
    assert told(scene.bittorrent("p1", numwant=0)) == 0
    assert told(scene.bittorrent("p1", numwant=7)) == 7
    assert told(scene.bittorrent("p1", numwant=10**18)) == 60
    assert told(scene.bittorrent("p1", compact=False)) == 50
    assert told(scene.announce("p1")) == 60


def test_a_full_tracker_says_so() -> None:
    scene = Scene(bounds=StoreBounds(swarms=0))
    with pytest.raises(ClientError, match="full"):
        scene.announce("ada")


def test_scrape_knows_what_is_known_only() -> None:
    scene = Scene()
    scene.bittorrent("ada", left=0)
    scene.bittorrent("bob")
    assert scene.service.scrape([SWARM, b"T" * 20]) == {SWARM: SwarmCounts(1, 0, 1)}


def test_who_is_not_admitted_gets_the_reason_and_changes_nothing() -> None:
    class Closed:
        def check(self, swarm_id: bytes, passkey: str | None) -> None:
            if passkey != "open sesame":
                raise ClientError("this tracker is not for you")

    store = MemoryStore(fixed_chance(), StoreBounds())
    service = TrackerService(TrackerSettings(), store, Closed())
    request = AnnounceRequest(SWARM, b"A" * 20, 1, "started")
    source = Source(b"\x7f\x00\x00\x01", True)
    with pytest.raises(ClientError, match="not for you"):
        service.announce(request, "microtorr", source, 0.0)
    with pytest.raises(ClientError, match="not for you"):
        service.scrape([SWARM])
    assert store.size() == (0, 0)
    service.announce(request, "microtorr", source, 0.0, passkey="open sesame")
    assert set(service.scrape([SWARM], passkey="open sesame")) == {SWARM}


def test_aria2_with_a_magnet_link_is_told_who_has_the_metadata() -> None:
    scene = Scene()
    scene.bittorrent("seed", left=0)
    sample = scene.bittorrent("A2-1-36-0-", "started", left=0, compact=False)
    assert [peer.peer_id.strip() for peer in sample.named] == [b"seed"]
    assert (sample.complete, sample.incomplete) == (1, 1)
    sample = scene.bittorrent("A2-1-36-0-", left=0, uploaded=1, compact=False)
    assert (sample.complete, sample.incomplete, sample.named) == (2, 0, ())
