"""From a magnet link to its metadata: facts in, orders out, as `core.py` does for a torrent that is known.

Peers are sought by the id that the link names; each that has the metadata (BEP 9) is asked for it. What is
whole is given to the host to `Judge`, because hashing and parsing take longer than a core may. Facts and
orders are those of `events.py`, and the two below.

Rules:
- `handle` never waits, is not re-entered, and `orders` is the only way out;
- whoever brought a wrong metadata alone, changes what it says of its size, or breaks the protocol is dropped
  and its address barred; a host from which that came `LIES_MAX` times is not talked to any more;
- what may be held is bounded (`HELD_MAX_BYTES`): of the sizes that peers claim the largest goes first.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from microtorrd.core import events
from microtorrd.core.events import Address, Announce, Dial, Drop, Fact, Order, Tell
from microtorrd.core.exchange import credible_from
from microtorrd.core.metadata import Assembly
from microtorrd.core.ourselves import OwnAddresses
from microtorrd.core.peerbook import Peerbook
from microtorrd.core.ranking import Ranking
from microtorrd.core.settings import SwarmSettings
from microtorrd.core.stranger import Stranger
from microtorrd.errors import ProtocolError
from microtorrd.proto import metadata, pex
from microtorrd.proto.compact import read_host
from microtorrd.proto.extended import MAX_METADATA_BYTES, ExtendedHandshake
from microtorrd.proto.messages import Extended, HaveNone, Message
from microtorrd.proto.metadata import MetadataData, MetadataReject, MetadataRequest

#: Peers to talk to at a time: the metadata is small, and one honest peer is enough.
PEERS_MAX = 30

#: All that peers say they have, of the sizes that are being fetched.
HELD_MAX_BYTES = 2 * MAX_METADATA_BYTES

#: A peer that has no metadata to give may be about to get it; after this time it makes room.
USELESS_S = 60.0

#: Silence, and messages that are nothing to us: each second forgets half of them.
IDLE_S = 240.0
NOISE_MAX = 8192

LIES_MAX = 3


class Judge(NamedTuple):
    """Check this metadata against the id of the link; answered by `Judged`."""

    size: int
    raw: bytes


class Judged(NamedTuple):
    """The metadata of this size is not what the link names. (What is right ends the resolving.)"""

    size: int
    problem: str


class Resolution:
    """The search for the metadata of one magnet link.

    `info_hash` is None where the link names the content only (`urn:mtid:`): then many metainfos may be meant,
    so pieces of several peers are never put together.
    """

    def __init__(
        self,
        *,
        info_hash: bytes | None,
        settings: SwarmSettings,
        chance: random.Random,
        client: str,
        listen_port: int,
        peer_id: bytes,
        ourselves: OwnAddresses | None = None,
    ) -> None:
        self._ourselves = OwnAddresses() if ourselves is None else ourselves
        self.orders: list[Order | Judge] = []
        self.settings = settings
        self.running = False
        self.parting = "the torrent is stopped"  # why peers are dropped when it stops
        self.peers: dict[int, Stranger] = {}
        self.assemblies: dict[int, Assembly] = {}  # by size
        self.book = Peerbook(chance, Ranking(self._ourselves, listen_port))
        self._info_hash = info_hash
        self._client = client
        self._listen_port = listen_port
        self._peer_id = peer_id
        self._lies: Counter[str] = Counter()  # by host
        self._busy = False
        self._handlers: dict[type[Any], Callable[[Any, float], None]] = {
            events.Started: self._on_started,
            events.Stopped: self._on_stopped,
            events.Ticked: self._on_ticked,
            events.PeerJoined: self._on_peer_joined,
            events.PeerLeft: self._on_peer_left,
            events.MessagesReceived: self._on_messages_received,
            events.AddressesFound: self._on_addresses_found,
            events.DialFailed: self._on_dial_failed,
            events.SettingsChanged: self._on_settings_changed,
            Judged: self._on_judged,
        }

    @property
    def progress(self) -> float:
        """How much of the metadata is here, 0 to 1, as far as anybody can tell."""
        return max((assembly.progress for assembly in self.assemblies.values()), default=0.0)

    def addresses(self, *, private: bool = False) -> list[Address]:
        """Where the peers are that the torrent can go on with, those connected now first. Of one that turned
        out to be private, those that a tracker or the link named (BEP 27)."""
        connected = [peer.address for peer in self.peers.values() if peer.address is not None]
        addresses = dict.fromkeys([*connected, *self.book.promising()])
        if private:
            return [address for address in addresses if self.book.source(address) in {"tracker", "operator"}]
        return list(addresses)

    def handle(self, fact: Fact | Judged, now: float) -> None:
        """Take in one fact; what follows is appended to `orders`. Facts about content are nothing to us."""
        assert not self._busy, "Resolution.handle was entered again"
        handler = self._handlers.get(type(fact))
        if handler is None:
            return
        self._busy = True
        try:
            handler(fact, now)
            self._ask(now)
        finally:
            self._busy = False

    # ----------------------------------------------------------------------------------- to and fro

    def _on_started(self, _: events.Started, now: float) -> None:
        if not self.running:
            self.running = True
            self.orders.append(Announce("started"))
            self._dial(now)

    def _on_stopped(self, _: events.Stopped, now: float) -> None:
        if self.running:
            self.running = False
            for peer in list(self.peers.values()):
                self._drop(peer, self.parting, now)
            self.assemblies.clear()
            self.orders.append(Announce("stopped"))

    def _on_ticked(self, _: events.Ticked, now: float) -> None:
        if not self.running:
            return
        for assembly in list(self.assemblies.values()):
            for number in assembly.look_after(now):
                if number in self.peers:
                    self._drop(self.peers[number], "it does not hand over the metadata it says it has", now)
        for peer in list(self.peers.values()):
            peer.noise >>= 1
            if now - peer.heard_at > IDLE_S:
                self._drop(peer, "silent for too long", now)
            elif peer.size is None and now - peer.joined_at > USELESS_S:
                self._drop(peer, "it has no metadata", now)
        self.book.look_after(now)
        self._dial(now)

    def _on_settings_changed(self, fact: events.SettingsChanged, now: float) -> None:
        if fact.swarm is not None:
            self.settings = fact.swarm

    def _on_addresses_found(self, fact: events.AddressesFound, now: float) -> None:
        self.book.found(fact.addresses, fact.source, now)
        self._dial(now)

    def _on_dial_failed(self, fact: events.DialFailed, now: float) -> None:
        self.book.failed(fact.address, now, ourselves=fact.ourselves)
        self._dial(now)

    def _dial(self, now: float) -> None:
        if self.running and not self.book.quiet:
            room = min(self.settings.dials_at_once, PEERS_MAX - len(self.peers)) - self.book.dialing
            self.orders += [Dial(address) for address in self.book.due(room, now)]

    # ------------------------------------------------------------------------------ coming and going

    def _on_peer_joined(self, fact: events.PeerJoined, now: float) -> None:
        if fact.address is not None:
            self.book.joined(fact.address, now)
        peer = Stranger(fact, now)
        reason = self._objection(peer)
        if reason is not None:
            self.orders.append(Drop(fact.peer, reason))
            if fact.address is not None and not self._connected(fact.address):
                self.book.left(fact.address, now, is_seed=False, fault=False)
            return
        self.peers[peer.peer] = peer
        self._greet(peer)

    def _objection(self, peer: Stranger) -> str | None:
        if not self.running:
            return "the torrent is stopped"
        if peer.peer_id == self._peer_id:
            if peer.address is not None:
                self.book.bar(peer.address)
            return "it is ourselves"
        if self._lies[peer.host] >= LIES_MAX:
            return "too many lies came from this host"
        if not peer.extended:
            return "it does not speak the extension protocol, so it gives no metadata"
        if any(other.peer_id == peer.peer_id for other in self.peers.values()):
            return "the same peer is connected already"
        if len(self.peers) >= PEERS_MAX:
            return "there are enough peers to get the metadata from"
        return None

    def _greet(self, peer: Stranger) -> None:
        extensions = {metadata.NAME: metadata.NUMBER}
        if self.settings.peer_exchange:
            extensions[pex.NAME] = pex.NUMBER
        introduction = ExtendedHandshake(
            m=extensions,
            client=self._client,
            listen_port=self._listen_port or None,
            yourip=read_host(peer.host.partition("%")[0]),
            info_hash=self._info_hash,
        )
        words: list[Message] = [Extended(0, introduction.encode())]
        if peer.fast:
            words.append(HaveNone())  # BEP 6: something must be said of what we have
        self.orders.append(Tell(peer.peer, words))

    def _on_peer_left(self, fact: events.PeerLeft, now: float) -> None:
        peer = self.peers.get(fact.peer)
        if peer is not None:
            self._gone(peer, now, fault=fact.fault)
            self._dial(now)

    def _drop(self, peer: Stranger, reason: str, now: float, *, lied: bool = False) -> None:
        """Close the connection, and go on as if it were closed already."""
        self.orders.append(Drop(peer.peer, reason))
        if lied:
            self._lies[peer.host] += 1
            if peer.address is not None:
                self.book.bar(peer.address)
        self._gone(peer, now, fault=lied)

    def _gone(self, peer: Stranger, now: float, *, fault: bool) -> None:
        del self.peers[peer.peer]
        self._forget_size(peer)
        if peer.address is not None and not self._connected(peer.address):
            self.book.left(peer.address, now, is_seed=False, fault=fault)

    def _connected(self, address: Address) -> bool:
        return any(peer.address == address for peer in self.peers.values())

    # ---------------------------------------------------------------------------------- what they say

    def _on_messages_received(self, fact: events.MessagesReceived, now: float) -> None:
        peer = self.peers.get(fact.peer)
        if peer is None:
            return
        peer.heard_at = now
        try:
            for message in fact.messages:
                peer.noise += 1
                if peer.noise > NOISE_MAX:
                    raise ProtocolError("a flood of messages")
                if isinstance(message, Extended) and not self._hear(peer, message, now):
                    return
        except ProtocolError as error:
            self._drop(peer, str(error), now, lied=True)

    def _hear(self, peer: Stranger, message: Extended, now: float) -> bool:
        """One extended message. False: the peer was dropped."""
        if message.number == 0:
            return self._on_handshake(peer, ExtendedHandshake.decode(message.payload), now)
        if message.number == pex.NUMBER and self.settings.peer_exchange and peer.allowance.take(now):
            added = pex.PexMessage.decode(message.payload).added
            self.book.found(credible_from(peer.host, added), "pex", now)
            self._dial(now)
        if message.number != metadata.NUMBER or not peer.has_spoken:
            return True
        said = metadata.decode_metadata(message.payload)
        if isinstance(said, MetadataRequest):
            self._tell(peer, MetadataReject(said.piece))
        elif isinstance(said, MetadataReject) and peer.size is not None:
            self.assemblies[peer.size].rejected(peer.peer, said.piece, now)
        elif isinstance(said, MetadataData) and peer.size is not None:
            peer.noise = 0
            self._on_data(peer, peer.size, said)
        return True

    def _on_handshake(self, peer: Stranger, words: ExtendedHandshake, now: float) -> bool:
        if None not in (words.info_hash, self._info_hash) and words.info_hash != self._info_hash:
            self._drop(peer, "it has the same content in another metainfo (info_hash differs)", now)
            return False
        peer.has_spoken = True
        peer.client = words.client or peer.client
        if words.yourip is not None:
            self._ourselves.heard(peer.host, words.yourip)
        peer.number = words.m.get(metadata.NAME, peer.number)  # a later handshake tells what has changed
        if words.listen_port and peer.address is None and peer.host:
            address = (peer.host, words.listen_port)
            if self.book.state(address) != "barred":
                peer.address = address
                self.book.joined(address, now)
        size = words.metadata_size
        if not peer.number:
            self._forget_size(peer)
            return True
        if size is None or size == peer.size:
            return True
        if peer.size is not None:
            raise ProtocolError(f"metadata of {size} bytes, where it said {peer.size} before")
        if not self._make_room(size, now):
            self._drop(peer, f"metadata of {size} bytes, while enough is being fetched", now)
            return False
        peer.size = size
        assembly = self.assemblies.setdefault(size, Assembly(size, alone=self._info_hash is None))
        assembly.add(peer.peer)
        return True

    def _on_data(self, peer: Stranger, size: int, said: MetadataData) -> None:
        if said.total_bytes not in (None, size):
            raise ProtocolError(f"metadata of {said.total_bytes} bytes, where it said {size} before")
        assembly = self.assemblies[size]
        if assembly.received(peer.peer, said.piece, said.raw):
            self.orders.append(Judge(size, assembly.whole()))

    def _on_judged(self, fact: Judged, now: float) -> None:
        assembly = self.assemblies.get(fact.size)
        if assembly is None or not assembly.judging:
            return
        givers = assembly.givers
        assembly.spoiled()
        if len(givers) == 1:
            culprit = self.peers.get(next(iter(givers)))
            if culprit is not None:
                self._drop(culprit, f"its metadata is wrong: {fact.problem}", now, lied=True)
        if not assembly.sources:
            self.assemblies.pop(fact.size, None)

    # ------------------------------------------------------------------------------------ assemblies

    def _ask(self, now: float) -> None:
        for assembly in self.assemblies.values():
            for number, piece in assembly.wants(now):
                self._tell(self.peers[number], MetadataRequest(piece))

    def _tell(self, peer: Stranger, message: metadata.MetadataMessage) -> None:
        if peer.number:
            words = Extended(peer.number, metadata.encode_metadata(message))
            self.orders.append(Tell(peer.peer, [words]))

    def _make_room(self, size: int, now: float) -> bool:
        """Room for metadata of this size; larger ones make way."""
        if size in self.assemblies:
            return True
        while sum(self.assemblies) + size > HELD_MAX_BYTES:
            largest = max(self.assemblies)
            if largest <= size:
                return False
            for number in list(self.assemblies[largest].sources):
                self._drop(self.peers[number], f"metadata of {largest} bytes makes way for less", now)
            self.assemblies.pop(largest, None)
        return True

    def _forget_size(self, peer: Stranger) -> None:
        assembly = None if peer.size is None else self.assemblies.get(peer.size)
        peer.size = None
        if assembly is None:
            return
        assembly.remove(peer.peer)
        if not assembly.sources and not assembly.judging:
            del self.assemblies[assembly.size]
