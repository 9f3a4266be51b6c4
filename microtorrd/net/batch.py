"""Batches of blocks on their way out: shared memory for their payload, and the vector that is sent.

Owns the send memory of a process: few large buffers, lent to a connection only between the read of a batch
and the write right after it, so that thousands of connections need no more of it than one. Only while a disk
thread reads cold pages is a buffer away for longer, on a disk that hangs for ever: so no file system has more
than half of them, and all together leave some for what is in the page cache. Who finds no buffer, or no room
to have one read, is woken when it is worth to ask again, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from microtorrd.core.events import BlockRequest
from microtorrd.net.turns import Turns
from microtorrd.proto.frames import PIECE, PIECE_HEADER_BYTES, pack_piece_header_into
from microtorrd.proto.geometry import BLOCK_BYTES, Geometry

#: The most payload and blocks in one send. Of half as much they cost a pair 3 % of its CPU.
BATCH_BYTES = 1 << 20
BATCH_BLOCKS = BATCH_BYTES // BLOCK_BYTES

#: How many batches may be read from the disk or sent at a time, in the whole process.
BUFFERS = 16

#: Who is woken when it is worth to ask again.
Wake = Callable[[], object]


class SendBuffer:
    """Memory for the payload and the headers of one batch."""

    __slots__ = ("disk", "headers", "pairs", "payload", "places")

    def __init__(self) -> None:
        self.disk: int | None = None  # the device from which a thread reads into it
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

    __slots__ = (
        "_disk_lines",
        "_free",
        "_most_at_disks",
        "_most_at_one",
        "_reading",
        "_to_make",
        "_waiting",
        "turns",
    )

    def __init__(self, buffers: int = BUFFERS) -> None:
        self.turns = Turns()
        self._free: list[SendBuffer] = []
        self._to_make = buffers
        self._waiting: dict[Wake, None] = {}
        self._most_at_disks = max(1, buffers * 3 // 4)
        self._most_at_one = max(1, buffers // 2)
        self._reading: dict[int, int] = {}  # by device: buffers into which threads read from it
        self._disk_lines: dict[int, dict[Wake, None]] = {}  # by device: who waits to have one read

    def lend(self, wake: Wake) -> SendBuffer | None:
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
        disk, buffer.disk = buffer.disk, None
        self._free.append(buffer)
        self._wake_next()
        if disk is not None:
            self._reading[disk] -= 1
            if not self._reading[disk]:
                del self._reading[disk]
            self._wake_next_for_disk()

    def forgo(self, wake: Wake) -> None:
        """Who waited has no need any more."""
        if self._waiting.pop(wake, 0) is None:
            self._wake_next()

    def begin_disk(self, buffer: SendBuffer, device: int | None, wake: Wake) -> bool:
        """Until it is given back a disk thread reads into this buffer, from that device. False: it must not,
        and `wake` is called when it is worth to ask again (`forgo_disk` if no longer)."""
        disk = device or 0
        if not self._has_room(disk):
            if wake not in self._disk_lines.get(disk, ()):
                self.forgo_disk(wake)  # its files are on another device than when it asked before
                self._disk_lines.setdefault(disk, {})[wake] = None
            return False
        buffer.disk = disk
        self._reading[disk] = self._reading.get(disk, 0) + 1
        self.forgo_disk(wake)
        return True

    def forgo_disk(self, wake: Wake) -> None:
        """Who waited to have a buffer read has no need any more."""
        waited = False
        for disk, line in list(self._disk_lines.items()):
            if line.pop(wake, 0) is None:
                waited = True
                if not line:
                    del self._disk_lines[disk]
        if waited:
            self._wake_next_for_disk()

    def _has_room(self, disk: int) -> bool:
        """Whether one more may be read from this device."""
        at_disks = sum(self._reading.values())
        return at_disks < self._most_at_disks and self._reading.get(disk, 0) < self._most_at_one

    def _wake_next(self) -> None:
        if self._waiting and (self._free or self._to_make):
            next(iter(self._waiting))()

    def _wake_next_for_disk(self) -> None:
        """Call the first who waits for the device that has the fewest buffers."""
        disks = [disk for disk in self._disk_lines if self._has_room(disk)]
        if disks:
            disk = min(disks, key=lambda disk: self._reading.get(disk, 0))
            next(iter(self._disk_lines[disk]))()


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

    def take(self, offset: int, size: int) -> None:
        """Bytes of the content as they are, without headers: `vector` is their place."""
        view = self.buffer.payload[:size]
        self.runs = [(offset, view)]
        self.vector = [view]
        self.payload_bytes = size

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
