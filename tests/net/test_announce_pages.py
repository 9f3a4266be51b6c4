"""Keep-alives that are sent together: with trackers that take them, and with those that do not (any more)."""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Iterator

import msgspec.structs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.core.tiers import Pacing, Tracker
from microtorrd.errors import TrackerError, TrackerUnreachable
from microtorrd.greenlets import Crew
from microtorrd.net import announce_pages
from microtorrd.net.announce_hosts import Entry, Errand
from microtorrd.net.announce_pages import Page, Pages
from microtorrd.net.announcer import Announcer
from microtorrd.net.tracker_client import Heard, Identity, Question
from microtorrd.proto.announce_reply import AnnounceReply
from microtorrd.proto.joint import encode_joint_reply, read_swarm_ids
from tests.net.test_announcer import (
    AT_ONCE,
    FAST,
    ID_HASH,
    IDENTITY,
    Session,
    parted,
    running,
    status,
)
from tests.net.trackers import FakeTracker, RawTracker, Seen, closed_port, closing, http


def swarm(number: int) -> bytes:
    return number.to_bytes(2, "big") * 10


def ids(seen: Seen) -> tuple[bytes, ...]:
    """The swarms of a request."""
    if "swarmIds" in seen.params:
        return read_swarm_ids(seen.params["swarmIds"])
    return (bytes.fromhex(seen.params["swarmId"].decode()),)


class Sharing:
    """How a tracker answers that offers joint keep-alives; `forgets` are unknown to it until they start."""

    def __init__(self, most: object = 256) -> None:
        self.most = most
        self.forgets: set[bytes] = set()
        self.refuses: bytes | None = None  # answers so to joint ones
        self.is_gone = False  # closes every connection without an answer
        self.asked_again = 0  # so many single `alive` asked whether the offer stands
        self.tracker = FakeTracker(self)
        self.url = self.tracker.url

    def __call__(self, seen: Seen) -> bytes:
        if self.is_gone:
            raise ConnectionResetError
        offer = {} if self.most is None else {"Joint": self.most}
        if seen.event == "started":
            self.forgets.discard(ids(seen)[0])
            assert seen.params["joint"] == b"1"
            return http(json.dumps({"IdHash": "", "Peers": {}, **offer}).encode())
        if "swarmIds" in seen.params:
            unknown = [swarm_id for swarm_id in ids(seen) if swarm_id in self.forgets]
            return self.refuses or http(encode_joint_reply(unknown))
        if seen.event == "alive" and ids(seen)[0] in self.forgets:
            return http(b"Peer is not in this swarm\n", "400 Bad Request")
        if "joint" in seen.params:
            self.asked_again += 1
            return http(json.dumps({"IdHash": "", "Peers": {}, **offer}).encode())
        return http(b"")

    def until(self, wanted: frozenset[bytes], *, since: int = 0) -> list[Seen]:
        """Wait until these and no others were kept alive by one request; all requests up to there."""
        count = since
        while True:
            count += 1
            last = self.tracker.wait_for(count)[-1]
            if "swarmIds" in last.params and frozenset(ids(last)) == wanted:
                return self.tracker.seen[:count]

    def close(self) -> None:
        self.tracker.close()


@pytest.fixture
def session(crew: Crew) -> Iterator[Session]:
    session = Session(crew, AT_ONCE)
    yield session
    crew.stop(1.0)
    session.client.close_idle()


def torrents(session: Session, url: str, count: int, pacing: Pacing = FAST) -> list[Announcer]:
    return [
        session.torrent([url], announce_as="microtorr", id_hash=swarm(number), pacing=pacing)
        for number in range(1, count + 1)
    ]


def everyone(count: int) -> frozenset[bytes]:
    return frozenset(swarm(number) for number in range(1, count + 1))


# ------------------------------------------------------------------------------------ with real connections


def test_after_their_first_announces_all_are_kept_alive_together(session: Session) -> None:
    sharing = Sharing()
    several = torrents(session, sharing.url, 12)
    with closing(sharing), running(*several):
        before = len(sharing.until(everyone(12)))
        for _ in range(3):
            assert "swarmIds" in sharing.tracker.wait_for(before + 1)[-1].params
            before += 1
        together = sharing.tracker.seen[-1].params
        assert together["peerId"] == IDENTITY.peer_id
        assert together["port"] == b"7777"
        assert together["event"] == b"alive"
        assert together["ip"] == b"127.0.0.1"
        assert {status(torrent, "microtorr").state for torrent in several} == {"working"}
        assert all(status(torrent, "microtorr").next_announce_at for torrent in several)
        parted(session, *several)
        assert len(session.scheduler.pages) == 0
    stopped = [ids(seen)[0] for seen in sharing.tracker.seen if seen.event == "stopped"]
    assert frozenset(stopped) == everyone(12)
    # It is no news, four times a minute.
    assert {facts["event"] for _, facts in session.notes} == {"started"}


