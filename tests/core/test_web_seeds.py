"""Web seeds as the core sees them: peers with everything, which have limits and bans of their own."""

from __future__ import annotations

from itertools import pairwise

from microtorrd.core.events import Ban, PeerJoined
from microtorrd.core.settings import SwarmSettings, TorrentSettings
from microtorrd.proto.extended import ExtendedHandshake
from microtorrd.proto.messages import Extended, HaveAll, Unchoke
from tests.core.rig import Rig

URL = "http://web.example/pub/"


def join(rig: Rig, number: int, url: str = URL) -> None:
    """A connection to a web seed."""
    rig.lent[number] = []
    rig.do(
        PeerJoined(number, None, b"-WS0000-" + b"0" * 12, False, True, True, host="web.example", web_seed=url)
    )
    words = ExtendedHandshake(client="web seed", reqq=65536)
    rig.say(number, Extended(0, words.encode()), HaveAll(), Unchoke())


def test_several_connections_of_one_url_are_one_seeder() -> None:
    rig = Rig("....")
    join(rig, 1)
    join(rig, 2)
    join(rig, 3, "http://web.example/other/")
    rig.connect(4)
    snapshot = rig.core.snapshot(rig.now, with_peers=True)
    assert (snapshot.seeders, snapshot.leechers) == (2, 1)
    assert [peer.client for peer in snapshot.peers] == ["web seed"] * 3 + [""]


def test_they_take_no_place_from_peers() -> None:
    rig = Rig("....", settings=SwarmSettings(connections_per_torrent=1))
    join(rig, 1)
    rig.connect(2)
    rig.connect(3)
    join(rig, 4)
    assert set(rig.core.swarm.peers) == {1, 2, 4}


def test_silence_is_no_reason_to_part_with_them() -> None:
    rig = Rig("....", torrent=TorrentSettings(wait_seeders=5), settings=SwarmSettings(idle_timeout_s=30))
    join(rig, 1)
    rig.connect(2)
    rig.tick(40)
    assert set(rig.core.swarm.peers) == {1}


def test_one_counts_once_where_seeders_are_waited_for() -> None:
    rig = Rig("....", torrent=TorrentSettings(wait_seeders=2))
    join(rig, 1)
    join(rig, 2)
    assert rig.state == "waiting"
    join(rig, 3, "http://web.example/other/")
    assert rig.state == "downloading"


def test_they_are_asked_for_neighbours() -> None:
    rig = Rig("." * 64)
    join(rig, 1)
    pieces = list(dict.fromkeys(piece for piece, _ in rig.asked(1)))
    assert len(pieces) == 8
    jumps = sum(later != before + 1 for before, later in pairwise(pieces))
    assert jumps <= 1, "the end may have been reached once"


def test_bad_data_bans_the_url_and_not_its_host() -> None:
    rig = Rig("....", settings=SwarmSettings(ban_after=1))
    join(rig, 1)
    join(rig, 2)
    join(rig, 3, "http://web.example/other/")
    piece = rig.lent[1][0].piece
    rig.deliver(1, [slot for slot in rig.lent[1] if slot.piece == piece])
    orders = rig.corrupt(piece)
    assert [order for order in orders if isinstance(order, Ban)] == [Ban(URL, "1 corrupt pieces")]
    assert set(rig.core.swarm.peers) == {3}
    join(rig, 4)
    assert set(rig.core.swarm.peers) == {3}
