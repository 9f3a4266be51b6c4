"""Magnet links: what is understood, what is refused, and that nothing else comes out."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.errors import InvalidParams
from microtorrd.proto.magnet import MAX_CHARACTERS, MAX_OF_A_KIND, Magnet, format_magnet, parse_magnet

IH = bytes(range(20))
ID = bytes(range(100, 120))
XT = f"xt=urn:btih:{IH.hex()}"

#: What we write, and what it means.
WRITTEN = (
    (f"magnet:?{XT}", Magnet(IH)),
    (f"magnet:?xt=urn:mtid:{ID.hex()}", Magnet(None, ID)),
    (f"magnet:?{XT}&x.mtid={ID.hex()}&dn=a%20b%26c", Magnet(IH, ID, "a b&c")),
    (
        f"magnet:?{XT}&tr=http%3A%2F%2Ft%3A1%2Fannounce%3Fa%3Db&tr=udp%3A%2F%2Fu%3A2",
        Magnet(IH, trackers=("http://t:1/announce?a=b", "udp://u:2")),
    ),
    (f"magnet:?{XT}&ws=https%3A%2F%2Fw%2Ff", Magnet(IH, web_seeds=("https://w/f",))),
    (
        f"magnet:?{XT}&x.pe=10.0.0.1:6881&x.pe=[::1]:7777&x.pe=host.example:1",
        Magnet(IH, peers=(("10.0.0.1", 6881), ("::1", 7777), ("host.example", 1))),
    ),
)

#: What others write.
READ = (
    (f"MAGNET:?XT=urn:btih:{IH.hex().upper()}", Magnet(IH)),
    (f"magnet:?xt=urn:btih:{base64.b32encode(IH).decode()}", Magnet(IH)),
    (f"magnet:?xt=urn:btih:{base64.b32encode(IH).decode().lower()}", Magnet(IH)),
    (f"magnet:?xt=urn%3Abtih%3A{IH.hex()}", Magnet(IH)),
    (f"magnet:?{XT}&xt=urn:mtid:{ID.hex()}", Magnet(IH, ID)),
    (f"magnet:?{XT}&xt=urn:mtid:{ID.hex()}&x.mtid={ID.hex().upper()}", Magnet(IH, ID)),
    (f"magnet:?xt=urn:btmh:1220{'ab' * 32}&{XT}", Magnet(IH)),
    (
        f"magnet:?xt.1=urn:btih:{IH.hex()}&tr.1=udp://a:1&tr.2=udp://b:2",
        Magnet(IH, trackers=("udp://a:1", "udp://b:2")),
    ),
    (
        f"magnet:?dn=a+b&{XT}&so=0,2-4&kt=x&xl=10&as=http://x&&novalue",
        Magnet(IH, name="a b", files=((0, 0), (2, 4))),
    ),
    (f"magnet:?{XT}&so=7&so=1-2%2C4", Magnet(IH, files=((7, 7), (1, 2), (4, 4)))),
    (f"magnet:?{XT}&dn=%1b[31mred%00", Magnet(IH, name="\ufffd[31mred\ufffd")),
    (f"magnet:?{XT}&tr=udp://a:1&tr=udp://a:1&tr=", Magnet(IH, trackers=("udp://a:1",))),
    (f" magnet:?{XT}\n", Magnet(IH)),
)

REFUSED = (
    ("", "magnet"),
    ("http://example.org/?" + XT, "magnet"),
    ("magnet:" + XT, "magnet"),
    ("magnet:?dn=x", "xt"),
    ("magnet:?xt=urn:sha1:YNCKHTQCWBTRNJIV4WNAE52SJUQCZO5C", "xt"),
    (f"magnet:?xt=urn:btmh:1220{'ab' * 32}", "xt"),
    ("magnet:?xt=urn:btih:0123", "xt"),
    (f"magnet:?xt=urn:btih:{'g' * 40}", "xt"),
    (f"magnet:?xt=urn:btih:{'1' * 32}", "xt"),
    (f"magnet:?xt=urn:mtid:{base64.b32encode(IH).decode()}", "xt"),
    (f"magnet:?{XT}&xt=urn:btih:{'0' * 40}", "xt"),
    (f"magnet:?x.mtid={ID.hex()}", "xt"),
    (f"magnet:?{XT}&x.mtid={ID.hex()}00", "x.mtid"),
    (f"magnet:?{XT}&x.mtid={base64.b32encode(IH).decode()}", "x.mtid"),
    (f"magnet:?{XT}&xt=urn:mtid:{ID.hex()}&x.mtid={IH.hex()}", "x.mtid"),
    (f"magnet:?{XT}&x.mtid=%ff", "x.mtid"),
    ("magnet:?xt=%ff", "xt"),
    (f"magnet:?{XT}&tr=http://a%20b", "tr"),
    (f"magnet:?{XT}&ws=%ff", "ws"),
    (f"magnet:?{XT}&tr=http://{'a' * 5000}", "tr"),
    (f"magnet:?{XT}&x.pe=10.0.0.1", "x.pe"),
    (f"magnet:?{XT}&x.pe=10.0.0.1:0", "x.pe"),
    (f"magnet:?{XT}&x.pe=10.0.0.1:65536", "x.pe"),
    (f"magnet:?{XT}&x.pe=a/b:80", "x.pe"),
    (f"magnet:?{XT}" + "".join(f"&tr=udp://t:{i}" for i in range(MAX_OF_A_KIND + 1)), "tr"),
    (f"magnet:?{XT}&so=1-", "so"),
    (f"magnet:?{XT}&so=4-2", "so"),
    (f"magnet:?{XT}&so={'1,' * 300}1", "so"),
    (f"magnet:?{XT}&so=99999999999", "so"),
    (f"magnet:?{XT}" + "&a=b" * 2000, "magnet"),
    (f"magnet:?{XT}&dn=" + "x" * MAX_CHARACTERS, "magnet"),
    (f"magnet:?{XT}&dn=\ud800", "magnet"),
)


@pytest.mark.parametrize(("link", "meaning"), WRITTEN)
def test_what_we_write_reads_back(link: str, meaning: Magnet) -> None:
    assert format_magnet(meaning) == link
    assert parse_magnet(link) == meaning


@pytest.mark.parametrize(("link", "meaning"), READ)
def test_what_others_write_is_understood(link: str, meaning: Magnet) -> None:
    assert parse_magnet(link) == meaning


@pytest.mark.parametrize(("link", "key"), REFUSED)
def test_a_refusal_names_the_parameter(link: str, key: str) -> None:
    with pytest.raises(InvalidParams) as refusal:
        parse_magnet(link)
    assert (refusal.value.data["parameter"], refusal.value.data["key"]) == ("magnet", key)
    assert key in str(refusal.value)


def test_the_name_of_a_nameless_link_is_its_id() -> None:
    assert Magnet(IH).shown_name == IH.hex()
    assert Magnet(None, ID).swarm_id == ID
    assert Magnet(IH, ID).swarm_id == IH


_PART = st.sampled_from(
    ["xt=", "urn:btih:", IH.hex(), "&", "tr=", "x.pe=", "%", "[", "]", ":", "dn=", "=", "."]
)


@given(st.lists(_PART | st.text(max_size=5), max_size=20))
def test_whatever_stands_there_only_refusals_come_out(parts: list[str]) -> None:
    try:
        magnet = parse_magnet(f"magnet:?{XT}&" + "".join(parts))
    except InvalidParams:
        return
    assert parse_magnet(format_magnet(magnet)) == magnet
