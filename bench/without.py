"""The daemon as it is, but for one optimisation: `python -m bench.without LEVER [OPTIONS OF MICROTORRD]`

With `--probe FILE` in front of LEVER its hub is watched, as `bench.probed` does it. The levers are listed by
`python -m bench.without`; with `nothing` all stay, for who compares a daemon with its like. Exit code 2 and a
word on the error stream where there is no such lever, or nothing left in the product that it could take away.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import sys
from collections.abc import Sequence
from pathlib import Path

from bench import probed
from bench.levers.catalogue import LEVERS
from bench.levers.swaps import NOTHING, Gone
from microtorrd.__main__ import main

USAGE = 2


def without(arguments: Sequence[str]) -> int:
    """Take the lever away, and run."""
    words = list(arguments)
    probe = None
    if words[:1] == ["--probe"]:
        probe, words = Path(words[1]), words[2:]
    if words[:1] == [NOTHING]:
        return run(probe, words[1:])
    if not words or words[0] not in LEVERS:
        for lever in LEVERS.values():
            print(f"{lever.name:<22}{lever.what}", file=sys.stderr)
        return USAGE
    try:
        LEVERS[words[0]].take_away()
    except Gone as error:
        print(f"{words[0]} cannot be taken away: {error}", file=sys.stderr)
        return USAGE
    return run(probe, words[1:])


def run(probe: Path | None, options: Sequence[str]) -> int:
    """The daemon, watched or not."""
    if probe is not None:
        probed.Probe(probe).start()
    return main(options)


if __name__ == "__main__":
    sys.exit(without(sys.argv[1:]))
