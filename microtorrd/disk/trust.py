"""What may be believed at start about pieces that were verified before, without reading them.

A pure decision: from the record, the id of this boot of the machine, and the size and mtime of each file now.

What the record holds. `durable`: pieces whose bytes were made durable before the claim was committed, with
`file_stats`, the files' figures at that moment. `written`: pieces that were in the page cache when the
journal was written; it is a claim of the process, not of the disk. `dirty`: we may have written since
`file_stats`. `boot_id`: the boot in which that was. `journal_at`: when the record was last brought up to
date.

Why that is enough:
- *Clean stop.* Nobody of ours wrote since `file_stats`. A file that looks the same is the same; in any other
  somebody else was at work, and just its pieces are checked.
- *The process died (same boot).* The page cache lives on, so all that `written` claims is there. Files moved
  on after `file_stats` by our own writes; we know neither how far nor when exactly we died. But our writes
  only let a file grow, never beyond its length, never back in time, and they end at the latest shortly after
  `journal_at`, because a process that writes keeps its journal. A file within these bounds is explained by
  us; one outside was touched while we were down, and its pieces are checked.
- *The machine died (another boot), or the filesystem was mounted anew.* What was not synced may be lost, in
  any order: only `durable` can be believed, and the rest of `written` is checked. The journal itself may have
  lost its last entries, so the bounds are wider by the time between two syncs; and a file's mtime on disk may
  be older than the one we saw.
- *In all cases* a piece that lies beyond the present end of one of its files is not there, whoever claims it.

What this cannot see: somebody who changes a file without its size, within the bounds above, or who sets the
mtime back. A full check finds that.

After trust in `written` the bytes may still be in the page cache only: before such a claim is recorded as
durable, the files have to be synced whole (`sync_first`). The same holds after a check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from microtorrd.errors import ProtocolError
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.geometry import Geometry

FileStat = tuple[int, int]  # size in bytes, mtime in ns

#: A process that writes brings its journal up to date more often than this, even on a busy disk.
JOURNAL_LAG_S = 15.0

#: And it syncs, and commits that durably, more often than this.
SYNC_LAG_S = 120.0


class Claims(Protocol):
    """The part of a `TorrentRecord` that says what we had."""

    @property
    def durable(self) -> bytes | None: ...
    @property
    def written(self) -> bytes | None: ...
    @property
    def boot_id(self) -> str: ...
    @property
    def dirty(self) -> bool: ...
    @property
    def journal_at(self) -> float: ...
    @property
    def file_stats(self) -> Sequence[FileStat | None]: ...


class Trust(Struct, frozen=True):
    """The decision. Pieces in neither `have` nor `recheck` were never claimed."""

    have: Bitfield
    recheck: tuple[int, ...]  # claimed, but to be read again before they are offered to anybody; ascending
    changed_files: tuple[int, ...]  # numbers of files that somebody else seems to have touched
    missing_files: tuple[int, ...]  # numbers of files that we had, and that are gone
    sync_first: bool  # sync everything before `have` is recorded as durable


def decide(
    record: Claims,
    geometry: Geometry,
    lengths: Sequence[int],
    stats: Sequence[FileStat | None],
    *,
    boot_id: str,
    remounted: bool = False,
) -> Trust:
    """Which pieces to trust. `lengths` and `stats` are those of the files, in the order of the content;
    `remounted` says that the filesystem is not the mount that we wrote to (`FileSet.remounted`)."""
    page_cache = record.dirty and record.boot_id == boot_id and not remounted
    window = None
    if record.dirty:
        lag_s = JOURNAL_LAG_S if page_cache else SYNC_LAG_S
        window = _Window(
            back_ns=0 if page_cache else _ns(SYNC_LAG_S), latest_ns=_ns(record.journal_at + lag_s)
        )
    try:
        durable = _bitfield(record.durable, geometry)
        claimed = _either(durable, _bitfield(record.written if record.dirty else None, geometry))
        have = claimed.copy() if page_cache else durable.copy()
    except ProtocolError:  # the record does not fit this torrent: it claims anything, and none is believed
        durable = have = Bitfield(geometry.piece_count)
        claimed = Bitfield.full(geometry.piece_count)

    changed: list[int] = []
    missing: list[int] = []
    recorded = record.file_stats if len(record.file_stats) == len(lengths) else (None,) * len(lengths)
    start = 0
    for number, (length, before, now) in enumerate(zip(lengths, recorded, stats, strict=True)):
        believed_bytes = 0
        if now is None:
            if before is not None:
                missing.append(number)
        elif not _explained(length, before, now, window):
            changed.append(number)
        else:
            believed_bytes = min(length, now[0])
        for piece in geometry.pieces_within(start + believed_bytes, length - believed_bytes):
            have.clear(piece)
        start += length

    return Trust(
        have=have,
        recheck=tuple((claimed.bits & ~have.bits).search(1)),
        changed_files=tuple(changed),
        missing_files=tuple(missing),
        sync_first=(have.bits & ~durable.bits).any(),
    )


class _Window(Struct, frozen=True):
    """Within which bounds our own writes can have moved a file's mtime."""

    back_ns: int  # behind the recorded one
    latest_ns: int


def _explained(length: int, before: FileStat | None, now: FileStat, window: _Window | None) -> bool:
    """Does the file look as we left it, or as our own writes can have made it since?"""
    if now == before:
        return now[0] <= length
    if window is None or now[0] > length or now[1] > window.latest_ns:
        return False
    return before is None or (now[0] >= before[0] and now[1] >= before[1] - window.back_ns)


def _bitfield(raw: bytes | None, geometry: Geometry) -> Bitfield:
    count = geometry.piece_count
    return Bitfield(count) if raw is None else Bitfield.from_bytes(raw, count)


def _either(one: Bitfield, other: Bitfield) -> Bitfield:
    return Bitfield.from_bytes((one.bits | other.bits).tobytes(), len(one))


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
