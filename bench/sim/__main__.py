"""`python -m bench.sim`: run the scenarios, two at a time, and print what they showed.

With names only those are run. `--write` makes the pictures and docs/SIMULATION.md as well. Exit code 1 when a
figure is not what it should be.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from bench.sim import report
from bench.sim.scenarios import LARGE, SCENARIOS, run

#: What was learnt from the simulation, in words: the end of the page.
FINDINGS = Path(__file__).with_name("findings.md")


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.sim", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=", ".join([*SCENARIOS, *LARGE]))
    parser.add_argument("--write", action="store_true", help="write docs/SIMULATION.md and docs/images")
    arguments = parser.parse_args()
    names = arguments.names or list(SCENARIOS)
    if unknown := [name for name in names if name not in SCENARIOS and name not in LARGE]:
        parser.error(f"there is no scenario {unknown[0]}")
    results = {}
    with ProcessPoolExecutor(max_workers=min(2, os.cpu_count() or 1), max_tasks_per_child=1) as pool:
        jobs = {pool.submit(run, name): name for name in names}
        for job in as_completed(jobs):
            results[jobs[job]] = job.result()
            print(
                f"{jobs[job]}: {results[jobs[job]].cpu_s:.0f} s of processor time",
                file=sys.stderr,
                flush=True,
            )
    ordered = [results[name] for name in names]
    print(report.table(ordered))
    print(report.costs(ordered))
    if arguments.write:
        report.write(ordered, FINDINGS.read_text(encoding="utf-8"))
    return 0 if all(result.good for result in ordered) else 1


if __name__ == "__main__":
    sys.exit(main())
