"""What a peer that runs the original has asked for: pieces, which go on to who serves them a few at a time.

It may ask for any number. While it is choked, which it never learns, they wait. None is forgotten, and none
is in there twice.
"""

from __future__ import annotations

from microtorrd.errors import ProtocolError
from microtorrd.proto.geometry import Geometry

#: Blocks of one peer that who serves them has at a time, unless a single piece has more.
WINDOW_BLOCKS = 256

#: Pieces that one peer may wait for. The original waits for one.
WAITING_MAX = 65536


class Waiting:
    """The pieces that a peer has asked for and not been sent, in its order."""

    __slots__ = ("_geometry", "_given", "_given_blocks", "_held", "choked")

    def __init__(self, geometry: Geometry) -> None:
        self.choked = True
        self._geometry = geometry
        self._held: dict[int, None] = {}
        self._given: dict[int, int] = {}  # to who serves them, and how many blocks each has
        self._given_blocks = 0

    def ask(self, piece: int) -> None:
        """The peer wants this piece. ProtocolError for a number that is none, or for too many."""
        self._geometry.admit_piece(piece)
        if piece in self._given:
            return
        if len(self._held) >= WAITING_MAX:
            raise ProtocolError(f"requests for more than {WAITING_MAX} pieces")
        self._held[piece] = None

    def next(self) -> list[tuple[int, int, int]]:
        """The blocks whose turn has come: piece, begin, length."""
        blocks: list[tuple[int, int, int]] = []
        if self.choked:
            return blocks
        while self._held:
            piece = next(iter(self._held))
            count = self._geometry.block_count(piece)
            if self._given and self._given_blocks + count > WINDOW_BLOCKS:
                break
            del self._held[piece]
            self._given[piece] = count
            self._given_blocks += count
            blocks += [(piece, begin, length) for begin, length in self._geometry.blocks(piece)]
        return blocks

    def sent(self, piece: int) -> None:
        """The whole piece is on its way."""
        self._given_blocks -= self._given.pop(piece, 0)

    def choke(self, sending: int | None) -> None:
        """Nothing more is served for now; `sending` is the piece that is half on its way."""
        self.choked = True
        back = {piece: None for piece in self._given if piece != sending}
        for piece in back:
            self.sent(piece)
        self._held = {**back, **self._held}
