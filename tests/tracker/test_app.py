"""Flask and the fast front answer alike, and what only Flask answers."""

from __future__ import annotations

import json
from urllib.parse import quote_from_bytes

import pytest

from microtorrd.greenlets import Crew
from tests.tracker.talk import SWARM_HEX, House, announce

BINARY = quote_from_bytes(bytes(range(236, 256)))
BITTORRENT = f"/announce?info_hash={BINARY}&port=6881&uploaded=0&downloaded=0"

#: A course of requests in which each depends on those before it.
COURSE: list[tuple[str, dict[str, str]]] = [
    (announce("ada"), {}),
    (announce("bob", port=2222), {}),
    (announce("ada", "alive"), {}),
    (announce("eve", "alive"), {}),
    (announce("eve", more="&ip=203.0.113.7"), {}),
    (announce("ada", "completed"), {}),
    (announce("ada", "stopped"), {}),
    (announce("ada", "nonsense"), {}),
    ("/announce", {}),
    ("/announce?", {}),
    ("/announce?peerId=%zz&swarmId=1&port=1", {}),
    (BITTORRENT + "&peer_id=" + quote_from_bytes(b"\xff" * 20) + "&left=0&event=started", {}),
    (BITTORRENT + "&peer_id=bbbbbbbbbbbbbbbbbbbb&left=9", {}),
    (BITTORRENT + "&peer_id=bbbbbbbbbbbbbbbbbbbb&left=9&compact=0", {}),
    (BITTORRENT + "&peer_id=bbbbbbbbbbbbbbbbbbbb&left=9&compact=0&no_peer_id=1", {}),
    (BITTORRENT + "&peer_id=bbbbbbbbbbbbbbbbbbbb&left=0&event=completed", {}),
    (BITTORRENT + "&peer_id=cccccccccccccccccccc&left=9&event=started", {"Accept": "application/json"}),
    (BITTORRENT + "&peer_id=cccccccccccccccccccc&left=9", {"X-Forwarded-For": "203.0.113.5"}),
    (BITTORRENT + "&peer_id=short&left=9", {}),
    (BITTORRENT + "&peer_id=%C3%A9&left=\xe9", {}),
    (f"/scrape?info_hash={BINARY}&info_hash={SWARM_HEX}&info_hash={'0' * 40}", {}),
    ("/scrape", {}),
    ("/health", {}),
    ("/announce/", {}),
    ("/announce/passkey", {}),
    ("/", {}),
    ("/%61nnounce?x", {}),
]


def test_flask_and_the_fast_front_give_the_same_bytes(crew: Crew) -> None:
    behind_flask = House(crew).app.test_client()
    with House(crew) as house, house.talk() as talker:
        for target, headers in COURSE:
            fast = talker.ask(target, *(f"{name}: {value}" for name, value in headers.items()))
            path, _, query = target.partition("?")
            slow = behind_flask.get(path, headers=headers, environ_overrides={"QUERY_STRING": query})
            assert (fast.status, fast.body) == (slow.status_code, slow.data), target
            assert fast.headers.get("content-type") == slow.headers.get("Content-Type"), target
            assert fast.headers["content-length"] == str(len(fast.body))
            assert "date" in fast.headers


def test_health_tells_how_much_there_is(crew: Crew) -> None:
    with House(crew) as house, house.talk() as talker:
        assert json.loads(talker.ask("/health").body) == {"status": "ok", "swarms": 0, "peers": 0}
        talker.ask(announce("ada"))
        reply = talker.ask("/health")
        assert json.loads(reply.body) == {"status": "ok", "swarms": 1, "peers": 1}
        assert reply.headers["content-type"] == "application/json"
        head = talker.ask("/health", method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert talker.ask("/health").status == 200


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW"])
@pytest.mark.parametrize("path", ["/announce", "/scrape"])
def test_an_announce_is_asked_for_with_get_only(crew: Crew, method: str, path: str) -> None:
    with House(crew) as house, house.talk() as talker:
        reply = talker.ask(announce("ada").replace("/announce", path), method=method)
        assert reply.status == 405
        assert reply.headers["allow"] == "GET"
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.body == (b"" if method == "HEAD" else b"Method not allowed\n")
        assert house.service.size() == (0, 0)


def test_other_paths_are_not_found_in_the_originals_words(crew: Crew) -> None:
    with House(crew) as house, house.talk() as talker:
        for path in (
            "/announce/",
            "/announces",
            "/api",
            "/api/swarms/",
            "/metrics/",
            "/Announce",
            "/static/x",
            "/..",
            "/%2e%2e/etc/passwd",
        ):
            reply = talker.ask(path)
            assert (reply.status, reply.body) == (404, b"404 page not found\n"), path
            assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("//announce?a=b%20c&d", "/announce?a=b%20c&d"),
        ("//announce", "/announce"),
        ("///scrape?x", "/scrape?x"),
        ("//evil.example//x", "/evil.example/x"),
        ("//a%20b%0d%0a", "/a%20b%0D%0A"),
        ("//announce?info_hash=\xe9%e9\x80+&x", "/announce?info_hash=%E9%e9%80+&x"),
    ],
)
def test_doubled_slashes_lead_to_the_clean_path(crew: Crew, target: str, location: str) -> None:
    with House(crew) as house, house.talk() as talker:
        reply = talker.ask(target)
        assert (reply.status, reply.headers["location"]) == (301, location)
