"""Measure some levers, without writing anything down: `python -m bench.levers [--rounds N] LEVER...`"""

from __future__ import annotations

import argparse
import sys

from bench.levers import suite
from bench.levers.catalogue import LEVERS


def main() -> int:
    """All of them where none is named."""
    parser = argparse.ArgumentParser(prog="python -m bench.levers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="LEVER", help=", ".join(LEVERS))
    parser.add_argument("--rounds", type=int, default=5, help="pairs of each at most (default 5)")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in LEVERS]:
        parser.error(f"there is no lever {unknown[0]!r}")
    measured = suite.rows(options.rounds, options.names)
    return 0 if all(row.ours for row in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
