"""What is read off a swarm: figures beside what they are held against, and curves."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from bench.sim.hosts import Host, Line
from bench.sim.net import Net


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a run: what it is, how much, and the least and the most that is right."""

    name: str
    value: float
    least: float = -inf
    most: float = inf

    @property
    def good(self) -> bool:
        return self.least <= self.value <= self.most

    @property
    def aim(self) -> str:
        """The bounds, for people."""
        if self.least == self.most:
            return f"{self.least:g}"
        bounds = []
        if self.least > -inf:
            bounds.append(f"at least {self.least:g}")
        if self.most < inf:
            bounds.append(f"at most {self.most:g}")
        return ", ".join(bounds)


@dataclass
class Result:
    """What a run showed."""

    title: str
    seed: int
    hosts: int
    limit_s: float
    figures: list[Figure] = field(default_factory=list)
    #: Share of the hosts that are done, and the mean progress of all, by (virtual) time.
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    #: Copies of each piece among the leechers, at the half of the way.
    copies: list[int] = field(default_factory=list)
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    facts: int = 0
    memory_bytes: int = 0  # of the process, at the most

    @property
    def good(self) -> bool:
        return all(figure.good for figure in self.figures)

    def __getitem__(self, name: str) -> float:
        return next(figure.value for figure in self.figures if figure.name == name)


class Watch:
    """Looks at a swarm once a virtual second."""

    def __init__(self, net: Net, leechers: list[Host]) -> None:
        self.net = net
        self.leechers = leechers  # may grow while it runs
        self.done: list[tuple[float, float]] = []
        self.progress: list[tuple[float, float]] = []
        self.copies: list[int] = []
        self._looked_at = -1.0
        self._cpu_s = time.process_time()

    def look(self) -> float:
        """The share of those that are done."""
        net = self.net
        if net.now - self._looked_at < 1.0 - 1e-6:
            return 0.0
        self._looked_at = net.now
        here = [host for host in self.leechers if host.gone_at is None or host.completed_at is not None]
        share = sum(host.completed_at is not None for host in here) / max(1, len(here))
        mean = sum(host.progress for host in here) / max(1, len(here))
        self.done.append((net.now, share))
        self.progress.append((net.now, mean))
        if not self.copies and mean >= 0.5:
            self.copies = copies_of_pieces(self.leechers)
        return share

    def everybody(self) -> bool:
        """All that stayed are done."""
        return self.look() >= 1.0

    def result(self, title: str, limit_s: float, figures: list[Figure]) -> Result:
        """The run as it was."""
        return Result(
            title,
            self.net.seed,
            len(self.net.hosts),
            limit_s,
            figures,
            {"done": self.done, "progress": self.progress},
            self.copies,
            self.net.now,
            time.process_time() - self._cpu_s,
            self.net.facts,
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        )


def fluid_limit_s(size: int, seeder_up: float, leechers: Sequence[Line]) -> float:
    """What no protocol can beat: the bytes leave the seeder, arrive, and are sent."""
    together = seeder_up + sum(line.up for line in leechers)
    return max(size / seeder_up, size / min(line.down for line in leechers), size * len(leechers) / together)


def copies_of_pieces(hosts: Sequence[Host]) -> list[int]:
    """How many of these hosts have each piece."""
    here = [host.core.have for host in hosts if host.gone_at is None]
    return [sum(have[piece] for have in here) for piece in range(len(here[0]))]


def median(hosts: Sequence[Host]) -> float:
    """How long the half of them took, in seconds."""
    return statistics.median(host.took_s for host in hosts)


def last(hosts: Sequence[Host]) -> float:
    """How long the slowest took, in seconds."""
    return max(host.took_s for host in hosts)


def completions(hosts: Sequence[Host]) -> list[tuple[float, float]]:
    """The share of them that is done, each time that one is."""
    times = sorted(host.completed_at for host in hosts if host.completed_at is not None)
    return [(at, (number + 1) / len(hosts)) for number, at in enumerate(times)]


def waste(hosts: Sequence[Host], net: Net) -> float:
    """What came in vain, as a share of what they wanted."""
    return sum(host.core.swarm.wasted_bytes for host in hosts) / (net.geometry.length * len(hosts))


def copies_sent(host: Host, net: Net) -> float:
    """What it sent, in copies of the content."""
    return host.sent_bytes / net.geometry.length
