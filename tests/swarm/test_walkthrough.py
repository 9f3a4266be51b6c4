"""The original's walk-through, word for word: a tracker, two leechers that wait, and a seeder with a limit.

Both leechers end with the file and their figures, about half of it from the seeder and half from each other;
and since the seeder's limit is that of the whole program, none of it can be faster than the file once through
that limit. That time is the fluid limit, and here is how near we come.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import Run, Stage, digest


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


def walk(stage: Stage, size: int, limit_kb_per_s: int) -> tuple[list[Run], float]:
    """The walk-through with a file of this size.

    Returns the leechers when they have ended, and how many seconds that took once the seeder was there.
    """
    freeware = stage.directory / "freeware"
    freeware.write_bytes(random.Random(9).randbytes(size))
    tracker = stage.tracker("-v", "2")
    assert stage.microtorr("createMtorr", "freeware", "-t", stage.url).wait() == 0
    load = stage.microtorr("loadMtorr", "freeware.mtorrent")
    assert load.wait() == 0
    assert f"File Length: {size}\n" in load.text
    assert f"Id Hash:{digest(freeware)}\n" in load.text

    mtorrent = Path("../freeware.mtorrent")
    leechers = [
        stage.microtorr("download", mtorrent, "-i", "lo", "-p", "0", cwd=stage.directory / name)
        for name in ("leecher-1", "leecher-2")
    ]
    for run in leechers:
        run.wait_for(r"freeware: 0\.0% waiting")
    seeder = stage.microtorr(
        *("download", "freeware.mtorrent", "-i", "lo", "-p", "0"),
        *("-v", "2", "-s", "freeware", "-u", str(limit_kb_per_s)),
    )
    seeder.wait_for("Seeding freeware until interrupted")
    began = time.monotonic()
    assert [run.wait(20 * size / (1000 * limit_kb_per_s)) for run in leechers] == [0, 0]
    took_s = time.monotonic() - began
    assert digest(stage.directory / "leecher-1/freeware") == digest(freeware)
    assert digest(stage.directory / "leecher-2/freeware") == digest(freeware)
    assert seeder.interrupt() == 0
    assert tracker.interrupt() == 0
    assert tracker.text.count("event=started") == 6  # three peers, in two dialects each
    assert "event=completed" in tracker.text
    assert "event=stopped" in tracker.text
    return leechers, took_s


def figures(run: Run) -> tuple[float, list[int], int]:
    """Of the block at the end: MB/s, the share of each peer and that of seeders, both in per cent."""
    found = re.search(
        r"---------------- DOWNLOAD STATS ----------------\n"
        r"Average speed: (\d+\.\d{3}) MB/s\n"
        r"((?:Peer \w{5}: \d+% of pieces downloaded\n)+)"
        r"Downloaded from Seeders: (\d+)%\n"
        r"---------------- END ----------------\n",
        run.text,
    )
    assert found is not None, run.text
    return float(found[1]), [int(share) for share in re.findall(r"(\d+)%", found[2])], int(found[3])


def check_figures(leechers: list[Run], limit_kb_per_s: int) -> list[int]:
    """Each leecher's figures fit together. Returns the shares from the seeder."""
    from_seeder = []
    for run in leechers:
        speed, shares, seeders = figures(run)
        assert 0 < speed <= 1.3 * limit_kb_per_s / 1000
        assert 98 <= sum(shares) <= 102
        assert len(shares) == 2
        assert seeders in shares
        from_seeder.append(seeders)
    return from_seeder


def test_the_walk_through_in_small(stage: Stage) -> None:
    leechers, _ = walk(stage, 12_000_000, 3000)
    shares = check_figures(leechers, 3000)
    # What one has of the seeder the other has of the first.
    assert 85 <= sum(shares) <= 135


@pytest.mark.slow
def test_the_walk_through(stage: Stage) -> None:
    size = 100 << 20
    leechers, took_s = walk(stage, size, 3000)
    assert all(35 <= share <= 65 for share in check_figures(leechers, 3000))
    assert took_s <= 1.2 * size / 3_000_000
