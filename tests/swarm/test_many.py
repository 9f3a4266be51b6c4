"""Many torrents in one daemon: they rest when nobody wants them, wake when somebody comes, stall nobody."""

from __future__ import annotations

import gc
import os
import shutil
import socket as system_socket
import sqlite3
import struct
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import Mock

import gevent
import pytest
from gevent import socket

from bench import hubwatch
from bench.daemons import Daemon
from bench.measure import for_rpc, hash_pieces, make_torrent
from microtorrd import host, ledger, on_record
from microtorrd.disk.state import StateStore
from microtorrd.loading import Loading
from microtorrd.proto.metainfo import FileEntry, build
from microtorrd.terms import Terms
from microtorrd.torrent import Torrent
from tests.conftest import HubWatch
from tests.swarm.hostile import INTERESTED, RawPeer, frame
from tests.swarm.house import FILE_BYTES, House, make_file, make_house

MANY = 300


@pytest.fixture(scope="module")
def filled() -> Iterator[Path]:
    """A directory with many small files, and a state directory in which all of them seed. In memory, because
    each torrent that is added is a commit that a disk is waited for."""
    with TemporaryDirectory(prefix="microtorrd-test-", dir="/dev/shm") as name:
        home = Path(name)
        house = make_house(home)
        for number in range(MANY):
            house.add(make_file(home, number), [])
        house.wait_until(house.all_seed)
        house.stop()
        yield home


@pytest.fixture
def home(filled: Path, tmp_path: Path) -> Path:
    """A state directory of this test's own, full of torrents."""
    shutil.copytree(filled / "state", tmp_path / "state")
    return tmp_path


@pytest.fixture
def house(home: Path) -> Iterator[House]:
    """It runs, and every torrent seeds."""
    house = House(home)
    house.wait_until(house.all_seed)
    yield house
    house.stop()


