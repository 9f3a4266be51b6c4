"""Broken protocol: whoever breaks it is dropped with a reason, and nothing else happens."""

from __future__ import annotations

import pytest

from microtorrd.core.events import BlocksReceived, MessagesReceived, RequestsReceived, Withdraw
from microtorrd.core.settings import SwarmSettings
from microtorrd.proto.messages import (
    AllowedFast,
    BitfieldMessage,
    Cancel,
    Choke,
    Extended,
    Have,
    HaveAll,
    HaveNone,
    Interested,
    KeepAlive,
    Message,
    NotInterested,
    Port,
    Reject,
    Request,
    Suggest,
    Unchoke,
    Unknown,
)
from tests.core.rig import Rig, dropped, noted, of


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Have(3), "outside"),
        (Have(1 << 31), "outside"),
        (BitfieldMessage(b""), "bitfield"),
        (BitfieldMessage(b"\x00\x00"), "bitfield"),
        (BitfieldMessage(b"\x10"), "spare"),
        (Suggest(3), "outside"),
        (AllowedFast(3), "outside"),
        (Reject(3, 0, 16384), "outside"),
        (Reject(0, 16384, 32768), "lies outside"),
        (Request(0, 0, 1 << 20), "bytes"),
        (Request(0, 32768, 16384), "lies outside"),
        (Request(2, 0, 16384), "lies outside"),  # the last piece is shorter
        (Extended(0, b"nonsense"), ""),
        (Extended(1, b""), "extension protocol"),
    ],
)
def test_a_message_that_cannot_be_is_a_fault(message: Message, reason: str) -> None:
    rig = Rig("...", last_bytes=1000)
    rig.connect(1, extended=message != Extended(1, b""))
    orders = rig.say(1, message)
    assert reason in dropped(orders)[1]
    assert noted(orders, "peer_left")[0]["fault"]


@pytest.mark.parametrize("message", [HaveAll(), HaveNone(), Suggest(0), AllowedFast(0), Reject(0, 0, 16384)])
def test_the_fast_extension_has_to_be_agreed_on(message: Message) -> None:
    rig = Rig("..")
    rig.connect(1, fast=False)
    assert "without the fast extension" in dropped(rig.say(1, message))[1]


def test_what_follows_a_fault_is_not_heard() -> None:
    rig = Rig("..")
    rig.connect(1)
    orders = rig.say(1, Have(9), Interested())
    assert len(dropped(orders)) == 1
    assert len(orders) == 2  # the drop, and the note


@pytest.mark.parametrize(
    "flip",
    [(Choke(), Unchoke()), (Interested(), NotInterested()), (Unknown(99), Unknown(98))],
)
def test_a_flood_of_changes_to_and_fro_is_ended(flip: tuple[Message, Message]) -> None:
    rig = Rig(".x")
    rig.join(1, "x")
    assert not dropped(rig.do(MessagesReceived(1, [*flip] * 500)))
    rig.tick(1)
    assert not dropped(rig.do(MessagesReceived(1, [*flip] * 500)))
    assert dropped(rig.do(MessagesReceived(1, [*flip] * 4000))) == {
        1: "a flood of messages that change nothing"
    }


@pytest.mark.parametrize(("words", "many"), [(b"d1:v400:" + b"x" * 400 + b"e", 500), (b"de", 9000)])
def test_a_flood_of_words_about_oneself_is_ended(words: bytes, many: int) -> None:
    rig = Rig(".x")
    rig.join(1, "x", extended=True)
    assert not dropped(rig.do(MessagesReceived(1, [Extended(0, words)] * 100)))
    assert 1 in dropped(rig.do(MessagesReceived(1, [Extended(0, words)] * many)))


def test_a_flood_of_requests_and_cancels_is_ended() -> None:
    rig = Rig("xx")
    rig.join(1, "")
    rig.say(1, Interested())
    for _ in range(100):
        rig.do(RequestsReceived(1, [(0, 0, 1)]))
        assert not dropped(rig.say(1, Cancel(0, 0, 1)))
    orders = rig.say(1, *(message for _ in range(9000) for message in (Request(0, 0, 1), Cancel(0, 0, 1))))
    assert 1 in dropped(orders)


def test_a_flood_of_blocks_that_nobody_asked_for_is_ended() -> None:
    rig = Rig(".x")
    rig.join(1, "x")
    assert not dropped(rig.do(BlocksReceived(1, [], 8000, 8000)))
    rig.tick(1)
    assert not dropped(rig.do(BlocksReceived(1, [], 4000, 4000)))
    assert 1 in dropped(rig.do(BlocksReceived(1, [], 1000, 1000)))


def test_a_row_of_cancels_is_one_order() -> None:
    rig = Rig("xx")
    rig.join(1, "")
    rig.say(1, Interested())
    requests = tuple((0, at * 1000, 1000) for at in range(10))
    rig.do(RequestsReceived(1, requests))
    orders = rig.do(MessagesReceived(1, [Cancel(*request) for request in requests]))
    assert of(orders, Withdraw) == [Withdraw(1, requests, reject=True)]


@pytest.mark.parametrize(
    "message",
    [
        KeepAlive(),
        Port(1),
        Interested(),
        Unchoke(),
        Have(0),
        Cancel(0, 0, 16384),
        Reject(0, 0, 16384),
        Suggest(1),
    ],
)
def test_a_flood_of_what_changes_nothing_is_ended(message: Message) -> None:
    rig = Rig(".x")
    rig.join(1, "")
    for _ in range(3):
        assert not dropped(rig.do(MessagesReceived(1, [message] * 2000)))
    assert "flood" in dropped(rig.do(MessagesReceived(1, [message] * 4000)))[1]


def test_noise_is_forgotten_with_time() -> None:
    rig = Rig(".x")
    rig.join(1, "")
    for _ in range(10):
        assert not dropped(rig.do(MessagesReceived(1, [KeepAlive()] * 3000)))
        rig.tick()


def test_choke_and_unchoke_may_alternate() -> None:
    rig = Rig("..")
    rig.join(1, "all")
    assert not dropped(rig.say(1, Choke(), Unchoke(), Choke(), Unchoke()))
    assert rig.asked(1)


# ------------------------------------------------------------------------------------------- requests


def test_requests_that_cannot_be_are_a_fault() -> None:
    rig = Rig("xx", last_bytes=100)
    for peer, request in enumerate(
        [(2, 0, 16384), (0, 0, 0), (0, 1, 32768), (1, 0, 101), (0, -1, 10), (-1, 0, 10)], 1
    ):
        rig.join(peer, "")
        rig.say(peer, Interested())
        assert dropped(rig.do(RequestsReceived(peer, [request]))), request


def test_too_many_requests_without_the_fast_extension_are_a_fault() -> None:
    rig = Rig("x" * 100 + ".", blocks=200, settings=SwarmSettings())
    rig.join(1, "", fast=False)
    rig.say(1, Interested())
    every = [(piece, begin * 16384, 16384) for piece in range(100) for begin in range(200)]
    assert not dropped(rig.do(RequestsReceived(1, every[:2000])))
    assert not dropped(rig.do(RequestsReceived(1, every[2000:4000])))  # more than agreed, yet served
    assert "at a time" in dropped(rig.do(RequestsReceived(1, every[4000:10000])))[1]
