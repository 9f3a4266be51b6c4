"""The ledger at its end: what was to be written down is, once, whoever else was about to write it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import gevent
import pytest

from microtorrd.disk.pool import DiskPool
from microtorrd.disk.records import TorrentRecord
from microtorrd.disk.state import StateStore
from microtorrd.errors import Stopping
from microtorrd.greenlets import Crew
from microtorrd.ledger import Ledger

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
    ledger.close()
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
    ledger.close()
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
    ledger.close()
    crew.stop(1.0)
    store = StateStore(path)
    record = store.load(INFO_HASH)
    store.close()
    assert (record.selection, record.stopped, record.completed_at) == (b"\x04", False, 1.0)
