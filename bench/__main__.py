"""All benchmarks side by side, and the tables of `docs/BENCHMARKS.md`.

    make bench                        everything, about a quarter of an hour
    python -m bench pair fanout       only these, without touching the document
    python -m bench --rounds 3 ...    fewer rounds

Nothing else should run meanwhile: two things measured at once are two wrong figures.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import libtorrent

from bench import fanout, idle, pair, single
from bench.measure import Row

DOCUMENT = Path(__file__).parents[1] / "docs" / "BENCHMARKS.md"

#: Between these lines of the document the tables are replaced.
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"

HEAD = ("what", "microtorrd", "beside it", "ratio, median (range)", "aim")

SUITES: dict[str, tuple[str, Callable[[int], list[Row]]]] = {
    "pair": ("One to one", pair.rows),
    "fanout": ("One to many", fanout.rows),
    "single": ("One process", lambda rounds: single.rows(max(1, rounds - 2))),
    "idle": ("Thousands of torrents", lambda rounds: idle.rows(5000)),
}


def main() -> int:
    """Run what is asked for; print tables; write the document when everything ran."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure, and write the tables down."
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each row (default 5)")
    options = parser.parse_args()
    unknown = [name for name in options.suites if name not in SUITES]
    if unknown:
        parser.error(f"there is no suite {unknown[0]!r}; there are {', '.join(SUITES)}")
    tables = []
    for name in options.suites or SUITES:
        title, measure = SUITES[name]
        print(f"{name}:", flush=True)
        table = markdown(title, measure(options.rounds))
        tables.append(table)
        print(table, flush=True)
    if not options.suites:
        write(f"{machine()}\n\n" + "\n\n".join(tables))
        print(f"written to {DOCUMENT.name}")
    return 0


def markdown(title: str, rows: list[Row]) -> str:
    """A table."""
    lines = [f"### {title}", "", f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    lines += [f"| {' | '.join(row.cells())} |" + (f" {row.note}" if row.note else "") for row in rows]
    return "\n".join(lines)


def machine() -> str:
    """What it ran on, and against."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d} at commit {commit} on {os.cpu_count()} cores"
        f" ({model[1] if model else platform.machine()}), Linux {platform.release().split('-')[0]},"
        f" Python {platform.python_version()}, libtorrent {libtorrent.__version__}."
    )


def write(tables: str) -> None:
    """Put the tables into their place in the document."""
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