def test_no_request_has_more_than_the_tracker_offers(session: Session) -> None:
    sharing = Sharing(3)
    several = torrents(session, sharing.url, 8)
    with closing(sharing), running(*several):
        kept: set[bytes] = set()
        count = 8
        while kept != everyone(8):
            count += 1
            last = sharing.tracker.wait_for(count)[-1]
            if "swarmIds" in last.params:
                assert len(ids(last)) <= 3
                kept |= set(ids(last))
        assert 3 <= len(session.scheduler.pages) <= 8


@pytest.mark.parametrize("offer", [0, 1, -5, "256", None, True, [256], 2.5])
def test_what_is_no_offer_changes_nothing(session: Session, offer: object) -> None:
    sharing = Sharing(offer)
    several = torrents(session, sharing.url, 2)
    with closing(sharing), running(*several):
        seen = sharing.tracker.wait_for(10)
    assert not any("swarmIds" in one.params for one in seen)


def test_whom_the_tracker_does_not_know_announces_itself_and_comes_back(session: Session) -> None:
    sharing = Sharing()
    several = torrents(session, sharing.url, 5)
    with closing(sharing), running(*several):
        before = len(sharing.until(everyone(5)))
        sharing.forgets = {swarm(2), swarm(4)}
        seen = sharing.until(everyone(5), since=before + 1)[before:]
    started = [ids(one)[0] for one in seen if one.event == "started"]
    assert sorted(started) == [swarm(2), swarm(4)]
    assert not any(one.event == "alive" and "swarmId" in one.params for one in seen)


def test_a_tracker_that_forgot_everybody_hears_everybody_once(session: Session) -> None:
    sharing = Sharing()
    several = torrents(session, sharing.url, 60)
    with closing(sharing), running(*several):
        before = len(sharing.until(everyone(60)))
        sharing.forgets = set(everyone(60))
        seen = sharing.until(everyone(60), since=before + 1)[before:]
    assert sorted(ids(one)[0] for one in seen if one.event == "started") == sorted(everyone(60))


@pytest.mark.parametrize(
    "refusal",
    [
        http(b'{"failure reason": "swarmId is missing"}', "400 Bad Request"),
        http(b"Missing required parameters\n", "400 Bad Request"),
        http(b"too long", "414 URI Too Long"),
        http(b"", "503 Busy"),
        http(b"d14:failure reason3:noee"),
        http(b"<html>", "200 OK"),
        http(b'{"Unknown": ["AAAA"]}'),
        http(b'{"IdHash": "", "Peers": {}}'),
        http(b"Peer exited the swarm"),
        http(b"{}"),
        b"garbage\r\n\r\n",
    ],
)
def test_a_tracker_that_changed_its_mind_hears_each_for_himself_at_once(
    session: Session, refusal: bytes
) -> None:
    sharing = Sharing()
    several = torrents(session, sharing.url, 4)
    with closing(sharing), running(*several):
        sharing.refuses = refusal
        count = 1
        while "swarmIds" not in sharing.tracker.wait_for(count)[-1].params:
            count += 1
        seen = sharing.tracker.wait_for(count + 20)[count:]
        assert {status(torrent, "microtorr").state for torrent in several} <= {"working", "announcing"}
    # Pages that were made before may still be tried once; nobody is lost, nobody has to start again.
    assert frozenset(ids(one)[0] for one in seen[-8:]) == everyone(4)
    assert {one.event for one in seen} == {"alive"}
    assert not any("swarmIds" in one.params for one in seen[-8:])


