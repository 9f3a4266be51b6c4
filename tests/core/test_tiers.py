"""Tiers: the order of BEP 12, back-offs, and what a URL points at."""

from __future__ import annotations

import math
import random

import pytest

from microtorrd.core.tiers import MAX_TRACKERS, Pacing, Place, Tiers, drawn, place_of


def urls(tiers: Tiers) -> str:
    return " ".join(tracker.url.split("/")[2] for tracker in tiers)


def tiers(picture: str, dialect: str = "bittorrent") -> Tiers:
    """`a b | c`: two tiers."""
    return Tiers(
        [[f"http://{name}/announce" for name in tier.split()] for tier in picture.split("|")],
        "microtorr" if dialect == "microtorr" else "bittorrent",
    )


def test_the_one_that_answers_moves_to_the_front_of_its_tier_as_in_bep_12() -> None:
    one = tiers("t1 t2 t3")
    order = {tracker.url.split("/")[2]: tracker for tracker in one}
    one.promote(order["t2"])
    assert urls(one) == "t2 t1 t3"
    one.promote(order["t3"])
    assert urls(one) == "t3 t2 t1"


def test_nobody_leaves_his_tier() -> None:
    both = tiers("a b | c d")
    both.promote(list(both)[3])
    assert urls(both) == "a b d c"


def test_who_rests_is_passed_over_and_the_walk_begins_at_the_top() -> None:
    both = tiers("a | b")
    first, second = both
    assert both.candidate(10.0) is first
    first.retry_at = 20.0
    assert both.candidate(10.0) is second
    second.retry_at = 15.0
    assert both.candidate(10.0) is None
    assert both.next_try() == 15.0
    assert both.candidate(20.0) is first


def test_who_rests_for_ever_is_never_tried() -> None:
    alone = tiers("a")
    next(iter(alone)).retry_at = math.inf
    assert alone.next_try() is None


def test_each_dialect_asks_only_what_it_can_speak_to() -> None:
    mixed = [["udp://a:1", "http://b/x"], ["wss://c/", "not a url"]]
    assert [t.state for t in Tiers(mixed, "microtorr")] == [
        "unsupported",
        "idle",
        "unsupported",
        "unsupported",
    ]
    assert [t.state for t in Tiers(mixed, "bittorrent")] == ["idle", "idle", "unsupported", "unsupported"]
    assert Tiers([["udp://a:1"]], "microtorr").next_try() is None


def test_the_order_within_a_tier_is_drawn_and_the_tiers_stay() -> None:
    names = [f"http://{n}/" for n in range(8)]
    orders = {tuple(drawn([names, ["http://z/"]], random.Random(seed))[0]) for seed in range(20)}
    assert len(orders) > 10
    assert all(sorted(order) == sorted(names) for order in orders)
    assert drawn([names, ["http://z/"]], random.Random(1))[1] == ("http://z/",)


def test_repeated_trackers_and_empty_tiers_are_left_out_and_the_number_is_bounded() -> None:
    chance = random.Random(1)
    assert drawn([["a"], [], ["a"], ["b", "b"]], chance) == (("a",), ("b",))
    many = drawn([[f"{tier}-{n}" for n in range(60)] for tier in range(5)], chance)
    assert sum(len(tier) for tier in many) == MAX_TRACKERS


@pytest.mark.parametrize(
    ("failures", "low", "high"),
    [(1, 5, 6), (2, 8, 12), (3, 16, 24), (5, 64, 96), (9, 1024, 1536), (12, 1800, 1800), (500, 1800, 1800)],
)
def test_back_off_doubles_from_5_seconds_to_30_minutes(failures: int, low: float, high: float) -> None:
    pacing = Pacing()
    waits = [pacing.backoff_s(failures, rarely=False, chance=random.Random(seed)) for seed in range(200)]
    assert low <= min(waits) <= max(waits) <= high
    assert failures > 11 or max(waits) - min(waits) > (high - low) / 2  # torrents do not come back together


def test_what_is_not_needed_is_tried_once_in_hours() -> None:
    waits = [Pacing().backoff_s(n, rarely=True, chance=random.Random(3)) for n in (1, 2, 20)]
    assert waits[0] >= 3600
    assert waits[2] == 6 * 3600


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://tracker.example/announce", Place("http", "tracker.example", 80)),
        ("https://Tracker.Example/a?b=c", Place("https", "tracker.example", 443)),
        ("http://127.0.0.1:8888/announce", Place("http", "127.0.0.1", 8888)),
        ("http://[2001:db8::1]:80/announce", Place("http", "2001:db8::1", 80)),
        ("udp://tracker.example:1337", Place("udp", "tracker.example", 1337)),
        ("udp://tracker.example/announce", None),  # there is no default port
        ("http://tracker.example:0/announce", None),
        ("http://tracker.example:99999/announce", None),
        ("http://tracker.example:x/announce", None),
        ("http:///announce", None),
        ("http://[::1/announce", None),
        ("ftp://tracker.example/announce", None),
        ("file:///etc/passwd", None),
        ("tracker.example", None),
        ("", None),
        ("http://tracker.example/\r\nHost: victim", None),
        ("http://tracker.example/" + "a" * 5000, None),
    ],
)
def test_where_a_url_points(url: str, place: Place | None) -> None:
    assert place_of(url) == place


def test_http_and_udp_on_one_port_are_two_services_and_two_paths_are_one() -> None:
    ends = [place_of(url) for url in ("http://a:80/x", "https://a:80/y", "udp://a:80", "http://a:81/x")]
    keys = [place.endpoint for place in ends if place is not None]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
