"""Other people's clients announce to our tracker over UDP, and find each other there."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest

from bench.foreign import ALL, Foreign
from tests.interop import meetings
from tests.interop.conftest import require
from tests.interop.content import MIB, make_file
from tests.interop.meeting import Meeting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def over_udp(kind: type[Foreign]) -> type[Foreign]:
    """The same client, which asks trackers over UDP."""

    class OverUdp(kind):  # type: ignore[valid-type, misc]
        udp_trackers = True

    return OverUdp


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_it_finds_us_over_udp(network_meeting: Meeting, kind: type[Foreign]) -> None:
    """It downloads from one of ours that it knows of by a UDP announce, and is told of as a peer itself."""
    require(kind)
    meeting = network_meeting
    meeting.url = meeting.url.replace("http://", "udp://")
    content = make_file(meeting.directory, 3 * MIB + 4321)
    meetings.foreign_downloads(meeting, over_udp(kind), content)
    theirs = [note for note in meeting.announces if note["peer_id"].startswith(kind.peer_id_start)]
    assert {note["transport"] for note in theirs} == {"udp"}
    assert parse_qs(theirs[0]["query"])["left"] == [str(3 * MIB + 4321)]


@pytest.mark.parametrize(
    ("seeder", "leecher"), list(zip(ALL, ALL[1:] + ALL[:1], strict=True)), ids=lambda kind: kind.name
)
def test_others_find_each_other_over_udp(
    network_meeting: Meeting, seeder: type[Foreign], leecher: type[Foreign]
) -> None:
    """Nobody of ours shares: the tracker alone brings two foreign clients together."""
    require(seeder)
    require(leecher)
    meeting = network_meeting
    meeting.url = meeting.url.replace("http://", "udp://")
    content = make_file(meeting.directory, 3 * MIB + 4321)
    metainfo = meeting.share(content)
    meeting.foreign(over_udp(seeder), metainfo, content.parent)
    meeting.wait_for_announce(seeder.peer_id_start, holding="left=0")
    save_to = meeting.directory / "theirs"
    meeting.foreign(over_udp(leecher), metainfo, save_to)
    meetings.wait_for_foreign(meeting, leecher, content, save_to)
    assert {note["transport"] for note in meeting.announces} == {"udp"}
