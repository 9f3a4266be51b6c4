"""Whole swarms of real cores under a virtual clock: everybody completes, nothing stalls, the load is spread.

The fluid limit is what no protocol can beat: a content of S bytes, a seeder of u and leechers of U bytes per
second each take at least max(S/u, S x N / (u + N x U)).
"""

from __future__ import annotations

from typing import Any

import pytest

from microtorrd.core import events
from microtorrd.core.events import Stopped
from microtorrd.core.settings import SwarmSettings, TorrentSettings
from tests.sim.net import Host, Net

MB = 1_000_000
MiB = 1 << 20


def statistics(host: Host) -> dict[str, Any]:
    (note,) = [note for note in host.notes if note.kind == "completed"]
    return note.facts


def fan_out(
    leechers: int, *, up: float, leecher_up: float, pieces: int = 64, seed: int = 1
) -> tuple[Net, Host, list[Host], float]:
    """One seeder and some leechers that start together. Returns also the time as a multiple of the limit."""
    net = Net(pieces=pieces, piece_length=MiB, seed=seed)
    seeder = net.host(seed=True, up=up)
    others = [net.host(up=leecher_up) for _ in range(leechers)]
    net.introduce_all()
    took = net.run_to_completion(600)
    size = net.geometry.length
    limit = max(size / up, size * leechers / (up + leechers * leecher_up))
    return net, seeder, others, took / limit


def test_a_pair() -> None:
    _, seeder, (leecher,), ratio = fan_out(1, up=100 * MB, leecher_up=100 * MB)
    assert ratio < 1.05
    assert seeder.sent_bytes == 64 * MiB
    assert leecher.core.swarm.wasted_bytes == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_walk_through_of_the_original(seed: int) -> None:
    """100 MiB, a seeder of 3 MB/s, two leechers: each has half from the seeder and half from the other."""
    _, seeder, leechers, ratio = fan_out(2, up=3 * MB, leecher_up=100 * MB, pieces=100, seed=seed)
    assert ratio < 1.05
    assert seeder.sent_bytes < 1.05 * 100 * MiB
    for leecher in leechers:
        assert 0.4 < statistics(leecher)["from_seeders"] < 0.6


@pytest.mark.parametrize("seed", range(3))
def test_a_capped_seeder_sends_one_copy_to_eight(seed: int) -> None:
    _, seeder, leechers, ratio = fan_out(8, up=8 * MB, leecher_up=100 * MB, seed=seed)
    assert ratio < 1.15
    assert seeder.sent_bytes < 1.1 * 64 * MiB
    shares = [statistics(leecher)["from_seeders"] for leecher in leechers]
    assert max(shares) < 0.3


def test_without_suggestions_it_still_spreads() -> None:
    """As with a seeder of another make: rarest first alone. A seed gives 1.26 to 1.62 of the limit."""
    took_s = sent_bytes = 0.0
    for seed in range(1, 7):
        net = Net(pieces=64, piece_length=MiB, seed=seed)
        seeder = net.host(seed=True, up=8 * MB, fast=False)
        for _ in range(8):
            net.host(up=100 * MB)
        net.introduce_all()
        took_s += net.run_to_completion(600) / 6
        sent_bytes += seeder.sent_bytes / 6
    assert took_s < 1.5 * 64 * MiB / (8 * MB)
    assert sent_bytes < 1.5 * 64 * MiB


def test_leechers_that_are_the_bottleneck_are_all_used() -> None:
    _, seeder, _, ratio = fan_out(8, up=8 * MB, leecher_up=2 * MB)
    assert ratio < 1.35
    assert seeder.sent_bytes > 2 * 64 * MiB


def test_many_small_pieces() -> None:
    net = Net(pieces=500, piece_length=16000)
    net.host(seed=True, up=2 * MB)
    for _ in range(4):
        net.host(up=10 * MB)
    net.introduce_all()
    assert net.run_to_completion(600) < 1.3 * net.geometry.length / (2 * MB)


def small(seed: int, *, pieces: int = 20) -> Net:
    """Uneven pieces, and every core audited after every fact."""
    return Net(pieces=pieces, piece_length=100_000, length=pieces * 100_000 - 50_001, seed=seed, audited=True)


@pytest.mark.parametrize("seed", range(3))
def test_little_memory_is_enough(seed: int) -> None:
    net = small(seed)
    net.host(seed=True, up=3 * MB)
    leechers = [net.host(up=5 * MB, memory=200_000) for _ in range(4)]
    net.introduce_all()
    net.run_to_completion(60)
    net.run(5)
    assert [leecher.borrowed for leecher in leechers] == [0] * 4


@pytest.mark.parametrize("seed", range(3))
def test_a_liar_is_banned_and_nobody_suffers(seed: int) -> None:
    net = small(seed)
    net.host(seed=True, up=3 * MB)
    liar = net.host(seed=True, up=3 * MB, lies=0.3)
    leechers = [net.host(up=5 * MB) for _ in range(3)]
    net.introduce_all()
    assert net.run_to_completion(60) < 5
    for leecher in leechers:
        assert {ban.host for ban in leecher.bans} <= {liar.address[0]}
    assert any(leecher.bans for leecher in leechers)