@pytest.mark.parametrize("most", [None, 0, 1, 3])
def test_what_a_tracker_offers_now_is_what_counts(session: Session, most: int | None) -> None:
    """It was replaced by another one that takes none, or fewer, and says so when somebody comes new."""
    sharing = Sharing()
    several = torrents(session, sharing.url, 8)
    with closing(sharing), running(*several):
        sharing.until(everyone(8))
        sharing.most = most
        several[0].reannounce()
        count = len(sharing.tracker.seen)
        while sharing.tracker.wait_for(count)[-1].event != "started":
            count += 1
        seen = sharing.tracker.wait_for(count + 40)[count:]
        assert {status(torrent, "microtorr").state for torrent in several} <= {"working", "announcing"}
    sizes = [len(ids(one)) for one in seen[16:] if "swarmIds" in one.params]
    assert all(size <= (most or 0) for size in sizes)
    assert bool(sizes) == (most == 3)
    assert {swarm_id for one in seen[-24:] for swarm_id in ids(one)} == everyone(8)
    assert {one.event for one in seen} == {"alive"}


@pytest.mark.parametrize("still", [True, False])
def test_after_trouble_the_tracker_is_asked_before_pages_are_made(
    session: Session, still: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce_pages, "_REST_FIRST_S", 0.3)
    sharing = Sharing()
    several = torrents(session, sharing.url, 4)
    with closing(sharing), running(*several):
        sharing.until(everyone(4))
        sharing.refuses = http(b"what is that?", "400 Bad Request")
        before = len(sharing.tracker.seen) + 1
        while "swarmIds" not in sharing.tracker.wait_for(before)[-1].params:
            before += 1
        sharing.tracker.wait_for(before + 1)  # it was refused, and somebody goes on alone
        sharing.refuses = None
        sharing.most = 256 if still else None
        count = before
        while not sharing.asked_again:
            count += 1
            sharing.tracker.wait_for(count)
        if still:
            seen = sharing.until(everyone(4), since=count)[before:]
        else:
            seen = sharing.tracker.wait_for(count + 30)[before:]
            assert sharing.asked_again <= 4
            assert not any("joint" in one.params for one in seen[-20:])
    asked = next(number for number, one in enumerate(seen) if "joint" in one.params)
    assert not any("swarmIds" in one.params for one in seen[2:asked])
    assert any("swarmIds" in one.params for one in seen[asked:]) == still
    assert {one.event for one in seen} == {"alive"}


def test_a_page_that_never_was_answered_is_torn_up(crew: Crew) -> None:
    session = Session(crew, AT_ONCE, patience_s=0.3)
    sharing = Sharing()
    answer = sharing.tracker.answer
    silent = False

    def sometimes(seen: Seen) -> bytes | None:
        return None if silent and "swarmIds" in seen.params else answer(seen)

    sharing.tracker.answer = sometimes
    several = torrents(session, sharing.url, 3)
    with closing(sharing), running(*several):
        before = len(sharing.until(everyone(3)))
        silent = True
        seen = sharing.tracker.wait_for(before + 8)[before:]
        assert {ids(one)[0] for one in seen if "swarmId" in one.params} == everyone(3)
    crew.stop(1.0)
    session.client.close_idle()


def test_when_the_tracker_is_gone_each_torrent_knows_and_when_it_is_back_all_is_as_before(
    crew: Crew,
) -> None:
    session = Session(crew, msgspec.structs.replace(AT_ONCE, dead_after=1000))  # which would rest for seconds
    sharing = Sharing()
    several = torrents(session, sharing.url, 3)
    with closing(sharing), running(*several):
        sharing.until(everyone(3))
        session.notes.clear()
        sharing.is_gone = True
        session.until(lambda: sum(kind == "tracker_failed" for kind, _ in session.notes) == 3)
        assert {status(torrent, "microtorr").state for torrent in several} <= {"failing", "announcing"}
        session.notes.clear()
        sharing.is_gone = False
        session.until(lambda: sum(kind == "tracker_announced" for kind, _ in session.notes) >= 3)
        assert {status(torrent, "microtorr").state for torrent in several} <= {"working", "announcing"}
    crew.stop(1.0)
    session.client.close_idle()


def test_who_has_something_to_say_says_it_himself(session: Session) -> None:
    sharing = Sharing()
    first, second, third = torrents(session, sharing.url, 3)
    with closing(sharing), running(first, second, third):
        before = len(sharing.until(everyone(3)))
        second.reannounce()
        seen = sharing.until(everyone(3), since=before + 1)[before:]
        assert [ids(one)[0] for one in seen if one.event == "started"] == [swarm(2)]
        before = len(sharing.tracker.seen)
        third.stop()
        seen = sharing.until(everyone(2), since=before)[before:]
        assert [ids(one)[0] for one in seen if one.event == "stopped"] == [swarm(3)]
        second.completed(and_leaves=True)
        before = len(sharing.tracker.seen)
        seen = sharing.until(everyone(1), since=before - 1)[before - 1 :]
        assert [ids(one)[0] for one in sharing.tracker.seen if one.event == "completed"] == [swarm(2)]
        second.hand_over()


