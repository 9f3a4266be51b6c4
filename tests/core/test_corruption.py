"""Liars: bad pieces are fetched again, the culprit is found and banned, the innocent are not."""

from __future__ import annotations

from microtorrd.core.events import Ban, Fetch, Store
from microtorrd.core.settings import SwarmSettings
from microtorrd.proto.messages import Choke, Unchoke
from tests.core.rig import Rig, dropped, noted, of

GOOD, BAD = b"good", b"bad"


def test_a_bad_piece_is_fetched_again_from_somebody_else() -> None:
    rig = Rig(".")
    rig.join(1, "all")
    rig.deliver(1)
    rig.join(2, "all")
    orders = rig.corrupt(0)
    assert noted(orders, "piece_corrupt")[0]["from"] == ["10.1.0.1"]
    assert rig.pieces_asked(2) == {0} and rig.asked(1) == []
    rig.deliver(2)
    rig.stored()
    assert rig.state == "seeding"
    assert rig.core.snapshot(rig.now).corrupt_pieces == 1


def test_if_there_is_nobody_else_it_is_asked_again_after_a_while() -> None:
    rig = Rig(".")
    rig.join(1, "all")
    rig.deliver(1)
    rig.corrupt(0)
    assert rig.asked(1) == []
    rig.tick(12)
    assert len(rig.asked(1)) == 2


def test_whoever_sends_bad_pieces_again_and_again_is_banned() -> None:
    rig = Rig("." * 6, settings=SwarmSettings(ban_after=3))
    rig.join(1, "all", host="10.6.6.6", incoming=False, address=("10.6.6.6", 1))
    rig.deliver(1)
    orders = [order for piece in list(rig.storing)[:3] for order in rig.corrupt(piece)]
    assert of(orders, Ban) == [Ban("10.6.6.6", "3 corrupt pieces")]
    assert dropped(orders) == {1: "3 corrupt pieces"}
    for piece in list(rig.storing):  # those that were with the disk already
        assert not of(rig.corrupt(piece), Ban)
    assert "banned" in dropped(rig.connect(2, host="10.6.6.6"))[2]
    assert rig.core.book.state(("10.6.6.6", 1)) == "barred"


def test_on_this_machine_only_the_one_peer_is_banned() -> None:
    rig = Rig("." * 6, settings=SwarmSettings(ban_after=1))
    rig.join(1, "all", host="127.0.0.1")
    rig.join(2, "all", host="127.0.0.1")
    rig.deliver(1)
    orders = rig.corrupt(next(iter(rig.storing)))
    assert dropped(orders) == {1: "1 corrupt pieces"}
    assert not of(orders, Ban)
    assert noted(orders, "peer_banned")
    assert not dropped(rig.connect(3, host="127.0.0.1"))


def two_hands(rig: Rig) -> None:
    """A piece of four blocks: two from the first peer, two from the second."""
    rig.join(1, "all", fast=False)
    rig.deliver(1, 2)
    rig.say(1, Choke())
    rig.join(2, "all")
    rig.deliver(2)


def test_of_several_givers_the_culprit_is_found_by_the_good_piece() -> None:
    rig = Rig(".", blocks=4, settings=SwarmSettings(ban_after=1))
    two_hands(rig)
    orders = rig.corrupt(0, [GOOD, BAD, GOOD, GOOD])
    assert not of(orders, Ban)
    fetches = of(orders, Fetch)
    assert [fetch.peer for fetch in fetches] == [2]
    rig.say(1, Unchoke())
    rig.tick(5)
    assert rig.asked(1) == []  # from one peer alone, even though it looks stalled
    (store,) = of(rig.deliver(2), Store)
    assert store.want_digests
    orders = rig.stored()
    assert of(orders, Ban) == [Ban("10.1.0.1", "1 corrupt pieces")]
    assert list(dropped(orders)) == [1]


def test_a_culprit_that_has_left_is_banned_all_the_same() -> None:
    rig = Rig(".", blocks=4, settings=SwarmSettings(ban_after=1))
    two_hands(rig)
    rig.leave(1)
    rig.corrupt(0, [GOOD, BAD, GOOD, GOOD])
    rig.deliver(2)
    orders = rig.stored()
    assert of(orders, Ban) == [Ban("10.1.0.1", "1 corrupt pieces")]
    assert not dropped(orders)


def test_a_suspicious_piece_of_a_snubbed_peer_is_fetched_from_another() -> None:
    rig = Rig(".", blocks=4, settings=SwarmSettings(request_timeout_s=10))
    two_hands(rig)
    rig.corrupt(0, [GOOD, BAD, GOOD, GOOD])
    rig.say(1, Unchoke())
    rig.tick(15)
    assert len(rig.asked(1)) == 4


def test_the_innocent_keep_what_they_gave() -> None:
    rig = Rig("....", settings=SwarmSettings(ban_after=1))
    rig.join(1, "xx..")
    rig.join(2, "all")
    rig.deliver(1)
    rig.deliver(2)
    rig.corrupt(0)
    rig.stored()
    assert rig.core.have.count == 3
    assert rig.pieces_asked(2) == {0}
