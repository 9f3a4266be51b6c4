"""Pictures of what was measured: bars, with the range of all rounds as a line across their ends."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.measure import Row

FOLDER = Path(__file__).parents[1] / "docs" / "images"

OURS, OTHERS, LIMIT = "#2a6f97", "#9aa5b1", "#52796f"


@dataclass(frozen=True)
class Picture:
    """The rows of a suite with this unit, under this title."""

    name: str
    unit: str
    title: str


PICTURES = {
    "pair": (Picture("bench-pair.png", "MB/s", "One to one over loopback, 1 GiB"),),
    "rivals": (Picture("bench-rivals.png", "MB/s", "Each client to itself, one to one"),),
    "fanout": (
        Picture("bench-fanout.png", "s", "Until the last of eight is done, seeder capped"),
        Picture("bench-fanout-free.png", "MB/s", "One to four, uncapped, all together"),
    ),
    "connections": (Picture("bench-connections.png", "MB/s", "One seeder, one and many connections"),),
}


def bars(rows: Sequence[Row], unit: str) -> dict[str, list[float]]:
    """What each bar shows: figures by label, each label once. Rows that go on about the one above (`…`) have
    its figures of ours."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.unit != unit or not row.theirs:
            continue
        if not row.name.startswith("…"):
            found.setdefault(f"microtorrd: {row.name}", row.ours)
        found.setdefault(row.other, row.theirs)
    return found


def draw(suite: str, rows: Sequence[Row], folder: Path = FOLDER) -> dict[str, str]:
    """Write the suite's pictures; their captions by name. None where nothing is to be seen."""
    drawn: dict[str, str] = {}
    if find_spec("matplotlib") is None:
        return drawn
    for picture in PICTURES.get(suite, ()):
        found = bars(rows, picture.unit)
        if found:
            folder.mkdir(parents=True, exist_ok=True)
            _draw(picture, found, folder / picture.name)
            drawn[picture.name] = picture.title
    return drawn


def _draw(picture: Picture, found: dict[str, list[float]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    labels = list(found)
    medians = [statistics.median(values) for values in found.values()]
    below = [median - min(values) for median, values in zip(medians, found.values(), strict=True)]
    above = [max(values) - median for median, values in zip(medians, found.values(), strict=True)]
    colours = [
        OURS if "microtorrd" in label else LIMIT if label == "fluid limit" else OTHERS for label in labels
    ]
    pyplot.figure(figsize=(8, 1.1 + 0.45 * len(labels)))
    drawn = pyplot.barh(range(len(labels)), medians, xerr=[below, above], color=colours, capsize=3)
    pyplot.bar_label(drawn, fmt="%.3g", label_type="center", color="white")
    pyplot.yticks(range(len(labels)), labels)
    pyplot.gca().invert_yaxis()
    pyplot.xlabel(picture.unit)
    pyplot.title(picture.title)
    pyplot.tight_layout()
    pyplot.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close()
