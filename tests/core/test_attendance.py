"""Who is connected: every index agrees with a recount, and to come or go costs the same among many."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.core import events
from microtorrd.core.attendance import Attendance
from microtorrd.core.core import Core
from microtorrd.core.events import AddressesFound, DialFailed, MessagesReceived, PeerJoined, PeerLeft, Ticked
from microtorrd.core.peer import Peer
from microtorrd.core.settings import SwarmSettings, TorrentSettings
from microtorrd.proto.extended import ExtendedHandshake
from microtorrd.proto.messages import Extended, HaveNone, Interested
from microtorrd.proto.pex import NAME
from tests.core.rig import OUR_ID, Rig, dropped, peer_id

hosts = st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "", "odd:"])
places = st.one_of(st.none(), st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.9"]), st.integers(1, 2)))
moves = st.one_of(
    st.tuples(st.just("come"), hosts, places, st.sampled_from(["", "", "", "http://10.0.0.1/"])),
    st.tuples(st.just("go"), st.integers(0, 99)),
    st.tuples(st.just("listen"), st.integers(0, 99), places),
    st.tuples(st.just("speak"), st.integers(0, 99)),
)


@given(st.lists(moves, max_size=40))
def test_every_index_agrees_with_a_recount(moves: list[tuple[Any, ...]]) -> None:
    attendance = Attendance()
    for number, (move, *how) in enumerate(moves):
        here = list(attendance.peers.values())
        if move == "come":
            host, place, url = how
            attendance.add(newcomer(number, host, place, url))
        elif here:
            peer = here[how[0] % len(here)]
            if move == "go":
                attendance.remove(peer)
            elif move == "listen":
                attendance.listens(peer, how[1])
            else:
                attendance.has_spoken(peer)
        attendance.check()


def newcomer(number: int, host: str, place: events.Address | None, url: str) -> Peer:
    identity = b"-WS0000-" if url else peer_id(number)
    fact = PeerJoined(number, place, identity, False, True, True, host=host, web_seed=url)
    return Peer(fact, pipeline_blocks=100, now=0.0)


def test_the_largest_crowd_is_of_one_host() -> None:
    attendance = Attendance()
    assert not attendance.largest_crowd()
    for number, host in enumerate("abacaab"):
        attendance.add(newcomer(number, host, None, ""))
    assert [peer.number for peer in attendance.largest_crowd()] == [0, 2, 4, 5]
    for number in (0, 2, 4):
        attendance.remove(attendance.peers[number])
    assert [peer.number for peer in attendance.largest_crowd()] == [1, 6]
    assert attendance.of_host("b") == 2 and attendance.of_host("z") == 0


def test_who_borrows_the_id_of_a_web_seed_does_not_push_it_out() -> None:
    rig = Rig("..")
    url = "http://10.0.0.1/"
    rig.lent[1] = []
    rig.do(PeerJoined(1, None, peer_id(7), False, True, True, host="10.0.0.1", web_seed=url))
    assert not dropped(rig.connect(2, host="10.0.0.1", identity=peer_id(7)))
    assert set(rig.core.swarm.peers) == {1, 2}


# ------------------------------------------------------------------------------------------------- effort


def effort(work: Callable[[], object]) -> int:
    """How many instructions of Python it takes."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


#: Peers in a small company and in a large one; the difference that a dictionary or a heap may make.
FEW, MANY = 60, 600
SLACK = 1.2


