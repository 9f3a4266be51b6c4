"""Compact addresses, and what counts as an address."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.proto.compact import (
    ENTRY6_BYTES,
    ENTRY_BYTES,
    host_text,
    pack,
    read_host,
    unpack,
    unpack_many,
)

ENTRIES = [
    ("127.0.0.1", 1111, b"\x7f\x00\x00\x01\x04\x57"),
    ("192.0.2.255", 65535, b"\xc0\x00\x02\xff\xff\xff"),
    ("2001:db8::1", 1, bytes.fromhex("20010db8000000000000000000000001") + b"\x00\x01"),
    ("::1", 256, bytes(15) + b"\x01\x01\x00"),
]


@pytest.mark.parametrize(("host", "port", "entry"), ENTRIES)
def test_entries_both_ways(host: str, port: int, entry: bytes) -> None:
    packed = read_host(host)
    assert packed is not None
    assert pack(packed, port) == entry
    assert unpack(entry) == (host, port)


@given(st.ip_addresses())
def test_an_address_is_spelled_as_everybody_spells_it(address: object) -> None:
    packed = ip_address(str(address)).packed
    text = host_text(packed)
    if text.count(".") == 3 and len(packed) == 16:  # an IPv4 address that came mapped
        assert packed[:12] == bytes(10) + b"\xff\xff"
    else:
        assert text == str(address)


def test_an_address_in_disguise_is_the_ipv4_address() -> None:
    assert read_host("::ffff:192.0.2.1") == bytes([192, 0, 2, 1])
    assert read_host("::ffff:0.0.0.0") is None
    assert host_text(bytes(10) + b"\xff\xff\xc0\x00\x02\x01") == "192.0.2.1"


NO_HOSTS = """
localhost 0.0.0.0 :: 224.0.0.1 ff02::1 255.255.255.255 fe80::1%eth0 1.2.3 1.2.3.04 1.2.3.4.5 [::1] １.2.3.4
: 1:2 0x7f000001 2130706433 ::ffff:255.255.255.255 1.2.3.4:80 1.2.3.-4 1::2::3
"""


@pytest.mark.parametrize("text", [*NO_HOSTS.split(), "", " ", "1.2.3.4 ", "1" * 100_000])
def test_what_no_peer_can_have(text: str) -> None:
    assert read_host(text) is None


@given(st.binary(max_size=200), st.sampled_from([ENTRY_BYTES, ENTRY6_BYTES]), st.integers(0, 20))
def test_lists_are_bounded_and_have_usable_addresses_only(raw: bytes, width: int, limit: int) -> None:
    found = unpack_many(raw, width, limit)
    assert len(found) <= min(limit, len(raw) // width)
    assert all(read_host(host) is not None and 0 < port < 65536 for host, port in found)


def test_a_fragment_port_0_and_impossible_hosts_are_left_out() -> None:
    raw = (
        b"\x01\x02\x03\x04\x00\x05"
        + b"\x01\x02\x03\x04\x00\x00"
        + b"\x00\x00\x00\x00\x00\x05"
        + b"\x05\x06\x07\x08\x00\x09"
        + b"\x01\x02\x03"
    )
    assert unpack_many(raw, ENTRY_BYTES, 100) == [("1.2.3.4", 5), ("5.6.7.8", 9)]
