"""What a torrent is, whatever file described it; and the bounds that every description must keep.

A `Metainfo` is immutable and consistent: its names are clean and distinct, its lengths add up, and there is
one hash for each piece. Who holds one need not check again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct

from microtorrd.proto.fields import invalid
from microtorrd.proto.geometry import Geometry

Dialect = Literal["microtorr", "bittorrent", "original"]

#: 20 bytes a piece: enough for every piece count below, and a bound on what a caller can make us parse.
MAX_METAINFO_BYTES = 64 << 20
#: A bitfield of 256 KiB; the largest that other clients take.
MAX_PIECES = 1 << 21
#: A piece is in memory while it is fetched. (A `piece length` beyond it is fine where the content is short.)
MAX_PIECE_BYTES = 1 << 30
#: 8 PiB, and exact in every JSON reader, whose numbers are doubles.
MAX_CONTENT_BYTES = 2**53 - 1
MAX_FILES = 250_000


class FileEntry(Struct, frozen=True):
    """One file of the content."""

    path: tuple[str, ...]  # below the save directory: the torrent's name first; for a single file only that
    length: int  # bytes
    is_padding: bool = False  # zeros that align the next file to a piece (BEP 47); nobody wants it on disk
    attributes: str = ""  # of BEP 47: `x` executable, `h` hidden, `l` a symbolic link
    link: tuple[str, ...] = ()  # where a symbolic link leads, below the torrent's name (`links.py`)

    @property
    def is_link(self) -> bool:
        """A symbolic link: it has no bytes. One that leads nowhere is not made."""
        return "l" in self.attributes

    @property
    def is_on_disk(self) -> bool:
        """Whether there is a file of it, with bytes or without."""
        return not self.is_padding and not self.is_link


@dataclass(frozen=True, slots=True)
class Metainfo:
    """All that a metainfo file says."""

    name: str
    length: int  # bytes of all files together
    piece_length: int
    pieces: bytes = field(repr=False)  # 20 bytes for each piece
    files: tuple[FileEntry, ...] = field(repr=False)  # in the order of the content
    is_single_file: bool
    info_hash: bytes  # SHA-1 of `raw_info`
    id_hash: bytes | None  # SHA-1 of the whole content
    trackers: tuple[tuple[str, ...], ...]  # tiers (BEP 12)
    private: bool  # BEP 27
    web_seeds: tuple[str, ...]  # BEP 19
    comment: str
    created_by: str
    creation_date: int | None  # seconds since 1970
    dialect: Dialect
    raw_info: bytes = field(repr=False)  # the info dictionary exactly as in the file

    @property
    def geometry(self) -> Geometry:
        """Its pieces and blocks."""
        return Geometry(self.length, self.piece_length, padding(self.files))

    @property
    def piece_count(self) -> int:
        """How many pieces there are; none for content of no bytes."""
        return len(self.pieces) // 20

    def piece_hash(self, piece: int) -> bytes:
        """The SHA-1 that the piece must have. IndexError beyond the last piece."""
        if not 0 <= piece < self.piece_count:
            raise IndexError(f"piece {piece} of {self.piece_count}")
        return self.pieces[20 * piece : 20 * piece + 20]

    @property
    def swarm_ids(self) -> tuple[bytes, ...]:
        """What a handshake may name: the info_hash, and the id_hash where there is one."""
        if self.id_hash is None or self.id_hash == self.info_hash:
            return (self.info_hash,)
        return (self.info_hash, self.id_hash)


def padding(files: Sequence[FileEntry]) -> tuple[tuple[int, int], ...]:
    """Where the content is padding: runs of bytes as (begin, end), in order, none touching."""
    runs: list[tuple[int, int]] = []
    offset = 0
    for entry in files:
        end = offset + entry.length
        if entry.is_padding and entry.length:
            begin = runs.pop()[0] if runs and runs[-1][1] == offset else offset
            runs.append((begin, end))
        offset = end
    return tuple(runs)


def check_shape(length: int, piece_length: int, *, key: str) -> Geometry:
    """The geometry, if it is one that we can handle. InvalidMetainfo naming `key`, the piece length's."""
    if piece_length < 1:
        raise invalid(key, f"{piece_length} is not a positive number")
    geometry = Geometry(length, piece_length)
    if geometry.piece_count > MAX_PIECES:
        raise invalid(
            key,
            f"{piece_length} cuts {length} bytes into {geometry.piece_count} pieces;"
            f" at most {MAX_PIECES} are allowed",
        )
    if geometry.max_piece_bytes > MAX_PIECE_BYTES:
        raise invalid(
            key,
            f"{piece_length} makes pieces of {geometry.max_piece_bytes} bytes;"
            f" at most {MAX_PIECE_BYTES} are allowed",
        )
    return geometry


def check_hashes(raw_bytes: int, geometry: Geometry, *, key: str) -> None:
    """Refuse hashes of `raw_bytes` bytes altogether that are not one for each piece."""
    if raw_bytes % 20:
        raise invalid(key, f"{raw_bytes} bytes are not a whole number of SHA-1 hashes of 20 bytes")
    if raw_bytes // 20 != geometry.piece_count:
        raise invalid(
            key,
            f"{raw_bytes // 20} hashes, where {geometry.length} bytes in pieces of {geometry.piece_length}"
            f" need {geometry.piece_count}",
        )