class Company:
    """A core with so many peers, each from a host of its own, that are interested and exchange addresses."""

    def __init__(self, peers: int, have: str = "xxxx", *, super_seed: bool = False) -> None:
        self.rig = Rig(
            have,
            settings=SwarmSettings(connections_per_torrent=10_000),
            torrent=TorrentSettings(super_seed=super_seed),
        )
        self.core: Core = self.rig.core
        self.next = 1
        for _ in range(peers):
            self.come()
        for second in range(3 * peers // 60 + 12):  # all have heard of others, and slots are given
            self.core.handle(Ticked(), 101.0 + second)
        self.core.orders = []

    def come(self, *, incoming: bool = True) -> None:
        number, self.next = self.next, self.next + 1
        host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        address = None if incoming else (host, 6881)
        words = Extended(0, ExtendedHandshake(m={NAME: 1}, listen_port=6881).encode())
        for fact in (
            PeerJoined(number, address, peer_id(number), incoming, True, True, host=host),
            MessagesReceived(number, (words, HaveNone(), Interested())),
        ):
            self.core.handle(fact, 100.0)

    def leave(self, number: int) -> None:
        self.core.handle(PeerLeft(number, "gone"), 100.0)

    def last(self) -> int:
        return max(self.core.swarm.peers)


def grows(work: Callable[[Company], object], make: Callable[[int], Company] = Company) -> float:
    """How many times as much it takes among many as among few."""
    few, many = (effort(partial(work, make(peers))) for peers in (FEW, MANY))
    return many / few


@pytest.mark.parametrize("have", ["xxxx", "x..."])
def test_to_join_costs_the_same_among_many(have: str) -> None:
    assert grows(Company.come, partial(Company, have=have)) < SLACK


def test_to_be_dialed_and_join_costs_the_same_among_many() -> None:
    assert grows(lambda company: company.come(incoming=False)) < SLACK


def test_to_leave_costs_the_same_among_many() -> None:
    assert grows(lambda company: company.leave(company.last())) < SLACK


def test_to_join_a_super_seeder_costs_the_same_among_many() -> None:
    assert grows(Company.come, partial(Company, super_seed=True)) < SLACK


def test_a_peer_with_two_connections_is_found_at_once() -> None:
    def again(company: Company) -> None:
        peer = company.core.swarm.peers[company.last()]
        fact = PeerJoined(99_999, None, peer.peer_id, True, True, True, host=peer.host)
        company.core.handle(fact, 100.0)
        assert peer.number not in company.core.swarm.peers

    assert grows(again) < SLACK


def test_a_dial_that_came_to_nothing_costs_the_same_among_many() -> None:
    def dial(company: Company) -> None:
        company.core.handle(DialFailed(("10.9.9.9", 1), "refused"), 100.0)

    assert grows(dial) < SLACK


@pytest.mark.parametrize("ranked", [True, False])
def test_to_be_refused_costs_the_same_among_many(ranked: bool) -> None:
    """All places are taken, each by another host."""

    def refuse(company: Company) -> None:
        here = len(company.core.swarm.peers)
        company.come()
        assert len(company.core.swarm.peers) == here

    def full(peers: int) -> Company:
        company = Company(peers)
        if ranked:
            ourselves = company.core.introductions._ourselves
            for voter in ("10.1.1.1", "10.1.1.2"):
                ourselves.heard(voter, bytes([192, 0, 2, 1]))
        company.core.swarm.settings = SwarmSettings(connections_per_torrent=peers)
        company.come()  # the first one ranks all
        return company

    assert grows(refuse, full) < SLACK


def test_addresses_for_which_there_is_no_place_cost_the_same_among_many() -> None:
    def hear(company: Company) -> None:
        company.core.swarm.settings = SwarmSettings(connections_per_torrent=len(company.core.swarm.peers))
        company.core.handle(AddressesFound([("10.9.9.9", 1)], "tracker"), 100.0)

    assert grows(hear) < SLACK


@pytest.mark.parametrize("seed", range(3))
def test_the_ranks_are_those_that_a_sort_gives(seed: int) -> None:
    """Whoever is last by canonical priority makes way, again and again; hosts come and go meanwhile."""
    lot = random.Random(seed)
    rig = Rig("xx", settings=SwarmSettings(connections_per_torrent=8))
    for voter in ("10.1.1.1", "10.1.1.2"):
        rig.core.introductions._ourselves.heard(voter, bytes([192, 0, 2, 1]))
    ranks = rig.core.comings._ranks
    for number in range(1, 120):
        before = {n: ranks.priority(peer) for n, peer in rig.core.swarm.peers.items()}
        host = f"{lot.randrange(1, 200)}.{lot.randrange(250)}.7.{lot.randrange(1, 250)}"
        gone = dropped(rig.connect(number, host=host))
        if number > 8 and len(before) == 8:
            joined = rig.core.swarm.peers.get(number)
            worst = min(before, key=lambda n: (before[n] or 0, n))
            assert set(gone) == ({worst} if joined is not None else {number})
        if lot.random() < 0.2 and rig.core.swarm.peers:
            rig.leave(lot.choice(list(rig.core.swarm.peers)))
    assert OUR_ID not in {peer.peer_id for peer in rig.core.swarm.peers.values()}
