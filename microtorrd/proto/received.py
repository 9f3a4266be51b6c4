"""What the receiving side of the wire is lent, and what it delivers: slots, memory, groups of messages."""

from __future__ import annotations

from typing import Generic, NamedTuple, Protocol, TypeVar

from microtorrd.proto.frames import PIECE_HEADER_BYTES
from microtorrd.proto.messages import Message

#: The most that one read is planned to bring, in bytes and blocks: each read costs a round through everything
#: that follows from it, so a pair of daemons needs 4 % less CPU with 2 MiB than with 1.
PLAN_BYTES = 1 << 21
PLAN_BLOCKS = 128

#: All wires together plan for about as much in one turn of the hub, but none for less than the second figure.
TURN_BYTES = 1 << 25
PLAN_LEAST_BYTES = 1 << 19

#: Memory for a stream of blocks that do not come as planned.
TAIL_BYTES = 1 << 20

#: Of it handed out while no payload is expected there. It bounds how many small messages one read can bring
#: (13,000 haves), and so for how long one peer can keep the others waiting.
QUIET_BYTES = 65536


class Lent(Protocol):
    """A slot as the wire sees it: which block, and where it will lie."""

    piece: int
    begin: int
    length: int
    view: memoryview
    filled_by: int | None
    claimed_by: int | None


S = TypeVar("S", bound=Lent)


class Blocks(Generic[S]):
    """Blocks that now lie in their slots, and payload that nobody wanted."""

    __slots__ = ("slots", "wasted_blocks", "wasted_bytes")

    def __init__(self) -> None:
        self.slots: list[S] = []
        self.wasted_blocks = 0
        self.wasted_bytes = 0


class Requests(NamedTuple):
    """Blocks the peer asks for (piece, begin, length): attacker-controlled numbers."""

    requests: list[tuple[int, int, int]]


class Messages(NamedTuple):
    """All other messages."""

    messages: list[Message]


class Received(Generic[S]):
    """What one read completed, in the order of the stream; neighbours of a kind share a group."""

    __slots__ = ("groups",)

    def __init__(self) -> None:
        self.groups: list[Blocks[S] | Requests | Messages] = []

    def blocks(self) -> Blocks[S]:
        """The group that a block at this point belongs to."""
        last = self.groups[-1] if self.groups else None
        if isinstance(last, Blocks):
            return last
        blocks: Blocks[S] = Blocks()
        self.groups.append(blocks)
        return blocks

    def requests(self) -> list[tuple[int, int, int]]:
        """Where a request at this point belongs."""
        last = self.groups[-1] if self.groups else None
        if not isinstance(last, Requests):
            last = Requests([])
            self.groups.append(last)
        return last.requests

    def add(self, message: Message) -> None:
        """Add any other message."""
        last = self.groups[-1] if self.groups else None
        if isinstance(last, Messages):
            last.messages.append(message)
        else:
            self.groups.append(Messages([message]))


class ReceiveMemory:
    """What all wires of a process receive into: used only between a read and the parse right after it.

    `plan_bytes` is what one of them reads at a time, at most: less the more they are.
    """

    __slots__ = ("_wires", "headers", "places", "plan_bytes", "tail")

    def __init__(self) -> None:
        self._wires = 0
        self.plan_bytes = PLAN_BYTES
        self.tail = memoryview(bytearray(TAIL_BYTES))
        self.headers = memoryview(bytearray(PIECE_HEADER_BYTES * PLAN_BLOCKS))
        self.places = [
            self.headers[at : at + PIECE_HEADER_BYTES]
            for at in range(0, len(self.headers), PIECE_HEADER_BYTES)
        ]

    def joined(self, wires: int) -> None:
        """So many wires more (less, where negative) share it."""
        self._wires += wires
        self.plan_bytes = max(PLAN_LEAST_BYTES, min(PLAN_BYTES, TURN_BYTES // max(1, self._wires)))
