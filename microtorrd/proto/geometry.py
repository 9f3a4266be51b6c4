"""All index arithmetic of a torrent's content, and the door where numbers off the wire are admitted.

Content of `length` bytes is cut into pieces of `piece_length` bytes, the last one shorter, and pieces into
blocks of `BLOCK_BYTES`, the last of each piece shorter. Content of no bytes has no pieces, and that is legal.
Where the content is padding (BEP 47) its bytes are known: zeros, which nobody has to send.

Rule: a number that came from the network is used as an index only after an `admit_…` method returned it. The
other methods trust their caller. This room does not know files, hashes or who has what.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from operator import itemgetter

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
    zeros: tuple[tuple[int, int], ...] = ()  # runs of padding as (begin, end), in order, none touching
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

    def zero_blocks(self, piece: int) -> list[tuple[int, int]]:
        """The runs of whole blocks of the piece that are nothing but padding, as (begin within it, end)."""
        offset, size = self.piece_offset(piece), self.piece_size(piece)
        runs: list[tuple[int, int]] = []
        at = bisect_right(self.zeros, offset, key=itemgetter(1))
        while at < len(self.zeros) and self.zeros[at][0] < offset + size:
            begin, end = self.zeros[at]
            first = -(-max(begin - offset, 0) // BLOCK_BYTES) * BLOCK_BYTES
            last = end - offset
            last = size if last >= size else last // BLOCK_BYTES * BLOCK_BYTES
            if first < last:
                runs.append((first, last))
            at += 1
        return runs

    def zero_pieces(self) -> list[range]:
        """The pieces that are nothing but padding, in order."""
        found = []
        for begin, end in self.zeros:
            last = self.piece_count if end == self.length else end // self.piece_length
            if pieces := range(-(-begin // self.piece_length), last):
                found.append(pieces)
        return found

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
