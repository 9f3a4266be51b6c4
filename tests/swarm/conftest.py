"""Real daemons as processes, on loopback, each with everything it has below the test's own directory."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.daemons import Daemon

MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[MakeDaemon]:
    """`make_daemon(name, **settings)` starts one; all are ended with the test."""
    daemons: list[Daemon] = []

    def make(name: str, **settings: Any) -> Daemon:
        daemon = Daemon(tmp_path / name, **settings)
        daemons.append(daemon)
        return daemon.start()

    yield make
    for daemon in daemons:
        daemon.kill()


@pytest.fixture
def tracker_daemon(make_daemon: MakeDaemon) -> Daemon:
    """A daemon that serves a tracker beside its torrents."""
    return make_daemon("seeder", tracker__enabled="true", tracker__bind="127.0.0.1:0")


def tracker_url(daemon: Daemon) -> str:
    """Where its tracker answers."""
    return f"http://127.0.0.1:{daemon.call('session.stats')['tracker_port']}/announce"


def mtorrctl(
    daemon: Daemon, *arguments: str | Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the real client against this daemon."""
    return subprocess.run(
        [sys.executable, "-m", "mtorrctl", "--socket", str(daemon.socket), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
    )


def only_row(daemon: Daemon) -> dict[str, Any]:
    """The row of the daemon's one torrent."""
    rows: list[dict[str, Any]] = daemon.call("torrent.list")["torrents"]
    assert len(rows) == 1
    return rows[0]


def wait_until(
    daemon: Daemon, wanted: Callable[[dict[str, Any]], bool], *, timeout_s: float = 60
) -> dict[str, Any]:
    """The row of the daemon's one torrent as soon as it is as wanted; looked at with each note."""
    end = time.monotonic() + timeout_s
    with daemon.client() as client:
        client.subscribe(kinds=None)
        while True:
            row: dict[str, Any] = client.call("torrent.list")["torrents"][0]
            if wanted(row):
                return row
            assert time.monotonic() < end, f"not in {timeout_s} s: {row}\n{daemon.log()[-3000:]}"
            client.next_note(0.05)
