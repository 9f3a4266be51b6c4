"""Some pieces are wanted and others not, or first, and the operator changes his mind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.core import events
from microtorrd.core.events import Announce, Confirm, Recall, Release, WishesChanged
from microtorrd.core.settings import TorrentSettings
from microtorrd.core.wishes import Wishes
from microtorrd.proto.extended import ExtendedHandshake
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.messages import Extended, HaveAll, Interested, NotInterested, Unchoke
from tests.core.rig import Rig, bits, dropped, noted, of, told


def wishes(picture: str) -> bytes:
    """A digit for each piece; `.` for none of our business."""
    return bytes(0 if char == "." else int(char) for char in picture)


def fetch_everything(rig: Rig, peer: int) -> list[int]:
    """Let the peer deliver what it is asked for until nothing more is asked; the pieces, in their order."""
    order: dict[int, None] = {}
    while rig.lent[peer] or rig.storing:
        order |= dict.fromkeys(slot.piece for slot in rig.lent[peer])
        rig.deliver(peer)
        rig.stored()
    return list(order)


def test_what_is_not_wanted_is_not_asked_for_and_the_rest_makes_a_seeder() -> None:
    rig = Rig("......", priorities=wishes("..44.4"), last_bytes=5)
    rig.join(1, "all")
    assert set(fetch_everything(rig, 1)) == {2, 3, 5}
    snapshot = rig.core.snapshot(rig.now)
    assert (snapshot.state, snapshot.have_count) == ("seeding", 3)
    assert snapshot.done_bytes == snapshot.wanted_bytes == snapshot.have_bytes == 4 * 16384 + 5
    (facts,) = noted(rig.journal, "completed")
    assert facts["whole"] is False
    assert "completed" not in [order.event for order in of(rig.journal, Announce)]
    assert not of(rig.journal, Confirm)


def test_pieces_of_a_higher_rank_go_first_however_rare_the_others_are() -> None:
    order = fetch_everything_again("121712", sequential=False)
    assert [set(order[:1]), set(order[1:3]), set(order[3:])] == [{3}, {1, 5}, {0, 2, 4}]
    assert fetch_everything_again("121712", sequential=True) == [3, 1, 5, 0, 2, 4]


def fetch_everything_again(ranks: str, *, sequential: bool) -> list[int]:
    rig = Rig("......", priorities=wishes(ranks), blocks=16, torrent=TorrentSettings(sequential=sequential))
    rig.join(2, "...x..", unchoke=False)
    rig.join(1, "all")
    return fetch_everything(rig, 1)


def test_a_piece_that_is_wanted_no_more_is_given_up_with_its_memory() -> None:
    rig = Rig("......", blocks=16)
    rig.join(1, "all")
    (begun,) = rig.pieces_asked(1)
    rig.deliver(1, 3)
    orders = rig.do(WishesChanged(bytes(4 * (piece != begun) for piece in range(6))))
    assert [order.peer for order in of(orders, Recall)] == [1]
    assert len(of(orders, Release)) == 1
    assert rig.asked(1) and begun not in rig.pieces_asked(1)


def test_a_piece_at_the_disk_counts_although_it_is_wanted_no_more() -> None:
    rig = Rig("..")
    rig.join(1, "all")
    rig.deliver(1)
    assert len(rig.storing) == 2
    rig.do(WishesChanged(wishes("..")))
    rig.stored()
    assert rig.core.have.complete
    assert [order.event for order in of(rig.journal, Announce)] == ["started", "completed"]


def test_interest_follows_the_wishes() -> None:
    rig = Rig("....", priorities=wishes("4..."))
    assert told(rig.join(1, ".xxx"), 1)[1:] == []
    rig.join(2, "all")
    assert rig.peer(2).am_interested and not rig.peer(1).am_interested
    assert told(rig.do(WishesChanged(wishes(".4.."))), 1) == [Interested()]
    assert rig.pieces_asked(1) | rig.pieces_asked(2) == {1}
    orders = rig.do(WishesChanged(wishes("....")))
    assert told(orders, 1) == [NotInterested()] == told(orders, 2)
    assert rig.state == "seeding"
    assert told(rig.do(WishesChanged(None)), 1) == [Interested()]
    assert rig.state == "downloading"


def test_peers_hear_that_we_want_nothing_more_and_that_we_want_again() -> None:
    rig = Rig("..", priorities=wishes("4."))
    rig.connect(1, extended=True)
    rig.join(2, "x.")
    rig.deliver(2)
    orders = rig.stored()
    (again,) = [word for word in told(orders, 1) if isinstance(word, Extended)]
    said = ExtendedHandshake.decode(again.payload)
    assert said.upload_only is True and said.m  # libtorrent gives up what is not named again
    assert not [word for word in told(orders, 2) if isinstance(word, Extended)]
    (again,) = [word for word in told(rig.do(WishesChanged(None)), 1) if isinstance(word, Extended)]
    assert ExtendedHandshake.decode(again.payload).upload_only is False
    words = told(rig.connect(3, extended=True), 3)
    assert isinstance(words[0], Extended)
    assert ExtendedHandshake.decode(words[0].payload).upload_only is None


def test_a_partial_seed_serves_what_it_has_and_parts_with_who_wants_nothing() -> None:
    rig = Rig("x.", priorities=wishes("4."))
    rig.join(1, "all")
    rig.join(2, "")
    assert Unchoke() in told(rig.say(2, Interested()), 2)
    (serve,) = of(rig.do(events.RequestsReceived(2, [(0, 0, 16384)])), events.Serve)
    assert serve.requests == [(0, 0, 16384)]
    assert list(dropped(rig.tick(5))) == [1]


def test_who_is_not_to_seed_leaves_when_the_wishes_are_met_and_stays_for_new_ones() -> None:
    rig = Rig("...", priorities=wishes("4.."), torrent=TorrentSettings(seed_after_download=False))
    rig.join(1, "all")
    rig.say(1, Interested())
    rig.deliver(1)
    rig.stored()
    rig.do(WishesChanged(wishes("44.")))
    rig.tick(10)
    assert rig.state == "downloading"
    fetch_everything(rig, 1)
    rig.tick(10)
    assert rig.state == "stopped"
    assert len(noted(rig.journal, "completed")) == 2


def test_met_wishes_are_not_told_again_after_a_restart_or_a_check() -> None:
    rig = Rig("x.", priorities=wishes("4."))
    rig.tick(3)
    rig.do(events.RecheckWanted([0, 1]))
    rig.do(events.PiecesChecked([0], [1], True))
    assert rig.state == "seeding"
    assert not noted(rig.journal, "completed")


def test_whole_after_all_it_is_confirmed_and_announced() -> None:
    rig = Rig("..", priorities=wishes("4."), id_hash=True)
    rig.join(1, "all")
    rig.deliver(1)
    rig.stored()
    assert not of(rig.journal, Confirm)
    rig.do(WishesChanged(None))
    rig.deliver(1)
    assert of(rig.stored(), Confirm)
    rig.do(events.ContentConfirmed(True))
    assert [facts["whole"] for facts in noted(rig.journal, "completed")] == [False, True]
    assert [order.event for order in of(rig.journal, Announce)] == ["started", "completed"]


@pytest.mark.parametrize("phase", ["stopped", "checking"])
def test_wishes_change_also_while_nobody_is_connected(phase: str) -> None:
    rig = Rig("...", start=False)
    if phase == "checking":
        rig.do(events.Started(recheck=True))
    rig.do(WishesChanged(wishes("4..")))
    rig.do(events.Started(), events.PiecesChecked([], [0, 1, 2], True))
    rig.join(1, "all")
    assert rig.pieces_asked(1) == {0}


@given(st.integers(1, 60), st.integers(1, 7), st.data())
def test_the_sizes_are_those_of_the_pieces(length: int, piece_length: int, data: st.DataObject) -> None:
    geometry = Geometry(length, piece_length)
    count = geometry.piece_count
    picture = data.draw(st.text(".147", min_size=count, max_size=count))
    had = data.draw(st.text(".x", min_size=count, max_size=count))
    made = Wishes(geometry, wishes(picture))
    wanted = [piece for piece in range(count) if picture[piece] != "."]
    assert made.size == sum(map(geometry.piece_size, wanted))
    done = [piece for piece in wanted if had[piece] == "x"]
    assert made.done_bytes(bits(had).bits) == sum(map(geometry.piece_size, done))
    assert made.are_met(bits(had).bits) == (wanted == done)


@given(st.text(".147", min_size=1, max_size=40), st.integers(0, 1000))
def test_any_picture_is_fetched_in_the_order_of_its_ranks(picture: str, seed: int) -> None:
    rig = Rig("." * len(picture), priorities=wishes(picture), blocks=16, seed=seed)
    rig.join(1, "all")
    ranks = [int(picture[piece]) for piece in fetch_everything(rig, 1)]
    assert ranks == sorted((int(char) for char in picture if char != "."), reverse=True)


def test_a_seeder_that_parted_is_called_at_once_when_something_is_wanted_again() -> None:
    rig = Rig("x.", priorities=wishes("4."))
    rig.connect(1, incoming=False, address=("10.0.0.1", 5))
    rig.say(1, HaveAll())
    rig.tick(4)
    rig.leave(1)
    assert not of(rig.tick(3), events.Dial)
    assert of(rig.do(WishesChanged(None)), events.Dial) == [events.Dial(("10.0.0.1", 5))]
