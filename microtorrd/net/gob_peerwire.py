"""The connection to a peer that runs the original program: `PeerWire`'s interface over its gob dialect.

The core sees an ordinary peer that never chokes us, is interested while it lacks anything, knows no
extension, and is asked for whole pieces. What such a peer cannot be told it is spared: it never learns that
it is choked, its requests wait here meanwhile, and each is answered in the end, because it waits for ever.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from time import monotonic

from microtorrd.core.events import BlockRequest, BlocksSent, Fact, RequestsReceived
from microtorrd.core.slots import Slot
from microtorrd.disk.files import FileSet
from microtorrd.disk.pool import DiskPool
from microtorrd.greenlets import Crew
from microtorrd.net.connection import GONE, LIMITED_READ_BYTES, TURN_BYTES, Connection
from microtorrd.net.gob_sender import GobSender
from microtorrd.net.peerwire import WireMemory
from microtorrd.net.stream import TcpStream
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.gob_dialect import GobStreams
from microtorrd.proto.gob_wire import GobWire
from microtorrd.proto.messages import BitfieldMessage, Choke, Have, Message, Unchoke
from microtorrd.rate import Limiter

#: A peer that is gone without a word is found out by the kernel: this wire has no keep-alives, and a peer may
#: have nothing to say for hours.
PROBE_AFTER_S, PROBE_EVERY_S, PROBES = 120, 30, 4


class GobPeerWire(Connection):
    """The connection to one peer of a torrent. `sock` is owned from here on; `streams` is where its handshake
    has left both directions."""

    __slots__ = ("_encoder", "_geometry")

    _wire: GobWire[Slot]
    _sender: GobSender

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
        super().__init__(TcpStream(sock), peer=peer, post=post, crew=crew, down=down)
        self._geometry = geometry
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, number in (
            (socket.TCP_KEEPIDLE, PROBE_AFTER_S),
            (socket.TCP_KEEPINTVL, PROBE_EVERY_S),
            (socket.TCP_KEEPCNT, PROBES),
        ):
            sock.setsockopt(socket.IPPROTO_TCP, option, number)
        self._encoder = streams.encoder
        self._wire = GobWire(peer, memory.receive, geometry, streams.decoder)
        self._sender = GobSender(
            self._stream,
            encoder=streams.encoder,
            geometry=geometry,
            files=files,
            pool=pool,
            up=up,
            memory=memory.send,
            on_sent=self._on_sent,
        )

    # ---- orders

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
