"""A swarm of real cores in one process under a virtual clock: facts and orders, no sockets.

The model of a host: an uplink that sends one block after the other, taking turns between its connections; a
downlink likewise; a latency; a disk that takes its time; memory for pieces. Messages cost no bandwidth. It
is deterministic: the same seeds give the same run.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Any

from microtorrd.core import events
from microtorrd.core.core import Core
from microtorrd.core.events import BlockRequest, Fact
from microtorrd.core.settings import SwarmSettings, TorrentSettings
from microtorrd.core.slots import Slot
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.messages import Cancel, Message, Reject

INFO_HASH = b"\x11" * 20

#: What all pieces of all hosts lie in: nobody looks at the bytes.
SCRATCH = memoryview(bytearray(1 << 20))


class Link:
    """One end of a connection."""

    def __init__(self, host: Host, number: int) -> None:
        self.host = host
        self.number = number  # the peer, as this end's core calls it
        self.far: Link
        self.lent: dict[BlockRequest, Slot] = {}
        self.outbox: deque[BlockRequest] = deque()
        self.open = True


@dataclass
class Behaviour:
    """What a host is like, beside its core."""

    up: float = inf  # bytes per second
    down: float = inf
    latency_s: float = 0.001
    disk_s: float = 0.001
    memory: int = 1 << 40
    lies: float = 0.0  # share of its blocks that are wrong
    fast: float = 1  # speaks the fast extension


@dataclass
class Host:
    """A core and its circumstances."""

    name: str
    core: Core
    net: Net
    like: Behaviour
    address: events.Address
    peer_id: bytes
    links: dict[int, Link] = field(default_factory=dict)
    turn: deque[Link] = field(default_factory=deque)
    sending: bool = False
    down_free_at: float = 0.0
    borrowed: int = 0
    starved: bool = False
    bad: set[tuple[int, int]] = field(default_factory=set)  # (piece, begin) of blocks that are wrong
    sent_blocks: dict[BlockRequest, int] = field(default_factory=dict)
    sent_bytes: int = 0
    notes: list[events.Emit] = field(default_factory=list)
    announced: list[str] = field(default_factory=list)
    bans: list[events.Ban] = field(default_factory=list)
    frozen: bool = False
    backlog: list[Fact] = field(default_factory=list)
    completed_at: float | None = None
    peers_so_far: int = 0

    @property
    def complete(self) -> bool:
        return self.core.have.complete

    def lend(self, size: int) -> memoryview | None:
        if self.borrowed + size > self.like.memory:
            self.starved = True
            return None
        self.borrowed += size
        return SCRATCH[:size]


class Net:
    """The clock, the hosts and everything that is under way between them."""

    def __init__(
        self,
        *,
        pieces: int,
        piece_length: int = 1 << 18,
        length: int | None = None,
        seed: int = 1,
        audited: bool = False,
    ) -> None:
        self.geometry = Geometry(pieces * piece_length if length is None else length, piece_length)
        self.now = 0.0
        self.hosts: list[Host] = []
        self.audited = audited
        self.chance = random.Random(seed)
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = 0

    # ------------------------------------------------------------------------------------- building

    def host(
        self,
        *,
        have: Bitfield | None = None,
        seed: bool = False,
        settings: SwarmSettings | None = None,
        torrent: TorrentSettings | None = None,
        confirm: bool = False,
        **like: float,
    ) -> Host:
        """Add a host and start its torrent."""
        number = len(self.hosts)
        count = self.geometry.piece_count
        host: Host
        core = Core(
            geometry=self.geometry,
            have=have or (Bitfield.full(count) if seed else Bitfield(count)),
            settings=settings or SwarmSettings(),
            torrent=torrent or TorrentSettings(),
            lend=lambda size: host.lend(size),  # noqa: PLW0108 - the host is made after its core
            chance=random.Random(self.chance.random()),
            client="sim",
            listen_port=7000,
            has_id_hash=confirm,
            info_hash=INFO_HASH,
            peer_id=b"-SIM-" + b"%015d" % number,
        )
        behaviour = Behaviour(**like)  # type: ignore[arg-type]
        host = Host(
            f"host{number}",
            core,
            self,
            behaviour,
            (f"10.0.{number >> 8}.{number & 255}", 7000),
            b"-SIM-" + b"%015d" % number,
        )
        self.hosts.append(host)
        self.post(host, events.Started())
        self.at(self.chance.random(), self._tick, host)
        return host

    def introduce(self, host: Host, *others: Host) -> None:
        """Tell a host where others are, as a tracker would."""
        addresses = [other.address for other in others if other is not host]
        self.post(host, events.AddressesFound(addresses, "tracker"))

    def introduce_all(self) -> None:
        """A tracker: whoever comes later hears of those before."""
        for at, host in enumerate(self.hosts):
            if at:
                self.introduce(host, *self.hosts[:at])

    # --------------------------------------------------------------------------------------- running

    def at(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> None:
        self._serial += 1
        heappush(self._queue, (self.now + delay_s, self._serial, call, arguments))

    def run(self, seconds: float = 3600.0, until: Callable[[], bool] | None = None) -> float:
        """Let time pass until the condition holds (looked at after each event). Returns the time."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, call, arguments = heappop(self._queue)
            call(*arguments)
            if until is not None and until():
                return self.now
        assert until is None, f"still not so after {seconds} s"
        self.now = end
        return self.now

    def run_to_completion(self, seconds: float = 3600.0) -> float:
        """Until every host has everything."""
        return self.run(seconds, until=lambda: all(host.complete for host in self.hosts))

    def post(self, host: Host, *facts: Fact) -> None:
        if host.frozen:
            host.backlog.extend(facts)
            return
        core = host.core
        for fact in facts:
            core.handle(fact, self.now)
            if self.audited:
                core.check()
        orders, core.orders = core.orders, []
        for order in orders:
            self._carry_out(host, order)
        if host.complete and host.completed_at is None:
            host.completed_at = self.now

    def freeze(self, host: Host) -> None:
        """As SIGSTOP does: it keeps its connections and does nothing."""
        host.frozen = True

    def thaw(self, host: Host) -> None:
        host.frozen = False
        facts, host.backlog = host.backlog, []
        self.post(host, *facts)
        self._pump(host)

    def kill(self, host: Host) -> None:
        """It is gone without a word; its connections break."""
        for link in list(host.links.values()):
            self._close(link, "killed")
        host.frozen = True
        self.hosts.remove(host)

    def _tick(self, host: Host) -> None:
        if host in self.hosts:
            if not host.core.idle:
                self.post(host, events.Ticked())
            self.at(1.0, self._tick, host)

    # -------------------------------------------------------------------------------------- orders

    def _carry_out(self, host: Host, order: events.Order) -> None:
        match order:
            case events.Emit():
                host.notes.append(order)
            case events.Announce():
                host.announced.append(order.event)
            case events.Ban():
                host.bans.append(order)
            case events.Dial():
                self.at(2 * host.like.latency_s, self._connect, host, order.address)
            case events.Store():
                self.at(host.like.disk_s, self._stored, host, order)
            case events.Release():
                self._give_back(host, len(order.buffer.memory))
            case events.Check():
                pieces = range(self.geometry.piece_count) if order.pieces is None else order.pieces
                good = [piece for piece in pieces if host.core.have[piece]]
                bad = [piece for piece in pieces if not host.core.have[piece]]
                self.at(host.like.disk_s, self.post, host, events.PiecesChecked(good, bad, True))
            case events.Confirm():
                self.at(host.like.disk_s, self.post, host, events.ContentConfirmed(True))
            case events.Cease():
                return
            case _:
                link = host.links.get(order.peer)
                if link is not None:
                    self._to_wire(host, link, order)

    def _to_wire(self, host: Host, link: Link, order: Any) -> None:
        match order:
            case events.Fetch():
                requests = [(slot.piece, slot.begin, slot.length) for slot in order.slots]
                link.lent.update(zip(requests, order.slots, strict=True))
                self._send(link, events.RequestsReceived, requests)
            case events.Recall():
                recalled = []
                for slot in order.slots:
                    if link.lent.get((slot.piece, slot.begin, slot.length)) is slot:
                        del link.lent[slot.piece, slot.begin, slot.length]
                        recalled.append(Cancel(slot.piece, slot.begin, slot.length))
                if order.cancel and recalled:
                    self._send(link, events.MessagesReceived, recalled)
            case events.Serve():
                link.outbox.extend(order.requests)
                if link not in host.turn:
                    host.turn.append(link)
                self._pump(host)
            case events.Withdraw():
                gone = (
                    list(link.outbox)
                    if order.requests is None
                    else [request for request in order.requests if request in link.outbox]
                )
                for request in gone:
                    link.outbox.remove(request)
                if order.reject and gone:
                    self._send(link, events.MessagesReceived, [Reject(*request) for request in gone])
            case events.Tell():
                self._send(link, events.MessagesReceived, list(order.messages))
            case events.Drop():
                self._close(link, order.reason)

    def _send(self, link: Link, kind: Callable[[int, Any], Fact], content: list[Any]) -> None:
        self.at(link.host.like.latency_s, self._arrive, link.far, kind, content)

    def _arrive(self, link: Link, kind: Callable[[int, Any], Fact], content: list[Message]) -> None:
        if link.open:
            for message in content:
                if isinstance(message, Reject):
                    link.lent.pop((message.piece, message.begin, message.length), None)
            self.post(link.host, kind(link.number, content))

    # --------------------------------------------------------------------------------- connections

    def _connect(self, host: Host, address: events.Address) -> None:
        other = next((other for other in self.hosts if other.address == address), None)
        if other is None or other.frozen or host.frozen:
            self.post(host, events.DialFailed(address, "nobody there"))
            return
        ends = []
        for end in (host, other):
            end.peers_so_far += 1
            ends.append(Link(end, end.peers_so_far))
            end.links[end.peers_so_far] = ends[-1]
        ends[0].far, ends[1].far = ends[1], ends[0]
        fast = bool(host.like.fast and other.like.fast)
        for link, address_known, incoming in ((ends[0], other.address, False), (ends[1], None, True)):
            far = link.far.host
            self.post(
                link.host,
                events.PeerJoined(
                    link.number, address_known, far.peer_id, incoming, fast, True, host=far.address[0]
                ),
            )

    def _close(self, link: Link, reason: str) -> None:
        for end in (link, link.far):
            if end.open:
                end.open = False
                end.outbox.clear()
                del end.host.links[end.number]
                delay = 0.0 if end is link else link.host.like.latency_s
                self.at(delay, self.post, end.host, events.PeerLeft(end.number, reason))

    # --------------------------------------------------------------------------------------- blocks

    def _pump(self, host: Host) -> None:
        """Send the next block, of the connection whose turn it is."""
        if host.sending or host.frozen:
            return
        while host.turn:
            link = host.turn.popleft()
            if link.open and link.outbox:
                request = link.outbox.popleft()
                host.turn.append(link)
                host.sending = True
                self.at(request[2] / host.like.up, self._sent, host, link, request)
                return

    def _sent(self, host: Host, link: Link, request: BlockRequest) -> None:
        host.sending = False
        if link.open:
            host.sent_bytes += request[2]
            host.sent_blocks[request] = host.sent_blocks.get(request, 0) + 1
            far = link.far.host
            ready = max(self.now + host.like.latency_s, far.down_free_at) + request[2] / far.like.down
            far.down_free_at = ready
            wrong = bool(host.like.lies) and self.chance.random() < host.like.lies
            self.at(ready - self.now, self._received, link.far, request, wrong)
            self.post(host, events.BlocksSent(link.number, 1, request[2]))
        self._pump(host)

    def _received(self, link: Link, request: BlockRequest, wrong: bool) -> None:
        if not link.open:
            return
        slot = link.lent.pop(request, None)
        if slot is None or slot.filled_by is not None:
            self.post(link.host, events.BlocksReceived(link.number, (), request[2]))
            return
        slot.filled_by = link.number
        if wrong:
            link.host.bad.add((slot.piece, slot.begin))
        self.post(link.host, events.BlocksReceived(link.number, (slot,)))

    def _stored(self, host: Host, order: events.Store) -> None:
        piece = order.buffer.piece
        digests = []
        for begin, _ in self.geometry.blocks(piece):
            digests.append(b"bad" if (piece, begin) in host.bad else b"good")
        host.bad.difference_update([(piece, begin) for begin, _ in self.geometry.blocks(piece)])
        if b"bad" in digests:
            self.post(host, events.PieceCorrupt(piece, digests))
        else:
            self.post(host, events.PieceStored(piece, digests if order.want_digests else ()))
        self._give_back(host, len(order.buffer.memory))

    def _give_back(self, host: Host, size: int) -> None:
        host.borrowed -= size
        if host.starved:
            host.starved = False
            self.at(0.0, self.post, host, events.MemoryFreed())
