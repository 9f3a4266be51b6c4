"""Hosts the core of one torrent: brings it facts in batches and carries out its orders.

Owns the inbox, the core greenlet, the peer wires and the connection attempts. The core greenlet lives only
while there is something to handle or somebody to talk to, so that thousands of idle torrents cost none.
Orders to the disk go to `content.py` and `checks.py`, those to the trackers to the announcer. Nobody else
touches the core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from gevent.event import Event

from microtorrd import logs
from microtorrd.checks import Check, confirm
from microtorrd.core import events
from microtorrd.core.core import Core
from microtorrd.core.events import Address, Fact
from microtorrd.core.states import Phase
from microtorrd.giving import MetadataGiver
from microtorrd.greenlets import breathe
from microtorrd.net.dialer import DialError
from microtorrd.net.gob_peerwire import GobPeerWire
from microtorrd.net.greeting import Joined
from microtorrd.net.peerwire import PeerWire
from microtorrd.net.webseed import WebSeedWire
from microtorrd.proto.gob_dialect import PIECE_BYTES_MAX
from microtorrd.rate import Limiter
from microtorrd.webseeds import WebSeeds, host_of

if TYPE_CHECKING:
    from microtorrd.greenlets import Crew
    from microtorrd.life import Life

#: A core greenlet with nobody to talk to waits this long for more work before it ends.
LINGER_S = 2.0

#: How long the core holds up everybody else at a time, about: the fact that has begun is finished.
TURN_S = 0.004

#: While more facts than these wait it goes on all the same: nobody brings new ones then.
INBOX_MOST = 4096

#: Why an address is not dialed, or its connection not kept.
FULL = "the daemon has all the connections it may have"


class CoreHost:
    """The surroundings of one core."""

    def __init__(self, core: Core, owner: Life, name: str) -> None:
        self.core = core
        self._owner = owner
        self._content = owner.content
        self._facilities = owner.facilities
        self._crew = owner.crew
        self._log = logs.get(room="torrent", torrent=name)
        self._giver = MetadataGiver(owner.content, owner.crew)
        self._inbox: list[Fact] = []
        self._wake = Event()
        self._awake = False
        self._wires: dict[int, PeerWire | GobPeerWire | WebSeedWire] = {}
        self._peers_so_far = 0
        self.web_seeds = WebSeeds(owner.content, owner.facilities, self, down=owner.down)

    @property
    def crew(self) -> Crew:
        """What runs for this torrent."""
        return self._crew

    @property
    def connected(self) -> int:
        """Open connections."""
        return len(self._wires)

    @property
    def is_asleep(self) -> bool:
        """Nothing came for a while, and its greenlet has ended."""
        return not self._awake and not self._inbox

    def post(self, facts: Sequence[Fact]) -> None:
        """Put facts into the inbox and wake the core greenlet."""
        self._inbox.extend(facts)
        if self._awake:
            self._wake.set()
        elif not self._crew.stopped:
            self._awake = True
            self._crew.spawn("core", self._run)

    def act(self, facts: Sequence[Fact]) -> None:
        """Handle facts at once, in the caller's greenlet: what an operator wished shows in the next answer.

        Handling never waits, so nobody else can be in the middle of it.
        """
        self._inbox.extend(facts)
        self._handle()
        self.post(())

    def adopt(self, joined: Joined) -> None:
        """Take over a connection whose handshake is done."""
        facilities, owner = self._facilities, self._owner
        if facilities.connections >= facilities.config.limits.connections or self._crew.stopped:
            joined.sock.close()
            if joined.address is not None:
                self.post((events.DialFailed(joined.address, FULL),))
            return
        if joined.gob is not None and self._content.geometry.max_piece_bytes > PIECE_BYTES_MAX:
            self._log.debug("peer_refused", host=joined.host, reason="pieces too large for its dialect")
            joined.sock.close()
            return
        self._peers_so_far += 1
        peer = self._peers_so_far
        wire = self._make_wire(joined, peer)
        facilities.connections += 1
        facilities.active.add(owner)
        self._wires[peer] = wire
        self.post((joined.fact(peer),))
        wire.start()

    def disown(self) -> None:
        """Count no connection any more. After the crew has stopped: who came in its last moments is not heard
        to leave."""
        for peer in list(self._wires):
            self._forget(events.PeerLeft(peer, "the torrent is gone"))

    def _make_wire(self, joined: Joined, peer: int) -> PeerWire | GobPeerWire:
        facilities, owner = self._facilities, self._owner
        shared: dict[str, Any] = {
            "sock": joined.sock,
            "peer": peer,
            "geometry": self._content.geometry,
            "post": self.post,
            "crew": self._crew,
            "files": self._content.files,
            "pool": facilities.pool,
            "up": Limiter(facilities.up, owner.up, facilities.up_of_a_peer()),
            "down": Limiter(facilities.down, owner.down, facilities.down_of_a_peer()),
            "memory": facilities.wire_memory,
        }
        if joined.gob is not None:
            return GobPeerWire(streams=joined.gob, **shared)
        handshake = joined.handshake
        return PeerWire(fast=handshake.fast, extended=handshake.extended, **shared)

    def adopt_web_seed(self, make: Callable[[int], WebSeedWire]) -> None:
        """Let a new connection to a web seed begin; it gets a number like any peer."""
        if self._crew.stopped:
            return
        self._peers_so_far += 1
        peer = self._peers_so_far
        wire = self._wires[peer] = make(peer)
        self._facilities.active.add(self._owner)
        wire.start()

    # ------------------------------------------------------------------------------ the core greenlet

    def _run(self) -> None:
        """Handle facts until nobody is connected and nothing came for a while."""
        try:
            while True:
                if self._inbox:
                    self._handle(monotonic() + TURN_S)
                    if self._inbox:
                        breathe()
                    continue
                self._wake.clear()
                if not self._wake.wait(None if self._wires else LINGER_S) and not self._inbox:
                    return
        finally:
            self._awake = False

    def _handle(self, until: float = inf) -> None:
        """Handle what is in the inbox, and carry out what follows from it. When it is late (`monotonic`) the
        rest stays there, as far as it is not too much."""
        core, clock = self.core, self._facilities.clock
        is_late = False
        while self._inbox and not is_late:
            facts, self._inbox = self._inbox, []
            now = clock()
            for number, fact in enumerate(facts, 1):
                core.handle(fact, now)
                if type(fact) is events.PeerLeft:
                    self._forget(fact)
                if monotonic() >= until and len(facts) - number + len(self._inbox) <= INBOX_MOST:
                    self._inbox[:0] = facts[number:]
                    is_late = True
                    break
            orders, core.orders = core.orders, []
            for order in orders:
                _CARRIERS[type(order)](self, order)
        self._look_at_web_seeds(clock())
        self._owner.handled(core)

    def _look_at_web_seeds(self, now: float) -> None:
        core = self.core
        running = core.phase is Phase.RUNNING
        self.web_seeds.look(core.lacking if running else 0, now)

    def _forget(self, fact: events.PeerLeft) -> None:
        wire = self._wires.pop(fact.peer, None)
        if isinstance(wire, WebSeedWire):
            self.web_seeds.left(wire, fact.reason, self._facilities.clock())
        elif wire is not None:
            self._facilities.connections -= 1
            self._log.debug("peer_left", peer=fact.peer, reason=fact.reason, fault=fact.fault)

    # ---------------------------------------------------------------------------- orders to the wires

    def _fetch(self, order: events.Fetch) -> None:
        if (wire := self._wires.get(order.peer)) is not None:
            wire.fetch(order.slots)

    def _recall(self, order: events.Recall) -> None:
        if (wire := self._wires.get(order.peer)) is not None:
            wire.recall(order.slots, cancel=order.cancel)

    def _serve(self, order: events.Serve) -> None:
        if (wire := self._wires.get(order.peer)) is not None:
            wire.serve(order.requests)

    def _withdraw(self, order: events.Withdraw) -> None:
        if (wire := self._wires.get(order.peer)) is not None:
            wire.withdraw(order.requests, order.reject)

    def _tell(self, order: events.Tell) -> None:
        if (wire := self._wires.get(order.peer)) is not None:
            wire.tell(order.messages)

    def _give_metadata(self, order: events.GiveMetadata) -> None:
        wire = self._wires.get(order.peer)
        if isinstance(wire, PeerWire):
            self._giver.give(wire, order)

    def _drop(self, order: events.Drop) -> None:
        if (wire := self._wires.get(order.peer)) is not None:
            wire.drop(order.reason, fault=order.fault)

    def _dial(self, order: events.Dial) -> None:
        self._crew.spawn("dial", self._connect, order.address)

    def _connect(self, address: Address) -> None:
        facilities = self._facilities
        if facilities.connections >= facilities.config.limits.connections:
            self.post((events.DialFailed(address, FULL),))
            return
        record = self._content.record
        try:
            joined = facilities.dialer.dial(
                address,
                record.info_hash,
                id_hash=record.id_hash if self._content.geometry.max_piece_bytes <= PIECE_BYTES_MAX else None,
                is_connected=self._is_connected,
            )
        except DialError as error:
            self._log.debug("dial_failed", address=address, reason=str(error))
            failed = events.DialFailed(address, str(error), ourselves=error.ourselves, twin=error.twin)
            self.post((failed,))
            return
        self.adopt(joined)

    def _is_connected(self, peer_id: bytes) -> bool:
        return self.core.swarm.attendance.twin(peer_id) is not None

    def _ban(self, order: events.Ban) -> None:
        host = order.host
        if "://" in host:
            self.web_seeds.ban(host, order.reason)
            host = host_of(host)
        else:
            self._facilities.ban(host, order.reason)
        self._log.warning("peer_banned", host=host, reason=order.reason)
        self._owner.note("peer_banned", host=host, reason=order.reason)

    # ----------------------------------------------------------------------------- orders to the disk

    def _store(self, order: events.Store) -> None:
        self._content.store(order.buffer, want_digests=order.want_digests, post=self.post)

    def _release(self, order: events.Release) -> None:
        self._facilities.give_back(order.buffer.memory)

    def _check(self, order: events.Check) -> None:
        # What `Cease` is to stop begins here, not when the greenlet has its first turn.
        check = Check(self._content, self.post, self._content.begin())
        self._crew.spawn("check", check.run, order.pieces)

    def _confirm(self, order: events.Confirm) -> None:
        confirm(self._content, self.post, self._content.begin())

    def _cease(self, order: events.Cease) -> None:
        self._content.cease()

    # ------------------------------------------------------------------------- orders to everyone else

    def _announce(self, order: events.Announce) -> None:
        announcer = self._owner.announcer
        if order.event == "started":
            announcer.start()
        elif order.event == "completed":
            announcer.completed(and_leaves=not self._content.record.seed_after_download)
        elif order.event == "stopped":
            announcer.stop()
        else:
            announcer.reannounce()

    def _emit(self, order: events.Emit) -> None:
        if order.kind == "completed":
            self._owner.became_complete(order.facts)
        elif order.kind == "content_verified":
            self._owner.was_verified()
        self._owner.note(order.kind, **order.facts)


_CARRIERS: dict[type[Any], Callable[[CoreHost, Any], None]] = {
    events.Fetch: CoreHost._fetch,
    events.Recall: CoreHost._recall,
    events.Serve: CoreHost._serve,
    events.Withdraw: CoreHost._withdraw,
    events.Tell: CoreHost._tell,
    events.GiveMetadata: CoreHost._give_metadata,
    events.Drop: CoreHost._drop,
    events.Dial: CoreHost._dial,
    events.Ban: CoreHost._ban,
    events.Store: CoreHost._store,
    events.Release: CoreHost._release,
    events.Check: CoreHost._check,
    events.Confirm: CoreHost._confirm,
    events.Announce: CoreHost._announce,
    events.Cease: CoreHost._cease,
    events.Emit: CoreHost._emit,
}
