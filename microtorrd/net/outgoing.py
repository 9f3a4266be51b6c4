"""What leaves to one peer, whatever its dialect: messages at once, payload as disk, memory and limits allow.

How payload is framed, and what may go in between, is known to the two that build on this: `sender.py` and
`gob_sender.py`.

Rules
- Messages wait for no disk and no limit, only for the socket.
- Payload is in our memory only between a read and the write after it. What the socket did not take is read
  again later; the pages are warm. So a peer that does not read holds none of the memory that all share.
- Who cannot go on at the moment stands in no line for memory or for a disk, or nobody behind would be called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Literal

from gevent.event import Event

from microtorrd.disk.files import FileSet
from microtorrd.disk.pool import DiskPool
from microtorrd.errors import StorageError
from microtorrd.net.batch import BATCH_BYTES, Batch, SendMemory
from microtorrd.net.stream import Stream
from microtorrd.proto.geometry import MAX_REQUEST_BYTES
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


class Outgoing(ABC):
    """The outbox, and `run`, the work of the writer greenlet. `keep_alive` is said when nothing else was for
    long; nothing where it is empty."""

    __slots__ = (
        "_allowance",
        "_booked",
        "_closed",
        "_disk_line",
        "_disk_result",
        "_files",
        "_is_stuck",
        "_keep_alive",
        "_memory",
        "_outbox",
        "_outbox_bytes",
        "_pool",
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
        files: FileSet,
        pool: DiskPool,
        up: Limiter,
        memory: SendMemory,
        keep_alive: bytes = b"",
    ) -> None:
        self._stream = stream
        self._files = files
        self._pool = pool
        self._up = up
        self._memory = memory
        self._keep_alive = keep_alive
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._reading: Batch | None = None  # a disk thread fills its memory …
        self._disk_result: object = None  # … and what came of it, as soon as it has
        self._disk_line: Literal["", "waits", "called"] = (
            ""  # the place among those who wait to have one read
        )
        self._allowance = 0  # bytes that the limits have let go, and that are not sent
        self._booked = 0  # bytes booked with the limiter, whose turn has not come
        self._room = ROOM_BYTES
        self._is_stuck = False  # waits for the socket
        self._wake = Event()
        self._closed = False
        stream.keep_room(ROOM_BYTES)

    # ---- what the dialects say

    @property
    @abstractmethod
    def _is_due(self) -> bool:
        """There is payload to be sent."""

    @property
    @abstractmethod
    def _may_talk(self) -> bool:
        """A message may be sent now: the last one has ended."""

    @abstractmethod
    def _begin(self) -> None:
        """Payload is due, and the outbox is empty; before anything is waited for."""

    @property
    @abstractmethod
    def _least_bytes(self) -> int:
        """Less payload than that is not sent at a time."""

    @abstractmethod
    def _fill(self, batch: Batch, most_bytes: int) -> None:
        """Take into it what is to be sent next."""

    @abstractmethod
    def _put_back(self, batch: Batch) -> None:
        """It is not sent now: it is to be sent next."""

    @abstractmethod
    def cut_loose(self) -> None:
        """`run` has ended: forget those who are told of something. They hold this sender, and both would be
        a cycle."""

    @abstractmethod
    def _send(self, batch: Batch) -> None:
        """Write it, as far as the socket takes it, and give its buffer back."""

    @abstractmethod
    def _cannot_read(self, error: StorageError, batch: Batch) -> None:
        """The disk failed."""

    # ---- orders, from any greenlet; none of them waits

    @property
    def unsent_bytes(self) -> int:
        """How much waits in the outbox."""
        return self._outbox_bytes

    def tell(self, raw: bytes) -> bool:
        """Send this ahead of queued payload. False: the peer does not read, and the outbox is full."""
        if self._outbox_bytes > OUTBOX_BYTES:
            return False
        self._outbox.append(raw)
        self._outbox_bytes += len(raw)
        self._wake.set()
        return True

    def close(self) -> None:
        """Nothing is sent any more; `run` ends."""
        self._closed = True
        self._outbox.clear()
        self._forgo()
        self._let_go()
        self._wake.set()

    # ---- the writer greenlet

    def run(self) -> None:
        """Send until `close`. OSError when the connection fails or the peer takes nothing for too long."""
        quiet_since = monotonic()
        while not self._closed:
            self._wake.clear()
            silence_s = quiet_since + KEEP_ALIVE_S - monotonic()
            if silence_s <= 0:
                if self._keep_alive:
                    self.tell(self._keep_alive)
                else:  # nobody minds
                    quiet_since, silence_s = monotonic(), KEEP_ALIVE_S
            nap_s = 0.0
            if self._disk_result is not None:
                self._take_disk_result()
            elif self._outbox and self._may_talk:
                self._flush()
            elif self._is_due and self._reading is None and self._disk_line != "waits":
                self._begin()
                nap_s = self._serve_some()
            else:
                if self._is_due:
                    self._memory.forgo(self._wake.set)
                else:
                    self._forgo()
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

    def _say_first(self, raw: bytes) -> None:
        """This goes ahead of all that is in the outbox."""
        self._outbox.insert(0, raw)
        self._outbox_bytes += len(raw)

    def _wait_writable(self) -> None:
        self._forgo()
        self._let_go()
        self._is_stuck = True
        try:
            if not self._stream.wait_writable(STALLED_S):
                raise TimeoutError(f"it took nothing that we sent for {STALLED_S:.0f} s")
        finally:
            self._is_stuck = False

    def _forgo(self) -> None:
        """Stand in no line any more."""
        self._memory.forgo(self._wake.set)
        if self._disk_line:
            self._disk_line = ""
            self._memory.forgo_disk(self._disk_has_room)

    def _serve_some(self) -> float:
        """Send payload. When that is not possible now: for how long to wait, unless woken."""
        wait_s = self._wait_for_limits()
        if wait_s > 0:
            self._forgo()
            return min(wait_s, MAX_NAP_S)
        self._wait_for_room()
        self._memory.turns.wait()
        if self._closed or not self._is_due:
            return 0.0
        buffer = self._memory.lend(self._wake.set)
        if buffer is None:
            return KEEP_ALIVE_S
        batch = Batch(buffer)
        self._fill(batch, self._room if self._up.unlimited else min(self._allowance, self._room))
        cold = [run for run in batch.runs if not self._files.read_nowait(*run)]
        if not cold:
            self._forgo()
            self._send(batch)
        elif self._memory.begin_disk(buffer, self._files.root_device, self._disk_has_room):
            self._disk_line = ""
            self._reading = batch
            work = partial(_read, self._files, cold)
            self._pool.submit(work, self._on_read, place=self._files.root_device)
        else:
            self._disk_line = "waits"
            self._memory.give_back(buffer)
            self._put_back(batch)
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
        """Let `_allowance` be at least what is sent next, or say how long that takes."""
        up = self._up
        if up.unlimited:
            self._booked = self._allowance = 0
            return 0.0
        now = monotonic()
        least_bytes = self._least_bytes
        if self._booked:
            wait_s = up.remaining(now)
        elif self._allowance >= least_bytes:
            return 0.0
        else:
            self._booked = max(least_bytes, up.chunk(LIMITED_BYTES, now)) - self._allowance
            wait_s = up.take(self._booked, now)
        if wait_s <= 0:
            self._allowance += self._booked
            self._booked = 0
        return wait_s

    def _spend(self, payload_bytes: int) -> None:
        """So much of what the limits allowed is sent."""
        self._allowance = max(0, self._allowance - payload_bytes)  # less without a limit

    # ---- payload that only the disk has

    def _disk_has_room(self) -> None:
        """It may be worth to ask again whether a disk thread may read for us."""
        self._disk_line = "called"
        self._wake.set()

    def _on_read(self, result: object) -> None:
        """A disk thread is done with the batch; runs on the hub."""
        self._disk_result = True if result is None else result
        if self._closed or self._is_stuck:
            self._let_go()
        self._wake.set()

    def _let_go(self) -> None:
        """What was read for us cannot be sent now: it is read again when it can."""
        batch = self._reading
        if batch is not None and self._disk_result is not None:
            self._reading = self._disk_result = None
            self._memory.give_back(batch.buffer)
            self._put_back(batch)

    def _take_disk_result(self) -> None:
        batch, result = self._reading, self._disk_result
        self._reading = self._disk_result = None
        assert batch is not None
        if result is True:
            self._send(batch)
            return
        self._memory.give_back(batch.buffer)
        if isinstance(result, StorageError):
            self._cannot_read(result, batch)
        elif isinstance(result, BaseException):
            raise result


def _read(files: FileSet, runs: Sequence[tuple[int, memoryview]]) -> None:
    """In a disk thread."""
    for offset, view in runs:
        files.read_into(offset, view)
