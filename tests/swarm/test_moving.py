"""What is wished of a torrent while its content is moved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent import monkey

from microtorrd import relocation
from microtorrd.disk import move
from microtorrd.errors import NotAllowed
from tests.swarm.house import FILE_BYTES, House, make_file, make_house


class Gate:
    """Holds up a move in its disk thread until it is opened, and lets it fail where that is wished."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_reached = False
        self.error: Exception | None = None
        self._lock = monkey.get_original("_thread", "allocate_lock")()  # for threads without a hub
        self._lock.acquire()
        self._relocate = move.relocate
        monkeypatch.setattr(relocation.move, "relocate", self._wait)

    def _wait(self, *args: Any, **options: Any) -> object:
        options["on_progress"](1000, FILE_BYTES)
        self.is_reached = True
        with self._lock:
            pass
        if self.error is not None:
            raise self.error
        return self._relocate(*args, **options)

    def open(self) -> None:
        if self._lock.locked():
            self._lock.release()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """One torrent, which seeds."""
    house = make_house(tmp_path)
    house.add(make_file(tmp_path, 1), [])
    house.wait_until(house.all_seed)
    yield house
    house.stop()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open()


def states(notes: list[dict[str, Any]]) -> list[str]:
    return [note["state"] for note in notes if note["kind"] == "state_changed"]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("paused", [False, True])
def test_a_check_waits_for_the_end_of_the_move(
    paused: bool, fails: bool, house: House, gate: Gate, tmp_path: Path
) -> None:
    session, (torrent,) = house.session, house.torrents()
    id, away = torrent.info_hash.hex(), tmp_path / "away"
    assert session.show(id)["move"] is None
    if fails:
        gate.error = NotAllowed("something of that name is there")
    session.move(id, str(away))
    if paused:
        session.pause(id)
    house.wait_until(lambda: gate.is_reached)
    assert session.show(id)["move"] == {"save_to": str(away), "done_bytes": 1000, "size_bytes": FILE_BYTES}
    assert session.verify(id)["torrents"][0]["state"] == "stopped"
    gate.open()
    end = "stopped" if paused else "seeding"
    notes = house.wait_until(lambda: not torrent.moving and session.list()[0]["state"] == end)
    kinds = [note["kind"] for note in notes]
    assert ("move_failed" if fails else "moved") in kinds
    checked = states(notes[kinds.index("move_failed" if fails else "moved") :])
    assert checked == ["checking", end]
    place = tmp_path / "content" if fails else away
    assert (place / "file-0001").stat().st_size == FILE_BYTES
    assert session.show(id)["move"] is None and session.show(id)["pieces_done"] == 3


def test_a_move_is_not_checked_where_nobody_wishes_it(house: House, gate: Gate, tmp_path: Path) -> None:
    session, (torrent,) = house.session, house.torrents()
    gate.open()
    session.move(torrent.info_hash.hex(), str(tmp_path / "away"))
    notes = house.wait_until(lambda: not torrent.moving and house.all_seed())
    assert "checking" not in states(notes)


def test_files_of_a_torrent_that_was_added_with_its_data_are_not_chosen(house: House) -> None:
    session, (torrent,) = house.session, house.torrents()
    with pytest.raises(NotAllowed, match="nothing is fetched, so nothing is to choose"):
        session.select(torrent.info_hash.hex(), ["0"], "off")
