"""From a magnet link to its metadata: scenarios of facts and orders, with honest peers and others."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from microtorrd.core import events
from microtorrd.core.events import Announce, Dial, Drop, Order, PeerJoined, Tell
from microtorrd.core.metadata import ANSWER_S, STRIKES_MAX
from microtorrd.core.resolving import LIES_MAX, NOISE_MAX, PEERS_MAX, USELESS_S, Judge, Judged, Resolution
from microtorrd.core.settings import SwarmSettings
from microtorrd.proto.extended import MAX_METADATA_BYTES, ExtendedHandshake
from microtorrd.proto.messages import Extended, Have, HaveNone
from microtorrd.proto.metadata import (
    NAME,
    NUMBER,
    PIECE_BYTES,
    MetadataData,
    MetadataReject,
    MetadataRequest,
    decode_metadata,
    encode_metadata,
)
from microtorrd.proto.pex import NUMBER as PEX_NUMBER
from microtorrd.proto.pex import PexMessage

INFO_HASH = b"\x33" * 20
OUR_ID = b"-MD0001-MMMMMMMMMMMM"
SIZE = 2 * PIECE_BYTES + 9
RAW = random.Random(4).randbytes(SIZE)
THEIRS = 7  # the number that they want messages about metadata to have

Give = Callable[[int], MetadataData]


def good(piece: int) -> MetadataData:
    return MetadataData(piece, SIZE, RAW[piece * PIECE_BYTES : (piece + 1) * PIECE_BYTES])


def wrong(piece: int) -> MetadataData:
    return MetadataData(piece, SIZE, bytes(len(good(piece).raw)))


class Bench:
    """A resolution, and peers that can be made to speak."""

    def __init__(self, info_hash: bytes | None = INFO_HASH, *, start: bool = True) -> None:
        self.now = 100.0
        self.resolution = Resolution(
            info_hash=info_hash,
            settings=SwarmSettings(),
            chance=random.Random(1),
            client="bench 1",
            listen_port=6881,
            peer_id=OUR_ID,
        )
        self.orders: list[Order | Judge] = []
        if start:
            self.do(events.Started())

    def do(self, *facts: events.Fact | Judged) -> list[Order | Judge]:
        for fact in facts:
            self.resolution.handle(fact, self.now)
        orders, self.resolution.orders = self.resolution.orders, []
        self.orders += orders
        return orders

    def tick(self, seconds: float) -> list[Order | Judge]:
        orders = []
        while seconds > 0:
            self.now += min(1.0, seconds)
            seconds -= 1.0
            orders += self.do(events.Ticked())
        return orders

    def connect(
        self,
        number: int,
        *,
        address: events.Address | None = None,
        host: str = "",
        identity: bytes = b"",
        extended: bool = True,
    ) -> list[Order | Judge]:
        peer_id = identity or b"-XX0000-%012d" % number
        host = host or f"10.0.0.{number}"
        return self.do(
            PeerJoined(number, address, peer_id, address is None, fast=True, extended=extended, host=host)
        )

    def say(self, number: int, message_number: int, payload: bytes) -> list[Order | Judge]:
        return self.do(events.MessagesReceived(number, [Extended(message_number, payload)]))

    def introduce(self, number: int, size: int | None = SIZE, **more: Any) -> list[Order | Judge]:
        words = ExtendedHandshake(m={NAME: THEIRS}, metadata_size=size, **more)
        return self.say(number, 0, words.encode())

    def join(self, number: int, size: int | None = SIZE, **more: Any) -> list[Order | Judge]:
        return self.connect(number, **more) + self.introduce(number, size)

    def answer(self, orders: list[Order | Judge], givers: Mapping[int, Give]) -> list[Order | Judge]:
        """Everybody who is asked answers, as long as anybody is asked; the orders that are left."""
        others: list[Order | Judge] = []
        queue = list(orders)
        while queue:
            order = queue.pop(0)
            if isinstance(order, Tell) and order.peer in givers and asked_of([order], order.peer):
                for piece in asked_of([order], order.peer):
                    answer = encode_metadata(givers[order.peer](piece))
                    queue += self.say(order.peer, NUMBER, answer)
            else:
                others.append(order)
        return others


def asked_of(orders: list[Order | Judge], number: int) -> list[int]:
    """The pieces that this peer is asked for."""
    pieces = []
    for order in orders:
        if isinstance(order, Tell) and order.peer == number:
            for message in order.messages:
                if isinstance(message, Extended) and message.number == THEIRS:
                    said = decode_metadata(message.payload)
                    if isinstance(said, MetadataRequest):
                        pieces.append(said.piece)
    return pieces


def judges(orders: list[Order | Judge]) -> list[Judge]:
    return [order for order in orders if isinstance(order, Judge)]


def dropped(orders: list[Order | Judge]) -> dict[int, str]:
    return {order.peer: order.reason for order in orders if isinstance(order, Drop)}


def dialed(orders: list[Order | Judge]) -> list[events.Address]:
    return [order.address for order in orders if isinstance(order, Dial)]


def test_it_announces_dials_asks_and_has_the_whole_judged() -> None:
    bench = Bench(start=False)
    address = ("10.0.0.1", 5)
    assert dialed(bench.do(events.AddressesFound([address], "operator"))) == []
    assert bench.do(events.Started()) == [Announce("started"), Dial(address)]
    (greeting,) = [order for order in bench.connect(1, address=address) if isinstance(order, Tell)]
    hello, nothing = greeting.messages
    assert isinstance(hello, Extended)
    words = ExtendedHandshake.decode(hello.payload)
    assert (words.m[NAME], words.metadata_size, words.info_hash) == (NUMBER, None, INFO_HASH)
    assert nothing == HaveNone()
    asked = bench.introduce(1)
    assert asked_of(asked, 1) == [0, 1, 2]
    assert bench.answer(asked, {1: good}) == [Judge(SIZE, RAW)]
    assert bench.resolution.progress == 1.0
    assert bench.resolution.addresses() == [address]
    assert bench.do(events.Stopped())[-1] == Announce("stopped")


def test_a_liar_beside_an_honest_one_is_found_out_and_barred() -> None:
    bench = Bench()
    address = ("10.0.0.1", 5)
    bench.connect(1, address=address)
    asked = bench.introduce(1)
    asked += bench.join(2)
    # The liar has been asked for all three; it answers, and nothing else is known of it yet.
    (judge,) = judges(bench.answer(asked, {1: wrong, 2: good}))
    assert judge.raw != RAW
    after = bench.do(Judged(SIZE, "not the hash"))
    assert "wrong: not the hash" in dropped(after)[1]
    assert bench.resolution.book.state(address) == "barred"
    assert judges(bench.answer(after, {2: good})) == [Judge(SIZE, RAW)]


def test_when_nobody_knows_who_lied_each_is_asked_alone() -> None:
    bench = Bench()
    size = 12 * PIECE_BYTES
    raw = random.Random(8).randbytes(size)

    def honest(piece: int) -> MetadataData:
        return MetadataData(piece, size, raw[piece * PIECE_BYTES : (piece + 1) * PIECE_BYTES])

    def liar(piece: int) -> MetadataData:
        return MetadataData(piece, size, bytes(PIECE_BYTES))

    orders = bench.join(1, size) + bench.join(2, size) + bench.join(3, size)
    givers = {1: liar, 2: honest, 3: honest}
    for _ in range(4):
        (judge,) = judges(bench.answer(orders, givers))
        if judge.raw == raw:
            break
        orders = bench.do(Judged(size, "wrong"))
    assert judge.raw == raw
    assert set(dropped(bench.orders)) <= {1}


def test_who_lies_about_the_size_delays_nobody() -> None:
    bench = Bench()
    bench.join(1, SIZE * 100)
    bench.join(3, MAX_METADATA_BYTES)
    asked = bench.join(2)
    assert judges(bench.answer(asked, {2: good})) == [Judge(SIZE, RAW)]


def test_claims_beyond_what_may_be_held_make_way_for_less() -> None:
    bench = Bench()
    bench.join(1, MAX_METADATA_BYTES)
    bench.join(2, MAX_METADATA_BYTES - 1)
    orders = bench.join(3)
    assert list(dropped(orders)) == [1]
    assert asked_of(orders, 3) == [0, 1, 2]
    assert "while enough is being fetched" in dropped(bench.join(4, MAX_METADATA_BYTES))[4]


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (encode_metadata(MetadataData(0, SIZE + 1, good(0).raw)), "where it said"),
        (encode_metadata(MetadataData(0, SIZE, b"short")), "with 5 bytes"),
        (encode_metadata(MetadataData(99, SIZE, b"x")), "piece 99"),
        (b"garbage", "metadata message"),
    ],
)
def test_what_breaks_the_protocol_ends_the_connection(payload: bytes, words: str) -> None:
    bench = Bench()
    bench.join(1)
    assert words in dropped(bench.say(1, NUMBER, payload))[1]


def test_a_size_that_changes_ends_the_connection_and_one_that_is_told_later_does_not() -> None:
    bench = Bench()
    bench.join(1, None)
    asked = bench.introduce(1)
    assert asked_of(asked, 1) == [0, 1, 2]
    assert bench.say(1, 0, ExtendedHandshake(upload_only=True).encode()) == []
    assert "where it said" in dropped(bench.introduce(1, SIZE + 1))[1]


def test_one_that_gives_no_metadata_any_more_is_not_asked() -> None:
    bench = Bench()
    bench.join(1)
    bench.say(1, 0, ExtendedHandshake(m={NAME: 0}).encode())
    assert bench.resolution.assemblies == {}
    assert asked_of(bench.tick(ANSWER_S), 1) == []


def test_another_metainfo_of_the_same_content_is_no_peer_of_ours() -> None:
    bench = Bench()
    bench.connect(1)
    assert "info_hash differs" in dropped(bench.introduce(1, info_hash=b"\x44" * 20))[1]


def test_without_an_info_hash_peers_are_never_mixed() -> None:
    bench = Bench(None)
    orders = bench.join(1) + bench.join(2)
    assert (asked_of(orders, 1), asked_of(orders, 2)) == ([0, 1, 2], [])
    (judge,) = judges(bench.answer(orders, {1: wrong, 2: good}))
    assert judge.raw != RAW
    after = bench.do(Judged(SIZE, "no metainfo"))
    assert judges(bench.answer(after, {2: good})) == [Judge(SIZE, RAW)]


def test_who_asks_us_is_refused() -> None:
    bench = Bench()
    bench.join(1)
    (told,) = bench.say(1, NUMBER, encode_metadata(MetadataRequest(0)))
    assert told == Tell(1, [Extended(THEIRS, encode_metadata(MetadataReject(0)))])


def test_who_is_silent_useless_or_full_of_noise_goes() -> None:
    bench = Bench()
    bench.join(1)
    bench.connect(2)
    gone: dict[int, str] = {}
    for _ in range(round(3 * (ANSWER_S + 6) * STRIKES_MAX)):
        gone |= dropped(bench.tick(1.0))
    assert "does not hand over" in gone[1]
    assert gone[2] == "it has no metadata"
    bench.connect(3)
    orders = bench.do(events.MessagesReceived(3, [Have(0)] * (NOISE_MAX + 1)))
    assert "flood" in dropped(orders)[3]
    assert USELESS_S < 100


def test_who_may_not_come_in() -> None:
    bench = Bench()
    assert "ourselves" in dropped(bench.connect(1, identity=OUR_ID))[1]
    assert "extension protocol" in dropped(bench.connect(2, extended=False))[2]
    bench.connect(3, identity=b"x" * 20)
    assert "connected already" in dropped(bench.connect(4, identity=b"x" * 20))[4]
    for number in range(5, 5 + PEERS_MAX):
        orders = bench.connect(number)
    assert "enough peers" in dropped(orders)[number]
    bench.do(events.Stopped())
    assert "stopped" in dropped(bench.connect(99))[99]


def test_a_host_full_of_liars_is_not_talked_to() -> None:
    bench = Bench()
    for number in range(LIES_MAX):
        bench.join(number, host="10.9.9.9")
        bench.say(number, NUMBER, b"garbage")
    assert "too many lies" in dropped(bench.connect(50, host="10.9.9.9"))[50]


def test_where_an_incoming_peer_listens_is_learned_and_dialed_again() -> None:
    bench = Bench()
    bench.connect(1)
    bench.introduce(1, listen_port=4000)
    assert bench.resolution.addresses() == [("10.0.0.1", 4000)]
    bench.do(events.PeerLeft(1, "gone"))
    assert ("10.0.0.1", 4000) in dialed(bench.tick(30.0))
    bench.do(events.DialFailed(("10.0.0.1", 4000), "refused"))
    assert bench.resolution.addresses() == []


def test_peers_name_others_that_are_dialed_but_not_into_a_private_torrent() -> None:
    bench = Bench()
    address = ("10.0.0.1", 5)
    bench.do(events.AddressesFound([address], "tracker"))
    bench.connect(1, address=address)
    bench.introduce(1, None)
    named = ("10.0.0.9", 5)
    exchange = PexMessage({named: 0}).encode()
    assert dialed(bench.say(1, PEX_NUMBER, exchange)) == [named]
    bench.connect(2, address=named)
    assert bench.resolution.addresses() == [address, named]
    assert bench.resolution.addresses(private=True) == [address]
    assert [order.peer for order in bench.say(1, PEX_NUMBER, b"le") if isinstance(order, Drop)] == [1]
