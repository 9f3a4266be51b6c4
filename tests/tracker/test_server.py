"""The tracker as a whole: the original's recorded requests, crowds, notes, and its own mistakes."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote_from_bytes

import gevent
import pytest

from microtorrd.errors import ConfigError, TrackerError
from microtorrd.greenlets import Crew
from microtorrd.proto import bencode
from microtorrd.proto.announce import AnnounceRequest, encode_query
from microtorrd.proto.announce_reply import parse_reply
from microtorrd.proto.scrape import SwarmCounts, encode_scrape_query, parse_scrape_reply
from microtorrd.tracker.lists import NO_LISTS, Lists
from microtorrd.tracker.server import TrackerServer, make_store
from microtorrd.tracker.settings import TrackerSettings
from microtorrd.tracker.store import MemoryStore
from tests.tracker.store_contract import fixed_chance
from tests.tracker.talk import PATIENCE_S, SWARM_HEX, House, Talker, announce, at_once


class Clock:
    """Time that stands still until somebody moves it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Stage:
    """A tracker that is running, its clock, and the notes it gave."""

    def __init__(self, crew: Crew, **settings: Any) -> None:
        self.clock = Clock()
        self.notes: list[dict[str, Any]] = []
        chosen = TrackerSettings(**{"bind": "127.0.0.1:0", **settings})
        self.server = TrackerServer(chosen, crew, self.clock, self.notes.append)

    def talk(self) -> Talker:
        return Talker(self.server.port)


@pytest.fixture
def stage(crew: Crew) -> Iterator[Stage]:
    stage = Stage(crew)
    stage.server.start()
    yield stage
    stage.server.close()


# ------------------------------------------------------------------------------------ the original's client


def recorded(event: str, peer: str = "TU9dOwo0SFuskrq6N3Rc", port: int = 1111) -> bytes:
    """The original client's request, byte for byte."""
    return (
        f"GET /announce?peerId={peer}&swarmId={SWARM_HEX}&ip=127.0.0.1&port={port}&event={event} HTTP/1.1\r\n"
        "Host: 127.0.0.1:8888\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n"
    ).encode()


def test_the_originals_client_gets_what_its_own_tracker_gave(stage: Stage) -> None:
    with stage.talk() as seeder, stage.talk() as leecher:
        seeder.send(recorded("started", "w3fcAR2XIgwocPDbdqgx", 3333))
        assert seeder.reply().status == 200
        leecher.send(recorded("started"))
        reply = leecher.reply()
        assert reply.status == 200
        assert set(reply.headers) == {"content-type", "date", "content-length"}
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["content-length"] == "227"
        assert reply.body == (
            b'{"IdHash":"641057d4a3c5f2069380fcfa32ec3f7ea59566ca","Peers":{"TU9dOwo0SFuskrq6N3Rc":'
            b'{"Ip":"127.0.0.1","Port":1111,"Id":"TU9dOwo0SFuskrq6N3Rc"},"w3fcAR2XIgwocPDbdqgx":'
            b'{"Ip":"127.0.0.1","Port":3333,"Id":"w3fcAR2XIgwocPDbdqgx"}}}'
        )

        leecher.send(recorded("alive"))
        reply = leecher.reply()
        assert (reply.status, reply.body) == (200, b"")
        assert set(reply.headers) == {"date", "content-length"}

        for event in ("completed", "stopped"):
            leecher.send(recorded(event))
            reply = leecher.reply()
            assert (reply.status, reply.body) == (200, b"Peer exited the swarm")
            assert set(reply.headers) == {"content-type", "date", "content-length"}
            assert reply.headers["content-type"] == "text/plain; charset=utf-8"

        leecher.send(recorded("alive"))
        reply = leecher.reply()
        assert reply.status == 400
        assert json.loads(reply.body) == {"failure reason": "Peer is not in this swarm"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((b"port=1111", b"port=x"), "port must be a number from 1 to 65535"),
        ((b"port=1111", b"port=0"), "port must be a number from 1 to 65535"),
        ((b"port=1111", b"port=70000"), "port must be a number from 1 to 65535"),
        ((b"port=1111&", b""), "port is missing"),
        ((b"peerId=TU9dOwo0SFuskrq6N3Rc", b"peerId="), "peerId is missing"),
        ((b"peerId=TU9dOwo0SFuskrq6N3Rc", b"peerId=%zz"), "peerId must be 20 bytes, not 3"),
        ((b"swarmId=64", b"swarmId="), "swarmId must be 20 bytes or 40 hex digits, not 38 bytes"),
        ((b"ip=127.0.0.1", b"ip=localhost"), "ip must be a numeric address that a peer can have"),
        ((b"event=started", b"event="), "event is missing"),
        ((b"event=started", b"event=Started"), "event must be started, stopped, completed or alive"),
    ],
)
def test_what_is_wrong_is_named(stage: Stage, change: tuple[bytes, bytes], reason: str) -> None:
    with stage.talk() as talker:
        talker.send(recorded("started").replace(*change))
        reply = talker.reply()
        assert (reply.status, json.loads(reply.body)) == (400, {"failure reason": reason})
        talker.send(recorded("started"))
        assert list(json.loads(talker.reply().body)["Peers"]) == ["TU9dOwo0SFuskrq6N3Rc"]


