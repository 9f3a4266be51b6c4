"""A peer wire over a real socket, with real files and disk threads, and a stranger at the other end."""

from __future__ import annotations

import gc
import random
import struct
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import pytest
from gevent import socket

from microtorrd.core.events import BlocksReceived, MessagesReceived, PeerLeft, RequestsReceived
from microtorrd.greenlets import Crew
from microtorrd.net.peerwire import PeerWire
from microtorrd.net.sender import Sender
from microtorrd.net.stream import TcpStream
from microtorrd.proto import messages as m
from microtorrd.proto.received import PLAN_BYTES, TURN_BYTES
from microtorrd.proto.wire import encode, piece_header
from microtorrd.rate import Limiter, TokenBucket
from tests.net.peers import Bench
from tests.waiting import until

Make = Callable[..., Bench]


def frame(block: tuple[int, int, int], payload: bytes) -> bytes:
    return piece_header(*block) + payload


def limiter(rate: int, burst: int = 1) -> Limiter:
    return Limiter(TokenBucket(rate, burst))


# ---- facts of what comes in


def test_the_facts_of_one_read_are_in_the_order_of_the_stream(bench: Bench) -> None:
    wire, stranger, facts = bench.connect(start=False)
    slot = bench.slots((1, 0, 100))[0]
    wire.fetch([slot])
    stranger.say(
        m.BitfieldMessage(b"\xf8"),
        m.Unchoke(),
        frame((1, 0, 100), b"x" * 100),
        m.Interested(),
        m.Request(0, 0, 5),
        m.Request(0, 5, 5),
        m.Cancel(0, 0, 5),
    )
    wire.start()
    facts.wait(lambda: len(facts.messages) == 4)
    expected = [
        MessagesReceived(1, [m.BitfieldMessage(b"\xf8"), m.Unchoke()]),
        BlocksReceived(1, [slot], 0),
        MessagesReceived(1, [m.Interested()]),
        RequestsReceived(1, [(0, 0, 5), (0, 5, 5)]),
        MessagesReceived(1, [m.Cancel(0, 0, 5)]),
    ]
    assert repr(facts.all) == repr(expected), "as text, because different kinds can be equal as tuples"
    assert (bytes(slot.view), slot.filled_by) == (b"x" * 100, 1)


def test_what_was_read_with_the_handshake_comes_first(bench: Bench) -> None:
    _, stranger, facts = bench.connect(initial=encode(m.HaveAll()) + encode(m.Have(3))[:4])
    stranger.say(encode(m.Have(3))[4:])
    facts.wait(lambda: len(facts.messages) == 2)
    assert facts.messages == [m.HaveAll(), m.Have(3)]


def test_blocks_are_asked_for_and_lie_in_their_slots(bench: Bench) -> None:
    wire, stranger, facts = bench.connect()
    blocks = bench.all_blocks()
    slots = bench.slots(*blocks)
    wire.fetch(slots)
    assert wire.outstanding == len(blocks)
    stranger.hear_until(lambda heard: len(heard) == len(blocks))
    assert stranger.asked == blocks
    for block in blocks:
        stranger.say(frame(block, bench.payload(*block)))
    facts.wait(lambda: len(facts.slots) == len(blocks))
    assert facts.slots == slots
    assert b"".join(slot.view for slot in slots) == bench.raw
    assert (wire.outstanding, facts.wasted_bytes) == (0, 0)


def test_a_quick_peer_that_pauses_is_heard_soon(make_bench: Make) -> None:
    bench = make_bench(lengths=(2 << 20,))
    wire, stranger, facts = bench.connect()
    blocks = bench.all_blocks()
    wire.fetch(bench.slots(*blocks))
    quick, rest = blocks[:40], blocks[40:]
    for block in quick:
        stranger.say(frame(block, bench.payload(*block)))
    facts.wait(lambda: len(facts.slots) == len(quick))
    # It is now known for sending much at a time, and sends little, with much still to come.
    for message in (m.Have(1), m.Have(2)):
        began = time.monotonic()
        stranger.say(message)
        facts.wait(lambda message=message: message in facts.messages)  # type: ignore[misc]
        assert time.monotonic() - began < 1
    for block in rest:
        stranger.say(frame(block, bench.payload(*block)))
    facts.wait(lambda: len(facts.slots) == len(blocks))
    assert b"".join(slot.view for slot in facts.slots) == bench.raw


