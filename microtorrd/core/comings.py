"""Who comes and who goes: admission, dialing, partings.

Rules:
- of two connections with the same peer both sides keep the same one: the one that the greater peer id opened;
  of two in the same direction the newer one, which replaces a dead one. A newcomer from another host does
  not push out a connection that has stood for a while: peer ids are no secret, and could be borrowed;
- no host can keep others out: where all places are taken, the host with the most connections gives one up
  for a newcomer whose host has fewer; where no host has more than one, whoever is last by canonical priority
  (BEP 40) makes way for who comes before it, unless it is giving us something;
- two peers that both want nothing part, after a grace in which the last haves travel;
- whoever is silent for too long goes.
"""

from __future__ import annotations

from microtorrd.core.conversation import Conversation
from microtorrd.core.culprits import Culprits
from microtorrd.core.events import Dial, DialFailed, Drop, Emit, PeerJoined
from microtorrd.core.exchange import Exchange
from microtorrd.core.fetching import Fetching
from microtorrd.core.peer import Peer
from microtorrd.core.peerbook import Peerbook
from microtorrd.core.ranking import Ranking, Ranks
from microtorrd.core.superseeding import SuperSeeding
from microtorrd.core.swarm import Swarm
from microtorrd.core.uploading import Uploading
from microtorrd.core.verdicts import Verdicts, identity
from microtorrd.proto.geometry import BLOCK_BYTES

#: A connection younger than this may be one of two that were opened toward each other.
CROSSING_S = 10.0

#: How long two peers that have everything stay connected.
SEEDS_GRACE_S = 2.0

#: So many connections of one host are enough to dial others although all places are taken.
CROWD = 8


