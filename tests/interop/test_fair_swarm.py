"""Twelve leechers, half of them foreign, around one seeder with little to give: nobody starves.

Everybody is there and knows the others before the seeder comes, so that nobody's start-up counts
(Transmission alone needs a dozen seconds before its first byte).
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.daemons import Daemon
from tests.interop.conftest import require
from tests.interop.content import MIB, make_file
from tests.interop.foreign import ALL
from tests.interop.meeting import Meeting

SIZE = 96 * MIB
SEEDER_UP = 4_000_000  # bytes per second
OURS = 12 - len(ALL)
PATIENCE_S = 240.0
LOOK_S = 0.25

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]


class Arrival:
    """Watches a file become equal to another one, by chunks; what was equal once is not read again."""

    def __init__(self, wanted: bytes, found: Path) -> None:
        self._wanted = wanted
        self._found = found
        self._missing = list(range(0, len(wanted), MIB))
        self.at: float | None = None  # when it was seen to be whole

    def look(self, now: float) -> None:
        if self.at is not None or not self._found.is_file():
            return
        with self._found.open("rb") as file:
            self._missing = [begin for begin in self._missing if not self._is_there(file.fileno(), begin)]
        if not self._missing and self._found.stat().st_size == len(self._wanted):
            self.at = now

    def _is_there(self, descriptor: int, begin: int) -> bool:
        wanted = self._wanted[begin : begin + MIB]
        glance = min(4096, len(wanted))
        if os.pread(descriptor, glance, begin + len(wanted) - glance) != wanted[-glance:]:
            return False
        return os.pread(descriptor, len(wanted), begin) == wanted


def test_twelve_leechers_half_of_them_foreign(
    network_meeting: Meeting,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    meeting = network_meeting
    for kind in ALL:
        require(kind)
    content = make_file(meeting.directory, SIZE)
    metainfo = meeting.share(content, piece_length=256 * 1024)
    wanted = content.read_bytes()
    arrivals: dict[str, Arrival] = {}
    for kind in ALL:
        save_to = meeting.directory / f"{kind.name}-files"
        meeting.foreign(kind, metainfo, save_to)
        arrivals[kind.name] = Arrival(wanted, save_to / content.name)
    ours = [meeting.daemon(f"microtorrd-{number}") for number in range(1, OURS + 1)]
    for daemon in ours:
        meeting.add(daemon, metainfo)
        arrivals[daemon.directory.name] = Arrival(wanted, daemon.save_to / content.name)
    for kind in ALL:
        meeting.wait_for_announce(kind.peer_id_start, timeout_s=60.0)
    wait_for_peers(ours, len(ALL) + OURS - 1)

    seeder = meeting.daemon("seeder", limits__up=SEEDER_UP)
    began = time.monotonic()
    meeting.add(seeder, metainfo, "--seed", str(content))
    while any(arrival.at is None for arrival in arrivals.values()):
        now = time.monotonic()
        for arrival in arrivals.values():
            arrival.look(now)
        waiting = [name for name, arrival in arrivals.items() if arrival.at is None]
        assert now < began + PATIENCE_S, f"not done: {waiting}"
        for foreign in meeting.foreigners:
            assert foreign.is_alive(), f"{foreign.name} has ended"
        time.sleep(LOOK_S)

    took = {name: (arrival.at or began) - began for name, arrival in arrivals.items()}
    median, slowest = statistics.median(took.values()), max(took.values())
    totals = {daemon.directory.name: daemon.call("session.stats") for daemon in ours}
    up = sum(stats["uploaded_bytes"] for stats in totals.values())
    down = sum(stats["downloaded_bytes"] for stats in totals.values())
    copies = seeder.call("session.stats")["uploaded_bytes"] / SIZE
    lines = [
        f"{name:14} {seconds:6.1f} s"
        + (f", ratio {totals[name]['uploaded_bytes'] / SIZE:.2f}" if name in totals else "")
        for name, seconds in sorted(took.items(), key=lambda item: item[1])
    ]
    lines += [
        f"one copy takes the seeder {SIZE / SEEDER_UP:.1f} s; median {median:.1f} s, slowest {slowest:.1f} s "
        f"({slowest / median:.2f} times the median)",
        f"share ratio of microtorrd among the leechers {up / down:.2f}; the seeder sent {copies:.2f} copies",
    ]
    record_property("fair_swarm", "\n".join(lines))
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert slowest <= 1.5 * median
    assert up / down >= 0.8


def wait_for_peers(daemons: list[Daemon], wanted: int) -> None:
    """Until each of ours is connected with that many, or nothing has changed for a while: not every client
    dials everybody."""
    before: list[int] = []
    changed_at = time.monotonic()
    while True:
        counts = [len(daemon.call("torrent.peers", id="all")["peers"]) for daemon in daemons]
        now = time.monotonic()
        if counts != before:
            before, changed_at = counts, now
        if all(count >= wanted for count in counts) or now - changed_at > 10.0:
            assert min(counts) > 0, "somebody is alone"
            return
        time.sleep(LOOK_S)
