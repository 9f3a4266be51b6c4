"""What people and programs may read of a tracker: the page, the JSON, and who is kept out."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any, NoReturn

import pytest

from microtorrd.greenlets import Crew
from microtorrd.tracker.pages import MOST_SWARMS
from microtorrd.tracker.store import MemoryStore
from tests.tracker.store_contract import fixed_chance
from tests.tracker.talk import SWARM_HEX, House, Talker, announce

PAGES = ("/", "/api/swarms", f"/api/swarms/{SWARM_HEX}", "/metrics")
SWARM = bytes.fromhex(SWARM_HEX)


def fill(talker: Talker, count: int) -> list[str]:
    """So many swarms, the first with one peer, the next with two; their ids."""
    ids = [f"{number:02x}" * 20 for number in range(count)]
    for number, swarm_id in enumerate(ids):
        for who in range(number + 1):
            target = f"/announce?info_hash={swarm_id}&peer_id={who:020}&port=1&left={who}"
            assert talker.ask(target).status == 200
    return ids


def told(talker: Talker, target: str) -> Any:
    reply = talker.ask(target)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    return json.loads(reply.body)


# --------------------------------------------------------------------------------------------- the JSON


def test_swarms_as_json(crew: Crew) -> None:
    with House(crew, names={SWARM: "thing"}) as house, house.talk() as talker:
        nothing = {"swarms": [], "next": None, "age_s": 0.0}
        empty = {"swarms": 0, "peers": 0, "complete": 0, "incomplete": 0}
        assert told(talker, "/api/swarms") == {**nothing, "totals": empty}
        house.now += 3
        talker.ask(announce("ada"))
        talker.ask(announce("bob", more="&left=0"))
        row = {"id": SWARM_HEX, "name": "thing", "complete": 1, "incomplete": 1, "downloaded": 0}
        assert told(talker, f"/api/swarms/{SWARM_HEX}") == row
        assert told(talker, f"/api/swarms/{SWARM_HEX.upper()}") == row
        totals = {"swarms": 1, "peers": 2, "complete": 1, "incomplete": 1}
        assert told(talker, "/api/swarms") == {**nothing, "swarms": [row], "totals": totals}


def test_page_by_page_every_swarm_comes_once(crew: Crew) -> None:
    with House(crew) as house, house.talk() as talker:
        ids = fill(talker, 7)
        found, after = [], ""
        for wanted in (3, 3, 1):
            page = told(talker, f"/api/swarms?limit=3{after}")
            assert len(page["swarms"]) == wanted
            found += [row["id"] for row in page["swarms"]]
            after = f"&after={page['next']}"
        assert (found, page["next"]) == (ids, None)
        largest = told(talker, "/api/swarms?order=peers&limit=2")
        assert [(row["id"], row["complete"], row["incomplete"]) for row in largest["swarms"]] == [
            (ids[6], 1, 6),
            (ids[5], 1, 5),
        ]
        assert largest["next"] is None
        assert [row["name"] for row in largest["swarms"]] == [None, None]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("limit=0", f"limit must be a number from 1 to {MOST_SWARMS}"),
        (f"limit={MOST_SWARMS + 1}", "limit must be"),
        ("limit=%D9%A3", "limit must be"),
        ("limit=999999999999999999999", "limit must be"),
        ("limit=1&limit=x", "limit must be"),
        ("order=size", "order must be id or peers"),
        ("after=12", "after must be the id of a swarm, 40 hex digits"),
        (f"after={'g' * 40}", "after must be"),
        (f"order=peers&after={SWARM_HEX}", "after goes with order=id only"),
    ],
)
def test_what_is_wrong_with_a_question_is_named(crew: Crew, query: str, says: str) -> None:
    with House(crew) as house, house.talk() as talker:
        reply = talker.ask(f"/api/swarms?{query}")
        assert (reply.status, reply.headers["content-type"]) == (400, "application/json")
        assert says in json.loads(reply.body)["error"]
        assert told(talker, "/api/swarms?limit=&after=&order=&other=1")["swarms"] == []


@pytest.mark.parametrize("swarm_id", [SWARM_HEX, "x", "0" * 39, "%20", "0" * 4000])
def test_a_swarm_that_is_not_there(crew: Crew, swarm_id: str) -> None:
    with House(crew) as house, house.talk() as talker:
        reply = talker.ask(f"/api/swarms/{swarm_id}")
        assert (reply.status, json.loads(reply.body)) == (404, {"error": "no swarm here has this id"})


def test_nobody_is_told_who_the_peers_are(crew: Crew) -> None:
    with House(crew) as house, house.talk() as talker:
        talker.ask(announce("ada", port=54321, more="&ip=203.0.113.77"))
        for page in PAGES:
            body = talker.ask(page).body
            for word in (b"203.0.113.77", b"54321", b"ada", bytes([203, 0, 113, 77]), b"cb00714d"):
                assert word not in body, page


# ---------------------------------------------------------------------------------------- who may read it


@pytest.mark.parametrize(
    ("readers", "headers", "status"),
    [
        ("private", [], 200),
        ("private", ["X-Forwarded-For: 203.0.113.7"], 403),
        # Somebody passed it on whom nobody has declared: it may come from anywhere.
        ("private", ["X-Forwarded-For: 127.0.0.1"], 403),
        ("private", ["X-Real-IP: 127.0.0.1"], 403),
        ("private", ["Host: evil.example"], 200),
        ("always", ["X-Forwarded-For: 203.0.113.7"], 200),
        ("never", [], 404),
    ],
)
@pytest.mark.parametrize("page", PAGES)
def test_pages_are_for_whom_the_setting_says(
    crew: Crew, readers: str, headers: list[str], status: int, page: str
) -> None:
    with House(crew, pages=readers) as house, house.talk() as talker:
        talker.ask(announce("ada"))
        for method in ("GET", "HEAD"):
            reply = talker.ask(page, *headers, method=method)
            assert reply.status == status
            assert reply.headers["cache-control"] == "no-store"
        assert talker.ask("/health", *headers).status == 200
        assert talker.ask(announce("bob"), *headers).status == 200


def test_behind_a_proxy_of_ours_it_counts_where_the_reader_is(crew: Crew) -> None:
    with House(crew, trusted_proxies=("127.0.0.1",)) as house, house.talk() as talker:
        for client, status in [("10.1.2.3", 200), ("fd00::1", 200), ("203.0.113.7", 403)]:
            reply = talker.ask("/api/swarms", f"X-Forwarded-For: {client}")
            assert reply.status == status, client
        assert talker.ask("/api/swarms", "X-Forwarded-For: 203.0.113.7, 127.0.0.1").status == 403


def test_strangers_see_ids_and_no_names(crew: Crew) -> None:
    with House(crew, names={SWARM: "secret plans"}, pages="always") as house, house.talk() as talker:
        talker.ask(announce("ada"))
        for page in PAGES[:3]:
            assert b"secret plans" in talker.ask(page).body
            reply = talker.ask(page, "X-Forwarded-For: 203.0.113.7")
            assert (reply.status, SWARM_HEX.encode() in reply.body) == (200, True)
            assert b"secret plans" not in reply.body


def test_a_web_site_whose_name_leads_here_reads_no_names(crew: Crew) -> None:
    with House(crew, names={SWARM: "secret plans"}) as house, house.talk() as talker:
        talker.ask(announce("ada"))
        for page in PAGES[:3]:
            for host in ("localhost:8888", "127.0.0.1", "[::1]:8888"):
                assert b"secret plans" in talker.ask(page, f"Host: {host}").body
            reply = talker.ask(page, "Host: evil.example:8888")
            assert (reply.status, SWARM_HEX.encode() in reply.body) == (200, True)
            assert b"secret plans" not in reply.body


# ------------------------------------------------------------------------------------------- for people


class Elements(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep it."""
        if data.strip():
            self.texts.append(data.strip())


