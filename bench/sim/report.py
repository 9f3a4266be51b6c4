"""What people get to see of the simulation: a table, pictures of the curves, and docs/SIMULATION.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.sim.net import PEERS_GIVEN, TICK_S
from bench.sim.scenarios import BLOCKS_PER_PIECE, CONNECTIONS, KIB, PIECES, UP, Result

DOCS = Path(__file__).resolve().parents[2] / "docs"

INTRODUCTION = f"""\
# Simulated swarms

`microtorrd/core` decides everything a torrent does, and knows no sockets, files or clocks. So a swarm of a
thousand needs one process: `bench/sim` wires real cores together under a virtual clock, with a model of the
lines between them, and looks at what two processors could not hold as daemons.

```
make sim                                      # all of this page; a few minutes
python -m bench.sim fairness churn            # some of it, only the table
python -m bench.sim distribute-10000          # ten thousand, 16 connections each: many minutes, 6 GB or more
```

The same seeds give the same figures. The model: an uplink serves its connections in turns, a block each;
downlink, latency and loss as the scenario says; time in ticks of {TICK_S:g} s, and nothing is faster than a
tick; messages cost no bandwidth. The tracker gives {PEERS_GIVEN} addresses by lot. Unless a scenario says
otherwise the content is {PIECES} pieces of {BLOCKS_PER_PIECE * 16} KiB, a line {UP // KIB} KiB/s up and eight
times that down; each peer has up to {CONNECTIONS} connections and else the settings that everybody has.

The *fluid limit* is what no protocol can beat: for a content of S bytes, a seeder of u bytes per second and N
leechers of U up and D down, max(S/u, S/D, S·N/(u + N·U)).
"""


def table(results: Sequence[Result]) -> str:
    """The figures of all runs as a table of Markdown, which reads well on a terminal, too."""
    rows = [("scenario", "figure", "value", "aim", "")]
    for result in results:
        for at, figure in enumerate(result.figures):
            verdict = "" if not figure.aim else ("met" if figure.good else "**not met**")
            rows.append(
                (result.title if not at else "", figure.name, f"{figure.value:.2f}", figure.aim, verdict)
            )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def costs(results: Sequence[Result]) -> str:
    """What it took."""
    facts, cpu_s = sum(result.facts for result in results), sum(result.cpu_s for result in results)
    return (
        f"{facts / 1e6:.1f} million facts handled by {sum(result.hosts for result in results):,} cores in "
        f"{cpu_s:.0f} s of processor time."
    )


def draw(results: Sequence[Result], folder: Path) -> list[str]:
    """Write the pictures; returns their names."""
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

    for result in results:
        if result.name != "churn":
            times = [at / result.limit_s for at, _ in result.curves["done"]]
            pyplot.plot(times, [100 * share for _, share in result.curves["done"]], label=result.title)
    pyplot.axvline(1.0, color="grey", linestyle=":", label="fluid limit")
    pyplot.xlabel("time / fluid limit")
    pyplot.ylabel("done, % of the leechers")
    save("sim-completion.png")

    by_name = {result.name: result for result in results}
    if "distribute" in by_name:
        result = by_name["distribute"]
        for label, name in (("mean progress", "progress"), ("done", "done")):
            pyplot.plot(
                [at for at, _ in result.curves[name]],
                [100 * share for _, share in result.curves[name]],
                label=label,
            )
        pyplot.axvline(result.limit_s, color="grey", linestyle=":", label="fluid limit")
        pyplot.title(result.title)
        pyplot.xlabel("virtual seconds")
        pyplot.ylabel("%")
        save("sim-distribute.png")
        pyplot.bar(
            range(len(result.copies)), sorted(result.copies), width=1.0, label="copies of each piece, sorted"
        )
        pyplot.title("Half way: how many leechers have each piece")
        pyplot.xlabel("pieces")
        pyplot.ylabel("leechers that have it")
        save("sim-spread.png")
    if "fairness" in by_name:
        result = by_name["fairness"]
        for kind in ("fast", "slow", "free rider"):
            curve = result.curves[kind]
            pyplot.step(
                [at for at, _ in curve], [100 * share for _, share in curve], where="post", label=kind
            )
        pyplot.title("Who gives more is done earlier")
        pyplot.xlabel("virtual seconds")
        pyplot.ylabel("done, % of the group")
        save("sim-fairness.png")
    return names


CAPTIONS = {
    "sim-completion.png": "Completion curves, each against its own fluid limit",
    "sim-distribute.png": "Progress and completion of the largest swarm",
    "sim-spread.png": "Copies of each piece when half of everything is there",
    "sim-fairness.png": "Completion of fast givers, slow givers and free riders",
}


def write(results: Sequence[Result], findings: str) -> None:
    """The pictures and the page."""
    pictures = draw(results, DOCS / "images")
    parts = [INTRODUCTION, "## Figures\n", table(results) + "\n", costs(results) + "\n"]
    parts += [f"![{CAPTIONS[name]}](images/{name})\n" for name in pictures]
    parts.append(findings)
    (DOCS / "SIMULATION.md").write_text("\n".join(parts), encoding="utf-8")
