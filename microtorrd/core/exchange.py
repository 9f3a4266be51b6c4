"""Peer exchange (BEP 11): telling peers with whom else we are connected, and hearing the same from them.

Rules:
- of a private torrent (BEP 27), and while the setting says no, nothing is told and nothing is heard;
- only peers that are connected are told of, at the address where they listen; to each peer not more often
  than once in `EVERY_S`, and at most `MOST` that came and `MOST` that went. What does not fit comes with the
  next message; who was told of is taken back when it is gone;
- addresses of one's own network stay in it: they are told to those who are in it, too, and believed from
  those alone;
- what is heard is bounded: in how often (`allowance`), how much at a time, and how many ports of one host,
  because whoever is named gets dialed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from heapq import nsmallest

from microtorrd.core.events import Address
from microtorrd.core.peer import Peer
from microtorrd.core.peerbook import Peerbook
from microtorrd.core.swarm import Swarm
from microtorrd.proto import pex
from microtorrd.proto.compact import is_near, read_host
from microtorrd.proto.messages import Extended
from microtorrd.rate import Allowance

#: Time between two messages to one peer, and how long a new one is left alone with its first bitfields.
EVERY_S = 60.0
FIRST_S = 1.0

#: When there was nothing new for a peer, look again after this time.
LOOK_S = 3.0

#: So many are looked after in one tick, the longest due first. Who came together is due together, and to
#: tell two thousand of each other at once held up everybody for a quarter of a second.
AT_ONCE = 32

#: Of each kind in a message (BEP 11), and addresses that one peer is told of at a time.
MOST = 50
TOLD_MAX = 250

#: Addresses taken of one message. Of one host several may be right (clients behind one address), but who
#: fills a list with the ports of one host wants it to be knocked at.
TAKEN_MAX = 100
PORTS_OF_A_HOST = 4

#: Messages that may come at once, and the time in which one more may come. One a minute is allowed (BEP 11);
#: libtorrent bears six.
BURST = 4
ALLOW_EVERY_S = 30.0

#: What a message beyond that weighs as noise (`Swarm.hear_noise`).
FLOOD_NOISE = 512


def allowance(now: float) -> Allowance:
    """How many messages a new peer may send."""
    return Allowance(BURST, 1 / ALLOW_EVERY_S, now)


class Partner:
    """A peer that exchanges with us."""

    __slots__ = ("allowance", "due_at", "number", "told")

    def __init__(self, number: int, now: float) -> None:
        self.number = number  # of its messages
        self.told: dict[Address, None] = {}
        self.due_at = now + FIRST_S
        self.allowance = allowance(now)


class Exchange:
    """The peer exchange of one torrent."""

    __slots__ = ("_book", "_partners", "_private", "_swarm")

    def __init__(self, swarm: Swarm, book: Peerbook, *, private: bool) -> None:
        self._swarm = swarm
        self._book = book
        self._private = private
        self._partners: dict[int, Partner] = {}

    @property
    def on(self) -> bool:
        """Whether addresses are exchanged at all."""
        return not self._private and self._swarm.settings.peer_exchange

    def agreed(self, peer: Peer, number: int | None, now: float) -> None:
        """The peer says what number its messages have; 0: it wants none, None: it says nothing of it.

        That is remembered while the setting says no, too: it may say yes again.
        """
        partner = self._partners.get(peer.number)
        if number and not self._private:
            if partner is None:
                self._partners[peer.number] = Partner(number, now)
            else:
                partner.number = number
        elif number == 0:
            self._partners.pop(peer.number, None)

    def left(self, peer: Peer) -> None:
        """The peer is gone."""
        self._partners.pop(peer.number, None)

    # ------------------------------------------------------------------------------------- hearing

    def hear(self, peer: Peer, payload: bytes, now: float) -> None:
        """A message. ProtocolError where it is none, and for a flood of them."""
        partner = self._partners.get(peer.number)
        if partner is None or not partner.allowance.take(now):
            self._swarm.hear_noise(peer, FLOOD_NOISE)
            return
        added = pex.PexMessage.decode(payload).added
        credible = credible_from(peer.host, added)
        seeds = {address for address in credible if added[address] & pex.SEED}
        self._book.found(credible, "pex", now, seeds=seeds)

    # ------------------------------------------------------------------------------------- telling

    def tick(self, now: float) -> None:
        """Once a second: tell those whose time has come."""
        partners = self._partners
        due = [number for number, partner in partners.items() if partner.due_at <= now]
        if not due or not self.on:
            return
        present = dict(self._present())
        for number in nsmallest(AT_ONCE, due, key=lambda number: partners[number].due_at):
            peer, partner = self._swarm.peers[number], partners[number]
            message = self._news(peer, partner, present)
            if message is None:
                partner.due_at = now + LOOK_S
                continue
            partner.due_at = now + EVERY_S
            self._swarm.tell(peer, Extended(partner.number, message.encode()))

    def _present(self) -> Iterator[tuple[Address, int]]:
        """Where the connected peers listen, and what is to be said of each."""
        for peer in self._swarm.peers.values():
            if peer.address is None or peer.web_seed or peer.whole_pieces:
                continue  # not reachable, or not in this protocol
            flags = pex.SEED if peer.is_seed or peer.upload_only else 0
            yield peer.address, flags if peer.incoming else flags | pex.REACHABLE

    def _news(self, peer: Peer, partner: Partner, present: Mapping[Address, int]) -> pex.PexMessage | None:
        told, near = partner.told, is_near(peer.host)
        dropped = [address for address in told if address not in present][:MOST]
        added: dict[Address, int] = {}
        room = min(MOST, TOLD_MAX - len(told))
        for address, flags in present.items():
            if len(added) >= room:
                break
            if address in told or address == peer.address or (not near and is_near(address[0])):
                continue
            if read_host(address[0]) is None:
                continue  # means something on this machine only
            added[address] = flags
        if not added and not dropped:
            return None
        for address in dropped:
            del told[address]
        told.update(dict.fromkeys(added))
        return pex.PexMessage(added, tuple(dropped))


def credible_from(host: str, added: Mapping[Address, int]) -> list[Address]:
    """Those addresses of a message of this host that may be tried."""
    near, ports = is_near(host), Counter[str]()
    credible: list[Address] = []
    for address in added:
        if len(credible) >= TAKEN_MAX:
            break
        if not near and is_near(address[0]):
            continue
        ports[address[0]] += 1
        if ports[address[0]] <= PORTS_OF_A_HOST:
            credible.append(address)
    return credible
