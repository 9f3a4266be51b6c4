"""One seeder, one leecher, each client to itself, in a network namespace for each process.

    python -m bench.rivals [PAIRS]

All are measured from outside (`bench.arrival`): from the first bytes of payload until the file is whole. What
a client does before, as waiting for the next tick of its clock, and after, as checking what it has once more,
is not held against it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from bench.arena import Arena, missing
from bench.foreign import Aria2, Foreign, Qbittorrent, Rtorrent, Transmission
from bench.measure import GIB, MIB, Row, stall_row, workplace
from bench.ours import Microtorrd

PIECE = MIB
#: The slowest ones move less, so that a round does not take minutes.
SIZE, SMALL = GIB, 32 * MIB
#: Enough for 32 MiB at half a MB/s, and for 1 GiB at 10.
TIMEOUT_S = 100.0


@dataclass(frozen=True)
class Rival:
    """Whom, over how much, and how much faster we mean to be."""

    kind: type[Foreign]
    size: int
    aim: str


RIVALS = (
    Rival(Rtorrent, SIZE, "≥ 1.5"),
    Rival(Aria2, SIZE, "> 1.0"),
    Rival(Qbittorrent, SIZE, "> 1.0"),
    Rival(Transmission, SMALL, "> 1.0"),
)


class Contest:
    """One rival's rows."""

    def __init__(self, rival: Rival) -> None:
        amount = "1 GiB" if rival.size == GIB else f"{rival.size // MIB} MiB"
        other = f"{rival.kind.name} to itself"
        self.rival = rival
        self.speed = Row(f"pair in two namespaces, {amount}", "MB/s", rival.aim, other=other)
        self.cpu = Row("… CPU of both sides", "s", "< 1.0", other=other)
        self.why_not = missing(rival.kind)

    def rows(self) -> list[Row]:
        """What was measured, or why nothing was."""
        if self.why_not:
            self.speed.note = f"not measured further: {self.why_not}"
        return [self.speed, self.cpu] if self.speed.ours else [self.speed]


def rows(pairs: int) -> list[Row]:
    """Ours and each of the others in turns. Who fails once is left out from then on."""
    contests = [Contest(rival) for rival in RIVALS]
    stalls_s: list[float] = []
    with workplace() as home:
        for size in (SIZE, SMALL):
            group = [contest for contest in contests if contest.rival.size == size]
            if all(contest.why_not for contest in group):
                continue  # nobody to be beside
            with Arena(home / f"arena-{size}", size=size, piece_length=PIECE) as arena:
                for number in range(pairs):
                    if all(contest.why_not for contest in group):
                        break
                    compare(arena, group, stalls_s)
                    figures = ", ".join(
                        f"{contest.rival.kind.name} {contest.speed.theirs[-1]:.0f}"
                        for contest in group
                        if not contest.why_not
                    )
                    ours = next((contest.speed.ours[-1] for contest in group if contest.speed.ours), 0)
                    print(f"  pair {number + 1}: ours {ours:.0f} MB/s, {figures}", flush=True)
    found = [row for contest in contests for row in contest.rows()]
    return [*found, stall_row("… longest stall of a hub of ours", stalls_s)]


def compare(arena: Arena, contests: list[Contest], stalls_s: list[float]) -> None:
    """One transfer of ours, and one of each other."""
    ours = arena.transfer(Microtorrd, timeout_s=TIMEOUT_S, stalls_s=stalls_s)
    for contest in contests:
        if contest.why_not:
            continue
        try:
            theirs = arena.transfer(contest.rival.kind, timeout_s=TIMEOUT_S)
        except Exception as error:  # whatever is wrong with somebody else's program
            contest.why_not = f"{type(error).__name__}: {error}"
            continue
        megabytes = contest.rival.size / 1e6
        contest.speed.add(megabytes / ours.took_s, megabytes / theirs.took_s)
        contest.cpu.add(ours.cpu_s, theirs.cpu_s)


if __name__ == "__main__":
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
        print(" | ".join(row.cells()), row.note)
