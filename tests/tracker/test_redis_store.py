"""redis_store.py: the contract of all stores, on a Redis server of the test's own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
import redis
from gevent import socket

from microtorrd.errors import ConfigError, StoreUnreachable
from microtorrd.greenlets import Crew
from microtorrd.proto import bencode
from microtorrd.proto.scrape import SwarmCounts
from microtorrd.tracker import redis_store
from microtorrd.tracker.redis_store import CONNECTIONS, RedisStore
from microtorrd.tracker.server import TrackerServer, make_store
from microtorrd.tracker.settings import TrackerSettings
from microtorrd.tracker.store import StoreBounds, StoreSize
from tests.lacking import lacking
from tests.tracker.store_contract import OTHER_SWARM, SWARM, StoreContract, entries, fixed_chance, peer
from tests.tracker.talk import Talker, announce
from tests.tracker.test_udp import client, route
from tests.tracker.test_udp import peer as someone
from tests.waiting import until


@contextmanager
def running(place: Path) -> Iterator[None]:
    """A Redis server that keeps nothing, at this socket."""
    program = shutil.which("redis-server")
    if program is None:
        lacking("redis-server is not installed")
    command = [program, "--port", "0", "--unixsocket", str(place), "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=place.parent) as process:
        try:
            until(place.exists)
            yield
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of one for all of these tests."""
    place = tmp_path_factory.mktemp("redis") / "sock"
    with running(place):
        yield f"unix://{place}"


@pytest.fixture
def fresh(server: str) -> Iterator[str]:
    """The same with nothing in it."""
    with redis.Redis.from_url(server) as client:
        client.flushall()
    yield server
    with redis.Redis.from_url(server) as client:
        # An empty swarm leaves nothing behind: what is there belongs to peers that are.
        for key in client.keys("*"):
            swarm = key.rpartition(b":")[2]
            assert key in (b"microtorrd:due", b"microtorrd:swarms", b"microtorrd:complete") or client.exists(
                b"microtorrd:peers:" + swarm
            )


class TestRedisStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _on(self, fresh: str) -> Iterator[None]:
        self.url = fresh
        self.stores: list[RedisStore] = []
        yield
        for store in self.stores:
            store.close()

    def make(self, bounds: StoreBounds) -> RedisStore:
        store = RedisStore(self.url, fixed_chance(), bounds)
        self.stores.append(store)
        return store

    def test_what_there_is_in_all(self) -> None:
        store = self.make(StoreBounds())
        assert (store.swarm_ids(), store.complete_peers()) == ([], 0)
        self.enter(store, peer(1))
        self.enter(store, peer(2, complete=True), swarm=OTHER_SWARM)
        assert (sorted(store.swarm_ids()), store.complete_peers()) == ([SWARM, OTHER_SWARM], 1)
        self.enter(store, peer(1, complete=True))
        assert store.complete_peers() == 2
        self.enter(store, peer(2), swarm=OTHER_SWARM, until=5.0)
        store.leave(SWARM, peer(1).peer_id, peer(1).entry[:-2], finished=False)
        store.expire(6.0, 10)
        assert (store.swarm_ids(), store.complete_peers()) == ([], 0)

    @pytest.mark.parametrize("lost", ["hash", "member"])
    def test_what_redis_has_lost_is_forgotten_and_told_to_nobody(self, lost: str) -> None:
        store = self.make(StoreBounds())
        self.enter(store, peer(1))
        self.enter(store, peer(2, complete=True))
        self.enter(store, peer(3, complete=True), until=50.0)
        with redis.Redis.from_url(self.url) as client:
            members = [who.peer_id + who.entry[:-2] for who in (peer(1), peer(2), peer(3))]
            if lost == "hash":
                client.delete(b"microtorrd:peers:" + SWARM)
            else:
                client.hdel(b"microtorrd:peers:" + SWARM, *members)
        assert store.expire(60.0, 10) == 1
        assert store.complete_peers() == 1
        assert entries(self.enter(store, peer(4))) == set()
        self.enter(store, peer(1, complete=True))
        assert entries(self.enter(store, peer(4))) == {peer(1).entry}
        assert (store.counts(SWARM), store.complete_peers()) == (SwarmCounts(1, 0, 1), 1)
        store.expire(101.0, 10)
        assert (store.size(), store.complete_peers()) == (StoreSize(0, 0), 0)

    def test_all_swarms_are_read_in_slices(self, monkeypatch: pytest.MonkeyPatch) -> None:
        store, breaths = self.make(StoreBounds()), []
        monkeypatch.setattr(redis_store, "_SCANNED", 50)
        monkeypatch.setattr(redis_store, "breathe", lambda: breaths.append(1))
        expected = [b"%020d" % number for number in range(600)]
        for swarm in expected:
            self.enter(store, peer(1), swarm=swarm)
        assert sorted(store.swarm_ids()) == expected
        assert len(breaths) >= 5

    def test_two_trackers_serve_the_same_swarms(self) -> None:
        one, other = self.make(StoreBounds()), self.make(StoreBounds())
        self.enter(one, peer(1))
        assert entries(self.enter(other, peer(2))) == {peer(1).entry}
        assert other.refresh(SWARM, peer(1).peer_id, peer(1).entry[:-2], expires_at=200.0, now=1.0)
        assert one.expire(150.0, 10) + other.expire(150.0, 10) == 1
        assert one.size() == other.size() == StoreSize(1, 1)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    store = RedisStore(f"unix://{tmp_path / 'nobody'}", fixed_chance())
    with pytest.raises(StoreUnreachable, match="cannot reach its store"):
        store.size()
    with pytest.raises(StoreUnreachable):
        store.counts(SWARM)
    store.close()


