"""One seeder, many leechers: how near to the fluid limit, and how often the seeder sends each byte.

    python -m bench.fanout [ROUNDS]

With a seeder that sends u bytes a second and N leechers that send U together, S bytes cannot be everywhere
before max(S/u, S·N/(u+U)). Uncapped there is no such limit on one machine: the figure is what all leechers
received. Each process has a network namespace of its own, and all clients are measured the same way, from the
first bytes of payload that reach any leecher until all files are whole.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.arena import Arena, Outcome, missing
from bench.foreign import Aria2, Foreign, Libtorrent
from bench.measure import MIB, Row, stall_row, workplace
from bench.ours import Microtorrd

CAP = 8_000_000
PIECE = MIB
CAPPED_SIZE, CAPPED_LEECHERS = 64 * MIB, 8
FREE_SIZE, FREE_LEECHERS = 512 * MIB, 4
LIMIT_S = CAPPED_SIZE / CAP

#: Beside whom. The others that were measured need 2.3 to 8 times the limit, which would make a round long.
CAPPED_RIVALS: tuple[type[Foreign], ...] = (Libtorrent, Aria2)
FREE_RIVALS: tuple[type[Foreign], ...] = (Libtorrent,)


class Beside:
    """The rows that compare with one other client, and why it is no longer measured."""

    def __init__(self, kind: type[Foreign], *rows: Row) -> None:
        self.kind = kind
        self.rows = rows
        self.why_not = missing(kind)

    def measure(self, arena: Arena, leechers: int, cap: int) -> Outcome | None:
        """One turn; None from the moment that it failed."""
        if not self.why_not:
            try:
                return arena.transfer(
                    self.kind, leechers=leechers, upload_bytes_per_s=cap, timeout_s=LIMIT_S * 10
                )
            except Exception as error:  # whatever is wrong with somebody else's program
                self.why_not = f"{self.kind.name}: {type(error).__name__}: {error}"
        for row in self.rows:
            row.note = f"not measured further: {self.why_not}"
        return None


def rows(rounds: int) -> list[Row]:
    """The capped swarm of eight, and the uncapped one of four."""
    if why_not := missing(Microtorrd):
        return [Row("fan-out", "s", "≤ 1.15", other="fluid limit", note=f"not measured: {why_not}")]
    with workplace() as home:
        return [*capped(home / "capped", rounds), *free(home / "free", rounds)]


def capped(home: Path, rounds: int) -> list[Row]:
    """Where the seeder is the bottleneck."""
    name = f"fan-out to {CAPPED_LEECHERS}, seeder capped at 8 MB/s, 64 MiB"
    time = Row(name, "s", "≤ 1.15", other="fluid limit")
    copies = Row("… copies that left the seeder", "copies", "≤ 1.1")
    others = [
        Beside(
            kind,
            Row("… time", "s", "< 1.0", other=kind.name),
            Row("… copies", "copies", "< 1.0", other=kind.name),
        )
        for kind in CAPPED_RIVALS
    ]
    stalls_s: list[float] = []
    with Arena(home, size=CAPPED_SIZE, piece_length=PIECE) as arena:
        for number in range(rounds):
            ours = arena.transfer(
                Microtorrd, leechers=CAPPED_LEECHERS, upload_bytes_per_s=CAP, stalls_s=stalls_s
            )
            time.add(ours.took_s, LIMIT_S)
            copies.add(ours.copies)
            said = [f"ours {ours.took_s:.2f} s, {ours.copies:.2f} copies"]
            for other in others:
                theirs = other.measure(arena, CAPPED_LEECHERS, CAP)
                if theirs is not None:
                    other.rows[0].add(ours.took_s, theirs.took_s)
                    other.rows[1].add(ours.copies, theirs.copies)
                    said.append(f"{other.kind.name} {theirs.took_s:.2f} s, {theirs.copies:.2f} copies")
            print(f"  capped {number + 1}: {'; '.join(said)}", flush=True)
    beside = [row for other in others for row in other.rows]
    return [time, copies, *beside, stall_row("… longest stall of a hub of ours", stalls_s)]


def free(home: Path, rounds: int) -> list[Row]:
    """Where the machine is the bottleneck."""
    name = f"fan-out to {FREE_LEECHERS}, uncapped, 512 MiB, all together"
    others = [Beside(kind, Row(name, "MB/s", "> 1.0", other=kind.name)) for kind in FREE_RIVALS]
    stalls_s: list[float] = []
    megabytes = FREE_SIZE * FREE_LEECHERS / 1e6
    with Arena(home, size=FREE_SIZE, piece_length=PIECE) as arena:
        for number in range(rounds):
            ours = arena.transfer(Microtorrd, leechers=FREE_LEECHERS, stalls_s=stalls_s)
            said = [f"ours {megabytes / ours.took_s:.0f} MB/s"]
            for other in others:
                theirs = other.measure(arena, FREE_LEECHERS, 0)
                if theirs is not None:
                    other.rows[0].add(megabytes / ours.took_s, megabytes / theirs.took_s)
                    said.append(f"{other.kind.name} {megabytes / theirs.took_s:.0f} MB/s")
            print(f"  uncapped {number + 1}: {', '.join(said)}", flush=True)
    beside = [row for other in others for row in other.rows]
    return [*beside, stall_row("… longest stall of a hub of ours", stalls_s)]


if __name__ == "__main__":
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        print(" | ".join(row.cells()), row.note)
