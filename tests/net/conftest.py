"""What the tests of the peer wire stand on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from microtorrd.greenlets import Crew
from tests.net.peers import Bench


@pytest.fixture
def make_bench(tmp_path: Path, crew: Crew) -> Iterator[Callable[..., Bench]]:
    """Makes content, and peer wires that serve it; options as those of `Bench`."""
    made: list[Bench] = []

    def make(**options: Any) -> Bench:
        made.append(Bench(tmp_path, crew, **options))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """Content of a little more than four pieces in one file."""
    return make_bench()
