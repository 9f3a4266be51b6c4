"""The virtual world: hosts with real cores, links with a model of the internet, a tracker, a clock.

Time goes in ticks of `TICK_S`. What a host was sent since its last tick it hears in one batch, as a daemon
hears what one read of a socket brings; then its orders are carried out.

How blocks travel stands in `lines.py`; messages and requests take the same time and cost no bandwidth; a disk
takes one tick for a piece.

The tracker gives `PEERS_GIVEN` addresses by lot whenever a host starts, and again every `REANNOUNCE_S`.

Rules: nothing depends on the machine's clock or on the order of sets; chance comes from the seed alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from math import ceil
from typing import Any

from bench.sim.clock import TICK_S, TICKS_PER_S, Clock
from bench.sim.hosts import NOWHERE, Host, Line, Link
from bench.sim.lines import Lines
from microtorrd.core import events
from microtorrd.core.core import Core
from microtorrd.core.events import Address, Fact
from microtorrd.core.settings import SwarmSettings, TorrentSettings
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.geometry import BLOCK_BYTES, Geometry
from microtorrd.proto.messages import AllowedFast, Cancel, Message, Reject, Unchoke

#: What a tracker hands out at a time, and how often it is asked (virtual seconds).
PEERS_GIVEN = 50
REANNOUNCE_S = 60.0

#: What all pieces of all hosts lie in: nobody looks at the bytes.
SCRATCH = memoryview(bytearray(1 << 20))

TICKED = events.Ticked()
INFO_HASH = b"\x11" * 20

#: What a free rider's wire never sends.
GIFTS = (Unchoke, AllowedFast)


class Net:
    """The clock, the hosts and everything that is under way between them."""

    def __init__(
        self,
        *,
        pieces: int,
        blocks_per_piece: int,
        seed: int,
        settings: SwarmSettings | None = None,
    ) -> None:
        piece_length = blocks_per_piece * BLOCK_BYTES
        self.geometry = Geometry(pieces * piece_length, piece_length)
        self.settings = settings or SwarmSettings()
        self.seed = seed
        self.chance = random.Random(seed)
        self.clock = Clock()
        self.at = self.clock.at
        self.hosts: list[Host] = []  # all that there ever were, by number
        self.present: dict[int, Host] = {}  # those that are here, by number
        self.facts = 0  # handled by all cores
        self._by_address: dict[Address, Host] = {}
        self._in_ticks = self.clock.in_ticks
        self._lines = Lines(self.clock, self.chance, self.post)
        self._hearing: dict[Host, None] = {}
        self._phases: list[dict[Host, None]] = [{} for _ in range(TICKS_PER_S)]

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self.clock.now

    # ------------------------------------------------------------------------------------- building

    def host(
        self,
        line: Line,
        *,
        kind: str = "leecher",
        seed: bool = False,
        have: Bitfield | None = None,
        torrent: TorrentSettings | None = None,
        settings: SwarmSettings | None = None,
        free_rider: bool = False,
        counted: bool = False,
    ) -> Host:
        """A host that starts now. `counted`: how often it sends each piece is kept in `copies`."""
        host = Host(len(self.hosts), line, kind, self.now)
        count = self.geometry.piece_count
        host.core = Core(
            geometry=self.geometry,
            have=have or (Bitfield.full(count) if seed else Bitfield(count)),
            settings=settings or self.settings,
            torrent=torrent or TorrentSettings(),
            lend=lambda size: SCRATCH[:size],
            chance=random.Random(self.chance.random()),
            client="sim",
            listen_port=7000,
            has_id_hash=False,
            info_hash=INFO_HASH,
            peer_id=host.peer_id,
        )
        host.free_rider = free_rider
        host.copies = [0] * count if counted else None
        host.phase = int(self.chance.random() * TICKS_PER_S)
        if seed:
            host.completed_at = self.now
        self.hosts.append(host)
        self.present[host.number] = host
        self._by_address[host.address] = host
        self._phases[host.phase][host] = None
        self.post(host, events.Started())
        self.at(0.0, self._announce, host)
        return host

    def leave(self, host: Host) -> None:
        """It is gone without a word; its connections break."""
        if host.gone_at is not None:
            return
        host.gone_at = self.now
        for link in list(host.links.values()):
            self._close(link, "gone")
        del self.present[host.number], self._by_address[host.address]
        self._phases[host.phase].pop(host, None)
        self._lines.forget(host)
        self._hearing.pop(host, None)

    # --------------------------------------------------------------------------------------- running

    def run(self, until: Callable[[], bool], *, most_s: float) -> bool:
        """Let time pass until the condition holds (looked at each tick). False: it never did."""
        end = self.clock.tick + round(most_s / TICK_S)
        while self.clock.tick < end:
            self.step()
            if until():
                return True
        return False

    def step(self) -> None:
        """One tick."""
        self.clock.advance()
        for host in self._phases[self.clock.tick % TICKS_PER_S]:
            if not host.core.idle:
                host.inbox.append(TICKED)
                self._hearing[host] = None
        while self._hearing:
            hearing, self._hearing = self._hearing, {}
            for host in hearing:
                if host.gone_at is None:
                    self._hear(host)
        self._lines.carry()

    def post(self, host: Host, fact: Fact) -> None:
        """Have the host hear this, with whatever else comes to it in this tick."""
        host.inbox.append(fact)
        self._hearing[host] = None

    def _hear(self, host: Host) -> None:
        core, now = host.core, self.now
        facts, host.inbox = host.inbox, []
        self.facts += len(facts)
        for fact in facts:
            core.handle(fact, now)
        orders, core.orders = core.orders, []
        for order in orders:
            handler = _ORDERS.get(type(order))
            if handler is not None:
                handler(self, host, order)
        if host.completed_at is None and core.have.complete:
            host.completed_at = now
            if host.on_complete is not None:
                host.on_complete(host)

    # -------------------------------------------------------------------------------------- orders

    def _on_dial(self, host: Host, order: events.Dial) -> None:
        self._in_ticks(2, self._connect, host, order.address)

    def _on_store(self, host: Host, order: events.Store) -> None:
        self._in_ticks(1, self._post_if_here, host, events.PieceStored(order.buffer.piece))

    def _on_fetch(self, host: Host, order: events.Fetch) -> None:
        link = host.links.get(order.peer)
        if link is None:
            return
        requests = [(slot.piece, slot.begin, slot.length) for slot in order.slots]
        link.lent.update(zip(requests, order.slots, strict=True))
        self._in_ticks(link.latency, self._arrive, link.far, events.RequestsReceived, requests)

    def _on_recall(self, host: Host, order: events.Recall) -> None:
        link = host.links.get(order.peer)
        if link is None:
            return
        cancels: list[Message] = []
        for slot in order.slots:
            request = (slot.piece, slot.begin, slot.length)
            if link.lent.get(request) is slot:
                del link.lent[request]
                cancels.append(Cancel(*request))
        if order.cancel and cancels:
            self._tell(link, cancels)

    def _on_serve(self, host: Host, order: events.Serve) -> None:
        link = host.links.get(order.peer)
        if link is not None:
            self._lines.serve(link, order.requests)

    def _on_withdraw(self, host: Host, order: events.Withdraw) -> None:
        link = host.links.get(order.peer)
        if link is None:
            return
        if order.requests is None:
            gone = list(link.outbox)
            link.outbox.clear()
        else:
            unwanted = set(order.requests)
            gone = [request for request in link.outbox if request in unwanted]
            link.outbox = [request for request in link.outbox if request not in unwanted]
        if order.reject and gone:
            self._tell(link, [Reject(*request) for request in gone])

    def _on_tell(self, host: Host, order: events.Tell) -> None:
        link = host.links.get(order.peer)
        if link is None:
            return
        messages = order.messages
        if host.free_rider:
            messages = [message for message in messages if not isinstance(message, GIFTS)]
        if messages:
            self._tell(link, list(messages))

    def _on_drop(self, host: Host, order: events.Drop) -> None:
        link = host.links.get(order.peer)
        if link is not None:
            self._close(link, order.reason)

    # ------------------------------------------------------------------------------------- messages

    def _tell(self, link: Link, messages: list[Message]) -> None:
        self._in_ticks(link.latency, self._arrive, link.far, events.MessagesReceived, messages)

    def _arrive(self, link: Link, kind: Callable[[int, Any], Fact], content: list[Any]) -> None:
        if not link.open:
            return
        if link.lent and kind is events.MessagesReceived:
            for message in content:
                if type(message) is Reject:
                    link.lent.pop((message.piece, message.begin, message.length), None)
        self.post(link.host, kind(link.number, content))

    def _post_if_here(self, host: Host, fact: Fact) -> None:
        if host.gone_at is None:
            self.post(host, fact)

    # ---------------------------------------------------------------------------------- connections

    def _announce(self, host: Host) -> None:
        if host.gone_at is not None:
            return
        here = list(self.present.values())
        given = self.chance.sample(here, min(PEERS_GIVEN, len(here)))
        addresses = [other.address for other in given if other is not host]
        if addresses:
            self.post(host, events.AddressesFound(addresses, "tracker"))
        self.at(REANNOUNCE_S, self._announce, host)

    def _connect(self, host: Host, address: Address) -> None:
        if host.gone_at is not None:
            return
        other = self._by_address.get(address)
        if other is None:
            self.post(host, events.DialFailed(address, "nobody there"))
            return
        ends = []
        for end in (host, other):
            end.peers_so_far += 1
            ends.append(Link(end, end.peers_so_far))
        near, far = ends
        near.far, far.far = far, near
        near.latency = far.latency = max(1, ceil((host.line.latency_s + other.line.latency_s) / 2 / TICK_S))
        for link, known, incoming in ((near, other.address, False), (far, None, True)):
            link.host.links[link.number] = link
            them = link.far.host
            self.post(
                link.host,
                events.PeerJoined(
                    link.number, known, them.peer_id, incoming, fast=True, extended=True, host=them.address[0]
                ),
            )

    def _close(self, link: Link, reason: str) -> None:
        for end in (link, link.far):
            if end.open:
                end.open = False
                end.far = NOWHERE
                end.outbox.clear()
                end.lent.clear()
                del end.host.links[end.number]
                if end.host.gone_at is None:
                    self.post(end.host, events.PeerLeft(end.number, reason))


_ORDERS: dict[type[Any], Callable[[Net, Host, Any], None]] = {
    events.Dial: Net._on_dial,
    events.Store: Net._on_store,
    events.Fetch: Net._on_fetch,
    events.Recall: Net._on_recall,
    events.Serve: Net._on_serve,
    events.Withdraw: Net._on_withdraw,
    events.Tell: Net._on_tell,
    events.Drop: Net._on_drop,
}
