"""The receiving side of the original's peer wire, driven like `wire.Wire`: gob in, blocks and messages out.

Pieces are the unit of that wire, and blocks that of ours: a piece that comes is all of its blocks, a request
for a piece one for each of them. What that wire does not say is said in its place: a peer never chokes us,
and is interested as long as it lacks anything.

Rules
- Nothing but ProtocolError comes out, and not before everything that stood ahead of the fault was delivered.
- However the stream is cut, the same things come out.
- A piece is asked for once, with the first of its blocks. It fills whatever slots are lent for it when it
  begins to come; the others of its blocks are skipped. What is lent after that is asked for anew.
- The payload of a large piece goes into its slots as it comes. Held back are only messages whose end has not
  come, at most one of `WHOLE_BYTES` or one bitfield.
- A peer may ask for any number of pieces: `gob_waiting.py` has them until their turn comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic

from bitarray import bitarray

from microtorrd.errors import ProtocolError
from microtorrd.proto.arrival import Arrival
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.gob import LENGTH_BYTES_MAX, Decoder, Reader
from microtorrd.proto.gob_dialect import (
    BITFIELD,
    HANDSHAKE,
    HAVE,
    HELLO,
    PIECE,
    PIECE_END,
    REQUEST,
    check_opened,
)
from microtorrd.proto.gob_waiting import Waiting
from microtorrd.proto.messages import (
    BitfieldMessage,
    Have,
    Interested,
    KeepAlive,
    NotInterested,
    Unchoke,
)
from microtorrd.proto.received import QUIET_BYTES, Blocks, Messages, Received, ReceiveMemory, Requests, S

#: Messages up to this size are read when they are whole; of larger ones pieces are read as they come.
WHOLE_BYTES = 65536

#: A piece's data begin within this many bytes of its message, also where its type is defined in it.
HEAD_BYTES = 512

#: What a message may have besides the largest bitfield or piece of the torrent.
EXTRA_BYTES = 4096


class GobWire(Generic[S]):
    """One connection's incoming stream, after the handshake, whose `decoder` goes on here."""

    __slots__ = (
        "_arrival",
        "_arriving",
        "_asked",
        "_decoder",
        "_end",
        "_error",
        "_geometry",
        "_interested",
        "_largest",
        "_lent",
        "_memory",
        "_out",
        "_peer",
        "_plan",
        "_stash",
        "_theirs",
        "waiting",
    )

    def __init__(self, peer: int, memory: ReceiveMemory, geometry: Geometry, decoder: Decoder) -> None:
        self.waiting = Waiting(geometry)
        self._peer = peer
        self._memory = memory
        self._geometry = geometry
        self._decoder = decoder
        self._largest = EXTRA_BYTES + max(geometry.max_piece_bytes, geometry.piece_count)
        self._asked: dict[int, dict[int, S]] = {}  # by piece, then by begin
        self._lent = 0  # slots in there
        self._arriving: dict[int, S] = {}  # of the piece that is coming, those that have not begun to
        self._plan: list[tuple[int, int]] = []  # its blocks that have not begun to come, the last one first
        self._end = 0  # bytes that follow its data
        self._stash = bytearray()  # a message whose end has not come
        self._theirs: bitarray | None = None  # what it has, as soon as it has said it
        self._interested = False
        self._out: Received[S] = Received()
        self._arrival: Arrival[S] = Arrival(peer, self._out)
        self._error: ProtocolError | None = None

    # ---- lending slots

    @property
    def expecting(self) -> int:
        """How many blocks are asked for and have not begun to arrive."""
        return self._lent + len(self._arriving)

    def expect(self, slots: Iterable[S]) -> list[int]:
        """Lend these slots; returned are the pieces that have to be asked for."""
        pieces = []
        for slot in slots:
            asked = self._asked.get(slot.piece)
            if asked is None:
                asked = self._asked[slot.piece] = {}
                pieces.append(slot.piece)
            self._lent += slot.begin not in asked
            asked[slot.begin] = slot
        return pieces

    def recall(self, slots: Iterable[S]) -> None:
        """These slots are no longer lent. Their piece comes all the same: there is no cancel."""
        for slot in slots:
            asked = self._asked.get(slot.piece, {})
            if asked.get(slot.begin) is slot:
                del asked[slot.begin]
                self._lent -= 1
            elif self._arriving.get(slot.begin) is slot:
                del self._arriving[slot.begin]
            elif self._arrival.block is slot:
                self._arrival.give_up()

    def close(self) -> None:
        """The connection is over: nothing is lent any more."""
        self._asked.clear()
        self._arriving.clear()
        self._lent = 0
        self._arrival.give_up()

    # ---- receiving

    def receive_buffers(self, limit: int | None = None) -> list[memoryview]:
        """Where the next bytes should lie, in order; at most `limit` bytes where one is given."""
        if self._error is not None:
            raise self._error
        place = self._arrival.place()
        tail = self._memory.tail if self._asked or self._plan else self._memory.tail[:QUIET_BYTES]
        if place is None:
            return [tail[:limit]]
        if limit is not None and limit <= len(place):
            return [place[:limit]]
        return [place, tail if limit is None else tail[: limit - len(place)]]

    def received(self, n: int) -> list[Blocks[S] | Requests | Messages]:
        """Take the `n` bytes that came into the buffers of the last `receive_buffers()`.

        What they completed, in the order of the stream. ProtocolError, at the latest from the next
        `receive_buffers()`, when the peer broke the protocol.
        """
        groups = self._out.groups = []
        try:
            n = self._arrival.landed(n)
            if n:
                self._parse(self._memory.tail, n)
        except ProtocolError as error:
            self._error = error
            if not groups:
                raise
        self._out.groups = []
        return groups

    def _parse(self, view: memoryview, end: int) -> None:
        """Take `view[:end]` as the continuation of the stream."""
        pos = 0
        arrival = self._arrival
        while pos < end:
            if (place := arrival.place()) is not None:  # its first bytes came in the stash
                taken = min(len(place), end - pos)
                place[:taken] = view[pos : pos + taken]
                arrival.landed(taken)
                pos += taken
            elif arrival.in_row:
                pos += arrival.take(view[pos:end], end - pos)
            elif self._plan:
                begin, length = self._plan.pop()
                pos = arrival.begin(self._arriving.pop(begin, None), length, view, pos, end)
            elif self._end:
                if view[pos]:
                    raise ProtocolError("a gob piece with more than its data in it")
                self._end -= 1
                pos += 1
            elif self._stash:
                pos += self._take_stash(view[pos:end])
            else:
                pos = self._take_message(view, pos, end)

    def _take_message(self, view: memoryview, pos: int, end: int) -> int:
        """Read the message that begins at `pos`, or keep what there is of it; where the rest begins."""
        sized = self._size(view[pos:end])
        if sized is not None:
            prefix, size = sized
            start = pos + prefix
            if start + size <= end:
                self._take_body(Reader(view[start : start + size]))
                return start + size
            if size > WHOLE_BYTES and end - start >= HEAD_BYTES:
                reader = self._look_ahead(view[start:end], size)
                if reader is not None:
                    return start + reader.pos
        self._stash += view[pos:end]
        return end

    def _take_stash(self, view: memoryview) -> int:
        """Go on with the message in the stash; how many bytes of `view` that took."""
        stash = self._stash
        need = 1 if not stash or stash[0] < 128 else 257 - stash[0]
        if len(stash) < need:
            taken = min(need - len(stash), len(view))
            stash += view[:taken]
            return taken
        prefix, size = self._size(memoryview(bytes(stash[:LENGTH_BYTES_MAX]))) or (0, 0)
        need = prefix + size
        is_large = size > WHOLE_BYTES
        if is_large and len(stash) < prefix + HEAD_BYTES:
            need = prefix + HEAD_BYTES
        taken = min(need - len(stash), len(view))
        stash += view[:taken]
        if len(stash) < need:
            return taken
        raw = memoryview(bytes(stash))
        if need < prefix + size:
            reader = self._look_ahead(raw[prefix:], size)
            if reader is None:
                return taken
            self._stash = bytearray()
            rest = raw[prefix + reader.pos :]
            self._parse(rest, len(rest))  # no more than payload of that piece
            return taken
        self._stash = bytearray()
        self._take_body(Reader(raw[prefix:]))
        return taken

    def _size(self, view: memoryview) -> tuple[int, int] | None:
        """How long the length of a message is, and the message; None: that has not come yet."""
        prefix = 1 if view[0] < 128 else 257 - view[0]
        if prefix > LENGTH_BYTES_MAX:
            raise ProtocolError("a gob message of an absurd length")
        if len(view) < prefix:
            return None
        size = Reader(view).uint()
        if not 0 < size <= self._largest:
            raise ProtocolError(f"a gob message of {size} bytes, where 1 to {self._largest} are allowed")
        return prefix, size

    def _look_ahead(self, view: memoryview, size: int) -> Reader | None:
        """The first bytes of a large message: if it is a piece, begin it and say where its data begin."""
        decoder = self._decoder.copy()
        reader = Reader(view, size)
        opened = decoder.open(reader)
        if opened is None or check_opened(opened) != PIECE:
            return None
        self._decoder = decoder
        self._begin_piece(reader)
        return reader

    # ---- messages

    def _take_body(self, reader: Reader) -> None:
        """A message that is whole."""
        decoder = self._decoder
        opened = decoder.open(reader)
        if opened is None:
            return
        name = check_opened(opened)
        if name == PIECE:
            self._begin_piece(reader)
            rest = reader.take(reader.left)
            self._parse(rest, len(rest))
            return
        fields = decoder.fields(opened, reader)
        if name == BITFIELD:
            self._on_bitfield(fields.get("Bitfield", b""))
            return
        if name == HANDSHAKE:
            raise ProtocolError("a second handshake")
        if self._theirs is None:
            self._introduce(bitarray(self._geometry.piece_count))
        if name == HELLO:
            self._out.add(KeepAlive())
            return
        piece = fields.get("PieceIndex", 0)
        assert isinstance(piece, int)
        if name == HAVE:
            self._on_have(piece)
        elif name == REQUEST:
            self.waiting.ask(piece)
            if blocks := self.waiting.next():
                self._out.requests().extend(blocks)

    def _on_bitfield(self, flags: object) -> None:
        count = self._geometry.piece_count
        if self._theirs is not None:
            raise ProtocolError("a bitfield that is not the first message")
        if not isinstance(flags, bytes) or len(flags) != count:
            raise ProtocolError(f"a bitfield that has not the {count} pieces of this torrent")
        theirs = bitarray(endian="big")
        theirs.pack(flags)
        self._out.add(BitfieldMessage(theirs.tobytes()))
        self._introduce(theirs)

    def _introduce(self, theirs: bitarray) -> None:
        """What other peers say when they have said what they have."""
        self._theirs = theirs
        self._out.add(Unchoke())
        self._interested = not theirs.all()
        if self._interested:
            self._out.add(Interested())

    def _on_have(self, piece: int) -> None:
        theirs = self._theirs
        assert theirs is not None
        theirs[self._geometry.admit_piece(piece)] = 1
        self._out.add(Have(piece))
        if self._interested and theirs.all():
            self._interested = False
            self._out.add(NotInterested())

    # ---- pieces

    def _begin_piece(self, reader: Reader) -> None:
        """The fields of a piece up to its data, which are all that is left but for the end."""
        geometry = self._geometry
        piece = 0
        number = reader.field(0, 2)
        if number == 1:
            piece = reader.sint()
            if not piece:
                raise ProtocolError("a gob field that is set to nothing")
            number = reader.field(1, 2)
        geometry.admit_piece(piece)
        size = reader.uint() if number == 2 else 0
        if size != geometry.piece_size(piece):
            raise ProtocolError(f"piece {piece} with {size} bytes instead of {geometry.piece_size(piece)}")
        if reader.left != size + len(PIECE_END):
            raise ProtocolError("a gob piece that does not fill its message")
        self._plan = geometry.blocks(piece)[::-1]
        self._end = len(PIECE_END)
        self._arriving = self._asked.pop(piece, {})
        self._lent -= len(self._arriving)
