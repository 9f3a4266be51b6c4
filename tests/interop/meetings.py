"""The three ways to meet a foreign client. Each returns when every byte was compared, or fails."""

from __future__ import annotations

from pathlib import Path

from bench.daemons import Daemon
from bench.foreign import Foreign
from tests.interop.content import MIB
from tests.interop.meeting import OUR_PEER_ID_START, Meeting


def foreign_downloads(meeting: Meeting, kind: type[Foreign], content: Path) -> None:
    """We seed, it downloads, and tells the tracker so."""
    metainfo = meeting.share(content)
    seed(meeting, meeting.tracker, metainfo, content)
    save_to = meeting.directory / "theirs"
    meeting.foreign(kind, metainfo, save_to)
    wait_for_foreign(meeting, kind, content, save_to)
    if kind.tells_completion:
        meeting.wait_for_announce(kind.peer_id_start, holding="event=completed")


def foreign_seeds(meeting: Meeting, kind: type[Foreign], content: Path) -> None:
    """It seeds, we download, and go on to seed."""
    metainfo = meeting.share(content)
    meeting.foreign(kind, metainfo, content.parent)
    meeting.wait_for_announce(kind.peer_id_start, holding="left=0")
    meeting.add(meeting.tracker, metainfo)
    meeting.wait_for_content(content, meeting.tracker.save_to / content.name, who="microtorrd")
    wait_until_seeding(meeting.tracker)


def foreign_follows_our_magnet(meeting: Meeting, kind: type[Foreign], content: Path) -> None:
    """We seed and hand out a magnet link; it gets the metadata from us, and then the content."""
    metainfo = meeting.share(content)
    seed(meeting, meeting.tracker, metainfo, content)
    save_to = meeting.directory / "theirs"
    meeting.foreign(kind, magnet_of(meeting.tracker), save_to)
    wait_for_foreign(meeting, kind, content, save_to)


def we_follow_a_magnet(meeting: Meeting, kind: type[Foreign], content: Path) -> None:
    """It seeds; we have no more than a magnet link, and get the metadata from it, and then the content."""
    metainfo = meeting.share(content)
    meeting.foreign(kind, metainfo, content.parent)
    meeting.wait_for_announce(kind.peer_id_start, holding="left=0")
    meeting.add(meeting.tracker, metainfo, "--paused")
    magnet = magnet_of(meeting.tracker)
    leecher = meeting.daemon("leecher")
    meeting.add(leecher, magnet)
    meeting.wait_for_content(content, leecher.save_to / content.name, who="microtorrd")
    wait_until_seeding(leecher)


def mixed_swarm(meeting: Meeting, kind: type[Foreign], content: Path) -> None:
    """One seeder of ours, capped so that the others need each other; it and two of ours download."""
    metainfo = meeting.share(content)
    seeder = meeting.daemon("seeder", limits__up=4 * MIB)
    seed(meeting, seeder, metainfo, content)
    save_to = meeting.directory / "theirs"
    meeting.foreign(kind, metainfo, save_to)
    leechers = [meeting.daemon(f"leecher-{number}") for number in (1, 2)]
    for leecher in leechers:
        meeting.add(leecher, metainfo)
    wait_for_foreign(meeting, kind, content, save_to)
    for leecher in leechers:
        meeting.wait_for_content(content, leecher.save_to / content.name, who=leecher.directory.name)
        wait_until_seeding(leecher)


def wait_for_foreign(meeting: Meeting, kind: type[Foreign], content: Path, save_to: Path) -> None:
    """Until it has everything."""
    found = save_to / content.name
    meeting.wait_for_content(content, found, who=kind.name, empty_too=kind.makes_empty_files)


def seed(meeting: Meeting, daemon: Daemon, metainfo: Path, content: Path) -> None:
    """One of ours seeds, and the tracker knows."""
    meeting.add(daemon, metainfo, "--seed", str(content))
    meeting.wait_for_announce(OUR_PEER_ID_START, holding="left=0")


def magnet_of(daemon: Daemon) -> str:
    """The link that `mtorrctl magnet` prints."""
    link: str = daemon.call("torrent.magnet", id="all")["magnet"]
    return link


def wait_until_seeding(daemon: Daemon) -> None:
    """Until the torrent was checked as a whole."""
    with daemon.client() as client:
        client.subscribe(kinds=["state_changed"])
        while (row := client.call("torrent.list")["torrents"][0])["state"] != "seeding":
            assert row["state"] != "failed", row["error"]
            assert client.next_note(60.0) is not None, row
