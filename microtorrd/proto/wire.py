"""The receiving side of the peer wire as a pure machine over lent memory: bytes in, blocks and messages out.

How to drive it: `receive_buffers()` says where the next bytes of the stream should lie, the caller reads the
socket into these, in order, and tells `received(n)` how many bytes came. Nothing else may run in between: the
buffers are the process's shared `ReceiveMemory` and the open slots of blocks that were asked for.

Payload goes straight to where it belongs. Blocks come in the order they were asked for, nearly always, so
the memory handed out is a plan: a place for the header of the first expected block, its slot, the next
header, the next slot, and ordinary memory for whatever follows. When the headers turn out as planned the
payload is in its slots already; when not, the bytes are put in a row again and parsed like any others.

Rules
- Nothing but ProtocolError comes out, and not before everything that stood ahead of the fault was delivered.
- A slot is written to only while it is lent and open (`filled_by` is None), and planned only while nobody has
  claimed it: what a plan that fails leaves in it is overwritten by whoever fills it.
- However the stream is cut, the same things come out.
- Between two reads a connection holds only the message whose end has not come, if any, never payload.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Generic

from microtorrd.errors import ProtocolError
from microtorrd.proto import frames
from microtorrd.proto.arrival import Arrival
from microtorrd.proto.frames import (
    PIECE,
    PIECE_HEADER_BYTES,
    REQUEST,
    REQUEST_BYTES,
    encode,
    encode_requests,
    piece_header,
)
from microtorrd.proto.geometry import MAX_REQUEST_BYTES
from microtorrd.proto.handshake import HANDSHAKE_BYTES, Handshake, decode_handshake, decode_opening
from microtorrd.proto.messages import KeepAlive, Reject, Unknown
from microtorrd.proto.received import (
    PLAN_BLOCKS,
    QUIET_BYTES,
    Blocks,
    Lent,
    Messages,
    Received,
    ReceiveMemory,
    Requests,
    S,
)

__all__ = [
    "HANDSHAKE_BYTES",
    "Blocks",
    "Handshake",
    "Lent",
    "Messages",
    "ReceiveMemory",
    "Requests",
    "Wire",
    "decode_handshake",
    "decode_opening",
    "encode",
    "encode_requests",
    "piece_header",
]

#: After a plan failed this many reads go without one, twice as many after the next failure in a row.
DOUBT_READS = 1
MAX_DOUBT_READS = 64

_KEEP_ALIVE = KeepAlive()


class Wire(Generic[S]):
    """One connection's incoming stream, after the handshake.

    `peer` is what slots are marked with. `bitfield_bytes` is the size of this torrent's bitfield, None while
    it is unknown.
    """

    __slots__ = (
        "_arrival",
        "_doubt",
        "_error",
        "_expected",
        "_memory",
        "_out",
        "_parts",
        "_peer",
        "_plan",
        "_recent",
        "_stash",
        "_unplanned",
        "bitfield_bytes",
        "room",
    )

    def __init__(self, peer: int, memory: ReceiveMemory, *, bitfield_bytes: int | None = None) -> None:
        self.bitfield_bytes = bitfield_bytes
        self.room = 0  # bytes of the buffers handed out last: who reads less may wait for more
        self._peer = peer
        self._memory = memory
        # Asked and not begun to arrive, in the order asked, by the very header each block will come with: one
        # look-up compares number, length, piece and begin.
        self._expected: dict[bytes, S] = {}
        self._stash = bytearray()  # a message, or its header, whose end has not come
        self._out: Received[S] = Received()
        self._arrival: Arrival[S] = Arrival(peer, self._out)
        self._parts: list[memoryview] = []  # as handed out last
        self._plan: tuple[list[bytes], list[S]] | None = None
        self._doubt = 0
        self._unplanned = 0
        self._recent = 0  # bytes of the last read
        self._error: ProtocolError | None = None

    # ---- lending slots

    @property
    def expecting(self) -> int:
        """How many blocks are asked for and have not begun to arrive."""
        return len(self._expected)

    @property
    def expecting_bytes(self) -> int:
        """About how many bytes these have: as many each as the next one."""
        return len(self._expected) * next(iter(self._expected.values())).length if self._expected else 0

    def expect(self, slots: Iterable[S]) -> None:
        """These blocks are being asked for; they are lent until they are filled, rejected or recalled."""
        expected = self._expected
        pack = frames.pack_piece_header
        for slot in slots:
            header = pack(9 + slot.length, PIECE, slot.piece, slot.begin)
            if header in expected:  # asked for anew: it comes last now
                del expected[header]
            expected[header] = slot

    def recall(self, slots: Iterable[S]) -> list[S]:
        """These slots are no longer lent; returned are those of which no byte has come: worth a cancel."""
        recalled = []
        for slot in slots:
            header = piece_header(slot.piece, slot.begin, slot.length)
            if self._expected.get(header) is slot:
                del self._expected[header]
                recalled.append(slot)
            elif self._arrival.block is slot:
                self._arrival.give_up()
        return recalled

    def close(self) -> None:
        """The connection is over: nothing is lent any more."""
        self._expected.clear()
        self._arrival.give_up()

    # ---- receiving

    def receive_buffers(self, limit: int | None = None) -> list[memoryview]:
        """Where the next bytes should lie, in order; at most `limit` bytes where one is given."""
        if self._error is not None:
            raise self._error
        self._plan = None  # an earlier one may be stale: nothing came, and slots were closed since
        parts: list[memoryview] = []
        place = self._arrival.place()
        if place is not None:
            parts.append(place)
        tail = self._memory.tail
        if not self._expected:
            tail = tail[:QUIET_BYTES]
        elif limit is None and not self._stash and not self._arrival.in_row:
            if self._unplanned:
                self._unplanned -= 1
            else:
                self._make_plan(parts)
                tail = tail[:QUIET_BYTES]
        parts.append(tail)
        if limit is not None:
            parts = _first(parts, limit)
        self._parts = parts
        self.room = sum(map(len, parts))
        return parts

    def received(self, n: int) -> list[Blocks[S] | Requests | Messages]:
        """Take the `n` bytes that came into the buffers of the last `receive_buffers()`.

        What they completed, in the order of the stream. ProtocolError, at the latest from the next
        `receive_buffers()`, when the peer broke the protocol.
        """
        groups = self._out.groups = []
        self._recent = n
        plan, self._plan = self._plan, None
        try:
            n = self._arrival.landed(n)
            if n and plan is not None:
                self._take_planned(n, *plan)
            elif n:
                self._parse(self._memory.tail, n)
        except ProtocolError as error:
            self._error = error
            self.room = 0  # do not wait for more
            # What stood ahead of the fault is delivered first: those slots are filled already.
            if not groups:
                raise
        # A connection that falls idle now keeps no slots, and with them no piece memory, alive.
        self._parts, self._out.groups = [], []
        return groups

    def feed(self, raw: bytes) -> list[Blocks[S] | Requests | Messages]:
        """Take bytes that were read elsewhere, as those that came together with the handshake."""
        all_groups: list[Blocks[S] | Requests | Messages] = []
        view = memoryview(raw)
        while view and self._error is None:
            taken = 0
            for part in self.receive_buffers(len(view)):
                part[:] = view[taken : taken + len(part)]
                taken += len(part)
            all_groups.extend(self.received(taken))
            view = view[taken:]
        return all_groups

    # ---- blocks as planned

    def _make_plan(self, parts: list[memoryview]) -> None:
        """Append header places and slots of the next blocks, all of one length, each open and unclaimed."""
        expected = self._expected
        first = next(iter(expected.values()))
        length = first.length
        # Twice what came last: over a slow line a long plan would be made for every little segment.
        most = min(PLAN_BLOCKS, self._memory.plan_bytes // length + 1, 2 * self._recent // length + 2)
        slots = []
        for place, slot in zip(self._memory.places, islice(expected.values(), most), strict=False):
            if slot.length != length or slot.filled_by is not None or slot.claimed_by is not None:
                break
            parts.append(place)
            parts.append(slot.view)
            slots.append(slot)
        if slots:
            self._plan = (list(islice(expected, len(slots))), slots)

    def _take_planned(self, n: int, headers: list[bytes], slots: list[S]) -> None:
        """`n` bytes came into the planned places: settle the blocks that came as planned, parse the rest."""
        memory = self._memory
        length = slots[0].length
        size = PIECE_HEADER_BYTES + length
        whole = min(len(slots), n // size)
        rest = n - whole * size
        begun = whole < len(slots) and rest >= PIECE_HEADER_BYTES
        seen = whole + begun
        if bytes(memory.headers[: PIECE_HEADER_BYTES * seen]) == b"".join(headers[:seen]):
            good = seen
            self._doubt = 0
        else:
            good = next(i for i in range(seen) if memory.places[i] != headers[i])
        self._settle(headers, slots, min(good, whole))
        if good < seen:
            # Something else came in between. Copied out before parsing: the bytes lie in slots.
            self._doubt = min(MAX_DOUBT_READS, self._doubt * 2 or DOUBT_READS)
            self._unplanned = self._doubt
            at = len(self._parts) - 1 - 2 * (len(slots) - good)
            row = b"".join(_first(self._parts[at:], n - good * size))
            self._parse(memoryview(row), len(row))
        elif begun:
            del self._expected[headers[whole]]
            self._arrival.begin_in_place(slots[whole], rest - PIECE_HEADER_BYTES)
        elif whole == len(slots):
            self._parse(memory.tail, rest)
        elif rest:
            self._parse(memoryview(bytes(memory.places[whole][:rest])), rest)

    def _settle(self, headers: list[bytes], slots: list[S], count: int) -> None:
        if not count:
            return
        expected, peer = self._expected, self._peer
        if count < len(slots):
            headers, slots = headers[:count], slots[:count]
        for header in headers:
            del expected[header]
        for slot in slots:
            slot.filled_by = peer
        self._out.blocks().slots.extend(slots)

    # ---- everything in a row

    def _parse(self, view: memoryview, end: int) -> None:
        """Take `view[:end]` as the continuation of the stream."""
        pos = 0
        if self._arrival.in_row:
            pos = self._arrival.take(view, end)
        elif self._stash:
            pos = self._take_stash(view, end)
        while pos < end:
            left = end - pos
            if left < 4:
                break
            length = int.from_bytes(view[pos : pos + 4], "big")
            if not length:
                self._out.add(_KEEP_ALIVE)
                pos += 4
                continue
            if left < 5:
                break
            number = view[pos + 4]
            known = frames.admit(number, length, self.bitfield_bytes)
            if number == PIECE:
                if left < PIECE_HEADER_BYTES:
                    break
                start = pos + PIECE_HEADER_BYTES
                slot = self._expected.pop(bytes(view[pos:start]), None)
                pos = self._arrival.begin(slot, length - 9, view, start, end)
            elif not known:
                self._out.add(Unknown(number))
                pos += self._arrival.skip(4 + length, left)
            elif left < 4 + length:
                break
            elif number == REQUEST:
                pos += self._take_requests(view[pos:end])
            else:
                self._take_message(number, view, pos + 5, pos + 4 + length)
                pos += 4 + length
        if pos < end:
            self._stash += view[pos:end]

    def _take_stash(self, view: memoryview, end: int) -> int:
        """Complete the message in the stash; how many bytes of `view` that took."""
        stash = self._stash
        pos = 0
        while True:
            need = self._stash_needs()
            if len(stash) == need:
                break
            taken = min(need - len(stash), end - pos)
            stash += view[pos : pos + taken]
            pos += taken
            if len(stash) < need:
                return pos
        self._stash = bytearray()
        length = int.from_bytes(stash[:4], "big")
        if not length:
            self._out.add(_KEEP_ALIVE)
        elif stash[4] == PIECE:
            slot = self._expected.pop(bytes(stash), None)
            return self._arrival.begin(slot, length - 9, view, pos, end)
        elif stash[4] == REQUEST:
            self._take_requests(memoryview(stash))
        elif frames.admit(stash[4], length, self.bitfield_bytes):
            self._take_message(stash[4], memoryview(stash), 5, 4 + length)
        else:
            self._out.add(Unknown(stash[4]))
            return pos + self._arrival.skip(length - 1, end - pos)
        return pos

    def _stash_needs(self) -> int:
        """How long the stash must be before anything can be done with it, as far as can be told."""
        stash = self._stash
        if len(stash) < 4:
            return 4
        length = int.from_bytes(stash[:4], "big")
        if not length:
            return 4
        if len(stash) < 5:
            return 5
        known = frames.admit(stash[4], length, self.bitfield_bytes)
        if stash[4] == PIECE:
            return PIECE_HEADER_BYTES
        return 4 + length if known else 5

    def _take_requests(self, view: memoryview) -> int:
        """Requests come in rows: take all that `view` begins with (one at least); how many bytes they had."""
        whole = len(view) // REQUEST_BYTES * REQUEST_BYTES
        requests = self._out.requests()
        before = len(requests)
        for length, number, piece, begin, size in frames.iter_requests(view[:whole]):
            if number != REQUEST or length != 13:
                break
            requests.append((piece, begin, size))
        return (len(requests) - before) * REQUEST_BYTES

    def _take_message(self, number: int, view: memoryview, start: int, stop: int) -> None:
        message = frames.decode(number, view, start, stop)
        if isinstance(message, Reject):
            self._expected.pop(_header_or_nothing(message), None)
        self._out.add(message)


def _first(parts: list[memoryview], limit: int) -> list[memoryview]:
    """The first `limit` bytes of these."""
    kept = []
    for part in parts:
        if limit <= 0:
            break
        kept.append(part[:limit])
        limit -= len(kept[-1])
    return kept


def _header_or_nothing(reject: Reject) -> bytes:
    """The header that the rejected block would have come with; nothing has the empty one."""
    return piece_header(*reject) if reject.length <= MAX_REQUEST_BYTES else b""