@pytest.mark.parametrize("seed", range(3))
def test_a_seeder_that_freezes_holds_nobody(seed: int) -> None:
    net = small(seed)
    net.host(seed=True, up=3 * MB)
    frozen = net.host(seed=True, up=3 * MB)
    leechers = [net.host(up=5 * MB) for _ in range(3)]
    net.introduce_all()
    net.run(0.3)
    net.freeze(frozen)
    assert net.run(60, until=lambda: all(leecher.complete for leecher in leechers)) < 6


@pytest.mark.parametrize("seed", range(3))
def test_a_leecher_that_freezes_holds_nobody_and_goes_on_later(seed: int) -> None:
    net = small(seed)
    net.host(seed=True, up=3 * MB)
    leechers = [net.host(up=5 * MB) for _ in range(3)]
    net.introduce_all()
    net.run(0.3)
    net.freeze(leechers[0])
    assert net.run(60, until=lambda: all(leecher.complete for leecher in leechers[1:])) < 6
    net.thaw(leechers[0])
    net.run_to_completion(60)


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_peer_does_not_drag_out_the_end(seed: int) -> None:
    net = small(seed)
    net.host(seed=True, up=3 * MB)
    net.host(seed=True, up=0.03 * MB)
    leechers = [net.host(up=5 * MB) for _ in range(3)]
    net.introduce_all()
    assert net.run(60, until=lambda: all(leecher.complete for leecher in leechers)) < 4


@pytest.mark.parametrize("seed", range(4))
def test_peers_that_come_and_go(seed: int) -> None:
    net = small(seed, pieces=40)
    net.host(seed=True, up=2 * MB)
    for turn in range(12):
        net.host(up=3 * MB, latency_s=0.01)
        net.introduce(net.hosts[-1], *net.hosts[:-1])
        net.run(0.25)
        if turn % 3 == 2:
            net.kill(net.hosts[-2])
    net.run_to_completion(120)


def test_a_seeder_that_leaves_early_is_not_missed_when_every_piece_is_somewhere() -> None:
    net = small(1, pieces=40)
    seeder = net.host(seed=True, up=4 * MB)
    leechers = [net.host(up=2 * MB) for _ in range(4)]
    net.introduce_all()

    def everything_is_out() -> bool:
        had = leechers[0].core.have.bits.copy()
        for leecher in leechers[1:]:
            had |= leecher.core.have.bits
        return bool(had.all())

    net.run(60, until=everything_is_out)
    net.kill(seeder)
    assert not all(leecher.complete for leecher in leechers)
    net.run_to_completion(60)


def test_who_lost_the_only_seeder_waits_and_goes_on_when_it_is_back() -> None:
    net = small(2)
    seeder = net.host(seed=True, up=2 * MB)
    leechers = [net.host(up=5 * MB) for _ in range(2)]
    net.introduce_all()
    net.run(0.4)
    net.post(seeder, Stopped())
    net.run(30)
    assert [leecher.core.state_shown()[0] for leecher in leechers] == ["downloading"] * 2
    net.post(seeder, events.Started())
    net.run_to_completion(60)


def test_seeders_part_and_the_swarm_comes_to_rest() -> None:
    net = small(3)
    for seed in (True, False, False):
        net.host(seed=seed, up=5 * MB)
    net.introduce_all()
    net.run_to_completion(60)
    net.run(60)
    assert [len(host.links) for host in net.hosts] == [0] * 3
    assert all(host.core.idle for host in net.hosts)
    assert [host.announced for host in net.hosts[1:]] == [["started", "completed"]] * 2


@pytest.mark.parametrize("seed", range(5))
def test_leechers_that_wait_for_each_other_and_leave_at_once(seed: int) -> None:
    """Two leechers that wait for two, and go when they are done: nobody is left behind."""
    net = small(seed, pieces=2)
    torrent = TorrentSettings(wait_seeders=1, wait_leechers=2, seed_after_download=False)
    leechers = [net.host(up=100 * MB, torrent=torrent) for _ in range(2)]
    net.introduce_all()
    net.run(10)
    assert [leecher.core.state_shown()[0] for leecher in leechers] == ["waiting"] * 2
    seeder = net.host(seed=True, up=100 * MB)
    net.introduce(seeder, *leechers)
    net.run_to_completion(20)
    net.run(10)
    assert [leecher.announced for leecher in leechers] == [["started", "completed", "stopped"]] * 2


def test_few_slots_serve_many_in_turns() -> None:
    net = Net(pieces=32, piece_length=1 << 18, seed=4)
    settings = SwarmSettings(upload_slots=2)
    net.host(seed=True, up=4 * MB, settings=settings)
    for _ in range(12):
        net.host(up=2 * MB, settings=settings)
    net.introduce_all()
    assert net.run_to_completion(600) < 60


def test_crossing_connections_end_as_one() -> None:
    net = small(5)
    hosts = [net.host(seed=seed, up=5 * MB) for seed in (True, False, False)]
    for host in hosts:
        net.introduce(host, *hosts)
    net.run(0.5)
    assert [len(host.core.swarm.peers) for host in hosts] == [2] * 3
    net.run_to_completion(60)
