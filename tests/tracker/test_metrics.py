"""The metrics, read by Prometheus's own parser: what is counted, in which words, and that it is so."""

from __future__ import annotations

import errno
import os
import time
from random import Random
from typing import Any, NoReturn

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from microtorrd import __version__
from microtorrd.errors import StoreUnreachable
from microtorrd.greenlets import Crew
from microtorrd.proto import joint
from microtorrd.proto import udp_announce as udp
from microtorrd.tracker import metrics
from microtorrd.tracker.connection_ids import ConnectionIds
from microtorrd.tracker.http import HttpLimits
from microtorrd.tracker.metrics import Family, render
from microtorrd.tracker.service import OpenAdmission, TrackerService
from microtorrd.tracker.settings import TrackerSettings
from microtorrd.tracker.store import MemoryStore, StoreSize
from microtorrd.tracker.udp_answer import UdpAnswerer
from tests.tracker.store_contract import fixed_chance
from tests.tracker.talk import SWARM_HEX, House, Talker, announce

SWARM = bytes.fromhex(SWARM_HEX)
BITTORRENT = f"info_hash={SWARM_HEX}&port=1&compact=1"


class Read:
    """What Prometheus makes of them."""

    def __init__(self, talker: Talker) -> None:
        reply = talker.ask("/metrics")
        assert reply.status == 200
        assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        self.families = list(text_string_to_metric_families(reply.body.decode()))
        self.samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __getitem__(self, name: str | tuple[str, ...]) -> float:
        first, *labels = (name,) if isinstance(name, str) else name
        found: float = self.samples[f"microtorrd_tracker_{first}", *sorted(labels)]
        return found


def test_names_types_and_helps_are_as_prometheus_wants_them(crew: Crew) -> None:
    with House(crew) as house, house.talk() as talker:
        families = Read(talker).families
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.documentation.endswith("."), family.name
        assert family.type in ("counter", "gauge")
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
            assert sample.value >= 0


def test_announces_are_counted_by_dialect_and_event(crew: Crew) -> None:
    with House(crew) as house, house.talk() as talker:
        for event in ("started", "alive", "alive", "completed"):
            talker.ask(announce("ada", event))
        for event in ("started", "", "", "stopped"):
            talker.ask(f"/announce?{BITTORRENT}&left=1&peer_id={'b' * 20}&event={event}")
        alive = f"peer_id={'a' * 20}&port=1&event=alive&swarmIds={joint.pack_ids([SWARM, bytes(20)])}"
        talker.ask(f"/announce?{alive}")
        read = Read(talker)
    assert read["announces_total", "microtorr", "started"] == 1
    assert read["announces_total", "microtorr", "alive"] == 2
    assert read["announces_total", "microtorr", "completed"] == 1
    assert read["announces_total", "microtorr", "stopped"] == 0
    assert read["announces_total", "microtorr", "joint_alive"] == 1
    assert read["joint_swarms_total"] == 2
    assert read["announces_total", "bittorrent", "none"] == 2
    assert read["announces_total", "bittorrent", "started"] == 1
    assert read["announces_total", "bittorrent", "stopped"] == 1


def test_refusals_are_counted_by_reason(crew: Crew) -> None:
    with House(crew, max_peers=1) as house, house.talk() as talker:
        talker.ask(announce("ada", "alive"))
        talker.ask("/announce")
        talker.ask("/announce?left=1")
        talker.ask("/scrape")
        talker.ask(f"/scrape?info_hash={SWARM_HEX}&info_hash={'0' * 40}")
        read = Read(talker)
    assert read["failures_total", "microtorr", "unknown_peer"] == 1
    assert read["failures_total", "microtorr", "bad_request"] == 1
    assert read["failures_total", "bittorrent", "bad_request"] == 2
    assert read["failures_total", "bittorrent", "not_admitted"] == 0
    assert (read["scrapes_total"], read["scraped_swarms_total"]) == (1, 2)


def test_datagrams_count_like_requests() -> None:
    clock, service = (
        lambda: 1000.0,
        TrackerService(TrackerSettings(), MemoryStore(Random(1)), OpenAdmission()),
    )
    ids = ConnectionIds(os.urandom)
    answerer = UdpAnswerer(TrackerSettings(), service, ids, clock=clock, on_request=None)
    good = ids.give(bytes([127, 0, 0, 1]), 1000.0)
    ask = udp.AnnounceRequest(
        good, 7, SWARM, b"p" * 20, downloaded=0, left=1, uploaded=0, event="", key=0, numwant=-1, port=1
    )
    for request in (ask, ask._replace(port=0), ask._replace(connection=good ^ 1 << 40)):
        answerer.answer(udp.encode_request(request), "127.0.0.1")
    answerer.answer(b"short", "127.0.0.1")
    counters = service.counters
    assert sum(counters.announces["bittorrent"].values()) == 1
    failures = counters.failures["bittorrent"]
    assert (failures["bad_request"], failures["unknown_connection"], failures["internal"]) == (1, 1, 0)


