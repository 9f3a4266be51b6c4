"""Whom to serve: pictures of who gives and takes, and who is chosen."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from microtorrd.core import events
from microtorrd.core.choker import (
    JUDGED_S,
    LEAST_SLOTS,
    MOST_SLOTS,
    NEW_S,
    ROUND_S,
    TICKETS,
    TRIAL_S,
    TURN_S,
    USUAL_PER_S,
    USUAL_SLOTS,
    Candidate,
    Choice,
    choose,
    slots_for,
)
from microtorrd.core.events import BlocksSent
from microtorrd.core.settings import SwarmSettings
from microtorrd.proto.messages import Interested, NotInterested
from tests.core.rig import Rig

MiB = 1 << 20


def candidate(peer: int, **what: object) -> Candidate:
    usual = Candidate(
        peer, gives_per_s=0.0, takes_per_s=0.0, unchoked=False, for_s=100.0, joined_s=1000.0, snubbing=False
    )
    return usual._replace(**what)


def chosen(*candidates: Candidate, slots: int = 2, seeding: bool = False, seed: int = 1) -> set[int]:
    """Who has a regular slot."""
    choice = choice_of(*candidates, slots=slots, seeding=seeding, seed=seed)
    return set(choice.unchoked - {choice.optimistic})


def choice_of(*candidates: Candidate, slots: int = 2, seeding: bool = False, seed: int = 1) -> Choice:
    return choose(
        candidates, slots=slots, seeding=seeding, always=False, optimistic=None, chance=random.Random(seed)
    )


def test_everybody_is_served_while_there_are_slots_for_all() -> None:
    assert chosen(candidate(1), candidate(2)) == {1, 2}


def test_who_gives_most_is_served() -> None:
    givers = [candidate(number, gives_per_s=float(number)) for number in range(1, 6)]
    assert chosen(*givers) == {4, 5}


def test_who_snubs_us_earns_nothing_by_what_it_gave() -> None:
    assert chosen(
        candidate(1, gives_per_s=9e9, snubbing=True), candidate(2, gives_per_s=1.0), candidate(3)
    ) == {2, 3}


def test_slots_that_no_giver_needs_go_round_among_the_others() -> None:
    giver = candidate(1, gives_per_s=1.0)
    on_trial = candidate(2, unchoked=True, for_s=TRIAL_S - 1)
    tried = on_trial._replace(for_s=TRIAL_S)
    waiting = [candidate(3, for_s=50.0), candidate(4, for_s=60.0)]
    assert chosen(giver, on_trial, *waiting) == {1, 2}
    assert chosen(giver, tried, *waiting) == {1, 4}


def test_who_only_takes_waits_behind_those_who_have_not_shown_that() -> None:
    giver = candidate(1, gives_per_s=1.0)
    taker = candidate(2, for_s=90.0, only_takes=True)
    other = candidate(3, for_s=50.0)
    assert chosen(giver, taker, other) == {1, 3}
    assert chosen(giver, taker, other._replace(only_takes=True)) == {1, 2}


def test_who_reconnects_when_it_is_choked_takes_nobodys_turn() -> None:
    """Honest peers that have nothing for us get the turns that they waited for, whoever comes anew."""
    now = 0.0
    choked_at = dict.fromkeys(range(3), 0.0)
    unchoked_at: dict[int, float] = {}
    served = dict.fromkeys(range(3), 0)
    next_number = 100
    fresh = dict.fromkeys(range(100, 112), 0.0)
    for _ in range(90):
        now += ROUND_S
        crowd = [
            candidate(
                number,
                unchoked=number in unchoked_at,
                for_s=now - unchoked_at.get(number, since),
                joined_s=now if number < 100 else now - since,
            )
            for number, since in (choked_at | fresh).items()
        ]
        choice = choice_of(*crowd, slots=4)
        for number in list(choked_at | fresh):
            if number in choice.unchoked:
                unchoked_at.setdefault(number, now)
                if number < 100:
                    served[number] += 1
            elif unchoked_at.pop(number, None) is not None:
                if number < 100:
                    choked_at[number] = now
                else:
                    del fresh[number]  # it comes again as somebody new
                    next_number += 1
                    fresh[next_number + 100] = now
    assert min(served.values()) >= 90 * 4 / 15 * 0.8


def test_who_only_takes_has_a_third_of_the_tickets() -> None:
    crowd = [candidate(1, gives_per_s=1.0), candidate(2), candidate(3, only_takes=True)]
    lucky = Counter(choice_of(*crowd, slots=1, seed=seed).optimistic for seed in range(2000))
    assert lucky[2] / lucky[3] == pytest.approx(TICKETS, rel=0.25)


def test_a_seeder_serves_the_fastest_and_the_others_in_turns() -> None:
    fast = [
        candidate(number, takes_per_s=1000.0 - number, unchoked=True, for_s=500.0) for number in (1, 2, 3)
    ]
    waiting = [candidate(4, for_s=50.0), candidate(5, for_s=60.0)]
    assert chosen(*fast, *waiting, seeding=True) == {1, 5}
    in_turn = candidate(6, unchoked=True, for_s=TURN_S - 1)
    assert chosen(*fast, in_turn, *waiting, seeding=True) == {1, 6}


def test_new_peers_have_three_times_as_many_tickets_for_the_optimistic_slot() -> None:
    crowd = [candidate(1, gives_per_s=1.0), candidate(2, joined_s=NEW_S - 1), candidate(3)]
    lucky = Counter(choice_of(*crowd, slots=1, seed=seed).optimistic for seed in range(2000))
    assert lucky[2] / lucky[3] == pytest.approx(TICKETS, rel=0.25)


@pytest.mark.parametrize(
    ("up_per_s", "slots"),
    [
        (0, LEAST_SLOTS),
        (16 << 10, LEAST_SLOTS),
        (64 << 10, USUAL_SLOTS - 4),
        (USUAL_PER_S, USUAL_SLOTS),
        (8 * USUAL_PER_S, USUAL_SLOTS + 3),
        (1e12, MOST_SLOTS),
    ],
)
def test_slots_by_capacity(up_per_s: float, slots: int) -> None:
    assert slots_for(up_per_s) == slots


def seeder(takers: int, *, slots: int = 0) -> Rig:
    rig = Rig("x" * 8, settings=SwarmSettings(upload_slots=slots, idle_timeout_s=1e9))
    for number in range(1, takers + 1):
        rig.join(number)
        rig.say(number, Interested())
    return rig


def served(rig: Rig) -> int:
    return sum(not peer.am_choking for peer in rig.core.swarm.peers.values())


def carry(rig: Rig, per_s: int, *, seconds: int = 60) -> None:
    """Time passes, and whoever is served gets an equal part."""
    for _ in range(seconds):
        rig.now += 1.0
        here = [number for number, peer in rig.core.swarm.peers.items() if not peer.am_choking]
        rig.do(*(BlocksSent(number, 0, per_s // len(here) + 1) for number in here), events.Ticked())


def test_the_slots_follow_what_the_line_carries() -> None:
    rig = seeder(40)
    assert served(rig) == USUAL_SLOTS
    carry(rig, 16 * MiB)
    assert served(rig) == USUAL_SLOTS + 4 + 1  # and the optimistic one
    carry(rig, 64 << 10, seconds=200)
    assert served(rig) == USUAL_SLOTS - 4 + 1


def test_a_line_that_nobody_uses_is_not_thought_slow() -> None:
    rig = seeder(3)
    carry(rig, 1000, seconds=200)
    assert rig.core.uploading.slots == USUAL_SLOTS


def test_the_operators_slots_are_what_they_are() -> None:
    rig = seeder(40, slots=5)
    carry(rig, 16 * MiB)
    assert served(rig) == 6


def test_what_a_peer_gave_counts_for_two_rounds() -> None:
    rig = Rig("x" + "." * 400, blocks=16, settings=SwarmSettings(upload_slots=1))
    for number in (1, 2, 3):
        rig.join(number, "all" if number == 1 else "." + "x" * 400)
        rig.say(number, Interested())
    rig.peer(3)
    gave_at = rig.now
    rig.deliver(1)
    peer = rig.peer(1)
    gave = peer.gave_lately
    assert gave > 0
    while peer.gave_lately:
        assert peer.gave_lately == gave
        rig.tick()
    assert ROUND_S <= rig.now - gave_at <= JUDGED_S


def test_a_free_slot_goes_last_to_who_only_takes() -> None:
    rig = Rig("x" + "." * 8, settings=SwarmSettings(upload_slots=1))
    for number in (1, 2):
        rig.join(number, have="x" * 9)
        rig.say(number, Interested())
    rig.do(BlocksSent(1, 0, MiB))
    rig.say(1, NotInterested())  # its slot goes to the other one
    rig.say(1, Interested())
    rig.now += 1.0
    rig.join(3)
    rig.say(3, Interested())
    assert [rig.peer(number).am_choking for number in (1, 2, 3)] == [True, False, True]
    rig.say(2, NotInterested())
    assert [rig.peer(number).am_choking for number in (1, 3)] == [True, False]


def test_who_comes_again_is_not_before_those_who_wait() -> None:
    """However much they took: of them there is nothing that we want, so they owe nothing."""
    rig = Rig("x" + "." * 8, settings=SwarmSettings(upload_slots=1))
    for number in (1, 2):
        rig.join(number)
        rig.say(number, Interested())
    rig.do(BlocksSent(1, 0, MiB))
    rig.say(1, NotInterested())
    rig.say(1, Interested())
    rig.now += 1.0
    rig.join(3)
    rig.say(3, Interested())
    rig.say(2, NotInterested())
    assert [rig.peer(number).am_choking for number in (1, 3)] == [False, True]
