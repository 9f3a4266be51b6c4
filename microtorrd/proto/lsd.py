"""Local service discovery (BEP 14): one datagram to everybody near, which says "I share these, at this port".

It looks like the head of an HTTP request and goes to a multicast group. Everything that comes in is
attacker-controlled; ProtocolError is all that comes out of `decode`. Header names are read in any case, what
is not known is passed over, and an id that is none is left out.
"""

from __future__ import annotations

from typing import NamedTuple

from microtorrd.errors import ProtocolError

#: The groups, site-wide each, and their port.
GROUP4 = "239.192.152.143"
GROUP6 = "ff15::efc0:988f"
PORT = 6771

#: Ours stay below what every network carries in one piece (BEP 14); of others a little more is read.
MAX_BYTES = 1400
READ_MAX_BYTES = 2048

#: Ids that fit into one of ours, and how many of one that came in are looked at.
IDS_MAX = 24
READ_IDS_MAX = 40

_START = b"BT-SEARCH * HTTP/1.1"
_ID_DIGITS = 40
_COOKIE_MAX = 64
_LINES_MAX = 80


class Presence(NamedTuple):
    """Somebody shares these torrents, and listens at this port of the address that the datagram came from."""

    port: int
    swarm_ids: tuple[bytes, ...]
    cookie: bytes = b""  # by which a sender knows its own


def encode(presence: Presence, *, ipv6: bool) -> bytes:
    """The datagram for one of the groups."""
    host = f"[{GROUP6}]:{PORT}" if ipv6 else f"{GROUP4}:{PORT}"
    lines = [_START, b"Host: " + host.encode(), b"Port: %d" % presence.port]
    lines += [b"Infohash: " + swarm_id.hex().encode() for swarm_id in presence.swarm_ids[:IDS_MAX]]
    if presence.cookie:
        lines.append(b"cookie: " + presence.cookie)
    return b"\r\n".join(lines) + b"\r\n\r\n\r\n"


def decode(datagram: bytes) -> Presence:
    """Read a datagram of the group."""
    if len(datagram) > READ_MAX_BYTES:
        raise ProtocolError(f"a datagram of {len(datagram)} bytes")
    start, *lines = datagram.split(b"\r\n", _LINES_MAX)
    if start.strip().upper() != _START:
        raise ProtocolError("no BT-SEARCH")
    port, cookie = 0, b""
    swarm_ids: dict[bytes, None] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            continue
        name, value = name.strip().lower(), value.strip()
        if name == b"port" and value.isdigit() and len(value) <= 5:
            port = int(value)
        elif name == b"cookie":
            cookie = value[:_COOKIE_MAX]
        elif name == b"infohash" and (swarm_id := _id(value)) is not None and len(swarm_ids) < READ_IDS_MAX:
            swarm_ids[swarm_id] = None
    if not 0 < port < 65536:
        raise ProtocolError("it names no port")
    if not swarm_ids:
        raise ProtocolError("it names no torrent")
    return Presence(port, tuple(swarm_ids), cookie)


def _id(value: bytes) -> bytes | None:
    if len(value) != _ID_DIGITS:
        return None
    try:
        return bytes.fromhex(value.decode("ascii"))
    except ValueError:
        return None


def cookie_of(lot: int) -> bytes:
    """A cookie from a number by chance: hexadecimal, as libtorrent reads it."""
    return f"{lot & 0x7FFFFFFF:x}".encode()
