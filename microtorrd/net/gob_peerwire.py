"""The connection to a peer that runs the original program: `PeerWire`'s interface over its gob dialect.

The core sees an ordinary peer that never chokes us, is interested while it lacks anything, knows no
extension, and is asked for whole pieces. What such a peer cannot be told it is spared: it never learns that
it is choked, its requests wait here meanwhile, and each is answered in the end, because it waits for ever.
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
    BlocksSent,
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
from microtorrd.net.gob_sender import GobSender
from microtorrd.net.peerwire import GONE, LIMITED_READ_BYTES, STOPPED, TURN_BYTES, WireMemory
from microtorrd.net.stream import TcpStream
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.gob_dialect import GobStreams
from microtorrd.proto.gob_wire import GobWire
from microtorrd.proto.messages import BitfieldMessage, Choke, Have, Message, Unchoke
from microtorrd.proto.received import Blocks, Messages, Requests
from microtorrd.rate import MAX_NAP_S, Limiter

#: A peer that is gone without a word is found out by the kernel: this wire has no keep-alives, and a peer may
#: have nothing to say for hours.
PROBE_AFTER_S, PROBE_EVERY_S, PROBES = 120, 30, 4


class GobPeerWire:
    """The connection to one peer of a torrent. `sock` is owned from here on; `streams` is where its handshake
    has left both directions."""

    __slots__ = (
        "_crew",
        "_down",
        "_encoder",
        "_ended",
        "_geometry",
        "_post",
        "_running",
        "_sender",
        "_stream",
        "_wire",
        "closed",
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
        memory: WireMemory,
        streams: GobStreams,
    ) -> None:
        self.peer = peer
        self.closed = False
        self._geometry = geometry
        self._crew = crew
        self._post = post
        self._down = down
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, number in (
            (socket.TCP_KEEPIDLE, PROBE_AFTER_S),
            (socket.TCP_KEEPINTVL, PROBE_EVERY_S),
            (socket.TCP_KEEPCNT, PROBES),
        ):
            sock.setsockopt(socket.IPPROTO_TCP, option, number)
        self._stream = TcpStream(sock)
        self._encoder = streams.encoder
        self._wire: GobWire[Slot] = GobWire(peer, memory.receive, geometry, streams.decoder)
        self._sender = GobSender(
            self._stream,
            encoder=streams.encoder,
            geometry=geometry,
            files=files,
            pool=pool,
            up=up,
            turns=memory.send.turns,
            on_sent=self._on_sent,
        )
        self._ended = Event()
        self._running = 0

    def start(self) -> None:
        """Begin to read and write."""
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
    def outstanding(self) -> int:
        """How many blocks we wait for, without the one that is arriving."""
        return self._wire.expecting

    def tell(self, messages: Sequence[Message]) -> None:
        """Send what this wire has words for, in order, ahead of queued pieces."""
        raw = b""
        for message in messages:
            if isinstance(message, Have):
                raw += self._encoder.have(message.piece)
            elif isinstance(message, BitfieldMessage):
                have = Bitfield.from_bytes(message.raw, self._geometry.piece_count)
                raw += self._encoder.bitfield(have)
            elif isinstance(message, Choke):
                self._sender.withdraw()
                self._wire.waiting.choke(self._sender.sending)
            elif isinstance(message, Unchoke):
                self._wire.waiting.choked = False
                self._hand_on()
        self._tell(raw)

    def fetch(self, slots: Sequence[Slot]) -> None:
        """Ask for the pieces of these blocks; the slots are lent until filled, recalled, or the end."""
        if not self.closed:
            self._tell(b"".join([self._encoder.request(piece) for piece in self._wire.expect(slots)]))

    def recall(self, slots: Sequence[Slot], *, cancel: bool = True) -> None:
        """Take slots back; from here on nothing is written to them. Their piece comes all the same."""
        self._wire.recall(slots)

    def serve(self, requests: Sequence[BlockRequest]) -> None:
        """Send these blocks: all of the pieces that were asked for."""
        if not self.closed:
            self._sender.serve(requests)

    def withdraw(self, requests: Sequence[BlockRequest] | None, reject: bool) -> None:
        """The peer was choked: it knew nothing of it, and what it asked for has gone back to what waits."""

    def drop(self, reason: str, *, fault: bool = False) -> None:
        """Close the connection; where that is the peer's own `fault`, without another word."""
        self._end(reason, fault=fault)

    # ---- the reader greenlet

    def _read(self) -> None:
        stream, wire, down = self._stream, self._wire, self._down
        since_turn = 0
        while not self.closed:
            limited = not down.unlimited
            limit = down.chunk(LIMITED_READ_BYTES, monotonic()) if limited else None
            n = stream.read(wire.receive_buffers(limit))
            if n is None:
                stream.wait_readable()
                since_turn = 0
                continue
            if n == 0:
                self._end(GONE)
                return
            if groups := wire.received(n):
                self._deliver(groups)
            if limited:
                self._wait_for_limits(n)
                continue
            since_turn += n
            if since_turn >= TURN_BYTES:
                since_turn = 0
                stream.wait_readable()

    def _deliver(self, groups: Sequence[Blocks[Slot] | Requests | Messages]) -> None:
        facts: list[Fact] = []
        for group in groups:
            if isinstance(group, Blocks):
                facts.append(BlocksReceived(self.peer, group.slots, group.wasted_bytes))
            elif isinstance(group, Messages):
                facts.append(MessagesReceived(self.peer, group.messages))
            else:
                facts.append(RequestsReceived(self.peer, group.requests))
        self._post(facts)

    def _wait_for_limits(self, n: int) -> None:
        """`n` bytes have come: book them, and read no more before they are paid for."""
        wait_s = self._down.take(n, monotonic())
        while wait_s > 0 and not self._ended.wait(min(wait_s, MAX_NAP_S)):
            wait_s = self._down.remaining(monotonic())

    # ---- sending

    def _on_sent(self, piece: int, blocks: int, payload_bytes: int, is_last: bool) -> None:
        """Part of a piece has left."""
        self._post([BlocksSent(self.peer, blocks, payload_bytes)])
        if is_last:
            self._wire.waiting.sent(piece)
            self._hand_on()

    def _hand_on(self) -> None:
        """Ask the core for what the peer has waited for."""
        if not self.closed and (blocks := self._wire.waiting.next()):
            self._post([RequestsReceived(self.peer, blocks)])

    def _tell(self, raw: bytes) -> None:
        if raw and not self.closed and not self._sender.tell(raw):
            self._end("it does not read what we send", abort=True)

    # ---- ending

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
        except StorageError as error:
            reason = str(error)
            if not self.closed:
                self._post([StorageFailed(error)])
        except PoolClosed as error:
            reason = str(error)
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
        finally:
            self._end(reason, fault=fault)

    def _left(self, greenlet: object = None) -> None:
        """A greenlet has ended; the last one closes the socket, on which nobody waits any more."""
        self._end(STOPPED)
        self._running -= greenlet is not None
        if not self._running:
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
