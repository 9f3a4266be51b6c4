"""Which swarms are looked at, and what each must show.

A scenario builds a swarm, lets it run and says what it saw: a `Result` with the figures, each beside what it
is held against, and curves to draw. `SCENARIOS` are those of `make sim` with their sizes; the tests run the
same functions with smaller ones.

Content is small (128 pieces of 32 KiB) and so are the lines (64 KiB/s up): what counts is how many pieces and
how many choices there are, and the time in choker rounds; a hundred times the content on a hundred times the
line would cost a hundred times the events and show the same. Peers have 30 connections each, by the setting
that says so: each costs a `have` for every piece.
"""

from __future__ import annotations

import gc
import statistics
from functools import partial
from math import inf
from typing import Protocol

from bench.sim.figures import (
    Figure,
    Result,
    Watch,
    completions,
    copies_of_pieces,
    copies_sent,
    fluid_limit_s,
    last,
    median,
    waste,
)
from bench.sim.hosts import Host, Line
from bench.sim.net import Net
from microtorrd.core.settings import SwarmSettings, TorrentSettings

KIB = 1 << 10

#: A home line, as slow as the content is small.
UP = 64 * KIB
DOWN = 8 * UP
HOME = Line(up=UP, down=DOWN)

CONNECTIONS = 30
PIECES = 128
BLOCKS_PER_PIECE = 2

#: Where merit is to be seen, everything is so many times as fast.
FINE = 4

#: How long a swarm may take before it is called stuck, as a multiple of its fluid limit.
PATIENCE = 6


def distribute(
    hosts: int,
    *,
    seed: int = 1,
    pieces: int = PIECES,
    connections: int = CONNECTIONS,
    within: float = 1.3,
) -> Result:
    """Everybody comes at once; the seeder has ten lines. `within`: of the fluid limit, all should be done."""
    net = _net(seed, pieces, connections=connections)
    seeder_up = 10 * UP
    seeder = net.host(Line(up=seeder_up, down=DOWN), kind="seeder", seed=True, counted=True)
    leechers = [net.host(HOME) for _ in range(hosts)]
    limit_s = fluid_limit_s(net.geometry.length, seeder_up, [HOME] * hosts)
    watch = Watch(net, leechers)
    net.run(watch.everybody, most_s=PATIENCE * limit_s)
    copies = watch.copies or [0]
    figures = [
        Figure("last done / fluid limit", last(leechers) / limit_s, most=within),
        Figure("median done / fluid limit", median(leechers) / limit_s, most=within - 0.05),
        Figure("rarest piece, copies half way", min(copies), least=2),
        Figure("received twice, share of content", waste(leechers, net), most=0.05),
        Figure("copies that left the seeder", copies_sent(seeder, net)),
    ]
    return watch.result(f"{hosts:,} leechers at once, a seeder of ten lines", limit_s, figures)


def spread(hosts: int, *, seed: int = 1, pieces: int = PIECES) -> Result:
    """How evenly the pieces lie when half of everything is there: rarest first, and in order beside it."""
    curves = {}
    unevenness = {}
    rarest = {}
    result: Result | None = None
    for name, sequential in (("in order", True), ("rarest first", False)):
        net = _net(seed, pieces)
        net.host(Line(up=2 * UP, down=DOWN), kind="seeder", seed=True)
        torrent = TorrentSettings(sequential=sequential)
        leechers = [net.host(HOME, torrent=torrent) for _ in range(hosts)]
        limit_s = fluid_limit_s(net.geometry.length, 2 * UP, [HOME] * hosts)
        watch = Watch(net, leechers)

        def half(watch: Watch = watch) -> bool:
            watch.look()
            return bool(watch.copies)

        net.run(half, most_s=PATIENCE * limit_s)
        copies = watch.copies or [0]
        curves[name] = [(float(at), float(count)) for at, count in enumerate(sorted(copies))]
        unevenness[name] = statistics.pstdev(copies) / max(1.0, statistics.fmean(copies))
        rarest[name] = min(copies)
        result = watch.result(f"{hosts:,} leechers half way: how the pieces lie", limit_s, [])
    assert result is not None
    result.curves.update(curves)
    result.figures = [
        Figure("unevenness of copies (deviation / mean), rarest first", unevenness["rarest first"]),
        Figure("unevenness of copies, in order", unevenness["in order"]),
        Figure("rarest first / in order", unevenness["rarest first"] / unevenness["in order"], most=0.9),
        Figure("copies of the rarest piece, rarest first", rarest["rarest first"]),
        Figure("copies of the rarest piece, in order", rarest["in order"]),
    ]
    return result


