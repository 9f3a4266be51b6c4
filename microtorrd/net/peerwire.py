"""One peer's connection after the handshake: a reader and a writer greenlet, orders in, facts out.

Facts are posted in the order of the stream, one batch a socket read; the last fact of a connection, exactly
once and whoever ended it, is `PeerLeft`, and from then on no slot is written to. Orders never wait.

The reader keeps to the download limits, and after `TURN_BYTES` without a pause gives everybody else a turn.
The memory that all connections share (`WireMemory`) is never in use while greenlets can switch.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from time import monotonic

import gevent
from gevent.event import Event

from microtorrd.core.events import (
    BlockRequest,
    BlocksReceived,
    Fact,
    MessagesReceived,
    PeerLeft,
    RequestsReceived,
    StorageFailed,
)
from microtorrd.core.slots import Slot
from microtorrd.disk.files import FileSet
from microtorrd.disk.pool import DiskPool, PoolClosed
from microtorrd.errors import ProtocolError, StorageError
from microtorrd.greenlets import Crew
from microtorrd.net.batch import SendMemory
from microtorrd.net.sender import Sender
from microtorrd.net.stream import TcpStream
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.messages import Cancel, Message, Reject
from microtorrd.proto.wire import Blocks, Messages, ReceiveMemory, Requests, Wire, encode, encode_requests
from microtorrd.rate import MAX_NAP_S, Limiter

#: After reading this much without waiting, others get a turn: about a millisecond's worth. A block or message
#: counts as these many bytes more, or tiny ones would hold up everybody for a tenth of a second.
TURN_BYTES = 1 << 20
MESSAGE_COST_BYTES = 512

#: Of a peer that sends quickly so much is awaited before it is read, while twice that is still to come; of
#: one that brings more at a time as much as that, up to half of what is read at once. To be woken for every
#: little bit cost an eighth of a CPU second for each GiB that libtorrent sent.
GULP_BYTES = 1 << 18

#: What comes quickly: so much at one wake-up.
QUICK_BYTES = 1 << 16

#: The most that is read at once under a limit; the limiter usually says less.
LIMITED_READ_BYTES = 1 << 18

#: Blocks one peer may have queued here. The core's own bounds are below this one, which holds when they fail.
REQUESTS_MAX = 10_000

#: Why connections end that did nothing wrong.
GONE = "the other side closed the connection"
STOPPED = "the torrent stops"


class WireMemory:
    """The memory that all peer wires of a process share."""

    __slots__ = ("receive", "send")

    def __init__(self) -> None:
        self.receive = ReceiveMemory()
        self.send = SendMemory()


class PeerWire:
    """The connection to one peer of a torrent. `sock` is owned from here on; `initial` is what was read of it
    after the handshake. `any_bitfield`: the torrent's geometry is not known yet."""

    __slots__ = (
        "_crew",
        "_down",
        "_ended",
        "_fast",
        "_initial",
        "_memory",
        "_post",
        "_running",
        "_sender",
        "_stream",
        "_wire",
        "closed",
        "extended",
        "peer",
    )

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
        self.peer = peer
        self.extended = extended
        self.closed = False
        self._fast = fast
        self._crew = crew
        self._post = post
        self._down = down
        self._initial = initial
        self._memory = memory
        self._stream = TcpStream(sock)
        bitfield_bytes = None if any_bitfield else geometry.bitfield_bytes
        self._wire: Wire[Slot] = Wire(peer, memory.receive, bitfield_bytes=bitfield_bytes)
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
        self._ended = Event()
        self._running = 0

    def start(self) -> None:
        """Begin to read and write."""
        self._memory.receive.joined(1)
        self._running = 1  # ourselves, until both are on their way
        try:
            for name, work in (("read", self._read), ("write", self._sender.run)):
                greenlet = self._crew.spawn(f"peer {self.peer} {name}", self._work, work)
                self._running += 1
                # Not at the end of `_work`: a greenlet that is killed before its first turn never gets there.
                greenlet.rawlink(self._left)
        finally:
            self._running -= 1
            if self._running < 2:  # the crew was stopped
                self._left()

    # ---- orders

    @property
    def pending_requests(self) -> int:
        """How many blocks the peer waits for."""
        return self._sender.pending

    @property
    def unsent_bytes(self) -> int:
        """How much of what we tell the peer waits for its socket."""
        return self._sender.unsent_bytes

    @property
    def outstanding(self) -> int:
        """How many blocks we wait for, without the one that is arriving."""
        return self._wire.expecting

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

    def drop(self, reason: str, *, fault: bool = False) -> None:
        """Close the connection; where that is the peer's own `fault`, without another word."""
        self._end(reason, fault=fault)

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
                stream.wait_readable(self._worth_reading(since_wait))
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
                stream.wait_readable(self._worth_reading(since_wait))
                since_turn = since_wait = 0

    def _worth_reading(self, came_bytes: int) -> int:
        """How much should have come before it is read, after so much at the last wake-up."""
        if came_bytes < QUICK_BYTES:
            return 1
        gulp = min(max(GULP_BYTES, came_bytes), self._memory.receive.plan_bytes // 2)
        return gulp if self._wire.expecting_bytes >= 2 * gulp else 1

    def _deliver(self, groups: Sequence[Blocks[Slot] | Requests | Messages]) -> int:
        """Post what was read; how many blocks and messages it was."""
        peer = self.peer
        facts: list[Fact] = []
        count = 0
        for group in groups:
            if isinstance(group, Blocks):
                facts.append(BlocksReceived(peer, group.slots, group.wasted_bytes, group.wasted_blocks))
                count += len(group.slots) + group.wasted_blocks
            elif isinstance(group, Messages):
                facts.append(MessagesReceived(peer, group.messages))
                count += len(group.messages)
            else:
                facts.append(RequestsReceived(peer, group.requests))
                count += len(group.requests)
        self._post(facts)
        return count

    def _wait_for_limits(self, n: int) -> None:
        """`n` bytes have come: book them, and read no more before they are paid for."""
        wait_s = self._down.take(n, monotonic())
        while wait_s > 0 and not self._ended.wait(min(wait_s, MAX_NAP_S)):
            wait_s = self._down.remaining(monotonic())

    # ---- refusing, ending

    def _tell(self, raw: bytes) -> None:
        if raw and not self.closed and not self._sender.tell(raw):
            self._end("it does not read what we send", abort=True)

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

    def _work(self, work: Callable[[], None]) -> None:
        """The frame of both greenlets: whatever ends one ends the connection."""
        reason, fault = "an error of our own", False
        try:
            work()
            reason = STOPPED  # only of use where `close` alone has ended the writer
        except gevent.GreenletExit:
            reason = STOPPED
        except ProtocolError as error:
            reason, fault = str(error), True
        except PoolClosed as error:
            reason = str(error)
        except OSError as error:
            reason = _why(error)
        finally:
            self._end(reason, fault=fault)

    def _left(self, greenlet: object = None) -> None:
        """A greenlet has ended; the last one closes the socket, on which nobody waits any more."""
        self._end(STOPPED)
        self._running -= greenlet is not None
        if not self._running:
            self._memory.receive.joined(-1)
            self._stream.close()

    def _end(self, reason: str, *, fault: bool = False, abort: bool = False) -> None:
        if self.closed:
            return
        self.closed = True
        self._wire.close()
        self._sender.close()
        self._stream.end(abort=abort or fault)
        self._ended.set()
        self._post([PeerLeft(self.peer, reason, fault)])


def _why(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
