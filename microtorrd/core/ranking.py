"""Whose connection is worth more to the swarm, by canonical priority (BEP 40): whom to dial first, and who
makes way when all places are taken.

It takes our own address, which only others know (`ourselves.py`). As long as nobody does, there is no order.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from microtorrd.core.attendance import Attendance
from microtorrd.core.ourselves import OwnAddresses
from microtorrd.core.peer import Peer
from microtorrd.proto.compact import read_host
from microtorrd.proto.priority import peer_priority


class Ranking:
    """The priorities of one daemon's connections."""

    __slots__ = ("_listen_port", "_ourselves")

    def __init__(self, ourselves: OwnAddresses, listen_port: int) -> None:
        self._ourselves = ourselves
        self._listen_port = listen_port

    @property
    def seen_as(self) -> tuple[bytes | None, bytes | None]:
        """What all priorities rest on: our own addresses."""
        return self._ourselves.host(4), self._ourselves.host(16)

    def priority(self, host: str, port: int | None) -> int | None:
        """Of a connection with this numeric address, 0 to 2³²-1, the higher the better; None: unknown."""
        theirs = read_host(host)
        ours = None if theirs is None else self._ourselves.host(len(theirs))
        if theirs is None or ours is None or (theirs == ours and port is None):
            return None
        return peer_priority((ours, self._listen_port), (theirs, port or 0))


class Ranks:
    """The connections of one torrent in the order of their priorities.

    They are put in order when somebody asks for the first time, which is when all places are taken, and kept
    in it from then on: to rank them all for each newcomer that finds no place would take milliseconds. When
    our own address has changed all are ranked anew. Who shares it with us, and did not say at once where it
    listens, has no rank.
    """

    __slots__ = ("_attendance", "_keys", "_ranking", "_row", "_seen_as")

    def __init__(self, ranking: Ranking, attendance: Attendance) -> None:
        self._ranking = ranking
        self._attendance = attendance
        self._row: list[tuple[int, int]] | None = None  # priority and number, the least first
        self._keys: dict[int, tuple[int, int]] = {}  # by number; without those that have no priority
        self._seen_as: tuple[bytes | None, bytes | None] = (None, None)

    def priority(self, peer: Peer) -> int | None:
        """Of a peer that may not be here."""
        return self._ranking.priority(peer.host, peer.address[1] if peer.address else None)

    def joined(self, peer: Peer) -> None:
        """The peer is here."""
        if self._row is None or peer.web_seed or (priority := self.priority(peer)) is None:
            return
        key = self._keys[peer.number] = (priority, peer.number)
        insort(self._row, key)

    def left(self, peer: Peer) -> None:
        """The peer is here no more."""
        key = self._keys.pop(peer.number, None)
        if self._row is not None and key is not None:
            del self._row[bisect_left(self._row, key)]

    def last(self) -> tuple[int, Peer] | None:
        """The one with the lowest priority, of those that are giving us nothing, and its priority."""
        if self._row is None or self._seen_as != self._ranking.seen_as:
            self._rank_all()
        assert self._row is not None
        peers = self._attendance.peers
        for priority, number in self._row:
            if not peers[number].pipeline.out:
                return priority, peers[number]
        return None

    def _rank_all(self) -> None:
        self._seen_as = self._ranking.seen_as
        self._row = []
        self._keys = {}
        for peer in self._attendance.peers.values():
            self.joined(peer)
