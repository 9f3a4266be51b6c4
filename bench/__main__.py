"""All benchmarks side by side, and the tables of `docs/BENCHMARKS.md`.

    make bench                        everything but the levers, about twenty minutes
    make bench-levers                 what each optimisation is worth, about ten
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
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from bench import (
    alive,
    connections,
    core,
    fanout,
    idle,
    latency,
    pair,
    pictures,
    resting,
    rivals,
    single,
    tables,
    tracker,
)
from bench.levers import suite as levers
from bench.measure import Row

#: No suite may take longer: twice what the longest needs.
SUITE_S = 10 * 60
LEVERS_S = 30 * 60


@dataclass(frozen=True)
class Suite:
    """What belongs together in the document. `measure` gets the number of rounds."""

    title: str
    measure: Callable[[int], list[Row]]
    section: Callable[[str, Sequence[Row], Mapping[str, str]], str] = tables.section
    at_most_s: int = SUITE_S
    #: Whether it runs where no suite is named.
    is_usual: bool = True


SUITES: dict[str, Suite] = {
    "pair": Suite("One to one", pair.rows),
    "rivals": Suite("One to one, each client to itself", rivals.rows),
    "fanout": Suite("One to many", fanout.rows),
    "connections": Suite("One to very many", connections.rows),
    "resting": Suite("Very many at rest", lambda rounds: resting.rows()),
    "latency": Suite("How soon it answers", latency.rows),
    "single": Suite("One process", lambda rounds: single.rows(max(1, rounds - 2))),
    "tracker": Suite("Announces", tracker.rows),
    "idle": Suite("Thousands of torrents", lambda rounds: idle.rows(5000)),
    "alive": Suite("Keep-alives", lambda rounds: alive.rows(5000, rounds)),
    "core": Suite("What the core takes for it", core.rows),
    "levers": Suite(
        "What each lever is worth", levers.rows, levers.section, at_most_s=LEVERS_S, is_usual=False
    ),
}


def main() -> int:
    """Run what is asked for; print tables; write them down. 1 where a suite failed."""
    options = parser().parse_args()
    unknown = [name for name in options.suites if name not in SUITES]
    if unknown:
        parser().error(f"there is no suite {unknown[0]!r}; there are {', '.join(SUITES)}")
    is_written = options.write or not options.suites
    names = options.suites or [name for name, suite in SUITES.items() if suite.is_usual]
    outcomes: dict[str, str] = {}
    signal.signal(signal.SIGTERM, _end)
    began = time.monotonic()
    for number, name in enumerate(names, 1):
        print(f"{name} ({number} of {len(names)}, after {minutes(began)}):", flush=True)
        suite_began = time.monotonic()
        problem = run(name, options.rounds, is_written=is_written)
        outcomes[name] = f"{minutes(suite_began)}{f', FAILED: {problem}' if problem else ''}"
        print(f"{name}: {outcomes[name]}\n", flush=True)
    print(f"all in {minutes(began)}: {'; '.join(f'{name} {said}' for name, said in outcomes.items())}")
    failed = [name for name, said in outcomes.items() if "FAILED" in said]
    if failed:
        print(f"failed, and left as it was in the document: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(name: str, rounds: int, *, is_written: bool) -> str:
    """Measure one suite, print it, write it down. What went wrong; empty where nothing did."""
    suite = SUITES[name]
    try:
        with at_most(suite.at_most_s):
            rows = suite.measure(rounds)
    except (Exception, Overdue) as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}".splitlines()[0]
    drawn = pictures.draw(name, rows) if is_written else {}
    section = suite.section(suite.title, rows, drawn)
    print(section, flush=True)
    if is_written:
        tables.write({name: section}, SUITES)
        print(f"written to {tables.DOCUMENT.name}", flush=True)
    return ""


def minutes(since_s: float) -> str:
    """How long that was."""
    whole, seconds = divmod(round(time.monotonic() - since_s), 60)
    return f"{whole} min {seconds} s" if whole else f"{seconds} s"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure, and write the tables down."
    )
    usual = ", ".join(name for name, suite in SUITES.items() if suite.is_usual)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"{usual} (by default all), or levers")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each row at most (default 5)")
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
