"""What leaves to one peer of the original: messages, and whole pieces after them.

Rules
- A piece is one message, so nothing goes in between: messages wait for its end, and what is half sent is not
  taken back.
- What is encoded first is sent first, because the types of a gob stream are defined on the way.
- Payload is sent in parts, each of which is read when it can be sent (`outgoing.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from microtorrd.core.events import BlockRequest
from microtorrd.disk.files import FileSet
from microtorrd.disk.pool import DiskPool
from microtorrd.errors import StorageError
from microtorrd.net.batch import Batch, SendMemory
from microtorrd.net.outgoing import Outgoing
from microtorrd.net.stream import Stream
from microtorrd.proto.geometry import BLOCK_BYTES, Geometry
from microtorrd.proto.gob_dialect import PIECE_END, GobEncoder
from microtorrd.rate import Limiter


class GobSender(Outgoing):
    """The queue of pieces. `run` raises StorageError besides, when a piece cannot be read: what has begun
    cannot be ended in any other way.

    `on_sent` gets, after each part that left: the piece, how many of its blocks were finished with it, how
    many bytes it had, and whether it was the last one.
    """

    __slots__ = ("_at", "_encoder", "_geometry", "_head", "_on_sent", "_queue", "_size", "sending")

    def __init__(
        self,
        stream: Stream,
        *,
        encoder: GobEncoder,
        geometry: Geometry,
        files: FileSet,
        pool: DiskPool,
        up: Limiter,
        memory: SendMemory,
        on_sent: Callable[[int, int, int, bool], None],
    ) -> None:
        super().__init__(stream, files=files, pool=pool, up=up, memory=memory)
        self.sending: int | None = None  # the piece that is on its way …
        self._size = self._at = 0  # … its bytes, and how many of them have left …
        self._head = b""  # … and what is to leave ahead of them
        self._encoder = encoder
        self._geometry = geometry
        self._on_sent = on_sent
        self._queue: deque[int] = deque()

    def cut_loose(self) -> None:
        """`run` has ended: forget who is told of what was sent."""
        self._on_sent = _nobody

    # ---- orders, from any greenlet; none of them waits

    def serve(self, requests: Iterable[BlockRequest]) -> None:
        """Queue the pieces whose blocks these are: all of them, as they were asked for."""
        self._queue.extend(piece for piece, begin, _ in requests if not begin)
        self._wake.set()

    def withdraw(self) -> None:
        """Forget the pieces that are not yet on their way."""
        self._queue.clear()

    def close(self) -> None:
        """Nothing is sent any more; `run` ends."""
        super().close()
        self._queue.clear()

    # ---- the writer greenlet

    @property
    def _is_due(self) -> bool:
        return self.sending is not None or bool(self._queue)

    @property
    def _may_talk(self) -> bool:
        return self.sending is None

    def _begin(self) -> None:
        if self.sending is None:
            piece = self.sending = self._queue.popleft()
            self._size, self._at = self._geometry.piece_size(piece), 0
            self._head = self._encoder.piece_head(piece, self._size)

    @property
    def _least_bytes(self) -> int:
        return 1

    def _fill(self, batch: Batch, most_bytes: int) -> None:
        assert self.sending is not None
        size = min(most_bytes, self._size - self._at)
        batch.take(self._geometry.piece_offset(self.sending) + self._at, size)

    def _put_back(self, batch: Batch) -> None:
        """Nothing: only what was sent counts."""

    def _send(self, batch: Batch) -> None:
        """Write a part whose payload is there, and what frames the piece before it and behind it."""
        piece, size = self.sending, batch.payload_bytes
        assert piece is not None
        end = PIECE_END if self._at + size == self._size else b""
        vector = [view for view in (self._head, *batch.vector, end) if len(view)]
        try:
            sent = self._stream.write(vector) or 0
        finally:
            self._memory.give_back(batch.buffer)
        self._head, sent = self._head[sent:], max(0, sent - len(self._head))
        payload_bytes = min(sent, size)
        before, self._at = self._at // BLOCK_BYTES, self._at + payload_bytes
        self._spend(payload_bytes)
        is_last = self._at == self._size
        if is_last:
            self.sending = None
            if rest := end[sent - size :]:
                self._say_first(rest)
        if payload_bytes:
            after = self._geometry.block_count(piece) if is_last else self._at // BLOCK_BYTES
            self._on_sent(piece, after - before, payload_bytes, is_last)
        if payload_bytes < size:
            self._wait_writable()

    def _cannot_read(self, error: StorageError, batch: Batch) -> None:
        raise error


def _nobody(piece: int, blocks: int, payload_bytes: int, is_last: bool) -> None:
    """Nobody is left who would want to know."""
