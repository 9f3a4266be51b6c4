"""The wire: every message both ways, any split of a stream, slots that are shared, garbage in its shape."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtorrd.errors import ProtocolError
from microtorrd.proto import messages as m
from microtorrd.proto.frames import MAX_MESSAGE_BYTES
from microtorrd.proto.received import PLAN_BYTES, PLAN_LEAST_BYTES, QUIET_BYTES
from microtorrd.proto.wire import (
    HANDSHAKE_BYTES,
    Blocks,
    Handshake,
    Messages,
    ReceiveMemory,
    Requests,
    Wire,
    decode_handshake,
    decode_opening,
    encode,
    encode_requests,
    piece_header,
)
from tests.proto.slot import Slot

MEMORY = ReceiveMemory()
PEER = 7


def wire(slots: Sequence[Slot] = (), *, peer: int = PEER, bitfield_bytes: int | None = None) -> Wire[Slot]:
    new: Wire[Slot] = Wire(peer, MEMORY, bitfield_bytes=bitfield_bytes)
    new.expect(slots)
    return new


def push(to: Wire[Slot], data: bytes, size: int | None = None, limit: int | None = None) -> list[Any]:
    """One read of at most `size` bytes of `data`, as a socket does it: into the buffers in their order."""
    rest = memoryview(data)[:size]
    taken = 0
    for part in to.receive_buffers(limit):
        count = min(len(part), len(rest) - taken)
        part[:count] = rest[taken : taken + count]
        taken += count
    return [taken, to.received(taken)]


def run(
    to: Wire[Slot], data: bytes, sizes: Callable[[], tuple[int, int | None]] = lambda: (1 << 30, None)
) -> list[Any]:
    """The whole stream in reads of these sizes and limits: what came out, flat, at last a fault's text."""
    flat: list[Any] = []
    try:
        while data:
            size, limit = sizes()
            taken, groups = push(to, data, size, limit)
            assert taken, "a read without a place for a single byte"
            flatten(groups, flat)
            data = data[taken:]
        to.receive_buffers()
    except ProtocolError as error:
        flat.append(str(error))
    return flat


def flatten(groups: list[Any], flat: list[Any]) -> None:
    for group in groups:
        if isinstance(group, Blocks):
            assert group.slots or group.wasted_bytes
            for slot in group.slots:
                assert slot.filled_by == PEER
                flat.append(("block", slot.name, bytes(slot.view)))
            if group.wasted_bytes:
                flat.append(("waste", group.wasted_bytes))
        elif isinstance(group, Requests):
            assert group.requests
            flat.extend(("request", tuple(request)) for request in group.requests)
        else:
            assert isinstance(group, Messages) and group.messages
            flat.extend(group.messages)


# ---- one table, both ways

TABLE: list[tuple[m.Message, str]] = [
    (m.KeepAlive(), "00000000"),
    (m.Choke(), "00000001 00"),
    (m.Unchoke(), "00000001 01"),
    (m.Interested(), "00000001 02"),
    (m.NotInterested(), "00000001 03"),
    (m.Have(258), "00000005 04 00000102"),
    (m.BitfieldMessage(b"\xf0\x80"), "00000003 05 f080"),
    (m.BitfieldMessage(b""), "00000001 05"),
    (m.Cancel(1, 2, 3), "0000000d 08 00000001 00000002 00000003"),
    (m.Port(6881), "00000003 09 1ae1"),
    (m.Suggest(9), "00000005 0d 00000009"),
    (m.HaveAll(), "00000001 0e"),
    (m.HaveNone(), "00000001 0f"),
    (m.Reject(1, 2, 3), "0000000d 10 00000001 00000002 00000003"),
    (m.AllowedFast(2**32 - 1), "00000005 11 ffffffff"),
    (m.Extended(0, b"de"), "00000004 14 00 6465"),
    (m.Extended(255, b""), "00000002 14 ff"),
]


@pytest.mark.parametrize(("message", "text"), TABLE, ids=[type(row[0]).__name__ for row in TABLE])
def test_a_message_and_its_bytes(message: m.Message, text: str) -> None:
    raw = bytes.fromhex(text)
    assert encode(message) == raw
    assert repr(run(wire(), raw)) == repr([message]), "as text, because Choke() == Unchoke()"


def test_a_request_and_its_bytes() -> None:
    raw = bytes.fromhex("0000000d 06 00000001 00004000 00002000")
    assert encode(m.Request(1, 16384, 8192)) == raw
    assert encode_requests([Slot(1, 16384, 8192), Slot(1, 16384, 8192)]) == raw * 2
    assert run(wire(), raw) == [("request", (1, 16384, 8192))]


