"""What the core says of the metadata it has, and how much of it one peer may take."""

from __future__ import annotations

import random

from microtorrd.core import events
from microtorrd.core.core import Core
from microtorrd.core.events import GiveMetadata, Order
from microtorrd.core.handout import COPIES, PIECES_PER_S, SPARE_PIECES
from microtorrd.core.settings import SwarmSettings, TorrentSettings
from microtorrd.proto.extended import ExtendedHandshake
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.messages import Extended, HaveNone
from microtorrd.proto.metadata import (
    NAME,
    NUMBER,
    PIECE_BYTES,
    MetadataData,
    MetadataReject,
    MetadataRequest,
    encode_metadata,
)
from tests.core.rig import INFO_HASH, OUR_ID, bits, dropped, of, peer_id, told

SIZE = PIECE_BYTES + 1
THEIRS = 9


class Giver:
    """A running core with metadata, and one peer."""

    def __init__(self, *, private: bool = False, number: int = THEIRS) -> None:
        self.now = 100.0
        self.core = Core(
            geometry=Geometry(4 * PIECE_BYTES, PIECE_BYTES),
            have=bits("xx.."),
            settings=SwarmSettings(),
            torrent=TorrentSettings(),
            lend=lambda size: memoryview(bytearray(size)),
            chance=random.Random(1),
            client="giver 1",
            listen_port=6881,
            has_id_hash=False,
            info_hash=INFO_HASH,
            private=private,
            metadata_bytes=SIZE,
            peer_id=OUR_ID,
        )
        self.do(events.Started())
        joined = events.PeerJoined(1, None, peer_id(1), True, fast=True, extended=True, host="10.0.0.1")
        (hello, *_) = told(self.do(joined), 1)
        assert isinstance(hello, Extended)
        self.words = ExtendedHandshake.decode(hello.payload)
        introduction = ExtendedHandshake(m={NAME: number}).encode()
        self.do(events.MessagesReceived(1, [Extended(0, introduction), HaveNone()]))

    def do(self, *facts: events.Fact) -> list[Order]:
        for fact in facts:
            self.core.handle(fact, self.now)
            self.core.check()
        orders, self.core.orders = self.core.orders, []
        return orders

    def ask(self, piece: int, times: int = 1) -> list[Order]:
        message = Extended(NUMBER, encode_metadata(MetadataRequest(piece)))
        return self.do(events.MessagesReceived(1, [message] * times))


def refusals(orders: list[Order]) -> int:
    refusal = Extended(THEIRS, encode_metadata(MetadataReject(1)))
    return told(orders, 1).count(refusal)


def test_it_says_what_it_has_and_gives_what_is_asked() -> None:
    giver = Giver()
    assert (giver.words.m[NAME], giver.words.metadata_size) == (NUMBER, SIZE)
    assert giver.ask(1) == [GiveMetadata(1, THEIRS, 1)]


def test_that_of_a_private_torrent_is_not_spoken_of() -> None:
    giver = Giver(private=True)
    assert NAME not in giver.words.m and giver.words.metadata_size is None
    assert giver.ask(1) == []


def test_one_peer_has_its_share_and_no_more() -> None:
    giver = Giver()
    share = 2 * COPIES + SPARE_PIECES
    orders = giver.ask(1, share + 5)
    assert (len(of(orders, GiveMetadata)), refusals(orders)) == (share, 5)
    giver.now += 2.0
    orders = giver.ask(1, 50)
    assert (len(of(orders, GiveMetadata)), refusals(orders)) == (2 * PIECES_PER_S, 50 - 2 * PIECES_PER_S)


def test_what_is_not_there_is_refused_and_what_makes_no_sense_ignored() -> None:
    giver = Giver()
    assert told(giver.ask(2), 1) == [Extended(THEIRS, encode_metadata(MetadataReject(2)))]
    unasked = Extended(NUMBER, encode_metadata(MetadataData(0, SIZE, b"x")))
    assert giver.do(events.MessagesReceived(1, [unasked])) == []
    assert Giver(number=0).ask(0) == []


def test_garbage_is_a_fault() -> None:
    orders = Giver().do(events.MessagesReceived(1, [Extended(NUMBER, b"garbage")]))
    assert "metadata message" in dropped(orders)[1]
