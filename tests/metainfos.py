"""Metainfo of content that a test made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha1

from microtorrd.proto import metainfo
from microtorrd.proto.metainfo import FileEntry

#: Nobody answers there.
NOWHERE = "http://127.0.0.1:1/announce"

#: Of the content itself, as it should be.
HONEST = b"honest"


def mtorrent_of(
    name: str,
    content: bytes | Mapping[tuple[str, ...], bytes],
    piece_bytes: int,
    *,
    tiers: Sequence[Sequence[str]] = ((NOWHERE,),),
    id_hash: bytes | None = HONEST,
) -> bytes:
    """The file for this content: a single file, or several by their paths below the save directory."""
    files = {(name,): content} if isinstance(content, bytes) else content
    data = b"".join(files.values())
    return metainfo.build(
        name=name,
        piece_length=piece_bytes,
        files=[FileEntry(path, len(part)) for path, part in files.items()],
        is_single_file=isinstance(content, bytes),
        pieces=hashes_of(data, piece_bytes),
        id_hash=sha1(data).digest() if id_hash == HONEST else id_hash,
        trackers=tiers,
    )


def hashes_of(data: bytes, piece_bytes: int) -> bytes:
    """The SHA-1 of each piece, one after the other."""
    return b"".join(sha1(data[at : at + piece_bytes]).digest() for at in range(0, len(data), piece_bytes))
