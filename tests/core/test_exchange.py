"""Peer exchange: who is told of whom and when, and what is believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from microtorrd.core import events
from microtorrd.core.events import AddressesFound, Dial, Order
from microtorrd.core.exchange import (
    ALLOW_EVERY_S,
    AT_ONCE,
    BURST,
    EVERY_S,
    MOST,
    NEWCOMERS_AT_ONCE,
    PORTS_OF_A_HOST,
    TOLD_MAX,
)
from microtorrd.core.settings import SwarmSettings
from microtorrd.proto.extended import ExtendedHandshake
from microtorrd.proto.messages import Extended, HaveNone
from microtorrd.proto.pex import NAME, NUMBER, REACHABLE, SEED, PexMessage
from tests.core.rig import Rig, dropped, of, peer_id, told

THEIRS = 9  # the number that others want


def words(**fields: Any) -> Extended:
    fields = {"m": {NAME: THEIRS}, **fields}
    return Extended(0, ExtendedHandshake(**fields).encode())


def meet(rig: Rig, number: int, have: str = "", *, host: str | None = None, **said: Any) -> None:
    """A peer that we dialed; it exchanges with us."""
    host = host or f"10.1.0.{number}"
    rig.join(number, have, incoming=False, address=(host, 6881), host=host, extended=True)
    rig.say(number, words(**said))


def news(orders: Sequence[Order], number: int) -> list[PexMessage]:
    """What the peer is told of others."""
    return [
        PexMessage.decode(message.payload)
        for message in told(orders, number)
        if isinstance(message, Extended) and message.number == THEIRS
    ]


def exchange(added: dict[tuple[str, int], int], *gone: tuple[str, int]) -> Extended:
    return Extended(NUMBER, PexMessage(added, gone).encode())


def test_peers_are_told_of_each_other_once_a_minute() -> None:
    rig = Rig("..")
    meet(rig, 1, "x.")
    assert not news(rig.tick(3), 1), "nobody else is here"
    meet(rig, 2, "all")
    first = rig.tick(8)
    assert news(first, 1) == [PexMessage({("10.1.0.2", 6881): SEED | REACHABLE})]
    assert news(first, 2) == [PexMessage({("10.1.0.1", 6881): REACHABLE})]
    meet(rig, 3)
    rig.leave(2)
    assert not news(rig.tick(50), 1), "too soon"
    assert news(rig.tick(20), 1) == [PexMessage({("10.1.0.3", 6881): REACHABLE}, (("10.1.0.2", 6881),))]
    assert not news(rig.tick(200), 1), "nothing new"


def test_who_came_to_us_is_named_where_it_listens() -> None:
    rig = Rig("..")
    meet(rig, 1)
    rig.join(2, host="10.1.0.2", extended=True)
    rig.join(3, host="10.1.0.3", extended=True)
    rig.say(2, words(listen_port=7, upload_only=True))
    assert news(rig.tick(8), 1) == [PexMessage({("10.1.0.2", 7): SEED})]


def crowd(peers: int) -> Rig:
    """So many who came together, each from a host of its own."""
    rig = Rig("..", settings=SwarmSettings(connections_per_torrent=10_000, idle_timeout_s=1e9))
    words_said = words()
    for number in range(1, peers + 1):
        host = f"10.1.{number >> 8}.{number & 255}"
        rig.lent[number] = []
        rig.do(
            events.PeerJoined(number, (host, 6881), peer_id(number), False, True, True, host=host),
            events.MessagesReceived(number, (words_said, HaveNone())),
            check=False,
        )
    return rig


def seconds(rig: Rig, count: float) -> list[dict[int, PexMessage]]:
    """Who is told what in each second."""
    told_in: list[dict[int, PexMessage]] = []
    for _ in range(int(count)):
        rig.now += 1.0
        messages: dict[int, PexMessage] = {}
        for order in of(rig.do(events.Ticked(), check=False), events.Tell):
            for message in order.messages:
                if isinstance(message, Extended) and message.number == THEIRS:
                    assert order.peer not in messages
                    messages[order.peer] = PexMessage.decode(message.payload)
        told_in.append(messages)
    return told_in


def test_of_many_who_came_together_each_is_told_within_seconds_and_not_all_at_once() -> None:
    rig = crowd(2 * NEWCOMERS_AT_ONCE + 3)
    told_in = [messages for messages in seconds(rig, 6) if messages]
    assert [len(messages) for messages in told_in] == [NEWCOMERS_AT_ONCE, NEWCOMERS_AT_ONCE, 3]
    assert len(set().union(*told_in)) == len(rig.core.swarm.peers)
    named: Counter[events.Address] = Counter()
    for messages in told_in:
        for number, message in messages.items():
            assert len(message.added) == MOST and not message.dropped
            assert rig.peer(number).address not in message.added
            named.update(message.added)
    # Not all of them the same few: who is named gets dialed.
    assert len(named) > 5 * MOST
    rig.core.check()


def test_later_they_are_told_again_a_few_in_each_second_and_nothing_twice() -> None:
    rig = crowd(2 * AT_ONCE + 9)
    heard: dict[int, dict[events.Address, int]] = {number: {} for number in rig.core.swarm.peers}
    for messages in seconds(rig, 4 * EVERY_S):
        assert len(messages) <= AT_ONCE + NEWCOMERS_AT_ONCE
        for number, message in messages.items():
            assert not heard[number].keys() & message.added.keys()
            heard[number] |= message.added
    everybody = {peer.address for peer in rig.core.swarm.peers.values()}
    for number, addresses in heard.items():
        assert set(addresses) == everybody - {rig.peer(number).address}, "in the end of all"


def test_a_newcomer_is_told_before_those_who_were_told_already() -> None:
    rig = crowd(4 * AT_ONCE)
    seconds(rig, EVERY_S)
    meet(rig, 9_999, host="10.9.9.9")
    first, second = seconds(rig, 2)
    assert 9_999 in {**first, **second}


def test_nobody_is_told_of_more_than_so_many_and_the_gone_make_room() -> None:
    rig = crowd(TOLD_MAX + 2 * MOST)
    told_of: set[events.Address] = set()
    for messages in seconds(rig, 8 * EVERY_S):
        told_of |= set(messages[1].added if 1 in messages else ())
    assert len(told_of) == TOLD_MAX
    for number in [n for n, peer in rig.core.swarm.peers.items() if peer.address in told_of][:MOST]:
        rig.do(events.PeerLeft(number, "gone", False), check=False)
    gone = added = 0
    for messages in seconds(rig, 3 * EVERY_S):
        if 1 in messages:
            gone += len(messages[1].dropped)
            added += len(messages[1].added)
    assert gone == added == MOST


def test_no_more_than_fifty_at_a_time() -> None:
    rig = Rig("..")
    for number in range(1, 63):
        meet(rig, number)
    (first,) = news(rig.tick(8), 1)
    (second,) = news(rig.tick(60), 1)
    assert (len(first.added), len(second.added)) == (MOST, 11)
    assert not set(first.added).intersection(second.added)


def test_addresses_of_our_own_network_stay_in_it() -> None:
    rig = Rig("..")
    meet(rig, 1, host="192.0.2.1")
    meet(rig, 2, host="10.0.0.2")
    meet(rig, 3, host="192.0.2.3")
    orders = rig.tick(8)
    assert [list(message.added) for message in news(orders, 1)] == [[("192.0.2.3", 6881)]]
    assert len(news(orders, 2)[0].added) == 2
    dials = [Dial(("192.0.2.9", 1))]
    assert of(rig.say(1, exchange({("10.0.0.9", 1): 0, ("192.0.2.9", 1): 0})) + rig.tick(), Dial) == dials
    assert of(rig.say(2, exchange({("10.0.0.9", 1): 0})) + rig.tick(), Dial) == [Dial(("10.0.0.9", 1))]


def test_who_is_named_is_dialed() -> None:
    rig = Rig("..")
    meet(rig, 1)
    rig.say(1, exchange({("10.1.0.9", 5): 0, ("10.1.0.1", 6881): 0}))
    assert of(rig.tick(), Dial) == [Dial(("10.1.0.9", 5))]
    rig.connect(9, incoming=False, address=("10.1.0.9", 5), host="10.1.0.9")
    assert [peer.source for peer in rig.core.snapshot(rig.now, with_peers=True).peers] == ["incoming", "pex"]


def test_a_seeder_does_not_dial_seeders() -> None:
    rig = Rig("xx")
    meet(rig, 1)
    rig.say(1, exchange({("10.1.0.8", 5): SEED, ("10.1.0.9", 5): REACHABLE}))
    assert of(rig.tick(), Dial) == [Dial(("10.1.0.9", 5))]


def test_the_ports_of_one_host_are_not_all_knocked_at() -> None:
    rig = Rig("..")
    meet(rig, 1)
    rig.say(1, exchange({("10.1.0.9", port): 0 for port in range(1, 40)}))
    assert len(of(rig.tick(), Dial)) == PORTS_OF_A_HOST


def test_a_private_torrent_exchanges_nothing() -> None:
    rig = Rig("..", private=True)
    meet(rig, 1)
    (said,) = (message for message in told(rig.journal, 1) if isinstance(message, Extended))
    assert NAME not in ExtendedHandshake.decode(said.payload).m
    meet(rig, 2, ipv6=b"\x20" * 16, listen_port=5)
    rig.say(1, exchange({("10.1.0.9", 5): 0}))
    orders = rig.leave(2) + rig.tick(100)
    assert not news(orders, 1)
    assert {dial.address for dial in of(orders, Dial)} == {("10.1.0.2", 6881)}


def test_the_setting_switches_it_off_at_once() -> None:
    rig = Rig("..")
    meet(rig, 1)
    meet(rig, 2)
    off = SwarmSettings(peer_exchange=False)
    rig.do(events.SettingsChanged(rig.core.swarm.choices, off))
    orders = rig.say(1, exchange({("10.1.0.9", 5): 0})) + rig.tick(100)
    assert not news(orders, 1) and not of(orders, Dial)
    meet(rig, 3)
    said = ExtendedHandshake.decode(next(m for m in told(rig.journal, 3) if isinstance(m, Extended)).payload)
    assert NAME not in said.m


def said_of_exchange(orders: Sequence[Order], number: int) -> list[int | None]:
    """What number the peer is told, in each extended handshake; 0: none are wanted, None: nothing of it."""
    return [
        ExtendedHandshake.decode(message.payload).m.get(NAME)
        for message in told(orders, number)
        if isinstance(message, Extended) and message.number == 0
    ]


def test_peers_that_are_here_hear_that_it_is_switched() -> None:
    rig = Rig("..")
    meet(rig, 1)
    rig.join(2, host="10.1.0.2")  # without the extension protocol
    choices, off = rig.core.swarm.choices, SwarmSettings(peer_exchange=False)
    orders = rig.do(events.SettingsChanged(choices, off))
    assert said_of_exchange(orders, 1) == [0]
    assert not told(orders, 2)
    assert not rig.do(events.SettingsChanged(choices, off)), "nothing has changed"
    meet(rig, 3)  # which comes while it is off
    assert not news(rig.tick(100), 1)
    orders = rig.do(events.SettingsChanged(choices, SwarmSettings()))
    assert said_of_exchange(orders, 1) == said_of_exchange(orders, 3) == [NUMBER]
    orders = rig.tick(8)
    assert news(orders, 1) == [PexMessage({("10.1.0.3", 6881): REACHABLE})]
    assert news(orders, 3) == [PexMessage({("10.1.0.1", 6881): REACHABLE})]
    assert of(rig.say(3, exchange({("10.1.0.9", 5): 0})) + rig.tick(), Dial) == [Dial(("10.1.0.9", 5))]


def test_a_private_torrent_says_nothing_of_a_switch() -> None:
    rig = Rig("..", private=True)
    meet(rig, 1)
    assert not rig.do(events.SettingsChanged(rig.core.swarm.choices, SwarmSettings(peer_exchange=False)))


def test_too_many_messages_are_passed_over_and_a_flood_is_a_fault() -> None:
    rig = Rig("..", settings=SwarmSettings(dials_at_once=100))
    meet(rig, 1)
    for number in range(1, BURST + 3):
        rig.say(1, exchange({("10.2.0.1", number): 0}))
    assert len(of(rig.tick(), Dial)) == BURST
    rig.tick(ALLOW_EVERY_S)
    rig.say(1, exchange({("10.2.0.2", 1): 0}))
    assert len(of(rig.tick(), Dial)) == 1
    assert "flood" in dropped(rig.say(1, *[exchange({})] * 30))[1]


@pytest.mark.parametrize("payload", [b"", b"le", b"d5:added"])
def test_what_is_no_message_is_a_fault(payload: bytes) -> None:
    rig = Rig("..")
    meet(rig, 1)
    assert "peer exchange" in dropped(rig.say(1, Extended(NUMBER, payload)))[1]


def test_who_no_longer_wants_any_gets_none() -> None:
    rig = Rig("..")
    meet(rig, 1)
    meet(rig, 2)
    rig.say(1, words(m={NAME: 0}))
    orders = rig.tick(8)
    assert not news(orders, 1) and news(orders, 2)


def test_who_changes_its_mind_over_and_over_is_allowed_and_told_no_more_than_others() -> None:
    rig = Rig("..", settings=SwarmSettings(dials_at_once=100))
    meet(rig, 1)
    meet(rig, 2)
    for number in range(1, BURST + 3):
        rig.say(1, words(m={NAME: 0}))
        rig.say(1, words())
        rig.say(1, exchange({("10.2.0.1", number): 0}))
    orders = rig.tick(8)
    assert len(of(orders, Dial)) == BURST
    assert len(news(orders, 1)) == 1
    rig.say(1, words(m={NAME: 0}))
    rig.say(1, exchange({("10.2.0.2", 1): 0}))
    meet(rig, 3)
    orders = rig.tick(EVERY_S)
    assert not news(orders, 1) and not of(orders, Dial)
    rig.say(1, words())
    assert [list(message.added) for message in news(rig.tick(8), 1)] == [[("10.1.0.3", 6881)]]


def test_while_it_is_switched_off_nothing_is_kept_of_those_who_left() -> None:
    rig = Rig("..", settings=SwarmSettings(peer_exchange=False))
    for number in range(1, 5 * AT_ONCE):
        meet(rig, number, host="10.1.0.1")
        rig.leave(number)
    assert len(rig.core.exchange._first) <= AT_ONCE + 2


def test_a_lost_peer_is_tried_by_its_other_address() -> None:
    rig = Rig("..")
    meet(rig, 1, ipv6=bytes.fromhex("20010db8" + "0" * 23 + "1"), listen_port=5)
    rig.tick(20)
    assert of(rig.leave(1), Dial) == [Dial(("2001:db8::1", 5))]


def test_nobody_sends_us_into_our_own_network() -> None:
    rig = Rig("..")
    meet(rig, 1, host="192.0.2.1", ipv6=b"\xfd" + bytes(15), listen_port=5)
    rig.tick(20)
    assert all(":" not in dial.address[0] for dial in of(rig.leave(1) + rig.tick(20), Dial))


def test_an_address_is_known_by_who_told_it_first() -> None:
    rig = Rig("..")
    rig.do(AddressesFound([("10.1.0.9", 5)], "tracker"))
    meet(rig, 1)
    rig.say(1, exchange({("10.1.0.9", 5): SEED}))
    assert rig.core.book.source(("10.1.0.9", 5)) == "tracker"
