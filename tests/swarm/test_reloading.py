"""What a reload changes for peers that are connected."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from bench.measure import make_torrent
from microtorrd.core.events import AddressesFound
from microtorrd.terms import Terms
from tests.swarm.house import House, make_house

SLOW_PER_S = 20_000
SIZE = 400_000  # twenty seconds of that


@pytest.fixture
def seeder(tmp_path: Path) -> Iterator[House]:
    (tmp_path / "s").mkdir()
    house = make_house(tmp_path / "s")
    yield house
    house.stop()


@pytest.fixture
def leecher(tmp_path: Path) -> Iterator[House]:
    (tmp_path / "l").mkdir()
    house = make_house(tmp_path / "l")
    yield house
    house.stop()


def reload(house: House, section: str, **settings: Any) -> None:
    """As the daemon does, with a file that says something new."""
    config = house.session.config
    changed = replace(getattr(config, section), **settings)
    house.session.apply(replace(config, **{section: changed}))


@pytest.mark.parametrize("way", ["up_per_peer", "down_per_peer"])
def test_limits_of_peers(way: str, seeder: House, leecher: House, tmp_path: Path) -> None:
    """They hold for those that are connected, too."""
    limited = seeder if way == "up_per_peer" else leecher
    reload(limited, "limits", **{way: SLOW_PER_S})
    content = tmp_path / "content"
    content.write_bytes(bytes(range(250)) * (SIZE // 250))
    raw = make_torrent(content, 16384, [])
    seeder.session.add(raw, Terms(seed_path=str(content)))
    seeder.wait_until(seeder.all_seed)
    leecher.session.add(raw, Terms())
    began = time.monotonic()
    (torrent,) = leecher.torrents()
    torrent.post((AddressesFound([("127.0.0.1", seeder.session.facilities.listen_port)], "operator"),))
    leecher.wait_until(lambda: leecher.session.list()[0]["done_bytes"] > 0)
    assert leecher.session.list()[0]["done_bytes"] < SIZE / 2
    reload(limited, "limits", **{way: 0})
    leecher.wait_until(leecher.all_seed)
    assert time.monotonic() - began < SIZE / SLOW_PER_S / 2
    assert (tmp_path / "l/data/content").read_bytes() == content.read_bytes()
