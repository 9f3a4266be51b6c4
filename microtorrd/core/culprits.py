"""Who sent bad data: evidence on corrupt pieces, strikes, bans.

A corrupt piece that came from one peer alone convicts it, unless somebody else sent the very same bytes: then
the fault may be the metainfo's. One that came from several leaves evidence: the digest of each block and who
sent it. The piece is then fetched from a single peer, and once it is good its digests are asked for too:
whoever sent a block that differs is the culprit. Nobody else gets a strike.

Rules: evidence is bounded; one attempt convicts a peer at most once; strikes outlive the connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: Attempts at one piece of which the evidence is kept, and pieces under suspicion at a time. A liar that
#: makes more than this is caught by the pieces that are kept.
ATTEMPTS_KEPT = 4
PIECES_KEPT = 256

#: Identities whose strikes or bans are remembered; the oldest are forgotten first.
STRIKES_KEPT = 4096


class Giver(NamedTuple):
    """Who sent a block: the connection, and what identifies the peer beyond it."""

    number: int
    identity: str


class Attempt(NamedTuple):
    """One corrupt version of a piece."""

    givers: Sequence[Giver]  # of each block
    digests: Sequence[bytes]
    settled: bool  # its only giver is convicted already


class Culprits:
    """The court of one torrent."""

    __slots__ = ("_banned", "_evidence", "_strikes")

    def __init__(self) -> None:
        self._evidence: dict[int, list[Attempt]] = {}
        self._strikes: dict[str, int] = {}
        self._banned: dict[str, None] = {}

    def suspicious(self, piece: int) -> bool:
        """The piece came out wrong before: fetch it from one peer, and have its digests made."""
        return piece in self._evidence

    def corrupt(self, piece: int, givers: Sequence[Giver], digests: Sequence[bytes]) -> list[Giver]:
        """A piece did not match its hash. Returns who is guilty beyond doubt: one or nobody."""
        attempts = self._evidence.get(piece)
        if attempts is None:
            if len(self._evidence) >= PIECES_KEPT:
                del self._evidence[next(iter(self._evidence))]
            attempts = self._evidence[piece] = []
        identities = {giver.identity for giver in givers}
        guilty = (
            list(givers[:1])
            if len(identities) == 1 and not self._agreed(attempts, identities, digests)
            else []
        )
        attempts.append(Attempt(tuple(givers), tuple(digests), bool(guilty)))
        del attempts[:-ATTEMPTS_KEPT]
        return guilty

    def good(self, piece: int, digests: Sequence[bytes]) -> list[Giver]:
        """The piece matched its hash at last, with these blocks. Returns who sent others before."""
        guilty: dict[str, Giver] = {}
        for attempt in self._evidence.pop(piece, ()):
            if attempt.settled:
                continue
            for giver, was, is_ in zip(attempt.givers, attempt.digests, digests, strict=False):
                if was != is_:
                    guilty[giver.identity] = giver
        return list(guilty.values())

    @staticmethod
    def _agreed(attempts: Sequence[Attempt], identities: set[str], digests: Sequence[bytes]) -> bool:
        """Somebody else sent the same bytes before."""
        return bool(digests) and any(
            tuple(digests) == attempt.digests
            and identities.isdisjoint(giver.identity for giver in attempt.givers)
            for attempt in attempts
        )

    def strike(self, giver: Giver) -> int:
        """One proven piece more. Returns how many there are now."""
        strikes = self._strikes.pop(giver.identity, 0) + 1
        if len(self._strikes) >= STRIKES_KEPT:
            del self._strikes[next(iter(self._strikes))]
        self._strikes[giver.identity] = strikes
        return strikes

    def ban(self, identity: str) -> None:
        """Never again."""
        if len(self._banned) >= STRIKES_KEPT:
            del self._banned[next(iter(self._banned))]
        self._banned[identity] = None

    def is_banned(self, identity: str) -> bool:
        """Whether it was banned by this torrent."""
        return identity in self._banned
