"""A core on the bench: facts go in, orders are sorted, wires and memory are kept account of.

Pieces are drawn as strings, a character a piece: `x` there, anything else missing. Every fact is followed by
`core.check()`, and every order is held against what the wires and the memory allow.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from microtorrd.core import events
from microtorrd.core.core import Core
from microtorrd.core.events import (
    BlocksReceived,
    Fact,
    MessagesReceived,
    Order,
    PeerJoined,
    PeerLeft,
    PieceCorrupt,
    PieceStored,
)
from microtorrd.core.settings import SwarmSettings, TorrentSettings
from microtorrd.core.slots import PieceBuffer, Slot
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.geometry import BLOCK_BYTES, Geometry
from microtorrd.proto.messages import BitfieldMessage, HaveAll, HaveNone, Message, Unchoke

INFO_HASH = b"\x22" * 20
OUR_ID = b"-MT0001-MMMMMMMMMMMM"

#: Blocks at a time of a peer that has shown something.
DEPTH = 16

T = TypeVar("T")


def bits(picture: str) -> Bitfield:
    """`x..x` is a bitfield of four pieces."""
    bitfield = Bitfield(len(picture))
    for piece, char in enumerate(picture):
        if char == "x":
            bitfield.set(piece)
    return bitfield


def peer_id(number: int) -> bytes:
    """Greater than ours for numbers of 500 and more."""
    return (b"-AA" if number < 500 else b"-ZZ") + b"%017d" % number


class Rig:
    """One core, its wires and its memory."""

    def __init__(
        self,
        have: str,
        *,
        blocks: int = 2,
        last_bytes: int | None = None,
        settings: SwarmSettings | None = None,
        torrent: TorrentSettings | None = None,
        memory: int = 1 << 30,
        id_hash: bool = False,
        seed: int = 1,
        start: bool = True,
        priorities: bytes | None = None,
        private: bool = False,
        zeros: tuple[tuple[int, int], ...] = (),
    ) -> None:
        pieces, piece_length = len(have), blocks * BLOCK_BYTES
        length = pieces * piece_length
        if last_bytes is not None:
            length += last_bytes - piece_length
        self.geometry = Geometry(length, piece_length, zeros)
        self.now = 100.0
        self.memory = memory
        self.borrowed = 0
        self.starved = False
        self.lent: dict[int, list[Slot]] = {}  # by open connection
        self.storing: dict[int, PieceBuffer] = {}
        self.wants_digests: dict[int, bool] = {}
        self.journal: list[Order] = []  # all orders so far
        self.core = Core(
            geometry=self.geometry,
            have=bits(have),
            settings=settings or SwarmSettings(),
            torrent=torrent or TorrentSettings(),
            lend=self._lend,
            chance=random.Random(seed),
            client="rig 1",
            listen_port=lambda: 6881,
            has_id_hash=id_hash,
            info_hash=INFO_HASH,
            private=private,
            peer_id=OUR_ID,
            name="thing",
            priorities=priorities,
        )
        if start:
            self.do(events.Started())

    # ---------------------------------------------------------------------------------------- facts

    def do(self, *facts: Fact, check: bool = True) -> list[Order]:
        """Hand in facts; returns the orders that followed."""
        for fact in facts:
            if isinstance(fact, PeerLeft):
                self.lent.pop(fact.peer, None)
            self.core.handle(fact, self.now)
            if check:
                self.core.check()
        orders, self.core.orders = self.core.orders, []
        for order in orders:
            self._carry_out(order)
        self.journal += orders
        return orders

    def tick(self, seconds: float = 1.0) -> list[Order]:
        """Let time pass, a second at a time."""
        orders: list[Order] = []
        while seconds > 0:
            self.now += min(seconds, 1.0)
            seconds -= 1.0
            orders += self.do(events.Ticked())
        return orders

    def connect(
        self,
        number: int,
        *,
        fast: bool = True,
        extended: bool = False,
        incoming: bool = True,
        address: events.Address | None = None,
        host: str | None = None,
        identity: bytes | None = None,
    ) -> list[Order]:
        """A connection whose handshake is done."""
        self.lent[number] = []
        return self.do(
            PeerJoined(
                number,
                address,
                peer_id(number) if identity is None else identity,
                incoming,
                fast,
                extended,
                host=host or f"10.1.{number >> 8}.{number & 255}",
            )
        )

    def say(self, number: int, *messages: Message) -> list[Order]:
        """The peer says these in one read."""
        return self.do(MessagesReceived(number, messages))

    def join(
        self,
        number: int,
        have: str = "",
        *,
        unchoke: bool = True,
        fast: bool = True,
        depth: int = DEPTH,
        **options: Any,
    ) -> list[Order]:
        """Connect a peer that has these pieces (all of them: "all") and perhaps unchokes us. So many blocks
        are asked of it at a time to begin with, 0: as many as of anybody new."""
        orders = self.connect(number, fast=fast, **options)
        peer = self.core.swarm.peers.get(number)
        if depth and peer is not None:
            peer.pipeline.depth = min(depth, peer.pipeline.limit)
        messages: list[Message] = []
        if have == "all":
            messages.append(
                HaveAll() if fast else BitfieldMessage(Bitfield.full(self.geometry.piece_count).to_bytes())
            )
        elif have:
            messages.append(BitfieldMessage(bits(have).to_bytes()))
        elif fast:
            messages.append(HaveNone())
        if unchoke:
            messages.append(Unchoke())
        return orders + self.say(number, *messages)

    def leave(self, number: int, *, fault: bool = False) -> list[Order]:
        return self.do(PeerLeft(number, "gone", fault))

    def deliver(self, number: int, slots: int | Sequence[Slot] = 1 << 30) -> list[Order]:
        """So many of the blocks asked of the peer arrive, the oldest first; or these."""
        lent = self.lent[number]
        chosen = list(lent[:slots]) if isinstance(slots, int) else list(slots)
        good, wasted = [], 0
        for slot in chosen:
            lent.remove(slot)
            if slot.filled_by is None:
                slot.filled_by = number
                good.append(slot)
            else:
                wasted += slot.length
        return self.do(BlocksReceived(number, good, wasted))

    def stored(self, *pieces: int) -> list[Order]:
        """The disk says that these are good; without pieces, all that are being stored."""
        return self.do(*(self._end_of_store(piece, good=True) for piece in pieces or tuple(self.storing)))

    def corrupt(self, piece: int, digests: Sequence[bytes] = ()) -> list[Order]:
        return self.do(self._end_of_store(piece, good=False, digests=digests))

    def _end_of_store(self, piece: int, *, good: bool, digests: Sequence[bytes] = ()) -> Fact:
        buffer = self.storing.pop(piece)
        self.borrowed -= len(buffer.memory)
        if good:
            asked = [b"good"] * self.geometry.block_count(piece) if self.wants_digests[piece] else ()
            return PieceStored(piece, asked)
        return PieceCorrupt(piece, digests or [b"bad"] * self.geometry.block_count(piece))

    # --------------------------------------------------------------------------------------- orders

    def _lend(self, size: int) -> memoryview | None:
        if self.borrowed + size > self.memory:
            self.starved = True
            return None
        self.borrowed += size
        return memoryview(bytearray(size))

    def _carry_out(self, order: Order) -> None:
        match order:
            case events.Fetch():
                lent = self.lent[order.peer]
                assert order.slots
                for slot in order.slots:
                    assert not any(slot is other for other in lent), "lent twice to the same wire"
                lent += order.slots
            case events.Recall():
                for slot in order.slots:
                    if order.peer in self.lent:
                        self.lent[order.peer] = [s for s in self.lent[order.peer] if s is not slot]
            case events.Drop():
                self.lent.pop(order.peer, None)
            case events.Store():
                self._assert_nobody_writes(order.buffer)
                assert order.buffer.piece not in self.storing
                self.storing[order.buffer.piece] = order.buffer
                self.wants_digests[order.buffer.piece] = order.want_digests
            case events.Release():
                self._assert_nobody_writes(order.buffer)
                self.borrowed -= len(order.buffer.memory)

    def _assert_nobody_writes(self, buffer: PieceBuffer) -> None:
        for number, slots in self.lent.items():
            for slot in slots:
                mine = slot.view.obj is buffer.view.obj and slot.filled_by is None
                assert not mine, f"peer {number} may still write to memory that is given away"

    # -------------------------------------------------------------------------------------- looking

    def asked(self, number: int) -> list[tuple[int, int]]:
        """What the peer is asked for, as (piece, number of the block)."""
        return [(slot.piece, slot.begin // BLOCK_BYTES) for slot in self.lent.get(number, [])]

    def pieces_asked(self, number: int) -> set[int]:
        return {piece for piece, _ in self.asked(number)}

    @property
    def state(self) -> str:
        return self.core.state_shown()[0]

    def peer(self, number: int) -> Any:
        """The core's own record of the peer."""
        return self.core.swarm.peers[number]


def of(orders: Iterable[Order], kind: type[T]) -> list[T]:
    """The orders of this kind."""
    return [order for order in orders if isinstance(order, kind)]


def told(orders: Iterable[Order], number: int) -> list[Message]:
    """All messages to the peer."""
    return [
        message for order in of(orders, events.Tell) if order.peer == number for message in order.messages
    ]


def dropped(orders: Iterable[Order]) -> dict[int, str]:
    """Who was dropped, and why."""
    return {order.peer: order.reason for order in of(orders, events.Drop)}


def noted(orders: Iterable[Order], kind: str) -> list[dict[str, Any]]:
    """The facts of all notes of this kind."""
    return [order.facts for order in of(orders, events.Emit) if order.kind == kind]
