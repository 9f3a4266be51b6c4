"""A seeder hands its pieces out: what reaches the taker first, and what it asks for then."""

from __future__ import annotations

from microtorrd.core.events import BlocksSent, MessagesReceived, PieceStored, Tell
from microtorrd.proto.extended import ExtendedHandshake
from microtorrd.proto.messages import (
    BitfieldMessage,
    Choke,
    Extended,
    Have,
    HaveAll,
    Interested,
    Reject,
    Suggest,
    Unchoke,
)
from tests.core.rig import INFO_HASH, Rig, told

KIN = Extended(
    0,
    ExtendedHandshake(
        m={},
        client="",
        listen_port=None,
        reqq=None,
        yourip=None,
        upload_only=True,
        metadata_size=None,
        info_hash=INFO_HASH,
    ).encode(),
)


def test_suggestions_go_ahead_of_the_unchoke() -> None:
    rig = Rig("x" * 40)
    for number in (1, 2, 3):
        rig.join(number, unchoke=False)
    rig.say(1, Interested())
    told = [order for order in rig.say(2, Interested()) if isinstance(order, Tell) and order.peer == 2]
    said = [type(message) for order in told for message in order.messages]
    assert said.index(Suggest) < said.index(Unchoke)


def test_a_seeder_that_hands_out_is_not_asked_for_what_others_gave_us_a_part_of() -> None:
    rig = Rig("....", blocks=8)
    rig.join(1, "x...")  # pieces that are begun and lie idle: the seeder may be asked to end them …
    rig.deliver(1, 2)
    rig.leave(1)
    rig.connect(2, extended=True)
    rig.do(MessagesReceived(2, [KIN, HaveAll(), Suggest(2), Unchoke()]))
    assert {slot.piece for slot in rig.lent[2]} == {2}  # … but not while it hands us others
    rig.deliver(2)
    rig.deliver(2)
    rig.tick(2)
    assert 0 in {slot.piece for slot in rig.lent[2]}  # now that it has been silent


def silent_s(rig: Rig, number: int) -> int:
    """For how many seconds the silent seeder is asked for nothing."""
    seconds = 0
    while not rig.lent[number] and seconds < 100:
        rig.tick()
        seconds += 1
    return seconds


def test_a_slow_seeder_that_hands_out_is_given_the_time_of_two_pieces() -> None:
    rig = Rig("." * 8, blocks=4)
    rig.connect(1, extended=True)
    rig.do(MessagesReceived(1, [KIN, HaveAll(), Suggest(2), Unchoke()]))
    for _ in range(4):  # a piece in three seconds
        rig.tick(0.75)
        rig.deliver(1, 1)
    assert silent_s(rig, 1) in {5, 6, 7}


def test_one_that_unchokes_us_again_is_waited_for_as_well() -> None:
    rig = Rig("." * 8, blocks=4)
    rig.connect(1, extended=True)
    rig.do(MessagesReceived(1, [KIN, HaveAll(), Suggest(2), Unchoke()]))
    rig.deliver(1)
    rig.say(1, Choke())
    rig.tick(30)
    rig.say(1, Unchoke())
    assert not rig.lent[1]
    assert silent_s(rig, 1) == 1


def test_little_of_a_short_content_is_handed_out_in_advance() -> None:
    rig = Rig("x" * 64, blocks=2)
    for number in (1, 2, 3):
        rig.join(number)
        rig.say(number, Interested())
    assert [len(rig.peer(number).suggested) for number in (2, 3)] == [1, 1]


def test_what_others_have_by_now_does_not_stand_for_what_a_peer_has_in_hand() -> None:
    rig = Rig("x" * 64, blocks=2)
    for number in (1, 2, 3):
        rig.join(number)
        rig.say(number, Interested())
    (piece,) = rig.peer(2).suggested
    rig.say(3, Have(piece))
    rig.do(BlocksSent(2, 0, 0))
    assert len(rig.peer(2).suggested) == 2


def test_a_piece_that_is_handed_to_us_again_is_gone_on_with() -> None:
    rig = Rig("." * 8, blocks=4)
    rig.connect(1, extended=True)
    rig.do(MessagesReceived(1, [KIN, HaveAll(), Suggest(2), Unchoke()]))
    rig.deliver(1, 1)
    rig.say(1, Choke(), *(Reject(2, block * 16384, 16384) for block in (1, 2, 3)))
    rig.lent[1].clear()
    rig.say(1, Suggest(2), Unchoke())
    assert sorted(rig.asked(1)) == [(2, 1), (2, 2), (2, 3)]


def test_a_seeder_hears_of_our_pieces_as_soon_as_it_hands_out_and_no_sooner() -> None:
    rig = Rig("." * 8, blocks=1)
    rig.join(3, "x" * 7 + ".")
    rig.deliver(3, 2)
    rig.stored()
    early = [piece for piece in range(8) if rig.core.have[piece]]
    rig.connect(1, extended=True)
    rig.do(MessagesReceived(1, [KIN, HaveAll(), Unchoke()]))
    rig.deliver(3, 2)
    orders = rig.stored()
    assert not [word for word in told(orders, 1) if isinstance(word, Have)]
    since = [piece for piece in range(8) if rig.core.have[piece] and piece not in early]
    words = told(rig.say(1, Suggest(7)), 1)
    assert [word.piece for word in words if isinstance(word, Have)] == since
    rig.deliver(3, 1)
    assert [type(word) for word in told(rig.stored(), 1) if isinstance(word, Have)] == [Have]


def test_of_very_many_pieces_it_hears_in_few_bytes() -> None:
    rig = Rig("." * 3000, blocks=1)
    rig.connect(1, extended=True)
    rig.do(MessagesReceived(1, [KIN, HaveAll()]))
    rig.do(*(PieceStored(piece, ()) for piece in range(2000)), check=False)
    (news,) = [
        word for word in told(rig.say(1, Suggest(2999)), 1) if isinstance(word, Have | BitfieldMessage)
    ]
    assert news == BitfieldMessage(rig.core.have.to_bytes())
    seeder = Rig("x" * 3000, blocks=1)
    seeder.join(1)
    seeder.say(1, news)
    assert seeder.peer(1).have == rig.core.have