def test_the_page_has_the_figures_without_any_script(crew: Crew) -> None:
    with House(crew, names={b"\x01" * 20: "images"}) as house, house.talk() as talker:
        reply = talker.ask("/")
        assert "Nobody is here." in Elements(reply.body.decode()).texts
        ids = fill(talker, 2)
        house.now += 3
        reply = talker.ask("/")
        assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
        texts = Elements(reply.body.decode()).texts
        assert "All swarms, the largest first." in texts
        at = texts.index("images")
        assert texts[at : at + 5] == ["images", ids[1], "1", "1", "0"]
        assert texts[at + 5 : at + 9] == [ids[0], "1", "0", "0"]
        assert talker.ask("/", method="HEAD").body == b""


def test_the_page_shows_the_largest_of_many(crew: Crew) -> None:
    with House(crew) as house, house.talk() as talker:
        for number in range(101):
            talker.ask(f"/announce?info_hash={number:040x}&peer_id={'x' * 20}&port=1&left=1")
        page = Elements(talker.ask("/").body.decode())
        assert "The 100 largest swarms." in page.texts
        assert sum(tag == "tr" for tag, _ in page.tags) == 101


def test_whatever_a_torrent_is_called_it_is_text(crew: Crew) -> None:
    name = "<script>alert(1)</script>\"'&{{ 7 * 7 }}\udcff"
    with House(crew, names={SWARM: name}) as house, house.talk() as talker:
        talker.ask(announce("ada"))
        html = talker.ask("/").body.decode()
        page = Elements(html)
        assert name.replace("\udcff", "?") in "".join(page.texts)
        assert [tag for tag, _ in page.tags].count("script") == 1
        assert told(talker, f"/api/swarms/{SWARM_HEX}")["name"] == name


def test_the_page_needs_nothing_from_elsewhere_and_may_do_nothing_else(crew: Crew) -> None:
    with House(crew) as house, house.talk() as talker:
        reply = talker.ask("/")
        html = reply.body.decode()
        policy = dict(
            part.strip().split(" ", 1) for part in reply.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        for tag in ("script", "style"):
            (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
            assert policy[f"{tag}-src"] == f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
        for tag, attributes in Elements(html).tags:
            assert not {"src", "style", "onclick", "onload"} & set(attributes), tag
            assert not re.match(r"(?:[a-z]+:)?//", attributes.get("href") or ""), "all links stay here"
        assert "//" not in re.sub(r"<!doctype.*?>", "", html), "no host is named, nowhere"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"


# ------------------------------------------------------------------------------------------ in general


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_read_and_nothing_else(crew: Crew, page: str) -> None:
    with House(crew) as house, house.talk() as talker:
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            reply = talker.ask(page, method=method)
            assert (reply.status, reply.body) == (405, b"Method not allowed\n")
            assert reply.headers["allow"] == "GET, HEAD"


class BrokenStore(MemoryStore):
    """A store with a bug."""

    def swarm_ids(self) -> NoReturn:
        """Fail."""
        raise RuntimeError("secret of the house")


def test_what_is_our_fault_is_logged_and_not_told(
    crew: Crew, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    with House(crew, store=BrokenStore(fixed_chance())) as house, house.talk() as talker:
        for page in ("/", "/api/swarms"):
            reply = talker.ask(page)
            assert (reply.status, reply.body) == (500, b"internal error\n")
    lines = [line for line in log_lines() if line["level"] == "error"]
    assert [(line["event"], line["page"]) for line in lines] == [
        ("page_failed", "front"),
        ("page_failed", "swarms"),
    ]
    assert all("secret of the house" in line["exception"] for line in lines)