# ------------------------------------------------------------------------------------------- our own client


def test_a_bittorrent_swarm_from_beginning_to_end(stage: Stage) -> None:
    swarm = bytes(range(20))
    seeder = AnnounceRequest(swarm, b"-MT0001-\xff\xfe\x00\x01eeder...", 6881, "started", left=0)
    leecher = AnnounceRequest(swarm, b"-MT0001-leecher.....", 6882, "started", left=1000)
    with stage.talk() as talker:

        def ask(request: AnnounceRequest) -> Any:
            raw = talker.ask(f"/announce?{encode_query(request, 'bittorrent')}")
            assert raw.status == 200
            return parse_reply(raw.body, "bittorrent")

        reply = ask(seeder)
        assert (reply.interval, reply.min_interval) == (900, 60)
        assert (reply.complete, reply.incomplete, reply.peers) == (1, 0, ())
        reply = ask(leecher)
        assert (reply.complete, reply.incomplete) == (1, 1)
        assert reply.peers == (("127.0.0.1", 6881, None),)
        named = AnnounceRequest(swarm, leecher.peer_id, 6882, left=500, compact=False)
        assert ask(named).peers == (("127.0.0.1", 6881, seeder.peer_id),)
        ask(AnnounceRequest(swarm, leecher.peer_id, 6882, "completed", left=0))
        scraped = talker.ask(f"/scrape?{encode_scrape_query([swarm, bytes(20)])}")
        assert parse_scrape_reply(scraped.body) == {swarm: SwarmCounts(2, 1, 0)}
        ask(AnnounceRequest(swarm, seeder.peer_id, 6881, "stopped", left=0))
        assert ask(leecher).complete == 0


def test_mistakes_of_bittorrent_clients_are_answered_with_200(stage: Stage) -> None:
    with stage.talk() as talker:
        reply = talker.ask(f"/announce?info_hash={quote_from_bytes(b'x' * 20)}&peer_id=short&port=1&left=0")
        assert reply.status == 200
        assert reply.headers["content-type"] == "text/plain"
        assert bencode.decode(reply.body) == {b"failure reason": b"peer_id must be 20 bytes, not 5"}


