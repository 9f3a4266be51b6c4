"""Where a request comes from, and whose `ip` is honoured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.errors import ClientError
from microtorrd.proto.compact import host_text
from microtorrd.tracker.settings import IpParameter
from microtorrd.tracker.source import SourceRule, forwarded_for, is_rebindable

PROXIES = ("10.0.0.0/8", "2001:db8:ffff::1")


def ask(rule: SourceRule, socket_host: str, forwarded_for: str = "") -> tuple[str, bool]:
    source = rule.source(socket_host, forwarded_for)
    return host_text(source.host), source.may_name_host


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("10.1.2.3", True),
        ("172.31.0.1", True),
        ("172.32.0.1", False),
        ("192.168.1.1", True),
        ("169.254.1.1", True),
        ("100.64.0.1", False),
        ("192.0.2.1", False),
        ("8.8.8.8", False),
        ("::1", True),
        ("fd00::1", True),
        ("fe80::1%eth0", True),
        ("2001:db8::1", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:8.8.8.8", False),
    ],
)
def test_private_addresses_may_name_another_by_default(host: str, private: bool) -> None:
    rules: dict[IpParameter, bool] = {"private": private, "never": False, "always": True}
    for ip_parameter, allowed in rules.items():
        assert ask(SourceRule(ip_parameter, ()), host)[1] is allowed


def test_an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client() -> None:
    assert SourceRule("private", ()).source("::ffff:192.0.2.1", "").host == bytes([192, 0, 2, 1])
    assert len(SourceRule("private", ()).source("fe80::1%eth0", "").host) == 16


def test_what_is_no_address_cannot_ask() -> None:
    with pytest.raises(ClientError):
        SourceRule("private", ()).source("", "")


@pytest.mark.parametrize(
    ("forwarded_for", "host"),
    [
        ("192.0.2.9", "192.0.2.9"),
        ("1.1.1.1, 192.0.2.9", "192.0.2.9"),
        ("1.1.1.1,192.0.2.9, 10.9.9.9,2001:db8:ffff::1", "192.0.2.9"),
        ("10.0.0.5, 10.9.9.9", "10.0.0.5"),
        ("192.0.2.9:4711", "192.0.2.9"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("192.0.2.9, unknown", "10.0.0.1"),
        ("192.0.2.9, 10.7.7.7, _hidden, 10.6.6.6", "10.6.6.6"),
        (",", "10.0.0.1"),
    ],
)
def test_a_trusted_proxy_is_believed_and_what_stands_left_of_it_is_not(forwarded_for: str, host: str) -> None:
    rule = SourceRule("private", PROXIES)
    assert ask(rule, "10.0.0.1", forwarded_for)[0] == host


def test_others_are_not_believed() -> None:
    rule = SourceRule("private", PROXIES)
    assert ask(rule, "192.0.2.1", "127.0.0.1") == ("192.0.2.1", False)


def test_behind_a_proxy_it_is_the_client_that_must_be_private() -> None:
    rule = SourceRule("private", PROXIES)
    assert ask(rule, "10.0.0.1", "192.0.2.1") == ("192.0.2.1", False)
    assert ask(rule, "10.0.0.1", "192.168.0.1") == ("192.168.0.1", True)


def test_an_undeclared_proxy_on_this_host_opens_no_door() -> None:
    assert ask(SourceRule("private", ()), "127.0.0.1", "192.0.2.1") == ("127.0.0.1", False)


@pytest.mark.parametrize("words", ["unknown", "unix:", ",", "192.168.0.1, unknown", "unknown, 10.9.9.9"])
def test_whom_a_proxy_of_ours_does_not_name_is_not_taken_for_a_neighbour(words: str) -> None:
    rule = SourceRule("private", PROXIES)
    assert not ask(rule, "10.0.0.1", words)[1]
    assert not rule.is_private("10.0.0.1", words)


def test_traces_of_a_proxy_show_that_a_request_was_passed_on() -> None:
    assert forwarded_for({"host": "x"}.get) == ""
    assert forwarded_for({"x-forwarded-for": "192.0.2.1", "via": "1.1 x"}.get) == "192.0.2.1"
    for name in ("forwarded", "via", "x-real-ip"):
        told = forwarded_for({name: "192.168.0.1"}.get)
        for rule in (SourceRule("private", ()), SourceRule("private", ["127.0.0.1"])):
            assert ask(rule, "127.0.0.1", told) == ("127.0.0.1", False)


@pytest.mark.parametrize(
    ("host", "is_name"),
    [
        ("", False),
        ("localhost", False),
        ("LocalHost:8888", False),
        ("192.168.0.1", False),
        ("127.0.0.1:8888", False),
        ("[::1]:8888", False),
        ("[::1]", False),
        ("evil.example", True),
        ("evil.example:8888", True),
        ("localhost.evil.example", True),
        ("127.0.0.1.evil.example", True),
        ("[evil]:1", True),
        (":8888", True),
    ],
)
def test_a_name_in_host_may_lead_anywhere(host: str, is_name: bool) -> None:
    assert is_rebindable(host) is is_name


@given(st.text(max_size=60) | st.text("0123456789.:[],% ", max_size=60))
def test_no_header_breaks_it(forwarded_for: str) -> None:
    source = SourceRule("private", PROXIES).source("10.0.0.1", forwarded_for)
    assert len(source.host) in (4, 16)
