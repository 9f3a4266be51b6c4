"""Many leechers around one seeder with little to give: who is done when, and what everybody gave.

Everybody is there and knows the others before the seeder comes, so that nobody's start-up counts
(Transmission alone needs a dozen seconds before its first byte).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from bench.arrival import Arrival, confirm
from bench.daemons import Daemon
from bench.foreign import Foreign
from tests.interop.content import make_file
from tests.interop.meeting import Meeting

#: A test that ran one puts the figures into this property of its report.
PROPERTY = "interop_race"

PIECE_LENGTH = 256 * 1024
PATIENCE_S = 240.0
LOOK_S = 0.1
#: Not every client dials everybody: when nothing has changed for so long, nobody else will come.
SETTLED_S = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a race showed."""

    size_bytes: int
    seeder_up: int  # bytes per second
    took_s: dict[str, float]  # of each leecher, from the moment that the seeder came
    sent_bytes: dict[str, int]  # of those leechers that are ours
    received_bytes: dict[str, int]
    seeder_sent_bytes: int

    @property
    def copies(self) -> float:
        """How often the seeder sent the content."""
        return self.seeder_sent_bytes / self.size_bytes

    @property
    def ratio(self) -> float:
        """What ours sent for what they received, together."""
        return sum(self.sent_bytes.values()) / sum(self.received_bytes.values())

    @property
    def median_s(self) -> float:
        return statistics.median(self.took_s.values())

    @property
    def slowest_s(self) -> float:
        return max(self.took_s.values())

    def lines(self) -> list[str]:
        """The figures, for people."""
        lines = []
        for name, seconds in sorted(self.took_s.items(), key=lambda item: item[1]):
            ratio = (
                f", ratio {self.sent_bytes[name] / self.size_bytes:.2f}" if name in self.sent_bytes else ""
            )
            lines.append(f"{name:14} {seconds:6.1f} s{ratio}")
        lines.append(
            f"one copy takes the seeder {self.size_bytes / self.seeder_up:.1f} s; "
            f"median {self.median_s:.1f} s, slowest {self.slowest_s:.1f} s "
            f"({self.slowest_s / self.median_s:.2f} times the median)"
        )
        if self.sent_bytes:
            lines.append(f"share ratio of microtorrd among the leechers: {self.ratio:.2f}")
        lines.append(f"the seeder sent {self.copies:.2f} copies")
        return lines


def run(
    meeting: Meeting,
    kinds: Sequence[type[Foreign]],
    *,
    ours: int,
    size_bytes: int,
    seeder_up: int,
    seed_options: Sequence[str] = (),
) -> Outcome:
    """One leecher of each kind and so many of ours; returns when all have everything, byte by byte."""
    content = make_file(meeting.directory, size_bytes)
    metainfo = meeting.share(content, piece_length=PIECE_LENGTH)
    places: dict[str, Path] = {}
    for kind in kinds:
        places[kind.name] = meeting.directory / f"{kind.name}-files"
        meeting.foreign(kind, metainfo, places[kind.name])
    daemons = {name: meeting.daemon(name) for name in (f"microtorrd-{at}" for at in range(1, ours + 1))}
    for name, daemon in daemons.items():
        meeting.add(daemon, metainfo)
        places[name] = daemon.save_to
    for kind in kinds:
        meeting.wait_for_announce(kind.peer_id_start, timeout_s=60.0)
    wait_until_settled(list(daemons.values()))

    seeder = meeting.daemon("seeder", limits__up=seeder_up)
    began = time.monotonic()
    meeting.add(seeder, metainfo, "--seed", str(content), *seed_options)
    took_s: dict[str, float] = {}
    with ExitStack() as stack:
        arrivals = {
            name: stack.enter_context(closing(Arrival(content, place / content.name)))
            for name, place in places.items()
        }
        while len(took_s) < len(arrivals):
            now = time.monotonic()
            for name, arrival in arrivals.items():
                if name not in took_s and arrival.is_whole():
                    took_s[name] = now - began
            assert now < began + PATIENCE_S, f"not done: {sorted(arrivals.keys() - took_s.keys())}"
            for foreign in meeting.foreigners:
                assert foreign.is_alive(), f"{foreign.name} has ended"
            time.sleep(LOOK_S)
        confirm(list(arrivals.values()))
    totals = {name: daemon.call("session.stats") for name, daemon in daemons.items()}
    return Outcome(
        size_bytes,
        seeder_up,
        took_s,
        {name: stats["uploaded_bytes"] for name, stats in totals.items()},
        {name: stats["downloaded_bytes"] for name, stats in totals.items()},
        seeder.call("session.stats")["uploaded_bytes"],
    )


def wait_until_settled(daemons: Sequence[Daemon]) -> None:
    """Until ours have met whom they will meet."""
    before: list[int] = []
    changed_at = time.monotonic()
    while time.monotonic() - changed_at < SETTLED_S:
        counts = [len(daemon.call("torrent.peers", id="all")["peers"]) for daemon in daemons]
        if counts != before:
            before, changed_at = counts, time.monotonic()
        time.sleep(LOOK_S)
    assert all(before), "somebody is alone"
