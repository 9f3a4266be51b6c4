"""Microbenchmarks of the core: what a block, a request, a pick, a `have` cost. `python -m bench.core`

Each figure is the best of several runs, in microseconds, beside its target. A leecher at 600 MB/s handles
38,000 blocks a second, so a microsecond a block is 4 % of a core.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import cache

from bitarray import bitarray

from bench.measure import Row
from microtorrd.core import events
from microtorrd.core.core import Core
from microtorrd.core.events import BlocksReceived, Fetch, PeerJoined, RequestsReceived
from microtorrd.core.picker import Picker, blank
from microtorrd.core.settings import SwarmSettings, TorrentSettings
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.messages import BitfieldMessage, Have, HaveAll, HaveNone, Interested, Message, Unchoke

PIECES = 100_000
PEERS = 200
RUNS = 5

SCRATCH = memoryview(bytearray(1 << 20))


def main() -> None:
    """Print the table."""
    print(f"{'what':<58}{'µs':>8}{'target':>8}")
    for name, target, measure in MEASUREMENTS:
        best = min(measure() for _ in range(RUNS)) * 1e6
        print(f"{name:<58}{best:>8.2f}{'' if target is None else f'{target:>8.0f}'}")


def rows(rounds: int) -> list[Row]:
    """The same for the document."""
    found = []
    for name, target, measure in MEASUREMENTS:
        row = Row(name, "µs", "" if target is None else f"< {target:g} µs")
        for _ in range(rounds):
            row.add(measure() * 1e6)
        found.append(row)
    return found


def make_core(pieces: int, piece_length: int, *, seed: bool = False) -> Core:
    """A running core with memory without end."""
    core = Core(
        geometry=Geometry(pieces * piece_length, piece_length),
        have=Bitfield.full(pieces) if seed else Bitfield(pieces),
        settings=SwarmSettings(connections_per_torrent=2 * PEERS),
        torrent=TorrentSettings(),
        lend=lambda size: SCRATCH[:size],
        chance=random.Random(1),
        client="bench",
        listen_port=1,
        has_id_hash=False,
        info_hash=bytes(20),
    )
    core.handle(events.Started(), 0.0)
    return core


def join(core: Core, peer: int, *messages: Message) -> None:
    """Connect a peer that says this."""
    core.handle(PeerJoined(peer, None, b"%020d" % peer, True, True, False, host=f"10.0.0.{peer % 250}"), 0.0)
    core.handle(events.MessagesReceived(peer, messages), 0.0)


def block() -> float:
    """One fast seeder, in batches of 64 blocks as a busy socket brings them."""
    core = make_core(1000, 1 << 20)
    join(core, 1, HaveAll(), Unchoke())
    asked = [slot for order in core.orders if isinstance(order, Fetch) for slot in order.slots]
    now, done, spent = 0.0, 0, 0.0
    while asked and done < 40_000:
        batch, asked = asked[:64], asked[64:]
        for slot in batch:
            slot.filled_by = 1
        now += len(batch) * 16384 / 600e6
        core.orders = []
        fact = BlocksReceived(1, batch)
        begun = time.perf_counter()
        core.handle(fact, now)
        spent += time.perf_counter() - begun
        done += len(batch)
        for order in core.orders:
            if isinstance(order, Fetch):
                asked += order.slots
    return spent / done


def request() -> float:
    """One fast leecher that asks for 64 blocks at a time."""
    core = make_core(1000, 1 << 20, seed=True)
    join(core, 1, HaveNone(), Interested())
    spent, done = 0.0, 0
    for piece in range(500):
        requests = [(piece, begin, 16384) for begin in range(0, 1 << 20, 16384)]
        core.orders = []
        begun = time.perf_counter()
        core.handle(RequestsReceived(1, requests), piece * 0.002)
        core.handle(events.BlocksSent(1, 64, 1 << 20), piece * 0.002 + 0.001)
        spent += time.perf_counter() - begun
        done += 64
    return spent / done


@cache
def big_picker() -> tuple[Picker, list[bitarray]]:
    """Many pieces, many peers, each with some of them."""
    chance = random.Random(1)
    picker = Picker(blank(PIECES), chance=chance)
    peers = []
    for _ in range(PEERS):
        share = chance.choice([0.05, 0.3, 0.5, 0.9])
        peers.append(bitarray([chance.random() < share for _ in range(PIECES // 10)] * 10, endian="big"))
        picker.availability.add(peers[-1])
    return picker, peers


def timed(work: Callable[[int], object], times: int) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    for at in range(times):
        work(at)
    return (time.perf_counter() - begun) / times


def pick() -> float:
    """Of peers with some pieces."""
    picker, peers = big_picker()
    return timed(lambda at: picker.pick(peers[at % PEERS]), 2000)


def pick_of_seeder() -> float:
    """Of a peer that has everything."""
    picker, _ = big_picker()
    return timed(lambda at: picker.pick(None), 2000)


def have() -> float:
    """In the availability alone."""
    picker, _ = big_picker()
    seconds = timed(lambda at: picker.availability.add_one(at % PIECES), 10_000)
    for at in range(10_000):
        picker.availability.remove_one(at % PIECES)
    return seconds


def have_in_core() -> float:
    """As a message among others of one read."""
    core = make_core(PIECES, 1 << 20)
    join(core, 1, HaveNone())
    messages = [Have(piece) for piece in range(0, 20_000, 2)]
    begun = time.perf_counter()
    core.handle(events.MessagesReceived(1, messages), 1.0)
    return (time.perf_counter() - begun) / len(messages)


def seeder_joins() -> float:
    """Says that it has everything, without naming a piece."""
    return coming_and_going(HaveAll())[0]


def seeder_leaves() -> float:
    """The same one."""
    return coming_and_going(HaveAll())[1]


def full_bitfield_joins() -> float:
    """Says the same with a bit for every piece: read once, and counted as one number from then on."""
    return coming_and_going(BitfieldMessage(Bitfield.full(PIECES).to_bytes()))[0]


def half_joins() -> float:
    """With half of the pieces."""
    return coming_and_going(BitfieldMessage(bytes([0xAA]) * (PIECES // 8)))[0]


def half_leaves() -> float:
    """The same one: each of its pieces is counted down."""
    return coming_and_going(BitfieldMessage(bytes([0xAA]) * (PIECES // 8)))[1]


def coming_and_going(word: Message, times: int = 100) -> tuple[float, float]:
    """Seconds of hearing a peer's first word, and of its end, through a core that has many peers."""
    core = crowded_core()
    came = went = 0.0
    for peer in range(1_000_000, 1_000_000 + times):
        join(core, peer)
        assert peer in core.swarm.peers
        begun = time.perf_counter()
        core.handle(events.MessagesReceived(peer, (word,)), 0.0)
        heard = time.perf_counter()
        core.handle(events.PeerLeft(peer, "it was measured"), 0.0)
        went += time.perf_counter() - heard
        came += heard - begun
        core.orders = []
    return came / times, went / times


