"""The figures of the tracker as Prometheus reads them: text format 0.0.4, names and units by its rules.

Written here and not by a library: the counters are plain integers (`counters.py` says why), and what is left
to do is to write thirty lines of text. Nothing is made before somebody asks.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Literal, NamedTuple

from microtorrd import __version__
from microtorrd.tracker.counters import Counters
from microtorrd.tracker.store import StoreBounds, StoreSize

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]


class Family(NamedTuple):
    """A metric: its samples differ in their labels."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: Iterable[tuple[Labels, float]]


class ServerFigures(NamedTuple):
    """What the HTTP server has counted."""

    connections: int = 0  # now
    accepted: int = 0
    turned_away: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0


class Held(NamedTuple):
    """What is in the store."""

    size: StoreSize
    complete: int  # of the peers


def render(families: Iterable[Family]) -> bytes:
    """Return the text."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escaped(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for labels, value in family.samples:
            words = ",".join(f'{name}="{_quoted(text)}"' for name, text in labels.items())
            lines.append(f"{family.name}{{{words}}} {value!r}" if words else f"{family.name} {value!r}")
    return ("\n".join(lines) + "\n").encode()


def families(
    counters: Counters, held: Held | None, bounds: StoreBounds, server: ServerFigures
) -> Iterator[Family]:
    """Return all metrics of a tracker; `held` is None where its store does not answer."""
    yield _one("microtorrd_build_info", "gauge", "Which program this is.", 1, **_build())
    yield from _requests(counters)
    yield _one(
        "microtorrd_tracker_store_up",
        "gauge",
        "Whether the store of the swarms answers: 1, or 0.",
        int(held is not None),
    )
    if held is not None:
        yield from _held(held)
    yield _one("microtorrd_tracker_swarms_max", "gauge", "Swarms that there can be.", bounds.swarms)
    yield _one("microtorrd_tracker_peers_max", "gauge", "Peers that there can be.", bounds.peers)
    yield _one("microtorrd_tracker_connections", "gauge", "HTTP connections now.", server.connections)
    yield _one(
        "microtorrd_tracker_connections_accepted_total",
        "counter",
        "HTTP connections that were made.",
        server.accepted,
    )
    yield _one(
        "microtorrd_tracker_connections_refused_total",
        "counter",
        "Those of them that were turned away because there were too many.",
        server.turned_away,
    )
    yield _one(
        "microtorrd_tracker_received_bytes_total", "counter", "Bytes of HTTP requests.", server.received_bytes
    )
    yield _one(
        "microtorrd_tracker_sent_bytes_total", "counter", "Bytes of HTTP responses.", server.sent_bytes
    )
    yield from _process()


def _held(held: Held) -> Iterator[Family]:
    yield _one("microtorrd_tracker_swarms", "gauge", "Swarms with a peer.", held.size.swarms)
    yield Family(
        "microtorrd_tracker_peers",
        "gauge",
        "Peers in all swarms, by whether they have everything; one counts in each of its swarms.",
        [
            ({"state": "complete"}, held.complete),
            ({"state": "incomplete"}, held.size.peers - held.complete),
        ],
    )


def _requests(counters: Counters) -> Iterator[Family]:
    announces: list[tuple[Labels, float]] = [
        ({"dialect": dialect, "event": event or "none"}, count)
        for dialect, by_event in counters.announces.items()
        for event, count in by_event.items()
    ]
    announces.append(({"dialect": "microtorr", "event": "joint_alive"}, counters.joint_announces))
    yield Family(
        "microtorrd_tracker_announces_total",
        "counter",
        "Announces that were understood, admitted or not, by dialect and event.",
        announces,
    )
    yield _one(
        "microtorrd_tracker_joint_swarms_total",
        "counter",
        "Swarms that were named in joint keep-alives.",
        counters.joint_swarms,
    )
    yield _one(
        "microtorrd_tracker_scrapes_total", "counter", "Scrapes that were understood.", counters.scrapes
    )
    yield _one(
        "microtorrd_tracker_scraped_swarms_total",
        "counter",
        "Swarms that were named in scrapes.",
        counters.scraped_swarms,
    )
    yield _one(
        "microtorrd_tracker_datagrams_total", "counter", "Datagrams that came over UDP.", counters.datagrams
    )
    yield Family(
        "microtorrd_tracker_failures_total",
        "counter",
        "Announces and scrapes that were refused, by dialect and reason.",
        [
            ({"dialect": dialect, "reason": kind}, count)
            for dialect, by_kind in counters.failures.items()
            for kind, count in by_kind.items()
        ],
    )


def _process() -> Iterator[Family]:
    """What Prometheus's own libraries tell of any process, by the same names."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield _one(
        "process_cpu_seconds_total",
        "counter",
        "Processor time of the whole daemon.",
        used.ru_utime + used.ru_stime,
    )
    # Where no descriptor is left, what takes one is left out: the others tell that it is so.
    with suppress(OSError):
        yield from _by_proc_stat()
    with suppress(OSError):
        open_fds = len(os.listdir("/proc/self/fd")) - 1
        yield _one("process_open_fds", "gauge", "Descriptors that are open.", open_fds)
    yield _one(
        "process_max_fds",
        "gauge",
        "Descriptors that there can be.",
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def _by_proc_stat() -> Iterator[Family]:
    """What proc(5) tells; raises OSError where it cannot be read."""
    with open("/proc/self/stat", "rb") as file:
        # Behind the name, which may hold anything: proc(5).
        fields = file.read().rpartition(b") ")[2].split()
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    yield _one(
        "process_start_time_seconds",
        "gauge",
        "When the daemon started, since 1970.",
        round(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + started_s, 2),
    )
    yield _one(
        "process_resident_memory_bytes", "gauge", "Memory of the whole daemon.", int(fields[21]) * page_bytes
    )
    yield _one("process_virtual_memory_bytes", "gauge", "Its address space.", int(fields[20]))


def _build() -> dict[str, str]:
    return {"version": __version__, "python": ".".join(map(str, sys.version_info[:3]))}


def _one(name: str, kind: Literal["counter", "gauge"], help: str, value: float, **labels: str) -> Family:
    return Family(name, kind, help, [(labels, value)])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')
