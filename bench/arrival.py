"""When content has arrived somewhere, seen from outside, the same way for every client.

A client's own word comes when it likes: some tell before the last byte is in the file, some a tick of a
second later. So the file is looked at, and the counters of the network that the process has to itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BLOCK = 16 << 10
#: The last bytes of each block that are compared while the clock runs; all bytes are, afterwards.
SAMPLE = 8
#: How often is looked. Nobody tells when another program has written something.
LOOK_S = 0.004
#: A peer that received as much has begun: greetings and bitfields are smaller, the first blocks larger.
BEGUN_BYTES = 64 << 10
#: How long the rest of a block may take to follow its last bytes into the file.
SETTLE_S = 10.0


class NotArrived(RuntimeError):
    """It did not come within its time, or is not what was sent."""


class Arrival:
    """Looks whether the file `found` has become equal to `wanted`.

    It remembers how far it has seen the blocks of the file, so that a look costs one small read.
    """

    def __init__(self, wanted: Path, found: Path) -> None:
        self.wanted = wanted
        # Transmission names a file so until it is complete.
        self._names = (found, found.with_name(found.name + ".part"))
        self._size = wanted.stat().st_size
        self._seen = 0
        self._descriptors: tuple[int, int] | None = None

    def is_whole(self) -> bool:
        """Whether every block has come, by its last bytes."""
        if self._descriptors is None and not self._open():
            return False
        assert self._descriptors is not None
        one, other = self._descriptors
        while self._seen < self._size:
            at = min(self._seen + BLOCK, self._size) - SAMPLE
            if os.pread(one, SAMPLE, at) != os.pread(other, SAMPLE, at):
                return False
            self._seen += BLOCK
        return True

    def _open(self) -> bool:
        for name in self._names:
            try:
                other = os.open(name, os.O_RDONLY)
            except FileNotFoundError:
                continue
            self._descriptors = os.open(self.wanted, os.O_RDONLY), other
            return True
        return False

    def is_equal(self) -> bool:
        """Whether every byte is the same."""
        if self._descriptors is None:
            return False
        one, other = self._descriptors
        return all(
            os.pread(one, 1 << 20, at) == os.pread(other, 1 << 20, at) for at in range(0, self._size, 1 << 20)
        )

    def close(self) -> None:
        """Look no more."""
        for descriptor in self._descriptors or ():
            os.close(descriptor)
        self._descriptors = None


@dataclass(frozen=True, slots=True)
class Counters:
    """Bytes that went through all network interfaces but loopback where a process lives."""

    received: int
    sent: int


def counters(pid: int) -> Counters:
    """Of that process's network (`man 5 proc`, /proc/PID/net/dev)."""
    received = sent = 0
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]:
        name, _, figures = line.partition(":")
        if name.strip() != "lo":
            words = figures.split()
            received += int(words[0])
            sent += int(words[8])
    return Counters(received, sent)


def wait_for_first_bytes(before: Mapping[int, int], check: Callable[[], None], *, timeout_s: float) -> float:
    """Until payload has come where one of these processes lives; the moment (`time.perf_counter`). `before`
    says for each what had been received there; `check` raises where waiting has become useless."""
    end = time.perf_counter() + timeout_s
    while all(counters(pid).received - count < BEGUN_BYTES for pid, count in before.items()):
        if time.perf_counter() > end:
            raise NotArrived(f"nothing came within {timeout_s:.0f} s")
        check()
        time.sleep(LOOK_S)
    return time.perf_counter()


def wait_for_all(arrivals: Sequence[Arrival], check: Callable[[], None], *, timeout_s: float) -> float:
    """Until all are whole; the moment (`time.perf_counter`). `check` as above."""
    end = time.perf_counter() + timeout_s
    missing = list(arrivals)
    while missing := [arrival for arrival in missing if not arrival.is_whole()]:
        if time.perf_counter() > end:
            raise NotArrived(f"{len(missing)} of {len(arrivals)} did not finish within {timeout_s:.0f} s")
        check()
        time.sleep(LOOK_S)
    return time.perf_counter()


def confirm(arrivals: Sequence[Arrival]) -> None:
    """Compare every byte; what is still on its way has a moment to come."""
    end = time.perf_counter() + SETTLE_S
    while not all(arrival.is_equal() for arrival in arrivals):
        if time.perf_counter() > end:
            raise NotArrived("what arrived is not what was sent")
        time.sleep(LOOK_S * 25)
