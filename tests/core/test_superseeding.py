"""Super-seeding (BEP 16): who is shown what, when the next piece, and what is served."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from microtorrd.core import events
from microtorrd.core.events import Order, RequestsReceived, Serve
from microtorrd.core.settings import SwarmSettings, TorrentSettings
from microtorrd.core.superseeding import AHEAD, PATIENCE_S
from microtorrd.proto.extended import ExtendedHandshake
from microtorrd.proto.messages import (
    AllowedFast,
    BitfieldMessage,
    Extended,
    Have,
    HaveAll,
    HaveNone,
    Interested,
    Reject,
    Suggest,
)
from tests.core.rig import Rig, dropped, of, told

BLOCK = 16384
ON = TorrentSettings(super_seed=True)


def seeder(pieces: int = 12, **how: Any) -> Rig:
    return Rig("x" * pieces, blocks=16, torrent=ON, **how)


def shown(orders: Sequence[Order], number: int) -> list[int]:
    return [message.piece for message in told(orders, number) if isinstance(message, Have)]


def join(rig: Rig, number: int, have: str = "", **how: Any) -> list[int]:
    """A leecher comes, is interested at once, and is shown these pieces."""
    orders = rig.join(number, have, **how)
    pieces = shown(orders, number)
    rig.say(number, Interested())
    return pieces


@pytest.mark.parametrize("fast", [True, False])
def test_a_newcomer_is_told_of_nothing_but_a_few_pieces(fast: bool) -> None:
    rig = seeder()
    words = told(rig.connect(1, fast=fast), 1)
    assert words == ([HaveNone()] if fast else [])
    if fast:
        words = told(rig.say(1, HaveNone()), 1)
    else:
        words = told(rig.tick(), 1)  # a client without anything may say nothing at all
    assert len(words) == AHEAD
    assert all(isinstance(word, Have) for word in words)


def test_it_does_not_call_itself_a_seeder() -> None:
    rig = seeder()
    (words,) = (word for word in told(rig.connect(1, extended=True), 1) if isinstance(word, Extended))
    assert not ExtendedHandshake.decode(words.payload).upload_only


def test_each_peer_is_shown_other_pieces_and_never_one_that_somebody_has() -> None:
    rig = seeder()
    all_shown = join(rig, 1, "xx..........") + join(rig, 2) + join(rig, 3)
    assert len(set(all_shown)) == len(all_shown) == 3 * AHEAD
    assert not {0, 1} & set(all_shown)


def test_the_next_piece_comes_when_somebody_else_has_the_last_one() -> None:
    rig = seeder()
    first = join(rig, 1)[0]
    join(rig, 2)
    assert not shown(rig.say(1, Have(first)), 1)
    assert len(shown(rig.say(2, Have(first)), 1)) == 1


def test_somebody_who_had_it_from_elsewhere_counts_as_well() -> None:
    rig = seeder()
    first = join(rig, 1)[0]
    join(rig, 2)
    rig.say(2, Have(first))
    assert len(shown(rig.say(1, Have(first)), 1)) == 1


def test_who_is_alone_can_pass_nothing_on_and_need_not() -> None:
    rig = seeder(30)
    seen = join(rig, 1)
    while seen:
        assert len(rig.peer(1).offered) <= AHEAD
        seen = seen[1:] + shown(rig.say(1, Have(seen[0])), 1)
    assert rig.peer(1).is_seed


def test_patience_ends() -> None:
    rig = seeder()
    first = join(rig, 1)[0]
    join(rig, 2)
    rig.say(1, Have(first))
    assert not shown(rig.tick(PATIENCE_S - 2), 1)
    assert len(shown(rig.tick(3), 1)) == 1


def test_who_is_shown_all_that_is_new_gets_a_rare_piece_now_and_then() -> None:
    rig = seeder(4)
    join(rig, 1)
    join(rig, 2)
    assert join(rig, 3) == []
    assert len(shown(rig.tick(PATIENCE_S + 1), 3)) <= 1
    rig.tick(4 * PATIENCE_S)
    assert rig.peer(3).shown is not None
    assert rig.peer(3).offered


def test_what_was_not_shown_is_not_served() -> None:
    rig = seeder()
    mine = join(rig, 1)
    other = next(piece for piece in range(12) if piece not in mine)
    orders = rig.do(RequestsReceived(1, [(mine[0], 0, BLOCK), (other, 0, BLOCK)]))
    assert of(orders, Serve) == [Serve(1, [(mine[0], 0, BLOCK)])]
    assert told(orders, 1) == [Reject(other, 0, BLOCK)]
    join(rig, 2, fast=False)
    assert dropped(rig.do(RequestsReceived(2, [(other, 0, BLOCK)])))


def test_there_are_no_suggestions_and_nothing_for_nothing() -> None:
    rig = seeder(200, settings=SwarmSettings(upload_slots=1))
    for number in range(1, 5):
        join(rig, number)
    words = [word for number in range(1, 5) for word in told(rig.journal, number)]
    assert not [word for word in words if isinstance(word, Suggest | AllowedFast | HaveAll | BitfieldMessage)]


def test_a_leecher_with_this_choice_shows_what_it_has() -> None:
    rig = Rig("x.", torrent=ON)
    assert any(isinstance(word, BitfieldMessage) for word in told(rig.connect(1), 1))


def test_it_can_begin_and_end_while_it_runs() -> None:
    rig = Rig("x" * 12, blocks=16)
    rig.join(1)
    assert "anew" in dropped(rig.do(events.SettingsChanged(ON)))[1]
    mine = join(rig, 2)
    rest = shown(rig.do(events.SettingsChanged(TorrentSettings())), 2)
    assert sorted(mine + rest) == list(range(12))
    rig.do(RequestsReceived(2, [(rest[0], 0, BLOCK)]))
    assert HaveAll() in told(rig.connect(3), 3)


@pytest.mark.parametrize("seed", range(5))
def test_a_swarm_in_which_pieces_are_passed_on_needs_one_copy(seed: int) -> None:
    """Peers fetch what they are shown, and pass it on to all others a moment later."""
    rig = seeder(60, seed=seed)
    chance = random.Random(seed)
    fetched: list[int] = []
    numbers = range(1, 6)
    for number in numbers:
        join(rig, number, fast=number % 2 == 0)
    rig.tick()
    while not all(rig.peer(number).is_seed for number in numbers):
        offers = [(number, piece) for number in numbers for piece in rig.peer(number).offered]
        number, piece = chance.choice([pair for pair in offers if not rig.peer(pair[0]).has(pair[1])])
        fetched.append(piece)
        for other in sorted(numbers, key=lambda other: other != number):
            if not rig.peer(other).has(piece):
                rig.say(other, Have(piece))
    assert len(fetched) <= 62
