"""What all benchmarks need: processes' CPU and memory, ratios with their spread, and content to move.

A figure of one machine says little; a ratio to something known, measured in the same run and in turns, says
more. Every row therefore runs its two sides alternately and reports the median of the ratios with the
smallest and the largest.
"""

from __future__ import annotations

import base64
import hashlib
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import psutil

from microtorrd.proto.metainfo import FileEntry, build

MIB = 1 << 20
GIB = 1 << 30

#: Where content lies: memory, so that no disk is measured.
TMPFS = Path("/dev/shm")


@dataclass
class Row:
    """One line of the table: what was measured, ours and the other's figures, and the aim."""

    name: str
    unit: str
    aim: str
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    other: str = ""
    note: str = ""

    def add(self, ours: float, theirs: float | None = None) -> None:
        """One measurement of each side."""
        self.ours.append(ours)
        if theirs is not None:
            self.theirs.append(theirs)

    def ratio(self) -> tuple[float, float, float] | None:
        """Median, smallest and largest of ours to theirs."""
        if not self.theirs:
            return None
        ratios = [one / other for one, other in zip(self.ours, self.theirs, strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)

    def cells(self) -> list[str]:
        """The cells of the row, as text."""
        ratio = self.ratio()
        return [
            self.name,
            spread(self.ours, self.unit),
            f"{self.other}: {spread(self.theirs, self.unit)}" if self.theirs else self.other or "–",
            "–" if ratio is None else f"{ratio[0]:.2f} ({ratio[1]:.2f}–{ratio[2]:.2f})",
            self.aim,
        ]


def stall_row(name: str, stalls_s: list[float]) -> Row:
    """The longest stall of a hub. Only those worth it are noted (`bench.probed`): 0 is less than 10 ms."""
    row = Row(name, "ms", "≤ 50 ms")
    row.add(max(stalls_s, default=0.0) * 1000)
    return row


def percentile(values: list[float], percent: int) -> float:
    """The smallest value that so many of all values do not exceed."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def spread(values: list[float], unit: str) -> str:
    """The median, and the smallest and the largest where they differ."""
    if not values:
        return "–"
    digits = 0 if max(values) >= 100 else 1 if max(values) >= 10 else 2
    low, middle, high = min(values), statistics.median(values), max(values)
    if len(values) == 1:
        return f"{middle:.{digits}f} {unit}"
    return f"{middle:.{digits}f} {unit} ({low:.{digits}f}–{high:.{digits}f})"


def cpu_s(pid: int) -> float:
    """CPU seconds that the process has used, user and system."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def exact_cpu_s(pid: int) -> float:
    """The same to the nanosecond, of the threads that live: what others count in hundredths of a second."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def peak_mib(pid: int) -> float:
    """The most memory that the process ever had in RAM, without pages of files it shares (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no VmHWM")


def resident_mib(pid: int) -> float:
    """The memory that the process has in RAM now."""
    return float(psutil.Process(pid).memory_info().rss) / MIB


@contextmanager
def workplace() -> Iterator[Path]:
    """A directory in memory, gone afterwards."""
    with TemporaryDirectory(prefix="microtorrd-bench-", dir=TMPFS) as name:
        yield Path(name)


def warm_up(size: int = 2 * GIB) -> None:
    """Touch memory and let it go, before each measurement.

    On a virtual machine the first touch of a page can cost as much as moving its bytes ten times, and pages
    that lay idle for a while go back to the host. Both sides shall find the same.
    """
    zeros = bytes(MIB)
    with TemporaryFile(dir=TMPFS) as file:
        for _ in range(size // MIB):
            file.write(zeros)


def make_content(path: Path, size: int) -> None:
    """Random bytes: nothing on the way can do better with them than with real ones."""
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))


def make_torrent(content: Path, piece_length: int, trackers: list[str]) -> bytes:
    """A plain BitTorrent metainfo, without an id_hash: both sides have the same work to do."""
    pieces = hash_pieces(content, piece_length)
    return build_torrent(content.name, content.stat().st_size, piece_length, pieces, trackers)


def hash_pieces(content: Path, piece_length: int) -> bytes:
    """The SHA-1 of each piece, one after the other."""
    with content.open("rb") as file:
        return b"".join(hashlib.sha1(chunk).digest() for chunk in iter(lambda: file.read(piece_length), b""))


def build_torrent(name: str, size: int, piece_length: int, pieces: bytes, trackers: list[str]) -> bytes:
    """`make_torrent` of hashed content, under a name of choice: other names are other swarms."""
    return build(
        name=name,
        piece_length=piece_length,
        files=[FileEntry((name,), size)],
        is_single_file=True,
        pieces=pieces,
        id_hash=None,
        trackers=[trackers] if trackers else [],
    )


def for_rpc(metainfo: bytes) -> str:
    """As `torrent.add` takes it."""
    return base64.b64encode(metainfo).decode()
