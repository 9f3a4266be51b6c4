"""The small rooms by themselves: choker, peerbook, culprits, shares, checking."""

from __future__ import annotations

import random

import pytest

from microtorrd.core.choker import Candidate, choose
from microtorrd.core.culprits import Culprits, Giver
from microtorrd.core.events import Address, PeerJoined
from microtorrd.core.peer import Peer
from microtorrd.core.peerbook import BARRED_MAX, BOOK_MAX, DIAL_LOST_S, FAILURES_MAX, Peerbook
from microtorrd.core.shares import PEERS_KEPT, SAMPLES_KEPT, Shares

# --------------------------------------------------------------------------------------------- choker


def candidate(peer: int, **facts: object) -> Candidate:
    plain: dict[str, object] = {
        "gives_per_s": 0.0,
        "takes_per_s": 0.0,
        "unchoked": False,
        "for_s": 100.0,
        "joined_s": 1000.0,
        "snubbing": False,
    }
    return Candidate(peer, **(plain | facts))  # type: ignore[arg-type]


def chosen(
    candidates: list[Candidate],
    *,
    slots: int = 2,
    seeding: bool = False,
    optimistic: int | None = None,
    seed: int = 1,
) -> tuple[set[int], int | None]:
    choice = choose(
        candidates,
        slots=slots,
        seeding=seeding,
        always=False,
        optimistic=optimistic,
        chance=random.Random(seed),
    )
    return set(choice.unchoked), choice.optimistic


def test_everybody_fits() -> None:
    assert chosen([candidate(1), candidate(2)]) == ({1, 2}, None)
    assert chosen([]) == (set(), None)


def test_leeching_the_best_givers_are_served_and_one_more_by_luck() -> None:
    peers = [candidate(peer, gives_per_s=float(peer)) for peer in range(1, 8)]
    for seed in range(20):
        unchoked, lucky = chosen(peers, seed=seed)
        assert {6, 7} < unchoked
        assert lucky in {1, 2, 3, 4, 5}
        assert len(unchoked) == 3


def test_snubbing_peers_earn_nothing() -> None:
    peers = [candidate(1, gives_per_s=9e9, snubbing=True), candidate(2), candidate(3), candidate(4)]
    assert all(1 not in chosen(peers, optimistic=4)[0] for _ in range(5))


def test_the_optimistic_slot_stays_where_it_is_until_it_is_drawn_anew() -> None:
    peers = [candidate(peer, gives_per_s=float(peer)) for peer in range(1, 8)]
    assert {chosen(peers, optimistic=3, seed=seed)[1] for seed in range(10)} == {3}
    assert chosen(peers, optimistic=7)[1] != 7  # it has earned a regular one


def test_new_peers_have_three_tickets() -> None:
    peers = [candidate(1, gives_per_s=9.0), candidate(2, joined_s=5.0), candidate(3)]
    lucky = [chosen(peers, slots=1, seed=seed)[1] for seed in range(400)]
    assert 260 < lucky.count(2) < 340


def test_seeding_half_of_the_slots_go_to_the_fastest_and_half_go_round() -> None:
    peers = [
        *(candidate(peer, unchoked=True, takes_per_s=float(peer), for_s=60.0) for peer in (1, 2, 3, 4)),
        candidate(5, for_s=50.0),
        candidate(6, for_s=500.0),
        candidate(7, for_s=200.0),
    ]
    unchoked, lucky = chosen(peers, slots=4, seeding=True)
    assert unchoked - {lucky} == {3, 4, 6, 7}


def test_seeding_nobody_loses_a_slot_before_its_turn_is_over() -> None:
    peers = [
        candidate(1, unchoked=True, takes_per_s=9.0, for_s=100.0),
        candidate(2, unchoked=True, takes_per_s=1.0, for_s=5.0),
        candidate(3, for_s=5000.0),
        candidate(4, for_s=4000.0),
    ]
    unchoked, lucky = chosen(peers, slots=2, seeding=True)
    assert unchoked - {lucky} == {1, 2}


def test_seeding_everybody_has_a_turn() -> None:
    """Forty equal takers, four slots: after some rounds all were served."""
    served, now = dict.fromkeys(range(40), 0.0), 0.0
    since, open_ = dict.fromkeys(range(40), 0.0), set[int]()
    for turn in range(90):
        now += 10.0
        unchoked, _ = chosen(
            [
                candidate(
                    peer, unchoked=peer in open_, takes_per_s=1.0 * (peer in open_), for_s=now - since[peer]
                )
                for peer in range(40)
            ],
            slots=4,
            seeding=True,
            seed=turn,
        )
        for peer in range(40):
            if (peer in unchoked) != (peer in open_):
                since[peer] = now
            served[peer] += peer in unchoked
        open_ = unchoked
    assert min(served.values()) > 0


