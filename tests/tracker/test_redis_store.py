"""redis_store.py: the contract of all stores, on a Redis server of the test's own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from microtorrd.errors import ConfigError, StoreUnreachable
from microtorrd.greenlets import Crew
from microtorrd.proto import bencode
from microtorrd.proto.scrape import SwarmCounts
from microtorrd.tracker.redis_store import RedisStore
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


@pytest.mark.parametrize("url", ["redis://host:many", "unix:nowhere"])
def test_what_is_no_url_of_a_server(url: str) -> None:
    with pytest.raises(ConfigError, match=r"tracker\.store: "):
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


def test_a_store_that_goes_and_comes_back(crew: Crew, tmp_path: Path) -> None:
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
            assert talker.ask(announce("1")).status == 400
            assert talker.ask("/health").status == 503
            with running(place):
                assert talker.ask(announce("1")).status == 200
                assert talker.ask("/health").status == 200
            assert talker.ask("/health").status == 503
    finally:
        server.close()


def request(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: tracker\r\n\r\n".encode()
