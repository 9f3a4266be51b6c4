"""Canonical peer priority: the vectors of BEP 40, and what both ends must agree on."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from microtorrd.proto.priority import crc32c, peer_priority


def at(host: str, port: int = 6881) -> tuple[bytes, int]:
    return ip_address(host).packed, port


def test_the_checksum_is_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_the_vectors_of_bep_40() -> None:
    ours = at("123.213.32.10")
    assert peer_priority(ours, at("98.76.54.32")) == 0xEC2D7224
    assert peer_priority(ours, at("123.213.32.234")) == 0x99568189


def test_what_is_masked() -> None:
    ours = at("10.1.2.3")
    # Far away every other bit of the lower half counts, in the same /16 of the last byte, in a /24 all do.
    assert peer_priority(ours, at("10.2.0.0")) == peer_priority(ours, at("10.2.170.170"))
    assert peer_priority(ours, at("10.2.0.0")) != peer_priority(ours, at("10.2.1.0"))
    assert peer_priority(ours, at("10.1.9.0")) == peer_priority(ours, at("10.1.9.170"))
    assert peer_priority(ours, at("10.1.9.0")) != peer_priority(ours, at("10.1.11.0"))
    assert peer_priority(ours, at("10.1.2.0")) != peer_priority(ours, at("10.1.2.170"))
    ours = at("2001:db8:1:2::3")
    assert peer_priority(ours, at("2001:db9::1")) == peer_priority(ours, at("2001:db9:aaaa:aaaa::1"))
    assert peer_priority(ours, at("2001:db8:2::1")) == peer_priority(ours, at("2001:db8:2:aaaa::1"))
    assert peer_priority(ours, at("2001:db8:1::1")) != peer_priority(ours, at("2001:db8:1:aaaa::1"))


def test_of_one_host_the_ports_count() -> None:
    assert peer_priority(at("10.0.0.1", 1), at("10.0.0.1", 2)) == crc32c(b"\0\1\0\2")
    assert peer_priority(at("10.0.0.1", 2), at("10.0.0.1", 1)) == crc32c(b"\0\1\0\2")


addresses = st.one_of(
    *(st.tuples(st.binary(min_size=size, max_size=size), st.integers(0, 65535)) for size in (4,)),
)
addresses6 = st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 65535))


@given(st.one_of(st.tuples(addresses, addresses), st.tuples(addresses6, addresses6)))
def test_both_ends_agree(pair: tuple[tuple[bytes, int], tuple[bytes, int]]) -> None:
    one, other = pair
    assert peer_priority(one, other) == peer_priority(other, one)
    assert 0 <= peer_priority(one, other) < 1 << 32
