"""Levers of the peer wire and of the swarm: receiving, sending, asking, telling."""

from __future__ import annotations

from typing import Any

from bench.levers.swaps import Lever, Swap, around

BLOCK_BYTES = 16 << 10

#: Blocks that are asked at a time where the pipeline does not follow the rate: what most clients allow.
FIXED_BLOCKS = 250


def small_blocks(self: Any) -> int:
    """Of everybody only blocks of the usual size."""
    return BLOCK_BYTES


def any_byte(self: Any, came_bytes: int) -> int:
    """Whatever has come is worth a read."""
    return 1


def in_a_row(original: Any, wire: Any, limit: int | None = None) -> Any:
    """All that is read goes through the common memory."""
    wire._unplanned = 1
    return original(wire, limit)


def one_block(original: Any, batch: Any, queue: Any, most_bytes: int, geometry: Any) -> None:
    """Each send is one block of the usual size."""
    original(batch, queue, BLOCK_BYTES, geometry)


def not_asked(self: Any) -> bool:
    """The loop is asked each time whether there is room."""
    return False


class Pairs:
    """The vector of a batch, made for each."""

    def __init__(self, buffer: Any) -> None:
        self._places, self._payload = buffer.places, buffer.payload

    def __getitem__(self, wanted: slice) -> list[memoryview]:
        pairs = []
        for at in range(wanted.stop // 2):
            pairs += (self._places[at], self._payload[at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES])
        return pairs


def pairs_each_time(original: Any, buffer: Any) -> None:
    """No vector is kept ready."""
    original(buffer)
    buffer.pairs = Pairs(buffer)


def fixed_from_the_start(original: Any, pipeline: Any, limit: int, start: int = FIXED_BLOCKS) -> None:
    """As much as it will ever be is asked at once."""
    original(pipeline, limit, max(start, FIXED_BLOCKS))


def fixed_depth(original: Any, pipeline: Any, now: float) -> None:
    """The rate is measured, and nothing follows from it."""
    depth = pipeline.depth
    original(pipeline, now)
    pipeline.depth = depth


def one_by_one(original: Any, verdicts: Any, piece: int) -> None:
    """Each `have` is a message of its own."""
    verdicts._heralds = None
    original(verdicts, piece)


def told_like_all(original: Any, conversation: Any, peer: Any) -> None:
    """Seeders hear of each piece, too."""
    original(conversation, peer)
    peer.is_told = True


def nothing_to_hand_out(self: Any) -> bool:
    """Leechers choose by themselves, the rarest first."""
    return False


LEVERS = (
    Lever(
        "large-blocks",
        "two microtorrds that are quick ask each other for 128 KiB at a time, not 16",
        (Swap("microtorrd.core.peer:Peer.block_bytes", small_blocks),),
        ("pair.rate", "pair.cpu"),
    ),
    Lever(
        "planned-reads",
        "blocks go from the socket into their places with one vectored read, headers apart",
        (Swap("microtorrd.proto.wire:Wire.receive_buffers", make=around(in_a_row)),),
        ("pair.cpu", "from-libtorrent.leecher"),
    ),
    Lever(
        "gulps",
        "of a peer that sends quickly 256 KiB are awaited at a time",
        (Swap("microtorrd.net.peerwire:PeerWire._worth_reading", any_byte),),
        ("from-libtorrent.leecher", "pair.cpu"),
    ),
    Lever(
        "batches",
        "up to 1 MiB of blocks are sent with one call",
        (Swap("microtorrd.net.batch:Batch.fill", make=around(one_block)),),
        ("crowd.alone", "crowd.cpu"),
    ),
    Lever(
        "ready-vectors",
        "the vector of a batch of usual blocks is there before it is needed",
        (Swap("microtorrd.net.batch:SendBuffer.__init__", make=around(pairs_each_time)),),
        ("crowd.alone", "crowd.cpu"),
    ),
    Lever(
        "turns",
        "of hundreds that could send so many do as fit into 4 ms, then others have their turn",
        (Swap("microtorrd.net.turns:TURN_S", 3600.0),),
        ("crowd.stall", "crowd.together"),
        besides="the hub's turns stay short",
    ),
    Lever(
        "asked-sockets",
        "the socket itself is asked whether there is room, not the loop",
        (Swap("microtorrd.net.stream:TcpStream.is_writable", not_asked),),
        ("crowd.together", "crowd.alone"),
    ),
    Lever(
        "pipeline",
        "as much is asked of a peer as it sends in a second, not always 4 MiB",
        (
            Swap("microtorrd.core.peer:Pipeline.__init__", make=around(fixed_from_the_start)),
            Swap("microtorrd.core.peer:Pipeline._end_round", make=around(fixed_depth)),
        ),
        ("pair.rate", "fanout.time", "fanout.copies"),
        besides="what a slow peer was asked for nobody else is asked for",
    ),
    Lever(
        "common-haves",
        "what came in one turn is told to all in one message, made once",
        (Swap("microtorrd.core.verdicts:Verdicts._herald", make=around(one_by_one)),),
        ("core.stored",),
    ),
    Lever(
        "unheard-seeders",
        "a seeder hears of our pieces only when it hands its own out",
        (Swap("microtorrd.core.conversation:Conversation._has_everything", make=around(told_like_all)),),
        ("small-pieces.cpu",),
    ),
    Lever(
        "handing-out",
        "a seeder suggests to each taker what nobody else was given",
        (Swap("microtorrd.core.spreading:Spreading._active", nothing_to_hand_out),),
        ("fanout.copies", "fanout.time"),
    ),
)
