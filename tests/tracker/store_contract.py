"""What every PeerStore must do. A store's test class inherits this and says how a store is made.

Bounds that a store has are part of the contract where `PeerStore` names them; how it keeps its peers is not.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from microtorrd.proto.compact import ENTRY6_BYTES, ENTRY_BYTES, pack, read_host
from microtorrd.proto.scrape import SwarmCounts
from microtorrd.tracker.store import Peer, PeerStore, Sample, StoreBounds, StoreSize

SWARM, OTHER_SWARM = b"S" * 20, b"T" * 20


def peer(number: int, *, complete: bool = False, host: str = "", port: int = 6881, six: bool = False) -> Peer:
    """The peer with this number; each has its own id and, unless given, its own host."""
    text = host or (f"2001:db8::{number + 1:x}" if six else f"10.0.{number >> 8}.{number & 255}")
    packed = read_host(text)
    assert packed is not None
    return Peer(b"%020d" % number, pack(packed, port), complete)


def entries(sample: Sample) -> set[bytes]:
    """The compact peers of a sample, one by one; fails on repetitions."""
    found = [sample.entries[at : at + ENTRY_BYTES] for at in range(0, len(sample.entries), ENTRY_BYTES)]
    found += [sample.entries6[at : at + ENTRY6_BYTES] for at in range(0, len(sample.entries6), ENTRY6_BYTES)]
    assert len(set(found)) == len(found)
    return set(found)


class StoreContract:
    """Inherit and implement `make`."""

    def make(self, bounds: StoreBounds) -> PeerStore:
        """Return an empty store."""
        raise NotImplementedError

    @pytest.fixture
    def store(self) -> PeerStore:
        """An empty store with ample bounds."""
        return self.make(StoreBounds())

    def enter(
        self,
        store: PeerStore,
        who: Peer,
        *,
        swarm: bytes = SWARM,
        until: float = 100.0,
        finished: bool = False,
        want: int = 50,
        named: bool = False,
    ) -> Sample:
        """`store.enter` where there is room."""
        sample = store.enter(swarm, who, expires_at=until, finished=finished, want=want, named=named)
        assert sample is not None
        return sample

    # ------------------------------------------------------------------------------------ coming and going

    def test_the_first_peer_is_alone(self, store: PeerStore) -> None:
        assert self.enter(store, peer(1)) == Sample(complete=0, incomplete=1)
        assert store.counts(SWARM) == SwarmCounts(complete=0, downloaded=0, incomplete=1)
        assert store.size() == StoreSize(swarms=1, peers=1)

    def test_peers_are_told_each_other_and_never_themselves(self, store: PeerStore) -> None:
        for number in range(5):
            sample = self.enter(store, peer(number, complete=number == 0))
            assert entries(sample) == {peer(earlier).entry for earlier in range(number)}
        again = self.enter(store, peer(2))
        assert entries(again) == {peer(number).entry for number in (0, 1, 3, 4)}
        assert (again.complete, again.incomplete) == (1, 4)

    def test_all_swarms_and_who_is_complete_are_known(self, store: PeerStore) -> None:
        assert (store.swarm_ids(), store.complete_peers()) == ([], 0)
        self.enter(store, peer(1, complete=True))
        self.enter(store, peer(2))
        self.enter(store, peer(2, complete=True), swarm=OTHER_SWARM, until=5.0)
        ids = store.swarm_ids()
        assert (sorted(ids), store.complete_peers()) == ([SWARM, OTHER_SWARM], 2)
        self.enter(store, peer(2, complete=True))
        assert store.complete_peers() == 3
        self.enter(store, peer(1))
        assert store.complete_peers() == 2
        store.expire(10.0, 100)
        assert (store.swarm_ids(), store.complete_peers()) == ([SWARM], 1)
        assert len(ids) == 2, "the list is the caller's own"

    def test_named_peers_have_their_ids_and_completeness(self, store: PeerStore) -> None:
        self.enter(store, peer(1, complete=True))
        self.enter(store, peer(2, six=True))
        sample = self.enter(store, peer(3), named=True)
        assert set(sample.named) == {peer(1, complete=True), peer(2, six=True)}
        assert sample.entries == sample.entries6 == b""

    def test_swarms_do_not_know_each_other(self, store: PeerStore) -> None:
        self.enter(store, peer(1))
        assert entries(self.enter(store, peer(2), swarm=OTHER_SWARM)) == set()
        assert store.size() == StoreSize(swarms=2, peers=2)

    def test_announcing_again_refreshes_port_and_completeness(self, store: PeerStore) -> None:
        self.enter(store, peer(1))
        self.enter(store, peer(1, port=7000))
        assert entries(self.enter(store, peer(2))) == {peer(1, port=7000).entry}
        self.enter(store, peer(1, complete=True, port=8000))
        assert entries(self.enter(store, peer(2))) == {peer(1, port=8000).entry}
        assert store.counts(SWARM) == SwarmCounts(complete=1, downloaded=0, incomplete=1)
        assert store.size().peers == 2

    def test_who_leaves_is_not_told_any_more(self, store: PeerStore) -> None:
        for number in range(3):
            self.enter(store, peer(number))
        assert store.leave(SWARM, peer(0).peer_id, peer(0).entry[:-2], finished=False)
        assert entries(self.enter(store, peer(1))) == {peer(2).entry}
        assert not store.leave(SWARM, peer(0).peer_id, peer(0).entry[:-2], finished=False)

    def test_an_empty_swarm_is_no_swarm(self, store: PeerStore) -> None:
        assert store.counts(SWARM) is None
        assert not store.leave(SWARM, peer(1).peer_id, peer(1).entry[:-2], finished=True)
        assert store.size() == StoreSize(0, 0)
        self.enter(store, peer(1))
        store.leave(SWARM, peer(1).peer_id, peer(1).entry[:-2], finished=False)
        assert store.counts(SWARM) is None
        assert store.size() == StoreSize(0, 0)

    def test_nobody_removes_or_redirects_a_peer_from_another_host(self, store: PeerStore) -> None:
        victim = peer(1)
        self.enter(store, victim)
        elsewhere = peer(1, host="192.0.2.66")
        assert not store.leave(SWARM, victim.peer_id, elsewhere.entry[:-2], finished=False)
        assert not store.refresh(SWARM, victim.peer_id, elsewhere.entry[:-2], expires_at=900.0, now=1.0)
        self.enter(store, elsewhere)
        assert entries(self.enter(store, peer(2))) == {victim.entry, elsewhere.entry}

    # ------------------------------------------------------------------------------------------- the sample

    @pytest.mark.parametrize("want", [0, 1, 7, 50, 200])
    def test_no_more_than_wanted(self, store: PeerStore, want: int) -> None:
        for number in range(100):
            self.enter(store, peer(number, complete=number % 3 == 0, six=number % 2 == 0))
        for number in (1, 2, 101):
            assert len(entries(self.enter(store, peer(number, six=number == 2), want=want))) == min(
                want, 99 if number < 101 else 100
            )
            sample = self.enter(store, peer(number, six=number == 2), want=want, named=True)
            assert len(set(sample.named)) == len(sample.named) == min(want, 99 if number < 101 else 100)

    def test_a_complete_peer_is_told_incomplete_ones_only(self, store: PeerStore) -> None:
        for number in range(10):
            self.enter(store, peer(number, complete=number < 5))
        assert entries(self.enter(store, peer(0, complete=True))) == {peer(n).entry for n in range(5, 10)}
        sample = self.enter(store, peer(0, complete=True), named=True)
        assert {other.complete for other in sample.named} == {False}

    def test_an_incomplete_peer_is_told_of_both_kinds(self, store: PeerStore) -> None:
        for number in range(200):
            self.enter(store, peer(number, complete=number >= 100))
        sample = self.enter(store, peer(0), want=50, named=True)
        assert Counter(other.complete for other in sample.named) == {True: 25, False: 25}
        for number in range(100, 195):
            store.leave(SWARM, peer(number).peer_id, peer(number).entry[:-2], finished=False)
        sample = self.enter(store, peer(0), want=50, named=True)
        assert Counter(other.complete for other in sample.named) == {True: 5, False: 45}

    def test_the_askers_family_comes_first_and_the_other_fills_up(self, store: PeerStore) -> None:
        for number in range(60):
            self.enter(store, peer(number, six=number < 30))
        sample = self.enter(store, peer(99, six=True), want=40)
        assert (len(sample.entries6), len(sample.entries)) == (30 * ENTRY6_BYTES, 10 * ENTRY_BYTES)
        sample = self.enter(store, peer(98), want=20)
        assert (len(sample.entries6), len(sample.entries)) == (0, 20 * ENTRY_BYTES)

    def test_samples_of_a_large_swarm_are_random(self, store: PeerStore) -> None:
        for number in range(300):
            self.enter(store, peer(number))
        told: Counter[bytes] = Counter()
        together: Counter[bytes] = Counter()
        for turn in range(2000):
            found = entries(self.enter(store, peer(turn % 300), want=30))
            told.update(found)
            if peer(7).entry in found:
                together.update(found - {peer(7).entry})
        # Each is told 200 times on average; 6 standard deviations of a fair draw are 82.
        assert len(told) == 300
        assert min(told.values()) > 100 and max(told.values()) < 300
        # And no two always together: 19 times of the 200 on average.
        assert max(together.values()) < 80

    # ------------------------------------------------------------------------------------ many swarms at once

    def test_a_sign_of_life_in_many_swarms(self, store: PeerStore) -> None:
        swarms = [bytes([number]) * 20 for number in range(10)]
        for number, swarm in enumerate(swarms[:6]):
            self.enter(store, peer(number % 2), swarm=swarm, until=30.0 if number < 4 else 10.0)
        id_and_host = peer(0).peer_id, peer(0).entry[:-2]
        # The first and third; the fifth is due, and the others do not know it.
        assert store.refresh_many(swarms, *id_and_host, expires_at=60.0, now=10.0) == {swarms[0], swarms[2]}
        assert store.refresh_many((), *id_and_host, expires_at=60.0, now=10.0) == set()
        store.expire(31.0, 100)
        assert sorted(store.swarm_ids()) == [swarms[0], swarms[2]]

    def test_figures_of_many_swarms(self, store: PeerStore) -> None:
        assert store.counts_many([SWARM]) == store.counts_many(()) == {}
        self.enter(store, peer(1))
        self.enter(store, peer(2, complete=True), finished=True)
        self.enter(store, peer(2, six=True), swarm=OTHER_SWARM)
        found = store.counts_many([OTHER_SWARM, bytes(20), SWARM])
        assert list(found.items()) == [(OTHER_SWARM, SwarmCounts(0, 0, 1)), (SWARM, SwarmCounts(1, 1, 1))]

    # ------------------------------------------------------------------------------------------- downloads

    def test_a_download_is_counted_once(self, store: PeerStore) -> None:
        self.enter(store, peer(1))
        self.enter(store, peer(1, complete=True), finished=True)
        self.enter(store, peer(1, complete=True), finished=True)
        assert store.counts(SWARM) == SwarmCounts(complete=1, downloaded=1, incomplete=0)
        self.enter(store, peer(2, complete=True))
        assert store.counts(SWARM) == SwarmCounts(complete=2, downloaded=1, incomplete=0)

    def test_who_finishes_and_leaves_counts_too(self, store: PeerStore) -> None:
        self.enter(store, peer(1))
        self.enter(store, peer(2))
        self.enter(store, peer(3, complete=True))
        for number in (1, 1, 3):
            store.leave(SWARM, peer(number).peer_id, peer(number).entry[:-2], finished=True)
        assert store.counts(SWARM) == SwarmCounts(complete=0, downloaded=1, incomplete=1)

    # -------------------------------------------------------------------------------------------- forgetting

    def test_peers_are_forgotten_when_their_time_has_come(self, store: PeerStore) -> None:
        self.enter(store, peer(1), until=30.0)
        self.enter(store, peer(2), until=60.0)
        store.expire(29.0, 100)
        assert store.size().peers == 2
        store.expire(31.0, 100)
        assert entries(self.enter(store, peer(3), until=500.0)) == {peer(2).entry}
        store.expire(61.0, 100)
        assert entries(self.enter(store, peer(3), until=500.0)) == set()
        store.expire(501.0, 100)
        assert store.size() == StoreSize(0, 0)

    def test_a_sign_of_life_postpones_it(self, store: PeerStore) -> None:
        self.enter(store, peer(1), until=30.0)
        assert store.refresh(SWARM, peer(1).peer_id, peer(1).entry[:-2], expires_at=45.0, now=15.0)
        store.expire(31.0, 100)
        self.enter(store, peer(1), until=60.0)
        store.expire(46.0, 100)
        assert store.size().peers == 1
        store.expire(61.0, 100)
        assert store.size().peers == 0

    def test_who_is_due_to_be_forgotten_is_not_known_any_more(self, store: PeerStore) -> None:
        assert not store.refresh(SWARM, peer(1).peer_id, peer(1).entry[:-2], expires_at=60.0, now=30.0)
        assert store.size() == StoreSize(0, 0)
        self.enter(store, peer(1), until=30.0)
        assert not store.refresh(SWARM, peer(1).peer_id, peer(1).entry[:-2], expires_at=60.0, now=30.0)

    def test_an_earlier_time_holds_too(self, store: PeerStore) -> None:
        self.enter(store, peer(1), until=3600.0)
        self.enter(store, peer(1), until=30.0)
        store.expire(31.0, 100)
        assert store.size().peers == 0

    def test_forgetting_is_done_in_steps(self, store: PeerStore) -> None:
        for number in range(100):
            self.enter(store, peer(number), until=30.0 + number / 100)
        assert store.expire(40.0, 30) == 30
        assert store.size().peers == 70
        assert store.expire(40.0, 80) == 70
        assert store.expire(40.0, 80) == 0

    # ------------------------------------------------------------------------------------------------ bounds

    def test_swarms_are_bounded(self) -> None:
        store = self.make(StoreBounds(swarms=1))
        self.enter(store, peer(1))
        assert store.enter(OTHER_SWARM, peer(1), expires_at=9.0, finished=False, want=5, named=False) is None
        assert store.size() == StoreSize(1, 1)
        assert store.leave(SWARM, peer(1).peer_id, peer(1).entry[:-2], finished=False)
        self.enter(store, peer(1), swarm=OTHER_SWARM)

    def test_peers_of_a_swarm_are_bounded_but_nobody_is_turned_away(self) -> None:
        store = self.make(StoreBounds(peers_per_swarm=3))
        for number in range(3):
            self.enter(store, peer(number))
        sample = self.enter(store, peer(9))
        assert entries(sample) == {peer(number).entry for number in range(3)}
        assert store.size().peers == 3
        assert entries(self.enter(store, peer(0, port=1))) == {peer(1).entry, peer(2).entry}

    def test_peers_in_all_are_bounded(self) -> None:
        store = self.make(StoreBounds(peers=2))
        self.enter(store, peer(1))
        self.enter(store, peer(2))
        assert store.enter(OTHER_SWARM, peer(3), expires_at=9.0, finished=False, want=5, named=False) is None
        assert len(entries(self.enter(store, peer(3)))) == 2
        assert store.size() == StoreSize(1, 2)


def fixed_chance() -> Random:
    """Chance that is the same in every run."""
    return Random(20)
