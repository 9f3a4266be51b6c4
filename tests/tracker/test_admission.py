"""Who may use the tracker: the rules, passkeys in paths by both servers, and what is told of passkeys."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_from_bytes

import pytest

from microtorrd.errors import NotAdmitted
from microtorrd.greenlets import Crew
from microtorrd.proto import bencode, joint
from microtorrd.proto.scrape import parse_scrape_reply
from microtorrd.tracker.admission import NO_PASSKEY, NOT_SERVED, WRONG_PASSKEY, admission
from microtorrd.tracker.lists import Lists
from microtorrd.tracker.passkeys import Passkeys, split_path
from microtorrd.tracker.service import OpenAdmission
from microtorrd.tracker.settings import Access
from tests.tracker.talk import SWARM_HEX, House, announce

ADA = "ada-0123456789abcdef"
LISTED, BANNED, OURS, OTHER = (bytes([number]) * 20 for number in range(4))
SWARM = bytes.fromhex(SWARM_HEX)


def name_of(swarm_id: bytes) -> str | None:
    """The torrents of the daemon around it."""
    return "thing" if swarm_id == OURS else None


def admitted(access: Access, lists: Lists, passkey: str | None = None) -> set[bytes]:
    """Those of the swarms that are."""
    rules = admission(access, lists, name_of)
    found = set()
    for swarm_id in (LISTED, BANNED, OURS, OTHER):
        try:
            rules.check(swarm_id, passkey)
        except NotAdmitted as error:
            assert error.kind == "not_admitted"
        else:
            found.add(swarm_id)
    return found


@pytest.mark.parametrize(
    ("access", "allowed", "denied", "wanted"),
    [
        ("open", set(), {BANNED}, {LISTED, OURS, OTHER}),
        ("listed", {LISTED, OTHER}, set(), {LISTED, OTHER}),
        ("listed", {LISTED, BANNED}, {BANNED}, {LISTED}),
        ("listed", set(), set(), set()),
        ("own", set(), set(), {OURS}),
        ("own", {LISTED}, set(), {LISTED, OURS}),
        ("own", set(), {OURS}, set()),
    ],
)
def test_which_swarms_are_served(
    access: Access, allowed: set[bytes], denied: set[bytes], wanted: set[bytes]
) -> None:
    lists = Lists(frozenset(allowed), frozenset(denied))
    assert admitted(access, lists) == wanted
    with_users = lists._replace(passkeys=Passkeys([(ADA, "ada")]))
    assert admitted(access, with_users, ADA) == wanted
    for stranger in (None, "", ADA[:-1], ADA + "0", ADA.upper(), "\ud800", "ä" * 4000):
        assert admitted(access, with_users, stranger) == set()


def test_where_there_are_no_rules_nothing_is_checked() -> None:
    assert isinstance(admission("open", Lists(), name_of), OpenAdmission)


def test_users_are_known_by_their_passkeys_and_these_are_kept_nowhere() -> None:
    passkeys = Passkeys([(ADA, "ada"), ("bob-0123456789abcdef", "bob")])
    assert (passkeys.user_of(ADA), passkeys.user_of("eve-0123456789abcdef"), len(passkeys)) == (
        "ada",
        None,
        2,
    )
    assert ADA not in repr(vars(passkeys))


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (b"/announce/key", (b"/announce", "key")),
        (b"/scrape/key", (b"/scrape", "key")),
        (b"/announce/\xff", (b"/announce", "\xff")),
        (b"/announce", (b"/announce", None)),
        (b"/announce/", (b"/announce/", None)),
        (b"/announce/a/b", (b"/announce/a/b", None)),
        (b"/announce/%41", (b"/announce/%41", None)),
        (b"/announcekey", (b"/announcekey", None)),
        (b"/health/key", (b"/health/key", None)),
    ],
)
def test_the_passkey_is_the_last_part_of_the_path(path: bytes, parts: tuple[bytes, str | None]) -> None:
    assert split_path(path) == parts


# ------------------------------------------------------------------------------------------- over the wire


def with_passkeys(house: House, access: Access = "open", **lists: Any) -> House:
    """Let ada in alone."""
    chosen = Lists(passkeys=Passkeys([(ADA, "Ada")]), **lists)
    house.service.admit_by(admission(access, chosen, name_of), chosen.passkeys)
    return house


BITTORRENT = f"?info_hash={quote_from_bytes(SWARM)}&peer_id={'b' * 20}&port=1&left=0"
COURSE = [
    announce("ada"),
    announce("ada").replace("/announce", f"/announce/{ADA}"),
    announce("bob").replace("/announce", f"/announce/{ADA[:-1]}%66"),
    announce("eve").replace("/announce", "/announce/\xff"),
    announce("eve").replace("/announce", "/announce/%FF"),
    announce("eve").replace("/announce", f"/announce/{ADA}/"),
    announce("eve").replace("/announce", "/announce/"),
    f"/announce{BITTORRENT}",
    f"/announce/wrong{BITTORRENT}",
    f"/announce/{ADA}{BITTORRENT}",
    f"/scrape?info_hash={SWARM_HEX}",
    f"/scrape/{ADA}?info_hash={SWARM_HEX}",
    f"/scrape/{ADA}",
    f"/health/{ADA}",
]


def test_both_servers_take_passkeys_alike(crew: Crew) -> None:
    behind_flask = with_passkeys(House(crew)).app.test_client()
    with with_passkeys(House(crew)) as house, house.talk() as talker:
        for target in COURSE:
            fast = talker.ask(target)
            path, _, query = target.partition("?")
            slow = behind_flask.get(path, environ_overrides={"QUERY_STRING": query})
            assert (fast.status, fast.body) == (slow.status_code, slow.data), target
            assert fast.headers.get("content-type") == slow.headers.get("Content-Type"), target
        assert house.service.size() == (1, 3)


def test_a_refusal_is_the_dialects_own_failure(crew: Crew) -> None:
    with with_passkeys(House(crew), "listed", denied=frozenset([SWARM])) as house, house.talk() as talker:
        for path, reason in [("", NO_PASSKEY), ("/wrong", WRONG_PASSKEY), (f"/{ADA}", NOT_SERVED)]:
            reply = talker.ask(announce("ada").replace("/announce", f"/announce{path}"))
            assert (reply.status, json.loads(reply.body)) == (400, {"failure reason": reason})
            for door in ("announce", "scrape"):
                reply = talker.ask(f"/{door}{path}{BITTORRENT}")
                assert reply.status == 200
                assert bencode.decode(reply.body) == {b"failure reason": reason.encode()}
        assert house.service.size() == (0, 0)


def test_without_passkeys_there_are_no_such_paths(crew: Crew) -> None:
    with House(crew) as house, house.talk() as talker:
        for target in (f"/announce/{ADA}{BITTORRENT}", f"/scrape/{ADA}{BITTORRENT}"):
            assert talker.ask(target).status == 404


def test_announces_with_a_passkey_are_asked_for_with_get_only(crew: Crew) -> None:
    with with_passkeys(House(crew)) as house, house.talk() as talker:
        for method in ("HEAD", "POST"):
            reply = talker.ask(f"/announce/{ADA}{BITTORRENT}", method=method)
            assert (reply.status, reply.headers["allow"]) == (405, "GET")
        assert house.service.size() == (0, 0)


def test_of_many_that_are_scraped_the_admitted_ones_are_told(crew: Crew) -> None:
    with House(crew) as house, house.talk() as talker:
        talker.ask(announce("ada"))
        lists = Lists(denied=frozenset([BANNED]))
        house.service.admit_by(admission("open", lists, name_of))
        ids = [quote_from_bytes(swarm_id) for swarm_id in (BANNED, SWARM)]
        reply = talker.ask(f"/scrape?info_hash={ids[0]}&info_hash={ids[1]}")
        assert set(parse_scrape_reply(reply.body)) == {SWARM}


def test_a_joint_keep_alive_keeps_nobody_in_a_swarm_that_is_not_served(crew: Crew) -> None:
    with House(crew) as house, house.talk() as talker:
        talker.ask(announce("ada"))
        alive = f"peer_id={'ada':x<20}&port=1111&event=alive&swarmIds={joint.pack_ids([SWARM])}"
        assert talker.ask(f"/announce?{alive}").body == b""
        with_passkeys(house, denied=frozenset([SWARM]))
        for path in ("", "/wrong", f"/{ADA}"):
            reply = talker.ask(f"/announce{path}?{alive}")
            assert json.loads(reply.body) == {"Unknown": joint.pack_ids([SWARM])}
        with_passkeys(house)
        assert talker.ask(f"/announce/{ADA}?{alive}").body == b""
        assert talker.ask(f"/announce?{alive}").body != b""


def test_notes_and_log_tell_the_user_and_never_the_passkey(
    crew: Crew, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    notes: list[dict[str, Any]] = []
    with with_passkeys(House(crew, on_request=notes.append)) as house, house.talk() as talker:
        for path in ("", "/wrong-0123456789abcd", f"/{ADA}"):
            talker.ask(announce("ada").replace("/announce", f"/announce{path}"))
    assert [note.get("user") for note in notes] == [None, None, "Ada"]
    assert [note["failure"] for note in notes] == [NO_PASSKEY, WRONG_PASSKEY, ""]
    told = repr(notes) + repr(log_lines())
    assert ADA not in told
    assert "wrong-0123456789abcd" not in told
