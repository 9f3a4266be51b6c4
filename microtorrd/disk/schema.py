"""The state database as a file: how it is made, opened, brought up to date, and what its errors mean.

Rules
- A database is never made in the place of one that is damaged, empty or only half there: starting with no
  torrents is a decision of the operator's, not ours.
- A new one appears whole, by rename, so an empty file at its path is always damage.
- `user_version` says how many of `MIGRATIONS` a database has seen. They are only ever appended to.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from microtorrd.errors import StorageError

_APPLICATION_ID = 0x6D746F72  # "mtor", as `file` shows it

MIGRATIONS = (
    """
    CREATE TABLE torrents (
        info_hash BLOB PRIMARY KEY,
        id_hash BLOB,
        name BLOB NOT NULL,
        length INTEGER NOT NULL,
        piece_length INTEGER NOT NULL,
        save_to BLOB NOT NULL,
        disk_name BLOB,
        label BLOB NOT NULL,
        stopped INTEGER NOT NULL,
        added_at REAL NOT NULL,
        completed_at REAL,
        wait_seeders INTEGER NOT NULL,
        wait_leechers INTEGER NOT NULL,
        sequential INTEGER NOT NULL,
        seed_after_download INTEGER NOT NULL,
        seed_only INTEGER NOT NULL,
        down_limit INTEGER NOT NULL,
        up_limit INTEGER NOT NULL,
        down_total INTEGER NOT NULL,
        up_total INTEGER NOT NULL,
        confirmed INTEGER NOT NULL,
        root_device INTEGER,
        moving_to BLOB,
        failure TEXT,
        durable BLOB,
        written BLOB,
        boot_id TEXT NOT NULL,
        file_stats BLOB NOT NULL,
        dirty INTEGER NOT NULL,
        journal_at REAL NOT NULL
    );
    CREATE TABLE metainfo (
        info_hash BLOB PRIMARY KEY REFERENCES torrents (info_hash) ON DELETE CASCADE,
        raw BLOB NOT NULL
    );
    """,
    """
    CREATE TABLE magnets (
        swarm_id BLOB PRIMARY KEY,
        link BLOB NOT NULL,
        save_to BLOB NOT NULL,
        label BLOB NOT NULL,
        stopped INTEGER NOT NULL,
        added_at REAL NOT NULL,
        wait_seeders INTEGER NOT NULL,
        wait_leechers INTEGER NOT NULL,
        sequential INTEGER NOT NULL,
        seed_after_download INTEGER NOT NULL,
        down_limit INTEGER NOT NULL,
        up_limit INTEGER NOT NULL
    );
    """,
    """
    ALTER TABLE torrents ADD COLUMN super_seed INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE magnets ADD COLUMN super_seed INTEGER NOT NULL DEFAULT 0
    """,
    """
    ALTER TABLE torrents ADD COLUMN selection BLOB NOT NULL DEFAULT X'';
    ALTER TABLE magnets ADD COLUMN selection TEXT NOT NULL DEFAULT '';
    """,
    """
    ALTER TABLE metainfo ADD COLUMN gist BLOB
    """,
    """
    ALTER TABLE torrents ADD COLUMN then_verify INTEGER NOT NULL DEFAULT 0
    """,
)

_CAUSES = {
    sqlite3.SQLITE_FULL: "no_space",
    sqlite3.SQLITE_READONLY: "read_only",
    sqlite3.SQLITE_PERM: "not_permitted",
    sqlite3.SQLITE_CANTOPEN: "not_permitted",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
}


def open_database(path: str) -> sqlite3.Connection:
    """Open the database, make it where there is none, and bring it up to date. Raises StorageError."""
    with errors_at(path):
        try:
            size = os.stat(path).st_size
        except FileNotFoundError:
            _refuse_remains(path)
            _make(path)
        except OSError as error:
            raise StorageError.from_os(error, path) from None
        else:
            if size == 0:
                raise damaged(path, "it is empty")
        connection = _connect(path)
        try:
            _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def errors_at(path: str) -> Iterator[None]:
    """Errors of SQLite become StorageError with a cause."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # used after it was closed: ours
    except sqlite3.DatabaseError as error:
        # Not every error of the module comes from SQLite and has a code; its lowest byte is the kind.
        code = getattr(error, "sqlite_errorcode", None)
        cause = "io_error" if code is None else _CAUSES.get(code & 0xFF, "io_error")
        if cause == "corrupt":
            raise damaged(path, str(error)) from None
        raise StorageError(f"{path}: the state database: {error}", path=path, cause=cause) from None


def damaged(path: str, how: str) -> StorageError:
    """Says what to do, because nothing can be done without the operator."""
    return StorageError(
        f"{path}: the state database is damaged ({how}). Put a copy of it in its place, or move {path}, "
        f"{path}-wal and {path}-shm aside and start without torrents: their data stays, and is found again "
        "when they are added with the same directory",
        path=path,
        cause="corrupt",
    )


def _connect(path: str, *, is_new: bool = False) -> sqlite3.Connection:
    # One thread at a time uses it, but not always the same one.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        if is_new:
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        elif connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
            # Before anything changes: somebody else may need it as it is.
            raise damaged(path, "it is not one of microtorrd's")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _make(path: str) -> None:
    fresh = f"{path}.new"
    try:
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StorageError.from_os(error, path) from None
    try:
        # What a crash left of an earlier try.
        for leftover in (fresh, f"{fresh}-wal", f"{fresh}-shm"):
            if os.path.lexists(leftover):
                os.unlink(leftover)
        connection = _connect(fresh, is_new=True)
        try:
            _migrate(connection, fresh)
        finally:
            connection.close()  # moves the journal into the file and syncs it
        os.chmod(fresh, 0o600)
        os.rename(fresh, path)
        os.fsync(folder)
    except OSError as error:
        raise StorageError.from_os(error, path) from None
    finally:
        os.close(folder)


def _refuse_remains(path: str) -> None:
    # SQLite would take the journal of a lost database for that of the new one.
    for remains in (f"{path}-wal", f"{path}-journal"):
        if os.path.exists(remains) and os.path.getsize(remains):
            raise damaged(path, f"it is missing, but {remains} is there")


def _migrate(connection: sqlite3.Connection, path: str) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StorageError(
            f"{path}: the state database was written by a newer microtorrd (its version is {version}, ours "
            f"{len(MIGRATIONS)}); run that one again",
            path=path,
            cause="changed",
        )
    for number in range(version, len(MIGRATIONS)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in MIGRATIONS[number].split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number + 1}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
