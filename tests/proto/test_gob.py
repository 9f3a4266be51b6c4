"""The original's peer wire: its recorded streams both ways, any cut of them, every fault of the format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from bitarray import bitarray
from hypothesis import given, settings
from hypothesis import strategies as st

from microtorrd.errors import ProtocolError
from microtorrd.proto import gob
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.gob import Decoder, Reader, message, sint, struct_definition, text, uint
from microtorrd.proto.gob_dialect import (
    PIECE_END,
    GobEncoder,
    GobOpening,
    begins_gob,
)
from microtorrd.proto.gob_waiting import WAITING_MAX, Waiting
from microtorrd.proto.gob_wire import GobWire
from microtorrd.proto.messages import BitfieldMessage, Have, Interested, KeepAlive, NotInterested, Unchoke
from microtorrd.proto.received import Blocks, Messages, ReceiveMemory, Requests
from tests.proto.slot import Slot

RECORDED = Path(__file__).parents[1] / "corpus" / "original"
SEEDER = (RECORDED / "s2l.bin").read_bytes()
LEECHER = (RECORDED / "l2s.bin").read_bytes()
SMALL = (RECORDED / "small.txt").read_bytes()
ID_HASH = bytes.fromhex("641057d4a3c5f2069380fcfa32ec3f7ea59566ca")
SEEDER_ID, LEECHER_ID = b"w3fcAR2XIgwocPDbdqgx", b"TU9dOwo0SFuskrq6N3Rc"
SMALL_SHAPE = Geometry(40, 16)
HANDSHAKE_BYTES = 136

MEMORY = ReceiveMemory()
PEER = 7


def slots_of(geometry: Geometry, *pieces: int) -> list[Slot]:
    return [Slot(piece, *block) for piece in pieces for block in geometry.blocks(piece)]


def opened(raw: bytes) -> tuple[GobOpening, bytes]:
    """The handshake at the start of a stream, and what follows it."""
    opening, at = GobOpening(), 0
    while not opening.done:
        taken = raw[at : at + opening.wants]
        if not taken:
            raise ProtocolError("the stream ends in its handshake")
        opening.take(taken)
        at += len(taken)
    return opening, raw[at:]


def wire(geometry: Geometry, raw: bytes = SEEDER[:HANDSHAKE_BYTES]) -> GobWire[Slot]:
    """The wire behind this handshake."""
    return GobWire(PEER, MEMORY, geometry, opened(raw)[0].decoder)


def feed(to: GobWire[Slot], raw: bytes, cuts: Sequence[int] = ()) -> list[object]:
    """Everything that came out, in order: messages, requests as tuples, slots, wasted bytes."""
    out: list[object] = []
    for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        at = start
        while at < stop:
            taken = 0
            for part in to.receive_buffers(stop - at):
                part[:] = raw[at + taken : at + taken + len(part)]
                taken += len(part)
            at += taken
            for group in to.received(taken):
                if isinstance(group, Blocks):
                    out += [*group.slots, *([group.wasted_bytes] if group.wasted_bytes else [])]
                elif isinstance(group, Messages):
                    out += group.messages
                else:
                    assert isinstance(group, Requests)
                    out += group.requests
    to.receive_buffers()  # says what was wrong, if that did not come out yet
    return out


def piece(encoder: GobEncoder, index: int, data: bytes) -> bytes:
    return encoder.piece_head(index, len(data)) + data + PIECE_END


# ----------------------------------------------------------------------------------------- as recorded


def test_we_say_what_the_original_seeder_said() -> None:
    say = GobEncoder()
    raw = say.handshake(ID_HASH, SEEDER_ID) + say.bitfield(Bitfield.full(3))
    for index in (2, 1, 0):
        raw += piece(say, index, SMALL[16 * index : 16 * index + 16])
    assert raw == SEEDER


def test_we_say_what_the_original_leecher_said() -> None:
    say = GobEncoder()
    raw = say.handshake(ID_HASH, LEECHER_ID) + say.bitfield(Bitfield(3))
    for index in (2, 1, 0):
        raw += say.request(index) + say.have(index)
    assert raw == LEECHER


def test_the_handshakes_of_the_original() -> None:
    for raw, peer_id in ((SEEDER, SEEDER_ID), (LEECHER, LEECHER_ID)):
        opening, rest = opened(raw)
        assert (opening.id_hash, opening.peer_id) == (ID_HASH, peer_id)
        assert len(raw) - len(rest) == HANDSHAKE_BYTES
        assert begins_gob(raw[:1])


@given(st.data())
def test_the_original_seeder_however_its_stream_is_cut(data: st.DataObject) -> None:
    rest = SEEDER[HANDSHAKE_BYTES:]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rest) - 1), max_size=20)))
    incoming = wire(SMALL_SHAPE)
    slots = slots_of(SMALL_SHAPE, 0, 1, 2)
    assert incoming.expect(slots) == [0, 1, 2]
    assert incoming.expecting == 3
    out = feed(incoming, rest, cuts)
    assert out == [BitfieldMessage(b"\xe0"), Unchoke(), *slots[::-1]]
    assert b"".join(slot.view for slot in slots) == SMALL
    assert {slot.filled_by for slot in slots} == {PEER}
    assert incoming.expecting == 0


@given(st.data())
def test_the_original_leecher_however_its_stream_is_cut(data: st.DataObject) -> None:
    rest = LEECHER[HANDSHAKE_BYTES:]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rest) - 1), max_size=20)))
    incoming = wire(SMALL_SHAPE, LEECHER)
    incoming.waiting.choked = False
    assert feed(incoming, rest, cuts) == [
        *(BitfieldMessage(b"\0"), Unchoke(), Interested()),
        *((2, 0, 8), Have(2), (1, 0, 16), Have(1), (0, 0, 16), Have(0), NotInterested()),
    ]


# ------------------------------------------------------------------------------------------- pieces


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([1, 16_000, 16_384, 70_000, 262_144]))
def test_pieces_of_any_size_land_in_their_slots(data: st.DataObject, piece_length: int) -> None:
    shape = Geometry(2 * piece_length + piece_length // 2 + 1, piece_length)
    content = bytes(range(251)) * (shape.length // 251 + 1)
    say = GobEncoder()
    raw = say.handshake(ID_HASH, SEEDER_ID)[HANDSHAKE_BYTES:] + say.bitfield(Bitfield.full(shape.piece_count))
    for index in data.draw(st.permutations(range(shape.piece_count))):
        at = shape.piece_offset(index)
        raw += piece(say, index, content[at : at + shape.piece_size(index)])
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=12)))
    incoming = wire(shape)
    slots = slots_of(shape, *range(shape.piece_count))
    left_out = set(data.draw(st.lists(st.integers(0, len(slots) - 1), max_size=3)))
    lent = [slot for number, slot in enumerate(slots) if number not in left_out]
    incoming.expect(lent)
    out = feed(incoming, raw, cuts)
    assert sorted((s.piece, s.begin) for s in out if isinstance(s, Slot)) == [
        (s.piece, s.begin) for s in lent
    ]
    for slot in lent:
        at = shape.piece_offset(slot.piece) + slot.begin
        assert slot.view == content[at : at + slot.length]
    wasted = sum(number for number in out if isinstance(number, int))
    assert wasted == sum(slots[number].length for number in left_out)


def test_a_piece_is_asked_for_once_and_again_when_it_has_begun_to_come() -> None:
    shape = Geometry(3 << 17, 1 << 17)
    incoming, say = wire(shape), GobEncoder()
    first, second, *others, last = slots_of(shape, 1)
    assert incoming.expect([first]) == [1]
    assert incoming.expect([second]) == []
    incoming.recall([second])
    assert incoming.expect([second, *others]) == []
    raw = say.bitfield(Bitfield.full(3)) + piece(say, 1, bytes(1 << 17))
    assert feed(incoming, raw[:60_000])[2:] == [first, second, others[0]]
    assert incoming.expect([last]) == [1]  # too late for the one that is coming
    incoming.recall([others[2]])  # not begun
    incoming.recall([others[1]])  # half here
    assert others[1].claimed_by is None
    assert feed(incoming, raw[60_000:]) == [*others[3:], 3 * 16384]
    assert incoming.expecting == 1
    incoming.close()
    assert incoming.expecting == 0


def test_a_piece_that_nobody_asked_for_is_waste() -> None:
    incoming, say = wire(SMALL_SHAPE), GobEncoder()
    assert feed(incoming, piece(say, 0, SMALL[:16])) == [16]


def test_a_block_that_another_peer_brought_meanwhile_is_skipped() -> None:
    shape = Geometry(1 << 17, 1 << 17)
    incoming, say = wire(shape), GobEncoder()
    slots = slots_of(shape, 0)
    incoming.expect(slots)
    raw = piece(say, 0, bytes(1 << 17))
    feed(incoming, raw[:20_000])
    slots[1].filled_by = slots[4].filled_by = 99
    out = feed(incoming, raw[20_000:])
    assert out == [*slots[2:4], *slots[5:], 2 * 16384]
    assert slots[1].filled_by == 99


def test_a_bitfield_of_many_pieces_and_words_without_one() -> None:
    shape = Geometry(300_000, 1)
    have = Bitfield(300_000)
    have.bits[:] = bitarray("011" * 100_000)
    incoming, say = wire(shape), GobEncoder()
    assert feed(incoming, say.bitfield(have), [70_000])[0] == BitfieldMessage(have.to_bytes())
    early, say = wire(shape), GobEncoder()
    early.waiting.choked = False
    assert feed(early, say.request(299_999)) == [Unchoke(), Interested(), (299_999, 0, 1)]
    hello = sint(66) + b"\1" + text(b"github.com/rafaelbarbeta/MicroTorr/pkg/messages.HelloDebug")
    definition = struct_definition(90, b"HelloDebug", ((b"Msg", gob.STRING),))
    value = sint(90) + uint(5) + b"\1" + text(b"hi") + b"\0" + b"\0"
    assert feed(early, message(hello + definition) + message(value)) == [KeepAlive()]


# ---------------------------------------------------------------------------------------- what waits


def test_requests_wait_while_the_peer_is_choked_and_keep_their_order() -> None:
    shape = Geometry(10 * 200 * 16384, 200 * 16384)
    waiting = Waiting(shape)
    for index in (5, 3, 5, 8):
        waiting.ask(index)
    assert waiting.next() == []
    waiting.choked = False
    assert {block[0] for block in waiting.next()} == {5}  # two at a time would be more than a window
    assert waiting.next() == []
    waiting.ask(5)
    waiting.sent(5)
    assert waiting.next() == [(3, *block) for block in shape.blocks(3)]
    waiting.sent(3)
    waiting.ask(3)
    assert {block[0] for block in waiting.next()} == {8}
    waiting.choke(sending=None)
    assert waiting.next() == []
    waiting.choked = False
    assert {block[0] for block in waiting.next()} == {8}
    waiting.choke(sending=8)
    waiting.choked = False
    waiting.sent(8)
    assert {block[0] for block in waiting.next()} == {3}


def test_there_is_a_bound_to_what_waits() -> None:
    waiting = Waiting(Geometry(WAITING_MAX + 1, 1))
    for index in range(WAITING_MAX):
        waiting.ask(index)
    with pytest.raises(ProtocolError, match="more than"):
        waiting.ask(WAITING_MAX)
    with pytest.raises(ProtocolError, match="outside"):
        waiting.ask(-1)


# --------------------------------------------------------------------------------------------- faults

BITFIELD, REQUEST, PIECE = (
    text(f"github.com/rafaelbarbeta/MicroTorr/pkg/messages.{name}".encode())
    for name in ("Bitfield", "Request", "Piece")
)
ENVELOPE = message(struct_definition(66, b"Message", ((b"Data", gob.INTERFACE),)))
INDEXED = struct_definition(67, b"Request", ((b"PieceIndex", gob.INT),))
ASKED = ENVELOPE + message(sint(66) + b"\1" + REQUEST + INDEXED)
PIECE_KIND = struct_definition(67, b"Piece", ((b"PieceIndex", gob.INT), (b"Data", gob.BYTES)))

FAULTS = {
    "an empty message": b"\0",
    "a message of an absurd length": b"\xf8" + b"\xff" * 8,
    "a message longer than anything can be": uint(40 + 4096 + 1),
    "a length in nine bytes": b"\xf7" + b"\1" * 9,
    "a length longer than need be": b"\xff\x05",
    "a value of no type": message(sint(70) + b"\0"),
    "a value of a basic type": message(sint(gob.INT) + b"\0\0"),
    "a second definition": ENVELOPE + ENVELOPE,
    "a definition of a basic type": message(struct_definition(gob.INT, b"int", ((b"a", gob.INT),))),
    "a definition under two numbers": message(
        sint(-66) + struct_definition(67, b"a", ((b"a", gob.INT),))[2:]
    ),
    "bytes behind a definition": message(struct_definition(66, b"a", ((b"a", gob.INT),)) + b"\1\0"),
    "too many types": b"".join(
        message(struct_definition(number, b"a", ((b"a", gob.INT),))) for number in range(66, 130)
    ),
    "too many fields": message(
        struct_definition(66, b"a", tuple((b"%d" % number, gob.INT) for number in range(17)))
    ),
    "fields of one name": message(struct_definition(66, b"a", ((b"a", gob.INT), (b"a", gob.INT)))),
    "a long name": message(struct_definition(66, b"a" * 257, ((b"a", gob.INT),))),
    "a name that is not text": message(struct_definition(66, b"\xff", ((b"a", gob.INT),))),
    "a map": message(sint(-66) + b"\4\1\1\1a\1" + sint(66) + b"\0\1\2\1\2\0\0"),
    "a float": message(struct_definition(66, b"a", ((b"a", 4),))),
    "nothing in the interface": ENVELOPE + message(sint(66) + b"\0"),
    "an interface without a name": ENVELOPE + message(sint(66) + b"\1\0" + b"\0"),
    "an unknown name": ENVELOPE
    + message(sint(66) + b"\1" + text(b"main.Evil") + INDEXED)
    + message(sint(67) + b"\1\0\0"),
    "a handshake in the interface": ENVELOPE
    + message(sint(66) + b"\1" + text(b"HandShake") + sint(65) + b"\1\0\0"),
    "a second handshake": SEEDER[55:HANDSHAKE_BYTES],
    "a request with other fields": ENVELOPE
    + message(sint(66) + b"\1" + REQUEST + struct_definition(67, b"Request", ((b"Index", gob.INT),)))
    + message(sint(67) + b"\1\0\0"),
    "a request of the wrong kind": ENVELOPE
    + message(sint(66) + b"\1" + REQUEST + struct_definition(67, b"Request", ((b"PieceIndex", gob.BYTES),)))
    + message(sint(67) + b"\1\0\0"),
    "a request below zero": ASKED + message(sint(67) + uint(3) + b"\1" + sint(-1) + b"\0\0"),
    "a request beyond the end": ASKED + message(sint(67) + uint(3) + b"\1" + sint(3) + b"\0\0"),
    "a request with a field too many": ASKED + message(sint(67) + uint(3) + b"\2" + sint(1) + b"\0\0"),
    "a request set to nothing": ASKED + message(sint(67) + uint(3) + b"\1" + sint(0) + b"\0\0"),
    "a value that does not fill its message": ASKED + message(sint(67) + uint(1) + b"\1" + sint(2) + b"\0\0"),
    "a value larger than its message": ASKED + message(sint(67) + uint(9) + b"\1" + sint(2) + b"\0\0"),
    "a truncated value": ASKED + message(sint(67) + uint(1) + b"\1" + b"\0"),
    "a bitfield too short": GobEncoder().bitfield(Bitfield(2)),
    "a bitfield too long": GobEncoder().bitfield(Bitfield(4)),
    "a bitfield of numbers": GobEncoder().bitfield(Bitfield.full(3)).replace(b"\3\1\1\1\0", b"\3\1\2\1\0"),
    "a bitfield longer than its message": GobEncoder()
    .bitfield(Bitfield.full(3))
    .replace(b"\3\1\1\1\0", b"\x7f\1\1\1\0"),
    "a piece too short": piece(GobEncoder(), 0, bytes(15)),
    "a piece too long": piece(GobEncoder(), 2, bytes(9)),
    "a piece of no bytes": ENVELOPE
    + message(sint(66) + b"\1" + PIECE + PIECE_KIND)
    + message(sint(67) + b"\1\0\0"),
    "a piece that does not exist": piece(GobEncoder(), 3, bytes(16)),
    "a piece with more in it": GobEncoder().piece_head(0, 16) + bytes(16) + b"\1\0",
    "a piece whose data are the whole stream": ENVELOPE
    + message(sint(66) + b"\1" + PIECE + PIECE_KIND)
    + message(sint(67) + uint(22) + b"\2" + uint(1 << 60) + bytes(13) + b"\0\0"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_every_fault_is_refused(what: str) -> None:
    incoming = wire(SMALL_SHAPE)
    incoming.waiting.choked = False
    with pytest.raises(ProtocolError):
        feed(incoming, FAULTS[what])


def test_a_second_bitfield_is_refused() -> None:
    say = GobEncoder()
    with pytest.raises(ProtocolError, match="first"):
        feed(wire(SMALL_SHAPE), say.bitfield(Bitfield(3)) + say.bitfield(Bitfield(3)))


def test_values_that_are_nested_without_end() -> None:
    deep = Decoder()
    define = struct_definition(66, b"Deep", ((b"Deep", 66),))
    assert deep.open(Reader(define)) is None
    reader = Reader(sint(66) + b"\1" * 1000)
    value = deep.open(reader)
    assert value is not None
    with pytest.raises(ProtocolError, match="nested"):
        deep.fields(value, reader)
    slices = Decoder()
    assert slices.open(Reader(gob.slice_definition(67, b"[]", 67))) is None
    assert slices.open(Reader(struct_definition(66, b"Deep", ((b"Deep", 67),)))) is None
    reader = Reader(sint(66) + b"\1" + b"\1" * 1000)
    value = slices.open(reader)
    assert value is not None
    with pytest.raises(ProtocolError, match="nested"):
        slices.fields(value, reader)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x13BitTorrent protocol",
        b"GET / HTTP/1.1",
        SEEDER[:55].replace(b"Pstr", b"pstr") + SEEDER[55:],
        SEEDER.replace(b"MICROTORRv1", b"MICROTORRv2"),
        SEEDER.replace(b"641057", b"64105x"),
        SEEDER.replace(b"\x28641057", b"\x27641057"),
        SEEDER[:55] + SEEDER[:55],
        SEEDER[:55] + ENVELOPE * 1 + message(struct_definition(67, b"a", ((b"a", gob.INT),))) * 20,
        SEEDER[:55] + b"\xf8" + b"\xff" * 8,
        SEEDER[:55] + b"\0",
        GobEncoder().handshake(ID_HASH, b"short"),
        GobEncoder().handshake(ID_HASH, b"x" * 400),
        SEEDER[:100],
    ],
)
def test_what_is_no_handshake(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        opened(raw)


def test_who_speaks_another_protocol_is_found_out_with_the_first_bytes() -> None:
    opening = GobOpening()
    with pytest.raises(ProtocolError, match="neither"):
        opening.take(b"\x37"[: opening.wants])
    for number, byte in enumerate(b"\x36\xff\x81\x03\x01\x01\x09HandSh"):
        for wrong in (byte ^ 1, byte ^ 0x40):
            opening = GobOpening()
            start = SEEDER[:number] + bytes([wrong])
            if number == 2 or (number == 1 and wrong >= 0xFE):
                continue  # the number of the type: any will do
            with pytest.raises(ProtocolError):
                feed_opening(opening, start + SEEDER[number + 1 : 30])


def feed_opening(opening: GobOpening, raw: bytes) -> None:
    at = 0
    while at < len(raw):
        taken = raw[at : at + opening.wants]
        opening.take(taken)
        at += len(taken)


def test_the_handshake_of_a_newer_go() -> None:
    """Go 1.27 numbers types from 64 on, which makes this definition a byte shorter."""
    newer = b"\x35\x7f" + SEEDER[3:16] + b"\x01\xff\x80" + SEEDER[19:55]
    raw = newer + SEEDER[55:].replace(b"\xff\x82", b"\xff\x80", 1)
    opening, rest = opened(raw)
    assert (opening.id_hash, opening.peer_id) == (ID_HASH, SEEDER_ID)
    assert feed(GobWire(PEER, MEMORY, SMALL_SHAPE, opening.decoder), rest)[-1] == 40  # all of it waste


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from([SEEDER, LEECHER]))
def test_a_damaged_stream_is_refused_or_read(data: st.DataObject, recorded: bytes) -> None:
    raw = bytearray(recorded)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        how = data.draw(st.sampled_from(["change", "insert", "remove", "repeat"]))
        if how == "change":
            raw[at] = data.draw(st.integers(0, 255))
        elif how == "insert":
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        elif how == "remove":
            del raw[at : at + data.draw(st.integers(1, 40))]
        else:
            raw[at:at] = raw[at : at + data.draw(st.integers(1, 120))]
        if not raw:
            return
    try:
        opening, rest = opened(bytes(raw))
        incoming: GobWire[Slot] = GobWire(PEER, MEMORY, SMALL_SHAPE, opening.decoder)
        incoming.waiting.choked = False
        incoming.expect(slots_of(SMALL_SHAPE, 0, 1, 2))
        feed(incoming, rest)
    except ProtocolError as error:
        assert str(error)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([-70, -66, -65, 65, 66, 67, 68]), st.binary(max_size=60)), max_size=6)
)
def test_garbage_in_the_shape_of_messages(messages: list[tuple[int, bytes]]) -> None:
    incoming = wire(SMALL_SHAPE)
    try:
        feed(incoming, ASKED[: len(ENVELOPE)] + b"".join(message(sint(kind) + raw) for kind, raw in messages))
    except ProtocolError as error:
        assert str(error)


@given(st.integers(0, 2**64 - 1))
def test_numbers_both_ways(number: int) -> None:
    assert Reader(uint(number)).uint() == number
    signed = number - 2**63
    assert Reader(sint(signed)).sint() == signed
