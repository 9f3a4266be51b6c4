"""The metainfo of a torrent: bytes of a file in, `Metainfo` out, and back. The door of this corner of proto.

Three dialects are read: our own `.mtorrent`, any BitTorrent v1 `.torrent`, and the files of the original Go
program; only the first is written. `info_hash` is the SHA-1 of the raw bytes of the info dictionary as they
stand in the file. Hostile input is refused with InvalidMetainfo, whose `data["key"]` names the key at fault
(`metainfo` where the file as a whole is); nothing else comes out of `parse`, whatever the bytes.

Parsing takes about 20 ms per thousand files: who must not wait parses large files in a thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from microtorrd.proto import metainfo_bittorrent, metainfo_build, metainfo_original
from microtorrd.proto.bencode import BencodeError, decode_document
from microtorrd.proto.fields import Fields, invalid
from microtorrd.proto.metainfo_build import choose_piece_length, wrap
from microtorrd.proto.metainfo_model import (
    MAX_CONTENT_BYTES,
    MAX_FILES,
    MAX_METAINFO_BYTES,
    MAX_PIECE_BYTES,
    MAX_PIECES,
    FileEntry,
    Metainfo,
    check_shape,
)

__all__ = [
    "DEFAULT_TRACKER",
    "MAX_CONTENT_BYTES",
    "MAX_FILES",
    "MAX_METAINFO_BYTES",
    "MAX_PIECES",
    "MAX_PIECE_BYTES",
    "FileEntry",
    "Metainfo",
    "build",
    "check_shape",
    "choose_piece_length",
    "parse",
    "wrap",
]

#: Where the tracker that comes with us listens when nobody says otherwise.
DEFAULT_TRACKER = "http://127.0.0.1:8888/announce"


def parse(raw: bytes) -> Metainfo:
    """The torrent that a metainfo file describes. Raises InvalidMetainfo."""
    try:
        document = decode_document(raw, max_bytes=MAX_METAINFO_BYTES)
    except BencodeError as error:
        raise invalid("metainfo", str(error)) from error
    top = document.value
    if not isinstance(top, dict):
        raise invalid("metainfo", "not a dictionary")
    if metainfo_original.is_original(top):
        start, end = document.spans[metainfo_original.info_key(top)]
        return metainfo_original.read(top, raw[start:end])
    # A line break at the end, put there by an editor or a copy from a web page, harms nobody.
    if raw[document.consumed :].strip():
        raise invalid("metainfo", f"{len(raw) - document.consumed} bytes follow after its end")
    start, end = document.spans.get(b"info", (0, 0))
    return metainfo_bittorrent.read(Fields(top), raw[start:end])


def build(
    *,
    name: str,
    piece_length: int,
    files: Sequence[FileEntry],
    is_single_file: bool,
    pieces: bytes,
    id_hash: bytes | None,
    trackers: Sequence[Sequence[str]],
    private: bool = False,
    web_seeds: Sequence[str] = (),
    comment: str = "",
    creation_date: int | None = None,
) -> bytes:
    """The bytes of a `.mtorrent`, the same for the same arguments. Without a creation date none is written.

    `files` are as in `Metainfo.files`, `trackers` are tiers. InvalidMetainfo for what would not read back.
    """
    raw = metainfo_build.write(
        name=name,
        piece_length=piece_length,
        files=files,
        is_single_file=is_single_file,
        pieces=pieces,
        id_hash=id_hash,
        trackers=trackers,
        private=private,
        web_seeds=web_seeds,
        comment=comment,
        creation_date=creation_date,
    )
    if parse(raw).files != tuple(files):
        raise invalid("info.files", "a name or a padding file would not read back as it is")
    return raw
