"""The state database: what is recorded comes back, damage is said aloud, and nothing is half there."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from microtorrd.disk import schema
from microtorrd.disk.records import Durable, TorrentRecord
from microtorrd.disk.state import StateStore, current_boot_id
from microtorrd.errors import Duplicate, NotFound, StorageError

A, B = b"a" * 20, b"b" * 20


def record(info_hash: bytes = A, **fields: Any) -> TorrentRecord:
    basic = TorrentRecord(
        info_hash=info_hash,
        name="show",
        length=1000,
        piece_length=100,
        save_to="/data",
        added_at=1.5,
        metainfo=b"d4:infode",
    )
    return replace(basic, **fields)


FULL = record(
    id_hash=bytes(20),
    name="ünïcode \udce4 and not",  # a name that is not valid UTF-8, as Python holds it
    disk_name="other",
    save_to="/data/\udcff",
    label="linux",
    stopped=True,
    completed_at=2.5,
    wait_seeders=1,
    wait_leechers=2,
    sequential=True,
    seed_after_download=False,
    seed_only=True,
    down_limit=1 << 40,
    up_limit=3,
    down_total=1 << 50,
    up_total=5,
    confirmed=True,
    root_device=2049,
    moving_to="/elsewhere",
    then_verify=True,
    failure=("no_space", "/data/\udcff/x", "the disk is full"),
    durable=b"\xf0\x00",
    written=b"\xff\x00",
    boot_id="this",
    file_stats=((10, 1_700_000_000_123_456_789), None, (0, 0)),
    dirty=True,
    journal_at=9.25,
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state.db")


@pytest.fixture
def store(path: str) -> Iterator[StateStore]:
    store = StateStore(path, boot_id="this", clock=lambda: 50.0)
    yield store
    store.close()


def again(store: StateStore) -> TorrentRecord:
    """The torrent as another process would find it."""
    other = StateStore(store.path, boot_id="this")
    try:
        return other.load(A)
    finally:
        other.close()


# -------------------------------------------------------------------------------------------- what is damaged


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("name", b"\xff\xff"),
        ("name", 12),
        ("save_to", b"/\xff"),
        ("file_stats", b"123"),
        ("length", -1),
        ("length", b"many"),
        ("piece_length", 0),
        ("failure", "no JSON"),
        ("failure", "[]"),
    ],
)
def test_a_row_that_makes_no_sense_is_damage(store: StateStore, column: str, value: object) -> None:
    store.add(record())
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE torrents SET {column} = ?", (value,))
    for read in (store.load_summaries, lambda: store.load(A)):
        with pytest.raises(StorageError, match="makes no sense") as caught:
            read()
        assert caught.value.cause == "corrupt"


# ------------------------------------------------------------------------------------------ what comes back


@pytest.mark.parametrize("whole", [record(), FULL])
def test_all_of_a_record_comes_back(store: StateStore, whole: TorrentRecord) -> None:
    store.add(whole)
    assert again(store) == replace(whole, metainfo=b"")
    assert store.load_summaries() == [replace(whole, metainfo=b"")]
    assert store.metainfo(A) == b"d4:infode"


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateStore]:
    """One database for many examples: making one waits for the disk."""
    store = StateStore(str(tmp_path_factory.mktemp("lasting") / "state.db"))
    yield store
    store.close()


@settings(deadline=None, max_examples=60)
@given(
    st.builds(
        TorrentRecord,
        info_hash=st.binary(min_size=20, max_size=20),
        name=st.text(st.characters()),
        length=st.integers(0, 2**60),
        piece_length=st.integers(1, 2**40),
        save_to=st.text(),
        added_at=st.floats(0, 1e10),
        label=st.text(),
        durable=st.none() | st.binary(),
        file_stats=st.lists(st.none() | st.tuples(st.integers(0, 2**62), st.integers(-(2**62), 2**62))).map(
            tuple
        ),
        failure=st.none() | st.tuples(st.text(), st.text(), st.text()),
        metainfo=st.binary(),
    )
)
def test_any_record_comes_back(lasting: StateStore, whole: TorrentRecord) -> None:
    lasting.add(whole)
    assert lasting.load(whole.info_hash) == replace(whole, metainfo=b"")
    assert lasting.metainfo(whole.info_hash) == whole.metainfo
    lasting.remove(whole.info_hash)


def test_torrents_come_in_the_order_they_were_added(store: StateStore) -> None:
    store.add(record(A, added_at=2.0))
    store.add(record(B, added_at=1.0))
    assert [found.info_hash for found in store.load_summaries()] == [B, A]


def test_a_torrent_is_added_once_and_removed_whole(store: StateStore) -> None:
    store.add(record(stopped=True))
    with pytest.raises(Duplicate):
        store.add(record())
    assert store.load(A).stopped
    store.remove(A)
    store.remove(A)
    assert store.load_summaries() == []
    for read in (store.load, store.metainfo):
        with pytest.raises(NotFound):
            read(A)
    store.add(record())


def test_choices_change_all_or_none(store: StateStore) -> None:
    store.add(record())
    store.update_fields(A, stopped=True, label="x", failure=("io_error", "/p", "m"), completed_at=7.0)
    expected = replace(
        record(metainfo=b""), stopped=True, label="x", failure=("io_error", "/p", "m"), completed_at=7.0
    )
    assert again(store) == expected
    store.update_fields(A, failure=None)
    store.update_fields(A)
    assert again(store) == replace(expected, failure=None)
    with pytest.raises(TypeError, match="no colour, shape to change"):
        store.update_fields(A, label="y", colour=1, shape=2)
    with pytest.raises(TypeError, match="info_hash"):
        store.update_fields(A, info_hash=B)
    with pytest.raises(NotFound):
        store.update_fields(B, label="y")
    with pytest.raises(StorageError):  # what cannot be stored in one field leaves the others alone
        store.update_fields(A, label="y", wait_seeders=None)
    assert again(store).label == "x"


def test_totals(store: StateStore) -> None:
    store.add(record())
    store.record_totals([(A, 5, 6), (B, 7, 8)])
    assert (again(store).down_total, again(store).up_total) == (5, 6)


# ----------------------------------------------------------------------------------------- what a torrent has


def claims(store: StateStore) -> tuple[bytes | None, bytes | None, bool, str]:
    found = again(store)
    return found.durable, found.written, found.dirty, found.boot_id


def test_the_way_of_a_download(store: StateStore) -> None:
    store.add(record())
    assert claims(store) == (None, None, False, "")
    store.mark_dirty([A])
    assert claims(store) == (None, None, True, "this")
    assert again(store).journal_at == 50.0
    store.record_written([(A, b"\x80\x00"), (B, b"?")])
    store.record_written([(A, b"\xc0\x00")])
    assert claims(store) == (None, b"\xc0\x00", True, "this")
    store.record_durable(A, b"\x80\x00", [(100, 7)])
    assert claims(store) == (b"\x80\x00", b"\xc0\x00", True, "this")
    assert again(store).file_stats == ((100, 7),)
    store.record_durable(A, b"\xc0\x00", [(200, 8)], clean=True)
    assert claims(store) == (b"\xc0\x00", None, False, "this")


def test_claims_of_an_earlier_boot_do_not_become_claims_of_this_one(store: StateStore) -> None:
    earlier = {"durable": b"\x80\x00", "written": b"\xff\x00", "dirty": True, "boot_id": "earlier"}
    for act in (
        lambda: store.mark_dirty([A]),
        lambda: store.record_durable(A, b"\x80\x00", []),
    ):
        store.add(record(**earlier))
        act()
        assert claims(store) == (b"\x80\x00", None, True, "this")
        store.remove(A)
    store.add(record(**(earlier | {"boot_id": "this"})))
    store.mark_dirty([A])
    assert claims(store) == (b"\x80\x00", b"\xff\x00", True, "this"), "the same boot goes on"


def test_what_was_found_bad_is_taken_back_everywhere(store: StateStore) -> None:
    store.add(record(durable=b"\xf0\x00", written=b"\xff\x00", dirty=True, boot_id="this"))
    store.retract(A, b"\x7f\x80")
    assert claims(store) == (b"\x70\x00", b"\x7f\x00", True, "this")
    store.retract(A, b"\x7f")
    assert claims(store)[:2] == (None, None), "bitfields of another length claim nothing"
    with pytest.raises(NotFound):
        store.retract(B, b"")


def test_a_clean_stop_of_many_is_one_commit(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        store.add(record(bytes([number]) * 20, dirty=True))
    store.record_all_durable(Durable(bytes([n]) * 20, b"\xff\xc0", [(n, n)], True) for n in range(3))
    assert all(not found.dirty and found.durable == b"\xff\xc0" for found in store.load_summaries())
    store.mark_dirty(bytes([n]) * 20 for n in range(3))
    store.mark_clean((bytes([n]) * 20, [(9, 9)]) for n in range(3))
    assert [(found.dirty, found.file_stats) for found in store.load_summaries()] == [(False, ((9, 9),))] * 3


def test_a_batch_that_fails_in_the_middle_changes_nothing(store: StateStore) -> None:
    store.add(record())

    def batch() -> Iterator[tuple[bytes, bytes]]:
        yield A, b"\xff\xff"
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        store.record_written(batch())
    assert claims(store) == (None, None, False, "")
    store.record_written([(A, b"\x01\x00")])
    assert claims(store)[1] == b"\x01\x00"


def test_the_boot_has_an_id(path: str) -> None:
    assert len(current_boot_id()) == 36
    store = StateStore(path)
    assert store.boot_id == current_boot_id()
    store.close()


# -------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("damage", "how"),
    [
        (b"", "it is empty"),
        (b"SQLite format 3\0" + bytes(4080), "damaged"),
        (b"anything else, for instance a text" * 100, "not a database"),
    ],
)
def test_a_damaged_database_is_named_and_left_alone(path: str, damage: bytes, how: str) -> None:
    Path(path).write_bytes(damage)
    with pytest.raises(StorageError, match=how) as error:
        StateStore(path)
    assert (error.value.cause, error.value.path) == ("corrupt", path)
    assert f"move {path}" in str(error.value)
    assert Path(path).read_bytes() == damage


def test_damage_in_the_middle_is_found_when_it_is_read(path: str) -> None:
    store = StateStore(path)
    for number in range(200):
        store.add(record(number.to_bytes(20, "big"), label="x" * 100))
    store.close()
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with pytest.raises(StorageError) as error:
        StateStore(path).load_summaries()
    assert error.value.cause == "corrupt"


def test_a_lost_database_with_its_journal_left_does_not_start_empty(path: str) -> None:
    Path(f"{path}-wal").write_bytes(b"journal")
    with pytest.raises(StorageError, match="is missing, but"):
        StateStore(path)
    assert not os.path.exists(path)


def test_a_database_of_something_else_is_refused_and_not_touched(path: str) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE bookmarks (url)")
    other.close()
    before = Path(path).read_bytes()
    with pytest.raises(StorageError, match="not one of microtorrd's"):
        StateStore(path)
    assert Path(path).read_bytes() == before


def test_a_database_of_a_newer_version_is_refused(path: str) -> None:
    StateStore(path).close()
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    newer.close()
    with pytest.raises(StorageError, match="written by a newer microtorrd"):
        StateStore(path)


def test_an_older_version_is_brought_up_to_date(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = StateStore(path)
    store.add(record())
    store.close()
    newer = (*schema.MIGRATIONS, "ALTER TABLE torrents ADD COLUMN colour TEXT DEFAULT 'red'")
    broken = (*newer, "CREATE TABLE t (x); INSERT INTO nowhere VALUES (1)")
    monkeypatch.setattr(schema, "MIGRATIONS", broken)
    with pytest.raises(StorageError, match="no such table: nowhere"):
        StateStore(path)
    with sqlite3.connect(path) as half:
        assert half.execute("PRAGMA user_version").fetchone() == (len(newer),)
        assert half.execute("SELECT name FROM sqlite_master WHERE name = 't'").fetchone() is None
        assert half.execute("SELECT colour FROM torrents").fetchall() == [("red",)]
    half.close()
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    store = StateStore(path)
    assert store.load(A) == record(metainfo=b"")
    store.close()


def test_a_start_that_died_while_it_made_the_database_is_no_obstacle(path: str) -> None:
    Path(f"{path}.new").write_bytes(b"half")
    store = StateStore(path)
    store.add(record())
    store.close()
    assert sorted(os.listdir(os.path.dirname(path))) == ["state.db"]


def test_no_directory_for_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as error:
        StateStore(str(tmp_path / "missing/state.db"))
    assert error.value.cause == "not_found"


def test_a_full_disk_changes_nothing_and_is_over_when_it_is_over(store: StateStore) -> None:
    store.add(record())
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="full") as error:
        store.add(record(B, metainfo=bytes(1 << 20)))
    assert (error.value.cause, error.value.path) == ("no_space", store.path)
    assert [found.info_hash for found in store.load_summaries()] == [A]
    store._connection.execute("PRAGMA max_page_count = 1000000")
    store.add(record(B, metainfo=bytes(1 << 20)))
    assert len(store.load_summaries()) == 2


def test_using_it_after_it_was_closed_is_a_bug_and_no_disk_error(path: str) -> None:
    store = StateStore(path)
    store.close()
    with pytest.raises(sqlite3.ProgrammingError):
        store.load_summaries()


# -------------------------------------------------------------------------------------------------- at scale


def test_five_thousand_torrents_are_listed_by_one_query_that_reads_no_metainfo(path: str) -> None:
    """A start answers within a second. What it costs is counted: a clock would count others' work, too."""
    store = StateStore(path)
    store.add(replace(FULL, info_hash=bytes(20), durable=bytes(250), written=bytes(250)))
    store.close()
    database = sqlite3.connect(path)
    names = [row[1] for row in database.execute("PRAGMA table_info(torrents)")][1:]
    database.execute(
        f"WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 4999)"
        f" INSERT INTO torrents SELECT CAST(printf('%020d', i) AS BLOB), {', '.join(names)} FROM n, torrents"
        f" WHERE torrents.rowid = 1"
    )
    database.execute(
        "INSERT INTO metainfo (info_hash, raw) SELECT info_hash, zeroblob(9000) FROM torrents WHERE rowid > 1"
    )
    database.commit()
    database.close()
    store = StateStore(path)
    queries: list[str] = []
    store._connection.set_trace_callback(queries.append)
    calls, before = 0, bytes_read()

    def count(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        found = store.load_summaries()
    finally:
        sys.setprofile(None)
    assert len(found) == 5000
    assert len(queries) == 1
    assert bytes_read() - before < 5000 * 2000, "of metainfo there are 9,000 bytes each"
    assert calls < 5000 * 40
    store.close()


def bytes_read() -> int:
    """By this process, from files of any kind."""
    return int(re.findall(r"^rchar: (\d+)$", Path("/proc/self/io").read_text(), re.MULTILINE)[0])


WRITER = """
import sys
from microtorrd.disk.records import TorrentRecord
from microtorrd.disk.state import StateStore
store = StateStore(sys.argv[1])
number = 0
while True:
    number += 1
    info_hash = number.to_bytes(20, "big")
    store.add(TorrentRecord(info_hash, "n", 1, 1, "/", float(number), metainfo=bytes(5000)))
    store.record_written([(info_hash, b"w")])
    print(number, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 2, 7, 23])
def test_what_was_acknowledged_survives_a_kill(path: str, acknowledged: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for number in range(1, acknowledged + 1):
            assert int(child.stdout.readline()) == number
        child.send_signal(signal.SIGKILL)
    store = StateStore(path)
    found = store.load_summaries()
    assert len(found) >= acknowledged
    assert all(torrent.written == b"w" for torrent in found[:acknowledged])
    assert all(store.metainfo(torrent.info_hash) == bytes(5000) for torrent in found)
    store.close()
