"""Whom to serve: a pure function of what is known of the peers that want something.

- Everybody, while there are slots for all, or always when the operator says so.
- Leeching: those who give us most (tit-for-tat). What they leave goes round among those who give nothing, so
  that each can show what it does with a slot; those who took and never gave although they could come last.
  Snubbing peers earn nothing.
- Seeding: half of the slots go to the fastest takers, who carry the pieces on; the other half goes round, to
  whoever has waited longest, and each holds it for `TURN_S` at least.
- Besides, one optimistic slot by lot, moved every third round, in which new peers have three times as many
  tickets (BEP 3), and those who took of us and gave us nothing although they could, a third of them.

What a peer gives or takes is judged over two rounds, as in the original BitTorrent: blocks come in bursts,
and a shorter look would take chance for merit.

Rule: nothing here keeps state; the same views and the same chance give the same choice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import log2
from typing import NamedTuple

#: Seconds between two choices, and how many of them the optimistic slot stays where it is.
ROUND_S = 10.0
OPTIMISTIC_ROUNDS = 3

#: What counts as giving and taking is what moved in this time.
JUDGED_S = 2 * ROUND_S

#: A peer is new for this long. That is worth so many times the tickets, and so is it not to be one that only
#: takes.
NEW_S = 60.0
TICKETS = 3

#: How long the round-robin of a seeder leaves a slot with one peer.
TURN_S = 20.0

#: How long a peer that gives nothing keeps a slot that no giver needs: time to unchoke us in return, which is
#: decided every `ROUND_S`, and to send something.
TRIAL_S = 30.0

#: Slots by capacity: so many at so many bytes per second, one more for each doubling, one less for each half.
#: Few slots on a slow line, or a piece takes its time to arrive anywhere and be passed on; not many more on a
#: fast one, or nobody gets enough to care for.
USUAL_SLOTS = 8
USUAL_PER_S = 1 << 20
LEAST_SLOTS = 3
MOST_SLOTS = 20


class Candidate(NamedTuple):
    """A connected peer that is interested in what we have."""

    peer: int
    gives_per_s: float  # to us, over the last `JUDGED_S`
    takes_per_s: float  # from us
    unchoked: bool
    for_s: float  # since it was last unchoked, or choked if it is choked
    joined_s: float  # since it joined
    snubbing: bool  # asked and sending nothing
    only_takes: bool = False  # it took, has what we need, and never gave us any of it


class Choice(NamedTuple):
    """Who is served from now on, and who of them by luck alone."""

    unchoked: frozenset[int]
    optimistic: int | None


def slots_for(up_per_s: float) -> int:
    """How many regular slots suit a line that carries so many bytes per second."""
    if up_per_s <= 0:
        return LEAST_SLOTS
    return max(LEAST_SLOTS, min(MOST_SLOTS, int(USUAL_SLOTS + log2(up_per_s / USUAL_PER_S))))


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
    """The best givers first, then the others in turns, then those who snub us.

    What somebody owes does not count in bytes: whoever reconnects owes nothing, and would come before all who
    ever took something. It comes last by time instead, of those who have not shown yet that they only take.
    """
    givers = sorted((c for c in candidates if c.gives_per_s and not c.snubbing), key=lambda c: -c.gives_per_s)
    others = [c for c in candidates if not c.gives_per_s and not c.snubbing]
    in_turn, waiting, done = _in_turns(others, TRIAL_S)
    waiting.sort(key=lambda c: c.only_takes)
    return [*givers, *in_turn, *waiting, *done, *(c for c in candidates if c.snubbing)]


def _by_need(candidates: Sequence[Candidate], slots: int) -> list[Candidate]:
    """The fastest takers for half of the slots, then those whose turn is not over, then who waits longest,
    then those that were served longest."""
    takers = sorted((c for c in candidates if c.unchoked and c.takes_per_s), key=lambda c: -c.takes_per_s)
    fast = takers[: (slots + 1) // 2]
    chosen = {candidate.peer for candidate in fast}
    in_turn, waiting, done = _in_turns([c for c in candidates if c.peer not in chosen], TURN_S)
    return [*fast, *in_turn, *waiting, *done]


def _in_turns(candidates: Sequence[Candidate], turn_s: float) -> tuple[list[Candidate], ...]:
    """Those whose turn is not over; the waiting, who waits longest first; those served longest, last."""
    in_turn = [c for c in candidates if c.unchoked and c.for_s < turn_s]
    waiting = sorted((c for c in candidates if not c.unchoked), key=lambda c: -c.for_s)
    done = sorted((c for c in candidates if c.unchoked and c.for_s >= turn_s), key=lambda c: c.for_s)
    return in_turn, waiting, done


def _draw(rest: Sequence[Candidate], chance: random.Random) -> int:
    """The lucky one: somebody who is choked now if possible."""
    choked = [candidate for candidate in rest if not candidate.unchoked] or list(rest)
    tickets = [
        (TICKETS if candidate.joined_s < NEW_S else 1) * (1 if candidate.only_takes else TICKETS)
        for candidate in choked
    ]
    return chance.choices(choked, tickets)[0].peer
