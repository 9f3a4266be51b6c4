"""All index arithmetic of a torrent's content, and the door where numbers off the wire are admitted.

Content of `length` bytes is cut into pieces of `piece_length` bytes, the last one shorter, and pieces into
blocks of `BLOCK_BYTES`, the last of each piece shorter. Content of no bytes has no pieces, and that is legal.

Rule: a number that came from the network is used as an index only after an `admit_…` method returned it. The
other methods trust their caller. This room does not know files, hashes or who has what.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from microtorrd.errors import ProtocolError

#: What we ask for at once. Every client serves requests of this size (BEP 3), many none that are larger.
BLOCK_BYTES = 16384

#: The largest request we serve. BEP 3 lets clients drop whoever asks for more than 16 KiB, yet requests of 32
#: to 128 KiB are in use (older clients, LANs) and cheaper for both ends; beyond that they only cost memory.
MAX_REQUEST_BYTES = 131072


@dataclass(frozen=True, slots=True)
class Geometry:
    """The shape of one torrent's content, in bytes. Raises ValueError for a shape that cannot be."""

    length: int
    piece_length: int
    piece_count: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.length < 0:
            raise ValueError(f"content cannot have {self.length} bytes")
        if self.piece_length < 1:
            raise ValueError(f"a piece cannot have {self.piece_length} bytes")
        # Frozen also to itself: the count is derived once here, because it is read per message.
        object.__setattr__(self, "piece_count", -(-self.length // self.piece_length))

    @property
    def bitfield_bytes(self) -> int:
        """The size of a bitfield on the wire."""
        return (self.piece_count + 7) // 8

    @property
    def max_piece_bytes(self) -> int:
        """The size of the largest piece there is: what one piece can cost in memory."""
        return min(self.length, self.piece_length)

    def piece_offset(self, piece: int) -> int:
        """Where the piece begins in the content."""
        return piece * self.piece_length

    def piece_size(self, piece: int) -> int:
        """The bytes of the piece; only the last one can be shorter than `piece_length`."""
        return min(self.piece_length, self.length - piece * self.piece_length)

    def block_count(self, piece: int) -> int:
        """How many blocks the piece has."""
        return -(-self.piece_size(piece) // BLOCK_BYTES)

    def blocks(self, piece: int) -> list[tuple[int, int]]:
        """The blocks of the piece in order, as (begin within the piece, length)."""
        size = self.piece_size(piece)
        return [(begin, min(BLOCK_BYTES, size - begin)) for begin in range(0, size, BLOCK_BYTES)]

    def pieces_within(self, offset: int, length: int) -> range:
        """The pieces that hold these bytes of the content; none for no bytes."""
        if length <= 0:
            return range(0)
        return range(offset // self.piece_length, (offset + length - 1) // self.piece_length + 1)

    def admit_piece(self, piece: int) -> int:
        """Let a piece index off the wire in, or raise ProtocolError."""
        if 0 <= piece < self.piece_count:
            return piece
        raise ProtocolError(f"piece {piece} is outside of this torrent's {self.piece_count} pieces")

    def admit_request(self, piece: int, begin: int, length: int) -> tuple[int, int, int]:
        """Let a block that a peer named in (request, cancel, reject, piece), or raise ProtocolError.

        It need not lie on our block borders, but it lies within the piece and has at most
        `MAX_REQUEST_BYTES`.
        """
        self.admit_piece(piece)
        if not 0 < length <= MAX_REQUEST_BYTES:
            raise ProtocolError(f"a block of {length} bytes, where 1 to {MAX_REQUEST_BYTES} are allowed")
        size = self.piece_size(piece)
        if not 0 <= begin <= size - length:
            raise ProtocolError(
                f"a block of {length} bytes at {begin} lies outside of piece {piece} with its {size} bytes"
            )
        return piece, begin, length
