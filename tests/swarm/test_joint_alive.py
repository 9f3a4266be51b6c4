"""Keep-alives of several torrents in one request, between real daemons, over a restart of either side."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.daemons import Daemon
from tests.swarm.conftest import MakeDaemon, mtorrctl, tracker_url

#: Four keep-alives: long enough for anything here on a busy machine.
PATIENCE_S = 60.0


def wait_for_note(
    tracker: Daemon, wanted: Callable[[dict[str, Any]], bool], act: Callable[[], object] = lambda: None
) -> list[dict[str, Any]]:
    """What the tracker is asked from now on, up to the first request that is wanted."""
    notes: list[dict[str, Any]] = []
    end = time.monotonic() + PATIENCE_S
    with tracker.client() as client:
        client.subscribe(kinds=["tracker_request"])
        act()
        while time.monotonic() < end:
            note = client.next_note(1.0)
            if note is not None:
                notes.append(note)
                if wanted(note):
                    return notes
    raise AssertionError(f"it did not come: {notes}")


def together(count: int) -> Callable[[dict[str, Any]], bool]:
    """A request that keeps so many alive."""
    return lambda note: len(note.get("swarm_ids", ())) == count


@pytest.mark.slow
def test_they_go_on_through_restarts_of_tracker_and_daemon(tmp_path: Path, make_daemon: MakeDaemon) -> None:
    tracker = make_daemon("tracker", tracker__enabled="true", tracker__bind="127.0.0.1:0")
    url = tracker_url(tracker)
    seeder = make_daemon("seeder")

    def seed() -> None:
        for number in range(3):
            path = tmp_path / f"content {number}"
            path.write_bytes(bytes([number]) * 1000)
            assert mtorrctl(seeder, "seed", path, "-t", url).returncode == 0

    notes = wait_for_note(tracker, together(3), seed)
    assert not any(note["failure"] for note in notes)
    # Who was unknown when the request came is there after it, and nobody else: all that it says is `alive`.
    assert [note["event"] for note in wait_for_note(tracker, together(3))] == ["alive"]

    assert tracker.stop() == 0
    again = make_daemon("tracker again", tracker__enabled="true", tracker__bind=f"127.0.0.1:{port_of(url)}")
    wait_for_note(again, together(3))
    notes = wait_for_note(again, together(3))
    assert not any(note["failure"] for note in notes)

    assert seeder.stop() == 0
    notes = wait_for_note(again, together(3), seeder.start)
    started = [note for note in notes if note["event"] == "started" and note["dialect"] == "microtorr"]
    assert len(started) == 3
    assert {note["swarm_id"] for note in started} == set(notes[-1]["swarm_ids"])


def port_of(url: str) -> str:
    return url.rpartition(":")[2].partition("/")[0]
