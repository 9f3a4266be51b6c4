"""What a seeder suggests to whom, so that every piece leaves it once before any leaves it twice.

Leechers choose their pieces without knowing what the others have in flight; near the end they all ask the
seeder for the same few, and a seeder that is the bottleneck sends one and a half copies before everybody is
done. So a seeder with several takers hands its pieces out: it suggests (BEP 6) to each some that nobody has
and nobody else was handed. Another microtorrd asks a seeder that does so for nothing else; foreign clients
may take it for a hint or ignore it.

`given` are the pieces that need not be handed out: some connected peer has them all, or is getting them
(`Peer.handed`: suggested or asked for). What a peer was handed and has not, when it leaves, is free again.
"""

from __future__ import annotations

from collections.abc import Iterable

from bitarray import bitarray

from microtorrd.core.events import BlockRequest
from microtorrd.core.peer import Peer
from microtorrd.core.picker import draw
from microtorrd.core.swarm import Swarm
from microtorrd.proto.geometry import BLOCK_BYTES
from microtorrd.proto.messages import Suggest

#: A peer is handed the next piece when what it has in hand (asked for and not sent, or suggested and not
#: asked for) lasts for less than this: late enough that a slow peer holds no more than it can use, early
#: enough that it never waits for us.
AHEAD_S = 0.5

#: Of a peer whose rate is not known yet this counts, or one part in so many of a short content. What slow
#: peers hold in hand leaves late, and at the end all others wait for it.
AHEAD_UNKNOWN_BYTES = 1 << 18
AHEAD_SHARE = 64

#: Suggestions in one order at most, however small the pieces and fast the peer.
SUGGESTIONS_MOST = 64

#: Takers below which there is nothing to coordinate.
TAKERS_LEAST = 2


class Spreading:
    """Suggestions of one torrent; does something only while we have everything."""

    __slots__ = ("_given", "_swarm")

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._given: bitarray | None = None  # None: not handing out

    def asked(self, peer: Peer, requests: Iterable[BlockRequest], now: float) -> None:
        """The peer asks for these blocks, admitted."""
        if not self._swarm.complete:
            return
        last, given = -1, self._given
        for piece, _, _ in requests:
            if piece != last:
                last = piece
                peer.suggested.pop(piece, None)
                if given is None or not given[piece]:
                    peer.handed[piece] = None
                    if given is not None:
                        given[piece] = 1
        self.top_up(peer, now)

    def has_now(self, peer: Peer, piece: int) -> None:
        """The peer has this piece."""
        peer.handed.pop(piece, None)
        peer.suggested.pop(piece, None)
        if self._given is not None:
            self._given[piece] = 1

    def has_these(self, bits: bitarray) -> None:
        """A peer has joined with these pieces."""
        if self._given is not None:
            self._given |= bits

    def recount(self) -> None:
        """A peer has everything now, or less than before: count anew when it matters."""
        self._given = None

    def left(self, peer: Peer) -> None:
        """The peer is gone, with what it had. Who had nothing changes nothing."""
        self.take_back(peer)
        if peer.have is not None:
            self._given = None

    def take_back(self, peer: Peer, *, but: int | None = None) -> None:
        """The peer is choked: its part may be handed to others, `but` for what it gets anyway."""
        if not peer.handed:
            return
        kept = but in peer.handed
        peer.handed.clear()
        peer.suggested.clear()
        if kept and but is not None:
            peer.handed[but] = None
        self._given = None

    def top_up(self, peer: Peer, now: float) -> None:
        """Hand the peer pieces, as far as it needs them and any are left."""
        if peer.am_choking or not peer.fast or not peer.peer_interested or peer.is_seed or not self._active():
            return
        given = self._given
        assert given is not None
        swarm = self._swarm
        wanted = self._ahead_bytes(peer, now) - peer.queue_bytes
        availability = swarm.availability
        # What others have by now it will not ask us for.
        waiting = sum(availability[piece] <= availability.seeds for piece in peer.suggested)
        lacking = -(-wanted // swarm.geometry.piece_length) - waiting
        if lacking <= 0:
            return
        fresh = []
        for _ in range(min(lacking, SUGGESTIONS_MOST)):
            left = ~given
            if peer.have is not None:
                left &= ~peer.have.bits
            if not left.any():
                break
            piece = draw(left, swarm.chance)
            given[piece] = 1
            peer.handed[piece] = peer.suggested[piece] = None
            fresh.append(Suggest(piece))
        if fresh:
            swarm.tell(peer, *fresh)

    def _ahead_bytes(self, peer: Peer, now: float) -> int:
        rate = peer.up.rate(now)
        if rate:
            return max(int(rate * AHEAD_S), 2 * BLOCK_BYTES)
        return min(AHEAD_UNKNOWN_BYTES, max(2 * BLOCK_BYTES, self._swarm.geometry.length // AHEAD_SHARE))

    def check(self) -> None:
        """Recount what is given."""
        if self._given is None:
            return
        owned = ~self._swarm.availability.unowned()
        for peer in self._swarm.peers.values():
            for piece in peer.handed:
                owned[piece] = 1
            assert all(piece in peer.handed for piece in peer.suggested)
        assert owned == self._given, "given pieces"

    def _active(self) -> bool:
        """Whether there is something to hand out; prepares it."""
        swarm = self._swarm
        if not swarm.complete or swarm.choices.super_seed:
            return False
        if self._given is None:
            takers = sum(not peer.is_seed and peer.peer_interested for peer in swarm.peers.values())
            if takers < TAKERS_LEAST:
                return False
            given = swarm.availability.unowned()
            given.invert()
            for peer in swarm.peers.values():
                for piece in peer.handed:
                    given[piece] = 1
            self._given = given
        return not self._given.all()
