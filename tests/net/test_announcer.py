"""Announcers and their schedule against trackers on real sockets, with the dialects' times made short."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gevent
import pytest
from gevent.event import Event

from microtorrd.core.events import Address
from microtorrd.core.tiers import Pacing
from microtorrd.greenlets import Crew
from microtorrd.net.announce_hosts import Entry
from microtorrd.net.announcer import (
    AnnounceAs,
    Announcer,
    AnnounceScheduler,
    AnnounceStats,
    Identity,
    ScheduleLimits,
    TrackerClient,
    TrackerStatus,
)
from microtorrd.net.tracker_client import ClientLimits
from microtorrd.net.tracker_http import HttpLimits
from microtorrd.net.tracker_udp import UdpLimits
from microtorrd.proto import udp_announce as udp
from microtorrd.proto.scrape import SwarmCounts, encode_scrape_reply
from tests.net.trackers import (
    EMPTY,
    GO_REFUSAL,
    ONE_PEER,
    PATIENCE_S,
    FakeTracker,
    FakeUdpTracker,
    Seen,
    both_dialects,
    closed_port,
    closing,
    http,
)

IDENTITY = Identity(peer_id=b"-MT0001-abcdefghijkl", port=7777, key=0xDEADBEEF)
INFO_HASH = b"i" * 20
ID_HASH = b"d" * 20

#: The dialects' times, a hundred times faster and more.
FAST = Pacing(
    alive_s=0.05,
    forgotten_s=0.5,
    hurry_s=0.02,
    shortest_interval_s=0.02,
    backoff_first_s=0.03,
    backoff_most_s=0.2,
    refused_first_s=60,
)
#: So many a second that the rate never matters.
AT_ONCE = ScheduleLimits(burst=10_000, per_host_per_s=10_000, farewell_s=0.2)
#: As they are, but for the first back-off.
SLOW = Pacing(backoff_first_s=0.02)


class Session:
    """A scheduler with its client, and what the torrents' announcers told."""

    def __init__(
        self, crew: Crew, limits: ScheduleLimits | None = None, *, patience_s: float = PATIENCE_S
    ) -> None:
        self.client = TrackerClient(
            limits=ClientLimits(
                total_s=patience_s,
                http=HttpLimits(connect_s=patience_s, read_s=patience_s),
                udp=UdpLimits(first_wait_s=1.0, total_s=patience_s),
            )
        )
        self.scheduler = AnnounceScheduler(crew, client=self.client, limits=limits, chance=random.Random(1))
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.addresses: list[Address] = []
        self.stats = AnnounceStats(uploaded=1, downloaded=2, left=3)
        self._told = Event()

    def torrent(
        self,
        *tiers: list[str],
        announce_as: AnnounceAs = "both",
        id_hash: bytes | None = ID_HASH,
        info_hash: bytes = INFO_HASH,
        pacing: Pacing = SLOW,
    ) -> Announcer:
        return Announcer(
            scheduler=self.scheduler,
            trackers=tiers,
            info_hash=info_hash,
            id_hash=id_hash,
            announce_as=announce_as,
            identity=IDENTITY,
            listener=self,
            pacing=pacing,
        )

    def announce_stats(self) -> AnnounceStats:
        return self.stats

    def hear_of(self, addresses: list[Address]) -> None:
        self.addresses += addresses
        self._told.set()

    def hear_tracker(self, kind: str, facts: dict[str, Any]) -> None:
        self.notes.append((kind, facts))
        self._told.set()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a note or addresses after which this holds."""
        with gevent.Timeout(PATIENCE_S):
            while not condition():
                self._told.clear()
                self._told.wait()

    def kinds(self) -> list[tuple[str, str, str]]:
        return [(kind, facts["dialect"], facts.get("event", "")) for kind, facts in self.notes]


@pytest.fixture
def session(crew: Crew) -> Iterator[Session]:
    session = Session(crew)
    yield session
    crew.stop(1.0)
    session.client.close_idle()


@contextmanager
def running(*announcers: Announcer) -> Iterator[None]:
    for announcer in announcers:
        announcer.start()
    try:
        yield
    finally:
        for announcer in announcers:
            announcer.stop()


def status(announcer: Announcer, dialect: str = "bittorrent", url: str = "") -> TrackerStatus:
    return next(row for row in announcer.status() if row.dialect == dialect and row.url.startswith(url))


def events(tracker: FakeTracker, dialect: str) -> list[str]:
    return [seen.event for seen in tracker.seen if seen.dialect == dialect]


def parted(session: Session, *announcers: Announcer) -> None:
    """Stop and send the farewells."""
    for announcer in announcers:
        announcer.stop()
    assert session.scheduler.drain(PATIENCE_S) == 0


# ------------------------------------------------------------------------------------------ the two dialects


def test_a_mtorrent_announces_both_ids_each_in_its_dialect(session: Session) -> None:
    tracker = FakeTracker()
    torrent = session.torrent([tracker.url])
    with closing(tracker), running(torrent):
        session.until(lambda: len(session.notes) == 2)
        by_dialect = {seen.dialect: seen.params for seen in tracker.seen}
        assert by_dialect["bittorrent"]["info_hash"] == INFO_HASH
        assert by_dialect["microtorr"]["swarmId"] == ID_HASH.hex().encode()
        assert by_dialect["bittorrent"] == {
            "info_hash": INFO_HASH,
            "peer_id": IDENTITY.peer_id,
            "port": b"7777",
            "uploaded": b"1",
            "downloaded": b"2",
            "left": b"3",
            "compact": b"1",
            "event": b"started",
            "numwant": b"50",
            "no_peer_id": b"1",
            "key": b"deadbeef",
        }
        assert sorted(session.addresses) == [("192.0.2.1", 6881), ("192.0.2.9", 1111)]
        parted(session, torrent)
    assert sorted(events(tracker, "bittorrent")) == ["started", "stopped"]
    assert sorted(events(tracker, "microtorr")) == ["started", "stopped"]
    assert tracker.seen[-1].params.get("numwant", b"0") == b"0"


@pytest.mark.parametrize(
    ("announce_as", "id_hash", "dialects"),
    [
        ("both", ID_HASH, ["bittorrent", "microtorr"]),
        ("microtorr", ID_HASH, ["microtorr"]),
        ("bittorrent", ID_HASH, ["bittorrent"]),
        ("both", None, ["bittorrent"]),
        ("microtorr", None, ["bittorrent"]),
    ],
)
def test_which_dialects_a_torrent_speaks(
    session: Session, announce_as: AnnounceAs, id_hash: bytes | None, dialects: list[str]
) -> None:
    tracker = FakeTracker()
    torrent = session.torrent([tracker.url], announce_as=announce_as, id_hash=id_hash)
    with closing(tracker), running(torrent):
        session.until(lambda: len(session.notes) == len(dialects))
        parted(session, torrent)
    assert sorted({seen.dialect for seen in tracker.seen}) == dialects


def test_a_reload_may_change_the_dialects(session: Session) -> None:
    tracker = FakeTracker()
    torrent = session.torrent([tracker.url])

    def speak(announce_as: AnnounceAs) -> None:
        torrent.speak(info_hash=INFO_HASH, id_hash=ID_HASH, announce_as=announce_as)

    with closing(tracker), running(torrent):
        session.until(lambda: len(session.notes) == 2)
        speak("both")
        speak("bittorrent")
        tracker.wait_for(3)
        assert [row.dialect for row in torrent.status()] == ["bittorrent"]
        speak("both")
        tracker.wait_for(4)
        assert [row.dialect for row in torrent.status()] == ["bittorrent", "microtorr"]
        torrent.stop()
        tracker.wait_for(6)
        speak("microtorr")  # while it is stopped: nobody is told
        torrent.start()
        tracker.wait_for(7)
    assert events(tracker, "microtorr") == ["started", "stopped", "started", "stopped", "started"]
    assert events(tracker, "bittorrent") == ["started", "stopped"]


def test_keep_alives_go_on_and_are_no_news(session: Session) -> None:
    tracker = FakeTracker()
    torrent = session.torrent([tracker.url], announce_as="microtorr", pacing=FAST)
    with closing(tracker), running(torrent):
        tracker.wait_for(6)
    assert events(tracker, "microtorr")[:6] == ["started"] + ["alive"] * 5
    assert session.kinds() == [("tracker_announced", "microtorr", "started")]


def test_a_tracker_that_forgot_us_hears_started_at_once(session: Session) -> None:
    def forgetful(seen: Seen) -> bytes:
        if seen.event == "alive" and len(tracker.seen) == 3:
            return http(b"Peer is not in this swarm\n", "400 Bad Request")
        return both_dialects(seen)

    tracker = FakeTracker(forgetful)
    torrent = session.torrent([tracker.url], announce_as="microtorr", pacing=FAST)
    with closing(tracker), running(torrent):
        tracker.wait_for(6)
    assert events(tracker, "microtorr")[:6] == ["started", "alive", "alive", "started", "alive", "alive"]
    assert [kind for kind, _, _ in session.kinds()] == ["tracker_announced"] * 2


def test_a_foreign_tracker_that_knows_one_dialect_is_no_trouble(session: Session) -> None:
    def bittorrent_first(seen: Seen) -> bytes:
        # opentracker, for one, answers any announce in the BitTorrent dialect.
        if seen.dialect == "microtorr":
            session.until(lambda: bool(session.notes))
        return http(ONE_PEER)

    tracker = FakeTracker(bittorrent_first)
    torrent = session.torrent([tracker.url])
    with closing(tracker), running(torrent):
        tracker.wait_for(2)
        session.scheduler.quiet.wait(PATIENCE_S)
        assert status(torrent).state == "working"
        refused = status(torrent, "microtorr")
        assert (refused.state, refused.message) == ("unsupported", "it answers in the BitTorrent dialect")
        assert refused.next_announce_at is not None
        assert refused.next_announce_at - time.time() > 3000
        parted(session, torrent)
    assert [kind for kind, _, _ in session.kinds()] == ["tracker_announced"]
    assert events(tracker, "microtorr") == ["started"]
    assert events(tracker, "bittorrent") == ["started", "stopped"]


def test_the_original_s_tracker_is_enough(session: Session) -> None:
    def as_in_go(seen: Seen) -> bytes:
        if seen.dialect == "bittorrent":
            session.until(lambda: bool(session.notes))
            return GO_REFUSAL
        return both_dialects(seen)

    tracker = FakeTracker(as_in_go)
    torrent = session.torrent([tracker.url])
    with closing(tracker), running(torrent):
        tracker.wait_for(2)
        session.scheduler.quiet.wait(PATIENCE_S)
        assert status(torrent).state == "unsupported"
        assert status(torrent).message == "Missing required parameters"
        assert status(torrent, "microtorr").state == "working"
        parted(session, torrent)
    assert session.kinds() == [("tracker_announced", "microtorr", "started")]
    assert session.addresses == [("192.0.2.9", 1111)]
    assert events(tracker, "microtorr") == ["started", "stopped"]


def test_where_both_dialects_are_refused_it_is_trouble(session: Session) -> None:
    tracker = FakeTracker(lambda _: http(b"<html>It works!</html>"))
    torrent = session.torrent([tracker.url])
    with closing(tracker), running(torrent):
        session.until(lambda: len(session.notes) == 2)
        assert sorted(session.kinds()) == [
            ("tracker_failed", "bittorrent", ""),
            ("tracker_failed", "microtorr", ""),
        ]
        assert {row.state for row in torrent.status()} <= {"failing", "announcing"}
        assert {row.message for row in torrent.status()} == {"the reply is a web page"}


# ---------------------------------------------------------------------------------------------------- events


def test_completed_is_for_bittorrent_while_a_microtorr_seeder_stays_and_keeps_alive(session: Session) -> None:
    tracker = FakeTracker()
    torrent = session.torrent([tracker.url], pacing=FAST)
    with closing(tracker), running(torrent):
        session.until(lambda: len(session.notes) == 2)
        session.stats = AnnounceStats(uploaded=1, downloaded=3, left=0)
        torrent.completed(and_leaves=False)
        session.until(lambda: ("tracker_announced", "bittorrent", "completed") in session.kinds())
        tracker.wait_for(len(tracker.seen) + 4)
        parted(session, torrent)
    assert "completed" not in events(tracker, "microtorr")
    assert events(tracker, "bittorrent").count("completed") == 1
    completed = next(seen for seen in tracker.seen if seen.event == "completed")
    assert completed.params["left"] == b"0"
    assert events(tracker, "microtorr")[-2:] == ["alive", "stopped"]


def test_who_completes_and_leaves_says_so_in_each_dialect(session: Session) -> None:
    tracker = FakeTracker()
    torrent = session.torrent([tracker.url])
    with closing(tracker), running(torrent):
        session.until(lambda: len(session.notes) == 2)
        torrent.completed(and_leaves=True)
        parted(session, torrent)
    assert events(tracker, "microtorr") == ["started", "completed"]
    assert events(tracker, "bittorrent") == ["started", "completed", "stopped"]


def test_stopped_goes_only_where_started_was_acknowledged(session: Session) -> None:
    silent = FakeTracker(lambda _: http(b"", "503 Busy"))
    good = FakeTracker()
    torrent = session.torrent([silent.url], [good.url], announce_as="bittorrent")
    with closing(silent, good), running(torrent):
        session.until(lambda: ("tracker_announced", "bittorrent", "started") in session.kinds())
        parted(session, torrent)
    assert events(silent, "bittorrent") == ["started"]
    assert events(good, "bittorrent") == ["started", "stopped"]


def test_a_stop_while_started_is_under_way_takes_it_back(session: Session) -> None:
    arrived, go_on = Event(), Event()

    def slow(seen: Seen) -> bytes:
        if seen.event == "started":
            arrived.set()
            go_on.wait(PATIENCE_S)
        return http(EMPTY)

    tracker = FakeTracker(slow)
    torrent = session.torrent([tracker.url], announce_as="bittorrent")
    with closing(tracker), running(torrent):
        arrived.wait(PATIENCE_S)
        torrent.stop()
        go_on.set()
        tracker.wait_for(2)
    assert events(tracker, "bittorrent") == ["started", "stopped"]
    assert not session.addresses


def test_a_pause_and_a_resume_in_one_breath_leave_us_in_the_swarm(session: Session) -> None:
    tracker = FakeTracker()
    torrent = session.torrent([tracker.url], announce_as="bittorrent")
    with closing(tracker), running(torrent):
        session.until(lambda: len(session.notes) == 1)
        for _ in range(3):
            torrent.stop()
            torrent.start()
        session.until(lambda: len(session.notes) == 2)
        assert events(tracker, "bittorrent")[-1] == "started"
        assert status(torrent).state == "working"
        parted(session, torrent)
    heard = events(tracker, "bittorrent")
    assert heard[-1] == "stopped"


def test_a_resume_waits_for_a_farewell_that_is_under_way(session: Session) -> None:
    arrived, go_on = Event(), Event()

    def slow(seen: Seen) -> bytes:
        if seen.event == "stopped" and not go_on.is_set():
            arrived.set()
            go_on.wait(PATIENCE_S)
        return http(EMPTY)

    tracker = FakeTracker(slow)
    torrent = session.torrent([tracker.url], announce_as="bittorrent")
    with closing(tracker), running(torrent):
        session.until(lambda: len(session.notes) == 1)
        torrent.stop()
        arrived.wait(PATIENCE_S)
        torrent.start()
        assert events(tracker, "bittorrent") == ["started", "stopped"]
        go_on.set()
        tracker.wait_for(3)
        assert events(tracker, "bittorrent") == ["started", "stopped", "started"]
        session.until(lambda: len(session.notes) == 2)
        parted(session, torrent)


def test_reannouncing_keeps_its_distance(session: Session) -> None:
    tracker = FakeTracker(lambda _: http(b"d8:intervali600e12:min intervali300e5:peers0:e"))
    torrent = session.torrent([tracker.url], announce_as="bittorrent")
    with closing(tracker), running(torrent):
        session.until(lambda: len(session.notes) == 1)
        for _ in range(10):
            torrent.reannounce(insist=True)
        row = status(torrent)
        assert row.next_announce_at is not None
        assert row.last_announce_at is not None
        assert 299 < row.next_announce_at - row.last_announce_at < 301
    assert len(tracker.seen) == 1


def test_who_takes_over_is_not_taken_for_gone(session: Session) -> None:
    arrived, go_on = Event(), Event()

    def slow_at_first(seen: Seen) -> bytes:
        if not arrived.is_set():
            arrived.set()
            go_on.wait(PATIENCE_S)
        return http(EMPTY)

    quick, slow = FakeTracker(), FakeTracker(slow_at_first)
    first = session.torrent([quick.url], announce_as="bittorrent")
    second = session.torrent([slow.url], announce_as="bittorrent")
    heirs = [session.torrent([tracker.url], announce_as="bittorrent") for tracker in (quick, slow)]
    with closing(quick, slow), running(first, second):
        session.until(lambda: len(session.notes) == 1)
        arrived.wait(PATIENCE_S)
        # One has been heard, the other one is being heard just now.
        first.hand_over()
        second.hand_over()
        go_on.set()
        with running(*heirs):
            quick.wait_for(2)
            slow.wait_for(2)
            assert events(quick, "bittorrent") == events(slow, "bittorrent") == ["started", "started"]
            parted(session, *heirs)
        assert events(quick, "bittorrent")[2:] == events(slow, "bittorrent")[2:] == ["stopped"]


def test_reannouncing_before_the_start_or_after_the_stop_does_nothing(session: Session) -> None:
    tracker = FakeTracker()
    torrent = session.torrent([tracker.url])
    with closing(tracker):
        torrent.reannounce()
        torrent.completed(and_leaves=True)
        torrent.stop()
        assert session.scheduler.drain(1.0) == 0
    assert tracker.seen == []
    assert {row.state for row in torrent.status()} == {"idle"}


# ------------------------------------------------------------------------------------------ tiers and trouble


def test_a_tracker_that_is_down_is_passed_over_at_once_and_told_of_once(session: Session) -> None:
    good = FakeTracker()
    down = f"http://127.0.0.1:{closed_port()}/announce"
    torrent = session.torrent([down], [good.url], announce_as="bittorrent", pacing=FAST)
    with closing(good), running(torrent):
        session.until(lambda: bool(session.addresses))
        for _ in range(3):
            session.scheduler.quiet.wait(PATIENCE_S)
            torrent.reannounce(insist=True)
            good.wait_for(len(good.seen) + 1)
        session.scheduler.quiet.wait(PATIENCE_S)
        first, second = torrent.status()
        assert (first.state, second.state) == ("failing", "working")
        assert first.message == "Connection refused"
    failed = [facts for kind, facts in session.notes if kind == "tracker_failed"]
    told = {"url": down, "tier": 0, "dialect": "bittorrent", "message": "Connection refused", "asked": True}
    assert failed == [told]


def test_recovery_is_told(session: Session) -> None:
    replies = [http(b"", "500 Internal Server Error")] * 3
    tracker = FakeTracker(lambda seen: replies.pop() if replies else both_dialects(seen))
    torrent = session.torrent([tracker.url], announce_as="microtorr", pacing=FAST)
    with closing(tracker), running(torrent):
        session.until(lambda: len(session.notes) == 2)
        row = status(torrent, "microtorr")
    assert [kind for kind, _, _ in session.kinds()] == ["tracker_failed", "tracker_announced"]
    assert events(tracker, "microtorr")[:4] == ["started"] * 4
    assert (row.state, row.message, row.peers_received) == ("working", "", 1)


def test_a_failure_reason_and_its_time_to_come_back(session: Session) -> None:
    tracker = FakeTracker(lambda _: http(b"d14:failure reason9:not today8:retry ini10ee"))
    torrent = session.torrent([tracker.url], announce_as="bittorrent")
    with closing(tracker), running(torrent):
        session.until(lambda: len(session.notes) == 1)
        torrent.reannounce(insist=True)
        row = status(torrent)
        assert (row.state, row.message) == ("failing", "not today")
        assert row.next_announce_at is not None
        assert 595 < row.next_announce_at - time.time() < 605


def test_udp_trackers_are_for_bittorrent(session: Session) -> None:
    tracker = FakeUdpTracker()
    torrent = session.torrent([tracker.url])
    with closing(tracker), running(torrent):
        session.until(lambda: bool(session.addresses))
        assert status(torrent).state == "working"
        assert (status(torrent).seeders, status(torrent).leechers) == (3, 4)
        assert status(torrent, "microtorr").state == "unsupported"
        parted(session, torrent)
    announces = [seen for seen in tracker.seen if isinstance(seen, udp.AnnounceRequest)]
    assert [(seen.event, seen.numwant) for seen in announces] == [("started", 50), ("stopped", 0)]


def test_a_torrent_without_trackers_is_quiet(session: Session) -> None:
    torrent = session.torrent()
    with running(torrent):
        torrent.reannounce()
        assert torrent.status() == []
    assert session.scheduler.booked == 0


def test_what_people_see_of_a_tracker(session: Session) -> None:
    tracker = FakeTracker(
        lambda _: http(b"d8:completei2e10:incompletei3e8:intervali600e5:peers0:15:warning message3:hume")
    )
    torrent = session.torrent([tracker.url], announce_as="bittorrent")
    assert status(torrent) == TrackerStatus(
        url=tracker.url,
        tier=0,
        dialect="bittorrent",
        state="idle",
        last_announce_at=None,
        next_announce_at=None,
        interval_s=None,
        min_interval_s=None,
        peers_received=None,
        seeders=None,
        leechers=None,
        downloaded=None,
        message="",
    )
    with closing(tracker), running(torrent):
        session.until(lambda: len(session.notes) == 1)
        row = status(torrent)
        assert row.last_announce_at is not None
        assert row.next_announce_at is not None
        assert abs(row.last_announce_at - time.time()) < 5
        assert 600 <= row.next_announce_at - row.last_announce_at <= 631
        assert (row.state, row.interval_s, row.peers_received, row.seeders, row.leechers, row.message) == (
            "working",
            600,
            0,
            2,
            3,
            "hum",
        )
    assert session.notes[0] == (
        "tracker_announced",
        {
            "url": tracker.url,
            "tier": 0,
            "dialect": "bittorrent",
            "event": "started",
            "peers": 0,
            "seeders": 2,
            "leechers": 3,
            "interval_s": 600,
            "external_ip": "",
            "message": "hum",
        },
    )


def test_a_tracker_that_answers_is_scraped(session: Session) -> None:
    tracker = FakeTracker(lambda _: http(EMPTY))
    tracker.figures = lambda _: http(encode_scrape_reply({INFO_HASH: SwarmCounts(5, 7, 6)}))
    torrent = session.torrent([tracker.url], announce_as="bittorrent")
    with closing(tracker), running(torrent):
        session.until(lambda: len(session.notes) == 2)
        row = status(torrent)
        assert (row.state, row.seeders, row.leechers, row.downloaded) == ("working", 5, 6, 7)
    assert session.notes[1] == (
        "tracker_scraped",
        {
            "url": tracker.url,
            "tier": 0,
            "dialect": "bittorrent",
            "seeders": 5,
            "leechers": 6,
            "downloaded": 7,
        },
    )
    assert len(tracker.scrapes) == 1


def test_a_tracker_that_hates_scrapes_is_well(session: Session) -> None:
    tracker = FakeTracker(lambda _: http(EMPTY))
    torrent = session.torrent([tracker.url], announce_as="bittorrent")
    with closing(tracker), running(torrent):
        session.until(lambda: len(session.notes) == 1)
        parted(session, torrent)
        assert status(torrent).downloaded is None
    assert [seen.event for seen in tracker.seen] == ["started", "stopped"]


# ------------------------------------------------------------------------------------------- many torrents


def many(session: Session, count: int, *tiers: list[str]) -> list[Announcer]:
    return [
        session.torrent(*tiers, announce_as="bittorrent", info_hash=n.to_bytes(20, "big"))
        for n in range(count)
    ]


def test_idle_torrents_cost_an_entry_and_no_greenlet(session: Session, crew: Crew) -> None:
    tracker = FakeTracker(lambda _: http(EMPTY))
    torrents = many(session, 40, [tracker.url])
    with closing(tracker), running(*torrents):
        session.until(lambda: len(session.notes) == 40)
        assert session.scheduler.quiet.wait(PATIENCE_S)
        gevent.sleep(0)
        assert session.scheduler.booked == 41  # and one for tidying up
        assert crew.alive() == ["test/announce schedule"]
        assert len(Counter(seen.params["info_hash"] for seen in tracker.seen)) == 40


def test_one_host_is_asked_by_so_many_at_a_time(crew: Crew) -> None:
    session = Session(crew, ScheduleLimits(per_host=3, burst=1000, per_host_per_s=1000))
    under_way, most = 0, 0

    def busy(seen: Seen) -> bytes:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        gevent.sleep(0.005)
        under_way -= 1
        return http(EMPTY)

    tracker = FakeTracker(busy)
    torrents = many(session, 30, [tracker.url])
    with closing(tracker), running(*torrents):
        session.until(lambda: len(session.notes) == 30)
        assert most == 3
        session.client.close_idle()


class Due(Entry):
    """An entry that notes when it is called, and then does something."""

    def __init__(self, called: list[str], name: str, act: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.called = called
        self.name = name
        self.act = act

    def call(self, now: float) -> None:
        self.called.append(self.name)
        self.act()


def test_what_is_due_within_a_tenth_of_a_second_is_called_together(session: Session) -> None:
    scheduler, called, over = session.scheduler, list[str](), Event()
    tenth = math.ceil(scheduler.clock() * 10) / 10 + 0.1
    scheduler.book(Due(called, "second"), tenth + 0.05)
    others = partial(gevent.spawn, called.append, "others")  # as soon as they get their turn
    scheduler.book(Due(called, "first", others), tenth + 0.02)
    scheduler.book(Due(called, "third"), tenth + 0.08)
    scheduler.book(Due(called, "later", over.set), tenth + 0.12)
    scheduler.book(Due(called, "at once"), scheduler.clock())
    assert over.wait(PATIENCE_S)
    gevent.idle()
    assert called[0] == "at once"
    # On a machine that is late by a whole tenth, the last one comes with the others.
    assert [name for name in called if name != "later"] == ["at once", "first", "second", "third", "others"]


def test_a_host_hears_so_many_a_second_and_the_others_do_not_wait_for_it(crew: Crew) -> None:
    session = Session(crew, ScheduleLimits(per_host_per_s=50.0, burst=5))
    crowded = FakeTracker(lambda _: http(EMPTY))
    calm = FakeTracker(lambda _: http(EMPTY), host="127.0.0.2")
    torrents = many(session, 25, [crowded.url])
    single = session.torrent([calm.url], announce_as="bittorrent", info_hash=b"s" * 20)
    started = time.monotonic()
    with closing(crowded, calm), running(*torrents, single):
        calm.wait_for(1)
        assert len(crowded.seen) < 25
        session.until(lambda: len(session.notes) == 26)
        assert time.monotonic() - started >= 20 / 50.0 * 0.9
        session.client.close_idle()


def test_a_dead_tracker_of_many_torrents_does_not_hold_up_a_living_one(crew: Crew) -> None:
    session = Session(crew, AT_ONCE, patience_s=0.3)
    dead = FakeTracker(lambda _: None)
    alive = FakeTracker(lambda _: http(EMPTY))
    torrents = many(session, 100, [dead.url], [alive.url])
    started = time.monotonic()
    with closing(dead, alive), running(*torrents):
        session.until(lambda: sum(kind == "tracker_announced" for kind, _ in session.notes) == 100)
        # 100 waits of 0.3 s, 2 at a time, would take 15 s.
        assert time.monotonic() - started < 7
        session.client.close_idle()
    assert len(dead.seen) < 30


def test_a_stop_sends_all_farewells_at_once(crew: Crew) -> None:
    session = Session(crew, AT_ONCE)
    tracker = FakeTracker(lambda _: http(EMPTY))
    torrents = many(session, 200, [tracker.url])
    with closing(tracker), running(*torrents):
        session.until(lambda: len(session.notes) == 200)
        parted(session, *torrents)
        assert Counter(events(tracker, "bittorrent")) == {"started": 200, "stopped": 200}
        session.client.close_idle()


def test_farewells_that_nothing_else_replaces_go_first(crew: Crew) -> None:
    session = Session(crew, ScheduleLimits(per_host=1, farewells_per_host=1))
    tracker = FakeTracker()
    torrents = [session.torrent([tracker.url], id_hash=bytes([n]) * 20) for n in range(5)]
    with closing(tracker), running(*torrents):
        session.until(lambda: len(session.notes) == 10)
        session.scheduler.quiet.wait(PATIENCE_S)
        before = len(tracker.seen)
        parted(session, *torrents)
        session.client.close_idle()
    dialects = [seen.dialect for seen in tracker.seen[before:]]
    assert dialects == sorted(dialects)
    assert Counter(dialects) == {"bittorrent": 5, "microtorr": 5}


def test_a_stop_does_not_wait_for_a_dead_tracker(crew: Crew) -> None:
    session = Session(crew, AT_ONCE)
    tracker = FakeTracker(lambda _: http(EMPTY))
    torrents = many(session, 600, [tracker.url])
    with closing(tracker), running(*torrents):
        session.until(lambda: len(session.notes) == 600)
        tracker.answer = lambda _: None
        started = time.monotonic()
        for torrent in torrents:
            torrent.stop()
        assert session.scheduler.drain(PATIENCE_S) == 0
        # 600 waits of 0.2 s, 16 at a time, would take 7.5 s.
        assert time.monotonic() - started < 3.5
        assert len(events(tracker, "bittorrent")) < 700
        session.client.close_idle()


def test_a_stop_is_over_when_its_time_is(session: Session, crew: Crew) -> None:
    trackers = [FakeTracker(lambda _: http(EMPTY)) for _ in range(6)]
    torrents = [torrent for tracker in trackers for torrent in many(session, 3, [tracker.url])]
    with closing(*trackers), running(*torrents):
        session.until(lambda: len(session.notes) == 18)
        for tracker in trackers:
            tracker.answer = lambda _: None
        started = time.monotonic()
        for torrent in torrents:
            torrent.stop()
        assert session.scheduler.drain(0.1) > 0
        assert time.monotonic() - started < 2.0
        assert crew.stop(1.0) == []


def test_after_the_drain_nothing_begins(session: Session, crew: Crew) -> None:
    tracker = FakeTracker()
    torrent = session.torrent([tracker.url])
    with closing(tracker):
        assert session.scheduler.drain(1.0) == 0
        torrent.start()
        torrent.reannounce()
        torrent.stop()
        assert session.scheduler.waiting == session.scheduler.under_way == 0
    assert tracker.seen == []


def test_thousands_of_torrents_do_not_hold_up_the_hub(crew: Crew, hub_watch: Any) -> None:
    session = Session(crew)
    url = f"http://127.0.0.1:{closed_port()}/announce"
    torrents = []
    for batch in range(20):
        torrents += many(session, 100, [url])
        for torrent in torrents[batch * 100 :]:
            torrent.start()
        gevent.sleep(0)
    session.until(lambda: len(session.notes) > 200)
    for torrent in torrents:
        torrent.stop()
    assert session.scheduler.drain(2.0) == 0
