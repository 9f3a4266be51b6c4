"""MemoryStore: the contract, its own rules after every step, and what an announce costs."""

from __future__ import annotations

import tracemalloc
from time import perf_counter

from hypothesis import given, settings
from hypothesis import strategies as st

from microtorrd.tracker.store import MemoryStore, Peer, StoreBounds
from tests.tracker.store_contract import SWARM, StoreContract, entries, fixed_chance, peer

LIFETIMES = (30.0, 1800.0)


class TestMemoryStore(StoreContract):
    """The contract."""

    def make(self, bounds: StoreBounds) -> MemoryStore:
        """Return an empty store."""
        return MemoryStore(fixed_chance(), bounds)


peers = st.builds(
    peer, st.integers(0, 7), complete=st.booleans(), port=st.sampled_from([1, 2]), six=st.booleans()
)
steps = st.one_of(
    st.tuples(st.just("enter"), peers, st.sampled_from(LIFETIMES)),
    st.tuples(st.just("refresh"), peers, st.sampled_from(LIFETIMES)),
    st.tuples(st.just("leave"), peers, st.just(0.0)),
    st.tuples(st.just("wait"), peers, st.sampled_from([0.5, 7.0, 29.0, 31.0, 2000.0])),
)


@given(st.lists(steps, max_size=60), st.integers(1, 4))
@settings(max_examples=200)
def test_any_course_of_things_gives_what_a_plain_dictionary_gives(
    course: list[tuple[str, Peer, float]], limit: int
) -> None:
    store = MemoryStore(fixed_chance())
    known: dict[tuple[bytes, bytes], tuple[Peer, float]] = {}
    now = 0.0
    for what, who, seconds in course:
        key = (who.peer_id, who.entry[:-2])
        if what == "enter":
            sample = store.enter(SWARM, who, expires_at=now + seconds, finished=False, want=99, named=False)
            known[key] = (who, now + seconds)
            others = [other for name, (other, _) in known.items() if name != key]
            assert sample is not None
            assert entries(sample) == {
                other.entry for other in others if not (who.complete and other.complete)
            }
            assert sample.complete == sum(other.complete for other, _ in known.values())
            assert sample.incomplete == len(known) - sample.complete
        elif what == "refresh":
            assert store.refresh(SWARM, *key, expires_at=now + seconds, now=now) == (key in known)
            if key in known:
                known[key] = (known[key][0], now + seconds)
        elif what == "leave":
            assert store.leave(SWARM, *key, finished=False) == (known.pop(key, None) is not None)
        else:
            now += seconds
            while store.expire(now, limit) == limit:
                store.check()
            # Forgetting is exact to a second, and never early.
            store_knows = store.size().peers
            assert store_knows >= sum(until > now for _, until in known.values())
            now = float(int(now) + 1)
            while store.expire(now, limit) == limit:
                store.check()
            known = {name: (other, until) for name, (other, until) in known.items() if until > now}
        store.check()
        assert store.size().peers == len(known)


def test_who_comes_and_goes_leaves_nothing_behind() -> None:
    store = MemoryStore(fixed_chance())

    def churn(rounds: int) -> None:
        for number in range(rounds):
            who = peer(number % 50_000)
            store.enter(SWARM, who, expires_at=3600.0, finished=False, want=0, named=False)
            store.leave(SWARM, who.peer_id, who.entry[:-2], finished=False)

    churn(100)
    tracemalloc.start()
    churn(20_000)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 100_000


def test_an_announce_costs_no_more_in_a_large_swarm() -> None:
    def fill(size: int) -> MemoryStore:
        store = MemoryStore(fixed_chance())
        for number in range(size):
            who = peer(number, complete=number % 2 == 0)
            store.enter(SWARM, who, expires_at=60.0, finished=False, want=0, named=False)
        return store

    def cost(store: MemoryStore, size: int) -> float:
        """The least of many runs: what else happens on the machine only adds to it."""
        best = 1.0
        for start in range(0, 2000, 100):
            began = perf_counter()
            for number in range(start, start + 100):
                who = peer(number % size, complete=number % 2 == 0)
                store.enter(SWARM, who, expires_at=60.0, finished=False, want=50, named=False)
            best = min(best, perf_counter() - began)
        return best

    small, large = fill(200), fill(40_000)
    # A copy of the large swarm would take 20 times as long as all the rest.
    assert cost(large, 40_000) < 5 * cost(small, 200)


def test_a_peer_takes_about_as_much_memory_as_the_bounds_say() -> None:
    tracemalloc.start()
    store = MemoryStore(fixed_chance())
    for number in range(10_000):
        store.enter(SWARM, peer(number), expires_at=60.0 + number % 60, finished=False, want=0, named=False)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / 10_000 < 500
