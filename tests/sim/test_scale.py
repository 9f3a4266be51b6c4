"""Small versions of the swarms of `bench/sim`: the same scenarios and the same questions.

A short content leaves less room to make good what the beginning costs, so some bounds are wider than at full
size.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.sim import scenarios
from bench.sim.figures import Result
from bench.sim.hosts import Line
from bench.sim.net import Net
from bench.sim.scenarios import Scenario

PIECES = 64


def amiss(result: Result, **most: float) -> list[str]:
    """The figures that are not what they should be. `most` widens the bound of those that begin so."""
    found = []
    for figure in result.figures:
        wider = [bound for beginning, bound in most.items() if figure.name.startswith(beginning)]
        held = replace(figure, most=wider[0]) if wider else figure
        if not held.good:
            found.append(f"{held.name}: {held.value:.3f} is not {held.aim}")
    return found


def test_a_swarm_comes_near_the_fluid_limit() -> None:
    result = scenarios.distribute(60, pieces=PIECES)
    assert amiss(result, last=1.6, median=1.5, received=0.08) == []


def test_rarest_first_spreads_pieces_more_evenly_than_their_order() -> None:
    assert amiss(scenarios.spread(50, pieces=PIECES)) == []


def test_free_riders_get_less() -> None:
    assert amiss(scenarios.fairness(40, pieces=96)) == []


def test_a_flash_crowd_is_served() -> None:
    assert amiss(scenarios.flash_crowd(30, pieces=PIECES), last=3.2, median=3.0, copies=3.2) == []


def test_those_who_stay_are_done_whoever_comes_and_goes() -> None:
    assert amiss(scenarios.churn(40, pieces=PIECES), median=2.0, slowest=3.0) == []


def test_the_seeder_may_leave_when_one_copy_is_out() -> None:
    """How many copies it sent before that is a question of the size of the swarm: `make sim` asks it."""
    figures = {figure.name: figure.value for figure in scenarios.seeder_leaves(40, pieces=PIECES).figures}
    assert figures["done without the seeder"] == 1.0


def test_a_capped_seeder_sends_little_more_than_one_copy() -> None:
    assert amiss(scenarios.fan_out(25, pieces=PIECES), last=1.5, copies=1.5) == []


def test_the_same_seed_gives_the_same_run() -> None:
    def once(seed: int) -> tuple[int, list[tuple[float, float]]]:
        result = scenarios.flash_crowd(12, pieces=16, seed=seed)
        return result.facts, result.curves["progress"]

    assert once(7) == once(7)
    assert once(7) != once(8)


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_an_uplink_carries_what_it_can_and_loss_costs_its_share(loss: float) -> None:
    """One leecher, one seeder: the model of the line itself."""
    net = Net(pieces=32, blocks_per_piece=4, seed=1)
    up = 256 * scenarios.KIB
    seeder = net.host(Line(up=up, loss=loss), seed=True)
    leecher = net.host(Line())
    assert net.run(lambda: leecher.completed_at is not None, most_s=60)
    ideal_s = net.geometry.length / up / (1 - loss)
    assert ideal_s * 0.9 < leecher.took_s < ideal_s * 1.3 + 2
    assert seeder.sent_bytes == net.geometry.length


def test_what_is_asked_for_by_name_exists() -> None:
    everything: dict[str, Scenario] = {**scenarios.SCENARIOS, **scenarios.LARGE}
    assert {"distribute", "fairness", "churn", "flash-crowd", "seeder-leaves", "fan-out"} <= set(everything)
