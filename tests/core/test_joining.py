"""Who is let in, what is said first, who parts."""

from __future__ import annotations

import pytest

from microtorrd.core import events
from microtorrd.core.events import AddressesFound, Dial, DialFailed
from microtorrd.core.settings import SwarmSettings
from microtorrd.core.swarm import NOISE_MAX
from microtorrd.proto.extended import ExtendedHandshake
from microtorrd.proto.messages import (
    BitfieldMessage,
    Extended,
    Have,
    HaveAll,
    HaveNone,
    Interested,
    KeepAlive,
    NotInterested,
)
from tests.core.rig import INFO_HASH, OUR_ID, Rig, bits, dropped, noted, of, peer_id, told


def introduction(**fields: object) -> Extended:
    return Extended(0, ExtendedHandshake(m={}, **fields).encode())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("have", "fast", "expected"),
    [
        ("..", True, HaveNone()),
        ("xx", True, HaveAll()),
        ("x.", True, BitfieldMessage(b"\x80")),
        ("..", False, BitfieldMessage(b"\x00")),
        ("xx", False, BitfieldMessage(b"\xc0")),
    ],
)
def test_what_we_have_is_the_first_word(have: str, fast: bool, expected: object) -> None:
    assert told(Rig(have).connect(1, fast=fast), 1) == [expected]


def test_the_extended_handshake_goes_ahead_of_it() -> None:
    words = told(Rig("xx").connect(1, extended=True, host="10.0.0.7"), 1)
    assert isinstance(words[0], Extended) and words[0].number == 0
    said = ExtendedHandshake.decode(words[0].payload)
    assert said.client == "rig 1"
    assert (said.listen_port, said.reqq, said.upload_only) == (6881, 2048, True)
    assert said.info_hash == INFO_HASH
    assert said.yourip == bytes([10, 0, 0, 7])
    assert words[1] == HaveAll()


def test_what_peers_say_of_themselves() -> None:
    rig = Rig("..")
    rig.connect(1, extended=True, host="10.0.0.7")
    rig.say(1, introduction(client="Transmission\x1b 4", listen_port=51413, reqq=500, info_hash=None))
    (view,) = rig.core.snapshot(rig.now, with_peers=True).peers
    assert (view.client, view.port) == ("Transmission 4", 51413)
    assert rig.peer(1).pipeline.limit == 500
    assert rig.core.book.state(("10.0.0.7", 51413)) == "connected"


def test_the_same_content_in_other_pieces_is_told_apart() -> None:
    rig = Rig("..")
    rig.connect(1, extended=True)
    assert "info_hash" in dropped(rig.say(1, introduction(info_hash=b"\x99" * 20)))[1]
    rig.connect(2, extended=True)
    assert not dropped(rig.say(2, introduction(info_hash=INFO_HASH)))


def test_a_bitfield_may_follow_extended_messages_and_keep_alives() -> None:
    rig = Rig("..")
    rig.connect(1, extended=True)
    assert not dropped(rig.say(1, introduction(), KeepAlive(), BitfieldMessage(b"\x80")))
    assert rig.peer(1).have == bits("x.")


@pytest.mark.parametrize("fast", [False, True])
def test_a_later_bitfield_adds_what_is_new_in_it(fast: bool) -> None:
    rig = Rig("x....")
    rig.join(1, "x...." if fast else "", fast=fast)
    assert told(rig.say(1, BitfieldMessage(b"\xe0")), 1) == [Interested()]
    assert rig.peer(1).have == bits("xxx..")
    assert rig.pieces_asked(1) == {1, 2}
    rig.say(1, BitfieldMessage(b"\x18"))  # what is not in it any more is not taken back
    assert rig.peer(1).is_seed
    rig.say(1, BitfieldMessage(b"\xf8"), BitfieldMessage(b"\x00"))
    assert rig.peer(1).is_seed


def test_have_all_in_place_of_the_last_haves() -> None:
    rig = Rig("xx..")
    rig.join(1, "x...")
    assert not dropped(rig.say(1, HaveAll(), HaveAll()))
    assert rig.peer(1).is_seed
    assert rig.pieces_asked(1) == {2, 3}
    assert dropped(rig.say(1, HaveNone()))


def test_bitfields_without_news_are_noise() -> None:
    rig = Rig("..")
    rig.join(1, "x.")
    assert dropped(rig.say(1, *[BitfieldMessage(b"\x80")] * (NOISE_MAX + 1)))


