"""Addresses in few bytes: compact peers (BEP 23 for IPv4, BEP 7 for IPv6), and what counts as an address.

An entry is the address in network order, 4 or 16 bytes, and the port in 2. Hosts are numeric everywhere in
the house, in their canonical text: a name is never looked up, and an IPv4 address that came mapped into IPv6
(`::ffff:…`, as dual-stack sockets show it) is the IPv4 address. Everything here is attacker-controlled;
`read_host` is the door.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv6Address

#: Addresses of IPv4 that nobody has: unspecified and broadcast.
_NOBODY4 = (bytes(4), b"\xff" * 4)

#: Bytes of an entry: 4 + 2 and 16 + 2.
ENTRY_BYTES = 6
ENTRY6_BYTES = 18

#: The longest text that can be an address (an IPv4 one mapped into IPv6, spelled out).
_LONGEST_HOST = 45


def read_host(text: str) -> bytes | None:
    """Return the 4 or 16 bytes of a numeric address that a peer can have; None for anything else.

    Names, scoped addresses (`fe80::1%eth0`, which mean something on one host only), the unspecified address,
    multicast and broadcast are no peer's address.
    """
    if len(text) > _LONGEST_HOST:
        return None
    if ":" not in text:
        return _read_host4(text)
    try:
        address = IPv6Address(text)
    except AddressValueError:
        return None
    if address.scope_id is not None:
        return None
    if (mapped := address.ipv4_mapped) is not None:
        return _usable4(mapped.packed)
    return None if address.is_unspecified or address.is_multicast else address.packed


def _read_host4(text: str) -> bytes | None:
    """The same for IPv4, by hand: each address that a peer or a tracker tells us comes through here, and
    `ipaddress` takes twice as long (2 µs)."""
    try:
        packed = bytes(map(int, text.split(".")))
    except ValueError:
        return None
    # What `int` takes and an address has not (spaces, signs, leading zeros) does not come out the same.
    return _usable4(packed) if len(packed) == 4 and host_text(packed) == text else None


def _usable4(packed: bytes) -> bytes | None:
    return None if packed in _NOBODY4 or packed[0] >> 4 == 0xE else packed


def host_text(packed: bytes) -> str:
    """Spell the 4 or 16 bytes of an address."""
    if len(packed) == 4:
        a, b, c, d = packed
        return f"{a}.{b}.{c}.{d}"
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def pack(packed_host: bytes, port: int) -> bytes:
    """Return the entry of an address (4 or 16 bytes) and a port: 6 or 18 bytes."""
    return packed_host + port.to_bytes(2, "big")


def unpack(entry: bytes) -> tuple[str, int]:
    """Return the host and the port of an entry of 6 or 18 bytes."""
    return host_text(entry[:-2]), (entry[-2] << 8) | entry[-1]


def unpack_many(raw: bytes, entry_bytes: int, limit: int) -> list[tuple[str, int]]:
    """Return the usable addresses of at most `limit` entries; a fragment at the end is left out.

    Entries that cannot be a peer's (port 0, unspecified or multicast addresses) are left out as well.
    """
    end = min(len(raw) // entry_bytes, limit) * entry_bytes
    found = (unpack(raw[at : at + entry_bytes]) for at in range(0, end, entry_bytes))
    return [(host, port) for host, port in found if port and read_host(host) is not None]


#: First bytes, and how many bits of them count: loopback, private, link-local and unique local addresses.
_NEAR = tuple(
    (IPv4Address(text).packed if "." in text else IPv6Address(text).packed, bits)
    for text, bits in (
        ("127.0.0.0", 8),
        ("10.0.0.0", 8),
        ("172.16.0.0", 12),
        ("192.168.0.0", 16),
        ("169.254.0.0", 16),
        ("::1", 128),
        ("fc00::", 7),
        ("fe80::", 10),
    )
)

#: The first bytes that such addresses may have; `fc00::/7` has two.
_NEAR_FIRST = frozenset({net[0] for net, _ in _NEAR} | {0xFD})


def is_near(host: str) -> bool:
    """Whether this numeric address means something in one's own network only."""
    packed = read_host(host.partition("%")[0])
    if packed is None or packed[0] not in _NEAR_FIRST:
        return False
    return any(len(net) == len(packed) and same_bits(net, packed, bits) for net, bits in _NEAR)


def same_bits(one: bytes, other: bytes, bits: int) -> bool:
    """Whether two addresses of one family begin with the same so many bits."""
    shift = 8 * len(one) - bits
    return int.from_bytes(one, "big") >> shift == int.from_bytes(other, "big") >> shift
