"""Routes: our address that faces a host, and the interface that nothing may leave but by."""

from __future__ import annotations

import pytest
from gevent import socket

from microtorrd.errors import TrackerUnreachable
from microtorrd.net.routes import Routes, is_nearer, scope_of


@pytest.mark.parametrize(
    ("host", "scope"),
    [
        ("127.0.0.1", "loopback"),
        ("127.9.9.9", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("0.0.0.0", "loopback"),
        ("10.0.0.1", "private"),
        ("192.168.1.1", "private"),
        ("169.254.1.1", "private"),
        ("fe80::1", "private"),
        ("fd00::1", "private"),
        ("8.8.8.8", "global"),
        ("2606:4700::1", "global"),
    ],
)
def test_how_far_away_an_address_is(host: str, scope: str) -> None:
    assert scope_of(host) == scope


def test_nearer_is_what_the_other_could_not_reach_itself() -> None:
    assert is_nearer("loopback", than="private")
    assert is_nearer("private", than="global")
    assert not is_nearer("global", than="loopback")
    assert not is_nearer("private", than="private")


def test_our_own_address_on_the_way_is_found_without_a_packet() -> None:
    (route,) = Routes().find("127.0.0.1", 8888)
    assert route == ("127.0.0.1", "127.0.0.1", False)


def test_a_source_is_pinned_and_where_it_does_not_reach_nothing_goes() -> None:
    routes = Routes(lambda: ["127.0.0.2"])
    (route,) = routes.find("127.0.0.1", 8888)
    assert route == ("127.0.0.1", "127.0.0.2", True)
    with pytest.raises(TrackerUnreachable, match="interface has no address"):
        routes.find("::1", 8888)


def test_an_interface_without_an_address_makes_all_unreachable() -> None:
    with pytest.raises(TrackerUnreachable, match="interface has no address"):
        Routes(list).find("127.0.0.1", 8888)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70 + ".example", "a..b"])
def test_names_that_nobody_knows(host: str) -> None:
    with pytest.raises(TrackerUnreachable):
        Routes().find(host, 80)


def test_routes_are_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [
            (0, 0, 0, "", ("::1", port)),
            (0, 0, 0, "", ("127.0.0.1", port)),
            (0, 0, 0, "", ("127.0.0.3", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    now = 0.0
    routes = Routes(remember_s=60.0, clock=lambda: now)
    assert [route.remote for route in routes.find("tracker.example", 80)] == [
        "::1",
        "127.0.0.1",
    ]  # one a family
    now = 59.0
    routes.find("tracker.example", 80)
    assert len(asked) == 1
    now = 61.0
    routes.find("tracker.example", 80)
    assert len(asked) == 2
    routes.forget("tracker.example", 80)
    routes.find("tracker.example", 80)
    assert len(asked) == 3


def test_what_is_remembered_is_bounded() -> None:
    routes = Routes()
    for port in range(1, 2000):
        routes.find("127.0.0.1", port)
    assert len(routes._known) <= 512
