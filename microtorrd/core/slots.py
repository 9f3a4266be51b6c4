"""The memory of pieces that are fetched: a buffer for each piece, and in it a slot for each block.

Rules: a slot is lent to one or, in the end game, several peer wires with `Fetch`, until it is filled or taken
back with `Recall`; who fills it first closes it. A buffer is the core's until `Store`, then the disk job's.
"""

from __future__ import annotations


class PieceBuffer:
    """The memory of one piece while it is fetched. Owned by the core until `Store`, then by the disk job."""

    __slots__ = ("memory", "piece", "size", "view")

    def __init__(self, piece: int, size: int, memory: memoryview) -> None:
        self.piece = piece
        self.size = size  # bytes, at most len(memory)
        self.memory = memory  # what the lender lent: goes back to it whole
        self.view = memory[:size]


class Slot:
    """Where one block will lie. Lent to one or, in the end game, several peer wires with `Fetch`.

    The first wire whose block arrives copies the payload into `view`, and sets `filled_by` to its peer; from
    then on the slot is closed, and the same block from another peer is waste. Nobody writes to a closed slot.

    A wire that has part of a block in `view` already sets `claimed_by` to its peer: another wire that the
    slot is lent to collects its copy elsewhere, so that a block is never made of the bytes of two peers.
    """

    __slots__ = ("begin", "claimed_by", "filled_by", "length", "piece", "view")

    def __init__(self, piece: int, begin: int, length: int, view: memoryview) -> None:
        self.piece = piece
        self.begin = begin
        self.length = length
        self.view = view
        self.filled_by: int | None = None
        self.claimed_by: int | None = None