class Comings:
    """The door of one torrent."""

    __slots__ = (
        "_book",
        "_conversation",
        "_culprits",
        "_exchange",
        "_fetching",
        "_peer_id",
        "_ranks",
        "_superseeding",
        "_swarm",
        "_uploading",
        "_verdicts",
    )

    def __init__(
        self,
        swarm: Swarm,
        *,
        fetching: Fetching,
        uploading: Uploading,
        superseeding: SuperSeeding,
        verdicts: Verdicts,
        conversation: Conversation,
        culprits: Culprits,
        book: Peerbook,
        exchange: Exchange,
        ranking: Ranking,
        peer_id: bytes,
    ) -> None:
        self._swarm = swarm
        self._fetching = fetching
        self._uploading = uploading
        self._superseeding = superseeding
        self._verdicts = verdicts
        self._conversation = conversation
        self._culprits = culprits
        self._book = book
        self._exchange = exchange
        self._ranks = Ranks(ranking, swarm.attendance)
        self._peer_id = peer_id  # b"": not known, then of two connections the older one is kept

    # ------------------------------------------------------------------------------------- coming

    def join(self, fact: PeerJoined, now: float) -> None:
        """A handshake is done: let the peer in, or drop it with the reason."""
        if fact.address is not None:
            self._book.joined(fact.address, now)
        peer = Peer(fact, pipeline_blocks=self._swarm.settings.pipeline_max_bytes // BLOCK_BYTES, now=now)
        if peer.address is not None:
            peer.source = self._book.source(peer.address) or peer.source
        if (reason := self._objection(peer, now)) is not None:
            self.turn_away(fact, reason, now)
            return
        self._swarm.attendance.add(peer)
        self._ranks.joined(peer)
        self._verdicts.recipients_changed()
        self._conversation.greet(peer, now)
        self._swarm.orders.append(
            Emit(
                "peer_joined",
                {
                    "peer": peer.number,
                    "host": peer.host,
                    "peer_id": peer.peer_id.hex(),
                    "incoming": peer.incoming,
                },
            )
        )

    def turn_away(self, fact: PeerJoined, reason: str, now: float) -> None:
        """Drop a newcomer that was never let in."""
        self._swarm.orders.append(Drop(fact.peer, reason))
        if fact.address is not None and not self._swarm.attendance.is_connected(fact.address):
            self._book.joined(fact.address, now)  # else it would be taken for dialed, and not be dialed again
            self._book.left(fact.address, now, is_seed=False, fault=False)

    def dial_failed(self, fact: DialFailed, now: float) -> None:
        """An address came to nothing, or turned out to be where somebody listens who is here already."""
        twin = self._swarm.attendance.twin(fact.twin) if fact.twin else None
        if twin is not None and twin.address is None:
            self._swarm.attendance.listens(twin, fact.address)
            self._book.joined(fact.address, now)
        else:
            self._book.failed(fact.address, now, ourselves=fact.ourselves)

    def _objection(self, peer: Peer, now: float) -> str | None:
        """Why the newcomer cannot stay. An older connection that has to make way for it is dropped."""
        swarm, book, attendance = self._swarm, self._book, self._swarm.attendance
        if self._peer_id and peer.peer_id == self._peer_id:
            if peer.address is not None:
                book.bar(peer.address)
            return "it is ourselves"
        if self._culprits.is_banned(identity(peer)):
            return "it is banned"
        if peer.address is not None and book.state(peer.address) == "barred":
            return "its address is barred"
        twin = None if peer.web_seed else attendance.twin(peer.peer_id)
        if twin is not None:
            if self._newcomer_stays(twin, peer, now):
                if peer.address is None:  # where it listens is known all the same
                    peer.address = twin.address
                    attendance.listens(twin, None)
                self.drop(twin, "the same peer has a newer connection", now, fault=False)
            else:
                if twin.address is None and peer.address is not None:
                    attendance.listens(twin, peer.address)  # now we know it
                return "the same peer is connected already"
        if not peer.web_seed and attendance.count >= swarm.settings.connections_per_torrent:
            return self._make_room(peer, now)
        return None

    def _make_room(self, peer: Peer, now: float) -> str | None:
        """All places are taken: has anybody to make way for this newcomer? If not, why it cannot stay."""
        attendance = self._swarm.attendance
        crowd = attendance.largest_crowd()
        if len(crowd) > 1 + attendance.of_host(peer.host):
            least = min(crowd, key=lambda other: (other.down.total + other.up.total, other.heard_at))
            self.drop(least, "its host has many connections, and others want a place", now, fault=False)
            return None
        last = self._ranks.last() if len(crowd) == 1 else None
        priority = self._ranks.priority(peer)
        if last is None or priority is None or priority <= last[0]:
            return "this torrent has as many peers as it may have"
        self.drop(last[1], "others come before it by canonical priority", now, fault=False)
        return None

    def _newcomer_stays(self, twin: Peer, peer: Peer, now: float) -> bool:
        if peer.whole_pieces and not (twin.incoming and peer.incoming):
            return False  # the original does not judge alike: it keeps both, and misses the one that goes
        if twin.host != peer.host and now - twin.joined_at > CROSSING_S:
            return False
        if twin.incoming == peer.incoming:
            return twin.host == peer.host
        if not self._peer_id:
            return False
        # Of a connection toward each other the one that the greater id opened; the other side judges alike.
        return peer.incoming == (peer.peer_id > self._peer_id)

    # -------------------------------------------------------------------------------------- going

    def drop(self, peer: Peer, reason: str, now: float, *, fault: bool) -> None:
        """Close the connection, and go on as if it were closed already."""
        self._swarm.orders.append(Drop(peer.number, reason, fault))
        self.gone(peer, reason, now, fault=fault)

    def drop_all(self, reason: str, now: float) -> None:
        """Nobody stays."""
        self._uploading.nobody_wants()  # or those still here would be given the slots of those gone
        for peer in list(self._swarm.peers.values()):
            self.drop(peer, reason, now, fault=False)

    def gone(self, peer: Peer, reason: str, now: float, *, fault: bool) -> None:
        """The connection is closed: forget the peer."""
        swarm = self._swarm
        swarm.attendance.remove(peer)
        self._ranks.left(peer)
        if peer.is_seed:
            swarm.availability.seeds -= 1
        elif peer.have is not None:
            swarm.availability.remove(peer.have.bits)
        self._fetching.left(peer)
        self._uploading.left(peer, now)
        self._superseeding.left(peer)
        self._verdicts.recipients_changed()
        self._exchange.left(peer)
        if peer.address is not None and not swarm.attendance.is_connected(peer.address):
            self._book.left(peer.address, now, is_seed=peer.wants_nothing, fault=fault)
        if peer.elsewhere is not None and not fault and self._exchange.on:
            seeds = (peer.elsewhere,) if peer.wants_nothing else ()
            self._book.found((peer.elsewhere,), "pex", now, seeds=seeds)
        swarm.orders.append(
            Emit(
                "peer_left",
                {
                    "peer": peer.number,
                    "host": peer.host,
                    "peer_id": peer.peer_id.hex(),
                    "reason": reason,
                    "fault": fault,
                },
            )
        )

    def tick(self, now: float) -> None:
        """Once a second: those who have been silent too long, and those who need nothing of each other."""
        swarm = self._swarm
        satisfied, idle_s = swarm.satisfied, swarm.settings.idle_timeout_s
        for peer in swarm.peers.values():
            peer.noise >>= 1
            if now - peer.heard_at > idle_s and not peer.web_seed and not peer.whole_pieces:
                swarm.condemn(peer, "silent for too long")
            elif satisfied and peer.wants_nothing and now - peer.joined_at > SEEDS_GRACE_S:
                swarm.condemn(peer, "both seeding")
        self._exchange.tick(now)
        self._book.look_after(now)
        self.dial(now)

    def dial(self, now: float) -> None:
        """Connect to whom the book has, as far as the limits allow."""
        swarm, book = self._swarm, self._book
        if book.quiet:
            return
        room = min(
            swarm.settings.dials_at_once,
            swarm.settings.connections_per_torrent - swarm.peer_count,
        )
        if room <= 0 and len(swarm.attendance.largest_crowd()) >= CROWD:
            room = 1  # who is dialed takes a place of theirs
        for address in book.due(room - book.dialing, now):
            swarm.orders.append(Dial(address))
