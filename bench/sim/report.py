"""What people get to see of the simulation: a table, pictures of the curves, and docs/SIMULATION.md."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from bench.sim.clock import TICK_S
from bench.sim.net import PEERS_GIVEN
from bench.sim.results import Runs, keep, kept
from bench.sim.scenarios import BLOCKS_PER_PIECE, CONNECTIONS, KIB, PIECES, UP

DOCS = Path(__file__).resolve().parents[2] / "docs"

INTRODUCTION = f"""\
# Simulated swarms

`microtorrd/core` decides everything a torrent does, and knows no sockets, files or clocks. So a swarm of a
thousand needs one process: `bench/sim` wires real cores together under a virtual clock, with a model of the
lines between them, and looks at what two processors could not hold as daemons.

```
make sim                                      # all of this page but the ten thousand; some minutes
make sim-large                                # the ten thousand, 16 connections each; a quarter of an hour
python -m bench.sim --seeds 3 fairness churn  # some of it, only the table
```

The same seeds give the same figures. What was run last of each scenario is kept in `simulation/`, and the
page is made of that. The value is the median of all seeds; an aim is met when it is met with every one.

The model: an uplink serves its connections in turns, a block each; downlink, latency and loss as the scenario
says; time in ticks of {TICK_S:g} s, and nothing is faster than a tick; messages cost no bandwidth. The
tracker gives {PEERS_GIVEN} addresses by lot. Unless a scenario says otherwise the content is {PIECES} pieces
of {BLOCKS_PER_PIECE * 16} KiB, a line {UP // KIB} KiB/s up and eight times that down; each peer has up to
{CONNECTIONS} connections and else the settings that everybody has.

The *fluid limit* is what no protocol can beat: for a content of S bytes, a seeder of u bytes per second and N
leechers of U up and D down, max(S/u, S/D, S·N/(u + N·U)).
"""


def table(everything: Sequence[Runs]) -> str:
    """The figures of all runs as a table of Markdown, which reads well on a terminal, too."""
    rows = [("scenario", "figure", "value", "of all seeds", "aim", "")]
    for runs in everything:
        seeds = len(runs.results)
        title = f"{runs.first.title} ({seeds} seed{'s' if seeds > 1 else ''})"
        for at, spread in enumerate(runs.spreads()):
            aim = spread.bounds.aim
            verdict = "" if not aim else ("met" if spread.good else "**not met**")
            rows.append(("" if at else title, spread.name, f"{spread.median:.2f}", spread.span, aim, verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def costs(everything: Sequence[Runs]) -> str:
    """What it took."""
    rows = ["| scenario | facts | processor time | memory |", "|---|---|---|---|"]
    for runs in everything:
        facts = statistics.median(result.facts for result in runs.results)
        cpu_s = statistics.median(result.cpu_s for result in runs.results)
        memory = max(result.memory_bytes for result in runs.results)
        rows.append(
            f"| {runs.first.title} | {facts / 1e6:.1f} million | {cpu_s:.0f} s | {memory >> 20} MiB |"
        )
    return "\n".join(rows)


def draw(everything: Sequence[Runs], folder: Path) -> list[str]:
    """Write the pictures, each of the first seed; returns their names."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    pyplot.rcParams.update(
        {"figure.figsize": (8, 4.5), "axes.grid": True, "grid.alpha": 0.3, "font.size": 10}
    )
    names = []

    def save(name: str) -> None:
        pyplot.legend(frameon=False)
        pyplot.tight_layout()
        pyplot.savefig(folder / name, dpi=110, metadata={"Software": None})
        pyplot.close()
        names.append(name)

    by_name = {runs.name: runs.first for runs in everything}
    for name, result in by_name.items():
        if name != "churn":
            times = [at / result.limit_s for at, _ in result.curves["done"]]
            pyplot.plot(times, [100 * share for _, share in result.curves["done"]], label=result.title)
    pyplot.axvline(1.0, color="grey", linestyle=":", label="fluid limit")
    pyplot.xlabel("time / fluid limit")
    pyplot.ylabel("done, % of the leechers")
    save("sim-completion.png")

    for name in ("distribute", "distribute-10000"):
        if name in by_name:
            result = by_name[name]
            for label, curve in (("mean progress", "progress"), ("done", "done")):
                pyplot.plot(
                    [at for at, _ in result.curves[curve]],
                    [100 * share for _, share in result.curves[curve]],
                    label=label,
                )
            pyplot.axvline(result.limit_s, color="grey", linestyle=":", label="fluid limit")
            pyplot.title(result.title)
            pyplot.xlabel("virtual seconds")
            pyplot.ylabel("%")
            save(f"sim-{name}.png")
    if "distribute" in by_name:
        copies = sorted(by_name["distribute"].copies)
        pyplot.bar(range(len(copies)), copies, width=1.0, label="copies of each piece, sorted")
        pyplot.title("Half way: how many leechers have each piece")
        pyplot.xlabel("pieces")
        pyplot.ylabel("leechers that have it")
        save("sim-spread.png")
    if "fairness" in by_name:
        result = by_name["fairness"]
        for kind in ("fast", "slow", "free rider"):
            points = result.curves[kind]
            pyplot.step(
                [at for at, _ in points], [100 * share for _, share in points], where="post", label=kind
            )
        pyplot.title("Who gives more is done earlier")
        pyplot.xlabel("virtual seconds")
        pyplot.ylabel("done, % of the group")
        save("sim-fairness.png")
    return names


CAPTIONS = {
    "sim-completion.png": "Completion curves, each against its own fluid limit",
    "sim-distribute.png": "Progress and completion of a thousand",
    "sim-distribute-10000.png": "Progress and completion of ten thousand",
    "sim-spread.png": "Copies of each piece when half of everything is there",
    "sim-fairness.png": "Completion of fast givers, slow givers and free riders",
}


def write(fresh: Sequence[Runs], known: Sequence[str], findings: str) -> None:
    """Keep these runs; make the pictures and the page of all that are kept."""
    for runs in fresh:
        keep(runs, DOCS / "simulation")
    everything = kept(known, DOCS / "simulation")
    pictures = draw(everything, DOCS / "images")
    parts = [
        INTRODUCTION,
        "## Figures\n",
        table(everything) + "\n",
        "What a run took:\n",
        costs(everything) + "\n",
    ]
    parts += [f"![{CAPTIONS[name]}](images/{name})\n" for name in pictures]
    parts.append(findings)
    (DOCS / "SIMULATION.md").write_text("\n".join(parts), encoding="utf-8")
