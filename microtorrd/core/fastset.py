"""The pieces a peer may have from us although we choke it (the allowed fast set, BEP 6).

A peer that has nothing cannot trade; a few pieces, a function of its address and the torrent, get it going.
"""

from __future__ import annotations

from hashlib import sha1
from ipaddress import IPv6Address, ip_address

#: Pieces in a set; and a peer that has this many has no need of it (BEP 6 names 10 for both).
SET_SIZE = 10

#: BEP 6 hashes the /24 of an IPv4 address, so that one operator's neighbours get the same set; for IPv6,
#: which it does not mention, we take the /64.
V4_KEPT = 3
V6_KEPT = 8


def allowed_fast(host: str, info_hash: bytes, piece_count: int, size: int = SET_SIZE) -> list[int]:
    """The set for the peer at this numeric address, in the order of BEP 6; empty for no numeric address."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return []
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            packed, kept = address.ipv4_mapped.packed, V4_KEPT
        else:
            packed, kept = address.packed, V6_KEPT
    else:
        packed, kept = address.packed, V4_KEPT
    if size <= 0:
        return []
    if piece_count <= size:
        return list(range(piece_count))
    chosen: dict[int, None] = {}
    x = packed[:kept] + bytes(len(packed) - kept) + info_hash
    while True:
        x = sha1(x).digest()
        for at in range(0, 20, 4):
            chosen[int.from_bytes(x[at : at + 4], "big") % piece_count] = None
            if len(chosen) == size:
                return list(chosen)
