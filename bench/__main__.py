"""All benchmarks side by side, and the tables of `docs/BENCHMARKS.md`.

    make bench                        everything, about twenty minutes
    python -m bench pair fanout       only these, without touching the document
    python -m bench --write pair      only this, and its section of the document
    python -m bench --rounds 3 ...    fewer rounds

Nothing else should run meanwhile: two things measured at once are two wrong figures. A suite that fails, or
takes far too long, leaves its section of the document as it was, and the others go on.
"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from bench import connections, core, fanout, idle, latency, pair, pictures, rivals, single, tables, tracker
from bench.measure import Row

#: No suite may take longer: twice what the longest needs.
SUITE_S = 10 * 60

SUITES: dict[str, tuple[str, Callable[[int], list[Row]]]] = {
    "pair": ("One to one", pair.rows),
    "rivals": ("One to one, each client to itself", rivals.rows),
    "fanout": ("One to many", fanout.rows),
    "connections": ("One to very many", connections.rows),
    "latency": ("How soon it answers", latency.rows),
    "single": ("One process", lambda rounds: single.rows(max(1, rounds - 2))),
    "tracker": ("Announces", tracker.rows),
    "idle": ("Thousands of torrents", lambda rounds: idle.rows(5000)),
    "core": ("What the core takes for it", core.rows),
}


def main() -> int:
    """Run what is asked for; print tables; write them down. 1 where a suite failed."""
    options = parser().parse_args()
    unknown = [name for name in options.suites if name not in SUITES]
    if unknown:
        parser().error(f"there is no suite {unknown[0]!r}; there are {', '.join(SUITES)}")
    is_written = options.write or not options.suites
    failed = []
    signal.signal(signal.SIGTERM, _end)
    for name in options.suites or SUITES:
        title, measure = SUITES[name]
        print(f"{name}:", flush=True)
        try:
            with at_most(SUITE_S):
                rows = measure(options.rounds)
        except (Exception, Overdue):
            traceback.print_exc()
            failed.append(name)
            continue
        drawn = pictures.draw(name, rows) if is_written else {}
        section = tables.section(title, rows, drawn)
        print(section, flush=True)
        if is_written:
            tables.write({name: section}, SUITES)
            print(f"written to {tables.DOCUMENT.name}", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure, and write the tables down."
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each row (default 5)")
    parser.add_argument(
        "--write", action="store_true", help="replace the sections of these suites in the document"
    )
    return parser


class Overdue(BaseException):
    """A suite took too long. Not an error that anybody on the way may take for one of its own."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Overdue where it takes longer, wherever it is waiting."""

    def over(*_: object) -> NoReturn:
        raise Overdue(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _end(*_: object) -> NoReturn:
    # An exception, so that whoever has started processes or made namespaces ends them.
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
