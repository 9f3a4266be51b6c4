"""Who is connected, and how to find them: by number, by peer id, by where they listen, by host.

Owns the table of peers and its indexes. Everybody may read `peers`; who adds to it, takes from it, or says
where a peer listens does so here. To ask costs the same whether two peers are here or two thousand.

Rule: connections of web seeds are in the table and in no index: their peer ids are ours, their hosts serve
many, and they have a limit of their own. Of others no two have the same peer id (`comings.py` sees to it).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from ipaddress import IPv6Address

from microtorrd.core.events import Address
from microtorrd.core.peer import Peer


class Attendance:
    """The connected peers of one torrent."""

    __slots__ = ("_by_host", "_by_id", "_crowds", "_known", "_places", "peers", "web_seeds")

    def __init__(self) -> None:
        self.peers: dict[int, Peer] = {}  # by number, in the order of their coming
        self.web_seeds: dict[int, Peer] = {}  # of these
        self._known = 0
        self._by_id: dict[bytes, Peer] = {}
        self._places: Counter[Address] = Counter()  # where they listen, and how many connections say so
        self._by_host: dict[str, dict[int, Peer]] = {}  # by `whereabouts`
        # By how many connections they have: the hosts. The last entry is never empty.
        self._crowds: list[dict[str, None]] = []

    def add(self, peer: Peer) -> None:
        """The peer is here."""
        self.peers[peer.number] = peer
        self._known += peer.known
        if peer.address is not None:
            self._places[peer.address] += 1
        if peer.web_seed:
            self.web_seeds[peer.number] = peer
            return
        assert peer.peer_id not in self._by_id, "the same peer twice"
        self._by_id[peer.peer_id] = peer
        host = whereabouts(peer.host)
        crowd = self._by_host.setdefault(host, {})
        crowd[peer.number] = peer
        self._recount(host, len(crowd) - 1, len(crowd))

    def remove(self, peer: Peer) -> None:
        """The peer is here no more."""
        del self.peers[peer.number]
        self._known -= peer.known
        if peer.address is not None:
            self._leave_place(peer.address)
        if peer.web_seed:
            del self.web_seeds[peer.number]
            return
        del self._by_id[peer.peer_id]
        host = whereabouts(peer.host)
        crowd = self._by_host[host]
        del crowd[peer.number]
        self._recount(host, len(crowd) + 1, len(crowd))
        if not crowd:
            del self._by_host[host]

    def listens(self, peer: Peer, address: Address | None) -> None:
        """Now we know where a peer that is here listens; None: that is said of another connection."""
        if peer.address is not None:
            self._leave_place(peer.address)
        if address is not None:
            self._places[address] += 1
        peer.address = address

    def has_spoken(self, peer: Peer) -> None:
        """A peer that is here has said what it has, or anything else that must come after that."""
        if not peer.known:
            peer.known = True
            self._known += 1

    # ---------------------------------------------------------------------------------------- asking

    @property
    def count(self) -> int:
        """Connections that count against the limits: all but those of web seeds, which have their own."""
        return len(self.peers) - len(self.web_seeds)

    @property
    def known(self) -> int:
        """Those of whom we know what they have."""
        return self._known

    def twin(self, peer_id: bytes) -> Peer | None:
        """The connection with the peer that calls itself so."""
        return self._by_id.get(peer_id)

    def is_connected(self, address: Address) -> bool:
        """Whether somebody who listens there is here."""
        return address in self._places

    def of_host(self, host: str) -> int:
        """How many connections this host has."""
        return len(self._by_host.get(whereabouts(host), ()))

    def largest_crowd(self) -> Collection[Peer]:
        """The connections of the host that has the most of them."""
        return self._by_host[next(iter(self._crowds[-1]))].values() if self._crowds else ()

    # ---------------------------------------------------------------------------------------- within

    def _leave_place(self, address: Address) -> None:
        self._places[address] -= 1
        if not self._places[address]:
            del self._places[address]

    def _recount(self, host: str, before: int, now: int) -> None:
        """The host has so many connections where it had so many."""
        crowds = self._crowds
        if before:
            del crowds[before - 1][host]
        if now > len(crowds):
            crowds.append({})
        if now:
            crowds[now - 1][host] = None
        while crowds and not crowds[-1]:
            crowds.pop()

    def check(self) -> None:
        """Recount everything from the table."""
        peers = [peer for peer in self.peers.values() if not peer.web_seed]
        assert self.web_seeds == {n: peer for n, peer in self.peers.items() if peer.web_seed}, "web seeds"
        assert len(peers) == self.count
        assert self._known == sum(peer.known for peer in self.peers.values()), "of whom it is known"
        assert self._by_id == {peer.peer_id: peer for peer in peers}, "by peer id"
        assert len(self._by_id) == len(peers), "the same peer twice"
        places = Counter(peer.address for peer in self.peers.values() if peer.address is not None)
        assert self._places == places and all(self._places.values()), "by address"
        hosts: dict[str, dict[int, Peer]] = {}
        for peer in peers:
            hosts.setdefault(whereabouts(peer.host), {})[peer.number] = peer
        assert self._by_host == hosts, "by host"
        most = max(map(len, hosts.values()), default=0)
        crowds = [{host for host, crowd in hosts.items() if len(crowd) == n} for n in range(1, most + 1)]
        assert [set(crowd) for crowd in self._crowds] == crowds, "hosts by their connections"


def whereabouts(host: str) -> str:
    """Whose connections are counted together: a host's; of IPv6 all of a /64, as a host has one to itself."""
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(address.ipv4_mapped or address.packed[:8].hex())