def test_ipv6_peers_have_a_key_of_their_own(crew: Crew) -> None:
    stage = Stage(crew, bind="[::]:0")
    stage.server.start()
    target = f"/announce?info_hash={SWARM_HEX}&left=5&compact=1&port=6881&peer_id="
    with Talker(stage.server.port, "::1") as six, Talker(stage.server.port, "127.0.0.1") as four:
        six.ask(target + "a" * 20)
        reply = bencode.decode(four.ask(target + "b" * 20).body)
        assert isinstance(reply, dict)
        assert (reply[b"peers"], reply[b"peers6"]) == (b"", bytes(15) + b"\x01\x1a\xe1")
        reply = bencode.decode(six.ask(target + "c" * 20).body)
        assert isinstance(reply, dict)
        assert reply[b"peers"] == b"\x7f\x00\x00\x01\x1a\xe1"
    stage.server.close()


def test_the_server_itself_forgets_the_silent(stage: Stage) -> None:
    with stage.talk() as talker:
        talker.ask(announce("ada"))
        stage.clock.now += 29
        talker.ask(announce("bob"))
        stage.clock.now += 2
        with gevent.Timeout(PATIENCE_S):
            while json.loads(talker.ask("/health").body)["peers"] != 1:
                gevent.sleep(0.05)
        assert talker.ask(announce("bob", "alive")).status == 200
        assert talker.ask(announce("ada", "alive")).status == 400


# --------------------------------------------------------------------------------------------------- crowds


def test_fifty_clients_at_once(stage: Stage) -> None:
    """The load at which the original's tracker crashed, after 129 to 498 announces."""

    def client(number: int) -> None:
        with stage.talk() as talker:
            for turn in range(20):
                reply = talker.ask(announce(f"p{number}", port=number + 1))
                peers = json.loads(reply.body)["Peers"]
                assert peers[f"p{number}".ljust(20, "x")]["Port"] == number + 1
                if turn == 10:
                    assert talker.ask(announce(f"p{number}", "alive")).status == 200
                    assert talker.ask(announce(f"p{number}", "stopped")).status == 200
        # And as many clients do, with a connection for each announce.
        for _ in range(5):
            with stage.talk() as talker:
                assert talker.ask(announce(f"p{number}"), "Connection: close").status == 200
                assert talker.is_ended()

    at_once(client, 50)
    with stage.talk() as talker:
        assert json.loads(talker.ask("/health").body) == {"status": "ok", "swarms": 1, "peers": 50}
        assert len(json.loads(talker.ask(announce("p0")).body)["Peers"]) == 50


# ---------------------------------------------------------------------------------------------------- notes


def test_every_announce_gives_one_note(stage: Stage) -> None:
    with stage.talk() as talker:
        talker.ask(announce("ada", port=7))
        talker.ask("/announce?x=%ff\xe9")
        talker.ask("/health")
        talker.ask(f"/scrape?info_hash={SWARM_HEX}")
    good, bad = stage.notes
    assert good == {
        "kind": "tracker_request",
        "query": announce("ada", port=7).partition("?")[2],
        "host": "127.0.0.1",
        "transport": "http",
        "dialect": "microtorr",
        "failure": "",
        "swarm_id": SWARM_HEX,
        "peer_id": "ada".ljust(20, "x"),
        "event": "started",
        "port": 7,
    }
    assert bad == {
        "kind": "tracker_request",
        "query": "x=%ff\xe9",
        "host": "127.0.0.1",
        "transport": "http",
        "dialect": "microtorr",
        "failure": "info_hash is missing",
    }


def test_notes_are_made_while_somebody_reads_them(crew: Crew) -> None:
    notes: list[dict[str, Any]] = []
    readers = 0
    server = TrackerServer(
        TrackerSettings(bind="127.0.0.1:0"), crew, Clock(), notes.append, lambda: bool(readers)
    )
    server.start()
    with Talker(server.port) as talker:
        assert talker.ask(announce("ada")).status == 200
        assert not notes
        readers = 1
        assert talker.ask(announce("bob")).status == 200
    server.close()
    assert [note["event"] for note in notes] == ["started"]


# ---------------------------------------------------------------------------------------- our own mistakes