# ------------------------------------------------------------------------------------------- peerbook


def addresses(count: int, first: int = 1) -> list[Address]:
    return [("10.0.0.1", port) for port in range(first, first + count)]


def book() -> Peerbook:
    return Peerbook(random.Random(1))


def test_an_address_is_dialed_once() -> None:
    peers = book()
    peers.found([("10.0.0.1", 1)] * 3, "tracker", 0.0)
    assert peers.due(9, 0.0) == [("10.0.0.1", 1)]
    peers.found([("10.0.0.1", 1)], "pex", 0.0)
    assert peers.due(9, 1e6) == []
    assert peers.dialing == 1


def test_the_pause_doubles_with_every_failure_until_the_address_is_forgotten() -> None:
    peers, now, pauses = book(), 0.0, []
    (address,) = addresses(1)
    peers.found([address], "tracker", now)
    while peers.due(1, now) or peers.state(address) is not None:
        peers.failed(address, now)
        began = now
        while peers.state(address) == "idle":
            now += 0.25
            if peers.due(1, now):
                break
        pauses.append(now - began)
        peers.found([], "tracker", now)
        if peers.state(address) == "dialing":
            continue
    assert len(pauses) == FAILURES_MAX
    assert 1.0 <= pauses[0] <= 1.75
    assert all(2**n <= pause <= 1.5 * 2**n + 0.25 for n, pause in enumerate(pauses[:-1]))
    assert peers.quiet or peers.due(9, 1e9) == []
    peers.found([address], "tracker", now)
    assert peers.due(1, now) == [address]


def test_what_the_operator_named_is_never_forgotten() -> None:
    peers, now = book(), 0.0
    (address,) = addresses(1)
    peers.found([address], "operator", now)
    for _ in range(30):
        now += 10_000
        assert peers.due(1, now) == [address]
        peers.failed(address, now)


def test_the_book_is_bounded_and_pushes_out_failures_first() -> None:
    peers = book()
    peers.found(addresses(BOOK_MAX), "tracker", 0.0)
    peers.found(addresses(10, first=5000), "tracker", 0.0)
    assert len(peers) == BOOK_MAX
    assert peers.state(("10.0.0.1", 5000)) is None
    for address in peers.due(3, 0.0):
        peers.failed(address, 0.0)
    peers.found(addresses(10, first=5000), "tracker", 0.0)
    assert len(peers) == BOOK_MAX
    assert sum(peers.state(address) is not None for address in addresses(10, first=5000)) == 3


@pytest.mark.parametrize("address", [("10.0.0.1", 0), ("10.0.0.1", 65536), ("10.0.0.1", -1)])
def test_what_cannot_be_an_address_is_left_out(address: Address) -> None:
    peers = book()
    peers.found([address], "pex", 0.0)
    assert len(peers) == 0


def test_the_barred_are_never_dialed_and_remembered_within_bounds() -> None:
    peers = book()
    (address,) = addresses(1)
    peers.found([address], "tracker", 0.0)
    peers.bar(address)
    peers.found([address], "tracker", 0.0)
    assert (peers.due(9, 1e9), peers.state(address)) == ([], "barred")
    for port in range(1, BARRED_MAX + 10):
        peers.bar(("10.0.0.2", port))
    assert peers.state(address) is None


def test_seeders_rest_while_we_seed_and_are_called_when_we_do_not() -> None:
    peers = book()
    (address,) = addresses(1)
    peers.found([address], "tracker", 0.0)
    peers.due(1, 0.0)
    peers.joined(address, 0.0)
    peers.seeding(True, 0.0)
    peers.left(address, 100.0, is_seed=True, fault=False)
    assert peers.due(9, 1e6) == []
    assert peers.state(address) == "parked" and peers.quiet
    peers.seeding(False, 1e6)
    assert peers.due(9, 1e6) == [address]


def test_who_broke_the_protocol_is_left_alone_for_longer() -> None:
    peers = book()
    for fault, address in zip((False, True), addresses(2), strict=True):
        peers.found([address], "tracker", 0.0)
        peers.due(1, 0.0)
        peers.joined(address, 0.0)
        peers.left(address, 100.0, is_seed=False, fault=fault)
    assert peers.due(9, 130.0) == addresses(1)
    assert peers.due(9, 500.0) == addresses(1, first=2)


