"""One magnet link of the session: a torrent whose metainfo is still to be found. It stands where a torrent
would: people see it, pause it, limit and remove it, and its choices are on record.

Owns the record and the announcer of the link, its connections, and what carries out the orders of
`core/resolving.py`. What the peers handed over is hashed and parsed in a thread; what fits goes to
`on_found`, which puts the torrent in our place. Methods that wait say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gevent
from gevent import socket
from msgspec.structs import replace

from microtorrd import __version__, logs
from microtorrd.core import events
from microtorrd.core.events import Address, Fact
from microtorrd.core.peerbook import Peerbook
from microtorrd.core.resolving import Judge, Judged, Resolution
from microtorrd.core.settings import TorrentSettings
from microtorrd.core.snapshot import State
from microtorrd.disk.files import FileSet
from microtorrd.disk.records import MagnetRecord
from microtorrd.errors import NotAllowed, StorageError
from microtorrd.facilities import Facilities
from microtorrd.greenlets import Crew
from microtorrd.net.announcer import AnnounceStats
from microtorrd.net.dialer import DialError
from microtorrd.net.greeting import Joined
from microtorrd.net.peerwire import PeerWire
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.magnet import Magnet, parse_magnet
from microtorrd.proto.metainfo import Metainfo
from microtorrd.proto.resolved import Unfit, examined
from microtorrd.proto.selection import Choice, Priority
from microtorrd.rate import Limiter, TokenBucket

#: Called with the metainfo file and what it says.
OnFound = Callable[["Resolver", bytes, Metainfo], None]


class Resolver:
    """One magnet link. Made at once; `start` makes it work."""

    def __init__(self, record: MagnetRecord, facilities: Facilities, on_found: OnFound) -> None:
        self.record = record
        self.link: Magnet = parse_magnet(record.link)
        self.facilities = facilities
        self.info_hash = record.swarm_id  # what it is called by until the info_hash is known for certain
        ids = (record.swarm_id, self.link.info_hash, self.link.id_hash)
        self.swarm_ids = tuple(dict.fromkeys(swarm_id for swarm_id in ids if swarm_id is not None))
        self.crew: Crew = facilities.crew.child(self.short_id)
        self.failure: StorageError | None = None
        self.moving = False  # there is nothing that could be moved
        self._on_found = on_found
        self._log = logs.get(room="magnet", torrent=self.name)
        self._inbox: list[Fact | Judged] = []
        self._handling = False
        self._wires: dict[int, PeerWire] = {}
        self._peers_so_far = 0
        self._down = TokenBucket(record.down_limit)
        self._named = False  # the hosts that the link names were looked up
        self._gone = False
        self.resolution = Resolution(
            info_hash=self.link.info_hash,
            settings=facilities.swarm,
            chance=facilities.chance,
            client=f"microtorrd/{__version__}",
            listen_port=facilities.listen_port,
            peer_id=facilities.peer_id,
            ourselves=facilities.ourselves,
        )
        self.announcer = facilities.make_announcer(
            self.link.tiers,
            # A link by `mtid` knows one id for both dialects: trackers take any.
            info_hash=record.swarm_id,
            id_hash=self.link.id_hash,
            listener=self,
        )

    # --------------------------------------------------------------------------------------- reading

    @property
    def name(self) -> str:
        """What the link calls it, or its id."""
        return self.link.shown_name

    @property
    def short_id(self) -> str:
        """Enough of the id to tell torrents apart."""
        return self.info_hash.hex()[:8]

    @property
    def state(self) -> State:
        """The state that people see."""
        if self.failure is not None:
            return "failed"
        return "stopped" if self.record.stopped else "resolving"

    @property
    def takes_peers(self) -> bool:
        """Whether a connection is welcome."""
        return self.resolution.running and not self._gone

    @property
    def book(self) -> Peerbook:
        """The addresses that it knows, to be read only."""
        return self.resolution.book

    @property
    def is_public(self) -> bool:
        """Whether others than trackers may lead peers to it: as long as nobody knows better."""
        return True

    def announce_stats(self) -> AnnounceStats:
        """What a tracker is told: that something is missing, who knows how much."""
        return AnnounceStats(uploaded=0, downloaded=0, left=1)

    def hear_of(self, addresses: list[events.Address]) -> None:
        """A tracker knows peers."""
        self.post((events.AddressesFound(addresses, "tracker"),))

    def hear_tracker(self, kind: str, facts: dict[str, Any]) -> None:
        """A tracker answered, or has begun to fail."""
        self.note(kind, **facts)

    def note(self, kind: str, **facts: Any) -> None:
        """Publish a note."""
        notes = self.facilities.notes
        if notes.has_readers:
            notes.publish(kind, info_hash=self.info_hash.hex(), name=self.name, **facts)

    def note_progress(self) -> None:
        """Publish who is there; how much is to come, nobody knows yet."""
        self.note(
            "progress",
            state=self.state,
            done_bytes=0,
            size_bytes=0,
            down_bytes_per_s=0,
            up_bytes_per_s=0,
            peers=len(self.resolution.peers),
            seeders=0,
            checked_pieces=0,
            to_check=0,
        )

    # ----------------------------------------------------------------------------------- life, death

    def start(self) -> None:
        """Begin to look for the metainfo, unless it is paused."""
        if not self.record.stopped and not self._gone:
            self.post((events.Started(),))
            if not self._named:
                self._named = True
                self.crew.spawn("names", self._find_named_peers)

    def halt(self) -> None:
        """Say goodbye to peers and trackers; what is on record stays."""
        self.post((events.Stopped(),))

    def close(self) -> None:
        """Let go of everything that runs for this link. Waits a moment for its greenlets."""
        self._gone = True
        self.facilities.active.discard(self)
        self.crew.stop(1.0)

    def bury(self, data: bool) -> None:
        """After it was struck off the record; there is no data yet, whatever `data` says."""
        self.close()

    def hand_over(self, *, private: bool) -> list[Address]:
        """Somebody else goes on in our place: fall silent, part from the peers, and say where they are."""
        addresses = self.resolution.addresses(private=private)
        self._gone = True
        self.announcer.hand_over()
        self.resolution.parting = "its metadata is here; it will be called again"
        self.halt()
        self.facilities.active.discard(self)
        return addresses

    def _find_named_peers(self) -> None:
        """Peers that the link names (`x.pe`), by address or by the name of their host. Waits for names."""
        for host, port in self.link.peers:
            try:
                infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                self._log.info("peer_not_found", host=host, reason=str(error))
                continue
            found = [(str(info[4][0]), port) for info in infos]
            self.post((events.AddressesFound(found, "operator"),))

    # ------------------------------------------------------------------------ what comes from outside

    def post(self, facts: Sequence[Fact | Judged]) -> None:
        """Handle facts at once: that never waits."""
        self._inbox.extend(facts)
        if self._handling:
            return
        self._handling = True
        try:
            resolution, now = self.resolution, self.facilities.clock()
            while self._inbox:
                fact = self._inbox.pop(0)
                resolution.handle(fact, now)
                if isinstance(fact, events.PeerLeft) and self._wires.pop(fact.peer, None) is not None:
                    self.facilities.connections -= 1
                    self.note("peer_left", reason=fact.reason, fault=fact.fault)
                orders, resolution.orders = resolution.orders, []
                for order in orders:
                    self._carry_out(order)
        finally:
            self._handling = False
        if self.takes_peers:
            self.facilities.active.add(self)

    def adopt(self, joined: Joined) -> None:
        """Take over a connection whose handshake is done."""
        facilities = self.facilities
        if (
            not self.takes_peers
            or self.crew.stopped
            or joined.gob is not None  # the original knows nothing of metadata
            or facilities.connections >= facilities.config.limits.connections
        ):
            joined.sock.close()
            return
        self._peers_so_far += 1
        peer, handshake = self._peers_so_far, joined.handshake
        wire = PeerWire(
            sock=joined.sock,
            peer=peer,
            geometry=Geometry(0, 1),
            post=self.post,
            crew=self.crew,
            files=FileSet("/", [], descriptors=facilities.descriptors),
            pool=facilities.pool,
            up=Limiter(facilities.up),
            down=Limiter(facilities.down, self._down, facilities.down_of_a_peer()),
            fast=handshake.fast,
            extended=handshake.extended,
            memory=facilities.wire_memory,
            any_bitfield=True,
        )
        facilities.connections += 1
        self._wires[peer] = wire
        # Before the first order to it, which comes with the fact below.
        wire.start()
        self.note("peer_joined", host=joined.host, incoming=joined.incoming)
        self.post((joined.fact(peer),))

    def tick(self) -> None:
        """Comes about once a second while the link is among the active ones."""
        if not self.takes_peers:
            self.facilities.active.discard(self)
        self.post((events.Ticked(),))

    # ------------------------------------------------------------------------------ orders of the core

    def _carry_out(self, order: events.Order | Judge) -> None:
        match order:
            case events.Tell():
                if (wire := self._wires.get(order.peer)) is not None:
                    wire.tell(order.messages)
            case events.Drop():
                if (wire := self._wires.get(order.peer)) is not None:
                    self._log.debug("peer_dropped", peer=order.peer, reason=order.reason)
                    wire.drop(order.reason)
            case events.Dial():
                if not self.crew.stopped:
                    self.crew.spawn("dial", self._dial, order.address)
            case events.Announce():
                if order.event == "started":
                    self.announcer.start()
                else:
                    self.announcer.stop()
            case Judge() if not self.crew.stopped:
                self.crew.spawn("judge", self._judge, order)

    def _dial(self, address: Address) -> None:
        facilities = self.facilities
        if facilities.connections >= facilities.config.limits.connections:
            self.post((events.DialFailed(address, "the daemon has all the connections it may have"),))
            return
        try:
            joined = facilities.dialer.dial(address, self.record.swarm_id)
        except DialError as error:
            self._log.debug("dial_failed", address=address, reason=str(error))
            self.post((events.DialFailed(address, str(error), ourselves=error.ourselves),))
            return
        if not self.takes_peers:
            self.post((events.DialFailed(address, "the torrent is stopped"),))
        self.adopt(joined)

    def _judge(self, order: Judge) -> None:
        """Hash and parse what peers have handed over, in a thread, and act upon it."""
        examine = partial(examined, self.link, order.raw)
        outcome: tuple[bytes, Metainfo] | Unfit = gevent.get_hub().threadpool.apply(examine)
        if not self.takes_peers:
            return
        if isinstance(outcome, Unfit) and not outcome.for_good:
            self._log.info("metadata_refused", reason=outcome.problem, size=order.size)
            self.post((Judged(order.size, outcome.problem),))
        elif isinstance(outcome, Unfit):
            self.fail(outcome.problem)
        else:
            self._on_found(self, *outcome)

    def fail(self, problem: str) -> None:
        """It cannot become a torrent. A resume tries again."""
        self.halt()
        self.failure = StorageError(problem, path=self.record.save_to, cause="not_allowed")
        self._log.error("magnet_failed", reason=problem)
        self._tell_state("resolving")

    # ---------------------------------------------------------------------------- what the operator wishes

    def pause(self) -> None:
        """Stop until resumed. Waits for the record."""
        before = self.state
        self._change(stopped=True)
        self.failure = None
        self.halt()
        self._tell_state(before)

    def resume(self) -> None:
        """Look for it, also after a failure. Waits for the record."""
        before = self.state
        self._change(stopped=False)
        self.failure = None
        self.start()
        self._tell_state(before)

    def seed(self, super_seed: bool | None = None) -> None:
        """Look for it, and seed it when it is whole. Waits for the record."""
        how = {} if super_seed is None else {"super_seed": super_seed}
        self._change(seed_after_download=True, **how)
        self.resume()

    def verify(self) -> None:
        """There is nothing to check yet."""
        raise NotAllowed(
            f"{self.name!r} has no metainfo yet: it is resolving", info_hash=self.info_hash.hex()
        )

    def reannounce(self) -> None:
        """Ask the trackers for peers now, as far as they allow."""
        self.announcer.reannounce(insist=True)

    def refuse_move(self, save_to: str) -> None:
        """It can be saved anywhere."""

    def begin_move(self, save_to: str) -> None:
        """There is nothing to move yet: it will be saved there. Waits for the record."""
        before = self.record.save_to
        self._change(save_to=save_to)
        self.note("moved", save_to=save_to, before=before)

    def choose(self, **fields: Any) -> None:
        """Change choices that the torrent will have. Waits for the record."""
        self._change(**fields)
        self._down.set_rate(self.record.down_limit, self.facilities.clock())

    def choose_files(self, words: Sequence[str], priority: Priority) -> None:
        """Keep in mind what is wanted of the files until they are known. Waits for the record. Raises
        InvalidParams."""
        self._change(selection=Choice.from_json(self.record.selection).then(priority, words).to_json())

    def settings_changed(self) -> None:
        """The configuration was reloaded."""
        self.facilities.retune(self.announcer, info_hash=self.info_hash, id_hash=self.link.id_hash)
        choices = TorrentSettings()
        self.post((events.SettingsChanged(choices, self.facilities.swarm),))

    def _change(self, **fields: Any) -> None:
        record = replace(self.record, **fields)
        try:
            self.facilities.ledger.change_magnet(record)
        except StorageError as error:
            raise NotAllowed(f"the choice cannot be put on record: {error}", cause=error.cause) from None
        self.record = record

    def _tell_state(self, before: str) -> None:
        if self.state != before:
            self.note("state_changed", state=self.state, before=before)