def test_ourselves_are_never_dialed_again() -> None:
    rig = Rig("..")
    address = ("10.0.0.1", 1)
    rig.do(AddressesFound([address], "tracker"))
    assert dropped(rig.connect(1, incoming=False, address=address, identity=OUR_ID)) == {1: "it is ourselves"}
    assert rig.core.book.state(address) == "barred"
    rig.do(AddressesFound([("10.0.0.2", 2)], "tracker"))
    rig.do(DialFailed(("10.0.0.2", 2), "ourselves", ourselves=True))
    assert not of(rig.tick(100), Dial)


def test_there_is_a_limit() -> None:
    rig = Rig("..", settings=SwarmSettings(connections_per_torrent=2))
    rig.join(1)
    rig.join(2)
    assert "as many peers" in dropped(rig.connect(3))[3]
    rig.leave(1)
    assert not dropped(rig.connect(4))


def full_of(*hosts: str) -> Rig:
    """A torrent whose places are all taken, by peers of these hosts in turn."""
    rig = Rig("..", settings=SwarmSettings(connections_per_torrent=10))
    for number in range(10):
        rig.join(number + 1, "x.", host=hosts[number % len(hosts)])
    return rig


def test_the_host_with_most_connections_gives_a_place_to_others() -> None:
    rig = full_of("10.0.0.1")
    rig.say(3, KeepAlive())
    gone = dropped(rig.connect(11, host="10.0.0.2"))
    assert list(gone.values()) == ["its host has many connections, and others want a place"]
    assert 3 not in gone
    for number in range(12, 16):
        assert len(dropped(rig.connect(number, host="10.0.0.2"))) == 1
    assert "as many peers" in dropped(rig.connect(16, host="10.0.0.2"))[16]
    assert "as many peers" in dropped(rig.connect(17, host="10.0.0.1"))[17]
    assert 18 not in dropped(rig.connect(18, host="10.0.0.3"))


def test_who_gave_or_took_something_keeps_its_place() -> None:
    rig = full_of("10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2")
    rig.deliver(1)
    rig.tick(1)
    gone = []
    for number in range(11, 16):
        gone += dropped(rig.connect(number, host=f"10.0.1.{number}"))
    assert len(gone) == 5 and 1 not in gone
    assert {number for number in gone if number % 4} == set(gone), "a place of the host with two was taken"


def test_hosts_of_ipv6_are_counted_by_their_network() -> None:
    rig = full_of(*(f"2001:db8:1:1::{number:x}" for number in range(10)))
    assert "as many peers" in dropped(rig.connect(11, host="2001:db8:1:1::ffff"))[11]
    assert 12 not in dropped(rig.connect(12, host="2001:db8:1:2::1"))


def test_where_one_host_has_taken_all_places_others_are_dialed_one_by_one() -> None:
    rig = full_of("10.0.0.1")
    addresses = [(f"10.0.1.{number}", 6881) for number in range(5)]
    assert len(of(rig.do(AddressesFound(addresses, "tracker")), Dial)) == 1
    rig = full_of(*(f"10.0.0.{number}" for number in range(10)))
    assert not of(rig.do(AddressesFound(addresses, "tracker")), Dial)


@pytest.mark.parametrize("first_incoming", [True, False])
@pytest.mark.parametrize(("number", "incoming_stays"), [(7, False), (700, True)])
def test_of_two_crossing_connections_the_one_that_the_greater_id_opened_stays(
    number: int, incoming_stays: bool, first_incoming: bool
) -> None:
    rig = Rig("..")
    identity, host, address = peer_id(number), "10.0.0.7", ("10.0.0.7", 99)
    orders = []
    for connection, incoming in ((1, first_incoming), (2, not first_incoming)):
        orders += rig.connect(
            connection, incoming=incoming, host=host, identity=identity, address=None if incoming else address
        )
    assert len(dropped(orders)) == 1
    (left,) = rig.core.swarm.peers.values()
    assert left.incoming == incoming_stays
    assert rig.core.book.state(address) == "connected"


def test_of_two_connections_in_the_same_direction_the_newer_one_stays() -> None:
    rig = Rig("..")
    rig.connect(1, host="10.0.0.7", identity=peer_id(7))
    rig.now += 600
    assert dropped(rig.connect(2, host="10.0.0.7", identity=peer_id(7))) == {
        1: "the same peer has a newer connection"
    }


def test_a_borrowed_peer_id_does_not_push_out_its_owner() -> None:
    rig = Rig("..")
    rig.connect(1, host="10.0.0.7", identity=peer_id(700), incoming=False, address=("10.0.0.7", 9))
    rig.now += 60
    assert dropped(rig.connect(2, host="10.9.9.9", identity=peer_id(700))) == {
        2: "the same peer is connected already"
    }


def test_two_seeders_part_after_a_grace() -> None:
    rig = Rig("xx")
    rig.join(1, "all")
    rig.join(2, "x.")
    assert not dropped(rig.tick(2))
    assert dropped(rig.tick(2)) == {1: "both seeding"}


