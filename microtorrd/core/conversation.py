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
from typing import Any

from bitarray.util import count_and

from microtorrd.core.exchange import Exchange
from microtorrd.core.fetching import Fetching
from microtorrd.core.handout import Handout
from microtorrd.core.introductions import Introductions
from microtorrd.core.peer import Peer
from microtorrd.core.spreading import Spreading
from microtorrd.core.superseeding import SuperSeeding
from microtorrd.core.swarm import Swarm
from microtorrd.core.uploading import Uploading
from microtorrd.core.workshop import Workshop
from microtorrd.errors import ProtocolError
from microtorrd.proto import metadata, pex
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.extended import (
    DONT_HAVE_NUMBER,
    UPLOAD_ONLY_NUMBER,
    ExtendedHandshake,
    decode_dont_have,
    decode_upload_only,
)
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

#: Haves that are told at a time; for more a bitfield takes less. What waits for a socket is bounded, and of a
#: content of 200,000 pieces the haves alone would be more than that.
NEWS_MOST = 1000

#: Messages that may come before a peer has said what it has.
EARLY = frozenset({BitfieldMessage, HaveAll, HaveNone, Extended, KeepAlive, Port, Unknown})

#: Messages of the fast extension (BEP 6).
FAST_ONLY = frozenset({HaveAll, HaveNone, Suggest, Reject, AllowedFast})


class Conversation:
    """Messages in and first words out, for one torrent."""

    __slots__ = (
        "_exchange",
        "_fetching",
        "_handout",
        "_introductions",
        "_spreading",
        "_superseeding",
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
        superseeding: SuperSeeding,
        introductions: Introductions,
        exchange: Exchange,
        handout: Handout,
    ) -> None:
        self._swarm = swarm
        self._workshop = workshop
        self._fetching = fetching
        self._uploading = uploading
        self._spreading = spreading
        self._superseeding = superseeding
        self._introductions = introductions
        self._exchange = exchange
        self._handout = handout

    # -------------------------------------------------------------------------------- our first words

    def greet(self, peer: Peer, now: float) -> None:
        """Introduce ourselves to a new peer."""
        self._superseeding.hide(peer)
        words: list[Message] = []
        if peer.extended:
            words.append(Extended(0, self._introductions.words_for(peer).encode()))
        have = self._swarm.have
        if peer.fast and (peer.shown is not None or not have.count):
            words.append(HaveNone())
        elif peer.fast and have.complete:
            words.append(HaveAll())
        elif peer.shown is None and len(have):
            words.append(BitfieldMessage(have.to_bytes()))
        self._swarm.tell(peer, *words)
        self._uploading.greet(peer, now)

    # ------------------------------------------------------------------------------- what they say

    def hear(self, peer: Peer, messages: Sequence[Message], now: float) -> None:
        """Messages in their order. ProtocolError for those that may not be."""
        for message in messages:
            kind = type(message)
            if not peer.known and kind not in EARLY:
                self._swarm.attendance.has_spoken(peer)  # with nothing, until it says otherwise
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
        peer.hinted_at = now  # if it hands pieces out, it has only begun to
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
            self._superseeding.has_now(peer, piece, now)
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
            self._superseeding.show(peer, now)

    def _on_have_all(self, peer: Peer, _: HaveAll, now: float) -> None:
        if peer.known:
            self._has_more(peer, self._swarm.full, now)
        else:
            self._has_first(peer, self._swarm.full)

    def _on_have_none(self, peer: Peer, _: HaveNone, now: float) -> None:
        if peer.known:
            raise ProtocolError("a have-none that is not the first message")
        self._swarm.attendance.has_spoken(peer)
        self._superseeding.show(peer, now)

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
        self._swarm.attendance.has_spoken(peer)
        if have.complete:
            peer.joined_as_seed = True
            self._has_everything(peer)
            return
        swarm, picker = self._swarm, self._workshop.picker
        peer.have = have
        swarm.availability.add(have.bits)
        peer.offers = count_and(have.bits, picker.needed)
        self._spreading.has_these(have.bits)
        self._fetching.show_interest(peer)
        self._uploading.fast_has_enough(peer)

    def _has_everything(self, peer: Peer) -> None:
        swarm = self._swarm
        peer.have = swarm.full
        peer.is_seed = True
        peer.is_told, peer.told_of = False, len(swarm.gained)  # it has heard of all until now
        peer.offers = 0
        swarm.availability.seeds += 1
        self._spreading.take_back(peer)
        self._spreading.recount()
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
        if not peer.is_told and peer.is_kin:
            self._tell_all(peer)
        if len(peer.hints) >= HINTS_MAX or not self._workshop.picker.needed[piece]:
            self._swarm.hear_noise(peer)
            return
        peer.hints[piece] = None
        peer.hinted_at = now
        peer.handing = peer.is_seed and peer.is_kin
        self._fetching.refill(peer, now)

    def _tell_all(self, peer: Peer) -> None:
        """A seeder that hands its pieces out has to know who has which: all that came since it heard last."""
        swarm = self._swarm
        peer.is_told = True
        swarm.audience += 1
        news = [Have(piece) for piece in swarm.gained[peer.told_of :] if swarm.have[piece]]
        if len(news) > NEWS_MOST:
            swarm.tell(peer, BitfieldMessage(swarm.have.to_bytes()))
        elif news:
            swarm.tell(peer, *news)

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
        number, payload = message.number, message.payload
        if number == 0:
            self._swarm.hear_noise(peer, 1 + len(payload) // WORDS_NOISE_BYTES)
            self._introductions.hear(peer, ExtendedHandshake.decode(payload), now)
        elif number == metadata.NUMBER and self._handout.size:
            self._handout.hear(peer, payload, now)
        elif number == pex.NUMBER and self._exchange.on:
            self._exchange.hear(peer, payload, now)
        elif number == DONT_HAVE_NUMBER:
            self._has_lost(peer, self._swarm.geometry.admit_piece(decode_dont_have(payload)))
        elif number == UPLOAD_ONLY_NUMBER:
            self._swarm.hear_noise(peer, FLIP_NOISE)
            peer.upload_only = decode_upload_only(payload)
        else:
            self._swarm.hear_noise(peer)  # we announced no other

    def _has_lost(self, peer: Peer, piece: int) -> None:
        """The peer has this piece no more (BEP 54)."""
        swarm, picker = self._swarm, self._workshop.picker
        swarm.hear_noise(peer, FLIP_NOISE)
        if peer.have is None or not peer.has(piece):
            return
        if peer.is_seed:
            peer.is_seed = False
            peer.is_told = True
            swarm.audience += 1
            swarm.availability.seeds -= 1
            peer.have = Bitfield.full(swarm.geometry.piece_count)
            swarm.availability.add(peer.have.bits)
            peer.offers = picker.needed_count
        peer.have.clear(piece)
        swarm.availability.remove_one(piece)
        if picker.needed[piece]:
            peer.offers -= 1
        self._spreading.recount()
        self._fetching.lost(peer, piece)
        self._fetching.show_interest(peer)


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
