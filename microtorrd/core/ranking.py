"""Whose connection is worth more to the swarm, by canonical priority (BEP 40): whom to dial first, and who
makes way when all places are taken.

It takes our own address, which only others know (`ourselves.py`). As long as nobody does, there is no order.
"""

from __future__ import annotations

from microtorrd.core.ourselves import OwnAddresses
from microtorrd.proto.compact import read_host
from microtorrd.proto.priority import peer_priority


class Ranking:
    """The priorities of one daemon's connections."""

    __slots__ = ("_listen_port", "_ourselves")

    def __init__(self, ourselves: OwnAddresses, listen_port: int) -> None:
        self._ourselves = ourselves
        self._listen_port = listen_port

    def priority(self, host: str, port: int | None) -> int | None:
        """Of a connection with this numeric address, 0 to 2³²-1, the higher the better; None: unknown."""
        theirs = read_host(host)
        ours = None if theirs is None else self._ourselves.host(len(theirs))
        if theirs is None or ours is None or (theirs == ours and port is None):
            return None
        return peer_priority((ours, self._listen_port), (theirs, port or 0))
