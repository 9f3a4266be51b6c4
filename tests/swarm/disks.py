"""Disks that misbehave: mounts that only one daemon sees, and a seeder to download from meanwhile."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bench.daemons import Daemon
from microtorrd.proto import metainfo as metainfo_room
from tests.metainfos import NOWHERE, mtorrent_of
from tests.swarm.conftest import tracker_url
from tests.swarm.hostile import wait

MIB = 1 << 20
PIECE_BYTES = 128 << 10

Row = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """Some content and its metainfo."""

    name: str
    files: dict[tuple[str, ...], bytes]  # by path, with the name as its first part
    raw: bytes
    info_hash: bytes

    @property
    def data(self) -> bytes:
        """All of it in a row."""
        return b"".join(self.files.values())

    def is_at(self, root: Path) -> bool:
        """Whether all of it is there as it should be."""
        return all(
            (root / Path(*path)).is_file() and (root / Path(*path)).read_bytes() == data
            for path, data in self.files.items()
        )

    def write(self, root: Path) -> Path:
        """Put it there; returns where the content is."""
        for path, data in self.files.items():
            (root / Path(*path)).parent.mkdir(parents=True, exist_ok=True)
            (root / Path(*path)).write_bytes(data)
        return root / self.name


def make_sample(name: str, *sizes: int, tracker: str | None = None, piece_bytes: int = PIECE_BYTES) -> Sample:
    """One file of the size, or a directory with a file for each of several."""
    chance = random.Random(name)
    single = len(sizes) == 1
    paths = [(name,)] if single else [(name, f"part-{number}") for number in range(len(sizes))]
    files = {path: chance.randbytes(size) for path, size in zip(paths, sizes, strict=True)}
    content = files[(name,)] if single else files
    raw = mtorrent_of(name, content, piece_bytes, tiers=((tracker or NOWHERE,),), id_hash=None)
    return Sample(name, files, raw, metainfo_room.parse(raw).info_hash)


class Source:
    """A daemon that has everything, and the tracker that leads others to it."""

    def __init__(self, daemon: Daemon, place: Path) -> None:
        self.daemon = daemon
        self._place = place
        self._tracker = tracker_url(daemon)

    def sample(self, name: str, *sizes: int) -> Sample:
        """Content that it seeds."""
        sample = make_sample(name, *sizes, tracker=self._tracker)
        path = sample.write(self._place)
        self.daemon.call("torrent.add", metainfo=sample.raw, seed_path=str(path))
        until(self.daemon, sample, lambda row: row["state"] == "seeding")
        return sample


def row_of(daemon: Daemon, sample: Sample) -> Row:
    """The row of this torrent."""
    rows: list[Row] = daemon.call("torrent.list", ids=[sample.info_hash.hex()])["torrents"]
    return rows[0]


def until(daemon: Daemon, sample: Sample, wanted: Callable[[Row], bool], *, for_s: float = 30.0) -> Row:
    """The row of this torrent as soon as it is as wanted."""
    rows: list[Row] = []

    def is_wanted() -> bool:
        rows[:] = [row_of(daemon, sample)]
        return wanted(rows[0])

    wait(is_wanted, lambda: f"{rows}\n{plain_log(daemon)[-4000:]}", for_s=for_s)
    return rows[0]


def plain_log(daemon: Daemon) -> str:
    """Its log without colours and without the calls."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", daemon.log()).splitlines(keepends=True)
    return "".join(line for line in lines if "rpc_call" not in line)


# ------------------------------------------------------------------------------------------------- mounts


@cache
def can_mount() -> bool:
    """Whether a process may have mounts of its own here."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    command = [*UNSHARE, "sh", "-c", "mount -t tmpfs none /mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


UNSHARE = ("unshare", "--mount", "--propagation", "private")

NO_MOUNTS = "mounts of one's own need privileges"

needs_mounts = pytest.mark.skipif(not can_mount(), reason=NO_MOUNTS)


def behind(*commands: str) -> tuple[str, ...]:
    """What to start a daemon with so that only it sees the mounts that these shell commands make."""
    return (*UNSHARE, "sh", "-c", " && ".join([*commands, 'exec "$@"']), "sh")


def at(daemon: Daemon, *command: str | Path) -> str:
    """Run a command where the daemon's mounts are seen."""
    assert daemon.process is not None
    done = subprocess.run(
        ["nsenter", "--target", str(daemon.process.pid), "--mount", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def seen_by(daemon: Daemon, path: Path) -> Path:
    """The way to a file as the daemon sees it."""
    assert daemon.process is not None
    return Path(f"/proc/{daemon.process.pid}/root{path}")


@contextmanager
def started(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon that has not crashed and told no traceback when it is over."""
    with daemon:
        yield daemon
        assert daemon.process is not None and daemon.process.poll() is None
        assert daemon.stop() == 0
    assert "Traceback" not in daemon.log(), plain_log(daemon)[-6000:]
