"""What peers get of us: slots, requests, cancels, chokes, allowed fast pieces, suggestions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from microtorrd.core import uploading
from microtorrd.core.events import BlocksSent, Order, RequestsReceived, Serve, Withdraw
from microtorrd.core.fastset import allowed_fast
from microtorrd.core.settings import SwarmSettings
from microtorrd.core.uploading import FAST_QUEUE_MAX, QUEUE_MAX
from microtorrd.proto.messages import (
    AllowedFast,
    Cancel,
    Choke,
    Have,
    Interested,
    KeepAlive,
    NotInterested,
    Reject,
    Request,
    Suggest,
    Unchoke,
)
from tests.core.rig import INFO_HASH, Rig, dropped, of, told

BLOCK = 16384


def leecher(rig: Rig, number: int, have: str = "", *, fast: bool = True) -> None:
    rig.join(number, have, fast=fast)
    rig.say(number, Interested())


def unchoked(rig: Rig) -> set[int]:
    return {number for number, peer in rig.core.swarm.peers.items() if not peer.am_choking}


# ------------------------------------------------------------------------------------------------ slots


def test_a_free_slot_is_given_at_once() -> None:
    rig = Rig("xx")
    rig.join(1)
    assert told(rig.say(1, Interested()), 1) == [Unchoke()]


def test_slots_are_limited_and_pass_on_when_they_become_free() -> None:
    rig = Rig("xx", settings=SwarmSettings(upload_slots=2))
    for number in (1, 2, 3, 4):
        leecher(rig, number)
        rig.now += 1
    assert unchoked(rig) == {1, 2}
    assert Unchoke() in told(rig.leave(1), 3)  # it has waited longest
    assert told(rig.say(2, NotInterested()), 4) == [Unchoke()]


def test_a_slot_that_nobody_uses_keeps_nobody_waiting() -> None:
    rig = Rig("x" * 8)
    slots = rig.core.uploading.slots
    rig.join(99)
    rig.tick()  # the next choice is ten seconds away
    for number in range(1, 4 * slots + 1):
        leecher(rig, number)
        if number < slots:
            rig.do(RequestsReceived(number, [(0, 0, BLOCK)]))
    rig.do(RequestsReceived(slots, [(0, 0, BLOCK)]))
    rig.tick(5)
    assert unchoked(rig) == set(range(1, slots + 1))  # all of which are used
    rig.do(BlocksSent(slots, 1, BLOCK))
    rig.now += 1.0
    rig.tick()  # one has been idle for two seconds
    assert unchoked(rig) == set(range(1, slots + 2))
    rig.do(*(BlocksSent(number, 1, BLOCK) for number in range(1, slots)))
    rig.tick(2)
    assert unchoked(rig) == set(range(1, 2 * slots + 1))  # and no more than so many at a time


def test_the_operators_slots_are_as_many_as_they_are_used_or_not() -> None:
    rig = Rig("xx", settings=SwarmSettings(upload_slots=2))
    for number in (1, 2, 3, 4):
        leecher(rig, number)
    rig.tick(5)
    assert len(unchoked(rig)) == 2 + 1  # and the optimistic one


def test_everybody_is_served_in_a_closed_lan() -> None:
    rig = Rig("xx", settings=SwarmSettings(upload_slots=1, always_unchoke=True))
    for number in (1, 2, 3):
        assert Unchoke() in told(rig.connect(number), number)
    rig.tick(60)
    assert unchoked(rig) == {1, 2, 3}


def test_the_choker_moves_contested_slots_and_the_choked_hear_of_every_request() -> None:
    rig = Rig("xx", settings=SwarmSettings(upload_slots=1))
    leecher(rig, 1)
    rig.do(RequestsReceived(1, [(0, 0, BLOCK)]))
    for number in (2, 3, 4, 5):
        leecher(rig, number)
    orders = rig.tick(61)
    assert len(unchoked(rig)) == 2  # a regular slot and the optimistic one
    assert Choke() in told(orders, 1)
    assert Withdraw(1, None, reject=True) in orders
    at = [order for order in orders if isinstance(order, Withdraw) or Choke() in told([order], 1)]
    assert isinstance(at[1], Withdraw)  # the choke first, then the rejects


@pytest.mark.parametrize("fast", [True, False])
def test_a_piece_that_is_nearly_through_goes_through(fast: bool) -> None:
    rig = Rig("xxx", blocks=4, settings=SwarmSettings(upload_slots=1))
    leecher(rig, 1, fast=fast)
    rig.do(RequestsReceived(1, [(piece, block * BLOCK, BLOCK) for piece in (2, 0) for block in range(4)]))
    rig.do(BlocksSent(1, 1, BLOCK))
    for number in (2, 3, 4, 5):
        leecher(rig, number)
    orders = rig.tick(61)
    assert Choke() in told(orders, 1)
    rest = [(2, block * BLOCK, BLOCK) for block in (1, 2, 3)]
    if not fast:
        assert Withdraw(1, None, reject=False) in orders
        assert not rig.peer(1).queue
        return
    assert Withdraw(1, tuple((0, block * BLOCK, BLOCK) for block in range(4)), reject=True) in orders
    assert list(rig.peer(1).queue) == rest
    assert 2 in rig.peer(1).handed
    assert told(rig.do(RequestsReceived(1, [(1, 0, BLOCK)])), 1) == [Reject(1, 0, BLOCK)]
    rig.do(BlocksSent(1, 3, 3 * BLOCK))
    assert not rig.peer(1).queue


def test_a_choked_peer_does_not_get_the_rest_of_a_large_piece() -> None:
    rig = Rig("xx", blocks=16, settings=SwarmSettings(upload_slots=1))
    leecher(rig, 1)
    rig.do(RequestsReceived(1, [(0, block * BLOCK, BLOCK) for block in range(16)]))
    rig.do(BlocksSent(1, 1, BLOCK))
    for number in (2, 3, 4, 5):
        leecher(rig, number)
    assert Withdraw(1, None, reject=True) in rig.tick(61)


def test_the_optimistic_slot_moves_every_third_round() -> None:
    rig = Rig("xx", settings=SwarmSettings(upload_slots=1))
    for number in range(1, 12):
        leecher(rig, number)
    lucky = []
    for _ in range(30):
        rig.tick(10)
        for number in range(1, 12):
            rig.say(number, KeepAlive())
        (now,) = [number for number, peer in rig.core.swarm.peers.items() if peer.optimistic]
        lucky.append(now)
    changes = sum(a != b for a, b in pairwise(lucky))
    assert 6 <= changes <= 11


# --------------------------------------------------------------------------------------------- requests


def test_requests_are_served_in_their_order() -> None:
    rig = Rig("xx", last_bytes=100)
    leecher(rig, 1)
    requests = [(0, BLOCK, BLOCK), (0, 0, BLOCK), (1, 0, 100), (1, 7, 13)]
    assert rig.do(RequestsReceived(1, requests)) == [Serve(1, requests)]
    rig.do(BlocksSent(1, 3, 2 * BLOCK + 100))
    snapshot = rig.core.snapshot(rig.now)
    assert snapshot.up_bytes == 2 * BLOCK + 100
    assert list(rig.peer(1).queue) == [(1, 7, 13)]


def test_a_request_that_came_as_a_message_is_served_too() -> None:
    rig = Rig("xx")
    leecher(rig, 1)
    assert of(rig.say(1, Request(0, 0, BLOCK)), Serve)


def test_the_same_request_twice_is_served_once() -> None:
    rig = Rig("xx")
    leecher(rig, 1)
    orders = rig.do(RequestsReceived(1, [(0, 0, BLOCK)] * 3), RequestsReceived(1, [(0, 0, BLOCK), (1, 0, 9)]))
    assert orders == [Serve(1, [(0, 0, BLOCK)]), Serve(1, [(1, 0, 9)])]


def test_what_we_do_not_have_is_rejected_or_the_peer_dropped() -> None:
    rig = Rig("x.")
    leecher(rig, 1)
    orders = rig.do(RequestsReceived(1, [(0, 0, BLOCK), (1, 0, BLOCK)]))
    assert told(orders, 1) == [Reject(1, 0, BLOCK)]
    assert of(orders, Serve) == [Serve(1, [(0, 0, BLOCK)])]
    leecher(rig, 2, fast=False)
    assert "do not have" in dropped(rig.do(RequestsReceived(2, [(1, 0, BLOCK)])))[2]


def test_a_choked_peer_gets_a_reject_or_silence() -> None:
    rig = Rig("xx")
    rig.join(1)
    assert told(rig.do(RequestsReceived(1, [(0, 0, BLOCK)])), 1) == [Reject(0, 0, BLOCK)]
    rig.join(2, fast=False)
    assert rig.do(RequestsReceived(2, [(0, 0, BLOCK)])) == []


def test_more_than_agreed_is_rejected_aloud() -> None:
    rig = Rig("x" * 100, blocks=64)
    leecher(rig, 1)
    every = [(piece, begin * BLOCK, BLOCK) for piece in range(100) for begin in range(64)]
    rig.do(RequestsReceived(1, every[:2000]))
    orders = rig.do(RequestsReceived(1, every[2000:2100]))
    assert sum(len(order.requests) for order in of(orders, Serve)) == QUEUE_MAX - 2000
    assert len(told(orders, 1)) == 2100 - QUEUE_MAX
    rig.do(BlocksSent(1, 2048, 2048 * BLOCK))
    assert of(rig.do(RequestsReceived(1, every[2100:2200])), Serve)


def test_a_cancelled_block_is_withdrawn_and_answered() -> None:
    rig = Rig("xx")
    leecher(rig, 1)
    leecher(rig, 2, fast=False)
    for number, reject in ((1, True), (2, False)):
        rig.do(RequestsReceived(number, [(0, 0, BLOCK), (0, BLOCK, BLOCK)]))
        assert rig.say(number, Cancel(0, 0, BLOCK)) == [Withdraw(number, ((0, 0, BLOCK),), reject=reject)]
        assert rig.say(number, Cancel(0, 0, BLOCK)) == []


# ----------------------------------------------------------------------------------------- allowed fast


def test_the_set_is_that_of_bep_6() -> None:
    # The two examples of BEP 6.
    assert allowed_fast("80.4.4.200", b"\xaa" * 20, 1313, 7) == [1059, 431, 808, 1217, 287, 376, 1188]
    assert allowed_fast("80.4.4.200", b"\xaa" * 20, 1313, 9) == [
        1059, 431, 808, 1217, 287, 376, 1188, 353, 508,
    ]  # fmt: skip


def test_the_set_of_other_addresses() -> None:
    assert allowed_fast("2001:db8::1", INFO_HASH, 1000) == allowed_fast("2001:db8::2", INFO_HASH, 1000)
    assert allowed_fast("::ffff:80.4.4.200", b"\xaa" * 20, 1313) == allowed_fast(
        "80.4.4.7", b"\xaa" * 20, 1313
    )
    assert allowed_fast("10.0.0.1", INFO_HASH, 4) == [0, 1, 2, 3]
    assert allowed_fast("no address", INFO_HASH, 100) == []
    assert len(set(allowed_fast("fe80::1%eth0", INFO_HASH, 100))) == 10


def test_who_has_to_wait_for_a_slot_gets_a_few_pieces_all_the_same() -> None:
    rig = Rig("x" * 700 + ".", settings=SwarmSettings(upload_slots=1))
    leecher(rig, 1)
    words = told(rig.connect(2, host="80.4.4.200"), 2)
    free = [message.piece for message in words if isinstance(message, AllowedFast)]
    assert sorted(free) == sorted(allowed_fast("80.4.4.200", INFO_HASH, 701))
    rig.say(2, Interested())
    other = next(piece for piece in range(700) if piece not in free)
    orders = rig.do(RequestsReceived(2, [(free[0], 0, BLOCK), (other, 0, BLOCK)]))
    assert of(orders, Serve) == [Serve(2, [(free[0], 0, BLOCK)])]
    assert told(orders, 2) == [Reject(other, 0, BLOCK)]


def test_of_a_short_content_fewer_pieces_are_free() -> None:
    rig = Rig("x" * 128 + ".", settings=SwarmSettings(upload_slots=1))
    leecher(rig, 1)
    assert sum(isinstance(message, AllowedFast) for message in told(rig.connect(2), 2)) == 2


def test_a_seeder_gives_nothing_for_nothing_while_some_pieces_are_nowhere_else() -> None:
    rig = Rig("x" * 700, settings=SwarmSettings(upload_slots=1))
    leecher(rig, 1)
    assert not any(isinstance(message, AllowedFast) for message in told(rig.connect(2), 2))
    rig.join(3, "x" * 350 + "." * 350)
    rig.join(4, "." * 350 + "x" * 350)
    assert any(isinstance(message, AllowedFast) for message in told(rig.connect(5), 5))


def test_the_free_pieces_end_when_it_has_some_and_are_bounded() -> None:
    rig = Rig("x" * 700 + ".", blocks=64, settings=SwarmSettings(upload_slots=1))
    leecher(rig, 1)
    rig.join(2, host="80.4.4.200")
    free = sorted(rig.peer(2).fast_given)
    many = [(piece, begin * BLOCK, BLOCK) for piece in free for begin in range(64)]
    orders = rig.do(RequestsReceived(2, many))
    assert sum(len(order.requests) for order in of(orders, Serve)) == FAST_QUEUE_MAX
    rig.do(BlocksSent(2, FAST_QUEUE_MAX, 1))
    rig.say(2, *(Have(piece) for piece in range(10)))
    assert not of(rig.do(RequestsReceived(2, [(free[0], 0, BLOCK)])), Serve)


# ------------------------------------------------------------------------------------------- suggestions


def suggested(orders: Sequence[Order], number: int) -> list[int]:
    return [m.piece for m in told(orders, number) if isinstance(m, Suggest)]


def test_a_seeder_with_one_taker_suggests_nothing() -> None:
    rig = Rig("x" * 8)
    leecher(rig, 1)
    assert not suggested(rig.journal, 1)


def test_a_seeder_with_several_takers_hands_each_piece_to_one_of_them() -> None:
    rig = Rig("x" * 8, blocks=16)
    for number in (1, 2, 3):
        leecher(rig, number)
    rig.do(RequestsReceived(1, [(0, 0, BLOCK)]))  # of its own choice
    handed: dict[int, set[int]] = {number: set(suggested(rig.journal, number)) for number in (1, 2, 3)}
    handed[1].add(0)
    for _ in range(8):
        for number in (1, 2, 3):
            for piece in list(rig.peer(number).suggested):
                every = [(piece, block * BLOCK, BLOCK) for block in range(16)]
                rig.do(RequestsReceived(number, every))
                handed[number] |= set(suggested(rig.do(BlocksSent(number, 16, 16 * BLOCK)), number))
    assert set.union(*handed.values()) == set(range(8))
    assert sum(map(len, handed.values())) == 8
    assert all(handed.values())


def test_a_piece_that_was_handed_to_somebody_who_left_is_handed_out_again() -> None:
    rig = Rig("x" * 3, blocks=16)
    for number in (1, 2):
        leecher(rig, number)
    (mine,) = rig.peer(1).handed or [None]
    rig.leave(1)
    leecher(rig, 3)
    for piece in range(3):
        if piece != mine:
            rig.say(2, Have(piece))
    rig.do(BlocksSent(3, 0, 0))
    if mine is not None:
        assert mine in {**rig.peer(2).handed, **rig.peer(3).handed}


def test_what_others_have_is_not_handed_out() -> None:
    rig = Rig("x" * 4)
    leecher(rig, 1, "xx..")
    leecher(rig, 2, "..x.")
    assert set(suggested(rig.journal, 1)) | set(suggested(rig.journal, 2)) <= {3}


# ---------------------------------------------------------------------------------------------- a crowd


def test_in_a_crowd_everybody_has_a_turn_and_the_longest_waiting_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uploading, "CROWD", 6)
    rig = Rig("xx", settings=SwarmSettings(upload_slots=2, idle_timeout_s=1e9))
    everybody = range(1, 31)
    for number in everybody:
        leecher(rig, number)
        rig.now += 0.01
    assert unchoked(rig) == {1, 2}
    assert Unchoke() in told(rig.leave(1), 3)
    served: set[int] = {1}
    for _ in range(40):
        rig.tick(10)
        served |= unchoked(rig)
    assert served == set(everybody)


def test_in_a_crowd_who_gives_is_seen_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploading, "CROWD", 4)
    rig = Rig("x" + "." * 30, settings=SwarmSettings(upload_slots=2))
    for number in range(1, 41):
        leecher(rig, number, "." + "x" * 30 if number == 33 else "")
    assert 33 not in unchoked(rig)
    for _ in range(20):
        rig.deliver(33, 2)
        rig.stored()
        rig.tick(1)
    assert 33 in unchoked(rig)