def test_swarms_and_peers_as_they_are(crew: Crew) -> None:
    with House(crew) as house, house.talk() as talker:
        for number in range(3):
            talker.ask(f"/announce?{BITTORRENT}&left={number}&peer_id={number:020}")
        read = Read(talker)
        assert (read["swarms"], read["peers", "complete"], read["peers", "incomplete"]) == (1, 1, 2)
        assert (read["swarms_max"], read["peers_max"]) == (100_000, 500_000)
        talker.ask(f"/announce?{BITTORRENT}&left=0&peer_id={1:020}")
        talker.ask(f"/announce?{BITTORRENT}&left=0&peer_id={0:020}&event=stopped")
        read = Read(talker)
        assert (read["peers", "complete"], read["peers", "incomplete"]) == (1, 1)


def test_connections_and_bytes(crew: Crew) -> None:
    limits = HttpLimits(connections=1)
    with House(crew, limits=limits) as house, house.talk() as talker:
        read = Read(talker)
        assert (read["connections"], read["connections_accepted_total"]) == (1, 1)
        assert read["connections_refused_total"] == 0
        received, sent = read["received_bytes_total"], read["sent_bytes_total"]
        assert 0 < received < 200
        raw = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        talker.send(raw)
        body = talker.reply().body
        again = Read(talker)
        assert again["received_bytes_total"] == received * 2 + len(raw)
        assert again["sent_bytes_total"] > sent + len(body)


def test_the_process_is_as_others_see_it(crew: Crew) -> None:
    with House(crew) as house, house.talk() as talker:
        read: dict[Any, float] = {key[0]: value for key, value in Read(talker).samples.items()}
        us = psutil.Process(os.getpid())
        assert abs(read["process_resident_memory_bytes"] - us.memory_info().rss) < 64 << 20
        assert 0 < read["process_cpu_seconds_total"] <= sum(us.cpu_times()[:2]) + 0.1
        assert abs(read["process_start_time_seconds"] - us.create_time()) < 2
        assert read["process_start_time_seconds"] < time.time()
        assert abs(read["process_open_fds"] - us.num_fds()) <= 1
        assert read["process_max_fds"] == us.rlimit(psutil.RLIMIT_NOFILE)[0]
        assert read["process_virtual_memory_bytes"] > read["process_resident_memory_bytes"]
        (build,) = [sample for sample in Read(talker).samples if sample[0] == "microtorrd_build_info"]
        assert __version__ in build


class LostStore(MemoryStore):
    """A store that lies elsewhere, and does not answer."""

    def enter(self, *_: Any, **__: Any) -> NoReturn:
        """Fail."""
        raise StoreUnreachable

    def size(self) -> StoreSize:
        """Fail."""
        raise StoreUnreachable


def test_metrics_tell_of_a_store_that_does_not_answer(crew: Crew) -> None:
    with House(crew) as house, house.talk() as talker:
        assert Read(talker)["store_up"] == 1
    with House(crew, store=LostStore(fixed_chance())) as house, house.talk() as talker:
        reply = talker.ask(announce("ada"))
        assert (reply.status, b"cannot reach its store" in reply.body) == (503, True), (
            "not the client's fault"
        )
        assert talker.ask(f"/announce?{BITTORRENT}&left=1&peer_id={'b' * 20}").status == 200
        read = Read(talker)
    assert read["store_up"] == 0
    assert read["failures_total", "microtorr", "store_unreachable"] == 1
    assert read["failures_total", "bittorrent", "store_unreachable"] == 1
    names = {family.name for family in read.families}
    assert not names & {"microtorrd_tracker_swarms", "microtorrd_tracker_peers"}
    assert "microtorrd_tracker_swarms_max" in names


def test_out_of_descriptors_metrics_leave_out_what_takes_one(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    with House(crew) as house, house.talk() as talker:
        monkeypatch.setattr(metrics, "open", refuse, raising=False)
        monkeypatch.setattr(metrics.os, "listdir", refuse)
        names = {family.name for family in Read(talker).families}
    assert "process_max_fds" in names
    assert not names & {"process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds"}


def test_labels_are_escaped() -> None:
    text = 'a\\b"c\nd'
    raw = render([Family("x", "gauge", "back\\slash\nline", [({"name": text}, 1.5)])])
    (family,) = text_string_to_metric_families(raw.decode())
    assert family.samples[0].labels == {"name": text}
    assert (family.documentation, family.samples[0].value) == ("back\\slash\nline", 1.5)
