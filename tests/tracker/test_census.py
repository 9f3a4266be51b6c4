"""Counting all swarms in slices: what is counted, in which order, how often, and that nobody waits for it."""

from __future__ import annotations

from random import Random

import gevent
import pytest

from microtorrd.greenlets import breathe
from microtorrd.proto.scrape import SwarmCounts
from microtorrd.tracker import census as room
from microtorrd.tracker.census import FRESH_S, KEPT_S, LARGEST, Census, SwarmRow
from microtorrd.tracker.store import MemoryStore, StoreBounds
from tests.tracker.store_contract import fixed_chance, peer


class Scene:
    """A store whose swarms have the sizes that are said, and its census."""

    def __init__(self, sizes: list[int]) -> None:
        self.now = 1000.0
        self.store = MemoryStore(fixed_chance(), StoreBounds())
        chance = Random(7)
        self.rows = [self.add(chance.randbytes(20), size) for size in sizes]
        self.census = Census(self.store, lambda: self.now)

    def add(self, swarm_id: bytes, size: int) -> SwarmRow:
        """A swarm of so many peers, of whom the first is complete and has just finished."""
        for number in range(size):
            whole = number == 0
            self.store.enter(
                swarm_id, peer(number, complete=whole), expires_at=2e3, finished=whole, want=0, named=False
            )
        return SwarmRow(swarm_id, 1, size - 1, 1)


def size(row: SwarmRow) -> tuple[int, bytes]:
    return -row.complete - row.incomplete, row.swarm_id


@pytest.mark.parametrize("count", [0, 1, room.SLICE, 2 * room.SLICE + 1])
def test_every_swarm_is_counted_once(count: int) -> None:
    scene = Scene([1 + number % 3 for number in range(count)])
    found = scene.census.take()
    assert found.rows(0, count) == sorted(scene.rows)
    assert len(found) == count
    assert found.largest == sorted(scene.rows, key=size)[:LARGEST]


def test_where_a_page_goes_on() -> None:
    found = (scene := Scene([1, 1, 1])).census.take()
    first, _, last = sorted(row.swarm_id for row in scene.rows)
    assert [found.after(swarm_id) for swarm_id in (bytes(20), first, last, b"\xff" * 20)] == [0, 1, 3, 3]


def test_a_count_serves_everybody_for_a_while() -> None:
    scene = Scene([1])
    first = scene.census.take()
    scene.add(b"\0" * 20, 1)
    scene.now += FRESH_S
    assert scene.census.take() is first
    assert scene.census.age_s(first) == FRESH_S
    scene.now += 0.1
    assert len(scene.census.take()) == 2


def test_who_asks_at_once_gets_the_same() -> None:
    scene = Scene([1] * (3 * room.SLICE))
    asking = [gevent.spawn(scene.census.take) for _ in range(5)]
    gevent.joinall(asking, raise_error=True)
    assert len({id(greenlet.value) for greenlet in asking}) == 1


def test_it_is_dropped_when_nobody_asks_any_more() -> None:
    scene = Scene([1])
    first = scene.census.take()
    scene.now += KEPT_S + 1
    scene.census.tidy()
    assert scene.census._last is None
    assert scene.census.take() is not first


def test_it_is_kept_for_as_long_as_it_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one that took long is made again and again, for more than a twentieth of the time."""
    scene = Scene([1])

    class Slow(MemoryStore):
        def swarm_ids(self) -> list[bytes]:
            scene.now += 100.0
            return []

    monkeypatch.setattr(room, "perf_counter", lambda: scene.now)
    scene.census = Census(Slow(fixed_chance()), lambda: scene.now)
    first = scene.census.take()
    scene.now += 100.0 * room.FRESH_TIMES - 1
    scene.census.tidy()
    assert scene.census.take() is first
    scene.now += 100.0 * room.FRESH_TIMES + 1
    scene.census.tidy()
    assert scene.census._last is None


def test_swarms_that_come_and_go_meanwhile_do_no_harm() -> None:
    scene = Scene([1] * (2 * room.SLICE))
    last = scene.rows[-1].swarm_id
    counting = gevent.spawn(scene.census.take)
    breathe()
    host = b"\x0a\x00\x00\x00"
    assert scene.store.leave(last, peer(0).peer_id, host, finished=False)
    scene.add(b"\0" * 20, 1)
    rows = counting.get().rows(0, len(scene.rows))
    assert {row.swarm_id for row in rows} == {row.swarm_id for row in scene.rows[:-1]}
    assert scene.store.counts(b"\0" * 20) == SwarmCounts(1, 1, 0)


def test_announces_have_their_turns_while_many_swarms_are_counted() -> None:
    """Nobody waits for longer than a slice takes."""
    store = MemoryStore(fixed_chance(), StoreBounds())
    who = peer(1)
    for number in range(30_000):
        store.enter(number.to_bytes(20, "big"), who, expires_at=2e3, finished=False, want=0, named=False)
    turns = 0
    counting = gevent.spawn(Census(store, lambda: 0.0).take)
    while not counting.ready():
        breathe()
        turns += 1
    assert len(counting.get()) == 30_000
    assert turns >= 30_000 // room.SLICE
