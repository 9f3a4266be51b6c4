"""Which blocks to ask of a second peer because the first will take much longer, or may never answer.

Copies cost the sender's bandwidth, which is what a swarm has least of, so being asked already is no reason:
a block is late when whoever holds it has stalled, or (only when nothing is left to ask) when another peer
would have it in less than half the time. Of a peer that is slow but moving the blocks it will come to last
are taken, so that both meet in the middle and little arrives twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf

from microtorrd.core.partial import Block, Partial
from microtorrd.core.peer import Peer
from microtorrd.proto.geometry import BLOCK_BYTES

#: A block is asked of this many peers at most that may still send it. Those that have stalled do not count: a
#: few that promise everything and send nothing would else keep it from everybody.
COPIES_MAX = 3

#: Differences shorter than this are not worth a copy.
MARGIN_S = 0.25


def late_blocks(
    peer: Peer,
    holders: Iterable[Peer],
    may_ask: Callable[[Peer, Partial], bool],
    *,
    most: int,
    now: float,
    stalled_only: bool,
) -> list[tuple[Partial, list[Block]]]:
    """Up to `most` blocks that these hold and this peer may be asked for sooner, the most overdue first."""
    found: list[tuple[Partial, list[Block]]] = []
    mine_s = peer.due_s(now)
    if mine_s == inf:
        return found
    if stalled_only:
        late = [
            (inf, holder)
            for holder in holders
            if holder.pipeline.out and holder is not peer and holder.is_stalled(now)
        ]
    else:
        late = [
            (theirs_s, holder)
            for holder in holders
            if holder.pipeline.out
            and holder is not peer
            and (theirs_s := holder.due_s(now)) > 2 * mine_s + MARGIN_S
        ]
        late.sort(key=lambda item: -item[0])
    for theirs_s, holder in late:
        quota = min(most, _quota(peer, holder, ahead_s=theirs_s - mine_s, now=now))
        for partial in reversed(holder.partials):
            if quota <= 0:
                break
            if partial.solo or not may_ask(peer, partial):
                continue
            blocks = _tail(partial, holder, peer, most=quota, now=now)
            if blocks:
                found.append((partial, blocks))
                units = sum(block.units for block in blocks)
                quota -= units
                most -= units
    return found


def _quota(peer: Peer, holder: Peer, *, ahead_s: float, now: float) -> int:
    """How many of the holder's blocks the peer can have first, being so much ahead of it."""
    pace = holder.pipeline.pace(now)
    if ahead_s == inf or not pace:
        return holder.pipeline.out
    mine = peer.pipeline.pace(now) or pace  # unknown: it may be no better
    return int(ahead_s / (BLOCK_BYTES / pace + BLOCK_BYTES / mine)) + 1


def _tail(partial: Partial, holder: Peer, peer: Peer, *, most: int, now: float) -> list[Block]:
    """The last blocks of the piece that this holder was asked for, and the peer was not."""
    chosen: list[Block] = []
    units = 0
    for block in reversed(partial.blocks):
        if block.holder is not holder:
            continue
        others = block.others
        if others is not None and (peer in others or _counted_on(holder, others, now) >= COPIES_MAX):
            continue
        chosen.append(block)
        units += block.units
        if units >= most:
            break
    return chosen


def _counted_on(holder: Peer, others: Sequence[Peer], now: float) -> int:
    """How many of those that were asked for a block may still send it."""
    if len(others) + 1 < COPIES_MAX:
        return len(others) + 1
    return sum(not peer.is_stalled(now) for peer in (holder, *others))
