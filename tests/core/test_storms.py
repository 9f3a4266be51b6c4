"""Long random lives of a core: the moves of `test_random_facts`, weighted so that downloads get far.

Hypothesis finds what a few facts can break, and shrinks it; a storm finds what takes hundreds. A seed that
fails does so again.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from microtorrd.core.events import BlockRequest, Started
from microtorrd.proto.messages import (
    AllowedFast,
    Cancel,
    Choke,
    Have,
    Interested,
    KeepAlive,
    Message,
    NotInterested,
    Suggest,
    Unchoke,
)
from tests.core.test_random_facts import BLOCK, FATES, PIECES, Facts

STORMS = 120
MOVES = 250


class Storm:
    """One life."""

    def __init__(self, seed: int) -> None:
        self.lot = random.Random(seed)
        self.facts = Facts()
        lot = self.lot
        self.facts.make(
            have=lot.choice(["." * PIECES, "x" * PIECES, self.pieces()]),
            peers=[(self.some(), lot.random() < 0.7) for _ in range(lot.randrange(5))],
            memory=lot.choice([2 * BLOCK, 5 * BLOCK, 1 << 30]),
            slots=lot.randint(0, 3),
            always=lot.random() < 0.2,
            wait=int(lot.random() < 0.2),
            id_hash=lot.random() < 0.3,
            seed_after=lot.random() < 0.9,
            super_seed=lot.random() < 0.3,
            seed=seed,
        )
        self.moves: dict[Callable[[], None], int] = {
            self.join: 10,
            self.stranger: 2,
            self.deliver: 30,
            self.deliver_late: 4,
            self.reject: 4,
            self.say: 20,
            self.request: 12,
            self.sent: 5,
            self.leave: 3,
            self.disk: 20,
            self.tick: 10,
            self.fate: 3,
        }

    def live(self) -> None:
        for _ in range(MOVES):
            (move,) = self.lot.choices(list(self.moves), list(self.moves.values()))
            move()
            self.facts.memory_adds_up()
            self.facts.wires_agree()
            if self.facts.rig.core.phase.value in {"stopped", "failed"} and self.lot.random() < 0.5:
                self.facts.rig.do(Started())
        self.facts.all_ends_well()

    def which(self) -> int:
        return self.lot.randrange(1 << 30)

    def pieces(self) -> str:
        return "".join(self.lot.choice(".x") for _ in range(PIECES))

    def some(self) -> str:
        return self.lot.choice(["all", "all", "", self.pieces()])

    def block(self) -> BlockRequest:
        return self.lot.randrange(PIECES), self.lot.choice([0, BLOCK]), BLOCK

    def join(self) -> None:
        lot = self.lot
        self.facts.join(
            have=self.some(),
            fast=lot.random() < 0.7,
            unchoke=lot.random() < 0.8,
            interested=lot.random() < 0.6,
        )

    def stranger(self) -> None:
        lot = self.lot
        self.facts.join_somehow(
            fast=lot.random() < 0.5,
            extended=lot.random() < 0.5,
            incoming=lot.random() < 0.5,
            identity=lot.choice([None, b"-AA" + bytes(17), b"-ZZ" + bytes(17), b"-MT0001-MMMMMMMMMMMM"]),
            known=lot.choice([None, ("10.0.0.1", lot.randrange(5))]),
            host=lot.choice(["10.0.0.1", "127.0.0.1"]),
        )

    def deliver(self) -> None:
        self.facts.deliver(self.which(), self.lot.choice([1, 1, 2, 5, 100]))

    def deliver_late(self) -> None:
        self.facts.deliver_late(which=self.which())

    def reject(self) -> None:
        self.facts.reject(which=self.which(), count=self.lot.randint(1, 3))

    def say(self) -> None:
        words: list[Message] = [
            *(Unchoke(), Unchoke(), Choke(), Interested(), Interested(), NotInterested(), KeepAlive()),
            *(Have(self.lot.randrange(PIECES)) for _ in range(4)),
            *(Suggest(self.lot.randrange(PIECES)), AllowedFast(self.lot.randrange(PIECES))),
            Cancel(*self.block()),
        ]
        self.facts.say_something_sensible(
            which=self.which(), messages=self.lot.sample(words, self.lot.randint(1, 3))
        )

    def request(self) -> None:
        requests = [self.block() for _ in range(self.lot.randint(1, 4))]
        if self.lot.random() < 0.9:
            self.facts.request_something_sensible(which=self.which(), requests=requests)
        else:
            self.facts.request(which=self.which(), requests=requests)

    def sent(self) -> None:
        self.facts.sent(which=self.which(), blocks=self.lot.randint(0, 4))

    def leave(self) -> None:
        self.facts.leave(which=self.which(), fault=self.lot.random() < 0.2)

    def disk(self) -> None:
        lot = self.lot
        digests = [lot.choice([b"good", b"bad"]) for _ in range(2)]
        self.facts.disk(which=self.which(), good=lot.choice([0, 1, 1, 1, 1]), digests=digests)

    def tick(self) -> None:
        self.facts.tick(seconds=self.lot.choice([1, 1, 1, 3, 15]))

    def fate(self) -> None:
        lot = self.lot
        self.facts.fate(
            what=lot.choice(FATES),
            good={piece for piece in range(PIECES) if lot.random() < 0.7},
            bad={piece for piece in range(PIECES) if lot.random() < 0.3},
            yes=lot.random() < 0.7,
            found=[("10.0.0.2", lot.randrange(9)) for _ in range(3)],
        )


@pytest.mark.parametrize("seed", range(STORMS))
def test_a_core_weathers_every_storm(seed: int) -> None:
    Storm(seed).live()
