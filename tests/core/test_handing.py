"""A seeder hands its pieces out: what reaches the taker first, and what it asks for then."""

from __future__ import annotations

from microtorrd.core.events import MessagesReceived, Tell
from microtorrd.proto.extended import ExtendedHandshake
from microtorrd.proto.messages import Extended, HaveAll, Interested, Suggest, Unchoke
from tests.core.rig import INFO_HASH, Rig


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
    words = ExtendedHandshake(
        m={},
        client="",
        listen_port=None,
        reqq=None,
        yourip=None,
        upload_only=True,
        metadata_size=None,
        info_hash=INFO_HASH,
    )
    rig.do(MessagesReceived(2, [Extended(0, words.encode()), HaveAll(), Suggest(2), Unchoke()]))
    assert {slot.piece for slot in rig.lent[2]} == {2}  # … but not while it hands us others
    rig.deliver(2)
    rig.tick(2)
    assert 0 in {slot.piece for slot in rig.lent[2]}  # now that it has been silent