def test_a_block_and_its_bytes() -> None:
    assert piece_header(1, 2, 3) == bytes.fromhex("0000000c 07 00000001 00000002")
    slot = Slot(1, 2, 3)
    assert run(wire([slot]), piece_header(1, 2, 3) + b"abc") == [("block", (1, 2, 3), b"abc")]


def test_a_handshake_and_its_bytes() -> None:
    raw = b"\x13BitTorrent protocol" + bytes.fromhex("0000000000100005") + b"s" * 20 + b"p" * 20
    handshake = decode_handshake(raw)
    assert handshake == Handshake(b"s" * 20, b"p" * 20, bytes.fromhex("0000000000100005"))
    assert (handshake.fast, handshake.extended, handshake.dht) == (True, True, True)
    assert handshake.encode() == raw and len(raw) == HANDSHAKE_BYTES
    ours = Handshake(b"s" * 20, b"p" * 20)
    assert (ours.fast, ours.extended, ours.dht) == (True, True, False)
    assert decode_opening(raw[:48]) == (raw[20:28], b"s" * 20)
    with pytest.raises(ValueError, match="20 bytes"):
        Handshake(b"s" * 19, b"p" * 20).encode()


@given(st.binary(max_size=80))
def test_a_handshake_of_anything_else_is_a_protocol_error(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_handshake(raw)
    with pytest.raises(ProtocolError):
        decode_opening(b"\x13BitTorrent protocoL" + raw[:28].ljust(28))


# ---- any split

numbers = st.integers(0, 2**32 - 1)
message_values = st.one_of(
    st.sampled_from([m.KeepAlive(), m.Choke(), m.Unchoke(), m.Interested(), m.HaveAll(), m.HaveNone()]),
    st.builds(m.Have, numbers),
    st.builds(m.Request, numbers, numbers, numbers),
    st.builds(m.Cancel, numbers, numbers, numbers),
    st.builds(m.Reject, numbers, numbers, numbers),
    st.builds(m.Port, st.integers(0, 65535)),
    st.builds(m.BitfieldMessage, st.binary(max_size=40)),
    st.builds(m.Extended, st.integers(0, 255), st.binary(max_size=40)),
)
#: What can stand in a stream, by a tag: a message, the next block asked for, one out of order, one not asked
#: for, a number of no known message, or a row of requests.
items = st.one_of(
    st.tuples(st.just("message"), message_values),
    st.tuples(st.just("next"), st.integers(1, 6)),
    st.tuples(st.just("later"), st.integers(0, 20)),
    st.tuples(st.just("unasked"), st.integers(1, 60)),
    st.tuples(st.just("unknown"), st.binary(max_size=30)),
    st.tuples(st.just("requests"), st.integers(1, 9)),
)


def compose(script: list[tuple[str, Any]], lengths: list[int]) -> tuple[list[tuple[int, int, int]], bytes]:
    """The blocks to ask for, and a stream that answers in this order."""
    names = [(at // 4, at * 1000, length) for at, length in enumerate(lengths)]
    waiting = [Slot(*name) for name in names]
    raw = bytearray()
    for kind, value in script:
        if kind == "message":
            raw += encode(value)
        elif kind == "next":
            raw += b"".join(slot.frame() for slot in waiting[:value])
            del waiting[:value]
        elif kind == "later" and waiting:
            raw += waiting.pop(value % len(waiting)).frame()
        elif kind == "unasked":
            raw += piece_header(99, value, value) + bytes(value)
        elif kind == "unknown":
            raw += struct.pack(">IB", 1 + len(value), 77) + value
        elif kind == "requests":
            raw += b"".join(encode(m.Request(value, at, 5)) for at in range(value))
    return names, bytes(raw)


blocks_asked = st.one_of(
    st.lists(st.sampled_from([1, 7, 64]), max_size=12),
    st.integers(0, 80).map(lambda count: [40] * count),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(items, max_size=14), blocks_asked, st.data())
def test_any_split_of_a_stream_gives_the_same_events(
    script: list[tuple[str, Any]], lengths: list[int], data: st.DataObject
) -> None:
    names, raw = compose(script, lengths)
    whole = run(wire([Slot(*name) for name in names]), raw)

    cuts = data.draw(st.lists(st.integers(1, 200), min_size=1, max_size=8))
    limits = data.draw(st.lists(st.one_of(st.none(), st.integers(1, 100)), min_size=1, max_size=3))
    calls = [0]

    def sizes() -> tuple[int, int | None]:
        calls[0] += 1
        return cuts[calls[0] % len(cuts)], limits[calls[0] % len(limits)]

    assert merge(run(wire([Slot(*name) for name in names]), raw, sizes)) == merge(whole)
    assert merge(run(wire([Slot(*name) for name in names]), raw, lambda: (1, None))) == merge(whole)


def merge(flat: list[Any]) -> list[Any]:
    """Waste between two blocks may be counted in one group or in two, after the blocks of its group.

    Messages are told from each other by their text, too: as tuples, Choke() equals Unchoke().
    """
    merged: list[Any] = []
    wasted = 0
    for event in flat:
        if isinstance(event, tuple) and event[:1] == ("waste",):
            wasted += event[1]
        else:
            merged.append(event if type(event) in (str, tuple) else (repr(event), event))
    return [*merged, wasted]


@given(st.lists(items, max_size=10), blocks_asked, st.data())
def test_garbage_in_the_shape_of_frames_gives_protocol_errors_only(
    script: list[tuple[str, Any]], lengths: list[int], data: st.DataObject
) -> None:
    names, raw = compose(script, lengths)
    length = data.draw(st.one_of(st.integers(0, 40), st.integers(131000, 131100), numbers))
    number = data.draw(st.integers(0, 24))
    body = data.draw(st.binary(max_size=40))
    garbage = raw + struct.pack(">IB", length, number) + body
    whole = run(wire([Slot(*name) for name in names], bitfield_bytes=3), garbage)
    cut = data.draw(st.integers(1, 30))
    pieces = run(wire([Slot(*name) for name in names], bitfield_bytes=3), garbage, lambda: (cut, None))
    assert merge(pieces) == merge(whole)


@given(st.binary(max_size=300), blocks_asked)
def test_noise_gives_protocol_errors_only(noise: bytes, lengths: list[int]) -> None:
    names, _ = compose([], lengths)
    run(wire([Slot(*name) for name in names]), noise)


# ---- planned reads


def test_blocks_that_come_as_asked_lie_in_their_slots_without_a_copy() -> None:
    slots = [Slot(0, 16384 * at, 16384) for at in range(40)]
    to = wire(slots)
    flat = run(to, b"".join(slot.frame() for slot in slots[:10]))
    buffers = to.receive_buffers()
    for slot in slots[10:20]:
        assert any(buffer.obj is slot.view.obj for buffer in buffers), "not received in place"
    flat += run(to, b"".join(slot.frame() for slot in slots[10:]))
    assert flat == [("block", slot.name, slot.content) for slot in slots]
    assert to.expecting == 0


def test_a_message_between_the_blocks_spoils_no_block() -> None:
    slots = [Slot(0, 100 * at, 100) for at in range(10)]
    frames = [slot.frame() for slot in slots]
    frames.insert(4, encode(m.Have(3)))
    flat = run(wire(slots), b"".join(frames))
    assert flat[4] == m.Have(3)
    assert [event for event in flat if event != m.Have(3)] == [
        ("block", slot.name, slot.content) for slot in slots
    ]


def test_a_peer_that_answers_in_its_own_order_is_believed_after_a_while() -> None:
    slots = [Slot(0, 100 * at, 100) for at in range(64)]
    to = wire(slots)
    planned = 0
    for slot in reversed(slots):
        planned += len(to.receive_buffers()) > 1
        _, groups = push(to, slot.frame())
        assert [done.name for done in groups[0].slots] == [slot.name]
    assert planned < 16, "planned although it failed every time"


def test_a_plan_made_before_a_wait_is_not_believed_after_it() -> None:
    slots = [Slot(0, 100 * at, 100) for at in range(3)]
    to = wire(slots)
    to.receive_buffers()  # nothing came; meanwhile all are recalled
    assert to.recall(slots) == slots
    assert run(to, slots[0].frame()) == [("waste", 100)]
    assert bytes(slots[0].view) == bytes(100)


def test_what_one_read_may_bring_is_bounded_by_how_many_share_the_memory() -> None:
    memory = ReceiveMemory()
    slots = [Slot(0, begin << 17, 1 << 17) for begin in range(4 * PLAN_BYTES >> 17)]
    for others, plan in ((1, PLAN_BYTES), (31, PLAN_BYTES >> 1), (1000, PLAN_LEAST_BYTES)):
        memory.joined(others)
        to: Wire[Slot] = Wire(PEER, memory)
        to.expect(slots)
        assert to.expecting_bytes == 4 * PLAN_BYTES
        stream, most = b"".join(slot.frame() for slot in slots), 0
        while stream:
            assert sum(map(len, to.receive_buffers())) == to.room
            most = max(most, to.room)
            stream = stream[push(to, stream)[0] :]
        assert plan < most < plan + 5 * (1 << 17), "the block that is arriving, and ordinary memory"
        for slot in slots:
            slot.filled_by = None


def test_while_nothing_is_expected_one_read_is_small() -> None:
    assert sum(len(part) for part in wire().receive_buffers()) == QUIET_BYTES
    assert sum(len(part) for part in wire([Slot(0, 0, 100)]).receive_buffers(limit=50)) == 50


# ---- slots that are not only ours


def test_a_block_nobody_asked_for_is_waste() -> None:
    slot = Slot(0, 0, 50)
    to = wire([slot])
    stream = piece_header(0, 0, 40) + bytes(40) + piece_header(0, 50, 50) + bytes(50) + slot.frame()
    assert merge(run(to, stream)) == [("block", (0, 0, 50), slot.content), 90]


def test_the_second_copy_of_a_block_is_waste_and_changes_nothing() -> None:
    slot = Slot(0, 0, 50)
    first, second = wire([slot]), wire([slot], peer=8)
    run(first, slot.frame())
    assert run(second, slot.frame(b"x" * 50) + encode(m.Choke())) == [("waste", 50), m.Choke()]
    assert bytes(slot.view) == slot.content and slot.filled_by == PEER


def test_two_peers_never_mix_in_one_block() -> None:
    slot = Slot(0, 0, 50)
    honest, liar = wire([slot]), wire([slot], peer=8)
    push(honest, slot.frame()[:40])
    assert slot.claimed_by == PEER
    lie = slot.frame(b"x" * 50)
    push(liar, lie[:60])  # collected aside: the slot is claimed
    assert bytes(slot.view[:27]) == slot.content[:27]
    assert run(honest, slot.frame()[40:]) == [("block", slot.name, slot.content)]
    assert run(liar, lie[60:] + encode(m.Choke())) == [("waste", 50), m.Choke()]
    assert bytes(slot.view) == slot.content


def test_who_has_the_whole_block_first_closes_the_slot_that_another_claimed() -> None:
    slot, after = Slot(0, 0, 50), Slot(0, 50, 50)
    slow, quick = wire([slot, after], peer=8), wire([slot])
    push(slow, slot.frame(b"x" * 50)[:40])
    assert slot.claimed_by == 8
    assert run(quick, slot.frame(), lambda: (20, None)) == [("block", slot.name, slot.content)]
    _, groups = push(slow, slot.frame(b"x" * 50)[40:] + after.frame())
    assert (groups[0].wasted_bytes, groups[0].slots) == (50, [after])
    assert bytes(slot.view) == slot.content


def test_a_claim_ends_with_its_wire() -> None:
    slot = Slot(0, 0, 50)
    slow = wire([slot], peer=8)
    push(slow, slot.frame()[:40])
    slow.close()
    assert slot.claimed_by is None and slow.expecting == 0


def test_planned_memory_never_includes_a_slot_another_wire_is_filling() -> None:
    slot, after = Slot(0, 0, 50), Slot(0, 50, 50)
    slow = wire([slot], peer=8)
    push(slow, slot.frame()[:40])
    quick = wire([slot, after])
    assert all(part.obj is not slot.view.obj for part in quick.receive_buffers())


def test_a_recalled_block_that_comes_all_the_same_is_waste() -> None:
    slots = [Slot(0, 100 * at, 100) for at in range(3)]
    to = wire(slots)
    push(to, slots[0].frame()[:60])
    assert to.recall(slots[:2]) == [slots[1]], "no cancel for a block that is arriving"
    assert slots[0].claimed_by is None
    stream = slots[0].frame()[60:] + slots[1].frame() + slots[2].frame()
    assert merge(run(to, stream)) == [("block", slots[2].name, slots[2].content), 200]
    assert bytes(slots[1].view) == bytes(100)


def test_a_recall_while_the_block_is_collected_aside() -> None:
    slot = Slot(0, 0, 50)
    first, second = wire([slot], peer=8), wire([slot])
    push(first, slot.frame()[:40])
    push(second, slot.frame()[:40])
    assert second.recall([slot]) == []
    assert slot.claimed_by == 8, "not ours to release"
    assert run(second, slot.frame()[40:] + encode(m.Choke())) == [("waste", 50), m.Choke()]


def test_a_rejected_block_is_no_longer_lent() -> None:
    slot = Slot(0, 0, 50)
    to = wire([slot])
    assert run(to, encode(m.Reject(0, 0, 50))) == [m.Reject(0, 0, 50)]
    assert to.expecting == 0
    assert run(to, slot.frame()) == [("waste", 50)]


def test_a_block_asked_for_again_lies_in_the_newer_slot() -> None:
    old, new = Slot(0, 0, 50), Slot(0, 0, 50)
    to = wire([old])
    to.expect([new])
    assert to.expecting == 1
    run(to, new.frame())
    assert (old.filled_by, new.filled_by) == (None, PEER)
    assert to.recall([old]) == []


# ---- bounds


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("00000002 00 00", "message 0 has 2 bytes instead of 1"),
        ("00000004 04 000000", "message 4 has 4 bytes instead of 5"),
        ("0000000c 06", "message 6 has 12 bytes instead of 13"),
        ("ffffffff 10", "message 16 has 4294967295 bytes instead of 13"),
        ("00000004 05 f0f0f0", "a bitfield of 3 bytes, where this torrent's has 2"),
        ("00000002 05 f0", "a bitfield of 1 bytes"),
        ("00000008 07", "a block of -1 bytes"),
        ("0002000a 07", "a block of 131073 bytes"),
        ("00020001 14", "message 20 has 131073 bytes"),
        ("00000001 14", "without its number"),
        ("00020001 63", "message 99 has 131073 bytes"),
    ],
)
def test_lengths_that_cannot_be_are_refused_before_the_body_comes(frame: str, reason: str) -> None:
    raw = encode(m.Choke()) + bytes.fromhex(frame)
    for sizes in ((1 << 20, None), (1, None)):
        flat = run(wire(bitfield_bytes=2), raw, lambda sizes=sizes: sizes)
        assert flat[0] == m.Choke(), "what stood ahead of the fault is delivered"
        assert reason in flat[1] and len(flat) == 2


def test_a_fault_stays() -> None:
    to = wire()
    for _ in range(2):
        with pytest.raises(ProtocolError):
            push(to, b"\xff\xff\xff\xff\x00")
    with pytest.raises(ProtocolError):
        to.receive_buffers()


def test_the_largest_messages_pass_in_any_cut() -> None:
    slot = Slot(0, 0, 131072)
    extended = m.Extended(3, bytes(range(256)) * 500)
    unknown = struct.pack(">IB", MAX_MESSAGE_BYTES, 77) + bytes(MAX_MESSAGE_BYTES - 1)
    raw = unknown + slot.frame() + encode(extended)
    for size in (1 << 20, 70_000, 1001):
        flat = run(wire([Slot(*slot.name)]), raw, lambda size=size: (size, None))
        assert flat == [m.Unknown(77), ("block", slot.name, slot.content), extended]


@pytest.mark.parametrize("size", [1, 5, 13, 1 << 20])
def test_each_message_and_block_that_nobody_wants_is_told(size: int) -> None:
    unknown = struct.pack(">IB", 3, 99) + b"xx" + struct.pack(">IB", 1, 98)
    unasked = piece_header(7, 0, 2) + b"xx"
    to = wire()
    messages, blocks = [], 0
    raw = (unknown + unasked) * 3
    while raw:
        taken, groups = push(to, raw, size, None)
        raw = raw[taken:]
        for group in groups:
            if isinstance(group, Blocks):
                blocks += group.wasted_blocks
            else:
                assert isinstance(group, Messages)
                messages += group.messages
    assert messages == [m.Unknown(99), m.Unknown(98)] * 3
    assert blocks == 3


def test_a_block_without_data_is_a_fault() -> None:
    assert "a block of 0 bytes" in run(wire(), piece_header(0, 0, 0))[0]


def test_bytes_read_with_the_handshake_are_fed() -> None:
    slot = Slot(0, 0, 50)
    flat: list[Any] = []
    flatten(wire([slot]).feed(encode(m.Have(1)) + slot.frame() + encode(m.Have(2)) * 20_000), flat)
    assert flat[:2] == [m.Have(1), ("block", slot.name, slot.content)] and len(flat) == 20_002
    to = wire()
    flat.clear()
    flatten(to.feed(encode(m.Have(1)) + b"\xff" * 5), flat)
    assert flat == [m.Have(1)]
    with pytest.raises(ProtocolError):
        to.receive_buffers()
