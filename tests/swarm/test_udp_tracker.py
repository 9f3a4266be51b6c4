"""A swarm whose only tracker is ours, over UDP: our daemons meet, and both ways of asking agree."""

from __future__ import annotations

import filecmp
import json
import random
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

from bench.daemons import Daemon
from microtorrd.proto.scrape import SwarmCounts, parse_scrape_reply
from tests.swarm.conftest import MakeDaemon, mtorrctl

MIB = 1 << 20
PATIENCE_S = 60.0


def only_tracker(daemon: Daemon) -> dict[str, Any]:
    """How its one torrent's tracker is doing in the dialect that UDP has."""
    rows = json.loads(mtorrctl(daemon, "trackers", "all", "--json").stdout)
    (row,) = [row for row in rows if row["dialect"] == "bittorrent"]
    found: dict[str, Any] = row
    return found


def test_two_daemons_meet_over_udp(tmp_path: Path, tracker_daemon: Daemon, make_daemon: MakeDaemon) -> None:
    port = tracker_daemon.call("session.stats")["tracker_udp_port"]
    url = f"udp://127.0.0.1:{port}/announce"
    content, mtorrent = tmp_path / "content", tmp_path / "content.mtorrent"
    content.write_bytes(random.Random(3).randbytes(3 * MIB))
    made = mtorrctl(tracker_daemon, "create", content, "-t", url)
    assert made.returncode == 0, made.stderr
    leecher = make_daemon("leecher")
    with tracker_daemon.client() as client:
        client.subscribe(kinds=["tracker_request"])
        assert mtorrctl(tracker_daemon, "add", mtorrent, "--seed", content).returncode == 0
        added = mtorrctl(leecher, "add", mtorrent, "--wait", "--timeout", str(PATIENCE_S))
        assert added.returncode == 0, added.stderr
        assert filecmp.cmp(content, leecher.save_to / "content", shallow=False)

        end = time.monotonic() + PATIENCE_S
        notes: list[dict[str, Any]] = []
        while not any(note["event"] == "completed" for note in notes):
            assert time.monotonic() < end, notes
            if (note := client.next_note(1.0)) is not None:
                notes.append(note)
    assert {(note["transport"], note["dialect"], note["failure"]) for note in notes} == {
        ("udp", "bittorrent", "")
    }
    swarm = bytes.fromhex(leecher.call("torrent.list")["torrents"][0]["info_hash"])
    with urlopen(f"http://127.0.0.1:{port}/scrape?info_hash={quote(swarm)}", timeout=PATIENCE_S) as answer:
        counts = parse_scrape_reply(answer.read())[swarm]
    assert counts == SwarmCounts(complete=2, downloaded=1, incomplete=0)
    row = only_tracker(leecher)
    assert (row["url"], row["state"], row["seeders"], row["leechers"]) == (url, "working", 2, 0)
