"""What the state database says of a torrent and of a magnet link, as values and as columns."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Sequence
from sys import intern
from typing import Any, NamedTuple

from msgspec import Struct

FileStat = tuple[int, int]  # size in bytes, mtime in ns

Failure = tuple[str, str, str]  # cause, path, message of a StorageError


class TorrentRecord(Struct, frozen=True, gc=False):
    """One torrent on record. What the bitfields and figures mean at start is told in `trust.py`."""

    info_hash: bytes
    name: str
    length: int
    piece_length: int
    save_to: str
    added_at: float  # seconds since 1970, as all times here
    id_hash: bytes | None = None
    disk_name: str | None = None  # the first part of every path on disk, where it is not `name`
    label: str = ""
    stopped: bool = False
    completed_at: float | None = None
    wait_seeders: int = 0
    wait_leechers: int = 0
    sequential: bool = False
    selection: bytes = b""  # a mark for each file (`proto/selection.py`); empty: all are `normal`
    seed_after_download: bool = True
    super_seed: bool = False  # show each peer a few pieces at a time (BEP 16)
    seed_only: bool = False  # the operator brought the data along: never write to it
    down_limit: int = 0  # bytes/s, 0 for none
    up_limit: int = 0
    down_total: int = 0  # payload bytes, ever
    up_total: int = 0
    confirmed: bool = False  # the whole content was once checked against `id_hash`
    root_device: int | None = None  # of the filesystem that `save_to` was on
    moving_to: str | None = None  # a move is under way (`move.py`)
    then_verify: bool = False  # a check was wished during a move, and has not begun
    failure: Failure | None = None
    durable: bytes | None = None  # bitfield: synced to the disk
    written: bytes | None = None  # bitfield: written, and perhaps not synced
    boot_id: str = ""  # the boot of the machine in which it was last written to
    file_stats: tuple[FileStat | None, ...] = ()
    dirty: bool = False  # perhaps written to since `file_stats`
    journal_at: float = 0.0
    # These two in a new one only; not in what `load_summaries` returns: see `StateStore.metainfos`.
    metainfo: bytes = b""  # as given
    gist: bytes | None = None  # what a start needs of it (`gist.py`), where that was packed


class MagnetRecord(Struct, frozen=True):
    """A magnet link on record: a torrent whose metainfo is yet to be found, and what was chosen for it."""

    swarm_id: bytes  # the info_hash, or where the link has none the id_hash
    link: str
    save_to: str
    added_at: float
    label: str = ""
    stopped: bool = False
    wait_seeders: int = 0
    wait_leechers: int = 0
    sequential: bool = False
    selection: str = ""  # which files are wanted, as JSON text (`choosing.py`); empty: all
    seed_after_download: bool = True
    super_seed: bool = False  # show each peer a few pieces at a time (BEP 16)
    down_limit: int = 0
    up_limit: int = 0


class Durable(NamedTuple):
    """What is on the disk for certain: the bitfield, and the figures of the files that the sync returned."""

    info_hash: bytes
    bitfield: bytes
    file_stats: Sequence[FileStat | None]
    clean: bool = False  # and nothing was written since, or will be before `mark_dirty`


class Kept(NamedTuple):
    """The metainfo of one torrent as it is kept."""

    raw: bytes  # as it was given
    gist: bytes | None  # of it, where one was packed; damaged, perhaps


#: The fields of records that are columns of their tables.
COLUMNS = tuple(name for name in TorrentRecord.__struct_fields__ if name not in {"metainfo", "gist"})
MAGNET_COLUMNS = MagnetRecord.__struct_fields__

#: Texts are kept as bytes, since paths and names need not be valid Unicode.
_TEXTS = frozenset({"name", "save_to", "disk_name", "label", "moving_to", "link"})
_ALIKE = frozenset({"save_to", "label", "boot_id"})
_FLAGS = frozenset(
    {
        "stopped",
        "sequential",
        "seed_after_download",
        "super_seed",
        "seed_only",
        "then_verify",
        "confirmed",
        "dirty",
    }
)


def magnet_of(row: Sequence[Any]) -> MagnetRecord:
    """What a row of these columns says."""
    return MagnetRecord(*map(_from_column, MAGNET_COLUMNS, row))


def torrent_of(row: Sequence[Any]) -> TorrentRecord:
    """What a row of these columns says. ValueError, TypeError, AttributeError where it makes no sense."""
    values = list(row)
    for index, convert in _FROM_COLUMN:
        value = values[index]
        if value is not None:
            values[index] = convert(value)
    return TorrentRecord(*values)


def to_column(name: str, value: Any) -> Any:
    """The value of this field as the database keeps it."""
    if value is None:
        return None
    if name in _TEXTS:
        return value.encode("utf-8", "surrogatepass")
    if name == "file_stats":
        return pack_stats(value)
    if name == "failure":
        return json.dumps(value)
    return value


def _from_column(name: str, value: Any) -> Any:
    """Of a magnet link; those of torrents, which may be thousands, go the quicker way below."""
    if name in _TEXTS:
        return _text(value)
    return bool(value) if name in _FLAGS else value


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def _alike(raw: bytes | str) -> str:
    """The same for what thousands of torrents have in common: kept once."""
    return intern(raw if isinstance(raw, str) else _text(raw))


def _failure(raw: str) -> Failure:
    cause, path, message = json.loads(raw)
    return cause, path, message


def pack_stats(stats: Iterable[FileStat | None]) -> bytes:
    """The figures of files as the database keeps them."""
    return array("q", (figure for stat in stats for figure in (stat or (-1, 0)))).tobytes()


def _unpack_stats(raw: bytes) -> tuple[FileStat | None, ...]:
    figures = array("q")
    figures.frombytes(raw)
    pairs = zip(figures[::2], figures[1::2], strict=True)
    return tuple(None if size < 0 else (size, mtime_ns) for size, mtime_ns in pairs)


#: Where a column is not what the record holds. By index, because thousands of rows are read at start.
_FROM_COLUMN: tuple[tuple[int, Callable[[Any], Any]], ...] = tuple(
    (index, convert)
    for index, name in enumerate(COLUMNS)
    for names, convert in (
        (_TEXTS - _ALIKE, _text),
        (_ALIKE, _alike),
        (_FLAGS, bool),
        ({"file_stats"}, _unpack_stats),
        ({"failure"}, _failure),
    )
    if name in names
)
