"""`python -m bench.sim`: run the scenarios, two at a time, and print what they showed.

With names only those are run. `--seeds` runs each with several seeds: every aim has to be met with every one.
`--write` keeps the results in docs/simulation, and makes the pictures and docs/SIMULATION.md of all that lie
there; `--page` does that alone. Exit code 1 when a figure is not what it should be.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from bench.sim import report
from bench.sim.figures import Result
from bench.sim.results import Runs
from bench.sim.scenarios import LARGE, SCENARIOS, run

#: What was learnt from the simulation, in words: the end of the page.
FINDINGS = Path(__file__).with_name("findings.md")


def main() -> int:
    """Run, print, write."""
    known = [*SCENARIOS, *LARGE]
    parser = argparse.ArgumentParser(prog="python -m bench.sim", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=", ".join(known))
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="run each with the seeds 1 to N")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="runs at a time")
    parser.add_argument("--write", action="store_true", help="write docs/SIMULATION.md and docs/images")
    parser.add_argument("--page", action="store_true", help="run nothing: write the page of what is kept")
    arguments = parser.parse_args()
    findings = FINDINGS.read_text(encoding="utf-8")
    if arguments.page:
        report.write([], known, findings)
        return 0
    if unknown := [name for name in arguments.names if name not in known]:
        parser.error(f"there is no scenario {unknown[0]}")
    if arguments.seeds < 1 or arguments.jobs < 1:
        parser.error("--seeds and --jobs are 1 or more")
    names = arguments.names or list(SCENARIOS)
    everything = run_all(names, range(1, arguments.seeds + 1), jobs=arguments.jobs)
    print(report.table(everything))
    print(report.costs(everything))
    if arguments.write:
        report.write(everything, known, findings)
    return 0 if all(runs.good for runs in everything) else 1


def run_all(names: Iterable[str], seeds: Iterable[int], *, jobs: int) -> list[Runs]:
    """Every scenario with every seed, each in a process of its own."""
    wanted = [(name, seed) for name in names for seed in seeds]
    results: dict[tuple[str, int], Result] = {}
    with ProcessPoolExecutor(max_workers=jobs, max_tasks_per_child=1) as pool:
        under_way = {pool.submit(run, *one): one for one in wanted}
        for job in as_completed(under_way):
            name, seed = under_way[job]
            results[name, seed] = result = job.result()
            print(f"{name}, seed {seed}: {result.cpu_s:.0f} s of processor time", file=sys.stderr, flush=True)
    return [Runs(name, [results[one] for one in wanted if one[0] == name]) for name in names]


if __name__ == "__main__":
    sys.exit(main())