def test_where_a_better_tracker_rests_nobody_settles(session: Session) -> None:
    """Each announce begins at the top of the tiers (BEP 12), so who is further down is no place to stay."""
    sharing = Sharing()
    torrent = session.torrent(
        [f"http://127.0.0.1:{closed_port()}/announce"],
        [sharing.url],
        announce_as="microtorr",
        pacing=FAST,
    )
    with closing(sharing), running(torrent):
        seen = sharing.tracker.wait_for(5)
    assert not any("swarmIds" in one.params for one in seen)


def test_two_torrents_of_one_content_do_not_take_each_other_s_place(session: Session) -> None:
    sharing = Sharing()
    several = [session.torrent([sharing.url], announce_as="microtorr", pacing=FAST) for _ in range(2)]
    with closing(sharing), running(*several):
        sharing.until(frozenset([ID_HASH]))
        several[0].stop()
        before = len(sharing.tracker.seen)
        sharing.until(frozenset([ID_HASH]), since=before)


def test_a_joint_keep_alive_has_the_bounds_of_any_reply(session: Session) -> None:
    """A tracker that floods is cut off, and each torrent goes on by itself."""
    flood = RawTracker(lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (1 << 20)))
    sharing = Sharing()
    several = torrents(session, sharing.url, 2)
    with closing(sharing, flood), running(*several):
        before = len(sharing.until(everyone(2)))
        sharing.refuses = http(b"", "302 Found", f"Location: {flood.url}")
        seen = sharing.tracker.wait_for(before + 6)[before:]
    assert {ids(one)[0] for one in seen if "swarmId" in one.params} == everyone(2)


# ------------------------------------------------------------------------------------------ with a fake clock

ALIVE_S = 15.0
PACE = Pacing()
WHO = Identity(peer_id=b"p" * 20, port=1, key=1)


class Member:
    """Somebody who wants to be kept alive, and notes when he was."""

    def __init__(self, world: World, number: int) -> None:
        self.swarm_id = swarm(number)
        self.page: Page | None = None
        self.heard_at = 0.0
        self.due: float | None = None
        self.alone = False
        self._world = world

    def join(self) -> None:
        self.alone = False
        self.heard_at = self._world.now
        self.due = None
        url = self._world.tracker.url
        if self._world.pages.asks_again(url):
            self._world.pages.offered(url, self._world.most)
        if not self._world.pages.take(self, self._world.tracker, WHO, PACE):
            self.alone = True

    def leave(self) -> None:
        assert self.page is not None
        self.page.remove(self)
        self.alone = True

    def kept_alive(self, now: float, due: float) -> None:
        assert now <= due <= now + ALIVE_S
        assert self.page is not None
        assert self.page.due == due
        self.heard_at, self.due = now, due

    def forgotten(self) -> None:
        self.leave()

    def go_alone(self, now: float) -> None:
        self.leave()


class World:
    """A schedule, a client and a tracker, without waiting."""

    def __init__(self, most: int, seed: int) -> None:
        self.now = 1000.0
        self.most = most
        self.chance = random.Random(seed)
        self.client = self
        self.error: TrackerError | None = None
        self.unknown: tuple[bytes, ...] = ()
        self.requests: list[tuple[bytes, ...]] = []
        self.tracker = Tracker("http://t/announce", 0, "microtorr")
        self._heap: list[tuple[float, int, Entry]] = []
        self._tickets = 0
        self.pages = Pages(self)
        self.pages.offered(self.tracker.url, most)

    def clock(self) -> float:
        return self.now

    def book(self, entry: Entry, due: float | None) -> None:
        entry.ticket = 0
        if due is not None:
            self._tickets += 1
            entry.ticket = self._tickets
            heapq.heappush(self._heap, (due, self._tickets, entry))

    def announce(self, question: Question, *, within_s: float | None = None) -> Heard:
        self.requests.append(question.request.swarm_ids)
        if self.error is not None:
            raise self.error
        return Heard(AnnounceReply(unknown=self.unknown), [])

    def run(self, until: float) -> None:
        """Do all that is due by then."""
        while self._heap and self._heap[0][0] <= until:
            due, ticket, entry = heapq.heappop(self._heap)
            if entry.ticket == ticket:
                entry.ticket = 0
                self.now = max(self.now, due)
                errand: Errand | None = entry.call(self.now)
                if errand is not None:
                    errand.run(None)
        self.now = until


