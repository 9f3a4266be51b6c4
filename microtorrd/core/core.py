"""One torrent: facts in, orders out. Everything has a room of its own; here they are put together.

Rules:
- `handle` never waits and calls nobody but `lend`; it is not re-entered; `orders` is the only way out;
- in which state the torrent is, and what leads to another, stands in `states.py`;
- whoever joins while it does not run is dropped with the reason;
- facts of peers that were dropped may still come in, and are ignored.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from microtorrd.core import events
from microtorrd.core.audit import audit
from microtorrd.core.checking import Checking
from microtorrd.core.comings import Comings
from microtorrd.core.conversation import Conversation
from microtorrd.core.culprits import Culprits
from microtorrd.core.ending import Ending
from microtorrd.core.events import Fact, Order
from microtorrd.core.exchange import Exchange
from microtorrd.core.fetching import Fetching
from microtorrd.core.handout import Handout
from microtorrd.core.introductions import Introductions
from microtorrd.core.ourselves import OwnAddresses
from microtorrd.core.partial import reopen
from microtorrd.core.peerbook import Peerbook
from microtorrd.core.ranking import Ranking
from microtorrd.core.settings import SwarmSettings, TorrentSettings
from microtorrd.core.shares import Shares
from microtorrd.core.snapshot import Snapshot, State, snapshot_of
from microtorrd.core.spreading import Spreading
from microtorrd.core.states import CLOSED, Phase, States
from microtorrd.core.superseeding import SuperSeeding
from microtorrd.core.swarm import Swarm
from microtorrd.core.uploading import Uploading
from microtorrd.core.verdicts import Verdicts
from microtorrd.core.wishes import Wishes
from microtorrd.core.workshop import Workshop
from microtorrd.errors import ProtocolError, StorageError
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.geometry import Geometry

#: What a peer would not serve it is asked for again after this time.
REFUSED_S = 10.0


class Core:
    """The whole behaviour of one torrent.

    `have` becomes the core's own. `has_id_hash`: the metainfo names an `id_hash` that the content was not yet
    confirmed to match. `priorities`: of the pieces, as in `WishesChanged`. `metadata_bytes`: the size of the
    info dictionary, 0 where it cannot be given away. `peer_id` is ours; without it crossing connections are
    told apart less well. `ourselves` is shared by all torrents of the daemon. `book`: the addresses that an
    earlier core of the same torrent knew.
    """

    def __init__(
        self,
        *,
        geometry: Geometry,
        have: Bitfield,
        settings: SwarmSettings,
        torrent: TorrentSettings,
        lend: Callable[[int], memoryview | None],
        chance: random.Random,
        client: bytes | str,
        listen_port: Callable[[], int] | int,
        has_id_hash: bool,
        info_hash: bytes,
        priorities: bytes | None = None,
        private: bool = False,
        metadata_bytes: int = 0,
        peer_id: bytes = b"",
        name: str = "",
        ourselves: OwnAddresses | None = None,
        book: Peerbook | None = None,
    ) -> None:
        self.swarm = swarm = Swarm(
            geometry, have, settings=settings, choices=torrent, chance=chance, priorities=priorities
        )
        self.private = private  # BEP 27: addresses come from trackers only
        ourselves = OwnAddresses() if ourselves is None else ourselves
        port = listen_port() if callable(listen_port) else listen_port
        ranking = Ranking(ourselves, port)
        self.book = Peerbook(chance, ranking) if book is None else book
        self.exchange = Exchange(swarm, self.book, private=private)
        self.culprits = Culprits()
        self.shares = Shares()
        self.checking = Checking(geometry.piece_count)
        self.ending = Ending(swarm, self.shares, to_confirm=has_id_hash)
        self.workshop = Workshop(swarm, lend=lend, suspicious=self.culprits.suspicious)
        self.fetching = Fetching(swarm, self.workshop)
        self.spreading = Spreading(swarm)
        self.superseeding = SuperSeeding(swarm)
        self.uploading = Uploading(swarm, self.spreading, info_hash)
        self.verdicts = Verdicts(
            swarm,
            self.workshop,
            self.fetching,
            culprits=self.culprits,
            shares=self.shares,
            book=self.book,
        )
        handout = Handout(swarm, 0 if private else metadata_bytes)
        self.introductions = Introductions(
            swarm,
            book=self.book,
            exchange=self.exchange,
            handout=handout,
            ourselves=ourselves,
            client=client if isinstance(client, str) else client.decode("utf-8", "replace"),
            listen_port=port,
            info_hash=info_hash,
        )
        self.conversation = Conversation(
            swarm,
            workshop=self.workshop,
            fetching=self.fetching,
            uploading=self.uploading,
            spreading=self.spreading,
            superseeding=self.superseeding,
            introductions=self.introductions,
            exchange=self.exchange,
            handout=handout,
        )
        self.comings = Comings(
            swarm,
            fetching=self.fetching,
            uploading=self.uploading,
            superseeding=self.superseeding,
            verdicts=self.verdicts,
            conversation=self.conversation,
            culprits=self.culprits,
            book=self.book,
            exchange=self.exchange,
            ranking=ranking,
            peer_id=peer_id,
        )
        self.states = States(
            swarm,
            book=self.book,
            checking=self.checking,
            comings=self.comings,
            ending=self.ending,
            fetching=self.fetching,
            introductions=self.introductions,
            workshop=self.workshop,
            name=name,
        )
        self._busy = False
        self._refused_at = 0.0

    # ------------------------------------------------------------------------------------- outside

    @property
    def orders(self) -> list[Order]:
        """What is to be done; the host takes the list and puts an empty one in its place."""
        return self.swarm.orders

    @orders.setter
    def orders(self, orders: list[Order]) -> None:
        self.swarm.orders = orders
        self.swarm.batch += 1

    @property
    def phase(self) -> Phase:
        """In which state it is, by the table in `states.py`."""
        return self.states.phase

    @property
    def have(self) -> Bitfield:
        """What we have, verified; to be read, not written."""
        return self.swarm.have

    @property
    def satisfied(self) -> bool:
        """Everything that is wanted is here."""
        return self.swarm.satisfied

    @property
    def lacking(self) -> int:
        """How many pieces are wanted and not here."""
        return self.workshop.picker.needed_count

    @property
    def idle(self) -> bool:
        """Ticks would do nothing: they can stop until another fact has been handled."""
        if not self.states.running:
            return True
        return (
            not self.swarm.peers
            and self.book.quiet
            and not self.workshop.partials
            and not self.ending.leaving
        )

    def handle(self, fact: Fact, now: float) -> None:
        """Take in one fact; what follows is appended to `orders`."""
        assert not self._busy, "Core.handle was entered again"
        self._busy = True
        try:
            HANDLERS[type(fact)](self, fact, now)
            swarm, fetching = self.swarm, self.fetching
            while swarm.condemned:
                peer, fault = swarm.condemned.pop()
                if peer.number in swarm.peers:
                    self.comings.drop(peer, peer.condemned or "", now, fault=fault)
            if not self.ending.waited and self.ending.look_around():
                fetching.enabled = self.states.running
                self.workshop.stirred = True
            if self.workshop.stirred and fetching.enabled:
                fetching.refill_all(now)
            if self.ending.is_time_to_leave(now):
                self.states.leave(now)
        finally:
            self._busy = False

    def state_shown(self) -> tuple[State, StorageError | None]:
        """The state that people see, and the cause of a failure."""
        return self.states.shown()

    def snapshot(self, now: float, with_peers: bool = False) -> Snapshot:
        """The frozen picture of everything."""
        return snapshot_of(self, now, with_peers=with_peers)

    def check(self) -> None:
        """Recount every invariant; AssertionError names the one that is broken. For tests: it is slow."""
        audit(self)

    # ---------------------------------------------------------------------------------- the states

    def _on_started(self, fact: events.Started, now: float) -> None:
        self.states.started(now, recheck=fact.recheck)

    def _on_stopped(self, _: events.Stopped, now: float) -> None:
        self.states.stopped(now)

    def _on_storage_failed(self, fact: events.StorageFailed, now: float) -> None:
        if fact.piece is not None:
            self.verdicts.lost(fact.piece)
        self.states.failed(fact.error, now)

    def _on_storage_recovered(self, _: events.StorageRecovered, now: float) -> None:
        self.states.recovered(now)

    def _on_recheck_wanted(self, fact: events.RecheckWanted, now: float) -> None:
        self.states.recheck_wanted(fact, now)

    def _on_pieces_checked(self, fact: events.PiecesChecked, now: float) -> None:
        self.states.pieces_checked(fact, now)

    def _on_content_confirmed(self, fact: events.ContentConfirmed, now: float) -> None:
        self.states.content_confirmed(fact, now)

    # ----------------------------------------------------------------------------------- the facts

    def _on_ticked(self, _: events.Ticked, now: float) -> None:
        if not self.states.running:
            return
        swarm = self.swarm
        if swarm.peers:
            if now - self._refused_at >= REFUSED_S:
                self._refused_at = now
                for peer in swarm.peers.values():
                    peer.refused.clear()
            self.fetching.watch(now)
            self.uploading.tick(now)
            self.superseeding.tick(now)
        if swarm.began_at is not None and self.lacking:
            self.shares.sample(swarm.down.total, began_at=swarm.began_at, now=now)
        self.comings.tick(now)

    def _on_peer_joined(self, fact: events.PeerJoined, now: float) -> None:
        if not self.states.running:
            self.comings.turn_away(fact, CLOSED[self.states.phase], now)
            return
        self.comings.join(fact, now)

    def _on_peer_left(self, fact: events.PeerLeft, now: float) -> None:
        peer = self.swarm.peers.get(fact.peer)
        if peer is not None:
            self.comings.gone(peer, fact.reason, now, fault=fact.fault)
            self.comings.dial(now)

    def _on_messages_received(self, fact: events.MessagesReceived, now: float) -> None:
        peer = self.swarm.peers.get(fact.peer)
        if peer is None:
            return
        peer.heard_at = now
        try:
            self.conversation.hear(peer, fact.messages, now)
        except ProtocolError as error:
            self.swarm.condemn(peer, str(error), fault=True)

    def _on_requests_received(self, fact: events.RequestsReceived, now: float) -> None:
        peer = self.swarm.peers.get(fact.peer)
        if peer is None:
            return
        peer.heard_at = now
        if not peer.known:
            self.swarm.attendance.has_spoken(peer)
        try:
            self.uploading.requested(peer, fact.requests, now)
        except ProtocolError as error:
            self.swarm.condemn(peer, str(error), fault=True)

    def _on_blocks_received(self, fact: events.BlocksReceived, now: float) -> None:
        swarm = self.swarm
        peer = swarm.peers.get(fact.peer)
        if peer is None:
            # It was dropped after its wire had filled these. They are free again and may be lent already:
            # what others bring for a slot that stays closed would be waste, for ever.
            reopen(fact.slots, fact.peer)
            return
        peer.heard_at = now
        swarm.wasted_bytes += fact.wasted_bytes
        if fact.slots:
            useful = self.fetching.received(peer, fact.slots, now)
            peer.down.add(useful, now)
            swarm.down.add(useful, now)
        if fact.wasted_blocks:
            try:
                swarm.hear_noise(peer, fact.wasted_blocks)
            except ProtocolError as error:
                swarm.condemn(peer, str(error), fault=True)

    def _on_blocks_sent(self, fact: events.BlocksSent, now: float) -> None:
        peer = self.swarm.peers.get(fact.peer)
        if peer is not None:
            self.uploading.sent(peer, fact.blocks, fact.payload_bytes, now)
        else:
            self.swarm.up.add(fact.payload_bytes, now)

    def _on_addresses_found(self, fact: events.AddressesFound, now: float) -> None:
        self.book.found(fact.addresses, fact.source, now)
        if self.states.running:
            self.comings.dial(now)

    def _on_dial_failed(self, fact: events.DialFailed, now: float) -> None:
        self.comings.dial_failed(fact, now)
        if self.states.running:
            self.comings.dial(now)

    def _on_piece_stored(self, fact: events.PieceStored, now: float) -> None:
        self.verdicts.good(fact.piece, fact.digests, now)
        if self.states.running and not self.lacking:
            self.states.look_complete(now)

    def _on_piece_corrupt(self, fact: events.PieceCorrupt, _: float) -> None:
        self.verdicts.bad(fact.piece, fact.digests)

    def _on_memory_freed(self, _: events.MemoryFreed, now: float) -> None:
        self.fetching.memory_freed(now)

    def _on_memory_wanted(self, _: events.MemoryWanted, __: float) -> None:
        self.workshop.give_back_orphans()

    def _on_settings_changed(self, fact: events.SettingsChanged, _: float) -> None:
        super_seed, exchanged = self.swarm.choices.super_seed, self.exchange.on
        self.swarm.choices = fact.settings
        if fact.swarm is not None:
            self.swarm.settings = fact.swarm
        self.workshop.picker.sequential = fact.settings.sequential
        if fact.settings.super_seed != super_seed:
            self.superseeding.changed()
        if self.exchange.on != exchanged:
            self.introductions.say_whether_we_exchange()

    def _on_wishes_changed(self, fact: events.WishesChanged, now: float) -> None:
        self.swarm.wishes = Wishes(self.swarm.geometry, fact.priorities)
        self.workshop.wish_again()
        for peer in self.swarm.peers.values():
            self.fetching.recount(peer)
        if self.states.running:
            self.states.look_complete(now)
            self.comings.dial(now)


#: Who handles what. One table for all cores: thousands of torrents have none of their own.
HANDLERS: dict[type[Any], Callable[[Core, Any, float], None]] = {
    events.Started: Core._on_started,
    events.Stopped: Core._on_stopped,
    events.Ticked: Core._on_ticked,
    events.PeerJoined: Core._on_peer_joined,
    events.PeerLeft: Core._on_peer_left,
    events.MessagesReceived: Core._on_messages_received,
    events.BlocksReceived: Core._on_blocks_received,
    events.RequestsReceived: Core._on_requests_received,
    events.BlocksSent: Core._on_blocks_sent,
    events.AddressesFound: Core._on_addresses_found,
    events.DialFailed: Core._on_dial_failed,
    events.PieceStored: Core._on_piece_stored,
    events.PieceCorrupt: Core._on_piece_corrupt,
    events.StorageFailed: Core._on_storage_failed,
    events.StorageRecovered: Core._on_storage_recovered,
    events.PiecesChecked: Core._on_pieces_checked,
    events.RecheckWanted: Core._on_recheck_wanted,
    events.ContentConfirmed: Core._on_content_confirmed,
    events.MemoryFreed: Core._on_memory_freed,
    events.MemoryWanted: Core._on_memory_wanted,
    events.SettingsChanged: Core._on_settings_changed,
    events.WishesChanged: Core._on_wishes_changed,
}
