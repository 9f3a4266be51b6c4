"""A swarm whose only tracker is opentracker, over HTTP and UDP: content travels, and the figures agree."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from bench.daemons import Daemon
from bench.foreign.opentracker import Opentracker
from microtorrd.proto import metainfo
from tests.interop.conftest import require_programs
from tests.interop.content import MIB, make_tree
from tests.interop.meeting import Meeting
from tests.interop.meetings import wait_until_seeding

PATIENCE_S = 30.0
LOOK_S = 0.1


def wait_for_status(daemon: Daemon, **wanted: Any) -> None:
    """Until the daemon's one tracker in the BitTorrent dialect is said to be so."""
    end = time.monotonic() + PATIENCE_S
    with daemon.client() as client:
        client.subscribe()
        while True:
            rows = client.call("torrent.trackers", id="all")["trackers"]
            (row,) = [row for row in rows if row["dialect"] == "bittorrent"]
            if all(row[key] == value for key, value in wanted.items()):
                return
            assert time.monotonic() < end, rows
            client.next_note(LOOK_S)


@pytest.mark.parametrize("scheme", ["http", "udp"])
def test_a_swarm_around_it(loopback_meeting: Meeting, tmp_path: Path, scheme: str) -> None:
    require_programs("opentracker")
    meeting, port = loopback_meeting, Opentracker.free_port()
    meeting.url = f"{scheme}://127.0.0.1:{port}/announce"
    content = make_tree(tmp_path, 3 * MIB)
    file = meeting.share(content)
    swarm = metainfo.parse(file.read_bytes()).info_hash
    seeder, leecher = meeting.tracker, meeting.daemon("leecher")
    with Opentracker(port, [swarm]) as opentracker:
        meeting.add(seeder, file, "--seed", str(content))
        wait_for_status(seeder, state="working")
        meeting.add(leecher, file)
        meeting.wait_for_content(content, leecher.save_to / content.name, who="the leecher")
        wait_until_seeding(leecher)
        wait_for_status(leecher, seeders=2, leechers=0)
        assert opentracker.scrape(swarm) == {"complete": 2, "downloaded": 1, "incomplete": 0}
        # A daemon that comes later is told the same when it scrapes.
        late = meeting.daemon("late")
        meeting.add(late, file, "--seed", str(content))
        wait_for_status(late, state="working", seeders=3, leechers=0, downloaded=1)
        assert opentracker.scrape(swarm) == {"complete": 3, "downloaded": 1, "incomplete": 0}
        late.call("torrent.pause", id="all")
        wait_until_scraped(opentracker, swarm, complete=2)
        leecher.call("torrent.pause", id="all")
        wait_until_scraped(opentracker, swarm, complete=1)


def wait_until_scraped(opentracker: Opentracker, swarm: bytes, **wanted: int) -> None:
    """Until it says so: a farewell is on its way when the call that makes it is over."""
    end = time.monotonic() + PATIENCE_S
    while not wanted.items() <= (found := opentracker.scrape(swarm)).items():
        assert time.monotonic() < end, found