@cache
def crowded_core() -> Core:
    """A core in a swarm of many peers, each with some pieces, that wants all of them and gets none."""
    core = make_core(PIECES, 1 << 20)
    for peer, bits in enumerate(big_picker()[1], 1):
        join(core, peer, BitfieldMessage(bits.tobytes()))
    core.orders = []
    assert len(core.swarm.peers) == PEERS
    return core


def idle_tick() -> float:
    """What thousands of torrents pay each second if they are ticked at all."""
    core = make_core(1000, 1 << 20, seed=True)
    fact = events.Ticked()
    return timed(lambda at: core.handle(fact, float(at)), 5000)


#: What is measured, the aim in µs, and how.
MEASUREMENTS: tuple[tuple[str, float | None, Callable[[], float]], ...] = (
    ("a block received and the next one asked, 1 MiB pieces", 2.0, block),
    ("a block asked of us and sent", 2.0, request),
    (f"a pick, {PIECES:,} pieces, {PEERS} peers", 20.0, pick),
    ("a pick from a seeder, same", 20.0, pick_of_seeder),
    ("a have, same", 3.0, have),
    ("a have, through the whole core", 3.0, have_in_core),
    ("a seeder joins (have all), same", 20.0, seeder_joins),
    ("… and leaves", 20.0, seeder_leaves),
    ("a seeder joins with a full bitfield, same", None, full_bitfield_joins),
    ("a peer with half of the pieces joins, same", None, half_joins),
    ("… and leaves", None, half_leaves),
    ("a tick of a torrent that seeds to nobody", None, idle_tick),
)

if __name__ == "__main__":
    main()
