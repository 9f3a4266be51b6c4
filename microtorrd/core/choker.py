"""Whom to serve: a pure function of what is known of the peers that want something.

- Everybody, while there are slots for all, or always when the operator says so.
- Leeching: those who give us most (tit-for-tat); snubbing peers earn nothing.
- Seeding: half of the slots go to the fastest takers, who carry the pieces on; the other half goes round, to
  whoever has waited longest, and each holds it for `TURN_S` at least.
- Besides, one optimistic slot by lot, moved every third round, in which new peers have three tickets (BEP 3).

Rule: nothing here keeps state; the same views and the same chance give the same choice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

#: Seconds between two choices, and how many of them the optimistic slot stays where it is.
ROUND_S = 10.0
OPTIMISTIC_ROUNDS = 3

#: A peer is new for this long, and its ticket counts this much.
NEW_S = 60.0
NEW_TICKETS = 3

#: How long the round-robin of a seeder leaves a slot with one peer.
TURN_S = 20.0


class Candidate(NamedTuple):
    """A connected peer that is interested in what we have."""

    peer: int
    gives_per_s: float  # measured, to us
    takes_per_s: float  # measured, from us
    unchoked: bool
    for_s: float  # since it was last unchoked, or choked if it is choked
    joined_s: float  # since it joined
    snubbing: bool  # asked and sending nothing


class Choice(NamedTuple):
    """Who is served from now on, and who of them by luck alone."""

    unchoked: frozenset[int]
    optimistic: int | None


def choose(
    candidates: Sequence[Candidate],
    *,
    slots: int,
    seeding: bool,
    always: bool,
    optimistic: int | None,
    chance: random.Random,
) -> Choice:
    """Hand out `slots` regular slots and the optimistic one; `optimistic` holds it now, None: draw anew."""
    if always or len(candidates) <= slots:
        return Choice(frozenset(candidate.peer for candidate in candidates), None)
    # Having the optimistic slot is no merit: only what it brings counts towards a regular one.
    judged = [c._replace(unchoked=False, for_s=0.0) if c.peer == optimistic else c for c in candidates]
    ranked = _by_need(judged, slots) if seeding else _by_merit(judged)
    regular = {candidate.peer for candidate in ranked[:slots]}
    rest = [candidate for candidate in candidates if candidate.peer not in regular]
    if optimistic is None or all(candidate.peer != optimistic for candidate in rest):
        optimistic = _draw(rest, chance)
    return Choice(frozenset(regular | {optimistic}), optimistic)


def _by_merit(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The best givers first; among those who give nothing whoever is served now, so that nothing flaps."""
    return sorted(candidates, key=lambda c: (c.snubbing, -c.gives_per_s, not c.unchoked, -c.for_s))


def _by_need(candidates: Sequence[Candidate], slots: int) -> list[Candidate]:
    """The fastest takers for half of the slots, then those whose turn is not over, then who waits longest."""
    takers = sorted((c for c in candidates if c.unchoked and c.takes_per_s), key=lambda c: -c.takes_per_s)
    fast = takers[: (slots + 1) // 2]
    chosen = {candidate.peer for candidate in fast}
    others = [candidate for candidate in candidates if candidate.peer not in chosen]
    in_turn = [c for c in others if c.unchoked and c.for_s < TURN_S]
    waiting = sorted((c for c in others if not c.unchoked), key=lambda c: -c.for_s)
    done = sorted((c for c in others if c.unchoked and c.for_s >= TURN_S), key=lambda c: c.for_s)
    return [*fast, *in_turn, *waiting, *done]


def _draw(rest: Sequence[Candidate], chance: random.Random) -> int:
    """The lucky one: somebody who is choked now if possible."""
    choked = [candidate for candidate in rest if not candidate.unchoked] or list(rest)
    tickets = [NEW_TICKETS if candidate.joined_s < NEW_S else 1 for candidate in choked]
    return chance.choices(choked, tickets)[0].peer
