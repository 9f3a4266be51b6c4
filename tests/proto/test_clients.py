"""Peer ids in words: as clients make them, and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.proto.clients import client_name


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"-TR3000-", "Transmission 3.00"),
        (b"-TR2940-", "Transmission 2.94"),
        (b"-TR4060-", "Transmission 4.0.6"),
        (b"-qB4520-", "qBittorrent 4.5.2"),
        (b"-LT2110-", "libtorrent 2.1.1"),
        (b"-lt0D68-", "rTorrent 0.13.6.8"),
        (b"-DE13F0-", "Deluge 1.3.15"),
        (b"-DE203s-", "Deluge 2.0.3"),
        (b"-UT355S-", "uTorrent 3.5.5.28"),
        (b"-BC0136-", "BitComet 1.36"),
        (b"-AZ5751-", "Vuze 5.7.5.1"),
        (b"-MD0100-", "microtorrd 0.1.0"),
        (b"-XZ1234-", "XZ 1.2.3.4"),
        (b"A2-1-36-0-", "aria2 1.36.0"),
        (b"A2-1-4-12-", "aria2 1.4.12"),
        (b"M7-2-0--", "Mainline 7.2.0"),
        (b"M4-20-8-", "Mainline 4.20.8"),
        (b"S587----", "Shadow's client 5.8.7"),
        (b"T03I----", "BitTornado 0.3.18"),
        (b"A310--001v5Gysr4NxNK", "ABC 3.1.0"),
        (b"Zxx1----", "Zxx1----"),
        (b"\x1b[31mred!", ".[31mred"),
        (b"", ""),
    ],
)
def test_names(start: bytes, name: str) -> None:
    assert client_name(start) == name
    if len(start) >= 8:
        assert client_name(start + b"abcdefghijkl"[: 20 - len(start)]) == name


starts = st.sampled_from([b"", b"-", b"-TR", b"-BC", b"A2-", b"M4-", b"S5", b"T03I"])


@given(starts, st.binary(max_size=20))
def test_whatever_it_is_it_can_be_shown(start: bytes, rest: bytes) -> None:
    name = client_name((start + rest)[:20])
    assert len(name) < 40
    assert name.isascii() and (name.isprintable() or not name)
