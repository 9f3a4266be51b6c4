"""What the rooms of one torrent's core share: the facts of the torrent, its peers, the orders, the totals.

It decides nothing. Rules: `orders` is replaced by the host between facts, so nobody keeps a reference to the
list itself; a peer that is to go is condemned here and dropped by the core when the fact is handled, so that
no loop over peers is cut from under its feet.
"""

from __future__ import annotations

import random
from array import array

from microtorrd.core.attendance import Attendance
from microtorrd.core.events import Order, Tell
from microtorrd.core.peer import Peer
from microtorrd.core.picker import Availability
from microtorrd.core.settings import SwarmSettings, TorrentSettings
from microtorrd.core.wishes import Wishes
from microtorrd.errors import ProtocolError
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.messages import Message
from microtorrd.rate import RateMeter

#: Messages that change nothing, of one peer: each second forgets half of them, and more than this many at a
#: time are a flood. Well above what honest races make: a full pipeline that crossed with our choke.
NOISE_MAX = 8192


class Swarm:
    """The common ground of `core/`."""

    __slots__ = (
        "_full",
        "attendance",
        "audience",
        "availability",
        "batch",
        "began_at",
        "chance",
        "choices",
        "condemned",
        "corrupt_pieces",
        "down",
        "gained",
        "geometry",
        "have",
        "orders",
        "peers",
        "settings",
        "unchoked",
        "up",
        "wasted_bytes",
        "wishes",
    )

    def __init__(
        self,
        geometry: Geometry,
        have: Bitfield,
        *,
        settings: SwarmSettings,
        choices: TorrentSettings,
        chance: random.Random,
        priorities: bytes | None = None,
    ) -> None:
        self.geometry = geometry
        self.wishes = Wishes(geometry, priorities)
        self.have = have
        self.gained = array("I")  # the pieces that came, in their order
        self.settings = settings
        self.choices = choices
        self.chance = chance
        self.orders: list[Order] = []
        self.batch = 0  # how many times the host has fetched the orders
        self.audience = 0  # how often those changed who are told of new pieces
        self.attendance = Attendance()
        self.peers = self.attendance.peers  # who comes and goes is told to the attendance
        self.unchoked: dict[int, Peer] = {}  # by us
        self.condemned: list[tuple[Peer, bool]] = []  # and whether it was its fault
        self.began_at: float | None = None  # when the first block was asked for
        self.availability = Availability(geometry.piece_count)
        self.down = RateMeter()
        self.up = RateMeter()
        self.wasted_bytes = 0
        self.corrupt_pieces = 0
        self._full: Bitfield | None = None

    @property
    def full(self) -> Bitfield:
        """The bitfield that all peers with everything share."""
        if self._full is None:
            self._full = Bitfield.full(self.geometry.piece_count)
        return self._full

    @property
    def complete(self) -> bool:
        """We have everything."""
        return self.have.complete

    @property
    def satisfied(self) -> bool:
        """We have all that we want: where files were chosen what is in them (BEP 21: a partial seed)."""
        return self.have.complete or self.wishes.are_met(self.have.bits)

    @property
    def peer_count(self) -> int:
        """Connections that count against the limits: all but those of web seeds, which have their own."""
        return self.attendance.count

    @property
    def seeder_count(self) -> int:
        """Connected peers that have everything; a web seed is one, however many connections it has."""
        web_seeds = [peer.web_seed for peer in self.attendance.web_seeds.values() if peer.is_seed]
        return self.availability.seeds - len(web_seeds) + len(set(web_seeds))

    @property
    def leecher_count(self) -> int:
        """Connected peers that lack something, as far as they have said what they have."""
        return self.attendance.known - self.availability.seeds

    def tell(self, peer: Peer, *messages: Message) -> None:
        """Order messages to be sent."""
        self.orders.append(Tell(peer.number, messages))

    def condemn(self, peer: Peer, reason: str, *, fault: bool = False) -> None:
        """Have the peer dropped at the end of this fact."""
        if peer.condemned is None:
            peer.condemned = reason
            self.condemned.append((peer, fault))

    def hear_noise(self, peer: Peer, count: int = 1) -> None:
        """The peer sent what changes nothing. ProtocolError when it is a flood."""
        peer.noise += count
        if peer.noise > NOISE_MAX:
            raise ProtocolError("a flood of messages that change nothing")
