"""What a peer wire sends: blocks of real files through real disk threads, within limits, to any peer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest
from gevent import get_hub, monkey
from gevent.event import Event
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.core.events import BlocksSent, Fact, StorageFailed
from microtorrd.disk import pool
from microtorrd.net import outgoing, peerwire, turns
from microtorrd.net.batch import BUFFERS, SendBuffer, SendMemory
from microtorrd.net.outgoing import LIMITED_BYTES
from microtorrd.net.peerwire import WireMemory
from microtorrd.proto import messages as m
from microtorrd.rate import Limiter, TokenBucket
from tests.net.peers import PIECE_BYTES, WAIT_S, Bench, ColdFiles, HangingFiles

Make = Callable[..., Bench]

_Lock = monkey.get_original("_thread", "allocate_lock")


@contextmanager
def held_disk(bench: Bench) -> Iterator[None]:
    """Inside, the only disk thread is busy; and no file is open, so that every read is a cold one."""
    bench.files.close()
    lock = _Lock()
    lock.acquire()
    ended = Event()
    bench.pool.submit(lock.acquire, lambda _: ended.set())
    yield
    lock.release()
    ended.wait()


def limiter(rate: int, burst: int = 1) -> Limiter:
    return Limiter(TokenBucket(rate, burst))


# ---- serving


@pytest.mark.parametrize("size", [16384, 1000, 65536, 16383])
def test_served_blocks_are_those_of_the_files(make_bench: Make, size: int) -> None:
    bench = make_bench(lengths=(100_000, 0, 1, 700_000, 50_000))
    wire, stranger, facts = bench.connect()
    blocks = bench.all_blocks(size)
    random.Random(size).shuffle(blocks[: len(blocks) // 2])
    stranger.ask(*blocks)
    facts.wait(lambda: len(facts.requests) == len(blocks))
    assert facts.requests == blocks
    wire.serve(blocks)
    stranger.hear_until(lambda heard: len(heard) == len(blocks))
    assert stranger.blocks == {block: bench.payload(*block) for block in blocks}
    facts.wait(lambda: facts.sent == len(blocks))
    assert wire.pending_requests == 0


def test_the_largest_requests_are_served(make_bench: Make) -> None:
    bench = make_bench(lengths=(300_000,))
    bench.geometry = type(bench.geometry)(300_000, 300_000)
    wire, stranger, _ = bench.connect()
    blocks = [(0, begin, 131072) for begin in (1, 0, 100_000, 3)]
    stranger.expect(*blocks)
    wire.serve(blocks)
    stranger.hear_until(lambda heard: len(heard) == 4)
    for block in blocks:
        assert stranger.blocks[block] == bench.raw[block[1] : block[1] + 131072]


def test_a_peer_with_small_buffers_gets_every_byte(make_bench: Make) -> None:
    bench = make_bench(lengths=(64 * PIECE_BYTES,))
    wire, stranger, facts = bench.connect(buffers=20_000)
    blocks = bench.all_blocks(50_000)
    stranger.expect(*blocks)
    wire.serve(blocks)
    with gevent.Timeout(20):
        while len(stranger.heard) < len(blocks):
            stranger.hear(limit=7000)
    assert stranger.blocks == {block: bench.payload(*block) for block in blocks}
    facts.wait(lambda: facts.sent == len(blocks))


def test_withdrawn_blocks_are_refused_where_that_is_wanted(bench: Bench) -> None:
    wire, stranger, _ = bench.connect(start=False)
    blocks = [(0, 100 * at, 100) for at in range(6)]
    wire.serve(blocks)
    wire.withdraw([blocks[1], (3, 0, 1)], reject=True)
    wire.withdraw([blocks[2]], reject=False)
    assert wire.pending_requests == 4
    wire.withdraw(None, reject=True)
    wire.serve([(1, 0, 10)])
    stranger.expect((1, 0, 10))
    wire.start()
    stranger.hear_until(lambda heard: stranger.blocks)
    assert stranger.heard[:-1] == [m.Reject(*blocks[at]) for at in (1, 0, 3, 4, 5)]
    assert set(stranger.blocks) == {(1, 0, 10)}


def test_too_many_requests_are_refused_aloud(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peerwire, "REQUESTS_MAX", 3)
    blocks = [(0, 100 * at, 100) for at in range(5)]
    wire, stranger, _ = bench.connect(start=False)
    stranger.expect(*blocks[:3])
    wire.serve(blocks)
    wire.start()
    stranger.hear_until(lambda heard: len(heard) == 5)
    assert stranger.heard[:2] == [m.Reject(*block) for block in blocks[3:]]
    assert list(stranger.blocks) == blocks[:3]


def test_too_many_requests_of_who_cannot_be_refused_end_the_connection(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peerwire, "REQUESTS_MAX", 3)
    wire, _, facts = bench.connect(fast=False)
    wire.serve([(0, 100 * at, 100) for at in range(5)])
    assert "more than 3 blocks queued" in facts.left().reason


def test_a_read_error_is_told_and_the_connection_goes_on(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file0").write_bytes(b"short")
    wire, stranger, facts = bench.connect()
    blocks = bench.all_blocks()
    wire.serve(blocks)
    stranger.hear_until(lambda heard: len(heard) == len(blocks))
    assert sorted(stranger.heard) == [m.Reject(*block) for block in sorted(blocks)]
    errors = facts.of(StorageFailed)
    assert [fact.error.cause for fact in errors] == ["changed"]
    (tmp_path / "file0").write_bytes(bench.raw)
    stranger.expect(blocks[0])
    wire.serve(blocks[:1])
    stranger.hear_until(lambda heard: stranger.blocks)
    assert stranger.blocks[blocks[0]] == bench.payload(*blocks[0])


def test_messages_do_not_wait_for_the_disk(bench: Bench) -> None:
    wire, stranger, _ = bench.connect()
    with held_disk(bench):
        wire.serve([(0, 0, 100)])
        gevent.sleep(0)
        wire.tell([m.Have(2)])
        stranger.hear_until(lambda heard: heard == [m.Have(2)])
        assert wire.pending_requests == 1
        stranger.expect((0, 0, 100))
    stranger.hear_until(lambda heard: stranger.blocks)


def test_send_memory_is_shared_and_nobody_keeps_it(bench: Bench) -> None:
    memory = WireMemory()
    memory.send = SendMemory(1)
    reading, reading_end, _ = bench.connect(memory=memory)
    gone, _, _ = bench.connect(memory=memory)
    withdrawn, _, _ = bench.connect(memory=memory)
    waiting, waiting_end, _ = bench.connect(memory=memory)
    with held_disk(bench):
        for wire in (reading, gone, withdrawn, waiting):
            wire.serve([(0, 0, 100)])
            gevent.sleep(0)
        waiting.tell([m.Have(1)])
        waiting_end.hear_until(lambda heard: heard == [m.Have(1)])
        gone.drop("gone")
        withdrawn.withdraw(None, reject=False)
        reading_end.expect((0, 0, 100))
        waiting_end.expect((0, 0, 100))
    reading_end.hear_until(lambda heard: reading_end.blocks)
    waiting_end.hear_until(lambda heard: waiting_end.blocks)


def test_who_is_stuck_does_not_hold_up_those_behind_in_the_line_for_memory(bench: Bench) -> None:
    """It asks for cold blocks and for messages, reads nothing, and would be the one who is woken."""
    memory = WireMemory()
    memory.send = SendMemory(1)
    reading, _, _ = bench.connect(memory=memory)
    stuck, _, _ = bench.connect(memory=memory, buffers=20_000)
    waiting, waiting_end, _ = bench.connect(memory=memory)
    with held_disk(bench):
        for wire in (reading, stuck, waiting):
            wire.serve([(0, 0, 100)])
            gevent.sleep(0)
            gevent.sleep(0.01)
        stuck.tell([m.Have(1)] * 50_000)
        gevent.sleep(0.01)
        waiting_end.expect((0, 0, 100))
    waiting_end.hear_until(lambda heard: waiting_end.blocks)


def test_memory_comes_back_when_a_peer_goes_while_the_disk_reads_for_it(bench: Bench) -> None:
    memory = WireMemory()
    memory.send = SendMemory(1)
    wire, _, facts = bench.connect(memory=memory)
    with held_disk(bench):
        wire.serve([(0, 0, 100)])
        gevent.sleep(0)
        wire.drop("gone")
    facts.left()
    other, end, _ = bench.connect(memory=memory)
    end.expect((0, 0, 100))
    other.serve([(0, 0, 100)])
    end.hear_until(lambda heard: end.blocks)


def test_a_hanging_disk_holds_up_nobody_else(make_bench: Make) -> None:
    bench = make_bench(threads=2 * BUFFERS)
    hanging = bench.on_disk(1, HangingFiles)
    stuck = [bench.connect(files=hanging) for _ in range(BUFFERS + 4)]
    block = (0, 0, 100)
    for wire, end, _ in stuck:
        end.expect(block)
        wire.serve([block])
    gevent.sleep(0.01)
    assert hanging.reading == BUFFERS // 2
    for files in (bench.files, bench.on_disk(2, ColdFiles)):  # what is in memory, and what is on another disk
        wire, end, _ = bench.connect(files=files)
        end.expect(*bench.all_blocks())
        wire.serve(bench.all_blocks())
        end.hear_until(lambda heard: len(heard) == len(bench.all_blocks()))
    hanging.let_go()
    for _, end, _ in stuck:
        end.hear_until(lambda heard: heard)
        assert end.blocks == {block: bench.payload(*block)}


def test_disk_threads_are_found_for_others_while_a_disk_hangs(
    make_bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(threads=2)
    hanging = bench.on_disk(1, HangingFiles)
    for _ in range(BUFFERS):
        bench.connect(files=hanging)[0].serve([(0, 0, 100)])
    wire, end, _ = bench.connect(files=bench.on_disk(2, ColdFiles))
    end.expect(*bench.all_blocks())
    wire.serve(bench.all_blocks())
    gevent.sleep(0.01)
    assert hanging.reading == 2 and not end.blocks
    monkeypatch.setattr(pool, "STUCK_S", 0.0)
    bench.pool.look()
    end.hear_until(lambda heard: len(heard) == len(bench.all_blocks()))
    hanging.let_go()


def test_any_number_of_hanging_disks_leaves_memory_for_what_is_cached(make_bench: Make) -> None:
    bench = make_bench(threads=2 * BUFFERS)
    hanging = [bench.on_disk(device, HangingFiles) for device in range(1, 5)]
    for files in hanging:
        for _ in range(BUFFERS // 2):
            bench.connect(files=files)[0].serve([(0, 0, 100)])
    gevent.sleep(0.01)
    assert sum(files.reading for files in hanging) == BUFFERS * 3 // 4
    wire, end, _ = bench.connect()
    end.expect(*bench.all_blocks())
    wire.serve(bench.all_blocks())
    end.hear_until(lambda heard: len(heard) == len(bench.all_blocks()))
    for files in hanging:
        files.let_go()


def test_who_waits_for_a_disk_and_goes_is_passed_over(bench: Bench) -> None:
    """One leaves, one wants nothing any more, one does not read: the last one in the line is served."""
    memory = WireMemory()
    memory.send = SendMemory(2)
    hanging = bench.on_disk(1, HangingFiles)
    block = (0, 0, 100)
    reading, gone, withdrawn, deaf, last = (
        bench.connect(memory=memory, files=hanging, buffers=20_000) for _ in range(5)
    )
    for wire, end, _ in (reading, gone, withdrawn, deaf, last):
        end.expect(block)
        wire.serve([block])
        gevent.sleep(0.001)
    gone[0].drop("gone")
    withdrawn[0].withdraw(None, reject=False)
    deaf[0].tell([m.Have(1)] * 50_000)
    gevent.sleep(0.01)
    hanging.let_go()
    for _, end, _ in (reading, last):
        end.hear_until(lambda heard, end=end: end.blocks)


def test_who_does_not_read_holds_no_memory_for_what_the_disk_has_brought(bench: Bench) -> None:
    memory = WireMemory()
    memory.send = SendMemory(1)
    hanging = bench.on_disk(1, HangingFiles)
    deaf, deaf_end, _ = bench.connect(memory=memory, files=hanging, buffers=20_000)
    blocks = [(0, 0, 100), (1, 0, 100)]
    deaf.serve(blocks)
    gevent.sleep(0.001)
    deaf.tell([m.Have(1)] * 50_000)
    gevent.sleep(0.01)
    hanging.let_go()
    wire, end, _ = bench.connect(memory=memory)
    end.expect(blocks[0])
    wire.serve(blocks[:1])
    end.hear_until(lambda heard: end.blocks)
    # It is not forgotten either.
    deaf_end.expect(*blocks)
    deaf_end.hear_until(lambda heard: len(deaf_end.blocks) == 2)
    assert deaf_end.blocks == {block: bench.payload(*block) for block in blocks}


class Asker:
    """Somebody who wants a buffer that is read from a disk, over and over."""

    def __init__(self, memory: SendMemory, disk: int) -> None:
        self.memory, self.disk = memory, disk
        self.read_from = 0
        self.served = 0
        self.wants = False
        self.is_called = False
        self.buffer: SendBuffer | None = None

    def wake(self) -> None:
        self.is_called = True

    def ask(self) -> None:
        self.wants, self.is_called = True, False
        buffer = self.memory.lend(self.wake)
        if buffer is None:
            return
        if self.memory.begin_disk(buffer, self.disk, self.wake):
            self.wants, self.buffer, self.read_from = False, buffer, self.disk
        else:
            self.memory.give_back(buffer)

    def leave(self) -> None:
        self.wants = False
        self.memory.forgo(self.wake)
        self.memory.forgo_disk(self.wake)

    def end(self) -> None:
        assert self.buffer is not None
        self.memory.give_back(self.buffer)
        self.buffer, self.served = None, self.served + 1


def test_who_waited_for_two_disks_and_goes_is_in_nobody_s_way() -> None:
    memory = SendMemory(4)
    readers = [Asker(memory, disk) for disk in (1, 1, 2)]
    for reader in readers:
        reader.ask()
    mover, last = Asker(memory, 1), Asker(memory, 2)
    mover.ask()
    mover.disk = 2
    mover.ask()
    last.ask()
    mover.leave()
    last.is_called = False
    readers[2].end()
    assert last.is_called and not mover.is_called


@given(
    st.integers(1, 16),
    st.lists(
        st.tuples(st.sampled_from(["ask", "ask", "leave", "end", "remount"]), st.integers(0, 11)), max_size=60
    ),
)
def test_lines_for_disks_keep_their_bounds_and_forget_nobody(
    buffers: int, steps: list[tuple[str, int]]
) -> None:
    memory = SendMemory(buffers)
    askers = [Asker(memory, 1 + number % 3) for number in range(12)]

    def settle() -> None:
        while called := [asker for asker in askers if asker.is_called and asker.wants]:
            called[0].ask()
        reading = [asker.read_from for asker in askers if asker.buffer is not None]
        assert len(reading) <= max(1, buffers * 3 // 4)
        assert all(reading.count(disk) <= max(1, buffers // 2) for disk in reading)

    for step, number in steps:
        asker = askers[number]
        if step == "ask" and not asker.wants and asker.buffer is None:
            asker.ask()
        elif step == "leave" and asker.wants:
            asker.leave()
        elif step == "end" and asker.buffer is not None:
            asker.end()
        elif step == "remount":  # also while it waits
            asker.disk = 1 + asker.disk % 3
        settle()
    while reading := [asker for asker in askers if asker.buffer is not None]:
        reading[0].end()
        settle()
    assert not any(asker.wants for asker in askers)


# ---- limits


def test_an_upload_limit_is_kept_and_messages_do_not_wait_for_it(make_bench: Make) -> None:
    bench = make_bench(lengths=(40 * 16384,))
    wire, stranger, facts = bench.connect(up=limiter(1 << 20))
    blocks = bench.all_blocks()[:20]  # 0.31 s
    stranger.expect(*blocks)
    began = time.monotonic()
    wire.serve(blocks)
    facts.wait(lambda: facts.sent)
    wire.tell([m.Have(1)])
    stranger.hear_until(lambda heard: m.Have(1) in heard)
    assert len(stranger.blocks) < 20
    stranger.hear_until(lambda heard: len(stranger.blocks) == 20)
    assert 0.25 < time.monotonic() - began < 2
    assert stranger.blocks == {block: bench.payload(*block) for block in blocks}


def test_a_limit_below_one_block_a_second_still_moves(bench: Bench) -> None:
    bucket = TokenBucket(50_000, 1)
    wire, stranger, _ = bench.connect(up=Limiter(bucket))
    blocks = bench.all_blocks()[:2]
    stranger.expect(*blocks)
    began = time.monotonic()
    wire.serve(blocks)
    stranger.hear_until(lambda heard: len(heard) == 2)
    assert 0.5 < time.monotonic() - began < 3


class WatchedLimiter(Limiter):
    """Remembers until when who takes from it has done all that it may."""

    def __init__(self, *buckets: TokenBucket, news: Event) -> None:
        super().__init__(*buckets)
        self.waits_at = 0.0
        self._news = news

    def take(self, n: int, now: float) -> float:
        return self._noted(super().take(n, now), now)

    def remaining(self, now: float) -> float:
        return self._noted(super().remaining(now), now)

    def _noted(self, wait_s: float, now: float) -> float:
        if wait_s > 0:
            self.waits_at = now
            self._news.set()
        return wait_s


def test_who_shares_a_limit_gets_a_fair_part(make_bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    now, news = 1.0, Event()
    monkeypatch.setattr(outgoing, "monotonic", lambda: now)
    monkeypatch.setattr(outgoing, "MAX_NAP_S", 0.001)  # of this world's time, after which they look at ours
    bench = make_bench(lengths=(64 * 16384,))
    bucket = TokenBucket(2 << 20, 1)
    limiters = [WatchedLimiter(bucket, news=news) for _ in range(4)]
    wires = [bench.connect(up=limiter) for limiter in limiters]
    for wire, stranger, _ in wires:
        stranger.expect(*bench.all_blocks())
        wire.serve(bench.all_blocks())
    for step in range(1, 41):
        with gevent.Timeout(WAIT_S):
            while any(limiter.waits_at < now for limiter in limiters):
                news.clear()
                news.wait()
        now = 1.0 + step / 100
    shares = [facts.sent for _, _, facts in wires]
    assert max(shares) <= min(shares) + LIMITED_BYTES // 16384 + 1, shares
    assert 15 <= sum(shares) <= 0.4 * (2 << 20) // 16384, shares


def test_a_limit_that_is_lifted_holds_nobody_any_longer(bench: Bench) -> None:
    bucket = TokenBucket(2000, 1)
    wire, stranger, facts = bench.connect(up=Limiter(bucket))
    blocks = bench.all_blocks()
    stranger.expect(*blocks)
    wire.serve(blocks)
    gevent.sleep(0.05)
    assert facts.sent == 0
    bucket.set_rate(0, time.monotonic())
    began = time.monotonic()
    stranger.hear_until(lambda heard: len(heard) == len(blocks))
    assert time.monotonic() - began < 1


def test_what_was_withdrawn_while_it_waited_for_the_limit_is_not_sent(bench: Bench) -> None:
    wire, stranger, _ = bench.connect(up=limiter(200_000))
    blocks = bench.all_blocks()
    wire.serve(blocks[:4])
    gevent.sleep(0)
    wire.withdraw(None, reject=True)
    wire.serve(blocks[4:5])
    stranger.expect(blocks[4])
    stranger.hear_until(lambda heard: stranger.blocks)
    assert stranger.heard[:-1] == [m.Reject(*block) for block in blocks[:4]]


# ---- peers that do not read


def test_a_peer_that_never_reads_holds_up_nobody_and_is_dropped(
    make_bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "STALLED_S", 0.3)
    bench = make_bench(lengths=(64 * PIECE_BYTES,))
    memory = WireMemory()
    memory.send = SendMemory(1)
    deaf, _, deaf_facts = bench.connect(memory=memory, buffers=20_000)
    deaf.serve(bench.all_blocks())
    deaf_facts.wait(lambda: deaf_facts.sent)
    other, stranger, _ = bench.connect(memory=memory)
    stranger.expect(*bench.all_blocks())
    other.serve(bench.all_blocks())
    stranger.hear_until(lambda heard: len(heard) == len(bench.all_blocks()))
    left = deaf_facts.left()
    assert "took nothing that we sent for 0 s" in left.reason and not left.fault


def test_an_outbox_that_nobody_empties_ends_the_connection(
    make_bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "OUTBOX_BYTES", 1000)
    bench = make_bench(lengths=(64 * PIECE_BYTES,))
    wire, _, facts = bench.connect(buffers=20_000)
    wire.serve(bench.all_blocks())
    facts.wait(lambda: facts.sent)
    while not wire.closed:
        wire.tell([m.Have(1)] * 100)
        gevent.sleep(0)
    assert facts.left().reason == "it does not read what we send"


def test_silence_is_broken_by_keep_alives(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "KEEP_ALIVE_S", 0.05)
    _, stranger, _ = bench.connect()
    began = time.monotonic()
    stranger.hear_until(lambda heard: len(heard) == 3)
    assert stranger.heard == [m.KeepAlive()] * 3
    assert time.monotonic() - began > 0.12


# ---- many peers


def test_in_one_turn_of_the_hub_only_as_much_is_sent_as_is_due(
    make_bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TURN_S", 0.0)  # one batch is too much already
    bench = make_bench(lengths=(64 * PIECE_BYTES,))
    wires = [bench.connect() for _ in range(5)]
    turn, sent_in = 0, []

    def count() -> None:
        nonlocal turn
        turn += 1

    def post(facts: Sequence[Fact], number: int) -> None:
        sent_in.extend((turn, number) for fact in facts if isinstance(fact, BlocksSent))

    each = get_hub().loop.prepare()
    each.start(count)
    blocks = bench.all_blocks()[:64]
    for number, (wire, stranger, facts) in enumerate(wires):
        monkeypatch.setattr(wire._sender, "_post", lambda facts, number=number: post(facts, number))
        stranger.expect(*blocks)
        wire.serve(blocks)
    for _, stranger, _ in wires:
        stranger.hear_until(lambda heard, stranger=stranger: len(stranger.blocks) == len(blocks))
    each.stop()
    turns_used = [number for number, _ in sent_in]
    assert len(set(turns_used)) == len(turns_used) >= 15
    # Nobody is served twice while another one waits that has as much to get.
    assert {number for _, number in sent_in[:5]} == set(range(5))
