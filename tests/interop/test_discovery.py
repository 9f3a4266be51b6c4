"""Peers find each other without a tracker: by local discovery in a network of their own, and by exchange."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from bench.daemons import Daemon
from bench.foreign import Aria2, Foreign, Libtorrent, Transmission
from bench.namespaces import Network
from bench.places import Place
from mtorrctl.create import Recipe, create
from tests.interop.conftest import require
from tests.interop.content import MIB, make_file
from tests.interop.meeting import PATIENCE_S, Meeting
from tests.interop.meetings import magnet_of, seed

LOOK_S = 0.2

#: Where no tracker is.
NOBODY = "http://127.0.0.1:9/announce"


def share(directory: Path, **recipe: Any) -> tuple[Path, Path]:
    """Some content and its `.mtorrent`."""
    source = directory / "source"
    source.mkdir()
    content = make_file(source, MIB)
    trackers = ((NOBODY,),)
    return content, Path(
        create(str(content), str(directory / "x.mtorrent"), Recipe(trackers=trackers, **recipe)).path
    )


def give_ipv6(place: Place, number: int) -> str:
    """One more address."""
    address = f"fd77::{number}"
    words = [*place.prefix, "ip", "address", "add", f"{address}/64", "dev", "eth0", "nodad"]
    subprocess.run(words, check=True)
    return address


def sources(daemon: Daemon) -> set[str]:
    """How a daemon came to know its peers."""
    return {peer["source"] for peer in daemon.call("torrent.peers", id="all")["peers"]}


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_neighbours_need_no_tracker(network_meeting: Meeting, network: Network, family: str) -> None:
    meeting = network_meeting
    content, metainfo = share(meeting.directory)
    daemons = []
    for number, name in enumerate(("seeder", "leecher"), start=1):
        place = network.add_host()
        own = {"listen__addresses": give_ipv6(place, number)} if family == "IPv6" else {}
        daemons.append(meeting.daemon(name, place, swarm__local_discovery="true", **own))
    seeder, leecher = daemons
    begun = time.monotonic()
    meeting.add(seeder, metainfo, "--seed", str(content))
    meeting.add(leecher, metainfo)
    meeting.wait_for_content(content, leecher.save_to / content.name, who="microtorrd")
    print(f"\nfound and fetched by {family} in {time.monotonic() - begun:.1f} s")


def test_a_private_torrent_is_not_shown_to_neighbours(network_meeting: Meeting) -> None:
    meeting = network_meeting
    content, metainfo = share(meeting.directory, private=True)
    shown, shown_metainfo = content.parent / "shown", meeting.directory / "shown.mtorrent"
    shown.write_bytes(b"shown")
    create(str(shown), str(shown_metainfo), Recipe(trackers=((NOBODY,),)))
    seeder = meeting.daemon("seeder", swarm__local_discovery="true")
    leecher = meeting.daemon("leecher", swarm__local_discovery="true")
    meeting.add(seeder, metainfo, "--seed", str(content))
    meeting.add(leecher, metainfo)
    # What comes later has been spoken of: the private one would have been before it.
    meeting.add(seeder, shown_metainfo, "--seed", str(shown))
    meeting.add(leecher, shown_metainfo)
    meeting.wait_for_content(shown, leecher.save_to / "shown", who="microtorrd")
    assert leecher.call("torrent.peers", id=content.name)["peers"] == []


@pytest.mark.parametrize("kind", [Libtorrent, Transmission, Aria2], ids=lambda kind: kind.name)
@pytest.mark.parametrize("who_seeds", ["they", "we"])
def test_foreign_neighbours_are_found(network_meeting: Meeting, kind: type[Foreign], who_seeds: str) -> None:
    require(kind)
    meeting = network_meeting
    content, metainfo = share(meeting.directory)

    class Neighbourly(kind):  # type: ignore[valid-type,misc]
        local_discovery = True

    ours = meeting.daemon("ours", swarm__local_discovery="true")
    begun = time.monotonic()
    if who_seeds == "we":
        meeting.add(ours, metainfo, "--seed", str(content))
        save_to = meeting.directory / "theirs"
        meeting.foreign(Neighbourly, metainfo, save_to)
        meeting.wait_for_content(content, save_to / content.name, who=kind.name)
    else:
        meeting.foreign(Neighbourly, metainfo, content.parent)
        meeting.add(ours, metainfo)
        meeting.wait_for_content(content, ours.save_to / content.name, who="microtorrd")
    print(f"\n{kind.name}, {who_seeds} seed: {time.monotonic() - begun:.1f} s")


@pytest.mark.parametrize("kind", [Libtorrent, Transmission], ids=lambda kind: kind.name)
def test_foreign_peers_introduce_us(network_meeting: Meeting, kind: type[Foreign]) -> None:
    """Ours knows only the foreign client, and that one knows our seeder: one of ours hears of the other."""
    require(kind)
    meeting = network_meeting
    content = make_file(meeting.directory, 16 * MIB)
    metainfo = meeting.share(content)
    # Slow enough that nobody is whole, and parts, before all have met.
    seeder = meeting.daemon("seeder", limits__up=MIB // 4)
    seed(meeting, seeder, metainfo, content)
    foreign = meeting.foreign(kind, metainfo, meeting.directory / "theirs")
    meeting.wait_for_announce(kind.peer_id_start)
    host, port = meeting.address_of(kind.peer_id_start)
    link = magnet_of(seeder).partition("&tr=")[0]
    late = meeting.daemon("late")
    begun = time.monotonic()
    meeting.add(late, f"{link}&x.pe={host}:{port}")
    with late.client() as client:
        client.subscribe(kinds=None)
        while not ("pex" in sources(late) or "pex" in sources(seeder)):
            assert time.monotonic() - begun < PATIENCE_S, "nobody was introduced"
            client.next_note(LOOK_S)
    print(f"\n{kind.name} introduced us in {time.monotonic() - begun:.1f} s")
    if kind is Libtorrent:
        while re.search(r"PEX.*added: [1-9]", foreign.log()) is None:
            assert time.monotonic() - begun < PATIENCE_S, "it did not hear of anybody from us"
            time.sleep(LOOK_S)
