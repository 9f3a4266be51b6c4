"""What leaves to one peer: messages, and blocks after them in the order asked.

A queued block is sent, withdrawn or refused aloud: who asked waits for ever for what is dropped silently. A
failing disk ends the serving of what is queued, never the connection. What else holds is in `outgoing.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from microtorrd.core.events import BlockRequest, BlocksSent, Fact
from microtorrd.disk.files import FileSet
from microtorrd.disk.pool import DiskPool
from microtorrd.errors import StorageError
from microtorrd.net.batch import Batch, SendMemory
from microtorrd.net.outgoing import Outgoing
from microtorrd.net.stream import Stream
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.messages import KeepAlive
from microtorrd.proto.wire import encode
from microtorrd.rate import Limiter

_KEEP_ALIVE = encode(KeepAlive())

#: The queue of those who were never asked for anything: one of their own is most of a kilobyte.
_NOTHING_YET: deque[BlockRequest] = deque(maxlen=0)


class Sender(Outgoing):
    """The queue of blocks. `on_disk_error` gets the error and the requests that are not served because of
    it."""

    __slots__ = ("_geometry", "_on_disk_error", "_peer", "_post", "_queue")

    def __init__(
        self,
        stream: Stream,
        *,
        peer: int,
        geometry: Geometry,
        files: FileSet,
        pool: DiskPool,
        up: Limiter,
        memory: SendMemory,
        post: Callable[[Sequence[Fact]], None],
        on_disk_error: Callable[[StorageError, Sequence[BlockRequest]], None],
    ) -> None:
        super().__init__(stream, files=files, pool=pool, up=up, memory=memory, keep_alive=_KEEP_ALIVE)
        self._peer = peer
        self._geometry = geometry
        self._post = post
        self._on_disk_error = on_disk_error
        self._queue = _NOTHING_YET

    # ---- orders, from any greenlet; none of them waits

    @property
    def pending(self) -> int:
        """How many blocks are still to be sent."""
        return len(self._queue) + (len(self._reading.blocks) if self._reading else 0)

    def serve(self, requests: Iterable[BlockRequest]) -> None:
        """Queue these blocks."""
        if self._queue is _NOTHING_YET:
            self._queue = deque()
        self._queue.extend(requests)
        self._wake.set()

    def withdraw(self, requests: Iterable[BlockRequest] | None) -> list[BlockRequest]:
        """Take these, or all, out of the queue. Those that were still in it are returned."""
        if requests is None:
            withdrawn = list(self._queue)
            self._queue.clear()
            return withdrawn
        unwanted = set(requests)
        withdrawn = [request for request in self._queue if request in unwanted]
        if withdrawn:
            self._queue = deque(request for request in self._queue if request not in unwanted)
        return withdrawn

    def close(self) -> None:
        """Nothing is sent any more; `run` ends."""
        super().close()
        self._queue.clear()

    def cut_loose(self) -> None:
        """`run` has ended: forget who is told of errors."""
        self._on_disk_error = _nobody

    # ---- the writer greenlet

    @property
    def _is_due(self) -> bool:
        return bool(self._queue)

    @property
    def _may_talk(self) -> bool:
        return True

    def _begin(self) -> None:
        """Nothing: each block is a message of its own."""

    @property
    def _least_bytes(self) -> int:
        return self._queue[0][2]

    def _fill(self, batch: Batch, most_bytes: int) -> None:
        batch.fill(self._queue, most_bytes, self._geometry)

    def _put_back(self, batch: Batch) -> None:
        self._queue.extendleft(reversed(batch.blocks))

    def _send(self, batch: Batch) -> None:
        """Write a batch whose payload is there, with what the outbox holds ahead of it."""
        first = self._take_outbox()
        try:
            sent = self._stream.write([first, *batch.vector] if first else batch.vector) or 0
            if sent < len(first):
                begun, rest = 0, first[sent:]
            else:
                begun, rest = batch.after(sent - len(first))
        finally:
            self._memory.give_back(batch.buffer)
        if rest:
            self._say_first(rest)
        payload_bytes = batch.payload_bytes
        if begun < len(batch.blocks):
            self._queue.extendleft(reversed(batch.blocks[begun:]))
            payload_bytes = sum(length for _, _, length in batch.blocks[:begun])
        self._spend(payload_bytes)
        if begun:
            self._post([BlocksSent(self._peer, begun, payload_bytes)])
        if rest or begun < len(batch.blocks):
            self._wait_writable()

    def _cannot_read(self, error: StorageError, batch: Batch) -> None:
        self._on_disk_error(error, batch.blocks + self.withdraw(None))


def _nobody(error: StorageError, requests: Sequence[BlockRequest]) -> None:
    """Nobody is left who would want to know."""