def test_a_quick_peer_that_leaves_is_missed_at_once(make_bench: Make) -> None:
    bench = make_bench(lengths=(2 << 20,))
    wire, stranger, facts = bench.connect()
    blocks = bench.all_blocks()
    wire.fetch(bench.slots(*blocks))
    for block in blocks[:40]:
        stranger.say(frame(block, bench.payload(*block)))
    facts.wait(lambda: len(facts.slots) == 40)
    stranger.sock.close()
    assert facts.left().reason


def test_a_socket_that_was_read_empty_is_not_read_in_vain(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int | None] = []
    real = TcpStream.read

    def counting(self: TcpStream, buffers: Sequence[memoryview]) -> int | None:
        reads.append(real(self, buffers))
        return reads[-1]

    monkeypatch.setattr(TcpStream, "read", counting)
    _, stranger, facts = bench.connect()
    for piece in range(5):
        stranger.say(m.Have(piece))
        facts.wait(lambda piece=piece: m.Have(piece) in facts.messages)  # type: ignore[misc]
    assert reads.count(None) <= 1, "the very first one, before anything was said"


def test_the_more_wires_there_are_the_less_each_reads_at_a_time(bench: Bench, crew: Crew) -> None:
    memory = bench.memory.receive
    assert memory.plan_bytes == PLAN_BYTES
    for _ in range(2 * TURN_BYTES // PLAN_BYTES):
        bench.connect()
    assert memory.plan_bytes == PLAN_BYTES // 2
    assert crew.stop(5) == []
    assert memory.plan_bytes == PLAN_BYTES


def test_payload_nobody_asked_for_is_waste_and_no_fault(bench: Bench) -> None:
    _, stranger, facts = bench.connect()
    stranger.say(frame((0, 0, 16384), bytes(16384)), m.Have(1))
    facts.wait(lambda: facts.messages)
    assert facts.all == [BlocksReceived(1, [], 16384, 1), MessagesReceived(1, [m.Have(1)])]


def test_a_rejected_block_is_not_outstanding_any_more(bench: Bench) -> None:
    wire, stranger, facts = bench.connect()
    slot = bench.slots((0, 0, 100))[0]
    wire.fetch([slot])
    stranger.say(m.Reject(0, 0, 100), frame((0, 0, 100), b"x" * 100))
    facts.wait(lambda: facts.wasted_bytes == 100)
    assert facts.messages == [m.Reject(0, 0, 100)]
    assert (slot.filled_by, wire.outstanding) == (None, 0)


def test_a_choke_leaves_slots_lent_until_they_are_recalled(bench: Bench) -> None:
    wire, stranger, facts = bench.connect(fast=False)
    first, second = bench.slots((0, 0, 100), (0, 100, 100))
    wire.fetch([first, second])
    stranger.say(m.Choke(), frame((0, 0, 100), b"x" * 100))
    facts.wait(lambda: facts.slots == [first])
    wire.recall([first, second], cancel=False)
    stranger.say(frame((0, 100, 100), b"x" * 100))
    facts.wait(lambda: facts.wasted_bytes == 100)
    wire.tell([m.NotInterested()])
    stranger.hear_until(lambda heard: m.NotInterested() in heard)
    assert not any(isinstance(heard, m.Cancel) for heard in stranger.heard)


def test_recalled_blocks_are_cancelled_and_their_memory_is_left_alone(bench: Bench) -> None:
    wire, stranger, facts = bench.connect()
    begun, waiting, kept = bench.slots((0, 0, 100), (0, 100, 100), (0, 200, 100))
    wire.fetch([begun, waiting, kept])
    stranger.say(m.Have(0), frame((0, 0, 100), b"x" * 100)[:60])
    facts.wait(lambda: facts.messages)
    wire.recall([begun, waiting])
    begun.view[:] = waiting.view[:] = b"-" * 100  # somebody else's by now
    stranger.hear_until(lambda heard: len(heard) == 4)
    stranger.say(b"x" * 53, *(frame((0, begin, 100), b"x" * 100) for begin in (100, 200)))
    facts.wait(lambda: facts.slots)
    assert (facts.slots, facts.wasted_bytes) == ([kept], 200)
    assert bytes(begun.view) == bytes(waiting.view) == b"-" * 100
    assert [heard for heard in stranger.heard if isinstance(heard, m.Cancel)] == [m.Cancel(0, 100, 100)]


def test_in_the_end_game_the_first_copy_wins_and_is_never_mixed(bench: Bench) -> None:
    slot = bench.slots((0, 0, 16384))[0]
    slow, slow_end, slow_facts = bench.connect()
    quick, quick_end, quick_facts = bench.connect()
    slow.fetch([slot])
    quick.fetch([slot])
    bad, good = frame((0, 0, 16384), b"x" * 16384), frame((0, 0, 16384), b"y" * 16384)
    slow_end.say(m.Have(0), bad[:9000])
    slow_facts.wait(lambda: slow_facts.messages)
    quick_end.say(good)
    quick_facts.wait(lambda: quick_facts.slots)
    slow_end.say(bad[9000:])
    slow_facts.wait(lambda: slow_facts.wasted_bytes == 16384)
    assert (bytes(slot.view), slot.filled_by) == (b"y" * 16384, quick.peer)


# ---- limits, turns


def test_a_download_limit_is_kept(bench: Bench) -> None:
    wire, stranger, facts = bench.connect(down=limiter(1 << 20))
    blocks = bench.all_blocks()
    wire.fetch(bench.slots(*blocks))
    began = time.monotonic()
    stranger.say(*(frame(block, bench.payload(*block)) for block in blocks))
    facts.wait(lambda: len(facts.slots) == len(blocks))
    assert 0.2 < time.monotonic() - began < 2  # 0.25
    assert b"".join(slot.view for slot in facts.slots) == bench.raw


def test_a_download_limit_that_is_lifted_holds_nobody_any_longer(bench: Bench) -> None:
    bucket = TokenBucket(2000, 1)
    wire, stranger, facts = bench.connect(down=Limiter(bucket))
    blocks = bench.all_blocks()
    wire.fetch(bench.slots(*blocks))
    stranger.say(m.Have(1), *(frame(block, bench.payload(*block)) for block in blocks))
    facts.wait(lambda: facts.messages)
    bucket.set_rate(0, time.monotonic())
    began = time.monotonic()
    facts.wait(lambda: len(facts.slots) == len(blocks))
    assert time.monotonic() - began < 1


def test_a_wire_that_waits_for_its_limit_can_be_dropped(bench: Bench) -> None:
    wire, stranger, facts = bench.connect(down=limiter(10))
    stranger.say(m.Have(1), m.Have(2))
    facts.wait(lambda: facts.messages)
    wire.drop("enough")
    assert facts.left().reason == "enough"


def test_a_flood_of_tiny_messages_leaves_others_their_turn(bench: Bench, hub_watch: Any) -> None:
    _, stranger, facts = bench.connect()
    flood = encode(m.Interested()) * 1_000_000
    gevent.spawn(lambda: stranger.sock.sendall(flood) or stranger.sock.close())
    facts.wait(lambda: facts.all and isinstance(facts.all[-1], PeerLeft))
    assert len(facts.messages) == 1_000_000


# ---- the end


def test_the_other_side_closes(bench: Bench) -> None:
    _, stranger, facts = bench.connect()
    stranger.say(m.Have(1))
    stranger.sock.close()
    assert facts.left() == PeerLeft(1, "the other side closed the connection", False)
    assert facts.messages == [m.Have(1)]


def test_a_fault_ends_the_connection_after_what_was_good(bench: Bench) -> None:
    wire, stranger, facts = bench.connect()
    slot = bench.slots((0, 0, 100))[0]
    wire.fetch([slot])
    stranger.say(frame((0, 0, 100), b"x" * 100), b"\xff" * 100)
    left = facts.left()
    assert facts.slots == [slot]
    assert left.fault and "message 255 has 4294967295 bytes" in left.reason
    assert not stranger.hear() or not stranger.hear()


def test_a_bitfield_of_another_length_has_its_reason(bench: Bench) -> None:
    _, stranger, facts = bench.connect()
    stranger.say(m.BitfieldMessage(bytes(3)))
    assert facts.left() == PeerLeft(1, "a bitfield of 3 bytes, where this torrent's has 1", True)


def test_a_dropped_wire_says_so_once_and_does_nothing_more(bench: Bench) -> None:
    wire, stranger, facts = bench.connect()
    slot, later = bench.slots((0, 0, 16384), (0, 16384, 16384))
    wire.fetch([slot])
    stranger.say(m.Have(1), frame((0, 0, 16384), b"x" * 16384)[:5000])
    facts.wait(lambda: facts.messages)
    assert slot.claimed_by == 1
    wire.drop("enough")
    wire.drop("again")
    assert facts.of(PeerLeft) == [PeerLeft(1, "enough", False)]
    assert wire.closed and slot.claimed_by is None
    slot.view[:] = b"-" * 16384
    wire.tell([m.Have(1)])
    wire.fetch([later])
    wire.serve([(0, 0, 1)])
    wire.withdraw(None, reject=True)
    wire.recall([slot])
    with gevent.Timeout(5):
        while stranger.hear():
            continue
    assert len(facts.of(PeerLeft)) == 1
    assert (bytes(slot.view), wire.outstanding) == (b"-" * 16384, 0)


def test_a_stopped_crew_ends_its_wires(bench: Bench, crew: Crew) -> None:
    _, _, facts = bench.connect()
    _, _, unborn = bench.connect()  # stopped before its greenlets had their first turn
    gevent.sleep(0)
    _, _, newborn = bench.connect()
    assert crew.stop(5) == []
    for each in (facts, unborn, newborn):
        assert each.left().reason == "the torrent stops"
    wire, _, late = bench.connect(start=False)
    with pytest.raises(gevent.GreenletExit):
        wire.start()
    assert late.left().reason == "the torrent stops"


def test_a_reset_connection_has_its_reason(bench: Bench) -> None:
    _, stranger, facts = bench.connect()
    stranger.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stranger.sock.close()
    assert facts.left() == PeerLeft(1, "connection reset by peer", False)


# ---- both ends


def test_two_wires_move_a_torrent(make_bench: Make) -> None:
    bench = make_bench(lengths=(3_000_001, 0, 70_000))
    leecher, end, leecher_facts = bench.connect(start=False)
    seeder, seeder_facts = bench.adopt(end.sock, start=False)
    slots = bench.slots(*bench.all_blocks())
    random.Random(1).shuffle(slots)
    leecher.start()
    seeder.start()
    for at in range(0, len(slots), 50):
        leecher.fetch(slots[at : at + 50])
    for block in [(slot.piece, slot.begin, slot.length) for slot in slots]:
        seeder_facts.wait(lambda block=block: block in seeder_facts.requests)
        seeder.serve([block])
        seeder.tell([m.Have(1)])
    leecher_facts.wait(lambda: len(leecher_facts.slots) == len(slots))
    assert leecher_facts.slots == slots
    for slot in slots:
        assert bytes(slot.view) == bench.payload(slot.piece, slot.begin, slot.length)
    assert leecher_facts.wasted_bytes == 0


def test_idle_connections_cost_little_memory(bench: Bench) -> None:
    bench.connect()
    gevent.sleep(0.01)
    count = 50
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(count):
            bench.connect()
        gevent.sleep(0.05)
        each = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    assert each < 16_000, "bytes a connection, the tests' own other end included"


def test_a_wire_that_ended_leaves_nothing_for_the_search_for_cycles(make_bench: Make) -> None:
    """Which is as good as never made among what is old (`cycles.py`)."""

    def live_and_die() -> None:
        bench = make_bench()
        wire, stranger, facts = bench.connect()
        stranger.say(m.Have(1))
        facts.wait(lambda: facts.messages)
        stranger.sock.close()
        facts.left()
        until(lambda: wire._running == 0)
        bench.wires.clear()

    gc.collect()
    gc.disable()
    try:
        live_and_die()
        assert not [thing for thing in gc.get_objects() if isinstance(thing, PeerWire | Sender)]
    finally:
        gc.enable()
