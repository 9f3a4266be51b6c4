"""Magnet links on record: kept like torrents, and replaced by them in one commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from microtorrd.disk import schema, state
from microtorrd.disk.records import MagnetRecord, TorrentRecord
from microtorrd.disk.state import StateStore
from microtorrd.errors import Duplicate

A, B = b"a" * 20, b"b" * 20

PLAIN = MagnetRecord(swarm_id=A, link=f"magnet:?xt=urn:btih:{A.hex()}", save_to="/data", added_at=1.5)
FULL = MagnetRecord(
    swarm_id=B,
    link=f"magnet:?xt=urn:mtid:{B.hex()}",
    save_to="/data/\udcff",
    added_at=0.5,
    label="linux",
    stopped=True,
    wait_seeders=1,
    wait_leechers=2,
    sequential=True,
    seed_after_download=False,
    down_limit=1 << 40,
    up_limit=3,
)
FOUND = TorrentRecord(
    info_hash=b"c" * 20,
    name="show",
    length=1000,
    piece_length=100,
    save_to="/data",
    added_at=1.5,
    metainfo=b"d4:infode",
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    made = StateStore(str(tmp_path / "state.sqlite"))
    yield made
    made.close()


def test_what_is_recorded_comes_back_after_a_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "x.sqlite")
    first = StateStore(path)
    first.add_magnet(PLAIN)
    first.add_magnet(FULL)
    first.close()
    second = StateStore(path)
    assert second.load_magnets() == [FULL, PLAIN]
    second.close()


def test_it_is_changed_and_removed(store: StateStore) -> None:
    store.add_magnet(PLAIN)
    with pytest.raises(Duplicate):
        store.add_magnet(PLAIN)
    changed = replace(PLAIN, stopped=True, label="x", up_limit=7)
    store.update_magnet(changed)
    store.update_magnet(FULL)  # not there
    assert store.load_magnets() == [changed]
    store.remove_magnet(A)
    store.remove_magnet(A)
    assert store.load_magnets() == []


def test_the_torrent_takes_its_place_or_nothing_happens(store: StateStore) -> None:
    store.add_magnet(PLAIN)
    store.resolve_magnet(A, FOUND)
    assert store.load_magnets() == []
    assert [torrent.info_hash for torrent in store.load_summaries()] == [FOUND.info_hash]
    assert store.metainfo(FOUND.info_hash) == FOUND.metainfo
    store.add_magnet(FULL)
    with pytest.raises(Duplicate):
        store.resolve_magnet(B, FOUND)
    assert store.load_magnets() == [FULL]


@pytest.mark.parametrize("version", [1, 2, 3], ids=["before links", "before super-seeding", "before choices"])
def test_an_older_database_is_brought_up_to_date(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "old.sqlite")
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:version])
        old = StateStore(path)
        with sqlite3.connect(path) as raw:
            known = {row[1] for row in raw.execute("PRAGMA table_info(torrents)")}
            raw.execute("ALTER TABLE metainfo ADD COLUMN gist BLOB")  # which it had not, and has not below
        raw.close()
        earlier.setattr(state, "COLUMNS", tuple(name for name in state.COLUMNS if name in known))
        old.add(FOUND)
        old.close()
    with sqlite3.connect(path) as raw:
        raw.execute("ALTER TABLE metainfo DROP COLUMN gist")
        assert raw.execute("PRAGMA user_version").fetchone() == (version,)
    raw.close()
    store = StateStore(path)
    assert [(torrent.name, torrent.selection) for torrent in store.load_summaries()] == [("show", b"")]
    store.update_fields(FOUND.info_hash, selection=b"\x00\x04")
    chosen = replace(PLAIN, selection='[["a"], []]')
    store.add_magnet(chosen)
    store.close()
    store = StateStore(path)
    assert store.load(FOUND.info_hash).selection == b"\x00\x04"
    assert store.load_magnets() == [chosen]
    store.close()
