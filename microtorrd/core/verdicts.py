"""What follows when the disk has spoken about a piece: it is ours and all hear of it, or somebody lied.

Rules: a piece counts as had only here (and in a check); a `have` goes to every peer that does not have
everything, several pieces of one batch of facts in one order a peer; interest is exact after each piece.
"""

from __future__ import annotations

from collections.abc import Sequence

from microtorrd.core.culprits import Culprits, Giver
from microtorrd.core.events import Ban, Emit, Tell
from microtorrd.core.fetching import Fetching
from microtorrd.core.partial import Partial
from microtorrd.core.peer import Peer
from microtorrd.core.peerbook import Peerbook
from microtorrd.core.shares import Shares
from microtorrd.core.swarm import Swarm
from microtorrd.core.workshop import Workshop
from microtorrd.proto.messages import Have, Message


class Verdicts:
    """Good pieces and bad ones."""

    __slots__ = ("_book", "_culprits", "_fetching", "_heralds", "_shares", "_swarm", "_workshop")

    def __init__(
        self,
        swarm: Swarm,
        workshop: Workshop,
        fetching: Fetching,
        *,
        culprits: Culprits,
        shares: Shares,
        book: Peerbook,
    ) -> None:
        self._swarm = swarm
        self._workshop = workshop
        self._fetching = fetching
        self._culprits = culprits
        self._shares = shares
        self._book = book
        # The haves that were ordered last, in which batch of orders and for whom: as long as the host has not
        # fetched it and they are the same, a further piece joins them.
        self._heralds: tuple[int, int, list[Message]] | None = None

    def good(self, piece: int, digests: Sequence[bytes], now: float) -> None:
        """The piece matched its hash and is written."""
        swarm, fetching = self._swarm, self._fetching
        workshop = self._workshop
        partial = workshop.stored(piece)
        if not swarm.have.set(piece):
            return
        was_needed = workshop.picker.got(piece)
        if partial is not None:
            self._shares.credit(partial.givers, partial.units, partial.size)
        if self._culprits.suspicious(piece):
            for giver in self._culprits.good(piece, digests):
                self._strike(giver)
        swarm.gained.append(piece)
        self._herald(piece)
        everything = not workshop.picker.needed_count
        for peer in swarm.peers.values():
            if peer.is_seed:
                if everything:
                    fetching.show_interest(peer)
            elif was_needed and peer.has(piece):
                peer.offers -= 1
                if not peer.offers:
                    fetching.show_interest(peer)
        swarm.orders.append(Emit("piece_verified", {"piece": piece}))

    def bad(self, piece: int, digests: Sequence[bytes]) -> None:
        """The piece did not match its hash: fetch it again, and find out who is to blame."""
        swarm, workshop = self._swarm, self._workshop
        partial = workshop.stored(piece)
        if partial is None:
            return
        swarm.corrupt_pieces += 1
        swarm.wasted_bytes += partial.size
        workshop.put_back(piece)
        swarm.orders.append(
            Emit("piece_corrupt", {"piece": piece, "from": sorted({peer.host for peer in partial.givers})})
        )
        for giver in self._culprits.corrupt(piece, self._givers(partial), digests):
            self._strike(giver)
        if len(partial.givers) == 1:
            for peer in partial.givers:
                peer.refused.add(piece)  # others first, if there are any

    def lost(self, piece: int) -> None:
        """The disk failed while it stored the piece: it is to be fetched again."""
        if self._workshop.stored(piece) is not None:
            self._workshop.put_back(piece)

    def recipients_changed(self) -> None:
        """A peer came or went: haves that are ordered already are not for it."""
        self._heralds = None

    def _herald(self, piece: int) -> None:
        swarm = self._swarm
        have = Have(piece)
        if self._heralds is not None and self._heralds[:2] == (swarm.batch, swarm.audience):
            self._heralds[2].append(have)
            return
        messages: list[Message] = [have]
        for peer in swarm.peers.values():
            if peer.is_told:
                swarm.orders.append(Tell(peer.number, messages))
        self._heralds = (swarm.batch, swarm.audience, messages)

    @staticmethod
    def _givers(partial: Partial) -> list[Giver]:
        """Who sent each block of the usual size, also of those who have left."""
        givers = {peer.number: Giver(peer.number, identity(peer)) for peer in partial.givers}
        unknown = Giver(-1, "")
        return [
            unknown if number is None else givers.get(number, unknown) for number in partial.contributors()
        ]

    def _strike(self, giver: Giver) -> None:
        swarm = self._swarm
        if not giver.identity:
            return  # nobody that we know of
        strikes = self._culprits.strike(giver)
        if strikes < swarm.settings.ban_after or self._culprits.is_banned(giver.identity):
            return
        reason = f"{strikes} corrupt pieces"
        is_url = "://" in giver.identity
        host = giver.identity if is_url else giver.identity.partition("/")[0]
        self._culprits.ban(giver.identity)
        for peer in swarm.peers.values():
            if peer.number == giver.number or identity(peer) == giver.identity:
                host = giver.identity if is_url else peer.host
                if peer.address is not None:
                    self._book.bar(peer.address)
                swarm.condemn(peer, reason, fault=True)
        if giver.identity == host:
            swarm.orders.append(Ban(host, reason))
        else:  # the host is this machine: only the one peer is refused
            swarm.orders.append(Emit("peer_banned", {"host": host, "reason": reason}))


def identity(peer: Peer) -> str:
    """Whom strikes are counted for: the host. On this very machine, where all share one, the peer as well."""
    if peer.web_seed:  # many of them share a host
        return peer.web_seed
    if peer.host.startswith("127.") or peer.host in {"::1", "::ffff:127.0.0.1", ""}:
        return f"{peer.host}/{peer.peer_id.hex()}"
    return peer.host
