"""Which torrents the neighbours are told of, and when."""

from __future__ import annotations

from itertools import pairwise

from microtorrd.core.beacon import ALONE_MAX, EVERY_S, Beacon
from microtorrd.proto.lsd import IDS_MAX


def ids(count: int, first: int = 0) -> list[bytes]:
    return [number.to_bytes(20, "big") for number in range(first, first + count)]


def run(
    beacon: Beacon, present: list[bytes], begin: float, seconds: int
) -> list[tuple[float, tuple[bytes, ...]]]:
    """What is said at which second."""
    said = []
    for second in range(seconds):
        now = begin + second
        if beacon.wants_look(now):
            beacon.look(present, now)
        chosen = beacon.next(now)
        if chosen:
            said.append((now, chosen))
    return said


def test_a_few_have_a_datagram_each_every_five_minutes() -> None:
    present = ids(ALONE_MAX)
    said = run(Beacon(), present, 1000.0, 3 * int(EVERY_S) - 10)
    assert all(len(chosen) == 1 for _, chosen in said)
    assert len(said) == 3 * len(present)
    for swarm_id in present:
        times = [at for at, chosen in said if swarm_id in chosen]
        assert times[0] < 1010.0
        assert all(EVERY_S <= later - earlier < EVERY_S + 10 for earlier, later in pairwise(times))


def test_many_go_together() -> None:
    said = run(Beacon(), ids(100), 1000.0, 30)
    assert [len(chosen) for _, chosen in said[:4]] == [IDS_MAX] * 4
    assert sorted(swarm_id for _, chosen in said for swarm_id in chosen) == ids(100)


def test_a_new_one_goes_first_and_one_that_is_gone_not_at_all() -> None:
    beacon = Beacon()
    run(beacon, ids(3), 1000.0, 10)
    assert [chosen for _, chosen in run(beacon, ids(4), 1010.0, 5)] == [tuple(ids(1, 3))]
    assert not run(beacon, [], 1020.0, int(EVERY_S) * 2)
    # Whoever comes back is new.
    assert len(run(beacon, ids(1), 1700.0, 5)) == 1


def test_each_round_begins_with_another_one() -> None:
    beacon = Beacon()
    said = run(beacon, ids(60), 1000.0, int(EVERY_S) * 6)
    firsts = {chosen[0] for _, chosen in said}
    assert len(firsts) > 10
