"""Canonical peer priority (BEP 40): which connections a swarm would rather have, as all its peers agree.

Both ends of a possible connection compute the same number from their two addresses. Where everybody prefers
the higher ones, the swarm becomes a random graph that nobody can fill with connections of their own, and a
newcomer finds a place although all are full.

The text of BEP 40 and libtorrent differ for IPv6; libtorrent, which is most of the swarms, wins here: it
looks at the first 32 and 48 bits where the text says 48 and 56, and never masks the lower 64.
"""

from __future__ import annotations

#: CRC-32C (Castagnoli), reflected.
_POLYNOMIAL = 0x82F63B78


def _table() -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        row = byte
        for _ in range(8):
            row = (row >> 1) ^ (_POLYNOMIAL if row & 1 else 0)
        rows.append(row)
    return tuple(rows)


_TABLE = _table()

_LOW = (1 << 64) - 1

#: What is kept of two addresses that have less than the second number of leading bytes in common.
_MASKS4 = ((0xFFFF5555, 2), (0xFFFFFF55, 3))
_MASKS6 = ((0xFFFFFFFF55555555 << 64 | _LOW, 4), (0xFFFFFFFFFFFF5555 << 64 | _LOW, 6))


def crc32c(raw: bytes) -> int:
    """The checksum of RFC 3720."""
    crc = 0xFFFFFFFF
    for byte in raw:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def peer_priority(one: tuple[bytes, int], other: tuple[bytes, int]) -> int:
    """The priority of a connection between two addresses of one family (4 or 16 bytes, and the port).

    It does not matter which is ours. The higher, the better.
    """
    (host, port), (other_host, other_port) = sorted((one, other))
    if host == other_host:
        return crc32c(port.to_bytes(2, "big") + other_port.to_bytes(2, "big"))
    for mask, common in _MASKS4 if len(host) == 4 else _MASKS6:
        if host[:common] != other_host[:common]:
            return crc32c(_masked(host, mask) + _masked(other_host, mask))
    return crc32c(host + other_host)


def _masked(host: bytes, mask: int) -> bytes:
    return (int.from_bytes(host, "big") & mask).to_bytes(len(host), "big")
