"""Stalls of a daemon's hub, as `bench.probed` notes them in a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Shorter ones are not noted.
NOTED_S = 0.010


@dataclass(frozen=True, slots=True)
class Stall:
    """One gap: when it ended, how long the hub stood still, how long it lacked a core besides."""

    at_s: float
    stood_s: float
    lacked_core_s: float


def read(path: Path, *, since_s: float) -> list[Stall]:
    """What was noted after that moment of `time.monotonic`, without a line that is still being written."""
    if not path.exists():
        return []
    lines = path.read_text().rpartition("\n")[0].splitlines()
    stalls = [Stall(*map(float, line.split())) for line in lines]
    return [stall for stall in stalls if stall.at_s > since_s]


def durations_s(path: Path, *, since_s: float) -> list[float]:
    """How long each of them was."""
    return [stall.stood_s for stall in read(path, since_s=since_s)]
