"""What peers say beside blocks and requests, and our first words to them.

Rules:
- the extended handshake goes first, then what we have: BEP 3 and 6 put the bitfield first, yet libtorrent,
  Transmission and aria2 all send the other order, so that is the one that everybody has been tested with;
- from a peer, what it has comes after extended messages and keep-alives, else it has nothing until it says
  so; BEP 3 and 6 want the bitfield there or nowhere, yet aria2 sends one later in place of twenty haves, and
  have-all in place of its last ones: then what is new in it counts, and nothing is taken back;
- numbers pass `geometry` before they are used; a message of an extension that was not agreed on is a fault;
- what changes nothing is noise, and noise is bounded (`Swarm.hear_noise`); so is what changes something only
  to change it back: chokes, interest, words about oneself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

from bitarray.util import count_and

from microtorrd.core.fetching import Fetching
from microtorrd.core.handout import Handout
from microtorrd.core.peer import Peer
from microtorrd.core.peerbook import Peerbook
from microtorrd.core.spreading import Spreading
from microtorrd.core.swarm import Swarm
from microtorrd.core.uploading import QUEUE_MAX, Uploading
from microtorrd.core.workshop import Workshop
from microtorrd.errors import ProtocolError
from microtorrd.proto import metadata
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.extended import ExtendedHandshake
from microtorrd.proto.messages import (
    AllowedFast,
    BitfieldMessage,
    Cancel,
    Choke,
    Extended,
    Have,
    HaveAll,
    HaveNone,
    Interested,
    KeepAlive,
    Message,
    NotInterested,
    Port,
    Reject,
    Request,
    Suggest,
    Unchoke,
    Unknown,
)

#: Suggestions and allowed pieces of one peer that we remember.
HINTS_MAX = 1024
ALLOWED_MAX = 256

#: How much noise it is to choke or unchoke, or to lose or find interest: each costs us a look at all peers or
#: pieces. An honest peer does it a few times a second at the most, and may do it a thousand times.
FLIP_NOISE = 4

#: To read an extended handshake costs about as much for each of these bytes as any other message.
WORDS_NOISE_BYTES = 16

#: Messages that may come before a peer has said what it has.
EARLY = frozenset({BitfieldMessage, HaveAll, HaveNone, Extended, KeepAlive, Port, Unknown})

#: Messages of the fast extension (BEP 6).
FAST_ONLY = frozenset({HaveAll, HaveNone, Suggest, Reject, AllowedFast})


class Conversation:
    """Messages in and first words out, for one torrent."""

    __slots__ = (
        "_book",
        "_client",
        "_fetching",
        "_handout",
        "_info_hash",
        "_listen_port",
        "_spreading",
        "_swarm",
        "_uploading",
        "_workshop",
    )

    def __init__(
        self,
        swarm: Swarm,
        *,
        workshop: Workshop,
        fetching: Fetching,
        uploading: Uploading,
        spreading: Spreading,
        book: Peerbook,
        client: str,
        listen_port: Callable[[], int] | int,
        info_hash: bytes,
        handout: Handout,
    ) -> None:
        self._swarm = swarm
        self._workshop = workshop
        self._fetching = fetching
        self._uploading = uploading
        self._spreading = spreading
        self._book = book
        self._client = client
        self._listen_port = listen_port
        self._info_hash = info_hash
        self._handout = handout

    # -------------------------------------------------------------------------------- our first words

    def greet(self, peer: Peer, now: float) -> None:
        """Introduce ourselves to a new peer."""
        words: list[Message] = []
        if peer.extended:
            words.append(Extended(0, self._introduction(peer).encode()))
        have = self._swarm.have
        if peer.fast and have.complete:
            words.append(HaveAll())
        elif peer.fast and not have.count:
            words.append(HaveNone())
        elif len(have):
            words.append(BitfieldMessage(have.to_bytes()))
        self._swarm.tell(peer, *words)
        self._uploading.greet(peer, now)

    def _introduction(self, peer: Peer) -> ExtendedHandshake:
        port = self._listen_port() if callable(self._listen_port) else self._listen_port
        try:
            their_ip = ip_address(peer.host.partition("%")[0]).packed
        except ValueError:
            their_ip = None
        return ExtendedHandshake(
            m={metadata.NAME: metadata.NUMBER} if self._handout.size else {},
            client=self._client,
            listen_port=port or None,
            reqq=QUEUE_MAX,
            yourip=their_ip,
            upload_only=self._swarm.complete,
            metadata_size=self._handout.size or None,
            info_hash=self._info_hash,
        )

    # ------------------------------------------------------------------------------- what they say

    def hear(self, peer: Peer, messages: Sequence[Message], now: float) -> None:
        """Messages in their order. ProtocolError for those that may not be."""
        for message in messages:
            kind = type(message)
            if not peer.known and kind not in EARLY:
                peer.known = True  # with nothing, until it says otherwise
            if not peer.fast and kind in FAST_ONLY:
                raise ProtocolError(f"a {kind.__name__} without the fast extension")
            handler = HANDLERS.get(kind)
            if handler is None:  # keep-alives, DHT ports, what we do not know
                self._swarm.hear_noise(peer)
            else:
                handler(self, peer, message, now)
                if peer.condemned is not None:
                    return

    def _on_choke(self, peer: Peer, _: Choke, now: float) -> None:
        if peer.peer_choking:
            self._swarm.hear_noise(peer)
            return
        self._swarm.hear_noise(peer, FLIP_NOISE)
        peer.peer_choking = True
        peer.hints.clear()  # what it handed to us goes to others
        self._fetching.choked(peer, now)

    def _on_unchoke(self, peer: Peer, _: Unchoke, now: float) -> None:
        if not peer.peer_choking:
            self._swarm.hear_noise(peer)
            return
        self._swarm.hear_noise(peer, FLIP_NOISE)
        peer.peer_choking = False
        peer.refused.clear()
        self._fetching.refill(peer, now)

    def _on_interested(self, peer: Peer, _: Interested, now: float) -> None:
        if peer.peer_interested:
            self._swarm.hear_noise(peer)
            return
        self._swarm.hear_noise(peer, FLIP_NOISE)
        self._uploading.interested(peer, now)

    def _on_not_interested(self, peer: Peer, _: NotInterested, now: float) -> None:
        if not peer.peer_interested:
            self._swarm.hear_noise(peer)
            return
        self._swarm.hear_noise(peer, FLIP_NOISE)
        self._uploading.uninterested(peer, now)

    # -------------------------------------------------------------------------------- what they have

    def _on_have(self, peer: Peer, message: Have, now: float) -> None:
        swarm, fetching = self._swarm, self._fetching
        piece = swarm.geometry.admit_piece(message.piece)
        have = peer.have
        if have is None:
            have = peer.have = Bitfield(swarm.geometry.piece_count)
        elif peer.is_seed:
            swarm.hear_noise(peer)
            return
        if not have.set(piece):
            swarm.hear_noise(peer)
            return
        swarm.availability.add_one(piece)
        if peer.handed or swarm.complete:
            self._spreading.has_now(peer, piece)
        if have.complete:
            swarm.availability.remove(have.bits)
            self._has_everything(peer)
            fetching.refill(peer, now)
        elif self._workshop.picker.needed[piece]:
            peer.offers += 1
            if not peer.am_interested:
                fetching.show_interest(peer)
            fetching.refill(peer, now)
        if peer.fast_given:
            self._uploading.fast_has_enough(peer)

    def _on_bitfield(self, peer: Peer, message: BitfieldMessage, now: float) -> None:
        have = Bitfield.from_bytes(message.raw, self._swarm.geometry.piece_count)
        if peer.known:
            self._has_more(peer, have, now)
        else:
            self._has_first(peer, have)

    def _on_have_all(self, peer: Peer, _: HaveAll, now: float) -> None:
        if peer.known:
            self._has_more(peer, self._swarm.full, now)
        else:
            self._has_first(peer, self._swarm.full)

    def _on_have_none(self, peer: Peer, _: HaveNone, now: float) -> None:
        if peer.known:
            raise ProtocolError("a have-none that is not the first message")
        peer.known = True

    def _has_more(self, peer: Peer, have: Bitfield, now: float) -> None:
        """The peer says again what it has."""
        news = have.bits if peer.have is None else have.bits & ~peer.have.bits
        if not news.any():
            self._swarm.hear_noise(peer)
        for piece in news.search(1):
            self._on_have(peer, Have(piece), now)
            if peer.condemned is not None:
                return

    def _has_first(self, peer: Peer, have: Bitfield) -> None:
        """The peer says for the first time what it has."""
        peer.known = True
        if have.complete:
            peer.joined_as_seed = True
            self._has_everything(peer)
            return
        swarm, picker = self._swarm, self._workshop.picker
        peer.have = have
        swarm.availability.add(have.bits)
        peer.offers = count_and(have.bits, picker.needed)
        self._spreading.recount()
        self._fetching.show_interest(peer)
        self._uploading.fast_has_enough(peer)

    def _has_everything(self, peer: Peer) -> None:
        swarm = self._swarm
        peer.have = swarm.full
        peer.is_seed = True
        peer.offers = 0
        swarm.availability.seeds += 1
        self._spreading.take_back(peer)
        self._fetching.show_interest(peer)

    # ------------------------------------------------------------------------------ blocks and hints

    def _on_request(self, peer: Peer, message: Request, now: float) -> None:
        self._uploading.requested(peer, [(message.piece, message.begin, message.length)], now)

    def _on_cancel(self, peer: Peer, message: Cancel, now: float) -> None:
        self._uploading.cancelled(peer, message)

    def _on_reject(self, peer: Peer, message: Reject, now: float) -> None:
        self._fetching.rejected(peer, message)

    def _on_suggest(self, peer: Peer, message: Suggest, now: float) -> None:
        piece = self._swarm.geometry.admit_piece(message.piece)
        if len(peer.hints) >= HINTS_MAX or not self._workshop.picker.needed[piece]:
            self._swarm.hear_noise(peer)
            return
        peer.hints[piece] = None
        peer.hinted_at = now
        peer.handing = peer.is_seed and peer.is_kin
        self._fetching.refill(peer, now)

    def _on_allowed_fast(self, peer: Peer, message: AllowedFast, now: float) -> None:
        piece = self._swarm.geometry.admit_piece(message.piece)
        if len(peer.allowed) >= ALLOWED_MAX or piece in peer.allowed:
            self._swarm.hear_noise(peer)
            return
        peer.allowed.add(piece)
        if peer.peer_choking:
            self._fetching.refill(peer, now)

    # ------------------------------------------------------------------------------------ extensions

    def _on_extended(self, peer: Peer, message: Extended, now: float) -> None:
        if not peer.extended:
            raise ProtocolError("an extended message without the extension protocol")
        if message.number == metadata.NUMBER and self._handout.size:
            self._handout.hear(peer, message.payload, now)
            return
        if message.number != 0:
            self._swarm.hear_noise(peer)  # we announced no other
            return
        self._swarm.hear_noise(peer, 1 + len(message.payload) // WORDS_NOISE_BYTES)
        words = ExtendedHandshake.decode(message.payload)
        if words.info_hash is not None and words.info_hash != self._info_hash:
            self._swarm.condemn(peer, "it has the same content in another metainfo (info_hash differs)")
            return
        peer.is_kin = words.info_hash is not None
        peer.client = words.client
        peer.metadata_number = words.m.get(metadata.NAME, peer.metadata_number)
        if words.reqq is not None:
            bound = self._swarm.settings.pipeline_max_bytes // 16384
            peer.pipeline.set_limit(min(words.reqq, max(1, bound)))
        if words.listen_port and peer.incoming and peer.address is None and peer.host:
            address = (peer.host, words.listen_port)
            if self._book.state(address) == "barred":
                self._swarm.condemn(peer, "this address is barred")
                return
            peer.address = address
            self._book.joined(address, now)


#: Who hears what. One table for all torrents.
HANDLERS: dict[type[Any], Callable[[Conversation, Peer, Any, float], None]] = {
    Choke: Conversation._on_choke,
    Unchoke: Conversation._on_unchoke,
    Interested: Conversation._on_interested,
    NotInterested: Conversation._on_not_interested,
    Have: Conversation._on_have,
    BitfieldMessage: Conversation._on_bitfield,
    HaveAll: Conversation._on_have_all,
    HaveNone: Conversation._on_have_none,
    Request: Conversation._on_request,
    Cancel: Conversation._on_cancel,
    Reject: Conversation._on_reject,
    Suggest: Conversation._on_suggest,
    AllowedFast: Conversation._on_allowed_fast,
    Extended: Conversation._on_extended,
}
