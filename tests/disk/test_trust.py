"""What is believed after a stop, a kill, a power cut: as a table, against a simulated world, and for real."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from microtorrd.disk.records import TorrentRecord
from microtorrd.disk.state import StateStore
from microtorrd.disk.trust import JOURNAL_LAG_S, SYNC_LAG_S, FileStat, Trust, decide
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.geometry import Geometry
from tests.disk import child

SECOND = 1_000_000_000

#: Two files over ten pieces of a hundred bytes; they share piece 5.
GEOMETRY = Geometry(1000, 100)
LENGTHS = (550, 450)
FIRST_FILE, SECOND_FILE = set(range(6)), set(range(5, 10))
ALL = set(range(10))

#: The record was last brought up to date at 1000 s, and the files were written to at 990 s.
STATS: tuple[FileStat | None, ...] = ((550, 990 * SECOND), (450, 990 * SECOND))
RECORD = TorrentRecord(
    b"i" * 20, "t", 1000, 100, "/", 0.0, boot_id="boot", file_stats=STATS, journal_at=1000.0
)


def bits(pieces: set[int]) -> bytes:
    bitfield = Bitfield(10)
    for piece in pieces:
        bitfield.set(piece)
    return bitfield.to_bytes()


def decided(
    record: TorrentRecord, stats: Sequence[FileStat | None], *, boot_id: str = "boot", remounted: bool = False
) -> Trust:
    return decide(record, GEOMETRY, LENGTHS, stats, boot_id=boot_id, remounted=remounted)


CLEAN = replace(RECORD, durable=bits(ALL))
KILLED = replace(RECORD, dirty=True, durable=bits({0, 5}), written=bits({0, 1, 5, 9}))


def at(seconds: float, size: int = 550) -> FileStat:
    return size, int(seconds * SECOND)


UNTOUCHED = STATS[1]


@pytest.mark.parametrize(
    ("record", "stats", "boot_id", "have", "recheck"),
    [
        pytest.param(CLEAN, STATS, "boot", ALL, set(), id="clean stop"),
        pytest.param(CLEAN, STATS, "other", ALL, set(), id="clean stop, then a reboot"),
        pytest.param(CLEAN, (at(991), UNTOUCHED), "boot", ALL - FIRST_FILE, FIRST_FILE, id="clean, touched"),
        pytest.param(
            CLEAN, (at(989), UNTOUCHED), "boot", ALL - FIRST_FILE, FIRST_FILE, id="clean, older one put there"
        ),
        pytest.param(
            CLEAN, (at(990, 540), UNTOUCHED), "boot", ALL - FIRST_FILE, FIRST_FILE, id="clean, truncated"
        ),
        pytest.param(CLEAN, (None, UNTOUCHED), "boot", ALL - FIRST_FILE, FIRST_FILE, id="clean, one missing"),
        pytest.param(CLEAN, (None, None), "boot", set(), ALL, id="clean, all missing"),
        pytest.param(
            replace(CLEAN, written=bits(set())), STATS, "boot", ALL, set(), id="clean: the journal is past"
        ),
        pytest.param(
            replace(CLEAN, file_stats=()),
            STATS,
            "boot",
            set(),
            ALL,
            id="clean, no figures",
        ),
        pytest.param(KILLED, STATS, "boot", {0, 1, 5, 9}, set(), id="killed"),
        pytest.param(
            KILLED,
            (at(1014), at(1014, 450)),
            "boot",
            {0, 1, 5, 9},
            set(),
            id="killed, wrote on",
        ),
        pytest.param(
            KILLED, (at(1016), UNTOUCHED), "boot", {9}, {0, 1, 5}, id="killed, touched when we were long dead"
        ),
        pytest.param(KILLED, (at(989), UNTOUCHED), "boot", {9}, {0, 1, 5}, id="killed, gone back in time"),
        pytest.param(KILLED, (at(995, 200), UNTOUCHED), "boot", {9}, {0, 1, 5}, id="killed, truncated"),
        pytest.param(KILLED, (at(995, 551), UNTOUCHED), "boot", {9}, {0, 1, 5}, id="killed, too long"),
        pytest.param(
            replace(KILLED, written=None), STATS, "boot", {0, 5}, set(), id="killed before the first journal"
        ),
        pytest.param(
            replace(KILLED, durable=None, written=bits({0, 1, 3, 9}), file_stats=()),
            (at(1001, 200), None),
            "boot",
            {0, 1},
            {3, 9},
            id="killed in the first run, files not grown yet",
        ),
        pytest.param(KILLED, STATS, "other", {0, 5}, {1, 9}, id="power cut"),
        pytest.param(
            KILLED, (at(1100), at(900, 450)), "other", {0, 5}, {1, 9}, id="power cut, the journal lags behind"
        ),
        pytest.param(
            KILLED, (at(1121), UNTOUCHED), "other", set(), {0, 1, 5, 9}, id="power cut, touched afterwards"
        ),
        pytest.param(
            KILLED, (UNTOUCHED, (449, 990 * SECOND)), "other", set(), {0, 1, 5, 9}, id="power cut, sizes lost"
        ),
        pytest.param(
            replace(KILLED, written=b"\xff"), STATS, "boot", set(), ALL, id="a record that does not fit"
        ),
        pytest.param(RECORD, STATS, "boot", set(), set(), id="nothing was ever claimed"),
    ],
)
def test_table(
    record: TorrentRecord,
    stats: Sequence[FileStat | None],
    boot_id: str,
    have: set[int],
    recheck: set[int],
) -> None:
    found = decided(record, stats, boot_id=boot_id)
    assert (set(found.have.present()), set(found.recheck)) == (have, recheck)
    assert found.have.count == len(have)
    assert list(found.recheck) == sorted(recheck)


def test_a_filesystem_mounted_anew_is_like_another_boot() -> None:
    found = decided(KILLED, STATS, remounted=True)
    assert (set(found.have.present()), set(found.recheck)) == ({0, 5}, {1, 9})


def test_it_says_which_files_and_whether_to_sync() -> None:
    assert decided(CLEAN, (None, at(1))).missing_files == (0,)
    assert decided(CLEAN, (None, at(1))).changed_files == (1,)
    assert not decided(CLEAN, STATS).sync_first
    assert not decided(KILLED, STATS, boot_id="other").sync_first
    assert decided(KILLED, STATS).sync_first


def test_content_of_no_bytes() -> None:
    found = decide(replace(RECORD, file_stats=(None,)), Geometry(0, 16), [0], [(0, 5)], boot_id="boot")
    assert found.have.complete
    assert found.recheck == ()


# ----------------------------------------------------------------------------------------- a simulated world


BEGUN = replace(RECORD, file_stats=((550, 1000 * SECOND), (450, 1000 * SECOND)), dirty=True)


@dataclass
class World:
    """A torrent that is downloaded onto a disk with a page cache, and its record."""

    now: float = 1000.0
    have: set[int] = field(default_factory=set)  # in memory
    cached: set[int] = field(default_factory=set)  # pieces that reading would give rightly
    synced: set[int] = field(default_factory=set)
    mtimes: list[float] = field(default_factory=lambda: [1000.0, 1000.0])
    synced_mtimes: list[float] = field(default_factory=lambda: [1000.0, 1000.0])
    record: TorrentRecord = BEGUN
    records: list[TorrentRecord] = field(default_factory=list)  # since the last durable commit

    def __post_init__(self) -> None:
        self.commit(durable=True)

    def stats(self) -> tuple[FileStat, ...]:
        return tuple(at(mtime, size) for mtime, size in zip(self.mtimes, LENGTHS, strict=True))

    def commit(self, *, durable: bool) -> None:
        self.record = replace(self.record, journal_at=self.now)
        self.records = [*([] if durable else self.records), self.record]

    def write(self, piece: int) -> None:
        self.have.add(piece)
        self.cached.add(piece)
        for number, pieces in enumerate((FIRST_FILE, SECOND_FILE)):
            if piece in pieces:
                self.mtimes[number] = self.now

    def journal(self) -> None:
        self.record = replace(self.record, written=bits(self.have))
        self.commit(durable=False)

    def sync(self, *, clean: bool = False) -> None:
        stats = self.stats()
        self.synced, self.synced_mtimes = set(self.cached), list(self.mtimes)
        self.record = replace(self.record, durable=bits(self.have), file_stats=stats, dirty=not clean)
        self.commit(durable=True)


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "write", "journal", "sync"]), st.integers(0, 9), st.floats(0, 9)),
    max_size=30,
)


@settings(max_examples=300)
@given(
    steps=STEPS, end=st.sampled_from(["clean", "kill", "power"]), seed=st.integers(), touched=st.booleans()
)
def test_whatever_happens_only_good_pieces_are_trusted(
    steps: list[tuple[str, int, float]], end: str, seed: int, touched: bool
) -> None:
    chance, world = random.Random(seed), World()
    last_sync = world.now
    for step, piece, pause in steps:
        world.now += pause
        if step == "write":
            world.write(piece)
            if world.now - world.record.journal_at > JOURNAL_LAG_S - 10:
                world.journal()
        elif step == "journal":
            world.journal()
        if step == "sync" or world.now - last_sync > SYNC_LAG_S - 20:
            world.sync()
            last_sync = world.now

    record, boot_id, on_disk, mtimes = world.record, "boot", set(world.cached), list(world.mtimes)
    if end == "clean":
        world.sync(clean=True)
        record = world.record
    elif end == "power":
        # Of what was not synced anything may be there or not, and of the journal the last entries.
        boot_id, record = "other", chance.choice(world.records)
        on_disk = {piece for piece in on_disk if piece in world.synced or chance.random() < 0.5}
        mtimes = [chance.uniform(*pair) for pair in zip(world.synced_mtimes, mtimes, strict=True)]
    if touched:
        number = chance.randrange(2)
        on_disk -= {chance.choice(sorted((FIRST_FILE, SECOND_FILE)[number]))}
        mtimes[number] = world.now + SYNC_LAG_S + 1 if end != "clean" else mtimes[number] + 0.001
    stats = tuple(at(mtime, size) for mtime, size in zip(mtimes, LENGTHS, strict=True))

    found = decided(record, stats, boot_id=boot_id)
    have, recheck = set(found.have.present()), set(found.recheck)
    assert have <= on_disk, "what is trusted is there"
    assert not have & recheck
    durable, written = set_of(record.durable), set_of(record.written)
    if not touched:
        if end == "clean":
            assert (have, recheck) == (world.have, set())
        elif end == "kill":
            assert (have, recheck) == (durable | written, set())
        else:
            assert (have, recheck) == (durable, written - durable)


def set_of(raw: bytes | None) -> set[int]:
    return set() if raw is None else set(Bitfield.from_bytes(raw, 10).present())


# ------------------------------------------------------------------------------------------------- for real


def test_a_download_that_is_killed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    content = child.sample()
    root, database = tmp_path / "root", str(tmp_path / "state.db")
    chance = random.Random(3)
    kept = 0
    for life in range(8):
        command = [sys.executable, "-m", "tests.disk.child", "store", str(root), database, str(life)]
        patience = chance.choice([1, 2, 5, 20, 30])
        acknowledged = 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(patience):
                line = process.stdout.readline().strip()
                assert line != "", "the child failed"
                if line == "done":
                    acknowledged = content.geometry.piece_count
                    break
                acknowledged = int(line)
            process.send_signal(signal.SIGKILL)
        assert acknowledged > kept, "each life goes on where the one before ended"

        files, store = content.at(root), StateStore(database)
        found = child.believed(store, files, content)
        store.close()
        assert found.recheck == (), "no re-check after a kill"
        assert found.have.count >= acknowledged, "nothing acknowledged is lost"
        for piece in found.have.present():
            got = memoryview(bytearray(content.geometry.piece_size(piece)))
            files.read_into(content.geometry.piece_offset(piece), got)
            assert got == content.piece(piece)
        kept = found.have.count
        content.descriptors.close()
    assert 50 < kept <= content.geometry.piece_count


def test_a_file_touched_after_a_kill_costs_only_its_own_pieces(tmp_path: Path) -> None:
    content = child.sample()
    root, database = tmp_path / "root", str(tmp_path / "state.db")
    command = [sys.executable, "-m", "tests.disk.child", "store", str(root), database, "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [line.strip() for line in process.stdout][-1] == "done"
    files, store = content.at(root), StateStore(database)
    assert child.believed(store, files, content).have.complete
    os.utime(files.path_of(3), ns=(1, 1))
    found = child.believed(store, files, content)
    store.close()
    assert found.recheck == tuple(content.geometry.pieces_within(files.starts[3], content.lengths[3]))
    assert found.changed_files == (3,)
    content.descriptors.close()
