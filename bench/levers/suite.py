"""The table of all levers: what each is worth, where it is said to pay."""

from __future__ import annotations

import statistics
import sys
import time
import traceback
from collections.abc import Collection, Sequence

from bench import tables
from bench.levers import lives, transfers
from bench.levers.catalogue import LEVERS
from bench.levers.stages import Figure, Stage, compare
from bench.levers.swaps import NOTHING, Lever
from bench.measure import Row, spread, workplace

STAGES: dict[str, type[Stage]] = {
    "pair": transfers.Pair,
    "from-libtorrent": transfers.FromLibtorrent,
    "small-pieces": transfers.SmallPieces,
    "crowd": transfers.Crowd,
    "fanout": transfers.Fanout,
    "check": lives.Check,
    "confirm": lives.Confirm,
    "many": lives.Many,
    "pause": lives.Pause,
    "tracker": lives.Announces,
    "core": lives.Core,
    "waking": lives.Waking,
}

#: What is less than this is not worth its code, should it be there at all.
WORTH = 1.02

HEAD = ("lever", "where", "with", "without", "ratio, median (range)", "")


def rows(most_rounds: int = 5, names: Collection[str] = ()) -> list[Row]:
    """Measure the levers of these names, or all; one row for each figure. `aim` has what came of it."""
    chosen = [lever for lever in LEVERS.values() if not names or lever.name in names]
    found: dict[tuple[str, str], Row] = {}
    with workplace() as home:
        for key, kind in STAGES.items():
            here = [lever for lever in chosen if figures_at(lever, key)]
            if here:
                began = time.perf_counter()
                found.update(at_stage(kind(home / key), key, here, most_rounds))
                print(f"  {key}: {time.perf_counter() - began:.0f} s", flush=True)
    return [found[lever.name, show] for lever in chosen for show in lever.shows]


def figures_at(lever: Lever, key: str) -> list[str]:
    """The figures of this stage in which the lever should show."""
    return [show.partition(".")[2] for show in lever.shows if show.partition(".")[0] == key]


def at_stage(stage: Stage, key: str, levers: Sequence[Lever], most_rounds: int) -> dict[tuple[str, str], Row]:
    """All levers that show there. One that cannot be measured leaves a note in its rows."""
    found: dict[tuple[str, str], Row] = {}
    with stage:
        if stage.why_not:
            for lever in levers:
                found.update(not_measured(stage, key, lever, stage.why_not))
            return found
        for lever in levers:
            names = figures_at(lever, key)
            try:
                # The side with everything begins anew for each, too: neither is older than the other.
                with stage.side(NOTHING, frozenset(names)) as plain:
                    measured = compare(stage, lever.name, plain, names, most_rounds)
            except Exception as error:
                traceback.print_exc()
                found.update(not_measured(stage, key, lever, f"{type(error).__name__}: {error}"))
                continue
            for name, row in zip(names, measured, strict=True):
                row.aim = verdict(row, stage.figures[name])
                found[lever.name, f"{key}.{name}"] = row
                print(f"  {lever.name}: {' | '.join(cells(row))}", flush=True)
    return found


def not_measured(stage: Stage, key: str, lever: Lever, why: str) -> dict[tuple[str, str], Row]:
    """Rows that say so."""
    print(f"  {lever.name}: not measured at {key}: {why}", file=sys.stderr, flush=True)
    return {
        (lever.name, f"{key}.{name}"): Row(
            f"{stage.name}: {stage.figures[name].words}",
            stage.figures[name].unit,
            "not measured",
            note=f"not measured: {why.splitlines()[0]}",
        )
        for name in figures_at(lever, key)
    }


def verdict(row: Row, figure: Figure) -> str:
    """Whether it pays: in the middle by what is worth it, and in every pair."""
    gains = [
        one / other if figure.more_is_better else other / one
        for one, other in zip(row.ours, row.theirs, strict=True)
    ]
    middle = statistics.median(gains)
    if middle >= WORTH and min(gains) > 1:
        return "pays"
    if middle <= 1 / WORTH and max(gains) < 1:
        return "**costs**"
    return "not seen to pay" if middle < WORTH else "pays, not in every pair"


def cells(row: Row) -> list[str]:
    """A row's cells, but for the lever."""
    ratio = row.ratio()
    return [
        row.name,
        spread(row.ours, row.unit),
        spread(row.theirs, row.unit),
        "–" if ratio is None else f"{ratio[0]:.2f} ({ratio[1]:.2f}–{ratio[2]:.2f})",
        row.aim,
    ]


def section(title: str, rows: Sequence[Row], pictures: object = None) -> str:
    """The table, as `tables.section` makes those of the other suites."""
    lines = [f"### {title}", "", tables.machine(), "", f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    left = list(rows)
    notes = []
    for lever in LEVERS.values():
        for number, _ in enumerate(lever.shows):
            row = left.pop(0)
            first = f"`{lever.name}`: {lever.what}" if not number else "…"
            lines.append(f"| {first} | {' | '.join(cells(row))} |")
            if row.note:
                notes.append(f"- `{lever.name}`: {row.note}")
        if lever.besides:
            notes.append(f"- `{lever.name}` is there because {lever.besides}, whatever it costs.")
    return "\n".join([*lines, *(["", *notes] if notes else [])])
