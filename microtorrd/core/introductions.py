"""Who we say that we are, and who the others say that they are: the extended handshake (BEP 10), both ways.

A later handshake tells what has changed: what it leaves out stays as it was. Everything in it is
attacker-controlled; where somebody listens is believed of his own host only, and how he sees us is a vote.
"""

from __future__ import annotations

from msgspec.structs import replace

from microtorrd.core.exchange import Exchange
from microtorrd.core.handout import Handout
from microtorrd.core.ourselves import OwnAddresses
from microtorrd.core.peer import Peer
from microtorrd.core.peerbook import Peerbook
from microtorrd.core.swarm import Swarm
from microtorrd.core.uploading import QUEUE_MAX
from microtorrd.proto import metadata, pex
from microtorrd.proto.compact import host_text, is_near, read_host
from microtorrd.proto.extended import (
    DONT_HAVE,
    DONT_HAVE_NUMBER,
    UPLOAD_ONLY,
    UPLOAD_ONLY_NUMBER,
    ExtendedHandshake,
)
from microtorrd.proto.geometry import BLOCK_BYTES, MAX_REQUEST_BYTES
from microtorrd.proto.messages import Extended


class Introductions:
    """The introductions of one torrent."""

    __slots__ = (
        "_book",
        "_client",
        "_exchange",
        "_handout",
        "_info_hash",
        "_listen_port",
        "_ourselves",
        "_said_we_want",
        "_swarm",
    )

    def __init__(
        self,
        swarm: Swarm,
        *,
        book: Peerbook,
        exchange: Exchange,
        handout: Handout,
        ourselves: OwnAddresses,
        client: str,
        listen_port: int,
        info_hash: bytes,
    ) -> None:
        self._swarm = swarm
        self._book = book
        self._exchange = exchange
        self._handout = handout
        self._ourselves = ourselves
        self._client = client
        self._listen_port = listen_port
        self._info_hash = info_hash
        self._said_we_want = not swarm.satisfied

    def say_whether_we_want(self) -> None:
        """Tell all whether we want anything still, where that has changed (BEP 21). Of who has everything it
        is seen without a word."""
        wants = not self._swarm.satisfied
        if wants == self._said_we_want or self._swarm.complete:
            return
        self._said_we_want = wants
        for peer in self._swarm.peers.values():
            if peer.extended:
                # All of it again: to libtorrent an extension that is left out is one that we gave up.
                words = replace(self.words_for(peer), upload_only=not wants)
                self._swarm.tell(peer, Extended(0, words.encode()))

    def say_whether_we_exchange(self) -> None:
        """Tell all whether we exchange addresses, where that has changed: connections last for days."""
        for peer in self._swarm.peers.values():
            if peer.extended:
                words = self.words_for(peer)
                # What is left out stays as it was (BEP 10): said is only what is 0.
                words = replace(words, m={pex.NAME: 0, **words.m})
                self._swarm.tell(peer, Extended(0, words.encode()))

    def words_for(self, peer: Peer) -> ExtendedHandshake:
        """What this peer is told of us."""
        extensions = {DONT_HAVE: DONT_HAVE_NUMBER, UPLOAD_ONLY: UPLOAD_ONLY_NUMBER}
        if self._handout.size:
            extensions[metadata.NAME] = metadata.NUMBER
        if self._exchange.on:
            extensions[pex.NAME] = pex.NUMBER
        return ExtendedHandshake(
            m=extensions,
            client=self._client,
            listen_port=self._listen_port or None,
            reqq=QUEUE_MAX,
            yourip=read_host(peer.host.partition("%")[0]),
            ipv4=self._elsewhere(peer, 4),
            ipv6=self._elsewhere(peer, 16),
            upload_only=(self._swarm.satisfied and peer.shown is None) or None,
            metadata_size=self._handout.size or None,
            largest_block=MAX_REQUEST_BYTES,
            info_hash=self._info_hash,
        )

    def _elsewhere(self, peer: Peer, size: int) -> bytes | None:
        """Our address of this family, if the connection is of the other: a way to us when it is lost."""
        ours = self._ourselves.host(size) if self._exchange.on and self._listen_port else None
        if ours is None or (":" in peer.host) == (size == 16):
            return None
        return ours if is_near(peer.host) or not is_near(host_text(ours)) else None

    def hear(self, peer: Peer, words: ExtendedHandshake, now: float) -> None:
        """The peer says who it is, or what of that has changed."""
        if words.info_hash is not None and words.info_hash != self._info_hash:
            self._swarm.condemn(peer, "it has the same content in another metainfo (info_hash differs)")
            return
        peer.is_kin = peer.is_kin or words.info_hash is not None
        peer.client = words.client or peer.client
        peer.metadata_number = words.m.get(metadata.NAME, peer.metadata_number)
        self._exchange.agreed(peer, words.m.get(pex.NAME), now)
        if words.upload_only is not None:
            peer.upload_only = words.upload_only
        if words.yourip is not None and not peer.web_seed:
            self._ourselves.heard(peer.host, words.yourip)
        if words.largest_block is not None:
            # On the borders of the usual blocks, so that a large one can be split into these.
            served = min(words.largest_block, MAX_REQUEST_BYTES) // BLOCK_BYTES * BLOCK_BYTES
            peer.largest_block = max(peer.largest_block, served)
        if words.reqq is not None:
            bound = self._swarm.settings.pipeline_max_bytes // BLOCK_BYTES
            peer.pipeline.set_limit(min(words.reqq, max(1, bound)))
        if words.listen_port:
            self._listens(peer, words, words.listen_port, now)

    def _listens(self, peer: Peer, words: ExtendedHandshake, port: int, now: float) -> None:
        other = words.ipv4 if ":" in peer.host else words.ipv6
        if other is not None and read_host(host_text(other)) is not None:
            elsewhere = host_text(other)
            # Nobody sends us into our own network from outside of it.
            if is_near(peer.host) or not is_near(elsewhere):
                peer.elsewhere = (elsewhere, port)
        if peer.incoming and peer.address is None and peer.host:
            address = (peer.host, port)
            if self._book.state(address) == "barred":
                self._swarm.condemn(peer, "this address is barred")
                return
            peer.source = self._book.source(address) or peer.source
            self._swarm.attendance.listens(peer, address)
            self._book.joined(address, now)