def fairness(hosts: int, *, seed: int = 1, pieces: int = PIECES) -> Result:
    """A fifth gives nothing, two fifths a quarter of a line, two fifths a line. All could take eight lines.

    A line is four times as fast as elsewhere, and the content as much larger and longer: of a slot on a home
    line of 64 KiB/s a block comes each second, and two peers that give the same could not be told from two of
    which one gives twice as much. It takes some 25 rounds of the choker.
    """
    net = _net(seed, pieces, blocks_per_piece=2 * BLOCKS_PER_PIECE)
    up, down = FINE * UP, FINE * DOWN
    net.host(Line(up=up, down=down), kind="seeder", seed=True)
    fast, slow = Line(up=up, down=down), Line(up=up / 4, down=down)
    kinds = {"fast": (fast, False), "slow": (slow, False), "free rider": (fast, True)}
    pattern = ("fast", "slow", "fast", "slow", "free rider")
    leechers = []
    for at in range(hosts):
        line, mute = kinds[pattern[at % 5]]
        leechers.append(net.host(line, kind=pattern[at % 5], free_rider=mute))
    giving = [host.line for host in leechers if not host.free_rider]
    size = net.geometry.length
    limit_s = max(size / up, size * hosts / (up + sum(line.up for line in giving)), size / down)
    watch = Watch(net, leechers)
    groups = {kind: [host for host in leechers if host.kind == kind] for kind in kinds}
    at_half: dict[str, float] = {}

    def until() -> bool:
        if not at_half and sum(host.completed_at is not None for host in groups["fast"]) * 2 >= len(
            groups["fast"]
        ):
            at_half.update(
                {kind: statistics.fmean(host.progress for host in group) for kind, group in groups.items()}
            )
        return watch.everybody()

    net.run(until, most_s=PATIENCE * limit_s)
    medians = {kind: median(group) for kind, group in groups.items()}
    figures = [
        Figure(
            "free riders take longer than fast givers, times",
            medians["free rider"] / medians["fast"],
            least=1.15,
        ),
        Figure("slow givers take longer than fast ones, times", medians["slow"] / medians["fast"], least=1.0),
        Figure(
            "progress of free riders / of fast givers, when half of these are done",
            at_half.get("free rider", inf) / at_half.get("fast", 1.0),
            most=0.85,
        ),
        Figure(
            "progress of slow givers / of fast ones, then",
            at_half.get("slow", inf) / at_half.get("fast", 1.0),
            most=1.0,
        ),
        Figure("everybody done in the end", watch.done[-1][1], least=1.0, most=1.0),
    ]
    result = watch.result(f"{hosts:,} leechers, a fifth of them free riders", limit_s, figures)
    for kind, group in groups.items():
        result.curves[kind] = completions(group)
    return result


def flash_crowd(hosts: int, *, seed: int = 1, pieces: int = PIECES) -> Result:
    """Everybody comes within ten seconds, on lines of all sorts, to a seeder no stronger than they."""
    net = _net(seed, pieces)
    seeder = net.host(HOME, kind="seeder", seed=True, counted=True)
    leechers: list[Host] = []

    def arrive() -> None:
        leechers.append(net.host(_line_by_lot(net)))

    for _ in range(hosts):
        net.at(10 * net.chance.random(), arrive)
    watch = Watch(net, leechers)
    size = net.geometry.length
    net.run(lambda: watch.everybody() and len(leechers) == hosts, most_s=PATIENCE * size / UP)
    limit_s = fluid_limit_s(size, UP, [host.line for host in leechers])
    figures = [
        Figure("last done / fluid limit", (watch.done[-1][0] if watch.done else inf) / limit_s, most=1.6),
        Figure("median done / fluid limit", median(leechers) / limit_s),
        Figure("copies that left the seeder", copies_sent(seeder, net)),
        Figure("everybody done", watch.done[-1][1], least=1.0, most=1.0),
    ]
    return watch.result(f"{hosts:,} within ten seconds, one weak seeder", limit_s, figures)


def churn(hosts: int, *, seed: int = 1, pieces: int = PIECES) -> Result:
    """They come over time; half would leave before they are done, and who is done stays for ten seconds."""
    net = _net(seed, pieces)
    size = net.geometry.length
    alone_s = size / UP
    net.host(Line(up=4 * UP, down=DOWN), kind="seeder", seed=True)
    leechers: list[Host] = []

    def arrive(patient: bool) -> None:
        host = net.host(HOME, kind="stays" if patient else "leaves")
        host.on_complete = lambda done: net.at(10.0, net.leave, done)
        leechers.append(host)
        if not patient:
            net.at(net.chance.expovariate(2 / alone_s), net.leave, host)

    for at in range(hosts):
        net.at(2 * alone_s * net.chance.random(), arrive, at % 2 == 0)
    watch = Watch(net, leechers)

    def until() -> bool:
        watch.look()
        patient = [host for host in leechers if host.kind == "stays"]
        return len(leechers) == hosts and all(host.completed_at is not None for host in patient)

    net.run(until, most_s=PATIENCE * alone_s)
    patient = [host for host in leechers if host.kind == "stays"]
    left = sum(host.kind == "leaves" and host.completed_at is None for host in leechers) / hosts
    figures = [
        Figure("of those who stayed are done", sum(h.took_s < inf for h in patient) / len(patient), 1.0, 1.0),
        Figure("median time / content at one line", median(patient) / alone_s, most=1.5),
        Figure("slowest time / content at one line", last(patient) / alone_s, most=2.5),
        Figure("left before they were done, share", left),
    ]
    return watch.result(f"{hosts:,} who come and go", alone_s, figures)


