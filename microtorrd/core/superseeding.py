"""Super-seeding (BEP 16): a seeder that shows each peer a few pieces at a time, as if it had no others.

A peer is shown pieces that nobody has and nobody else was shown, and the next one when it has one of them and
somebody else has it, too: so what leaves the seeder is passed on before more leaves it, whatever client the
peer is. Our own clients do as well with suggestions (`spreading.py`); foreign ones take those for hints.

Rules:
- `Peer.shown` is what the peer was told of, None: everything; nothing else is served to it;
- who connected before the torrent super-seeded knows everything already: it has to come anew;
- what is shown cannot be taken back: a piece that a choked peer was shown may be shown to another one, too;
- nobody starves: who has passed nothing on gets the next piece after `PATIENCE_S`, and who was shown all that
  is new gets a rare one as often.
"""

from __future__ import annotations

from itertools import islice

from bitarray import bitarray

from microtorrd.core.peer import Peer
from microtorrd.core.picker import blank, draw
from microtorrd.core.swarm import Swarm
from microtorrd.proto.messages import Have

#: A peer is shown so many pieces ahead of what it has passed on, and more where they are small: enough to
#: fetch one while another one is on its way through the swarm.
AHEAD = 2
AHEAD_BYTES = 1 << 19
AHEAD_MOST = 32

#: A peer that has passed nothing on for this long is shown another piece all the same. Not all could: others
#: may have everything it has, or be choked by it.
PATIENCE_S = 10.0

#: So many pieces are shown at a time when it ends; where there are more, the peers have to come anew.
SHOWN_AT_END_MOST = 10_000


class SuperSeeding:
    """Who was shown what, in one torrent."""

    __slots__ = ("_ahead", "_offered", "_swarm")

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._ahead = max(AHEAD, min(AHEAD_MOST, AHEAD_BYTES // max(1, swarm.geometry.piece_length)))
        self._offered: dict[int, dict[int, Peer]] = {}  # by piece: to whom (`Peer.offered`)

    @property
    def active(self) -> bool:
        """We have everything, and the operator wants it."""
        return self._swarm.choices.super_seed and self._swarm.complete

    def hide(self, peer: Peer) -> None:
        """A new peer, before our first words. One that cannot do with single pieces is told everything."""
        peer.offered_at = peer.joined_at
        if self.active and not peer.whole_pieces and not peer.web_seed:
            peer.shown = blank(self._swarm.geometry.piece_count)

    def show(self, peer: Peer, now: float) -> None:
        """Show the peer as much as it may see now."""
        swarm, shown = self._swarm, peer.shown
        if shown is None or peer.wants_nothing or not self.active:
            return
        if len(peer.offered) >= self._ahead:
            return  # it has enough in hand
        lacking = ~shown if peer.have is None else ~(shown | peer.have.bits)
        if not lacking.any():
            return
        fresh = lacking & swarm.availability.unowned()
        for other in swarm.unchoked.values():
            for piece in other.offered:
                fresh[piece] = 0
        while len(peer.offered) < self._ahead and fresh.any():
            piece = draw(fresh, swarm.chance)
            fresh[piece] = 0
            self._offer(peer, shown, piece, now)
        if not peer.offered and now - peer.offered_at >= PATIENCE_S:
            self._offer(peer, shown, draw(swarm.availability.rarest(lacking), swarm.chance), now)

    def _offer(self, peer: Peer, shown: bitarray, piece: int, now: float) -> None:
        shown[piece] = 1
        peer.offered[piece] = None
        self._offered.setdefault(piece, {})[peer.number] = peer
        peer.offered_at = now
        self._swarm.tell(peer, Have(piece))

    def has_now(self, peer: Peer, piece: int, now: float) -> None:
        """The peer has this piece: whoever passed it on has earned another one."""
        if not self.active:
            return
        if piece in peer.offered:
            peer.offered[piece] = now
        if not self._is_passed_on(piece):
            return
        for other in list(self._offered.get(piece, {}).values()):
            if other.offered[piece] is not None:
                self._settle(other, piece)
                self.show(other, now)

    def _settle(self, peer: Peer, piece: int) -> None:
        """What becomes of this piece is not watched any more."""
        del peer.offered[piece]
        crowd = self._offered[piece]
        del crowd[peer.number]
        if not crowd:
            del self._offered[piece]

    def left(self, peer: Peer) -> None:
        """The peer is gone."""
        for piece in list(peer.offered):
            self._settle(peer, piece)

    def _is_passed_on(self, piece: int) -> bool:
        """Two have it, or there is nobody whom it could be passed on to."""
        swarm = self._swarm
        if swarm.availability[piece] >= 2:
            return True
        takers = (peer for peer in swarm.peers.values() if not peer.wants_nothing and not peer.web_seed)
        return len(list(islice(takers, 2))) < 2

    def tick(self, now: float) -> None:
        """Once a second: whose patience was long enough."""
        if not self.active:
            return
        for peer in self._swarm.peers.values():
            if peer.shown is None:
                continue
            for piece, since in list(peer.offered.items()):
                if since is not None and now - since >= PATIENCE_S:
                    self._settle(peer, piece)
            self.show(peer, now)

    def changed(self) -> None:
        """The operator may have begun it, or ended it."""
        swarm = self._swarm
        if not swarm.complete:
            return
        for peer in swarm.peers.values():
            if peer.is_seed or peer.web_seed or peer.whole_pieces:
                continue
            if self.active and peer.shown is None:
                swarm.condemn(peer, "super-seeding begins: it has to come anew")
            elif not self.active and peer.shown is not None:
                self._show_all(peer, peer.shown)

    def _show_all(self, peer: Peer, shown: bitarray) -> None:
        hidden = ~shown if peer.have is None else ~(shown | peer.have.bits)
        peer.shown = None
        self.left(peer)
        if hidden.count() > SHOWN_AT_END_MOST:
            self._swarm.condemn(peer, "super-seeding is over: it has to come anew")
        else:
            self._swarm.tell(peer, *(Have(piece) for piece in hidden.search(1)))

    def check(self) -> None:
        """What is offered is shown, and nothing is asked for that is not."""
        offered: dict[int, dict[int, Peer]] = {}
        for peer in self._swarm.peers.values():
            for piece in peer.offered:
                offered.setdefault(piece, {})[peer.number] = peer
        assert self._offered == offered, "who was offered what"
        for peer in self._swarm.peers.values():
            if peer.shown is None:
                assert not peer.offered, "offers to a peer that knows everything"
                continue
            assert all(peer.shown[piece] for piece in peer.offered), "offered and not shown"
            assert all(peer.shown[piece] for piece, _, _ in peer.queue), "served and not shown"
