"""Peers introduce each other: whoever knows one of them finds the others, without a tracker."""

from __future__ import annotations

import base64
import time
from pathlib import Path

from bench.daemons import Daemon
from mtorrctl.create import Recipe, create
from tests.swarm.conftest import MakeDaemon, wait_until

#: Where no tracker is.
NOBODY = "http://127.0.0.1:9/announce"

PATIENCE_S = 60.0


def link_to(daemon: Daemon, seeder: Daemon) -> str:
    """A magnet link for what the seeder has that names this one peer, and no tracker."""
    link: str = seeder.call("torrent.magnet", id="all")["magnet"]
    port = daemon.call("session.stats")["listen_port"]
    return f"{link.partition('&tr=')[0]}&x.pe=127.0.0.1:{port}"


def test_who_knows_one_peer_finds_the_others(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(bytes(range(256)) * 64 * 40)
    recipe = Recipe(trackers=((NOBODY,),), piece_length=16384)
    metainfo = Path(create(str(content), str(tmp_path / "x.mtorrent"), recipe).path).read_bytes()
    seeder = make_daemon("seeder")
    # They remain leechers for as long as this takes: seeders would part from the seeder.
    middle, late = make_daemon("middle", limits__down=20_000), make_daemon("late", limits__down=20_000)
    seeder.call("torrent.add", metainfo=base64.b64encode(metainfo).decode(), seed_path=str(content))
    wait_until(seeder, lambda row: row["state"] == "seeding")
    middle.call("torrent.add", magnet=link_to(seeder, seeder))
    wait_until(middle, lambda row: row["done_bytes"] > 0)
    late.call("torrent.add", magnet=link_to(middle, seeder))
    end = time.monotonic() + PATIENCE_S
    with late.client() as client:
        client.subscribe(kinds=None)
        # Either of the two may hear of the other first, and call.
        while not (knows_by_exchange(late, seeder) or knows_by_exchange(seeder, late)):
            assert time.monotonic() < end, late.log()[-3000:]
            client.next_note(0.2)


def knows_by_exchange(daemon: Daemon, other: Daemon) -> bool:
    """Whether it is connected with the other because a third one named it."""
    port = other.call("session.stats")["listen_port"]
    return any(
        (peer["port"], peer["source"]) == (port, "pex")
        for row in daemon.call("torrent.list")["torrents"]
        for peer in daemon.call("torrent.peers", id=row["info_hash"])["peers"]
    )