def seeder_leaves(hosts: int, *, seed: int = 1, pieces: int = PIECES) -> Result:
    """The seeder goes for good as soon as the leechers together have everything once."""
    net = _net(seed, pieces)
    seeder_up = 2 * UP
    seeder = net.host(Line(up=seeder_up, down=DOWN), kind="seeder", seed=True, counted=True)
    leechers = [net.host(HOME) for _ in range(hosts)]
    size = net.geometry.length
    limit_s = fluid_limit_s(size, seeder_up, [HOME] * hosts)
    watch = Watch(net, leechers)

    def until() -> bool:
        if seeder.gone_at is None and min(seeder.copies or [0]) > 0 and min(copies_of_pieces(leechers)) > 0:
            net.leave(seeder)
        return watch.everybody()

    net.run(until, most_s=PATIENCE * limit_s)
    gone_at = inf if seeder.gone_at is None else seeder.gone_at
    figures = [
        Figure("done without the seeder", watch.done[-1][1], least=1.0, most=1.0),
        Figure("copies that left the seeder before", copies_sent(seeder, net), most=1.3),
        Figure("seeder gone at / one copy at its rate", gone_at * seeder_up / size, most=1.3),
        Figure("last done / fluid limit", last(leechers) / limit_s, most=1.6),
    ]
    return watch.result(f"{hosts:,} leechers, the seeder goes early", limit_s, figures)


def fan_out(hosts: int, *, seed: int = 1, pieces: int = PIECES) -> Result:
    """The seeder is the bottleneck: leechers have ten times its line each. It sees only some of them."""
    net = _net(seed, pieces)
    seeder = net.host(HOME, kind="seeder", seed=True, counted=True)
    line = Line(up=10 * UP, down=20 * UP)
    leechers = [net.host(line) for _ in range(hosts)]
    limit_s = fluid_limit_s(net.geometry.length, UP, [line] * hosts)
    watch = Watch(net, leechers)
    net.run(watch.everybody, most_s=PATIENCE * limit_s)
    figures = [
        Figure("last done / fluid limit", last(leechers) / limit_s, most=1.15),
        Figure("copies that left the seeder", copies_sent(seeder, net), most=1.1),
    ]
    return watch.result(f"{hosts:,} fast leechers, a seeder capped at a tenth", limit_s, figures)


class Scenario(Protocol):
    """A swarm of a certain size, whose chances are those of the seed."""

    def __call__(self, *, seed: int = 1) -> Result: ...


#: What `make sim` runs, the longest first.
SCENARIOS: dict[str, Scenario] = {
    "distribute": partial(distribute, 1000),
    "fairness": partial(fairness, 150, pieces=4 * PIECES),
    "churn": partial(churn, 300),
    "flash-crowd": partial(flash_crowd, 100),
    "seeder-leaves": partial(seeder_leaves, 100),
    "fan-out": partial(fan_out, 50, pieces=2 * PIECES),
    "spread": partial(spread, 60),
}

#: What `make sim-large` runs. The content is so short that the ten hops of a piece are a good part of the
#: time: no aim is set to that.
LARGE: dict[str, Scenario] = {"distribute-10000": partial(distribute, 10_000, pieces=64, connections=16)}


def run(name: str, seed: int = 1) -> Result:
    """One scenario by its name, in a process that does nothing else."""
    gc.disable()  # the rubbish of a run is not cyclic, and millions of objects are slow to look through
    return {**SCENARIOS, **LARGE}[name](seed=seed)


# -------------------------------------------------------------------------------------------------- within


def _net(
    seed: int,
    pieces: int,
    *,
    connections: int = CONNECTIONS,
    blocks_per_piece: int = BLOCKS_PER_PIECE,
) -> Net:
    settings = SwarmSettings(connections_per_torrent=connections)
    return Net(pieces=pieces, blocks_per_piece=blocks_per_piece, seed=seed, settings=settings)


def _line_by_lot(net: Net) -> Line:
    """Half to two home lines, near or far, some with loss."""
    chance = net.chance
    up = UP * 2 ** chance.uniform(-1, 1)
    return Line(
        up=up,
        down=8 * up,
        latency_s=chance.choice((0.02, 0.1, 0.3)),
        loss=chance.choice((0.0, 0.0, 0.02)),
    )
