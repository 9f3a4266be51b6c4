"""Messages of `ut_pex` (BEP 11): peers that somebody is connected with, and those that it is so no more.

A bencoded dictionary in an extended message (BEP 10): addresses in compact form (`compact.py`), IPv4 and
IPv6 apart, and for each that was added a byte of flags. Everything is attacker-controlled. What is no
dictionary is a ProtocolError; entries that cannot be addresses, flags that do not fit and values of a wrong
type count as not said, as with deployed clients.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from msgspec import Struct, field

from microtorrd.errors import ProtocolError
from microtorrd.proto.bencode import BencodeError, Value, decode_document, encode
from microtorrd.proto.compact import ENTRY6_BYTES, ENTRY_BYTES, pack, read_host, unpack, unpack_many

Address = tuple[str, int]

#: What the extension is called in the extended handshake, and the number we want its messages to have.
NAME = "ut_pex"
NUMBER = 1

#: Flags of an added peer.
ENCRYPTS, SEED, UTP, HOLEPUNCH, REACHABLE = 0x01, 0x02, 0x04, 0x08, 0x10

#: BEP 11 wants at most fifty of a kind in a message but the first. Of more these are read, in each family.
LISTED_MAX = 200

#: Fifty added and fifty dropped IPv6 addresses are 2 KiB; a first message of uTorrent may have a few.
MAX_BYTES = 16384


class PexMessage(Struct, frozen=True):
    """Who came, with flags, and who went."""

    added: Mapping[Address, int] = field(default_factory=dict)
    dropped: tuple[Address, ...] = ()

    def encode(self) -> bytes:
        """The payload. Raises ValueError for an address that is not numeric."""
        said: dict[bytes, bytes] = {}
        for suffix, added, dropped in zip(
            (b"", b"6"), _by_family(self.added), _by_family(self.dropped), strict=True
        ):
            if added:
                said[b"added" + suffix] = b"".join(entry for entry, _ in added)
                said[b"added" + suffix + b".f"] = bytes(self.added[address] for _, address in added)
            if dropped:
                said[b"dropped" + suffix] = b"".join(entry for entry, _ in dropped)
        return encode(said)

    @classmethod
    def decode(cls, raw: bytes) -> PexMessage:
        """Read the payload."""
        try:
            document = decode_document(raw, max_depth=4, max_bytes=MAX_BYTES, max_items=64)
        except BencodeError as error:
            raise ProtocolError(f"its peer exchange: {error}") from error
        said = document.value
        if not isinstance(said, dict):
            raise ProtocolError("its peer exchange is no dictionary")
        added: dict[Address, int] = {}
        dropped: dict[Address, None] = {}
        for suffix, entry_bytes in ((b"", ENTRY_BYTES), (b"6", ENTRY6_BYTES)):
            raw_added = _bytes(said.get(b"added" + suffix))
            flags = _bytes(said.get(b"added" + suffix + b".f"))
            if len(flags) * entry_bytes != len(raw_added):
                flags = b""  # they belong to other addresses
            for number in range(min(len(raw_added) // entry_bytes, LISTED_MAX)):
                address = unpack(raw_added[number * entry_bytes : (number + 1) * entry_bytes])
                if address[1] and read_host(address[0]) is not None:
                    added.setdefault(address, flags[number] if flags else 0)
            raw_dropped = _bytes(said.get(b"dropped" + suffix))
            dropped.update(dict.fromkeys(unpack_many(raw_dropped, entry_bytes, LISTED_MAX)))
        return cls(added, tuple(address for address in dropped if address not in added))


def _by_family(
    addresses: Iterable[Address],
) -> tuple[list[tuple[bytes, Address]], list[tuple[bytes, Address]]]:
    """Entries of IPv4 and of IPv6, each with its address."""
    families: tuple[list[tuple[bytes, Address]], list[tuple[bytes, Address]]] = ([], [])
    for address in addresses:
        entry = _entry(address)
        families[len(entry) == ENTRY6_BYTES].append((entry, address))
    return families


@lru_cache(4096)  # the same addresses are told to many
def _entry(address: Address) -> bytes:
    host = read_host(address[0])
    if host is None:
        raise ValueError(f"{address[0]!r} is no address of a peer")
    return pack(host, address[1])


def _bytes(value: Value | None) -> bytes:
    return value if isinstance(value, bytes) else b""
