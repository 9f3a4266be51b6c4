"""A peer that runs the original: asked for whole pieces, kept beside a second connection, in no hurry."""

from __future__ import annotations

from microtorrd.core import events
from microtorrd.core.events import PeerJoined, RequestsReceived, Serve
from microtorrd.core.settings import SwarmSettings
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.messages import BitfieldMessage, Choke, Interested, Unchoke
from tests.core.rig import Rig, dropped, of, peer_id, told

ADDRESS = ("10.1.0.1", 7777)


def join(
    rig: Rig, number: int, *, incoming: bool = True, identity: int = 0, seed: bool = True
) -> list[events.Order]:
    rig.lent[number] = []
    have = Bitfield.full(rig.geometry.piece_count) if seed else Bitfield(rig.geometry.piece_count)
    return rig.do(
        PeerJoined(
            number,
            None if incoming else ADDRESS,
            peer_id(identity or number),
            incoming,
            fast=False,
            extended=False,
            host="10.1.0.1",
            whole_pieces=True,
        )
    ) + rig.say(number, BitfieldMessage(have.to_bytes()), Unchoke(), *([] if seed else [Interested()]))


def test_it_is_asked_for_whole_pieces() -> None:
    rig = Rig("....", blocks=40)
    join(rig, 1)
    (piece,) = rig.pieces_asked(1)
    assert [block for _, block in rig.asked(1)] == list(range(40))
    rig.deliver(1, 24)
    assert rig.pieces_asked(1) == {piece}
    rig.deliver(1, 8)  # the next one before this one has ended
    assert len(rig.asked(1)) == 8 + 40
    for _ in range(4):
        rig.deliver(1)
        rig.stored()
    assert rig.state == "seeding"


def test_what_others_gave_back_is_asked_for_in_one() -> None:
    rig = Rig(".", blocks=40)
    rig.join(2, "all")
    rig.deliver(2, 3)
    rig.leave(2)
    join(rig, 1)
    assert len(rig.asked(1)) == 37


def test_a_second_connection_never_replaces_the_first() -> None:
    for number in (1, 900):  # ids below and above ours
        rig = Rig("....")
        join(rig, number)
        assert dropped(join(rig, 3, incoming=False, identity=number)) == {
            3: "the same peer is connected already"
        }
        assert rig.peer(number).address == ADDRESS


def test_one_that_came_back_replaces_what_is_left_of_it() -> None:
    rig = Rig("....")
    join(rig, 1)
    assert dropped(join(rig, 2, identity=1)) == {1: "the same peer has a newer connection"}


def test_where_it_listens_is_learnt_from_a_dial_that_found_it() -> None:
    rig = Rig("....")
    join(rig, 1)
    orders = rig.do(events.AddressesFound([ADDRESS], "tracker"))
    orders += rig.do(events.DialFailed(ADDRESS, "connected already", twin=peer_id(1)))
    assert of(orders, events.Dial) == [events.Dial(ADDRESS)]
    assert rig.peer(1).address == ADDRESS
    assert rig.core.book.state(ADDRESS) == "connected"
    assert of(rig.tick(600), events.Dial) == []
    rig.leave(1)
    assert rig.core.book.state(ADDRESS) == "idle"


def test_it_may_be_silent_for_hours() -> None:
    rig = Rig("xxxx")
    join(rig, 1, seed=False)
    rig.join(2, "x...")
    orders = rig.tick(1000)
    assert list(dropped(orders)) == [2]


def test_its_requests_are_no_noise_while_it_is_choked() -> None:
    rig = Rig("x", blocks=3000, settings=SwarmSettings(upload_slots=1))
    requests = [(0, *block) for block in rig.geometry.blocks(0)]
    join(rig, 1, seed=False)
    orders = rig.do(RequestsReceived(1, requests))
    assert of(orders, Serve) == [Serve(1, requests)]
    for number in (2, 3, 4):
        join(rig, number, seed=False, identity=number)
    for _ in range(120):
        if Choke() in told(rig.tick(), 1):
            break
    assert rig.peer(1).am_choking
    for _ in range(5):
        assert rig.do(RequestsReceived(1, requests)) == []
