"""A slot as a wire needs it."""

from __future__ import annotations

import struct

from microtorrd.proto.wire import piece_header


class Slot:
    """In memory of its own."""

    def __init__(self, piece: int, begin: int, length: int) -> None:
        self.piece, self.begin, self.length = piece, begin, length
        self.view = memoryview(bytearray(length))
        self.filled_by: int | None = None
        self.claimed_by: int | None = None

    @property
    def name(self) -> tuple[int, int, int]:
        """The block that belongs there."""
        return self.piece, self.begin, self.length

    def frame(self, payload: bytes | None = None) -> bytes:
        """The message that brings it."""
        return piece_header(*self.name) + (self.content if payload is None else payload)

    @property
    def content(self) -> bytes:
        """What a good peer sends for this block: nothing that any other block begins or ends with."""
        row = struct.pack(">III", self.piece, self.begin, self.length)
        return (row * (self.length // len(row) + 1))[: self.length]
