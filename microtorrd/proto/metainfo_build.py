"""Writes our own `.mtorrent`: BitTorrent v1 metainfo with `info.id_hash` more.

The same arguments give the same bytes, always. Rule: what is written here is read back before it is handed
out, so nothing leaves that `parse` would refuse or understand otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from microtorrd import __version__
from microtorrd.proto import bencode, paths
from microtorrd.proto.fields import invalid
from microtorrd.proto.metainfo_model import FileEntry

CREATED_BY = f"microtorrd/{__version__}"

MIN_CHOSEN_PIECE = 16 << 10
MAX_CHOSEN_PIECE = 16 << 20
#: Fewer pieces make small metainfo; more make the swarm spread sooner and a bad piece cheaper.
MOST_CHOSEN_PIECES = 2000


def choose_piece_length(total_bytes: int) -> int:
    """The piece length for content of this size: the smallest power of two from 16 KiB to 16 MiB that makes
    no more than 2,000 pieces (so 1,001 to 2,000 of them wherever the bounds leave a choice)."""
    piece_length = MIN_CHOSEN_PIECE
    while piece_length < MAX_CHOSEN_PIECE and piece_length * MOST_CHOSEN_PIECES < total_bytes:
        piece_length *= 2
    return piece_length


def write(
    *,
    name: str,
    piece_length: int,
    files: Sequence[FileEntry],
    is_single_file: bool,
    pieces: bytes,
    id_hash: bytes | None,
    trackers: Sequence[Sequence[str]],
    private: bool,
    web_seeds: Sequence[str],
    comment: str,
    creation_date: int | None,
) -> bytes:
    """The bytes of the file. InvalidMetainfo where a name cannot be written so that it reads the same."""
    info: dict[str, object] = {
        "name": _encoded(name, "info.name"),
        "piece length": piece_length,
        "pieces": pieces,
    }
    if is_single_file:
        if len(files) != 1 or files[0].path != (name,):
            raise invalid("info.name", f"a single file has just the name {name!r} as its path")
        info["length"] = files[0].length
        if files[0].attributes:
            info["attr"] = files[0].attributes
    else:
        info["files"] = [_file(entry, index, name) for index, entry in enumerate(files)]
    if id_hash is not None:
        info["id_hash"] = id_hash
    if private:
        info["private"] = 1
    top: dict[str, object] = {"created by": CREATED_BY, "info": info}
    tiers = [list(tier) for tier in trackers if tier]
    if tiers:
        top["announce"] = tiers[0][0]
    # BEP 12: with one tracker `announce` says it all.
    if sum(map(len, tiers)) > 1:
        top["announce-list"] = tiers
    if web_seeds:
        top["url-list"] = list(web_seeds)
    if comment:
        top["comment"] = comment
    if creation_date is not None:
        top["creation date"] = creation_date
    try:
        return bencode.encode(top)
    except bencode.BencodeError as error:
        raise invalid("metainfo", str(error)) from error


def wrap(raw_info: bytes, *, trackers: Sequence[Sequence[str]] = (), web_seeds: Sequence[str] = ()) -> bytes:
    """A metainfo file around an info dictionary that came from elsewhere and stays byte for byte as it is.

    InvalidMetainfo where it is no dictionary, or anything follows it.
    """
    try:
        info = bencode.decode(raw_info)
    except bencode.BencodeError as error:
        raise invalid("info", str(error)) from error
    if not isinstance(info, dict):
        raise invalid("info", "not a dictionary")
    tiers = [list(tier) for tier in trackers if tier]
    parts: list[tuple[bytes, bytes]] = [(b"info", raw_info)]
    if tiers:
        parts.append((b"announce", bencode.encode(tiers[0][0])))
    if sum(map(len, tiers)) > 1:
        parts.append((b"announce-list", bencode.encode(tiers)))
    if web_seeds:
        parts.append((b"url-list", bencode.encode(list(web_seeds))))
    return b"d%be" % b"".join([bencode.encode(key) + value for key, value in sorted(parts)])


def _file(entry: FileEntry, index: int, name: str) -> dict[str, object]:
    key = f"info.files[{index}].path"
    if len(entry.path) < 2 or entry.path[0] != name:
        raise invalid(key, f"{'/'.join(entry.path)!r} is not below {name!r}")
    written: dict[str, object] = {
        "length": entry.length,
        "path": [_encoded(part, key) for part in entry.path[1:]],
    }
    attributes = "p" if entry.is_padding else entry.attributes
    if attributes:
        written["attr"] = attributes
    if entry.link:
        written["symlink path"] = [_encoded(part, key) for part in entry.link]
    return written


def _encoded(part: str, key: str) -> bytes:
    if not paths.is_clean(part):
        raise invalid(key, f"{part!r} is not plain UTF-8 without control characters")
    return part.encode()
