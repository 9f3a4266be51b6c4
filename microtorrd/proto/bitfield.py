"""Which pieces somebody has: one bit a piece, the highest bit of the first byte is piece 0 (BEP 3).

The count of set bits is kept beside the bits, so asking for it is free. Rule: bits change through `set` and
`clear` only; `bits` is there for reading, so that others may combine bitfields at the speed of bitarray.

Indexes are trusted here: those off the wire pass `Geometry.admit_piece` first.
"""

from __future__ import annotations

from collections.abc import Iterator

from bitarray import bitarray

from microtorrd.errors import ProtocolError


class Bitfield:
    """A bit for each of `size` pieces, all clear at first."""

    __slots__ = ("_count", "bits")

    def __init__(self, size: int) -> None:
        self.bits = bitarray(size, endian="big")
        self.bits.setall(0)
        self._count = 0

    @classmethod
    def full(cls, size: int) -> Bitfield:
        """Every piece is there."""
        bitfield = cls(size)
        bitfield.bits.setall(1)
        bitfield._count = size
        return bitfield

    @classmethod
    def from_bytes(cls, raw: bytes, size: int) -> Bitfield:
        """Read a bitfield off the wire. ProtocolError where its length is not that of `size` pieces, or where
        one of the spare bits at the end is set."""
        expected = (size + 7) // 8
        if len(raw) != expected:
            raise ProtocolError(f"a bitfield of {len(raw)} bytes, where {size} pieces need {expected}")
        bitfield = cls(0)
        bitfield.bits.frombytes(raw)
        if bitfield.bits.find(1, size) >= 0:
            raise ProtocolError(f"a bitfield with spare bits set after its {size} pieces")
        del bitfield.bits[size:]
        bitfield._count = bitfield.bits.count()
        return bitfield

    def to_bytes(self) -> bytes:
        """As it goes over the wire: spare bits are clear."""
        return self.bits.tobytes()

    def copy(self) -> Bitfield:
        """The same bits, changing on their own from here on."""
        twin = Bitfield(0)
        twin.bits = self.bits.copy()
        twin._count = self._count
        return twin

    def __len__(self) -> int:
        return len(self.bits)

    def __getitem__(self, piece: int) -> bool:
        return bool(self.bits[piece])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bitfield) and self.bits == other.bits

    def __hash__(self) -> int:
        raise TypeError("a bitfield changes and so has no hash")

    def __repr__(self) -> str:
        return f"Bitfield({self._count} of {len(self.bits)})"

    def set(self, piece: int) -> bool:
        """The piece is there. False when it was there before."""
        if self.bits[piece]:
            return False
        self.bits[piece] = 1
        self._count += 1
        return True

    def clear(self, piece: int) -> bool:
        """The piece is not there. False when it was not there before."""
        if not self.bits[piece]:
            return False
        self.bits[piece] = 0
        self._count -= 1
        return True

    @property
    def count(self) -> int:
        """How many pieces are there."""
        return self._count

    @property
    def complete(self) -> bool:
        """No piece is missing. Content without pieces is always complete."""
        return self._count == len(self.bits)

    def missing(self) -> Iterator[int]:
        """The pieces that are not there, ascending. Bits may change meanwhile."""
        return self.bits.search(0)

    def present(self) -> Iterator[int]:
        """The pieces that are there, ascending. Bits may change meanwhile."""
        return self.bits.search(1)
