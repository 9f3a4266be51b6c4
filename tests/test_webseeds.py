"""Which web seeds are in use, how many connections each has, and who rests for how long."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from microtorrd.core.events import Fact
from microtorrd.errors import WebSeedError
from microtorrd.greenlets import Crew
from microtorrd.net.routes import Routes
from microtorrd.net.web_connector import WebConnector
from microtorrd.net.web_landing import WebMemory
from microtorrd.net.webseed import WebSeedWire
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.metainfo import FileEntry
from microtorrd.rate import TokenBucket
from microtorrd.webseeds import PER_DAEMON, PER_TORRENT, PER_URL, WebSeeds

A, B = "http://me:secret@a.example/", "https://b.example/pub/"


class Place:
    """What surrounds the web seeds of one torrent; the wires that it gets are never started."""

    def __init__(self, crew: Crew, *urls: str) -> None:
        self.now = 1000.0
        self.wires: list[WebSeedWire] = []
        self.crew = crew
        self.facts: list[Fact] = []
        self.facilities = SimpleNamespace(
            chance=random.Random(1),
            web_connections=0,
            web_connector=WebConnector(Routes()),
            web_memory=WebMemory(),
            down=TokenBucket(),
            down_of_a_peer=TokenBucket,
        )
        content = SimpleNamespace(
            web_seeds=urls,
            web_name="name",
            entries=(FileEntry(("name",), 100),),
            is_single_file=True,
            geometry=Geometry(100, 10),
            record=SimpleNamespace(name="name"),
        )
        self.seeds = WebSeeds(
            cast(Any, content), cast(Any, self.facilities), cast(Any, self), down=TokenBucket()
        )

    def post(self, facts: list[Fact]) -> None:
        self.facts.extend(facts)

    def adopt_web_seed(self, make: Callable[[int], WebSeedWire]) -> None:
        self.wires.append(make(len(self.wires) + 1))

    def look(self, missing: int = 9, after_s: float = 1.0) -> list[str]:
        """Time passes; the URLs that were opened."""
        self.now += after_s
        before = len(self.wires)
        self.seeds.look(missing, self.now)
        return [wire.url for wire in self.wires[before:]]

    def fail(self, wire: WebSeedWire, rest_s: float = 0.0) -> None:
        wire.failure = WebSeedError("it is broken", rest_s=rest_s)
        self.seeds.left(wire, "it is broken", self.now)

    def rest(self) -> float:
        """How long the first one rests."""
        return self.seeds.status(self.now)[0].retry_in_s or 0.0


def test_the_first_connection_has_to_prove_itself(crew: Crew) -> None:
    place = Place(crew, A, B)
    assert place.look() == [A, B]
    assert place.look() == []
    place.wires[1].blocks = 1
    assert place.look() == [B]
    assert place.look() == []
    place.wires[2].blocks = 1
    assert (place.look(), place.look()) == ([B], [])
    assert [status.connections for status in place.seeds.status(place.now)] == [1, PER_URL]
    assert place.facilities.web_connections == 4


def test_for_little_that_is_missing_one_connection_is_enough(crew: Crew) -> None:
    place = Place(crew, A)
    place.look()
    place.wires[0].blocks = 1
    assert place.look(missing=1) == []
    assert place.look(missing=2) == [A]


def test_without_want_all_are_closed_and_none_opened(crew: Crew) -> None:
    place = Place(crew, A, B)
    assert place.look(0) == []
    assert not place.seeds.expectant
    place.look()
    assert place.seeds.expectant
    place.look(0)
    assert all(wire.closed for wire in place.wires)
    for wire in place.wires:
        place.seeds.left(wire, "nothing more is wanted of it", place.now)
    assert place.look(0) == []
    assert place.look() == [A, B]
    assert place.facilities.web_connections == 2


def test_rests_grow_and_a_delivery_makes_them_short_again(crew: Crew) -> None:
    place = Place(crew, A)
    for least in (5, 10, 20, 40):
        assert place.look(after_s=place.rest() + 1) == [A]
        place.fail(place.wires[-1])
        assert least <= place.rest() <= 1.5 * least
        assert place.look() == []
    assert place.look(after_s=60) == [A]
    place.wires[-1].blocks = 1
    place.fail(place.wires[-1])
    assert 5 <= place.rest() <= 7.5
    for _ in range(20):
        place.look(after_s=3000)
        place.fail(place.wires[-1])
    assert 1800 <= place.rest() <= 2700


def test_what_the_fault_deserves_and_the_server_wishes_is_kept(crew: Crew) -> None:
    place = Place(crew, A)
    place.look()
    place.fail(place.wires[0], rest_s=3600)
    assert 3600 <= place.rest() <= 5400
    assert place.look(after_s=3599) == []
    (status,) = place.seeds.status(place.now)
    assert (status.url, status.state, status.message) == ("http://a.example/", "resting", "it is broken")


def test_who_is_banned_is_never_used_again(crew: Crew) -> None:
    place = Place(crew, A, B)
    place.look()
    place.seeds.ban(A, "3 corrupt pieces")
    for wire in place.wires:
        place.seeds.left(wire, "3 corrupt pieces", place.now)
    assert place.look(after_s=100) == [B]
    assert place.seeds.status(place.now)[0].state == "banned"


def test_bounds(crew: Crew) -> None:
    place = Place(crew, *(f"http://h{number}.example/" for number in range(60)))
    assert len(place.look()) == PER_TORRENT
    assert place.look() == []
    place = Place(crew, A, B)
    place.facilities.web_connections = PER_DAEMON - 1
    assert place.look() == [A]
    assert len(place.seeds.status(place.now)) == 2
    odd = Place(crew, "ftp://a.example/", "udp://b.example:1/", "http://", "gopher")
    assert odd.look() == [] and odd.seeds.status(odd.now) == []
    assert not odd.seeds.expectant
