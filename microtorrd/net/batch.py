"""Batches of blocks on their way out: shared memory for their payload, and the vector that is sent.

Owns the send memory of a process: few large buffers, lent to a connection only between the read of a batch
and the write right after it, so that thousands of connections need no more of it than one. Only while a disk
thread reads cold pages is a buffer away for longer; who finds none is woken when one comes back, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from microtorrd.core.events import BlockRequest
from microtorrd.net.turns import Turns
from microtorrd.proto.frames import PIECE, PIECE_HEADER_BYTES, pack_piece_header_into
from microtorrd.proto.geometry import BLOCK_BYTES, Geometry

#: The most payload and blocks in one send. Of 1 MiB they save a pair 2 % of its CPU.
BATCH_BYTES = 1 << 19
BATCH_BLOCKS = BATCH_BYTES // BLOCK_BYTES

#: How many batches may be read from the disk or sent at a time, in the whole process.
BUFFERS = 16


class SendBuffer:
    """Memory for the payload and the headers of one batch."""

    __slots__ = ("headers", "pairs", "payload", "places")

    def __init__(self) -> None:
        self.payload = memoryview(bytearray(BATCH_BYTES))
        self.headers = memoryview(bytearray(BATCH_BLOCKS * PIECE_HEADER_BYTES))
        self.places = [
            self.headers[at * PIECE_HEADER_BYTES : (at + 1) * PIECE_HEADER_BYTES]
            for at in range(BATCH_BLOCKS)
        ]
        #: Header, payload, header, payload … for blocks of the usual size: most batches are its start.
        self.pairs: list[memoryview] = []
        for at, place in enumerate(self.places):
            self.pairs += (place, self.payload[at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES])


class SendMemory:
    """The send buffers of a process, made when first needed, and kept; and whose turn it is to use them."""

    __slots__ = ("_free", "_to_make", "_waiting", "turns")

    def __init__(self, buffers: int = BUFFERS) -> None:
        self.turns = Turns()
        self._free: list[SendBuffer] = []
        self._to_make = buffers
        self._waiting: dict[Callable[[], object], None] = {}

    def lend(self, wake: Callable[[], object]) -> SendBuffer | None:
        """A buffer, or None: then `wake` is called when it is worth to ask again (`forgo` if no longer)."""
        if not self._free:
            if not self._to_make:
                self._waiting[wake] = None
                return None
            self._to_make -= 1
            self._free.append(SendBuffer())
        self._waiting.pop(wake, None)
        buffer = self._free.pop()
        self._wake_next()
        return buffer

    def give_back(self, buffer: SendBuffer) -> None:
        """The bytes in it are no longer needed."""
        self._free.append(buffer)
        self._wake_next()

    def forgo(self, wake: Callable[[], object]) -> None:
        """Who waited has no need any more."""
        if self._waiting.pop(wake, 0) is None:
            self._wake_next()

    def _wake_next(self) -> None:
        if self._waiting and (self._free or self._to_make):
            next(iter(self._waiting))()


class Batch:
    """Blocks that are sent together. `runs` are what to read: (content offset, place in the buffer)."""

    __slots__ = ("blocks", "buffer", "payload_bytes", "runs", "vector")

    def __init__(self, buffer: SendBuffer) -> None:
        self.buffer = buffer
        self.blocks: list[BlockRequest] = []
        self.payload_bytes = 0
        self.runs: list[tuple[int, memoryview]] = []
        self.vector: list[Any] = []

    def fill(self, queue: deque[BlockRequest], most_bytes: int, geometry: Geometry) -> None:
        """Take requests from the front of the queue: one at least, and no more than `most_bytes`.

        Neighbours, in the content and in the queue, become one run, also across the border of a piece.
        """
        piece_length = geometry.piece_length
        payload, headers, blocks = self.buffer.payload, self.buffer.headers, self.blocks
        at = run_at = run_offset = 0
        next_offset = -1
        usual = True
        while queue and len(blocks) < BATCH_BLOCKS:
            block = queue[0]
            piece, begin, length = block
            if at + length > most_bytes and blocks:
                break
            offset = piece * piece_length + begin
            if offset != next_offset:
                if at:
                    self.runs.append((run_offset, payload[run_at:at]))
                run_at, run_offset = at, offset
            next_offset = offset + length
            pack_piece_header_into(headers, PIECE_HEADER_BYTES * len(blocks), 9 + length, PIECE, piece, begin)
            usual = usual and length == BLOCK_BYTES
            at += length
            blocks.append(queue.popleft())
        if at:
            self.runs.append((run_offset, payload[run_at:at]))
        self.payload_bytes = at
        self.vector = self.buffer.pairs[: 2 * len(blocks)] if usual else self._pairs()

    def _pairs(self) -> list[Any]:
        pairs: list[Any] = []
        at = 0
        for place, (_, _, length) in zip(self.buffer.places, self.blocks, strict=False):
            pairs += (place, self.buffer.payload[at : at + length])
            at += length
        return pairs

    def after(self, sent_bytes: int) -> tuple[int, bytes]:
        """`sent_bytes` of the vector left: of how many blocks at least a byte, and the rest of the last."""
        if sent_bytes == self.payload_bytes + PIECE_HEADER_BYTES * len(self.blocks):
            return len(self.blocks), b""
        begun = 0
        at = 0
        for begun, (_, _, length) in enumerate(self.blocks):
            if sent_bytes <= at:
                return begun, b""
            end = at + PIECE_HEADER_BYTES + length
            if sent_bytes < end:
                header, payload = self.vector[2 * begun], self.vector[2 * begun + 1]
                gone = sent_bytes - at  # of its header and payload
                if gone < PIECE_HEADER_BYTES:
                    return begun + 1, bytes(header[gone:]) + bytes(payload)
                return begun + 1, bytes(payload[gone - PIECE_HEADER_BYTES :])
            at = end
        return begun + 1, b""
