"""What peers say of themselves beside what they have: upload only, pieces lost, how they see us; and who
makes way for whom by it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.core.events import AddressesFound, Dial, DialFailed, Recall
from microtorrd.core.ourselves import VOTERS_MAX, OwnAddresses
from microtorrd.core.ranking import Ranking
from microtorrd.core.settings import SwarmSettings
from microtorrd.proto.extended import DONT_HAVE_NUMBER, UPLOAD_ONLY_NUMBER, ExtendedHandshake
from microtorrd.proto.messages import Extended, Have, Interested, NotInterested
from microtorrd.proto.priority import peer_priority
from tests.core.rig import Rig, dropped, of, told

OURS = bytes([192, 0, 2, 77])


def words(**fields: Any) -> Extended:
    return Extended(0, ExtendedHandshake(m={}, **fields).encode())


def lost(piece: int) -> Extended:
    return Extended(DONT_HAVE_NUMBER, piece.to_bytes(4, "big"))


# ------------------------------------------------------------------------------------------ upload only


@pytest.mark.parametrize(
    "said", [words(upload_only=True), Extended(UPLOAD_ONLY_NUMBER, b"\1")], ids=["handshake", "message"]
)
def test_a_seeder_parts_from_who_wants_nothing_more(said: Extended) -> None:
    rig = Rig("xx")
    address = ("10.0.0.7", 9)
    rig.join(1, "x.", extended=True, incoming=False, address=address)
    rig.say(1, said)
    assert dropped(rig.tick(4)) == {1: "both seeding"}
    assert not of(rig.tick(300), Dial)


def test_who_wants_something_again_may_stay() -> None:
    rig = Rig("xx")
    rig.join(1, "x.", extended=True)
    rig.say(1, words(upload_only=True))
    rig.say(1, words(upload_only=False))
    rig.say(1, words(client="x"))  # says nothing of it
    assert not dropped(rig.tick(4))


def test_a_leecher_keeps_who_wants_nothing_more() -> None:
    rig = Rig("..")
    rig.join(1, "x.", extended=True)
    rig.say(1, words(upload_only=True))
    assert not dropped(rig.tick(4))


def test_a_later_handshake_takes_nothing_back() -> None:
    rig = Rig("..")
    rig.join(1, extended=True)
    rig.say(1, words(client="Clever 1", info_hash=b"\x22" * 20))
    rig.say(1, words(reqq=7))
    assert (rig.peer(1).client, rig.peer(1).is_kin, rig.peer(1).pipeline.limit) == ("Clever 1", True, 7)


# ---------------------------------------------------------------------------------------- lost pieces


def test_a_lost_piece_is_asked_of_others() -> None:
    rig = Rig("...")
    rig.join(1, "x..", extended=True)
    assert rig.pieces_asked(1) == {0}
    orders = rig.say(1, lost(0))
    assert len(of(orders, Recall)) == 1
    assert told(orders, 1) == [NotInterested()]
    rig.join(2, "all")
    assert 0 in rig.pieces_asked(2)
    assert told(rig.say(1, Have(0)), 1) == [Interested()]


def test_a_seeder_that_lost_a_piece_is_none() -> None:
    rig = Rig("....")
    rig.join(1, "all", extended=True)
    rig.say(1, lost(2))
    assert not rig.peer(1).is_seed
    assert 2 not in rig.pieces_asked(1)
    rig.say(1, lost(2), lost(0))
    rig.say(1, Have(2), Have(0))
    assert rig.peer(1).is_seed


def test_losing_and_finding_again_and_again_is_noise() -> None:
    rig = Rig("..")
    rig.join(1, "x.", extended=True)
    assert "flood" in dropped(rig.say(1, *[lost(0), Have(0)] * 4000))[1]


@pytest.mark.parametrize("payload", [b"", b"\0\0\0", b"\0\0\0\2", b"\xff" * 4])
def test_pieces_that_are_none_are_a_fault(payload: bytes) -> None:
    rig = Rig("..")
    rig.join(1, "x.", extended=True)
    assert dropped(rig.say(1, Extended(DONT_HAVE_NUMBER, payload)))


# --------------------------------------------------------------------------- how they see us, and rank


def test_our_address_is_what_most_hosts_say() -> None:
    ourselves = OwnAddresses()
    ourselves.heard("198.51.100.1", OURS)
    ourselves.heard("198.51.100.1", OURS)
    assert ourselves.host(4) is None, "one host alone is not believed"
    ourselves.heard("198.51.100.2", OURS)
    for voter in ("198.51.100.3", "x", "fe80::1%eth0", "2001:db8::1"):
        ourselves.heard(voter, bytes(4))
        ourselves.heard(voter, b"\x01\x02\x03\x04")
    assert (ourselves.host(4), ourselves.host(16), ourselves.known()) == (OURS, None, ["192.0.2.77"])
    for number in range(VOTERS_MAX):
        ourselves.heard(f"198.51.101.{number}", b"\x01\x02\x03\x04")
    assert ourselves.known() == ["1.2.3.4"], "the address has changed"


def rank(host: str, port: int = 9) -> int:
    return peer_priority((OURS, 6881), (bytes(map(int, host.split("."))), port))


def ranked(**settings: Any) -> Rig:
    """A core that knows its own address."""
    rig = Rig("..", settings=SwarmSettings(**settings))
    for number in (900, 901):
        rig.join(number, extended=True, host=f"198.51.100.{number - 900}")
        rig.say(number, words(yourip=OURS))
        rig.leave(number)
    return rig


def test_addresses_are_dialed_by_canonical_priority() -> None:
    rig = ranked(dials_at_once=3)
    hosts = [f"203.{number}.0.5" for number in range(40)]
    dials = of(rig.do(AddressesFound([(host, 9) for host in hosts], "tracker")), Dial)
    assert [dial.address[0] for dial in dials] == sorted(hosts, key=rank, reverse=True)[:3]
    # What comes later takes its place among those that wait, but for what the operator wishes.
    rig.do(AddressesFound([("203.0.113.9", 1)], "operator"))
    assert of(rig.do(DialFailed(dials[0].address, "refused")), Dial) == [Dial(("203.0.113.9", 1))]


def test_who_is_last_in_rank_makes_way_when_all_places_are_taken() -> None:
    rig = ranked(connections_per_torrent=4)
    hosts = sorted((f"203.{number}.0.5" for number in range(6)), key=rank)
    low, rest, high = hosts[0], hosts[1:5], hosts[5]
    for number, host in enumerate(rest):
        rig.join(number, host=host)
    assert "as many peers" in dropped(rig.connect(50, host=low))[50]
    assert dropped(rig.connect(51, host=high)) == {0: "others come before it by canonical priority"}


def test_who_gives_us_something_keeps_its_place() -> None:
    rig = ranked(connections_per_torrent=2)
    hosts = sorted((f"203.{number}.0.5" for number in range(3)), key=rank)
    rig.join(1, "x.", host=hosts[0])
    rig.join(2, host=hosts[1])
    assert dropped(rig.connect(3, host=hosts[2])) == {2: "others come before it by canonical priority"}


def test_without_an_address_of_ours_there_is_no_order() -> None:
    assert Ranking(OwnAddresses(), 1).priority("203.0.113.1", 1) is None


@given(st.text(max_size=50), st.text(max_size=50))
def test_what_trackers_say_of_us_does_no_harm(voter: str, text: str) -> None:
    ourselves = OwnAddresses()
    ourselves.told(voter, text)
    assert ourselves.known() == []


def test_trackers_vote_like_peers() -> None:
    ourselves = OwnAddresses()
    ourselves.told("192.0.2.1", "203.0.113.9")
    assert ourselves.known() == []
    ourselves.told("192.0.2.2", "203.0.113.9")
    assert ourselves.known() == ["203.0.113.9"]
