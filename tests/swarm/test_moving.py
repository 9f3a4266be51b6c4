"""What is wished of a torrent while its content is moved."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.measure import make_torrent
from microtorrd import relocation
from microtorrd.disk.records import MagnetRecord
from microtorrd.errors import NotAllowed, NotFound
from microtorrd.terms import Terms
from tests.swarm.house import FILE_BYTES, PATIENCE_S, House, make_file, make_house
from tests.swarm.moving import Gate


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
    gate = Gate()
    monkeypatch.setattr(relocation.move, "relocate", gate.relocate)
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


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_check_that_waits_for_a_move_is_not_forgotten_by_an_end_in_the_middle_of_it(
    end: str, paused: bool, tmp_path: Path
) -> None:
    """The daemon is killed, or stops; after that the check is made, once."""
    command = [sys.executable, "-m", "tests.swarm.moving", str(tmp_path), end, str(int(paused))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "it is moved, and a check is wished\n"
        if end == "kill":
            process.kill()
        process.stdin.close()
        assert process.wait() == (-9 if end == "kill" else 0)
    after = "stopped" if paused else "seeding"
    house = House(tmp_path)
    heard: list[dict[str, Any]] = []
    while states(heard)[-2:] != ["checking", after]:
        note = house.notes.get(PATIENCE_S)
        assert note is not None, heard
        heard.append(note)
    assert house.session.list()[0]["progress"] == 1.0
    house.stop()
    house = House(tmp_path)
    heard = house.wait_until(
        lambda: house.torrents()[0].is_loaded and house.session.list()[0]["state"] == after
    )
    assert "checking" not in states(heard)
    house.stop()


def test_a_move_is_not_checked_where_nobody_wishes_it(house: House, gate: Gate, tmp_path: Path) -> None:
    session, (torrent,) = house.session, house.torrents()
    gate.open()
    session.move(torrent.info_hash.hex(), str(tmp_path / "away"))
    notes = house.wait_until(lambda: not torrent.moving and house.all_seed())
    assert "checking" not in states(notes)


@pytest.fixture
def twins(house: House, tmp_path: Path) -> tuple[str, str]:
    """Two torrents of other content whose files have the same name; of the second nothing is here yet."""
    there = tmp_path / "there"
    there.mkdir()
    raw = make_torrent(there_is(there / "file-0001", b"2"), 16384, [])
    house.session.add(raw, Terms(save_to=str(there / "in"), paused=True))
    house.wait_until(lambda: all(torrent.is_loaded for torrent in house.torrents()))
    first, second = sorted(house.torrents(), key=lambda torrent: torrent.record.stopped)
    return first.info_hash.hex(), second.info_hash.hex()


def there_is(path: Path, byte: bytes) -> Path:
    path.write_bytes(byte * FILE_BYTES)
    return path


def test_nothing_is_moved_to_where_another_torrent_will_write(
    house: House, twins: tuple[str, str], tmp_path: Path
) -> None:
    first, _ = twins
    with pytest.raises(NotAllowed, match="there/in/file-0001 belongs to the torrent 'file-0001'"):
        house.session.move(first, str(tmp_path / "there/in"))
    with pytest.raises(NotAllowed, match="away/file-0001 belongs to the torrent 'file-0001'"):
        house.session.move("all", str(tmp_path / "away"))
    assert not any(torrent.moving for torrent in house.torrents())


def test_nor_added_where_another_one_is_on_its_way_to(
    house: House, gate: Gate, twins: tuple[str, str], tmp_path: Path
) -> None:
    first, _ = twins
    house.session.move(first, str(tmp_path / "away"))
    house.wait_until(lambda: gate.is_reached)
    raw = make_torrent(there_is(tmp_path / "file-0001", b"3"), 16384, [])
    with pytest.raises(NotAllowed, match="away/file-0001 belongs to the torrent 'file-0001'"):
        house.session.add(raw, Terms(save_to=str(tmp_path / "away")))
    gate.open()
    house.wait_until(lambda: not any(torrent.moving for torrent in house.torrents()))


def test_of_all_those_are_moved_that_are_elsewhere(house: House, tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    raw = make_torrent(there_is(away / "other", b"2"), 16384, [])
    house.session.add(raw, Terms(seed_path=str(away / "other")))
    house.wait_until(house.all_seed)
    moved = house.session.move("all", str(away))["torrents"]
    assert [row["name"] for row in moved] == ["file-0001"]
    house.wait_until(lambda: not any(torrent.moving for torrent in house.torrents()) and house.all_seed())
    assert sorted(path.name for path in away.iterdir()) == ["file-0001", "other"]
    assert house.session.move("all", str(away)) == {"torrents": []}
    with pytest.raises(NotAllowed, match=r"is in .*/away already"):
        house.session.move("other", str(away))


def test_links_that_wait_for_their_record_leave_no_torrent_behind(
    house: House, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be refused then, with half of the others on their way."""
    session, (torrent,) = house.session, house.torrents()
    session.add_magnet(f"magnet:?xt=urn:btih:{'ab' * 20}", Terms())
    members = session.roster.find("all")
    assert len(members) == 2
    monkeypatch.setattr(session.roster, "find", lambda id: sorted(members, key=lambda each: each is torrent))
    ledger = session.facilities.ledger
    change = ledger.change_magnet

    def slowly(record: MagnetRecord) -> None:
        assert torrent.moving
        change(record)

    monkeypatch.setattr(ledger, "change_magnet", slowly)
    rows = session.move("all", str(tmp_path / "away"))["torrents"]
    assert {row["name"] for row in rows} >= {"file-0001"}
    gate.open()
    house.wait_until(lambda: not torrent.moving and torrent.is_loaded)


def test_a_check_of_all_passes_over_links_without_metainfo(house: House) -> None:
    link = f"magnet:?xt=urn:btih:{'ab' * 20}"
    house.session.add_magnet(link, Terms())
    assert [row["name"] for row in house.session.verify("all")["torrents"]] == ["file-0001"]
    with pytest.raises(NotAllowed, match="has no metainfo yet"):
        house.session.verify("ab" * 20)


@pytest.mark.parametrize("rests", [True, False])
def test_what_is_wished_of_one_that_somebody_removes_meanwhile(
    rests: bool, house: House, tmp_path: Path
) -> None:
    """Who wishes waits for the record, and another client may be quicker."""
    raw = make_torrent(there_is(tmp_path / "other", b"2"), 16384, [])
    if rests:
        (torrent,) = house.torrents()
    else:
        house.session.add(raw, Terms(save_to=str(tmp_path / "new")))
        torrent = house.torrents()[1]
    house.wait_until(lambda: torrent.is_loaded)
    house.session.remove(torrent.info_hash.hex(), False)
    house.wait_until(lambda: torrent.crew.stopped or torrent.rest is not None)
    # None of these may begin anything, nor end the greenlet of who called.
    torrent.verify()
    torrent.reannounce()
    for wish in (torrent.resume, torrent.seed, torrent.pause):
        with contextlib.suppress(NotFound):
            wish()
    assert torrent.rest is None or torrent.rest.paused


def test_files_of_a_torrent_that_was_added_with_its_data_are_not_chosen(house: House) -> None:
    session, (torrent,) = house.session, house.torrents()
    with pytest.raises(NotAllowed, match="nothing is fetched, so nothing is to choose"):
        session.select(torrent.info_hash.hex(), ["0"], "off")