class Silent:
    """A Redis server that takes connections and answers nothing, and how many it took."""

    def __init__(self, crew: Crew) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.heard: list[bytes] = []
        self._crew = crew
        crew.spawn("silent", self._accept)

    def store(self) -> RedisStore:
        return RedisStore(f"redis://127.0.0.1:{self.listener.getsockname()[1]}/0", fixed_chance())

    def _accept(self) -> None:
        while True:
            sock, _ = self.listener.accept()
            self.heard.append(b"")
            self._crew.spawn("listening", self._listen, sock, len(self.heard) - 1)

    def _listen(self, sock: Any, number: int) -> None:
        while chunk := sock.recv(4096):
            self.heard[number] += chunk


@pytest.fixture
def silent(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> Iterator[Silent]:
    monkeypatch.setattr(redis_store, "ANSWER_S", 0.05)
    server = Silent(crew)
    yield server
    server.listener.close()


def ask(store: RedisStore) -> str:
    try:
        store.counts(SWARM)
    except StoreUnreachable:
        return "unreachable"
    return "answered"


def test_who_does_not_answer_is_waited_for_once(silent: Silent) -> None:
    store = silent.store()
    everybody = [gevent.spawn(ask, store) for _ in range(5 * CONNECTIONS)]
    gevent.joinall(everybody, timeout=5, raise_error=True)
    assert [greenlet.value for greenlet in everybody] == ["unreachable"] * len(everybody)
    assert 1 <= len(silent.heard) <= CONNECTIONS
    before = len(silent.heard)
    assert ask(store) == "unreachable"
    assert len(silent.heard) == before, "it rests"
    store.close()


def test_then_one_tries_it_at_a_time(silent: Silent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "REST_S", 0.0)
    store = silent.store()
    assert ask(store) == "unreachable"
    before = len(silent.heard)
    trying = [gevent.spawn(ask, store) for _ in range(10)]
    gevent.joinall(trying, timeout=5, raise_error=True)
    assert len(silent.heard) == before + 1
    store.close()


def test_it_speaks_what_redis_5_understands(silent: Silent) -> None:
    store = silent.store()
    assert ask(store) == "unreachable"
    assert silent.heard[0].startswith(b"*")
    assert b"HELLO" not in silent.heard[0]
    store.close()


def test_one_that_refuses_something_is_asked_for_the_rest(fresh: str) -> None:
    store = RedisStore(fresh, fixed_chance())
    with redis.Redis.from_url(fresh) as client:
        client.set("microtorrd:complete", "no number")
        with pytest.raises(StoreUnreachable):
            store.enter(SWARM, peer(1, complete=True), expires_at=9.0, finished=False, want=0, named=False)
        assert store.size().peers == 0
        client.flushall()
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis://host:many",
        "unix:nowhere",
        "redis://host/0?foo=1",
        "redis://host/0?timeout=5",
        "redis://host/0?decode_responses=true",
        "redis://:pass#word@host/0",
    ],
)
def test_what_is_no_url_of_a_server(url: str) -> None:
    with pytest.raises(ConfigError, match=r"tracker\.store is no URL of a Redis server"):
        make_store(TrackerSettings(store=url))


# ------------------------------------------------------------------------------------ trackers that share it


@pytest.fixture
def trackers(fresh: str, crew: Crew) -> Iterator[list[TrackerServer]]:
    settings = TrackerSettings(bind="127.0.0.1:0", store=fresh)
    servers = [TrackerServer(settings, crew, clock=lambda: 0.0) for _ in range(2)]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.close()


def test_clients_of_two_trackers_find_each_other(trackers: list[TrackerServer]) -> None:
    with Talker(trackers[0].port) as one, Talker(trackers[1].port) as other:
        assert one.ask(announce("1")).status == 200
        peers = json.loads(other.ask(announce("2", port=2222)).body)["Peers"]
        assert {peer["Port"] for peer in peers.values()} == {1111, 2222}
        assert other.ask(announce("1", "alive")).body == b""
        assert json.loads(one.ask("/health").body) == {"status": "ok", "swarms": 1, "peers": 2}
        one.ask(announce("1", "stopped"))
        assert other.ask(announce("1", "alive")).status == 400
        # Pipelined ones are answered in their order.
        other.send(b"".join(request(announce("2", event)) for event in ("alive", "stopped", "alive")))
        replies = [other.reply() for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 400]
        assert replies[1].body == b"Peer exited the swarm"


def test_over_udp_too(trackers: list[TrackerServer]) -> None:
    one, other = trackers
    here = route("127.0.0.1")
    assert client().announce(here, one.port, someone("seeder", 7001, left=0)).complete == 1
    told = client().announce(here, other.port, someone("leecher", 7002))
    assert (told.complete, told.incomplete, told.peers) == (1, 1, (("127.0.0.1", 7001, None),))
    assert client().scrape(here, one.port, SWARM) == SwarmCounts(complete=1, downloaded=0, incomplete=1)


def test_a_store_that_goes_and_comes_back(
    crew: Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "REST_S", 0.0)
    place = tmp_path / "sock"
    server = TrackerServer(TrackerSettings(bind="127.0.0.1:0", store=f"unix://{place}"), crew, lambda: 0.0)
    server.start()
    try:
        with Talker(server.port) as talker:
            bittorrent = announce("1", more="&compact=1")
            reply = bencode.decode(talker.ask(bittorrent).body)
            assert reply == {
                b"failure reason": b"the tracker cannot reach its store at the moment",
                b"retry in": 1,
            }
            assert talker.ask(announce("1")).status == 503
            assert talker.ask("/health").status == 503
            with running(place):
                until(lambda: talker.ask(announce("1")).status == 200)
                assert talker.ask("/health").status == 200
            assert talker.ask("/health").status == 503
    finally:
        server.close()


def request(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: tracker\r\n\r\n".encode()
