"""Reads BitTorrent v1 metainfo (BEP 3, 12, 19, 27, 47); our own `.mtorrent` is that, and `info.id_hash` more.

What decides about bytes on disk (names, lengths, hashes) is read strictly; ornaments that are no use as
they stand (a comment of the wrong type, a date that is none) are left out without a word.
"""

from __future__ import annotations

from hashlib import sha1

from microtorrd.errors import InvalidMetainfo
from microtorrd.proto import links, paths
from microtorrd.proto.bencode import Value
from microtorrd.proto.fields import Fields, invalid, kind, url
from microtorrd.proto.metainfo_model import (
    MAX_CONTENT_BYTES,
    MAX_FILES,
    FileEntry,
    Metainfo,
    check_hashes,
    check_shape,
)

#: Trackers and web seeds, each. Torrents with some two hundred trackers are about.
MAX_URLS = 1000


def read(top: Fields, raw_info: bytes) -> Metainfo:
    """The torrent that this dictionary describes. InvalidMetainfo where it does not."""
    info = top.table("info")
    if "pieces" not in info and info.get("meta version") == 2:
        raise invalid(
            "info.meta version",
            "a BitTorrent v2 torrent without v1 hashes; only v1 and hybrid ones are supported",
        )
    name = _name(info)
    is_single_file = "files" not in info
    files = (_single_file(info, name),) if is_single_file else _files(info, name)
    length = sum(entry.length for entry in files)
    if length > MAX_CONTENT_BYTES:
        raise invalid(
            "info.files", f"{length} bytes altogether, where at most {MAX_CONTENT_BYTES} are allowed"
        )
    piece_length = info.integer("piece length", low=1, high=MAX_CONTENT_BYTES)
    pieces = info.raw("pieces")
    geometry = check_shape(length, piece_length, key="info.piece length")
    check_hashes(len(pieces), geometry, key="info.pieces")
    id_hash = info.raw("id_hash") if "id_hash" in info else None
    if id_hash is not None and len(id_hash) != 20:
        raise invalid("info.id_hash", f"{len(id_hash)} bytes, where a SHA-1 has 20")
    date = top.get("creation date")
    return Metainfo(
        name=name,
        length=length,
        piece_length=piece_length,
        pieces=pieces,
        files=files,
        is_single_file=is_single_file,
        info_hash=sha1(raw_info).digest(),
        id_hash=id_hash,
        trackers=_trackers(top),
        # A wrong type must not turn a private torrent into a public one.
        private="private" in info and info.integer("private", low=0, high=MAX_CONTENT_BYTES) != 0,
        web_seeds=_web_seeds(top),
        comment=top.text("comment"),
        created_by=top.text("created by"),
        creation_date=date if isinstance(date, int) and 0 <= date <= MAX_CONTENT_BYTES else None,
        dialect="bittorrent" if id_hash is None else "microtorr",
        raw_info=raw_info,
    )


def _name(info: Fields) -> str:
    better = info.get("name.utf-8")
    if isinstance(better, bytes) and _is_utf8(better):
        return paths.clean_part(better, "info.name.utf-8")
    return paths.clean_part(info.raw("name"), "info.name")


def _single_file(info: Fields, name: str) -> FileEntry:
    if "length" not in info:
        raise invalid("info.length", "missing, and there is no info.files either")
    length = info.integer("length", low=0, high=MAX_CONTENT_BYTES)
    return FileEntry((name,), length, attributes="".join(sorted(_attributes(info.get("attr")) & {"h", "x"})))


def _files(info: Fields, name: str) -> tuple[FileEntry, ...]:
    if "length" in info:
        raise invalid("info.length", "stands beside info.files; a torrent has one of them")
    entries = info.items("files")
    if not entries:
        raise invalid("info.files", "no file in it")
    if len(entries) > MAX_FILES:
        raise invalid("info.files", f"{len(entries)} files, where at most {MAX_FILES} are allowed")
    files = tuple([_file(entry, index, name) for index, entry in enumerate(entries)])
    paths.check_distinct([entry.path for entry in files], lambda index: f"info.files[{index}].path")
    return links.settle(files)


def _file(entry: Value, index: int, name: str) -> FileEntry:
    where = f"info.files[{index}]"
    if not isinstance(entry, dict):
        raise invalid(where, f"{kind(entry)}, where a dictionary belongs")
    fields = Fields(entry, f"{where}.")
    attributes = _attributes(entry.get(b"attr"))
    # BEP 47: a symbolic link has no bytes. What has some is a file, whatever else is said of it.
    length = 0
    if "l" not in attributes or "length" in fields:
        length = fields.integer("length", low=0, high=MAX_CONTENT_BYTES)
    if "p" in attributes:
        # Padding files often share one name (`.pad/1024`), or have none: the index makes them distinct.
        return FileEntry((name, ".pad", str(index)), length, is_padding=True)
    if length:
        attributes -= {"l"}
    key, parts = f"{where}.path.utf-8", fields.get("path.utf-8")
    if not (isinstance(parts, list) and all(isinstance(part, bytes) and _is_utf8(part) for part in parts)):
        key, parts = f"{where}.path", fields.items("path")
    raw_parts = [part for part in parts if isinstance(part, bytes)]
    if len(raw_parts) != len(parts):
        raise invalid(key, "contains something else than strings")
    path = (name, *paths.clean_path(raw_parts, key))
    link = _link(fields.get("symlink path")) if "l" in attributes else ()
    return FileEntry(path, length, attributes="".join(sorted(attributes)), link=link)


def _attributes(value: Value | None) -> set[str]:
    """Those of BEP 47 that we know."""
    return {letter for letter in "hlpx" if isinstance(value, bytes) and letter.encode() in value}


def _link(value: Value | None) -> tuple[str, ...]:
    """Where a symbolic link leads, as it says; nothing where that is no path in the torrent."""
    if not isinstance(value, list):
        return ()
    try:
        raw_parts = [part for part in value if isinstance(part, bytes)]
        return paths.clean_path(raw_parts, "symlink path") if len(raw_parts) == len(value) else ()
    except InvalidMetainfo:
        return ()


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _trackers(top: Fields) -> tuple[tuple[str, ...], ...]:
    """The tiers of `announce-list`, or of `announce` where that list says nothing (BEP 12); each URL once."""
    tiers: list[tuple[str, ...]] = []
    seen: set[str] = set()
    listed = top.items("announce-list") if "announce-list" in top else []
    for number, tier in enumerate(listed):
        key = f"announce-list[{number}]"
        # A bare URL where a tier belongs is a common slip: a tier of one.
        urls = _urls(tier if isinstance(tier, list) else [tier], key, seen)
        if urls:
            tiers.append(urls)
    if not tiers and "announce" in top:
        urls = _urls([top.raw("announce")], "announce", seen)
        if urls:
            tiers.append(urls)
    return tuple(tiers)


def _web_seeds(top: Fields) -> tuple[str, ...]:
    value = top.get("url-list")
    if value is None:
        return ()
    return _urls(value if isinstance(value, list) else [value], "url-list", set())


def _urls(values: list[Value], key: str, seen: set[str]) -> tuple[str, ...]:
    """The URLs not seen before, in order; `seen` learns them."""
    found: list[str] = []
    for value in values:
        text = url(value, key)
        if text is None or text in seen:
            continue
        if len(seen) == MAX_URLS:
            raise invalid(key, f"more than {MAX_URLS} URLs")
        seen.add(text)
        found.append(text)
    return tuple(found)
