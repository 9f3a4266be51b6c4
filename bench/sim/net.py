"""The virtual world: hosts with real cores, links with a model of the internet, a tracker, a clock.

Time goes in ticks of `TICK_S`. What a host was sent since its last tick it hears in one batch, as a daemon
hears what one read of a socket brings; then its orders are carried out.

The model of a host and its links:
- an uplink of so many bytes per second serves the connections that have something to send in turns, a block
  each (as sockets do, and as `Serve` orders it within a connection);
- a downlink that takes one block after the other;
- a latency one way that is the sum of both ends' shares, rounded up to ticks; nothing is faster than a tick;
- loss as TCP shows it to its users: a lost block costs the uplink twice and comes two latencies later;
- messages and requests cost no bandwidth; a disk takes one tick for a piece.

The tracker gives `PEERS_GIVEN` addresses by lot whenever a host starts, and again every `REANNOUNCE_S`.

Rules: nothing depends on the machine's clock or on the order of sets; chance comes from the seed alone.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

from microtorrd.core import events
from microtorrd.core.core import Core
from microtorrd.core.events import Address, BlockRequest, Fact
from microtorrd.core.settings import SwarmSettings, TorrentSettings
from microtorrd.core.slots import Slot
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.geometry import BLOCK_BYTES, Geometry
from microtorrd.proto.messages import AllowedFast, Cancel, Message, Reject, Unchoke

TICK_S = 0.1
TICKS_PER_S = round(1 / TICK_S)

#: What a tracker hands out at a time, and how often it is asked (virtual seconds).
PEERS_GIVEN = 50
REANNOUNCE_S = 60.0

#: What all pieces of all hosts lie in: nobody looks at the bytes.
SCRATCH = memoryview(bytearray(1 << 20))

TICKED = events.Ticked()
INFO_HASH = b"\x11" * 20

#: What a free rider's wire never sends.
GIFTS = (Unchoke, AllowedFast)


@dataclass(frozen=True, slots=True)
class Line:
    """How a host is connected: bytes per second, seconds, and the share of blocks that are lost."""

    up: float = inf
    down: float = inf
    latency_s: float = TICK_S
    loss: float = 0.0


class Link:
    """One end of a connection."""

    __slots__ = ("far", "host", "latency", "lent", "number", "open", "outbox", "waiting")

    def __init__(self, host: Host, number: int) -> None:
        self.host = host
        self.number = number  # the peer, as this end's core calls it
        self.far = self
        self.latency = 1  # ticks
        self.lent: dict[BlockRequest, Slot] = {}
        self.outbox: deque[BlockRequest] = deque()
        self.waiting = False  # it has its place among those that take turns on the uplink
        self.open = True


class Host:
    """A core and its circumstances."""

    __slots__ = (
        "address",
        "completed_at",
        "copies",
        "core",
        "credit",
        "down_free_at",
        "free_rider",
        "gone_at",
        "inbox",
        "kind",
        "line",
        "links",
        "number",
        "on_complete",
        "peer_id",
        "peers_so_far",
        "phase",
        "received_bytes",
        "sent_bytes",
        "started_at",
        "turn",
    )

    def __init__(self, number: int, line: Line, kind: str, started_at: float) -> None:
        self.number = number
        self.kind = kind  # what the scenario calls it
        self.line = line
        self.core: Core
        self.address: Address = (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 7000)
        self.peer_id = b"-SIM-%015d" % number
        self.links: dict[int, Link] = {}
        self.peers_so_far = 0
        self.turn: deque[Link] = deque()
        self.inbox: list[Fact] = []
        self.credit = 0.0  # bytes that the uplink may send now
        self.down_free_at = 0.0
        self.phase = 0  # the tick of each second at which its core hears of time
        self.free_rider = False
        self.sent_bytes = 0
        self.received_bytes = 0
        self.copies: list[int] | None = None  # blocks sent of each piece, where somebody wants to know
        self.started_at = started_at
        self.completed_at: float | None = None
        self.gone_at: float | None = None
        self.on_complete: Callable[[Host], None] | None = None

    @property
    def progress(self) -> float:
        """0 to 1."""
        have = self.core.have
        return have.count / len(have)

    @property
    def took_s(self) -> float:
        """From its start to its completion; infinite when it has not come to that."""
        return inf if self.completed_at is None else self.completed_at - self.started_at


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
        self.chance = random.Random(seed)
        self.tick = 0
        self.hosts: list[Host] = []  # all that there ever were, by number
        self.present: dict[int, Host] = {}  # those that are here, by number
        self.facts = 0  # handled by all cores
        self._by_address: dict[Address, Host] = {}
        self._due: dict[int, list[tuple[Callable[..., None], tuple[Any, ...]]]] = {}
        self._sending: dict[Host, None] = {}
        self._hearing: dict[Host, None] = {}
        self._phases: list[dict[Host, None]] = [{} for _ in range(TICKS_PER_S)]

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self.tick * TICK_S

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
        self._sending.pop(host, None)
        self._hearing.pop(host, None)

    # --------------------------------------------------------------------------------------- running

    def at(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call this after a time, at the next tick at the earliest."""
        self._in_ticks(ceil(delay_s / TICK_S), call, *arguments)

    def run(self, until: Callable[[], bool], *, most_s: float) -> bool:
        """Let time pass until the condition holds (looked at each tick). False: it never did."""
        end = self.tick + round(most_s / TICK_S)
        while self.tick < end:
            self.step()
            if until():
                return True
        return False

    def step(self) -> None:
        """One tick."""
        self.tick += 1
        for call, arguments in self._due.pop(self.tick, ()):
            call(*arguments)
        for host in self._phases[self.tick % TICKS_PER_S]:
            if not host.core.idle:
                host.inbox.append(TICKED)
                self._hearing[host] = None
        while self._hearing:
            hearing, self._hearing = self._hearing, {}
            for host in hearing:
                if host.gone_at is None:
                    self._hear(host)
        for host in list(self._sending):
            self._send_blocks(host)

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

    def _in_ticks(self, ticks: int, call: Callable[..., None], *arguments: Any) -> None:
        due = self.tick + max(1, ticks)
        calls = self._due.get(due)
        if calls is None:
            calls = self._due[due] = []
        calls.append((call, arguments))

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
        if link is None:
            return
        link.outbox.extend(order.requests)
        if not link.waiting:
            link.waiting = True
            host.turn.append(link)
        if host not in self._sending:
            self._sending[host] = None
            host.credit = 0.0

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
            link.outbox = deque(request for request in link.outbox if request not in unwanted)
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
                end.outbox.clear()
                end.lent.clear()
                del end.host.links[end.number]
                if end.host.gone_at is None:
                    self.post(end.host, events.PeerLeft(end.number, reason))

    # --------------------------------------------------------------------------------------- blocks

    def _send_blocks(self, host: Host) -> None:
        """What the uplink carries in one tick: a block of each connection in turn."""
        line = host.line
        turn = host.turn
        credit = min(host.credit, BLOCK_BYTES) + line.up * TICK_S
        sent: dict[Link, list[BlockRequest]] = {}
        while turn:
            link = turn[0]
            if not link.outbox:  # it has sent all, or was closed
                link.waiting = False
                turn.popleft()
                continue
            request = link.outbox[0]
            cost = request[2]
            if credit < cost:
                break
            credit -= cost
            del link.outbox[0]
            turn.rotate(-1)
            if link in sent:
                sent[link].append(request)
            else:
                sent[link] = [request]
        host.credit = credit
        for link, requests in sent.items():
            self._put_on_the_way(host, link, requests)
        if not turn:
            del self._sending[host]

    def _put_on_the_way(self, host: Host, link: Link, requests: list[BlockRequest]) -> None:
        size = sum(request[2] for request in requests)
        host.sent_bytes += size
        if host.copies is not None:
            for piece, _, _ in requests:
                host.copies[piece] += 1
        self.post(host, events.BlocksSent(link.number, len(requests), size))
        loss = 1 - (1 - host.line.loss) * (1 - link.far.host.line.loss)
        if loss:
            lost = [request for request in requests if self.chance.random() < loss]
            if lost:
                host.credit -= sum(request[2] for request in lost)
                self._to_downlink(link.far, lost, link.latency * 3)
                requests = [request for request in requests if request not in lost]
        if requests:
            self._to_downlink(link.far, requests, link.latency)

    def _to_downlink(self, link: Link, requests: list[BlockRequest], latency: int) -> None:
        """Here the blocks come after the latency, when those before them are through."""
        host = link.host
        ready = max((self.tick + latency) * TICK_S, host.down_free_at)
        ready += sum(request[2] for request in requests) / host.line.down
        host.down_free_at = ready
        # Half a tick early is as good as half a tick late: on the average the rate is right.
        self._in_ticks(max(latency, round(ready / TICK_S) - self.tick), self._receive, link, requests)

    def _receive(self, link: Link, requests: list[BlockRequest]) -> None:
        if not link.open:
            return
        slots: list[Slot] = []
        wasted_bytes = wasted_blocks = 0
        for request in requests:
            slot = link.lent.pop(request, None)
            if slot is None or slot.filled_by is not None:
                wasted_bytes += request[2]
                wasted_blocks += 1
            else:
                slot.filled_by = link.number
                slots.append(slot)
        host = link.host
        host.received_bytes += sum(request[2] for request in requests)
        self.post(host, events.BlocksReceived(link.number, slots, wasted_bytes, wasted_blocks))


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
