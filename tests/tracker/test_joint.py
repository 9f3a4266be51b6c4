"""Joint keep-alives at the tracker's door: who lives on, who does not, and what strangers try."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microtorrd.errors import ClientError
from microtorrd.greenlets import Crew
from microtorrd.proto.announce import AnnounceRequest
from microtorrd.proto.announce_reply import AnnounceReply, parse_reply
from microtorrd.proto.compact import read_host
from microtorrd.proto.joint import MOST_SWARMS, pack_ids
from microtorrd.proto.scrape import SwarmCounts
from microtorrd.tracker.answer import Answerer, Origin
from microtorrd.tracker.service import OpenAdmission, TrackerService
from microtorrd.tracker.settings import TrackerSettings
from microtorrd.tracker.source import Source
from microtorrd.tracker.store import MemoryStore, StoreSize
from tests.tracker.store_contract import fixed_chance
from tests.tracker.talk import House, Talker

PEER = "ada".ljust(20, "x")


def swarm(number: int) -> bytes:
    return number.to_bytes(2, "big") * 10


def started(number: int, *, peer: str = PEER, more: str = "") -> str:
    return f"/announce?swarmId={swarm(number).hex()}&peerId={peer}&port=7&event=started{more}"


def alive(*numbers: int, peer: str = PEER, more: str = "") -> str:
    ids = pack_ids(swarm(number) for number in numbers)
    return f"/announce?peerId={peer}&swarmIds={ids}&port=7&event=alive{more}"


@pytest.fixture
def house(crew: Crew) -> Iterator[House]:
    with House(crew) as house:
        yield house


def unknown(talker: Talker, target: str, *headers: str) -> list[bytes]:
    """The swarms in which a joint keep-alive found nobody."""
    reply = talker.ask(target, *headers)
    assert reply.status == 200
    return list(parse_reply(reply.body, "microtorr", is_joint=True).unknown)


def test_the_offer_is_made_to_who_asks_and_to_nobody_else(house: House) -> None:
    with house.talk() as talker:
        assert set(json.loads(talker.ask(started(1)).body)) == {"IdHash", "Peers"}
        asked = json.loads(talker.ask(started(1, more="&joint=1")).body)
        assert asked["Joint"] == MOST_SWARMS
        assert set(asked["Peers"]) == {PEER}
        single = started(1).replace("event=started", "event=alive")
        assert talker.ask(single).body == b""
        again = talker.ask(single + "&joint=1")
        assert parse_reply(again.body, "microtorr") == AnnounceReply(joint=MOST_SWARMS)


def test_a_peer_lives_on_in_all_of_its_swarms_by_one_request(house: House) -> None:
    with house.talk() as talker:
        for number in (1, 2, 3):
            talker.ask(started(number))
        for _ in range(3):
            house.now += 25
            reply = talker.ask(alive(1, 2, 3))
            assert (reply.status, reply.body) == (200, b"")
            assert set(reply.headers) == {"date", "content-length"}
        house.now += 31
        assert unknown(talker, alive(1, 2, 3)) == [swarm(1), swarm(2), swarm(3)]


def test_only_those_that_are_unknown_are_named_and_none_is_entered(house: House) -> None:
    with house.talk() as talker:
        talker.ask(started(1))
        talker.ask(started(3))
        before = house.service.size()
        assert unknown(talker, alive(1, 2, 3, 4)) == [swarm(2), swarm(4)]
        assert house.service.size() == before == StoreSize(2, 2)
        talker.ask(started(2))
        assert unknown(talker, alive(1, 2, 3)) == []


def test_the_largest_request_is_served_at_the_door_and_one_more_is_not(house: House) -> None:
    many = range(1, MOST_SWARMS + 1)
    with house.talk() as talker:
        for number in many:
            talker.ask(started(number))
        assert unknown(talker, alive(*many), "Accept: application/json", "User-Agent: microtorrd/0.1.0") == []
        reply = talker.ask(alive(*many, MOST_SWARMS + 1))
        assert reply.status == 400
        assert json.loads(reply.body)["failure reason"].startswith(f"swarmIds must be 1 to {MOST_SWARMS} ids")
        assert talker.ask(alive(1)).status == 200


def test_nobody_keeps_others_alive(house: House) -> None:
    """A peer is its id and its host, as in single announces."""
    with house.talk() as talker, Talker(house.http.port, "127.0.0.1") as other:
        talker.ask(started(1))
        assert unknown(other, alive(1, peer="bob".ljust(20, "x"))) == [swarm(1)]
        assert unknown(other, alive(1, more="&ip=127.0.0.9")) == [swarm(1)]
        assert unknown(other, alive(1), "X-Forwarded-For: 192.0.2.1") == []


def test_ip_is_believed_by_the_same_rule(crew: Crew) -> None:
    with House(crew, ip_parameter="never") as house, house.talk() as talker:
        talker.ask(started(1))
        assert unknown(talker, alive(1, more="&ip=192.0.2.1")) == []
    with House(crew, ip_parameter="always") as house, house.talk() as talker:
        talker.ask(started(1, more="&ip=192.0.2.1"))
        assert unknown(talker, alive(1)) == [swarm(1)]
        assert unknown(talker, alive(1, more="&ip=192.0.2.1")) == []
        assert talker.ask(alive(1, more="&ip=localhost")).status == 400


def test_after_a_restart_of_the_tracker_everybody_is_unknown(crew: Crew) -> None:
    for _ in range(2):
        with House(crew) as house, house.talk() as talker:
            assert unknown(talker, alive(1, 2)) == [swarm(1), swarm(2)]
            talker.ask(started(1))
            assert unknown(talker, alive(1, 2)) == [swarm(2)]


def test_flask_says_the_same(house: House) -> None:
    client = house.app.test_client()
    client.get(started(1))
    reply = client.get(alive(1, 2))
    assert parse_reply(reply.data, "microtorr", is_joint=True).unknown == (swarm(2),)
    assert client.get(alive(1)).data == b""


def test_it_is_one_note(crew: Crew) -> None:
    notes: list[dict[str, Any]] = []
    with House(crew, on_request=notes.append) as house, house.talk() as talker:
        talker.ask(alive(1, 2))
    (note,) = notes
    assert note["swarm_ids"] == [swarm(1).hex(), swarm(2).hex()]
    assert (note["event"], note["peer_id"], note["failure"]) == ("alive", PEER, "")
    assert "swarm_id" not in note


class AllowList:
    """Admits some swarms."""

    def check(self, swarm_id: bytes, passkey: str | None) -> None:
        if swarm_id != swarm(1):
            raise ClientError("not on the list", parameter="info_hash")


def test_a_swarm_that_is_not_admitted_counts_as_unknown() -> None:
    """`started` will be told the reason."""
    store = MemoryStore(fixed_chance())
    host = read_host("192.0.2.1")
    assert host is not None
    source = Source(host, False)
    opened = TrackerService(TrackerSettings(), store, OpenAdmission())
    for number in (1, 2):
        opened.announce(
            AnnounceRequest(swarm(number), PEER.encode(), 7, "started"), "microtorr", source, 1000.0
        )
    request = AnnounceRequest(b"", PEER.encode(), 7, "alive", swarm_ids=(swarm(1), swarm(2)))
    assert opened.keep_alive(request, source, 1001.0) == []
    listed = TrackerService(TrackerSettings(), store, AllowList())
    assert listed.keep_alive(request, source, 1001.0) == [swarm(2)]


def test_all_swarms_are_asked_about_at_once_and_each_of_them_once() -> None:
    """What lies elsewhere costs a way there and back each time."""
    asked: list[list[bytes]] = []

    class Elsewhere(MemoryStore):
        def refresh_many(self, swarm_ids: Collection[bytes], *args: Any, **times: float) -> set[bytes]:
            asked.append(list(swarm_ids))
            return super().refresh_many(swarm_ids, *args, **times)

        def counts_many(self, swarm_ids: Collection[bytes]) -> dict[bytes, SwarmCounts]:
            asked.append(list(swarm_ids))
            return super().counts_many(swarm_ids)

    service = TrackerService(TrackerSettings(), Elsewhere(fixed_chance()), OpenAdmission())
    ids = (swarm(1), swarm(2), swarm(1))
    request = AnnounceRequest(b"", PEER.encode(), 7, "alive", swarm_ids=ids)
    assert service.keep_alive(request, Source(bytes(4), False), 1.0) == [swarm(1), swarm(2)]
    assert service.scrape(list(ids)) == {}
    assert asked == [[swarm(1), swarm(2)]] * 2


@pytest.fixture
def answerer() -> Answerer:
    settings = TrackerSettings()
    service = TrackerService(settings, MemoryStore(fixed_chance()), OpenAdmission())
    return Answerer(settings, service, lambda: 1000.0, None)


@given(
    swarm_ids=st.binary(max_size=90) | st.text("AZaz09-_=%", max_size=90).map(str.encode),
    event=st.sampled_from([b"alive", b"started", b"stopped", b"completed", b"", b"\xff"]),
    more=st.sampled_from([b"", b"&left=0", b"&ip=x", b"&joint=1", b"&swarmId=" + b"a" * 40]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # it may keep what it knows
def test_whatever_comes_has_an_answer_and_nobody_enters_by_it(
    answerer: Answerer, swarm_ids: bytes, event: bytes, more: bytes
) -> None:
    query = b"peerId=%b&port=7&event=%b&swarmIds=%b%b" % (PEER.encode(), event, swarm_ids, more)
    origin = Origin("192.0.2.1", b"left" not in query, "")
    assert answerer.announce(query, origin).status in (200, 400)
    assert json.loads(answerer.health().body)["peers"] == 0
