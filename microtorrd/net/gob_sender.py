"""What leaves to one peer of the original: messages at once, whole pieces after them, as the limits allow.

Rules
- A piece is one message, so nothing goes in between: messages wait for its end, and what is half sent is not
  taken back.
- What is encoded first is sent first, because the types of a gob stream are defined on the way.
- Payload is read in parts, from the page cache where it is warm. One part is in memory while pieces are sent,
  and none between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any

from gevent.event import Event

from microtorrd.core.events import BlockRequest
from microtorrd.disk.files import FileSet
from microtorrd.disk.pool import DiskPool
from microtorrd.net.sender import OUTBOX_BYTES, STALLED_S
from microtorrd.net.stream import Stream
from microtorrd.net.turns import Turns
from microtorrd.proto.geometry import BLOCK_BYTES, Geometry
from microtorrd.proto.gob_dialect import PIECE_END, GobEncoder
from microtorrd.rate import MAX_NAP_S, Limiter

#: The most that is read and handed to the kernel at once.
PART_BYTES = 1 << 18


class GobSender:
    """The outbox, the queue of pieces, and `run`, the work of the writer greenlet.

    `on_sent` gets, after each part that left: the piece, how many of its blocks were finished with it, how
    many bytes it had, and whether it was the last one.
    """

    __slots__ = (
        "_closed",
        "_encoder",
        "_files",
        "_geometry",
        "_on_sent",
        "_outbox",
        "_outbox_bytes",
        "_pool",
        "_queue",
        "_stream",
        "_turns",
        "_up",
        "_wake",
        "sending",
    )

    def __init__(
        self,
        stream: Stream,
        *,
        encoder: GobEncoder,
        geometry: Geometry,
        files: FileSet,
        pool: DiskPool,
        up: Limiter,
        turns: Turns,
        on_sent: Callable[[int, int, int, bool], None],
    ) -> None:
        self.sending: int | None = None  # the piece that is on its way
        self._stream = stream
        self._encoder = encoder
        self._geometry = geometry
        self._files = files
        self._pool = pool
        self._up = up
        self._turns = turns
        self._on_sent = on_sent
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._queue: deque[int] = deque()
        self._wake = Event()
        self._closed = False
        stream.keep_room(PART_BYTES)

    # ---- orders, from any greenlet; none of them waits

    def tell(self, raw: bytes) -> bool:
        """Send this ahead of queued pieces. False: the peer does not read, and the outbox is full."""
        if self._outbox_bytes > OUTBOX_BYTES:
            return False
        self._outbox.append(raw)
        self._outbox_bytes += len(raw)
        self._wake.set()
        return True

    def serve(self, requests: Iterable[BlockRequest]) -> None:
        """Queue the pieces whose blocks these are: all of them, as they were asked for."""
        self._queue.extend(piece for piece, begin, _ in requests if not begin)
        self._wake.set()

    def withdraw(self) -> None:
        """Forget the pieces that are not yet on their way."""
        self._queue.clear()

    def close(self) -> None:
        """Nothing is sent any more; `run` ends."""
        self._closed = True
        self._queue.clear()
        self._outbox.clear()
        self._wake.set()

    # ---- the writer greenlet

    def run(self) -> None:
        """Send until `close`. OSError when the connection fails or the peer takes nothing for too long, and
        StorageError when a piece cannot be read: what has begun cannot be ended in any other way."""
        while not self._closed:
            self._wake.clear()
            if self._outbox:
                raw = b"".join(self._outbox)
                self._outbox.clear()
                self._outbox_bytes = 0
                self._write([raw])
            elif self._queue:
                self._send_pieces()
            else:
                self._wake.wait()

    def _send_pieces(self) -> None:
        """Send from the queue until there is a message to be sent."""
        memory = memoryview(bytearray(min(PART_BYTES, self._geometry.max_piece_bytes)))
        while self._queue and not self._outbox and not self._closed:
            self.sending = self._queue.popleft()
            self._send_piece(self.sending, memory)

    def _send_piece(self, piece: int, memory: memoryview) -> None:
        size = self._geometry.piece_size(piece)
        offset = self._geometry.piece_offset(piece)
        head = self._encoder.piece_head(piece, size)
        at = 0
        while at < size:
            part = memory[: self._wait_for_limits(min(size - at, len(memory)))]
            if not self._stream.is_writable():
                self._wait_writable()
            self._turns.wait()
            if self._closed:
                return
            if not self._files.read_nowait(offset + at, part):
                self._read(offset + at, part)
            before, at = at // BLOCK_BYTES, at + len(part)
            is_last = at == size
            self._write([head, part, PIECE_END] if is_last else [head, part])
            head = b""
            if self._closed:
                return
            if is_last:
                self.sending = None
            blocks = (self._geometry.block_count(piece) if is_last else at // BLOCK_BYTES) - before
            self._on_sent(piece, blocks, len(part), is_last)

    def _read(self, offset: int, part: memoryview) -> None:
        """From the disk itself, in one of its threads."""
        self._pool.call(lambda: self._files.read_into(offset, part))

    def _wait_for_limits(self, most: int) -> int:
        """How many bytes, of these at most, may be sent now."""
        up = self._up
        if up.unlimited:
            return most
        now = monotonic()
        count = max(1, min(most, up.chunk(most, now)))
        wait_s = up.take(count, now)
        while wait_s > 0 and not self._closed:
            self._wake.clear()
            self._wake.wait(min(wait_s, MAX_NAP_S))
            wait_s = up.remaining(monotonic())
        return count

    def _wait_writable(self) -> None:
        if not self._stream.wait_writable(STALLED_S):
            raise TimeoutError(f"it took nothing that we sent for {STALLED_S:.0f} s")

    def _write(self, parts: Sequence[Any]) -> None:
        """Write all of these."""
        rest = [memoryview(part) for part in parts if len(part)]
        while rest and not self._closed:
            sent = self._stream.write(rest)
            if sent is None:
                self._wait_writable()
                continue
            while rest and sent >= len(rest[0]):
                sent -= len(rest.pop(0))
            if rest:
                rest[0] = rest[0][sent:]