def test_a_seeder_that_is_known_for_one_is_not_dialed_by_another() -> None:
    rig = Rig("xx")
    address = ("10.0.0.7", 9)
    rig.do(AddressesFound([address], "tracker"))
    rig.join(1, "all", incoming=False, address=address)
    assert dropped(rig.tick(4))
    assert not of(rig.tick(300), Dial)
    assert rig.core.idle


def test_a_leecher_calls_a_lost_peer_again() -> None:
    rig = Rig("..")
    address = ("10.0.0.7", 9)
    rig.do(AddressesFound([address], "tracker"))
    rig.join(1, "all", incoming=False, address=address)
    rig.now += 60
    rig.leave(1)
    assert of(rig.tick(12), Dial) == [Dial(address)]


def test_dials_are_limited() -> None:
    rig = Rig("..", settings=SwarmSettings(dials_at_once=3, connections_per_torrent=10))
    orders = rig.do(AddressesFound([("10.0.0.1", port) for port in range(1, 100)], "tracker"))
    assert len(of(orders, Dial)) == 3
    assert len(of(rig.do(DialFailed(of(orders, Dial)[0].address, "refused")), Dial)) == 1


def test_whoever_is_silent_goes() -> None:
    rig = Rig("xx", settings=SwarmSettings(idle_timeout_s=240))
    rig.join(1, "")
    rig.join(2, "")
    rig.tick(200)
    rig.say(2, KeepAlive())
    assert dropped(rig.tick(60)) == {1: "silent for too long"}


def test_comings_and_goings_are_noted() -> None:
    rig = Rig("..")
    (facts,) = noted(rig.connect(1), "peer_joined")
    assert facts["peer_id"] == peer_id(1).hex()
    (facts,) = noted(rig.leave(1), "peer_left")
    assert facts["reason"] == "gone"


# --------------------------------------------------------------------------------------------- interest


def test_interest_is_exact() -> None:
    rig = Rig("x..")
    assert Interested() not in told(rig.join(1, "x.."), 1)
    assert told(rig.say(1, Have(1)), 1) == [Interested()]
    assert told(rig.say(1, Have(2)), 1) == []
    rig.join(2, "all", unchoke=False)
    orders = []
    while rig.asked(1) or rig.storing:
        orders += rig.deliver(1)
        if rig.storing:
            orders += rig.stored()
    assert told(orders, 1).count(NotInterested()) == 1
    assert told(orders, 2).count(NotInterested()) == 1


def test_haves_go_to_everybody_who_does_not_have_everything_in_one_order_a_batch() -> None:
    rig = Rig("....")
    rig.join(1, "all")
    rig.join(2, "x...")
    rig.join(3, "")
    rig.deliver(1)
    rig.do(
        *(events.PieceStored(piece) for piece in rig.storing),
    )
    tells = [order for order in of(rig.journal, events.Tell) if isinstance(order.messages[0], Have)]
    assert [order.peer for order in tells] == [2, 3]
    assert sorted(m.piece for m in tells[0].messages if isinstance(m, Have)) == [0, 1, 2, 3]


def test_haves_reach_a_peer_that_joins_in_the_middle_of_a_batch_once() -> None:
    rig = Rig("....")
    rig.join(1, "all")
    rig.join(2, "")
    rig.deliver(1)
    first, *rest = rig.storing
    rig.lent[3] = []
    orders = rig.do(
        events.PieceStored(first),
        events.PeerJoined(3, None, peer_id(3), True, True, False, host="10.0.0.3"),
        *(events.PieceStored(piece) for piece in rest),
    )
    assert sorted(m.piece for m in told(orders, 2) if isinstance(m, Have)) == [0, 1, 2, 3]
    words = told(orders, 3)
    assert isinstance(words[0], BitfieldMessage)
    assert sorted(m.piece for m in words if isinstance(m, Have)) == sorted(rest)


def test_a_dial_that_stands_only_when_we_have_stopped_is_tried_again() -> None:
    """Else it would count as being dialed for two minutes."""
    rig = Rig("..")
    address = ("10.0.0.7", 51413)
    assert of(rig.do(AddressesFound((address,), "tracker")), Dial) == [Dial(address)]
    rig.do(events.Stopped())
    joined = events.PeerJoined(
        peer=1,
        address=address,
        peer_id=peer_id(1),
        incoming=False,
        fast=True,
        extended=False,
        host=address[0],
    )
    assert dropped(rig.do(joined)) == {1: "the torrent is stopped"}
    assert rig.core.book.dialing == 0
    rig.now += 2.0
    assert of(rig.do(events.Started(), events.Ticked()), Dial) == [Dial(address)]
