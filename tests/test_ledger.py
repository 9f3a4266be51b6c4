"""The ledger at its end: what was to be written down is, once, whoever else was about to write it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import monotonic

import gevent
import pytest
from gevent import monkey
from msgspec.structs import replace

from microtorrd import ledger as room
from microtorrd.disk.files import DescriptorCache, FileSet, FileStat
from microtorrd.disk.pool import DiskPool
from microtorrd.disk.records import TorrentRecord
from microtorrd.disk.state import StateStore
from microtorrd.errors import Stopping, StorageError
from microtorrd.greenlets import Crew
from microtorrd.ledger import Ledger, Page

WAIT_S = 10.0
INFO_HASH = bytes(20)
RECORD = TorrentRecord(
    info_hash=INFO_HASH, name="file", length=1, piece_length=1, save_to="/", added_at=0.0, metainfo=b"x"
)


@pytest.fixture
def pool() -> Iterator[DiskPool]:
    pool = DiskPool(1)
    yield pool
    pool.close(1.0)


def test_a_close_that_meets_the_journal_half_way_loses_nothing(tmp_path: Path, pool: DiskPool) -> None:
    crashes: list[str] = []
    crew = Crew("ledger", on_crash=lambda name, error: crashes.append(f"{name}: {error!r}"))
    path = str(tmp_path / "state.sqlite")
    ledger = Ledger(path, pool=pool, crew=crew)
    ledger.start()
    ledger.add(RECORD)
    for number in range(20):
        ledger.update(INFO_HASH, label=str(number), up_limit=number)
    gevent.sleep(0)  # the journal is at the first of them now
    ledger.close(WAIT_S)
    gevent.sleep(0)
    assert crew.stop(1.0) == []
    assert crashes == []
    store = StateStore(path)
    record = store.load(INFO_HASH)
    store.close()
    assert (record.label, record.up_limit) == ("19", 19)


def test_who_comes_after_the_end_hears_of_it_and_crashes_nothing(tmp_path: Path, pool: DiskPool) -> None:
    crashes: list[str] = []
    crew = Crew("ledger", on_crash=lambda name, error: crashes.append(f"{name}: {error!r}"))
    ledger = Ledger(str(tmp_path / "state.sqlite"), pool=pool, crew=crew)
    ledger.start()
    ledger.close(WAIT_S)
    ledger.update(INFO_HASH, label="late")
    late = crew.spawn("late", partial(ledger.change, INFO_HASH, label="late"))
    late.join(1.0)
    assert late.dead
    with pytest.raises(Stopping):
        ledger.summaries()
    gevent.sleep(0.1)  # the journal has had its turn
    assert crew.stop(1.0) == []
    assert crashes == []


def test_what_an_operator_wishes_is_not_undone_by_what_was_noted_before(
    tmp_path: Path, pool: DiskPool
) -> None:
    crew = Crew("ledger")
    path = str(tmp_path / "state.sqlite")
    ledger = Ledger(path, pool=pool, crew=crew)
    ledger.start()
    ledger.add(RECORD)
    ledger.update(INFO_HASH, label="first")
    gevent.sleep(0)  # the journal writes it, and rests
    ledger.update(INFO_HASH, selection=b"\x00", completed_at=1.0, stopped=True)
    crew.spawn(
        "meanwhile", partial(ledger.update, INFO_HASH, selection=b"\x07")
    )  # while the change is waited for
    ledger.change(INFO_HASH, selection=b"\x04")
    ledger.change_all([INFO_HASH], stopped=False)
    ledger.close(WAIT_S)
    crew.stop(1.0)
    store = StateStore(path)
    record = store.load(INFO_HASH)
    store.close()
    assert (record.selection, record.stopped, record.completed_at) == (b"\x04", False, 1.0)


class Disk(FileSet):
    """Files of which only the sync matters; it waits while the disk hangs."""

    def __init__(self, device: int, *, hangs: bool) -> None:
        super().__init__("/", [], descriptors=DescriptorCache(1), root_device=device)
        self.gate = monkey.get_original("_thread", "allocate_lock")()  # for threads without a hub
        if hangs:
            self.gate.acquire()

    def sync(self, everything: bool = False) -> list[FileStat | None]:
        with self.gate:
            return [(1, 1)]


def never(error: StorageError) -> None:
    raise error


HANGING, SOUND = bytes(20), b"\1" * 20


def write_to(ledger: Ledger, disks: dict[bytes, Disk]) -> None:
    """Have one torrent on each of these disks, which got its only piece."""
    for info_hash, files in disks.items():
        ledger.add(replace(RECORD, info_hash=info_hash))
        page = Page(info_hash, files=files, have=lambda: b"\x80", on_failure=never, dirty=False)
        ledger.open_page(page, sync_all=False)
        ledger.will_write(info_hash)
        ledger.wrote(info_hash)
        ledger.progressed(info_hash, 0)


def test_a_disk_that_hangs_does_not_hold_up_the_end_and_is_not_believed_to_be_synced(tmp_path: Path) -> None:
    pool, crew, path = DiskPool(2), Crew("ledger"), str(tmp_path / "state.sqlite")
    ledger = Ledger(path, pool=pool, crew=crew)
    hanging = Disk(1, hangs=True)
    write_to(ledger, {HANGING: hanging, SOUND: Disk(2, hangs=False)})
    began = monotonic()
    ledger.close(0.2)
    assert 0.15 < monotonic() - began < WAIT_S / 2
    assert crew.stop(1.0) == []
    store = StateStore(path)
    unsynced, synced = store.load(HANGING), store.load(SOUND)
    store.close()
    assert (unsynced.dirty, unsynced.durable, unsynced.written) == (True, None, b"\x80")
    assert (synced.dirty, synced.durable) == (False, b"\x80")
    hanging.gate.release()
    assert pool.close(WAIT_S)


def test_a_disk_that_hangs_holds_up_the_syncs_of_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SYNC_S", 0.01)
    pool, crew = DiskPool(2), Crew("ledger")
    ledger = Ledger(str(tmp_path / "state.sqlite"), pool=pool, crew=crew)
    ledger.start()
    hanging = Disk(1, hangs=True)
    write_to(ledger, {HANGING: hanging, SOUND: Disk(2, hangs=False)})
    with gevent.Timeout(WAIT_S):
        for _ in range(3):
            ledger.will_write(SOUND)
            ledger.wrote(SOUND)
            while not ledger.is_settled(SOUND):
                gevent.sleep(0.001)
        ledger.will_write(HANGING)
        ledger.wrote(HANGING)
        gevent.sleep(0.05)  # its turn would have come
        assert not ledger.is_settled(HANGING)
        assert [name for name in crew.alive() if "sync_disk" in name] == ["ledger/sync_disk"]
        hanging.gate.release()
        while not ledger.is_settled(HANGING):
            gevent.sleep(0.001)
    ledger.close(WAIT_S)
    assert crew.stop(1.0) == []
    assert pool.close(WAIT_S)
