"""Scrapes, both directions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.core.tiers import place_of
from microtorrd.errors import ClientError, TrackerError
from microtorrd.proto import bencode
from microtorrd.proto.scrape import (
    MAX_SCRAPED,
    SwarmCounts,
    encode_scrape_query,
    encode_scrape_reply,
    parse_scrape_query,
    parse_scrape_reply,
    scrape_url,
)

ids = st.binary(min_size=20, max_size=20)
counts = st.builds(SwarmCounts, *[st.integers(0, 2**40)] * 3)


@given(st.lists(ids, min_size=1, max_size=MAX_SCRAPED))
def test_what_a_client_asks_the_tracker_reads(swarm_ids: list[bytes]) -> None:
    assert parse_scrape_query(encode_scrape_query(swarm_ids).encode("ascii")) == swarm_ids


@given(st.dictionaries(ids, counts, max_size=5))
def test_what_the_tracker_says_the_client_reads(swarms: dict[bytes, SwarmCounts]) -> None:
    raw = encode_scrape_reply(swarms)
    bencode.decode(raw, require_sorted=True)
    assert parse_scrape_reply(raw) == swarms


def test_ids_in_hex_and_the_originals_spelling_are_taken() -> None:
    assert parse_scrape_query(b"info_hash=" + b"0a" * 20) == [b"\x0a" * 20]
    assert parse_scrape_query(b"swarmId=" + b"0a" * 20) == [b"\x0a" * 20]


@pytest.mark.parametrize("query", [b"", b"x=1", b"info_hash=abc", b"info_hash=" + b"A" * 20 + b"&info_hash="])
def test_a_clients_mistake_names_the_parameter(query: bytes) -> None:
    with pytest.raises(ClientError, match=r"^info_hash") as caught:
        parse_scrape_query(query)
    assert caught.value.parameter == "info_hash"


def test_no_request_asks_for_too_many() -> None:
    with pytest.raises(ClientError, match="more than 100 times"):
        parse_scrape_query(b"&".join([b"info_hash=" + b"A" * 20] * (MAX_SCRAPED + 1)))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "the reply is empty"),
        (b"<html>", "the reply is a web page"),
        (b"de", "the reply has no files"),
        (b"d5:filesi1ee", "the reply has no files"),
        (b"d14:failure reason2:noe", "no"),
        (b"d" + b"x" * 300_000, "the reply is longer than"),
    ],
)
def test_what_is_no_reply_has_a_short_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(TrackerError, match=reason):
        parse_scrape_reply(raw)


def test_figures_that_make_no_sense_are_left_out() -> None:
    files: dict[bytes, Any] = {
        b"A" * 20: {b"complete": 1, b"incomplete": 2},
        b"B" * 20: {b"complete": -1},
        b"C" * 20: {b"complete": b"1"},
        b"D" * 20: 5,
        b"E" * 5: {b"complete": 1},
    }
    assert parse_scrape_reply(bencode.encode({b"files": files})) == {b"A" * 20: SwarmCounts(1, 0, 2)}


@given(st.binary(max_size=60).map(lambda raw: b"d5:filesd20:" + raw) | st.binary(max_size=60))
def test_a_reply_raises_nothing_but_tracker_error(raw: bytes) -> None:
    try:
        parse_scrape_reply(raw)
    except TrackerError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("announce", "scrape"),
    [
        ("http://t.example/announce", "http://t.example/scrape"),
        ("https://t.example:8/x/announce", "https://t.example:8/x/scrape"),
        ("http://t.example/announce.php?passkey=x", "http://t.example/scrape.php?passkey=x"),
        ("http://t.example/announce?x2%0644", "http://t.example/scrape?x2%0644"),
        ("http://t.example/a", None),
        ("http://t.example/announce/passkey", "http://t.example/scrape/passkey"),
        ("http://t.example/x/announce/k?a=b", "http://t.example/x/scrape/k?a=b"),
        ("http://t.example/announce/", None),
        ("http://t.example/announces/passkey", None),
        ("http://t.example/", None),
        ("http://t.example", None),
        ("http://t.example/x?a=/announce", None),
    ],
)
def test_where_a_tracker_is_scraped(announce: str, scrape: str | None) -> None:
    assert scrape_url(announce) == scrape


@given(st.text(max_size=60))
def test_any_url_that_can_be_asked_has_a_place_for_scrapes_or_none(rest: str) -> None:
    url = f"http://t.example/{rest}"
    if place_of(url) is not None:
        found = scrape_url(url)
        assert found is None or place_of(found) == place_of(url)
