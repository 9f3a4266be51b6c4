"""How the tracker's settings are read."""

from __future__ import annotations

import pytest

from microtorrd.errors import ConfigError
from microtorrd.tracker.settings import parse_bind, parse_networks


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("0.0.0.0:8888", "0.0.0.0", 8888),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::]:8888", "::", 8888),
        ("[::1]:65535", "::1", 65535),
        ("localhost:80", "localhost", 80),
        (":8888", "0.0.0.0", 8888),
    ],
)
def test_bind_is_host_and_port(text: str, host: str, port: int) -> None:
    assert parse_bind(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8888",
        "localhost",
        "localhost:",
        "host:http",
        "host:65536",
        "host:-1",
        "host:１",
        "::1:80",
        "[::1]",
        "[::1:80",
    ],
)
def test_any_other_bind_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ConfigError, match=r"tracker\.bind") as caught:
        parse_bind(text)
    assert caught.value.key == "tracker.bind"


def test_networks_are_networks_or_single_addresses() -> None:
    assert [str(network) for network in parse_networks(["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"])] == [
        "10.0.0.0/8",
        "192.0.2.1/32",
        "2001:db8::/32",
    ]
    for wrong in ("proxy.example", "10.0.0.1/8", ""):
        with pytest.raises(ConfigError, match=r"tracker\.trusted_proxies"):
            parse_networks([wrong])