class BrokenStore(MemoryStore):
    """A store with a bug."""

    def enter(self, *_: Any, **__: Any) -> NoReturn:
        """Fail."""
        raise RuntimeError("secret of the house")

    def counts(self, *_: Any) -> NoReturn:
        """Fail."""
        raise RuntimeError("secret of the house")


def test_what_is_our_fault_is_logged_and_not_told(
    crew: Crew, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    with House(crew, store=BrokenStore(fixed_chance())) as house, house.talk() as talker:
        reply = talker.ask(announce("ada"))
        assert (reply.status, json.loads(reply.body)) == (500, {"failure reason": "internal error"})
        reply = talker.ask(announce("ada", more="&left=5"))
        assert (reply.status, bencode.decode(reply.body)) == (200, {b"failure reason": b"internal error"})
        reply = talker.ask(f"/scrape?info_hash={SWARM_HEX}")
        assert (reply.status, bencode.decode(reply.body)) == (200, {b"failure reason": b"internal error"})
        assert talker.ask(announce("ada", "alive")).status == 400
    lines = [line for line in log_lines() if line["level"] == "error"]
    assert [line["event"] for line in lines] == ["announce_failed", "announce_failed", "scrape_failed"]
    assert all("secret of the house" in line["exception"] for line in lines)


def test_a_list_whose_disk_hangs_takes_one_thread(
    crew: Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[TrackerSettings] = []
    answers, disk = os.pipe()

    def hang(settings: TrackerSettings) -> Lists:
        read.append(settings)
        os.read(answers, 1)
        return NO_LISTS

    stage = Stage(crew)
    listed = TrackerSettings(deny_file=str(tmp_path / "denied"))
    monkeypatch.setattr("microtorrd.tracker.server.read_lists", hang)
    monkeypatch.setattr("microtorrd.tracker.server.READING_S", 0.01)
    with pytest.raises(ConfigError, match="could not be read within"):
        stage.server.prepare(listed)
    for _ in range(3):
        with pytest.raises(ConfigError, match="still being read"):
            stage.server.prepare(listed)
    assert len(read) == 1
    monkeypatch.setattr("microtorrd.tracker.server.READING_S", PATIENCE_S)
    os.close(disk)
    with gevent.Timeout(PATIENCE_S):
        while True:
            try:
                stage.server.prepare(listed)()
                break
            except ConfigError:
                gevent.sleep(0.001)
    assert len(read) == 2
    os.close(answers)


@pytest.mark.parametrize(
    "store", ["redis://:hunter2@[::1", "redis://:hunter2@host:port/0", "redis://u:hunter2/x@host"]
)
def test_a_wrong_url_of_a_store_is_refused_without_its_password(store: str) -> None:
    with pytest.raises(ConfigError, match="no URL of a Redis server") as caught:
        make_store(TrackerSettings(store=store))
    shown = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in shown


# --------------------------------------------------------------------------- what clients may count on


def test_clients_are_told_where_they_come_from(stage: Stage) -> None:
    request = AnnounceRequest(swarm_id=bytes(20), peer_id=b"p" * 20, port=1, left=1, ip="192.0.2.1")
    with stage.talk() as talker:
        for is_compact in (True, False):
            query = encode_query(request._replace(compact=is_compact), "bittorrent")
            reply = parse_reply(talker.ask(f"/announce?{query}").body, "bittorrent")
            assert reply.external_ip == "127.0.0.1"


def test_a_full_tracker_says_when_to_come_back(crew: Crew) -> None:
    stage = Stage(crew, max_swarms=1)
    stage.server.start()
    with stage.talk() as talker:
        for swarm in (b"a" * 20, b"b" * 20):
            request = AnnounceRequest(swarm_id=swarm, peer_id=b"p" * 20, port=1, left=1)
            body = talker.ask(f"/announce?{encode_query(request, 'bittorrent')}").body
    stage.server.close()
    with pytest.raises(TrackerError, match="full") as caught:
        parse_reply(body, "bittorrent")
    assert caught.value.retry_s == 15 * 60
