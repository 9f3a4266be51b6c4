"""Who is in the virtual world: a host with its core, how it is connected, and its ends of connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from bench.sim.clock import TICK_S
from microtorrd.core.core import Core
from microtorrd.core.events import Address, BlockRequest, Fact
from microtorrd.core.slots import Slot


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
        self.outbox: list[BlockRequest] = []  # short, and there are thousands
        self.waiting = False  # it has its place among those that take turns on the uplink
        self.open = True


#: Where a closed connection leads: ends that know each other would never be freed.
NOWHERE = Link.__new__(Link)


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
