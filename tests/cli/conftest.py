"""A daemon's socket with the fake session behind it, and a shell to call it from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.program import Forker, Shell
from tests.rpc.house import House, open_house


@pytest.fixture(scope="session")
def forker() -> Iterator[Forker]:
    """One for all tests: it takes a while to import everything."""
    forker = Forker()
    yield forker
    forker.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """What stands behind the socket."""
    with open_house(tmp_path / "run") as house:
        yield house


@pytest.fixture
def shell(forker: Forker, tmp_path: Path, house: House) -> Shell:
    """A shell that knows the socket."""
    return Shell(forker, tmp_path, house.path)


@pytest.fixture
def lone_shell(forker: Forker, tmp_path: Path) -> Shell:
    """A shell without any daemon."""
    return Shell(forker, tmp_path, None)