def test_a_dial_that_nobody_answered_is_given_up() -> None:
    peers = book()
    peers.found(addresses(1), "tracker", 0.0)
    peers.due(1, 0.0)
    peers.look_after(DIAL_LOST_S + 1)
    assert peers.dialing == 0
    assert peers.due(1, DIAL_LOST_S + 3) == addresses(1)


def test_stale_entries_do_not_pile_up() -> None:
    peers = book()
    (address,) = addresses(1)
    for turn in range(1000):
        peers.found([address], "tracker", float(turn))
        peers.bar(address)
        peers._barred.clear()
        peers.look_after(float(turn))
    assert len(peers._queue) < 40


# ------------------------------------------------------------------------------------------- culprits

A, B, C = Giver(1, "a"), Giver(2, "b"), Giver(3, "c")


def test_who_sent_a_whole_bad_piece_is_guilty() -> None:
    assert Culprits().corrupt(0, [A, A], [b"1", b"x"]) == [A]


def test_of_several_the_one_whose_block_differs_is_guilty() -> None:
    court = Culprits()
    assert court.corrupt(0, [A, B, C], [b"1", b"x", b"3"]) == []
    assert court.suspicious(0)
    assert court.good(0, [b"1", b"2", b"3"]) == [B]
    assert not court.suspicious(0)


def test_an_attempt_convicts_once() -> None:
    court = Culprits()
    assert court.corrupt(0, [A, A], [b"1", b"x"]) == [A]
    assert court.corrupt(0, [B, C], [b"1", b"y"]) == []
    assert court.good(0, [b"1", b"2"]) == [C]


def test_if_two_send_the_very_same_the_metainfo_may_be_wrong() -> None:
    court = Culprits()
    assert court.corrupt(0, [A, A], [b"1", b"2"]) == [A]
    assert court.corrupt(0, [B, B], [b"1", b"2"]) == []
    assert court.corrupt(0, [A, A], [b"1", b"2"]) == []
    assert court.corrupt(0, [A, A], [b"1", b"9"]) == [A]


def test_strikes_add_up_and_evidence_is_bounded() -> None:
    court = Culprits()
    assert [court.strike(A), court.strike(B), court.strike(A)] == [1, 1, 2]
    for piece in range(2000):
        for _ in range(9):
            court.corrupt(piece, [A, B], [b"1", b"2"])
    assert sum(court.suspicious(piece) for piece in range(2000)) <= 256
    assert sum(map(len, court._evidence.values())) <= 256 * 4


# --------------------------------------------------------------------------------------------- shares


def peer(number: int, *, seeder: bool = False) -> Peer:
    made = Peer(
        PeerJoined(
            number, None, b"%020d" % number, True, True, True, host=f"10.0.{number >> 8}.{number & 255}"
        ),
        pipeline_blocks=9,
        now=0.0,
    )
    made.joined_as_seed = seeder
    return made


def test_the_shares_of_peers() -> None:
    shares, one, two = Shares(), peer(1, seeder=True), peer(2)
    shares.credit({one: 4}, 4, 400)
    shares.credit({one: 1, two: 3}, 4, 400)
    facts = shares.summary(began_at=10.0, now=14.0)
    assert (facts["fetched_bytes"], facts["average_bytes_per_s"], facts["from_seeders"]) == (
        800,
        200.0,
        0.625,
    )
    assert [(share["bytes"], share["pieces"], share["was_seeder"]) for share in facts["shares"]] == [
        (500, 1.25, True),
        (300, 0.75, False),
    ]


def test_the_median_speed_is_that_of_the_seconds() -> None:
    shares = Shares()
    for second, total in enumerate([100, 200, 1000, 1100, 1200], 1):
        shares.sample(total, began_at=0.0, now=float(second))
    assert shares.summary(began_at=0.0, now=5.0)["median_bytes_per_s"] == 100.0


def test_nothing_fetched_has_no_speed() -> None:
    facts = Shares().summary(began_at=None, now=9.0)
    assert (facts["average_bytes_per_s"], facts["from_seeders"], facts["shares"]) == (0.0, 0.0, [])


def test_the_book_of_shares_is_bounded() -> None:
    shares = Shares()
    for number in range(PEERS_KEPT + 50):
        shares.credit({peer(number): 1}, 1, 10)
    for second in range(5 * SAMPLES_KEPT):
        shares.sample(second * 7, began_at=0.0, now=second + 1.0)
    facts = shares.summary(began_at=0.0, now=1.0)
    assert len(facts["shares"]) == PEERS_KEPT + 1
    assert sum(share["bytes"] for share in facts["shares"]) == 10 * (PEERS_KEPT + 50)
    assert len(shares._samples) <= SAMPLES_KEPT
    assert facts["median_bytes_per_s"] == pytest.approx(7.0)
