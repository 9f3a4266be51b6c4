"""Reads the metadata files of the original MicroTorr, a Go program, as its own loader takes them.

Its keys are those of a Go struct: `Announce`, and `Info` with `Id`, `Length`, `Name`, `Piece_length`,
`Sha1sum`. Their case does not matter, unknown keys and bytes after the dictionary are ignored; hashes are
hexadecimal text. `Id` is the SHA-1 of the whole file, the identity of the swarm. `Name` is the path as it
was typed: what stands before the last `/` is dropped, but a path that leads elsewhere is refused. The
original validates nothing of all this; we refuse what does not fit together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha1

from microtorrd.proto import paths
from microtorrd.proto.bencode import Value
from microtorrd.proto.fields import Fields, invalid, url
from microtorrd.proto.metainfo_model import (
    MAX_CONTENT_BYTES,
    FileEntry,
    Metainfo,
    check_hashes,
    check_shape,
)

_TOP_KEYS = {b"announce": b"Announce", b"info": b"Info"}
_INFO_KEYS = {name.lower(): name for name in (b"Id", b"Length", b"Name", b"Piece_length", b"Sha1sum")}
#: Keys that BitTorrent does not have, or writes otherwise.
_SIGNS = frozenset({b"id", b"piece_length", b"sha1sum"})
_HEXADECIMAL = re.compile(rb"[0-9a-fA-F]*")


def is_original(top: Mapping[bytes, Value]) -> bool:
    """Did the original write this, as far as its keys tell?"""
    standard = top.get(b"info")
    if isinstance(standard, dict) and b"pieces" in standard:
        return False
    for key, value in top.items():
        if key.lower() == b"info" and isinstance(value, dict):
            return key != b"info" or not _SIGNS.isdisjoint(name.lower() for name in value)
    return False


def info_key(top: Mapping[bytes, Value]) -> bytes:
    """The key of the info dictionary as it is spelled in this file."""
    return next(key for key in top if key.lower() == b"info")


def read(top: Mapping[bytes, Value], raw_info: bytes) -> Metainfo:
    """The torrent that this dictionary describes. InvalidMetainfo where it does not."""
    outer = Fields(_spelled(top, _TOP_KEYS, ""))
    table = outer.get("Info")
    if not isinstance(table, dict):
        raise invalid("Info", "not a dictionary")
    info = Fields(_spelled(table, _INFO_KEYS, "Info."), "Info.")
    name = paths.last_part(info.raw("Name"), "Info.Name")
    length = info.integer("Length", low=0, high=MAX_CONTENT_BYTES)
    piece_length = info.integer("Piece_length", low=1, high=MAX_CONTENT_BYTES)
    geometry = check_shape(length, piece_length, key="Info.Piece_length")
    pieces = _unhex(info, "Sha1sum")
    check_hashes(len(pieces), geometry, key="Info.Sha1sum")
    id_hash = _unhex(info, "Id")
    if id_hash and len(id_hash) != 20:
        raise invalid("Info.Id", f"{2 * len(id_hash)} digits, where a SHA-1 has 40")
    tracker = _tracker(outer)
    return Metainfo(
        name=name,
        length=length,
        piece_length=piece_length,
        pieces=pieces,
        files=(FileEntry((name,), length),),
        is_single_file=True,
        info_hash=sha1(raw_info).digest(),
        id_hash=id_hash or None,
        trackers=((tracker,),) if tracker else (),
        private=False,
        web_seeds=(),
        comment="",
        created_by="",
        creation_date=None,
        dialect="original",
        raw_info=raw_info,
    )


def _spelled(
    values: Mapping[bytes, Value], spelling: Mapping[bytes, bytes], where: str
) -> dict[bytes, Value]:
    """The known keys, spelled as the original writes them. One key in two spellings is refused: it would mean
    one thing to one reader and another to the next."""
    found: dict[bytes, Value] = {}
    for key, value in values.items():
        name = spelling.get(key.lower())
        if name is None:
            continue
        if name in found:
            raise invalid(where + name.decode(), "stands there twice, in different spellings")
        found[name] = value
    return found


def _unhex(info: Fields, key: str) -> bytes:
    """Hashes written in hexadecimal; empty where the key is missing, as the original has it."""
    text = info.raw(key) if key in info else b""
    if len(text) % 2 or not _HEXADECIMAL.fullmatch(text):
        raise invalid(info.where + key, "not hexadecimal")
    return bytes.fromhex(text.decode())


def _tracker(outer: Fields) -> str | None:
    """Its tracker, with the path that the original's client appends by itself."""
    tracker = url(outer.raw("Announce"), "Announce") if "Announce" in outer else None
    if tracker is None:
        return None
    address, mark, query = tracker.partition("?")
    scheme, colon, place = address.rstrip("/").partition("://")
    if "announce" not in place.split("/")[1:]:
        place += "/announce"
    return scheme + colon + place + mark + query
