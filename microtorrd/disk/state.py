"""The state of all torrents in one SQLite database: what they are, what was chosen for them, what they have.

Rules
- Blocking, and for one thread at a time: the session gives it a lane of its own.
- Two strengths of commit. What must survive a power cut (torrents, choices, durable bitfields) waits for the
  disk; the journal (`record_written`, `record_totals`) survives the death of the process and costs no wait.
- A durable bitfield is recorded only after the data it claims was synced (`jobs.sync`), with the figures that
  the sync returned. What `trust.py` believes at the next start stands on this.
- A piece that turns out bad is taken back (`retract`) before anything is written in its place.
- A failed commit changes nothing and raises StorageError.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

from microtorrd.disk import schema
from microtorrd.disk.records import (
    COLUMNS,
    MAGNET_COLUMNS,
    Durable,
    FileStat,
    Kept,
    MagnetRecord,
    TorrentRecord,
    magnet_of,
    pack_stats,
    to_column,
    torrent_of,
)
from microtorrd.errors import Duplicate, NotFound

#: Metainfo of which that of many torrents can be read at once.
_SHORT_BYTES = 16 << 10


def current_boot_id() -> str:
    """Tells one boot of the machine from another."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


class StateStore:
    """The database at `path`, made where there is none. Raises StorageError, here and in every method."""

    def __init__(
        self, path: str, *, boot_id: str | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self.boot_id = current_boot_id() if boot_id is None else boot_id
        self._clock = clock
        self._connection = schema.open_database(path)
        self._full: bool | None = None  # which strength of commit is set

    # ---------------------------------------------------------------------------------------------- reading

    def load_summaries(self) -> list[TorrentRecord]:
        """All torrents without their metainfo, the first added first."""
        with schema.errors_at(self.path):
            rows = self._connection.execute(_SELECT).fetchall()
        records = self._read(rows)
        # Here, because nearly all are in order already, and SQLite would copy them all to see that.
        records.sort(key=attrgetter("added_at", "info_hash"))
        return records

    def load(self, info_hash: bytes) -> TorrentRecord:
        """One torrent, without its metainfo. NotFound where there is none."""
        with schema.errors_at(self.path):
            row = self._connection.execute(f"{_SELECT} WHERE info_hash = ?", (info_hash,)).fetchone()
        if row is None:
            raise _not_found(info_hash)
        return self._read([row])[0]

    def _read(self, rows: Sequence[Sequence[Any]]) -> list[TorrentRecord]:
        """The records that these rows are. StorageError where one makes no sense."""
        try:
            records = [torrent_of(row) for row in rows]
            wrong = [record.name for record in records if record.length < 0 or record.piece_length < 1]
        except (ValueError, TypeError, AttributeError) as error:
            raise schema.damaged(self.path, f"what it says of a torrent makes no sense: {error}") from None
        if wrong:
            raise schema.damaged(self.path, f"what it says of the torrent {wrong[0]!r} makes no sense")
        return records

    def metainfo(self, info_hash: bytes) -> bytes:
        """The metainfo file as it was given. NotFound where there is no such torrent."""
        query = "SELECT raw FROM metainfo WHERE info_hash = ?"
        with schema.errors_at(self.path):
            row = self._connection.execute(query, (info_hash,)).fetchone()
        if row is None:
            raise _not_found(info_hash)
        return bytes(row[0])

    def metainfos(self, info_hashes: Sequence[bytes], *, at_most_bytes: int) -> dict[bytes, Kept]:
        """Those of many torrents, as long as they fit; what is left out, or is not there, is not in it."""
        marks = ",".join("?" * len(info_hashes))
        query = (  # one for all: each has costs of its own
            "SELECT info_hash, length(raw), CASE WHEN length(raw) <= ?1 THEN raw END,"
            f" CASE WHEN length(raw) <= ?1 THEN gist END FROM metainfo WHERE info_hash IN ({marks})"
        )
        found: dict[bytes, Kept] = {}
        with schema.errors_at(self.path):
            rows = self._connection.execute(query, (_SHORT_BYTES, *info_hashes)).fetchall()
            for info_hash, size, raw, gist in rows:
                if size <= at_most_bytes:
                    at_most_bytes -= size
                    found[info_hash] = self._kept(info_hash) if raw is None else Kept(raw, gist)
        return found

    def _kept(self, info_hash: bytes) -> Kept:
        return Kept(*self._connection.execute(_KEPT, (info_hash,)).fetchone())

    # ----------------------------------------------------------------------------- torrents and their choices

    def add(self, record: TorrentRecord) -> None:
        """A new torrent, with its metainfo. Duplicate where it is there."""
        with self._commit(full=True) as execute:
            _insert(execute, record)

    def remove(self, info_hash: bytes) -> None:
        """Forget the torrent. One that is not there is no error."""
        with self._commit(full=True) as execute:
            execute("DELETE FROM torrents WHERE info_hash = ?", (info_hash,))

    def update_fields(self, info_hash: bytes, **changes: Any) -> None:
        """Set fields of the record, all of them or none. NotFound where there is no such torrent."""
        unknown = changes.keys() - set(COLUMNS[1:])
        if unknown:
            raise TypeError(f"a torrent's record has no {', '.join(sorted(unknown))} to change")
        if not changes:
            return
        marks = ", ".join(f"{name} = ?" for name in changes)
        values = [to_column(name, value) for name, value in changes.items()]
        with self._commit(full=True) as execute:
            if (
                execute(f"UPDATE torrents SET {marks} WHERE info_hash = ?", (*values, info_hash)).rowcount
                == 0
            ):
                raise _not_found(info_hash)

    def record_gists(self, gists: Iterable[tuple[bytes, bytes]]) -> None:
        """(info_hash, gist) of torrents whose metainfo had to be parsed. One that is gone is no error."""
        with self._commit(full=False) as execute:
            for info_hash, packed in gists:
                execute("UPDATE metainfo SET gist = ? WHERE info_hash = ?", (packed, info_hash))

    def update_all(self, info_hashes: Iterable[bytes], **changes: Any) -> None:
        """Set the same fields of many records in one commit. One that is not there is no error."""
        marks = ", ".join(f"{name} = ?" for name in changes)
        values = [to_column(name, value) for name, value in changes.items()]
        with self._commit(full=True) as execute:
            for info_hash in info_hashes:
                execute(f"UPDATE torrents SET {marks} WHERE info_hash = ?", (*values, info_hash))

    # --------------------------------------------------------------------------------------- magnet links

    def load_magnets(self) -> list[MagnetRecord]:
        """All magnet links, the first added first."""
        names = ", ".join(MAGNET_COLUMNS)
        with schema.errors_at(self.path):
            rows = self._connection.execute(f"SELECT {names} FROM magnets ORDER BY added_at, swarm_id")
            return [magnet_of(row) for row in rows]

    def add_magnet(self, record: MagnetRecord) -> None:
        """A new magnet link. Duplicate where it is there."""
        marks = ", ".join("?" * len(MAGNET_COLUMNS))
        values = [to_column(name, getattr(record, name)) for name in MAGNET_COLUMNS]
        with self._commit(full=True) as execute:
            try:
                execute(f"INSERT INTO magnets ({', '.join(MAGNET_COLUMNS)}) VALUES ({marks})", values)
            except sqlite3.IntegrityError:
                raise Duplicate("the link is already here", info_hash=record.swarm_id.hex()) from None

    def update_magnet(self, record: MagnetRecord) -> None:
        """Replace the record of a magnet link. One that is not there is no error: it was resolved."""
        marks = ", ".join(f"{name} = ?" for name in MAGNET_COLUMNS)
        values = [to_column(name, getattr(record, name)) for name in MAGNET_COLUMNS]
        with self._commit(full=True) as execute:
            execute(f"UPDATE magnets SET {marks} WHERE swarm_id = ?", (*values, record.swarm_id))

    def remove_magnet(self, swarm_id: bytes) -> None:
        """Forget a magnet link. One that is not there is no error."""
        with self._commit(full=True) as execute:
            execute("DELETE FROM magnets WHERE swarm_id = ?", (swarm_id,))

    def resolve_magnet(self, swarm_id: bytes, record: TorrentRecord) -> None:
        """The metainfo was found: the torrent takes the place of its link, in one commit."""
        with self._commit(full=True) as execute:
            execute("DELETE FROM magnets WHERE swarm_id = ?", (swarm_id,))
            _insert(execute, record)

    # ------------------------------------------------------------------------------------- what torrents have

    def mark_dirty(self, info_hashes: Iterable[bytes]) -> None:
        """Before the first write of a run: from now on the files may change by our hand.

        To be called after what `trust.decide` wants re-checked was: claims of an earlier boot that are not
        durable are given up here.
        """
        now = self._clock()
        with self._commit(full=True) as execute:
            for info_hash in info_hashes:
                execute(
                    "UPDATE torrents SET written = CASE WHEN dirty AND boot_id = ?1 THEN written END,"
                    " dirty = 1, boot_id = ?1, journal_at = ?2 WHERE info_hash = ?3",
                    (self.boot_id, now, info_hash),
                )

    def record_written(self, batch: Iterable[tuple[bytes, bytes]]) -> None:
        """The journal of torrents that are written to: (info_hash, bitfield of all verified pieces)."""
        now = self._clock()
        with self._commit(full=False) as execute:
            for info_hash, bitfield in batch:
                execute(
                    "UPDATE torrents SET written = ?, boot_id = ?, journal_at = ?, dirty = 1"
                    " WHERE info_hash = ?",
                    (bitfield, self.boot_id, now, info_hash),
                )

    def record_durable(
        self,
        info_hash: bytes,
        bitfield: bytes,
        file_stats: Sequence[FileStat | None],
        *,
        clean: bool = False,
    ) -> None:
        """After a sync: these pieces are on the disk. See `Durable`."""
        self.record_all_durable((Durable(info_hash, bitfield, file_stats, clean),))

    def record_all_durable(self, batch: Iterable[Durable]) -> None:
        """The same for many torrents in one commit, as when the daemon stops."""
        now = self._clock()
        with self._commit(full=True) as execute:
            for info_hash, bitfield, file_stats, clean in batch:
                execute(
                    "UPDATE torrents SET durable = ?1, file_stats = ?2, journal_at = ?3, boot_id = ?4,"
                    " dirty = NOT ?5, written = CASE WHEN NOT ?5 AND boot_id = ?4 THEN written END"
                    " WHERE info_hash = ?6",
                    (bitfield, pack_stats(file_stats), now, self.boot_id, clean, info_hash),
                )

    def retract(self, info_hash: bytes, bitfield: bytes) -> None:
        """Claim at most these pieces from now on, durably: others were found bad or missing."""
        with self._commit(full=True) as execute:
            row = execute(
                "SELECT durable, written FROM torrents WHERE info_hash = ?", (info_hash,)
            ).fetchone()
            if row is None:
                raise _not_found(info_hash)
            execute(
                "UPDATE torrents SET durable = ?, written = ? WHERE info_hash = ?",
                (_common(row[0], bitfield), _common(row[1], bitfield), info_hash),
            )

    def mark_clean(self, batch: Iterable[tuple[bytes, Sequence[FileStat | None]]]) -> None:
        """(info_hash, figures of the files): nothing was written since the last durable bitfield, and nothing
        will be before `mark_dirty`."""
        with self._commit(full=True) as execute:
            for info_hash, file_stats in batch:
                execute(
                    "UPDATE torrents SET dirty = 0, written = NULL, file_stats = ? WHERE info_hash = ?",
                    (pack_stats(file_stats), info_hash),
                )

    def record_totals(self, batch: Iterable[tuple[bytes, int, int]]) -> None:
        """(info_hash, bytes ever received, bytes ever sent)."""
        with self._commit(full=False) as execute:
            for info_hash, down_total, up_total in batch:
                execute(
                    "UPDATE torrents SET down_total = ?, up_total = ? WHERE info_hash = ?",
                    (down_total, up_total, info_hash),
                )

    def close(self) -> None:
        """Bring the journal into the database and close it."""
        with schema.errors_at(self.path):
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                self._connection.close()

    @contextmanager
    def _commit(self, *, full: bool) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """One transaction; with `full` it waits until the disk has it, and all before it."""
        connection = self._connection
        with schema.errors_at(self.path):
            if full != self._full:
                connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
                self._full = full
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection.execute
                connection.execute("COMMIT")
            except BaseException:
                # SQLite rolls back by itself on some errors, a full disk among them.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


_SELECT = f"SELECT {', '.join(COLUMNS)} FROM torrents"
_KEPT = "SELECT raw, gist FROM metainfo WHERE info_hash = ?"


def _insert(execute: Callable[..., sqlite3.Cursor], record: TorrentRecord) -> None:
    names = ", ".join(COLUMNS)
    marks = ", ".join("?" * len(COLUMNS))
    values = [to_column(name, getattr(record, name)) for name in COLUMNS]
    try:
        execute(f"INSERT INTO torrents ({names}) VALUES ({marks})", values)
    except sqlite3.IntegrityError:
        raise Duplicate("the torrent is already here", info_hash=record.info_hash.hex()) from None
    kept = (record.info_hash, record.metainfo, record.gist)
    execute("INSERT INTO metainfo (info_hash, raw, gist) VALUES (?, ?, ?)", kept)


def _common(claimed: bytes | None, bitfield: bytes) -> bytes | None:
    if claimed is None or len(claimed) != len(bitfield):
        return None
    both = int.from_bytes(claimed, "big") & int.from_bytes(bitfield, "big")
    return both.to_bytes(len(bitfield), "big")


def _not_found(info_hash: bytes) -> NotFound:
    return NotFound("no torrent on record has this id", info_hash=info_hash.hex())
