"""Keep-alives of many swarms in one request: both directions, and what strangers may send instead."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.errors import ClientError, TrackerError
from microtorrd.proto.announce import AnnounceRequest, choose_dialect, encode_query, parse_query
from microtorrd.proto.announce_reply import AnnounceReply, encode_json_reply, parse_reply
from microtorrd.proto.joint import (
    MOST_SWARMS,
    encode_joint_reply,
    ids_that_fit,
    pack_ids,
    read_offer,
    read_swarm_ids,
    read_unknown,
)
from microtorrd.proto.query import split_query
from tests.trees import trees

ids = st.lists(st.binary(min_size=20, max_size=20), min_size=1, max_size=20).map(tuple)
MANY = tuple(number.to_bytes(20, "big") for number in range(MOST_SWARMS))


def asked(**changes: Any) -> AnnounceRequest:
    fields: dict[str, Any] = {
        "swarm_id": b"",
        "swarm_ids": (b"\xff" * 20, b"\xfb\xf0" * 10),
        "peer_id": b"-MD0001-abcdefghijk+",
        "port": 7777,
        "event": "alive",
        "ip": "192.0.2.1",
    }
    return AnnounceRequest(**{**fields, **changes})


def test_a_joint_keep_alive_byte_for_byte() -> None:
    assert encode_query(asked(), "microtorr") == (
        "peerId=-MD0001-abcdefghijk%2B"
        "&swarmIds=___________________________78Pvw-_D78Pvw-_D78Pvw-_D78A"
        "&ip=192.0.2.1&port=7777&event=alive"
    )


@given(ids)
def test_what_a_client_says_the_tracker_reads(swarm_ids: tuple[bytes, ...]) -> None:
    request = asked(swarm_ids=swarm_ids)
    params = split_query(encode_query(request, "microtorr").encode("ascii"))
    assert choose_dialect(params, False) == "microtorr"
    assert parse_query(params, "microtorr") == request


@given(ids)
def test_what_the_tracker_does_not_know_the_client_reads(unknown: tuple[bytes, ...]) -> None:
    assert parse_reply(encode_joint_reply(unknown), "microtorr", is_joint=True) == AnnounceReply(
        unknown=unknown
    )


def test_where_all_is_well_the_answer_is_that_to_a_single_one() -> None:
    assert encode_joint_reply(()) == b""
    for is_joint in (False, True):
        assert parse_reply(b"", "microtorr", is_joint=is_joint) == AnnounceReply()


@pytest.mark.parametrize(
    "raw",
    [
        b'{"IdHash":"00","Peers":{}}',
        b'{"Peers":{},"Joint":256}',
        b"{}",
        b"Peer exited the swarm",
        b"d8:intervali600e5:peers0:e",
        b"de",
    ],
)
def test_what_answers_something_else_is_no_answer_to_a_joint_one(raw: bytes) -> None:
    with pytest.raises(TrackerError):
        parse_reply(raw, "microtorr", is_joint=True)


def test_nobody_is_unknown_to_who_was_asked_for_one_only() -> None:
    with pytest.raises(TrackerError, match="no Peers"):
        parse_reply(encode_joint_reply(MANY), "microtorr")


def test_the_offer_is_for_who_asks() -> None:
    for event in ("started", "alive"):
        request = AnnounceRequest(b"S" * 20, b"p" * 20, 1, event, asks_joint=True)
        query = encode_query(request, "microtorr")
        assert query.endswith(f"&event={event}&joint=1")
        assert parse_query(split_query(query.encode()), "microtorr") == request
    assert "joint" not in encode_query(request, "bittorrent")
    reply = encode_json_reply(b"S" * 20, [], joint_most=MOST_SWARMS)
    assert parse_reply(reply, "microtorr") == AnnounceReply(joint=MOST_SWARMS)
    # Who does not ask gets what the original's tracker says, byte for byte.
    assert set(json.loads(encode_json_reply(b"S" * 20, []))) == {"IdHash", "Peers"}


def test_as_many_ids_as_fit_fit() -> None:
    assert ids_that_fit(len(pack_ids(MANY))) == MOST_SWARMS
    assert ids_that_fit(len(pack_ids(MANY)) - 1) == MOST_SWARMS - 1
    assert ids_that_fit(-5) == 0
    assert read_swarm_ids(pack_ids(MANY).encode()) == MANY
    assert read_swarm_ids(pack_ids([b"x" * 20]).encode() + b"=") == (b"x" * 20,), "padded, as some write it"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        pack_ids([*MANY, b"x" * 20]).encode(),
        pack_ids([b"x" * 20])[:-2].encode(),  # 19 bytes
        pack_ids([b"\xff" * 20]).replace("_", "/").encode(),
        pack_ids([b"x" * 20]).encode() + b"==",
        b"%" + b"A" * 26,
        b"\xff" * 27,
        b"AAAA=AAA",
    ],
)
def test_what_is_no_list_of_ids_is_refused(value: bytes) -> None:
    with pytest.raises(ClientError) as caught:
        read_swarm_ids(value)
    assert caught.value.parameter == "swarmIds"


@given(st.binary(max_size=120) | st.text("AZaz09-_=+/%", max_size=120).map(str.encode))
def test_whatever_comes_is_ids_or_a_mistake_of_the_client_s(value: bytes) -> None:
    try:
        found = read_swarm_ids(value)
    except ClientError:
        return
    assert 0 < len(found) <= MOST_SWARMS
    assert all(len(swarm_id) == 20 for swarm_id in found)


@pytest.mark.parametrize("event", ["", "started", "stopped", "completed", "ALIVE"])
def test_nobody_enters_or_leaves_by_it(event: str) -> None:
    query = encode_query(asked(), "microtorr").replace("event=alive", f"event={event}")
    with pytest.raises(ClientError, match="swarmIds go with event=alive only"):
        parse_query(split_query(query.encode()), "microtorr")


def test_bittorrent_has_no_such_word() -> None:
    query = f"info_hash={'A' * 20}&peer_id={'p' * 20}&port=1&left=0&joint=1&swarmIds={pack_ids(MANY)}"
    assert parse_query(split_query(query.encode()), "bittorrent") == AnnounceRequest(
        b"A" * 20, b"p" * 20, 1, left=0
    )


values = trees(
    [
        None,
        True,
        False,
        0,
        1,
        2,
        256,
        10**30,
        -5,
        1.5,
        "",
        "AZ09-_=+/é",
        "A" * 27,
        "A" * 54,
        "A" * 53,
        "-_" * 27,
    ],
    ["", "a", "b", "ab"],
)


@given(values)
def test_whatever_a_tracker_offers_is_an_offer_or_nothing(value: object) -> None:
    assert read_offer(value) == 0 or 1 < read_offer(value) <= MOST_SWARMS
    try:
        parse_reply(json.dumps({"Joint": value, "Peers": {}}).encode(), "microtorr")
    except TrackerError as error:
        pytest.fail(f"it is odd, and no failure: {error}")


@given(values)
def test_whatever_a_tracker_calls_unknown_are_ids_or_a_failure(value: object) -> None:
    try:
        raw = json.dumps({"Unknown": value}).encode()
        unknown = parse_reply(raw, "microtorr", is_joint=True).unknown
    except TrackerError:
        return
    assert isinstance(value, str)
    assert read_unknown(value) == unknown
    assert all(len(swarm_id) == 20 for swarm_id in unknown)


@pytest.mark.parametrize("value", [None, True, [], "A" * 28, pack_ids(MANY[:1])[:-1], "+" * 27, "A" * 20_000])
def test_unknown_swarms_that_cannot_be_read_are_not_taken_for_none(value: object) -> None:
    with pytest.raises(TrackerError, match="no list of ids"):
        read_unknown(value)
