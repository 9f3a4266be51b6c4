"""A tracker that is not for everybody, and real daemons that may use it or may not."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.daemons import Daemon
from microtorrd.tracker.admission import NOT_SERVED
from tests.swarm.conftest import MakeDaemon, mtorrctl, tracker_url, wait_until

KEY = "Vj3-0123456789_abcdef"
PATIENCE_S = 30.0
DIALECTS = ("microtorr", "bittorrent")


def wait_for_tracker(daemon: Daemon, dialect: str, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Until the daemon's tracker in this dialect stands so."""
    end = time.monotonic() + PATIENCE_S
    with daemon.client() as client:
        client.subscribe(kinds=None)
        while True:
            rows = client.call("torrent.trackers", id="all")["trackers"]
            if any(row["dialect"] == dialect and wanted(row) for row in rows):
                return
            assert time.monotonic() < end, rows
            client.next_note(0.1)


def test_with_a_passkey_in_its_tracker_a_private_torrent_finds_its_peers(
    tmp_path: Path, make_daemon: MakeDaemon
) -> None:
    users = tmp_path / "passkeys"
    users.write_text(f"{KEY} Ada\n")
    tracker = make_daemon(
        "tracker", tracker__enabled="true", tracker__bind="127.0.0.1:0", tracker__passkeys_file=users
    )
    url = f"{tracker_url(tracker)}/{KEY}"
    content = tmp_path / "content"
    content.write_bytes(bytes(range(256)) * 500)
    seeder, leecher = make_daemon("seeder"), make_daemon("leecher")
    file = tmp_path / "content.mtorrent"
    with tracker.client() as notes:
        notes.subscribe(kinds=["tracker_request"])
        made = mtorrctl(seeder, "create", content, "-t", url, "--private", "-o", file)
        assert made.returncode == 0, made.stderr
        assert mtorrctl(seeder, "add", file, "--seed", content).returncode == 0
        wait_until(seeder, lambda row: row["state"] == "seeding")
        assert mtorrctl(leecher, "add", file, "--wait").returncode == 0
        assert (leecher.save_to / "content").read_bytes() == content.read_bytes()
        note = notes.next_note(PATIENCE_S)
        assert note is not None
        assert (note["user"], note["failure"]) == ("Ada", "")
    # Of that figure scrapes tell, and nothing else.
    wait_for_tracker(leecher, "bittorrent", lambda row: row["downloaded"] is not None)
    for daemon in (tracker, seeder, leecher):
        assert daemon.stop() == 0
        assert KEY not in daemon.log()


def test_a_swarm_off_the_list_is_refused_until_the_list_is_read_again(
    tmp_path: Path, make_daemon: MakeDaemon
) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text("# nobody yet\n")
    tracker = make_daemon(
        "tracker",
        tracker__enabled="true",
        tracker__bind="127.0.0.1:0",
        tracker__access="listed",
        tracker__allow_file=allowed,
    )
    content, file = tmp_path / "content", tmp_path / "content.mtorrent"
    content.write_bytes(b"x" * 1000)
    early, late = make_daemon("early"), make_daemon("late")
    assert mtorrctl(early, "create", content, "-t", tracker_url(tracker), "-o", file).returncode == 0
    assert mtorrctl(early, "add", file, "--seed", content).returncode == 0
    for dialect in DIALECTS:
        wait_for_tracker(early, dialect, lambda row: NOT_SERVED in (row["message"] or ""))
    row = wait_until(early, lambda row: row["state"] == "seeding")

    allowed.write_text("nonsense\n")
    hang_up(tracker, "reload_failed")
    assert f"{allowed}:1: a line is a swarm id" in tracker.log()
    allowed.write_text(f"{row['id_hash']}  # content\n{row['info_hash']}\n")
    hang_up(tracker, "reloaded")
    # Who was refused rests for a while; who comes now is let in.
    assert mtorrctl(late, "add", file, "--seed", content).returncode == 0
    for dialect in DIALECTS:
        wait_for_tracker(late, dialect, works)


def works(row: dict[str, Any]) -> bool:
    """For `wait_for_tracker`."""
    return bool(row["state"] == "working")


def hang_up(daemon: Daemon, event: str) -> None:
    """Let it read its settings again, and return when it has."""
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + PATIENCE_S
    with daemon.client() as client:
        while event not in daemon.log():
            assert time.monotonic() < end, daemon.log()[-3000:]
            client.call("daemon.ping")


def test_a_daemon_serves_its_own_torrents_as_long_as_it_has_them(
    tmp_path: Path, make_daemon: MakeDaemon
) -> None:
    home = make_daemon("home", tracker__enabled="true", tracker__bind="127.0.0.1:0", tracker__access="own")
    content = tmp_path / "content"
    content.write_bytes(b"y" * 1000)
    file = tmp_path / "content.mtorrent"
    assert mtorrctl(home, "create", content, "-t", tracker_url(home), "-o", file).returncode == 0
    early, late = make_daemon("early"), make_daemon("late")
    assert mtorrctl(early, "add", file, "--seed", content).returncode == 0
    for dialect in DIALECTS:
        wait_for_tracker(early, dialect, lambda row: row["state"] == "failing")
    assert mtorrctl(home, "add", file, "--paused").returncode == 0
    assert mtorrctl(late, "add", file, "--seed", content).returncode == 0
    for dialect in DIALECTS:
        wait_for_tracker(late, dialect, works)
    # Its own torrent has a name there, by both of its ids.
    swarms = pages_of(home, "api/swarms?order=peers")["swarms"]
    assert [swarm["name"] for swarm in swarms] == ["content", "content"]
    # The MicroTorr dialect does not say who has everything.
    assert sorted((swarm["complete"], swarm["incomplete"]) for swarm in swarms) == [(0, 1), (1, 0)]
    assert b"<code>" + swarms[0]["id"].encode() in raw_page_of(home, "")
    assert b'microtorrd_tracker_peers{state="complete"} 1\n' in raw_page_of(home, "metrics")


def pages_of(daemon: Daemon, path: str) -> Any:
    """A page of its tracker, as JSON."""
    return json.loads(raw_page_of(daemon, path))


def raw_page_of(daemon: Daemon, path: str) -> bytes:
    """A page of its tracker."""
    with urllib.request.urlopen(tracker_url(daemon).replace("announce", path), timeout=PATIENCE_S) as reply:
        found: bytes = reply.read()
    return found
