"""Which pieces are wanted, and which of them first.

Made from a priority for each piece, one byte each, 0 for none of our business; a torrent of which everything
is wanted alike has none. Files are not known here: who knows them says what follows for the pieces.
"""

from __future__ import annotations

from bitarray import bitarray
from bitarray.util import count_and

from microtorrd.proto.geometry import Geometry


class Wishes:
    """The pieces that are wanted. Never changed: others take its place."""

    __slots__ = ("_geometry", "bits", "ranks", "size")

    def __init__(self, geometry: Geometry, priorities: bytes | None = None) -> None:
        self._geometry = geometry
        self.bits: bitarray | None = None  # None: everything
        #: The pieces that go before all others, and so on; what is left over comes last.
        self.ranks: tuple[bitarray, ...] = ()
        self.size = geometry.length  # bytes of the wanted pieces
        if priorities is None:
            return
        assert len(priorities) == geometry.piece_count, "a priority for each piece"
        levels = sorted(set(priorities) - {0}, reverse=True)
        self.ranks = tuple(
            packed(bytes(byte >= level for byte in range(256)), priorities) for level in levels[:-1]
        )
        if 0 in priorities:
            self.bits = packed(bytes(byte > 0 for byte in range(256)), priorities)
            self.size = self.weigh(self.bits)

    def needed(self, have: bitarray) -> bitarray:
        """What is wanted and not there."""
        return ~have if self.bits is None else ~have & self.bits

    def are_met(self, have: bitarray) -> bool:
        """Nothing is wanted that is not there."""
        return have.all() if self.bits is None else count_and(have, self.bits) == self.bits.count()

    def done_bytes(self, have: bitarray) -> int:
        """How many bytes of the wanted pieces are there."""
        return self.weigh(have if self.bits is None else have & self.bits)

    def weigh(self, pieces: bitarray) -> int:
        """The bytes of these pieces."""
        geometry, count = self._geometry, pieces.count()
        if not count or not pieces[-1]:
            return count * geometry.piece_length
        return (count - 1) * geometry.piece_length + geometry.piece_size(geometry.piece_count - 1)


def packed(table: bytes, priorities: bytes) -> bitarray:
    """A bit for each piece: that of its priority in the table of 256."""
    bits = bitarray(endian="big")
    bits.pack(priorities.translate(table))
    return bits
