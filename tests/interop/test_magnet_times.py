"""How long a magnet link takes to become a torrent, with the clients that most people have: the seconds are
printed, and five are too many."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.foreign import Foreign
from bench.foreign.libtorrent_wheel import Libtorrent
from bench.foreign.transmission import Transmission
from tests.interop.conftest import require
from tests.interop.content import MIB, make_file
from tests.interop.meeting import Meeting
from tests.interop.meetings import magnet_of, seed

#: What people wait for gladly.
MOST_S = 5.0

PATIENCE_S = 40.0
LOOK_S = 0.05


@pytest.fixture(params=[Libtorrent, Transmission], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> type[Foreign]:
    found: type[Foreign] = request.param
    require(found)
    return found


def source_of(tmp_path: Path) -> Path:
    directory = tmp_path / "content"
    directory.mkdir()
    return directory


def tell(what: str, seconds: float) -> None:
    print(f"\n{what}: {seconds:.2f} s")
    assert seconds < MOST_S, f"{what} took {seconds:.1f} s"


@pytest.mark.parametrize("by", ["tracker", "address"])
def test_ours_resolves_from_theirs(
    network_meeting: Meeting, kind: type[Foreign], by: str, tmp_path: Path
) -> None:
    meeting = network_meeting
    content = make_file(source_of(tmp_path), MIB)
    metainfo = meeting.share(content)
    meeting.foreign(kind, metainfo, content.parent)
    meeting.wait_for_announce(kind.peer_id_start, holding="left=0")
    meeting.add(meeting.tracker, metainfo, "--paused")
    magnet = magnet_of(meeting.tracker)
    if by == "address":
        host, port = meeting.address_of(kind.peer_id_start)
        magnet = f"{magnet.partition('&tr=')[0]}&x.pe={host}:{port}"
    leecher = meeting.daemon("leecher")
    with leecher.client() as client:
        client.subscribe(kinds=["resolved"])
        begun = time.monotonic()
        client.call("torrent.add", magnet=magnet)
        note = client.next_note(PATIENCE_S)
        seconds = time.monotonic() - begun
    assert note is not None, "it was not resolved"
    tell(f"microtorrd from {kind.name}, by {by}", seconds)


def test_theirs_resolves_from_ours(network_meeting: Meeting, kind: type[Foreign], tmp_path: Path) -> None:
    meeting = network_meeting
    content = make_file(source_of(tmp_path), MIB)
    metainfo = meeting.share(content)
    seed(meeting, meeting.tracker, metainfo, content)
    magnet = magnet_of(meeting.tracker)
    begun = time.monotonic()
    foreign = meeting.foreign(kind, magnet, tmp_path / "theirs")
    wait_until(foreign.has_metadata)
    tell(f"{kind.name} from microtorrd, its start included", time.monotonic() - begun)


def wait_until(condition: Callable[[], bool]) -> None:
    """Nobody tells when a foreign client has got something: look."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it was not resolved"
        time.sleep(LOOK_S)