def test_nothing_is_left_of_a_torrent_that_is_removed_amid_its_peers(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    torrent = house.torrents()[0]
    facilities = house.session.facilities
    peers = [RawPeer.join(facilities.listen_port, torrent.info_hash) for _ in range(20)]
    house.wait_until(lambda: facilities.connections == len(peers))
    monkeypatch.setattr(host, "TURN_S", 0.0)  # a turn of its core ends after each fact
    for peer in peers:
        peer.send(frame(INTERESTED) * 50)
    house.session.remove(torrent.info_hash.hex(), data=False)
    house.wait_until(lambda: all(peer.is_closed() for peer in peers))
    assert facilities.connections == 0


class Leech:
    """A peer that asks for blocks of one torrent."""

    def __init__(self, house: House, torrent: Torrent) -> None:
        self.sock = socket.create_connection(("127.0.0.1", house.session.facilities.listen_port), timeout=10)
        self.file = self.sock.makefile("rb")
        self.sock.sendall(b"\x13BitTorrent protocol" + bytes(8) + torrent.info_hash + b"-XX0001-abcdefghijkl")
        assert len(self.file.read(68)) == 68
        self.sock.sendall(struct.pack(">IB", 1, 2))  # interested

    def block(self, piece: int, length: int) -> bytes:
        """Ask for the beginning of a piece, when we are served."""
        self._read_until(1)
        self.sock.sendall(struct.pack(">IBIII", 13, 6, piece, 0, length))
        return self._read_until(7)[8:]

    def _read_until(self, kind: int) -> bytes:
        while True:
            (size,) = struct.unpack(">I", self.file.read(4))
            payload = self.file.read(size)
            if payload[:1] == bytes([kind]):
                return payload[1:]

    def close(self) -> None:
        self.file.close()
        self.sock.close()


# -------------------------------------------------------------------------------------------- rest and waking


def test_many_start_without_a_check_at_rest_and_without_a_stall(home: Path, hub_watch: HubWatch) -> None:
    house = House(home)
    assert house.session.stats()["states"] == {"checking": MANY}
    heard = house.wait_until(house.all_seed)
    states = [note["state"] for note in heard if note["kind"] == "state_changed"]
    assert set(states) == {"seeding"}
    assert house.all_rest()
    assert not house.session.facilities.active
    rows = house.session.list()
    assert len(rows) == MANY
    assert {(row["state"], row["done_bytes"]) for row in rows} == {("seeding", FILE_BYTES)}
    assert {row["progress"] for row in rows} == {1.0}
    house.stop()


def test_what_was_changed_meanwhile_is_found_among_others(tmp_path: Path) -> None:
    house = make_house(tmp_path)
    paths = [make_file(tmp_path, number) for number in range(9)]
    for path in paths:
        house.add(path, [])
    house.wait_until(house.all_seed)
    house.stop()
    gone, short, other, touched, *same = paths
    gone.unlink()
    os.truncate(short, 20_000)
    other.write_bytes(bytes(FILE_BYTES // 2) + other.read_bytes()[FILE_BYTES // 2 :])
    os.utime(touched)
    house = House(tmp_path)
    heard = house.wait_until(lambda: house.session.stats()["states"] == {"seeding": 6, "failed": 3})
    rows = {row["name"]: row for row in house.session.list()}
    assert {rows[path.name]["error"]["cause"] for path in (gone, short, other)} == {"mismatch"}
    checked = {note["name"] for note in heard if note.get("state") == "checking"}
    assert checked >= {short.name, other.name, touched.name}
    assert checked.isdisjoint(path.name for path in same)
    assert short.stat().st_size == 20_000  # it is the operator's
    house.stop()


def test_torrents_of_an_older_version_are_read_once_and_packed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = home / "state" / "state.sqlite"
    with closing(sqlite3.connect(database)) as older:
        older.execute("ALTER TABLE torrents DROP COLUMN then_verify")
        older.execute("ALTER TABLE metainfo DROP COLUMN gist")
        older.execute("PRAGMA user_version = 4")
    for is_first in (True, False):
        parse = Mock(wraps=on_record.parse)
        monkeypatch.setattr(on_record, "parse", parse)
        house = House(home)
        house.wait_until(house.all_seed)
        assert house.all_rest()
        assert parse.call_count == (MANY if is_first else 0)
        house.stop()
        monkeypatch.undo()
    store = StateStore(str(database))
    hashes = [record.info_hash for record in store.load_summaries()]
    assert all(kept.gist for kept in store.metainfos(hashes, at_most_bytes=1 << 30).values())
    store.close()


@pytest.mark.parametrize("of", ["metainfo", "gist"])
def test_a_damaged_page_of_the_database_concerns_its_torrent_only(tmp_path: Path, of: str) -> None:
    house = make_house(tmp_path)
    *others, path = (make_file(tmp_path, number) for number in range(4))
    for other in others:
        house.add(other, [])
    # Longer than a page: the bytes go on in pages of their own, those of the gist behind the others.
    longer = build(
        name=path.name,
        piece_length=16384,
        files=[FileEntry((path.name,), FILE_BYTES)],
        is_single_file=True,
        pieces=hash_pieces(path, 16384),
        id_hash=None,
        trackers=[],
        comment="at length " * 3000,
    )
    house.session.add(longer, Terms(seed_path=str(path)))
    house.wait_until(house.all_seed)
    house.stop()
    database = tmp_path / "state" / "state.sqlite"
    pages = bytearray(database.read_bytes())
    filled = [start for start in range(0, len(pages), 4096) if b"at length at" in pages[start : start + 4096]]
    page = filled[3 if of == "metainfo" else -1]
    pages[page : page + 4096] = b"\xff" * 4096
    database.write_bytes(pages)
    house = House(tmp_path)
    if of == "gist":  # it can be made again
        house.wait_until(house.all_seed)
    else:
        house.wait_until(lambda: house.session.stats()["states"] == {"seeding": 3, "failed": 1})
        (row,) = [row for row in house.session.list() if row["state"] == "failed"]
        assert (row["name"], row["error"]["cause"]) == (path.name, "corrupt")
    house.stop()


def test_data_that_is_removed_before_anybody_looked_at_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = make_house(tmp_path)
    paths = [make_file(tmp_path, number) for number in range(2)]
    for path in paths:
        house.add(path, [])
    house.wait_until(house.all_seed)
    house.stop()
    monkeypatch.setattr(Loading, "run", lambda self, crew: None)  # it is nobody's turn yet
    house = House(tmp_path)
    first = house.torrents()[0]
    assert not first.is_loaded
    house.session.remove(first.info_hash.hex(), data=True)
    house.wait_until(lambda: not paths[0].exists())
    assert paths[1].exists()
    house.stop()


def test_a_peer_wakes_a_torrent_and_it_rests_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "LINGER_S", 0.05)
    torrent = house.torrents()[7]
    leech = Leech(house, torrent)
    assert leech.block(2, FILE_BYTES - 2 * 16384) == struct.pack(">I", 7) * (FILE_BYTES // 4 - 2 * 4096)
    assert torrent.rest is None
    assert house.session.list([torrent.info_hash.hex()])[0]["peers"] == 1
    leech.close()
    house.wait_until(house.all_rest)
    row = house.session.list([torrent.info_hash.hex()])[0]
    assert (row["state"], row["peers"], row["uploaded_bytes"]) == ("seeding", 0, FILE_BYTES - 2 * 16384)
    again = Leech(house, torrent)
    again.block(0, 16384)
    again.close()
    house.wait_until(house.all_rest)
    assert torrent.totals() == (FILE_BYTES - 16384, 0)
    assert torrent.announce_stats().uploaded == FILE_BYTES - 16384


def test_what_was_sent_is_on_record_after_a_stop_at_rest(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "LINGER_S", 0.05)
    house = House(home)
    house.wait_until(house.all_seed)
    torrent = house.torrents()[3]
    leech = Leech(house, torrent)
    leech.block(0, 16384)
    leech.close()
    house.wait_until(house.all_rest)
    house.stop()
    store = StateStore(str(home / "state" / "state.sqlite"))
    record = store.load(torrent.info_hash)
    store.close()
    assert (record.up_total, record.dirty, record.durable) == (16384, False, b"\xe0")


def test_wishes_reach_a_torrent_at_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "LINGER_S", 0.05)
    monkeypatch.setattr(ledger, "SYNC_S", 0.1)
    house = make_house(tmp_path)
    for number in range(7):
        house.add(make_file(tmp_path, number), [])
    house.wait_until(house.all_rest)
    session, torrents = house.session, house.torrents()
    ids = [torrent.info_hash.hex() for torrent in torrents]
    assert session.pause(ids[0])["torrents"][0]["state"] == "stopped"
    assert torrents[0].rest is not None
    assert not torrents[0].takes_peers
    assert session.show(ids[0])["pieces_done"] == 3
    assert session.stats()["states"] == {"seeding": 6, "stopped": 1}
    assert session.resume(ids[0])["torrents"][0]["state"] == "seeding"
    assert torrents[0].takes_peers
    assert session.verify(ids[1])["torrents"][0]["state"] == "checking"
    assert session.set_limit(ids[2], None, 5000) == {"down": 0, "up": 5000}
    assert torrents[2].rest is not None  # it need not wake up to be told
    assert torrents[2].up.rate_per_s == 5000
    assert session.resume(ids[3])["torrents"][0]["state"] == "seeding"
    assert [row["done_bytes"] for row in session.files(ids[4])] == [FILE_BYTES]
    assert session.show(ids[4])["pieces_done"] == 3
    (tmp_path / "away").mkdir()
    session.move(ids[5], str(tmp_path / "away"))
    house.wait_until(lambda: not torrents[5].moving and house.all_seed())
    assert (tmp_path / "away" / "file-0005").stat().st_size == FILE_BYTES
    session.remove(ids[6], True)
    house.wait_until(lambda: not Path(torrents[6].content.path).exists())
    house.wait_until(house.all_rest)
    house.stop()


def test_a_file_that_goes_while_a_torrent_rests_is_found_out_when_it_is_asked_for(
    house: House, filled: Path
) -> None:
    torrent = house.torrents()[11]
    path, aside = filled / "content" / "file-0011", filled / "aside"
    path.rename(aside)
    leech = Leech(house, torrent)
    leech.sock.sendall(struct.pack(">IBIII", 13, 6, 0, 0, 16384))
    house.wait_until(lambda: torrent.content.failure is not None)
    assert house.session.list([torrent.info_hash.hex()])[0]["state"] == "failed"
    leech.close()
    aside.rename(path)


def test_paused_ones_rest_too_also_after_a_start(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "LINGER_S", 0.05)
    monkeypatch.setattr(ledger, "SYNC_S", 0.1)
    house = House(home)
    house.wait_until(house.all_seed)
    first, second = house.torrents()[:2]
    house.session.pause(first.info_hash.hex())
    leech = Leech(house, second)
    leech.block(0, 16384)
    house.session.pause(second.info_hash.hex())  # while somebody is connected
    house.wait_until(house.all_rest)
    leech.close()
    with pytest.raises((AssertionError, OSError)):
        Leech(house, first)  # nobody is let in
    house.stop()
    house = House(home)
    house.wait_until(house.all_rest)
    states = [row["state"] for row in house.session.list()]
    assert states == ["stopped", "stopped", *["seeding"] * (MANY - 2)]
    house.session.verify(house.torrents()[0].info_hash.hex())
    house.wait_until(house.all_rest)
    assert house.session.list()[0]["state"] == "stopped"
    house.stop()


def test_all_are_paused_with_one_commit_and_without_a_stall(home: Path, hub_watch: HubWatch) -> None:
    house = House(home)
    house.wait_until(house.all_seed)
    writes: list[dict[str, Any]] = []
    change = house.session.facilities.ledger.change
    house.session.facilities.ledger.change = lambda *_, **fields: writes.append(fields)  # type: ignore[method-assign]
    rows = house.session.pause("all")["torrents"]
    assert {row["state"] for row in rows} == {"stopped"}
    assert house.all_rest()
    assert writes == []
    house.session.facilities.ledger.change = change  # type: ignore[method-assign]
    assert house.session.set_limit("all", None, 70_000) == {"down": 0, "up": 70_000}
    house.stop()
    house = House(home)
    house.wait_until(house.all_rest)
    assert house.session.stats()["states"] == {"stopped": MANY}
    assert {row["state"] for row in house.session.resume("all")["torrents"]} == {"seeding"}
    assert {torrent.up.rate_per_s for torrent in house.torrents()} == {70_000}
    house.stop()


def test_a_torrent_that_is_removed_is_gone_without_a_search_for_cycles(house: House) -> None:
    """What a start has loaded is not searched for cycles, so it must not be in one."""
    gc.collect()
    gc.disable()
    try:
        removed = [weakref.ref(torrent) for torrent in house.torrents()[:5]]
        for number in range(5):
            house.session.remove(house.torrents()[0].info_hash.hex(), data=False)
            assert len(house.torrents()) == MANY - number - 1
        house.wait_until(lambda: [torrent() for torrent in removed] == [None] * 5)
    finally:
        gc.enable()


# -------------------------------------------------------------------------------------------------- deltas


def test_the_list_tells_what_has_changed(house: House, hub_watch: HubWatch) -> None:
    session = house.session
    first = session.list_changes("")
    assert (first["full"], len(first["torrents"]), first["removed"]) == (True, MANY, [])
    same = session.list_changes(first["token"])
    assert (same["full"], same["torrents"], same["removed"]) == (False, [], [])

    ids = [row["info_hash"] for row in first["torrents"]]
    session.pause(ids[5])
    session.remove(ids[9], False)
    after = session.list_changes(same["token"])
    assert [(row["info_hash"], row["state"]) for row in after["torrents"]] == [(ids[5], "stopped")]
    assert (after["full"], after["removed"]) == (False, [ids[9]])
    assert session.list_changes(after["token"])["torrents"] == []

    # A reader who was away for longer hears of the same; so does one who comes with what was never given out.
    assert session.list_changes(first["token"])["removed"] == [ids[9]]
    ours, number = first["token"].split("-")
    for nonsense in ("", "x", f"{ours}-", f"{ours}-{int(number) + 100}", f"beef-{number}", f"{ours}--1"):
        everything = session.list_changes(nonsense)
        assert (everything["full"], len(everything["torrents"])) == (True, MANY - 1)


def test_a_token_ends_with_the_daemon(home: Path) -> None:
    tokens = []
    for _ in range(2):
        house = House(home)
        house.wait_until(house.all_seed)
        answer = house.session.list_changes(tokens[-1] if tokens else "")
        tokens.append(answer["token"])
        assert (answer["full"], len(answer["torrents"])) == (True, MANY)
        house.stop()
    assert tokens[0] != tokens[1]


def test_two_readers_at_once_miss_nothing(house: House) -> None:
    """Looks give others their turn half-way: whatever changes meanwhile must reach both readers."""
    session = house.session
    tokens = [session.list_changes("")["token"] for _ in range(2)]
    heard: list[set[str]] = [set(), set()]

    def read(reader: int) -> None:
        for _ in range(30):
            answer = session.list_changes(tokens[reader])
            tokens[reader] = answer["token"]
            heard[reader] |= {row["info_hash"] for row in answer["torrents"]}
            gevent.sleep(0)

    readers = [gevent.spawn(read, reader) for reader in range(2)]
    changed = [torrent.info_hash.hex() for torrent in house.torrents()[::15]]
    for id in changed:
        session.pause(id)
    gevent.joinall(readers, raise_error=True)
    for reader in range(2):
        read(reader)
    assert heard == [set(changed), set(changed)]


def test_ids_that_went_are_remembered_up_to_a_bound(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microtorrd.changes.GONE_MAX", 3)
    session = house.session
    before = session.list_changes("")
    ids = [row["info_hash"] for row in before["torrents"]]
    for id in ids[:3]:
        session.remove(id, False)
    between = session.list_changes(before["token"])
    assert sorted(between["removed"]) == sorted(ids[:3])
    for id in ids[3:5]:
        session.remove(id, False)
    assert sorted(session.list_changes(between["token"])["removed"]) == sorted(ids[3:5])
    assert session.list_changes(before["token"])["full"]


# --------------------------------------------------------------------------------------------------- the stop


class FadingTracker:
    """Answers announces until it is told to die: then it takes connections and says nothing, or is gone."""

    def __init__(self) -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(system_socket.SOL_SOCKET, system_socket.SO_REUSEADDR, 1)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen(256)
        self.url = f"http://127.0.0.1:{self.sock.getsockname()[1]}/announce"
        self.answered = 0
        self._silent = False
        self._open: list[socket.socket] = []
        self._greenlets = [gevent.spawn(self._accept)]

    def fall_silent(self) -> None:
        self._silent = True

    def vanish(self) -> None:
        gevent.killall(self._greenlets)
        self.sock.close()
        for sock in self._open:
            sock.close()

    def _accept(self) -> None:
        while True:
            sock, _ = self.sock.accept()
            self._open.append(sock)
            self._greenlets.append(gevent.spawn(self._serve, sock))

    def _serve(self, sock: socket.socket) -> None:
        reply = b"d8:intervali1800e5:peers0:e"
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(reply)
        try:
            while sock.recv(4096):
                if not self._silent:
                    self.answered += 1
                    sock.sendall(head + reply)
        except OSError:
            self._silent = self._silent or False  # the daemon went first: its affair


@pytest.mark.parametrize("death", [FadingTracker.fall_silent, FadingTracker.vanish])
def test_a_stop_with_a_dead_tracker_takes_seconds_and_saves_everything(
    tmp_path: Path, death: Callable[[FadingTracker], None]
) -> None:
    tracker = FadingTracker()
    house = make_house(tmp_path)
    for number in range(60):
        house.add(make_file(tmp_path, number), [tracker.url])
    house.wait_until(lambda: house.all_seed() and tracker.answered >= 50)
    death(tracker)
    assert house.stop() < 9.0
    tracker.vanish()
    store = StateStore(str(tmp_path / "state" / "state.sqlite"))
    records = store.load_summaries()
    store.close()
    assert {(record.dirty, record.durable) for record in records} == {(False, b"\xe0")}
    assert len(records) == 60


@pytest.mark.slow
def test_five_thousand_torrents() -> None:
    """The whole life of a large daemon; the limits are those of a machine that is busy with other things."""
    silent = system_socket.create_server(("127.0.0.1", 0), backlog=8)
    with silent, TemporaryDirectory(prefix="microtorrd-test-", dir="/dev/shm") as name:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/announce"
        daemon = Daemon(Path(name) / "daemon", probed=True, daemon__log_level="warning").start()
        (Path(name) / "content").mkdir()
        with daemon.client() as client:
            for number in range(5000):
                path = make_file(Path(name), number)
                metainfo = for_rpc(make_torrent(path, 16384, [url]))
                client.call("torrent.add", metainfo=metainfo, seed_path=str(path))
        _wait_for(daemon, 5000)
        assert daemon.stop() == 0
        began = time.monotonic()
        daemon.start()
        answered = time.monotonic()
        assert answered - began < 5.0
        _wait_for(daemon, 5000)
        assert time.monotonic() - began < 30.0
        with daemon.client() as client:
            answer = client.call("torrent.list", since="")
            assert len(answer["torrents"]) == 5000
            assert client.call("torrent.list", since=answer["token"])["torrents"] == []
            assert client.call("session.stats")["memory_bytes"] < 200 << 20
            assert len(client.call("torrent.pause", id="all")["torrents"]) == 5000
            assert client.call("session.stats")["states"] == {"stopped": 5000}
            client.call("torrent.resume", id="all")
        stopping = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - stopping < 10.0
        stalls = hubwatch.read(daemon.probe_path, since_s=answered)
        assert [stall for stall in stalls if stall.stood_s > 0.1] == []


def _wait_for(daemon: Daemon, count: int) -> None:
    with daemon.client() as client:
        client.subscribe(kinds=["moved"])
        end = time.monotonic() + 80
        while client.call("session.stats")["states"].get("seeding") != count:
            assert time.monotonic() < end
            client.next_note(0.25)  # nothing comes: it is a pause
