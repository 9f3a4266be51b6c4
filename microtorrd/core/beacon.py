"""Which torrents the neighbours are told of next (BEP 14): each when it is new, and then every five minutes.

A few go one in a datagram, because Transmission and aria2 read no more than the first id of one; where there
are many, several go together, and each round begins with another one. Pure: it says what to send when.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from microtorrd.proto.lsd import IDS_MAX

#: A torrent is spoken of again after this time.
EVERY_S = 300.0

#: So many may have a datagram each (BEP 14).
ALONE_MAX = 5

#: How often is looked who is there: every second of a few, less often of thousands.
LOOK_S = 1.0
LOOKED_AT_PER_S = 500


class Beacon:
    """The swarm ids of one daemon, and when each was last told."""

    __slots__ = ("_look_at", "_told", "_waiting")

    def __init__(self) -> None:
        self._told: dict[bytes, float] = {}  # when
        self._waiting: deque[bytes] = deque()
        self._look_at = 0.0

    def wants_look(self, now: float) -> bool:
        """Whether it is time to `look` at who is there."""
        return now >= self._look_at

    def look(self, present: Iterable[bytes], now: float) -> None:
        """These are shared now."""
        told = self._told
        here = dict.fromkeys(present)
        for gone in [swarm_id for swarm_id in told if swarm_id not in here]:
            del told[gone]
        due = [swarm_id for swarm_id in here if now - told.get(swarm_id, -EVERY_S) >= EVERY_S]
        fresh = [swarm_id for swarm_id in due if swarm_id not in told]
        again = [swarm_id for swarm_id in due if swarm_id in told]
        # Who was not the first of a datagram this time shall be one of the next times.
        turn = int(now // EVERY_S) % IDS_MAX
        self._waiting = deque(fresh + again[turn:] + again[:turn])
        self._look_at = now + LOOK_S + len(here) / LOOKED_AT_PER_S

    def next(self, now: float) -> tuple[bytes, ...]:
        """What to put into the next datagram; empty: nothing."""
        most = 1 if len(self._waiting) <= ALONE_MAX else IDS_MAX
        chosen = tuple(self._waiting.popleft() for _ in range(min(most, len(self._waiting))))
        self._told.update(dict.fromkeys(chosen, now))
        return chosen
