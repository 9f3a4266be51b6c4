"""greenlets.py: names, the one crash path, and stopping."""

from __future__ import annotations

import gc
import io
import json
import time
import weakref
from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event

from microtorrd import logs
from microtorrd.errors import Stopping
from microtorrd.greenlets import Crew, breathe


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.setup("debug", "json", stream)
    yield stream
    logs.setup()


def lines(log: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def explode() -> None:
    raise LookupError("the fuse was lit")


def test_work_runs_with_its_arguments_under_its_name() -> None:
    crew, seen = Crew("torrent"), []
    done = Event()

    def work(first: int, second: str) -> None:
        seen.append((first, second, gevent.getcurrent().name))
        done.set()

    crew.spawn("core", work, 1, "x")
    assert crew.alive() == ["torrent/core"]
    assert done.wait(1)
    assert seen == [(1, "x", "torrent/core")]
    assert crew.stop(1) == []


def test_one_that_ends_is_forgotten() -> None:
    crew = Crew("c")
    ended = crew.spawn("short", lambda: None)
    ended.join(1)
    gevent.sleep(0)
    assert crew.alive() == []
    held = weakref.ref(ended)
    del ended
    gc.collect()
    assert held() is None


def test_a_crash_is_logged_once_with_its_traceback_and_told(log: io.StringIO) -> None:
    told: list[tuple[str, BaseException]] = []
    crew = Crew("net", lambda name, error: told.append((name, error)))
    crew.spawn("reader", explode).join(1)
    assert [(name, str(error)) for name, error in told] == [("net/reader", "the fuse was lit")]
    assert isinstance(told[0][1], LookupError)
    (line,) = lines(log)
    assert line["event"] == "greenlet_crashed"
    assert line["greenlet"] == "net/reader"
    assert "in explode" in str(line["exception"])


def test_to_hear_that_the_daemon_stops_is_no_crash(log: io.StringIO) -> None:
    crashes: list[str] = []
    crew = Crew("torrent", on_crash=lambda name, _: crashes.append(name))

    def work() -> None:
        raise Stopping("the disk pool is closed")

    crew.spawn("load", work).join()
    assert crashes == []
    assert [(line["level"], line["event"]) for line in lines(log)] == [("debug", "greenlet_ended")]


def test_a_stray_timeout_is_a_crash_too(log: io.StringIO) -> None:
    crew = Crew("c")

    def wait() -> None:
        gevent.Timeout(0.001).start()
        Event().wait()

    crew.spawn("waiter", wait).join(1)
    assert [line["event"] for line in lines(log)] == ["greenlet_crashed"]


def test_others_live_on_after_a_crash(log: io.StringIO) -> None:
    crew, ready = Crew("c"), Event()
    crew.spawn("bad", explode)
    crew.spawn("good", ready.wait)
    gevent.sleep(0)
    assert crew.alive() == ["c/good"]
    crew.stop(1)


def test_a_child_crashes_to_its_parent_unless_it_has_an_owner_of_its_own(log: io.StringIO) -> None:
    parents: list[str] = []
    own: list[str] = []
    crew = Crew("session", lambda name, _: parents.append(name))
    crew.child("a").spawn("x", explode).join(1)
    crew.child("b", lambda name, _: own.append(name)).spawn("x", explode).join(1)
    assert parents == ["session.a/x"]
    assert own == ["session.b/x"]


def test_stop_ends_everybody_children_included_and_lets_them_clean_up(log: io.StringIO) -> None:
    crew = Crew("session")
    child = crew.child("torrent")
    cleaned: list[str] = []

    def work(name: str) -> None:
        try:
            Event().wait()
        finally:
            cleaned.append(name)

    crew.spawn("one", work, "one")
    child.spawn("two", work, "two")
    gevent.sleep(0)
    child.spawn("never begun", work, "three")
    assert crew.alive() == ["session.torrent/never begun", "session.torrent/two", "session/one"]
    assert crew.stop(1) == []
    assert sorted(cleaned) == ["one", "two"]
    assert crew.alive() == []
    assert lines(log) == [], "being killed is no crash"


def test_stop_names_those_that_do_not_end(log: io.StringIO) -> None:
    crew, let_go = Crew("c"), Event()

    def stubborn() -> None:
        try:
            Event().wait()
        finally:
            let_go.wait()

    member = crew.spawn("stubborn", stubborn)
    gevent.sleep(0)
    assert crew.stop(0.01) == ["c/stubborn"]
    assert lines(log)[0]["event"] == "greenlets_survived"
    let_go.set()
    member.join(1)
    assert crew.alive() == []


def test_a_stopped_crew_takes_nobody_on_and_ends_who_tries(log: io.StringIO) -> None:
    crew = Crew("c")
    child = crew.child("d")
    crew.stop(1)
    with pytest.raises(gevent.GreenletExit):
        crew.spawn("late", explode)
    for stopped in (child, crew.child("born late")):
        with pytest.raises(gevent.GreenletExit):
            stopped.spawn("late", explode)
    other = Crew("other")
    other.spawn("spawner", lambda: crew.spawn("late", explode)).join(1)
    assert lines(log) == [], "an end, not a crash"


def test_a_member_may_stop_its_own_crew() -> None:
    crew, ended = Crew("c"), Event()

    def last_one() -> None:
        crew.stop(1)
        ended.set()

    crew.spawn("idle", Event().wait)
    crew.spawn("last", last_one)
    assert ended.wait(1)
    gevent.sleep(0)
    assert crew.alive() == []


def test_children_that_are_dropped_leave_nothing_behind() -> None:
    crew = Crew("session")
    gone = weakref.ref(crew.child("gone"))
    busy, done = crew.child("busy"), Event()
    busy.spawn("work", done.wait)
    del busy
    gc.collect()
    assert gone() is None
    assert crew.alive() == ["session.busy/work"], "a child with a living member is not lost"
    assert crew.stop(1) == []


def test_a_breath_is_a_turn_for_sockets_and_timers_too() -> None:
    """The loop goes on with greenlets that merely slept for 0 s, up to 50 times, before it looks at those."""
    beats: list[float] = []
    timer = gevent.get_hub().loop.timer(0.0001, 0.0001)
    timer.start(lambda: beats.append(time.monotonic()))
    try:
        for _ in range(20):
            until = time.monotonic() + 0.001
            while time.monotonic() < until:
                sum(range(100))  # something long
            breathe()
    finally:
        timer.stop()
        timer.close()
    assert len(beats) >= 10
