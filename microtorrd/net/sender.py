"""What leaves to one peer: messages at once, blocks after them in the order asked, as the limits allow.

Rules
- Messages go ahead of blocks, and wait for no disk and no limit, only for the socket.
- A queued block is sent, withdrawn or refused aloud: who asked waits for ever for what is dropped silently.
- Payload is in our memory only between a read and the write after it. What the socket did not take is read
  again later; the pages are warm. So a peer that does not read holds nothing but the start of one block.
- A failing disk ends the serving of what is queued, never the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic

from gevent.event import Event

from microtorrd.core.events import BlockRequest, BlocksSent, Fact
from microtorrd.disk.files import FileSet
from microtorrd.disk.pool import DiskPool
from microtorrd.errors import StorageError
from microtorrd.net.batch import BATCH_BYTES, Batch, SendMemory
from microtorrd.net.stream import Stream
from microtorrd.proto.geometry import MAX_REQUEST_BYTES, Geometry
from microtorrd.proto.messages import KeepAlive
from microtorrd.proto.wire import encode
from microtorrd.rate import MAX_NAP_S, Limiter

#: Peers drop a connection that is silent for two minutes (BEP 3).
KEEP_ALIVE_S = 100.0

#: A peer that takes not a byte for this long is gone or means us ill.
STALLED_S = 120.0

#: Messages that wait for a peer's socket. A minute of haves of a fast torrent is a third of it.
OUTBOX_BYTES = 1 << 20

#: Payload that is handed to the kernel at once: at first (the largest block there is), and up to
#: `BATCH_BYTES` while the peer takes it quickly. About twice as much waits there to be sent, and messages
#: wait behind that: with megabytes in that place our own requests would take half a minute on a slow line.
ROOM_BYTES = MAX_REQUEST_BYTES
QUICK_S = 0.02
SLOW_S = 0.25

#: The most one peer takes at a time under a limit; the limiter says less where the limit is low. It is what
#: peers that share a limit may be apart.
LIMITED_BYTES = MAX_REQUEST_BYTES

_KEEP_ALIVE = encode(KeepAlive())


class Sender:
    """The outbox, the queue of blocks, and `run`, the work of the writer greenlet.

    `on_disk_error` gets the error and the requests that are not served because of it.
    """

    __slots__ = (
        "_allowance",
        "_booked",
        "_closed",
        "_disk_result",
        "_files",
        "_geometry",
        "_memory",
        "_on_disk_error",
        "_outbox",
        "_outbox_bytes",
        "_peer",
        "_pool",
        "_post",
        "_queue",
        "_reading",
        "_room",
        "_stream",
        "_up",
        "_wake",
    )

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
        self._stream = stream
        self._peer = peer
        self._geometry = geometry
        self._files = files
        self._pool = pool
        self._up = up
        self._memory = memory
        self._post = post
        self._on_disk_error = on_disk_error
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._queue: deque[BlockRequest] = deque()
        self._reading: Batch | None = None  # a disk thread fills its memory …
        self._disk_result: object = None  # … and what came of it, as soon as it has
        self._allowance = 0  # bytes that the limits have let go, and that are not sent
        self._booked = 0  # bytes booked with the limiter, whose turn has not come
        self._room = ROOM_BYTES
        self._wake = Event()
        self._closed = False
        stream.keep_room(ROOM_BYTES)

    # ---- orders, from any greenlet; none of them waits

    @property
    def pending(self) -> int:
        """How many blocks are still to be sent."""
        return len(self._queue) + (len(self._reading.blocks) if self._reading else 0)

    @property
    def unsent_bytes(self) -> int:
        """How much waits in the outbox."""
        return self._outbox_bytes

    def tell(self, raw: bytes) -> bool:
        """Send this ahead of queued blocks. False: the peer does not read, and the outbox is full."""
        if self._outbox_bytes > OUTBOX_BYTES:
            return False
        self._outbox.append(raw)
        self._outbox_bytes += len(raw)
        self._wake.set()
        return True

    def serve(self, requests: Iterable[BlockRequest]) -> None:
        """Queue these blocks."""
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
        self._closed = True
        self._queue.clear()
        self._outbox.clear()
        self._memory.forgo(self._wake.set)
        if self._reading is not None and self._disk_result is not None:
            self._memory.give_back(self._reading.buffer)
            self._reading = None
        self._wake.set()

    # ---- the writer greenlet

    def run(self) -> None:
        """Send until `close`. OSError when the connection fails or the peer takes nothing for too long."""
        quiet_since = monotonic()
        while not self._closed:
            self._wake.clear()
            silence_s = quiet_since + KEEP_ALIVE_S - monotonic()
            if silence_s <= 0:
                self.tell(_KEEP_ALIVE)
            nap_s = 0.0
            if self._disk_result is not None:
                self._take_disk_result()
            elif self._outbox:
                self._flush()
            elif self._queue and self._reading is None:
                nap_s = self._serve_some()
            else:
                self._memory.forgo(self._wake.set)
                nap_s = silence_s
            if nap_s <= 0:
                quiet_since = monotonic()
            else:
                self._wake.wait(min(nap_s, silence_s))

    def _flush(self) -> None:
        """Send the outbox as it is now."""
        raw = self._take_outbox()
        while raw and not self._closed:
            sent = self._stream.write([raw])
            if sent is None:
                self._wait_writable()
            else:
                raw = raw[sent:]

    def _take_outbox(self) -> bytes:
        raw = b"".join(self._outbox)
        self._outbox.clear()
        self._outbox_bytes = 0
        return raw

    def _wait_writable(self) -> None:
        # Who is stuck here must not be the one who is told of free memory, or nobody hears of it.
        self._memory.forgo(self._wake.set)
        if not self._stream.wait_writable(STALLED_S):
            raise TimeoutError(f"it took nothing that we sent for {STALLED_S:.0f} s")

    def _serve_some(self) -> float:
        """Send blocks off the queue. When that is not possible now: for how long to wait, unless woken."""
        wait_s = self._wait_for_limits()
        if wait_s > 0:
            self._memory.forgo(self._wake.set)
            return min(wait_s, MAX_NAP_S)
        self._wait_for_room()
        self._memory.turns.wait()
        if self._closed or not self._queue:
            return 0.0
        buffer = self._memory.lend(self._wake.set)
        if buffer is None:
            return KEEP_ALIVE_S
        batch = Batch(buffer)
        most = self._room if self._up.unlimited else min(self._allowance, self._room)
        batch.fill(self._queue, most, self._geometry)
        cold = [run for run in batch.runs if not self._files.read_nowait(*run)]
        if cold:
            self._reading = batch
            self._pool.submit(lambda: _read(self._files, cold), self._on_read)
        else:
            self._send(batch)
        return 0.0

    def _wait_for_room(self) -> None:
        """Wait until a whole batch fits, and find out how large one should be."""
        waited_s = 0.0
        if not self._stream.is_writable():
            began = monotonic()
            self._wait_writable()
            waited_s = monotonic() - began
        if waited_s < QUICK_S and self._room < BATCH_BYTES:
            self._room *= 2
            self._stream.keep_room(self._room)
        elif waited_s > SLOW_S and self._room > ROOM_BYTES:
            self._room //= 2
            self._stream.keep_room(self._room)

    def _wait_for_limits(self) -> float:
        """Let `_allowance` be at least what the next block needs, or say how long that takes."""
        up = self._up
        if up.unlimited:
            self._booked = self._allowance = 0
            return 0.0
        now = monotonic()
        next_bytes = self._queue[0][2]
        if self._booked:
            wait_s = up.remaining(now)
        elif self._allowance >= next_bytes:
            return 0.0
        else:
            self._booked = max(next_bytes, up.chunk(LIMITED_BYTES, now)) - self._allowance
            wait_s = up.take(self._booked, now)
        if wait_s <= 0:
            self._allowance += self._booked
            self._booked = 0
        return wait_s

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
            self._outbox.insert(0, rest)
            self._outbox_bytes += len(rest)
        payload_bytes = batch.payload_bytes
        if begun < len(batch.blocks):
            self._queue.extendleft(reversed(batch.blocks[begun:]))
            payload_bytes = sum(length for _, _, length in batch.blocks[:begun])
        self._allowance = max(0, self._allowance - payload_bytes)  # less without a limit
        if begun:
            self._post([BlocksSent(self._peer, begun, payload_bytes)])
        if rest or begun < len(batch.blocks):
            self._wait_writable()

    # ---- blocks that only the disk has

    def _on_read(self, result: object) -> None:
        """A disk thread is done with the batch; runs on the hub."""
        if self._closed:
            if self._reading is not None:
                self._memory.give_back(self._reading.buffer)
                self._reading = None
            return
        self._disk_result = True if result is None else result
        self._wake.set()

    def _take_disk_result(self) -> None:
        batch, result = self._reading, self._disk_result
        self._reading = self._disk_result = None
        assert batch is not None
        if result is True:
            self._send(batch)
            return
        self._memory.give_back(batch.buffer)
        if isinstance(result, StorageError):
            self._on_disk_error(result, batch.blocks + self.withdraw(None))
        elif isinstance(result, BaseException):
            raise result


def _read(files: FileSet, runs: Sequence[tuple[int, memoryview]]) -> None:
    """In a disk thread."""
    for offset, view in runs:
        files.read_into(offset, view)