def test_one_trouble_that_meets_many_pages_is_one() -> None:
    """A tracker that is away for a moment is not left without pages for an hour, because there are many."""
    world = World(2, 0)
    members = [Member(world, number) for number in range(24)]
    for member in members:
        member.join()
    assert len(world.pages) == 12
    world.error = TrackerUnreachable("gone")
    world.run(world.now + ALIVE_S)
    assert all(member.alone for member in members)
    world.error = None
    world.run(world.now + 60.0)
    members[0].join()
    assert not members[0].alone
    world.error = TrackerUnreachable("gone")
    world.run(world.now + ALIVE_S)
    world.run(world.now + 60.0)
    members[0].join()
    assert members[0].alone, "the second time it is two minutes"
    world.run(world.now + 60.0)
    members[0].join()
    assert not members[0].alone


steps = st.lists(
    st.tuples(st.sampled_from(["join", "leave", "refuse", "forget", "wait"]), st.integers(0, 11)),
    max_size=40,
)


@given(steps, st.integers(2, 5), st.integers(0, 3))
def test_nobody_is_ever_silent_for_longer_than_the_dialect_allows(
    steps: list[tuple[str, int]], most: int, seed: int
) -> None:
    world = World(most, seed)
    members = [Member(world, number) for number in range(12)]
    for step, number in steps:
        member = members[number]
        if step == "join" and member.page is None:
            member.join()
        elif step == "leave" and member.page is not None:
            member.leave()
        world.error = TrackerUnreachable("gone") if step == "refuse" else None
        world.unknown = (member.swarm_id,) if step == "forget" else ()
        world.run(world.now + 1.0 + number)
        for one in members:
            if one.page is not None:
                assert one.page.members[one.swarm_id] is one
                assert one.due == one.page.due
                assert one.due > world.now - 1e-9
                assert one.due - one.heard_at <= ALIVE_S
        pages = {id(one.page) for one in members if one.page is not None}
        assert len(world.pages) == len(pages)
        assert all(len(request) <= most for request in world.requests)
        assert all(len(set(request)) == len(request) for request in world.requests)


def test_half_empty_pages_become_one() -> None:
    world = World(4, 1)
    members = [Member(world, number) for number in range(12)]
    for member in members:
        member.join()
        world.run(world.now + 3.0)
    assert len(world.pages) == 3
    for member in members:
        if int.from_bytes(member.swarm_id[:2], "big") % 3:
            member.leave()
    world.run(world.now + 20.0)
    assert len(world.pages) == 1
    world.requests.clear()
    world.run(world.now + 60.0)
    assert 4 <= len(world.requests) <= 5


def test_after_a_failure_there_are_no_pages_for_a_minute_and_longer_each_time() -> None:
    world = World(10, 1)
    member = Member(world, 1)
    waits = []
    for _ in range(9):
        world.error = TrackerUnreachable("gone")
        member.join()
        assert member.page is not None
        world.run(world.now + 20.0)
        assert member.alone
        began = world.now
        while member.page is None:
            world.now += 10.0
            member.join()
        member.leave()
        waits.append(round(world.now - began, -1))
    assert waits[:4] == [60.0, 120.0, 240.0, 480.0]
    assert waits[-1] <= 3600.0
    world.error = None
    member.join()
    world.run(world.now + 20.0)
    assert member.page is not None


def test_a_long_url_leaves_room_for_fewer() -> None:
    world = World(2, 1)
    world.tracker = Tracker("http://t/" + "x" * 2000, 0, "microtorr")
    world.pages.offered(world.tracker.url, 256)
    for number in range(300):
        Member(world, number).join()
    world.run(world.now + 16.0)
    assert sum(len(request) for request in world.requests) == 300
    assert max(len(request) for request in world.requests) < 210


def test_offers_are_bounded() -> None:
    world = World(2, 1)
    for number in range(2000):
        world.pages.offered(f"http://t/{number}", 256)
    world.tracker = Tracker("http://t/1999", 0, "microtorr")
    member = Member(world, 1)
    member.join()
    assert member.page is not None
    assert len(world.pages) == 1
