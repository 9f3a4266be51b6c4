"""Declining uTP."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from microtorrd.proto.utp import HEADER_BYTES, decline

SYN = struct.pack(">BBHIIIHH", 0x41, 0, 0x1234, 99, 0, 1 << 20, 77, 0)


def test_who_asks_for_a_connection_is_told_no() -> None:
    kind, extension, connection, at, _, window, _, acknowledged = struct.unpack(
        ">BBHIIIHH", decline(SYN) or b""
    )
    assert (kind, extension, connection, at, window, acknowledged) == (0x31, 0, 0x1234, 99, 0, 77)
    assert decline(SYN + b"extension") == decline(SYN)


def test_nobody_else_is_answered() -> None:
    for first in (0x01, 0x11, 0x21, 0x31, 0x40, 0x42, 0x51):  # data, fin, state, reset; other versions
        assert decline(bytes((first,)) + SYN[1:]) is None
    assert decline(SYN[:-1]) is None


@given(st.binary(max_size=60), st.booleans())
def test_no_answer_is_longer_than_the_question(datagram: bytes, is_syn: bool) -> None:
    answer = decline(b"\x41" + datagram if is_syn else datagram)
    assert answer is None or len(answer) == HEADER_BYTES <= len(datagram) + 1
