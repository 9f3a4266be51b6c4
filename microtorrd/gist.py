"""What a start needs of the metainfo of a torrent, packed beside it: thousands need not be parsed then.

Parsing is by far the dearest part of bringing back a torrent that has everything. So what of its metainfo is
needed as long as it lives (`Words`) is kept on record beside it, with a SHA-1 over it, the bytes that it was
made from and the torrent's name on record: it is believed beside exactly those, and where they are damaged or
others, parsing says so.

A gist is made when a torrent comes in, or at the first start that finds none. One that another version made
counts for none: that version may have read the same bytes differently. What has very many files has none.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import sha1
from typing import Any, NamedTuple

import msgspec.msgpack

from microtorrd import __version__
from microtorrd.proto.metainfo import FileEntry, Metainfo

#: To be changed when anything behind it changes, or what parsing makes of metainfo, between two releases.
VERSION = b"\x03"

#: What is longer is no use: to read it costs as much as to parse what it was made from.
MAX_BYTES = 64 << 10

#: Up to this length words are remembered, for other torrents that say the same.
SHORT_BYTES = 1 << 10

#: Size of the info dictionary, creation date or -1. Before them: the version, and the SHA-1 of who packed,
#: the name, the metainfo and what follows.
_FIGURES = struct.Struct("!Iq")

_PACKER = f"{__version__}\0".encode()

_File = tuple[tuple[str, ...], int, bool, str, tuple[str, ...]]
_Body = tuple[
    tuple[tuple[str, ...], ...], tuple[str, ...], bool, bool, str, str, str, tuple[_File, ...]
]  # as `Words`


class Words(NamedTuple):
    """What the metainfo says that is neither on record nor too long to be kept in memory."""

    trackers: tuple[tuple[str, ...], ...] = ()
    web_seeds: tuple[str, ...] = ()
    private: bool = False
    is_single_file: bool = True
    comment: str = ""
    created_by: str = ""
    dialect: str = ""
    files: tuple[FileEntry, ...] = ()  # none for a single file without attributes: name and length say it all

    @classmethod
    def of(cls, meta: Metainfo, name: str) -> Words:
        """Those of this metainfo, of a torrent that has this name on record."""
        is_plain = meta.is_single_file and meta.files == (FileEntry((name,), meta.length),)
        return _alike(
            cls(
                trackers=meta.trackers,
                web_seeds=meta.web_seeds,
                private=meta.private,
                is_single_file=meta.is_single_file,
                comment=meta.comment,
                created_by=meta.created_by,
                dialect=meta.dialect,
                files=() if is_plain else meta.files,
            )
        )


class Gist(NamedTuple):
    """All that is packed."""

    words: Words
    info_bytes: int  # the size of the info dictionary
    creation_date: int | None  # seconds since 1970


def pack(meta: Metainfo, raw: bytes, name: str) -> bytes | None:
    """The gist of the metainfo file `raw`, which says `meta`, for a torrent that has this name on record;
    None where it would be too long."""
    words = Words.of(meta, name)
    if sum(len(part) for entry in words.files for part in entry.path) > MAX_BYTES:
        return None
    files = [
        (entry.path, entry.length, entry.is_padding, entry.attributes, entry.link) for entry in words.files
    ]
    date = -1 if meta.creation_date is None else meta.creation_date
    said = _FIGURES.pack(len(meta.raw_info), date) + msgspec.msgpack.encode((*words[:-1], files))
    packed = VERSION + _digest(raw, name, said) + said
    return packed if len(packed) <= MAX_BYTES else None


def unpack(packed: bytes, raw: bytes, name: str) -> Gist | None:
    """The gist, where this version made it from the metainfo file `raw` for a torrent of this name, and none
    of that was damaged."""
    version, digest, said = packed[:1], packed[1:21], packed[21:]
    if version != VERSION or digest != _digest(raw, name, said):
        return None
    info_bytes, date = _FIGURES.unpack_from(said)
    body = said[_FIGURES.size :]
    words = _read_short(body) if len(body) <= SHORT_BYTES else _read(body)
    return Gist(words, info_bytes, None if date < 0 else date)


def _digest(raw: bytes, name: str, said: bytes) -> bytes:
    everything = sha1(b"%b%b\0" % (_PACKER, name.encode("utf-8", "surrogatepass")))  # no name has a NUL
    everything.update(raw)
    everything.update(said)
    return everything.digest()


def _read(body: bytes) -> Words:
    trackers, web_seeds, private, is_single_file, comment, created_by, dialect, files = _DECODER.decode(body)
    entries = tuple([FileEntry(*file) for file in files])
    return _alike(Words(trackers, web_seeds, private, is_single_file, comment, created_by, dialect, entries))


#: Most torrents are of one file, and say what others say: read once, and kept once.
_read_short = lru_cache(maxsize=1024)(_read)


def _alike(words: Words) -> Words:
    """The same words, and of what thousands of torrents have in common the first that there was."""
    if not words.files:
        alone: Words = _same(words)
        return alone
    return words._replace(
        trackers=_same(words.trackers), comment=_same(words.comment), created_by=_same(words.created_by)
    )


@lru_cache(maxsize=1024)
def _same(value: Any) -> Any:
    return value


_DECODER = msgspec.msgpack.Decoder(_Body)
