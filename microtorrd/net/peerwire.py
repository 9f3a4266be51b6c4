"""One peer's connection in the dialect of BitTorrent: orders in, facts out (`connection.py`).

The reader keeps to the download limits, and after `TURN_BYTES` without a pause gives everybody else a turn.
The memory that all connections share (`WireMemory`) is never in use while greenlets can switch.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from time import monotonic

from microtorrd.core.events import BlockRequest, Fact, StorageFailed
from microtorrd.core.slots import Slot
from microtorrd.disk.files import FileSet
from microtorrd.disk.pool import DiskPool
from microtorrd.errors import StorageError
from microtorrd.greenlets import Crew
from microtorrd.net.batch import SendMemory
from microtorrd.net.connection import GONE, LIMITED_READ_BYTES, TURN_BYTES, Connection
from microtorrd.net.sender import Sender
from microtorrd.net.stream import TcpStream
from microtorrd.net.turns import Gate
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.messages import Cancel, Message, Reject
from microtorrd.proto.wire import ReceiveMemory, Wire, encode, encode_requests
from microtorrd.rate import Limiter

#: A block or message counts as these many bytes more of a turn, or tiny ones would hold up everybody for a
#: tenth of a second.
MESSAGE_COST_BYTES = 512

#: Of a peer that sends quickly so much is awaited before it is read, while twice that is still to come; of
#: one that brings more at a time as much as that, up to half of what is read at once. To be woken for every
#: little bit cost an eighth of a CPU second for each GiB that libtorrent sent.
GULP_BYTES = 1 << 18

#: What comes quickly: so much at one wake-up.
QUICK_BYTES = 1 << 16

#: Blocks one peer may have queued here. The core's own bounds are below this one, which holds when they fail.
REQUESTS_MAX = 10_000


class WireMemory:
    """The memory that all peer wires of a process share, and the gate for their readers."""

    __slots__ = ("gate", "receive", "send")

    def __init__(self) -> None:
        self.receive = ReceiveMemory()
        self.send = SendMemory()
        self.gate = Gate()


class PeerWire(Connection):
    """The connection to one peer of a torrent. `sock` is owned from here on; `initial` is what was read of it
    after the handshake. `any_bitfield`: the torrent's geometry is not known yet."""

    __slots__ = ("_fast", "_initial", "_memory", "extended")

    _wire: Wire[Slot]
    _sender: Sender

    def __init__(
        self,
        *,
        sock: socket.socket,
        peer: int,
        geometry: Geometry,
        post: Callable[[Sequence[Fact]], None],
        crew: Crew,
        files: FileSet,
        pool: DiskPool,
        up: Limiter,
        down: Limiter,
        fast: bool,
        extended: bool,
        memory: WireMemory,
        initial: bytes = b"",
        any_bitfield: bool = False,
    ) -> None:
        super().__init__(TcpStream(sock), peer=peer, post=post, crew=crew, down=down)
        self.extended = extended
        self._fast = fast
        self._initial = initial
        self._memory = memory
        bitfield_bytes = None if any_bitfield else geometry.bitfield_bytes
        self._wire = Wire(peer, memory.receive, bitfield_bytes=bitfield_bytes)
        self._sender = Sender(
            self._stream,
            peer=peer,
            geometry=geometry,
            files=files,
            pool=pool,
            up=up,
            memory=memory.send,
            post=post,
            on_disk_error=self._on_disk_error,
        )

    def start(self) -> None:
        """Begin to read and write."""
        self._memory.receive.joined(1)
        super().start()

    # ---- orders

    @property
    def pending_requests(self) -> int:
        """How many blocks the peer waits for."""
        return self._sender.pending

    def tell(self, messages: Sequence[Message]) -> None:
        """Send these messages, in order, ahead of queued blocks."""
        self._tell(b"".join([encode(message) for message in messages]))

    def fetch(self, slots: Sequence[Slot]) -> None:
        """Ask for these blocks; the slots are lent until filled, rejected, recalled, or the end."""
        if not self.closed:
            self._wire.expect(slots)
            self._tell(encode_requests(slots))

    def recall(self, slots: Sequence[Slot], *, cancel: bool = True) -> None:
        """Take slots back; from here on nothing is written to them. `cancel`: tell the peer, of the blocks
        that have not begun to arrive."""
        recalled = self._wire.recall(slots)
        if cancel:
            self.tell([Cancel(slot.piece, slot.begin, slot.length) for slot in recalled])

    def serve(self, requests: Sequence[BlockRequest]) -> None:
        """Send these blocks. What is too much for the queue is refused, aloud."""
        if self.closed:
            return
        room = max(0, REQUESTS_MAX - self._sender.pending)
        self._sender.serve(requests[:room])
        if len(requests) > room:
            self._refuse_excess(requests[room:])

    def withdraw(self, requests: Sequence[BlockRequest] | None, reject: bool) -> None:
        """Do not send these blocks, or any, if they are still queued; `reject`: say so for each."""
        withdrawn = self._sender.withdraw(requests)
        if reject:
            self._reject(withdrawn)

    # ---- the reader greenlet

    def _read(self) -> None:
        stream, wire, down, memory = self._stream, self._wire, self._down, self._memory.receive
        if self._initial:
            self._deliver(wire.feed(self._initial))
            self._initial = b""
        since_turn = since_wait = 0
        while not self.closed:
            limited = not down.unlimited
            limit = down.chunk(LIMITED_READ_BYTES, monotonic()) if limited else None
            n = stream.read(wire.receive_buffers(limit))
            if n is None:
                self._wait_readable(since_wait)
                since_turn = since_wait = 0
                continue
            if n == 0:
                self._end(GONE)
                return
            groups = wire.received(n)
            if groups:
                since_turn += self._deliver(groups) * MESSAGE_COST_BYTES
            if limited:
                self._wait_for_limits(n)
                continue
            since_turn += n
            since_wait += n
            # Less than there was room for is all there was. Not `sleep(0)`: the loop runs up to 50 such turns
            # in a row before it looks at sockets and timers again, which made half a second of these.
            if n < wire.room or since_turn >= max(TURN_BYTES, memory.plan_bytes):
                self._wait_readable(since_wait)
                since_turn = since_wait = 0

    def _wait_readable(self, came_bytes: int) -> None:
        """Wait until it is worth while to read, after so much at the last wake-up."""
        self._stream.wait_readable(self._worth_reading(came_bytes))
        self._memory.gate.enter()

    def _worth_reading(self, came_bytes: int) -> int:
        """How much should have come before it is read, after so much at the last wake-up."""
        if came_bytes < QUICK_BYTES:
            return 1
        gulp = min(max(GULP_BYTES, came_bytes), self._memory.receive.plan_bytes // 2)
        return gulp if self._wire.expecting_bytes >= 2 * gulp else 1

    # ---- refusing, ending

    def _reject(self, requests: Sequence[BlockRequest]) -> None:
        self._tell(b"".join([encode(Reject(*request)) for request in requests]))

    def _refuse_excess(self, requests: Sequence[BlockRequest]) -> None:
        if self._fast:
            self._reject(requests)
        else:
            # Without the fast extension there is no way to say no, and a request that is forgotten silently
            # is waited for for ever.
            self._end(f"it has more than {REQUESTS_MAX} blocks queued")

    def _on_disk_error(self, error: StorageError, requests: Sequence[BlockRequest]) -> None:
        if self._fast:
            self._reject(requests)
        self._post([StorageFailed(error)])

    def _left(self, greenlet: object = None) -> None:
        super()._left(greenlet)
        if not self._running:
            self._memory.receive.joined(-1)
