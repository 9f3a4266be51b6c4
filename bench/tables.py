"""What was measured as tables of Markdown, and their places in `docs/BENCHMARKS.md`.

Each suite has a section of its own there, headed by a line with its name, so that one can be measured anew
while the others stay.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import libtorrent

from bench.measure import Row

DOCUMENT = Path(__file__).parents[1] / "docs" / "BENCHMARKS.md"

#: Between these lines of the document lie the sections.
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"

HEAD = ("what", "microtorrd", "beside it", "ratio, median (range)", "aim", "")

#: An aim that a program can judge: how, how much, and of what.
AIM = re.compile(r"(?P<how>[<>≤≥]) (?P<much>[0-9.]+)(?: (?P<unit>[^( ]+))?")


def section(title: str, rows: Sequence[Row], pictures: Mapping[str, str]) -> str:
    """One suite: what it ran on, its table, what there is to say about rows, pictures (captions by name)."""
    lines = [f"### {title}", "", machine(), "", f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    lines += [f"| {' | '.join([*row.cells(), verdict(row)])} |" for row in rows]
    notes = [
        f"- {row.name.removeprefix('… ')}{f' ({row.other})' if row.other else ''}: {row.note}"
        for row in rows
        if row.note
    ]
    if notes:
        lines += ["", *notes]
    for name, caption in pictures.items():
        lines += ["", f"![{caption}](images/{name})"]
    return "\n".join(lines)


def verdict(row: Row) -> str:
    """Whether the row's aim is met; empty where it has none that can be judged. An aim with the row's unit is
    one for our own figure, any other one for the ratio where there is one."""
    aim = AIM.match(row.aim)
    if aim is None or not row.ours:
        return ""
    ratio = row.ratio()
    own = ratio is None or aim["unit"] == row.unit
    value = statistics.median(row.ours) if own or ratio is None else ratio[0]
    much = float(aim["much"])
    is_met = {"<": value < much, ">": value > much, "≤": value <= much, "≥": value >= much}[aim["how"]]
    return "met" if is_met else "**not met**"


def machine() -> str:
    """What it ran on, and against."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    commit = _git("rev-parse", "--short", "HEAD") or "unknown"
    if _git("status", "--porcelain", "--untracked-files=no", "--", "microtorrd", "mtorrctl", "bench"):
        commit += " with changes"
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d} at commit {commit} on {os.cpu_count()} cores"
        f" ({model[1] if model else platform.machine()}), Linux {platform.release().split('-')[0]},"
        f" Python {platform.python_version()}, libtorrent {libtorrent.__version__}."
    )


def _git(*words: str) -> str:
    command = ["git", "-C", str(DOCUMENT.parents[1]), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def write(sections: Mapping[str, str], order: Iterable[str], document: Path = DOCUMENT) -> None:
    """Put these sections, by the names of their suites, into their places; the others stay as they are."""
    before, rest = document.read_text(encoding="utf-8").split(BEGIN)
    middle, after = rest.split(END)
    parts = re.split(r"^<!-- suite: (\S+) -->$", middle, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))
    found.update(sections)
    ordered = [name for name in order if name in found]
    ordered += [name for name in found if name not in ordered]
    body = "\n\n".join(f"<!-- suite: {name} -->\n\n{found[name]}" for name in ordered)
    new = f"{before}{BEGIN}\n\n{body}\n\n{END}{after}"
    # Whole or not at all: a run that is interrupted here must not cost the document.
    scratch = document.with_name(document.name + ".new")
    scratch.write_text(new, encoding="utf-8")
    scratch.replace(document)
