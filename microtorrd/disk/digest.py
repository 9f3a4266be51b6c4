"""Hashes whole content at once for a new `.mtorrent`: the SHA-1 of each piece, and that of everything.

One reading of the data feeds both. The calling thread reads into a few buffers, which go round: one thread
hashes each of them into the SHA-1 of the whole content (sequential by nature), another hashes the pieces in
it, and a buffer that all are done with is read into again. Each hash call takes a large stretch with the
GIL released. So two cores are busy, and memory is `CHUNK_BYTES * CHUNKS` whatever the content.

Only the threads and queues of the standard library are used. In a process that gevent has patched these are
greenlets: the result is the same, but everything then happens on one core and holds up the hub. The daemon
does not hash here; `mtorrctl` does, which has no gevent.

Files that turn out other than they were listed (their size, or touched while they were read) end the work
with StorageError `changed`: the hash of a moving target would make a torrent that nobody can seed.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Sequence
from hashlib import sha1
from queue import SimpleQueue
from typing import NamedTuple, TypeAlias

from microtorrd.disk.listing import NOWHERE, Listing, aligned, scan
from microtorrd.errors import MicrotorrError, StorageError
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.metainfo_model import check_shape

__all__ = ["Cancelled", "Digests", "Listing", "aligned", "hash_content", "scan"]

#: Large enough that handing a chunk over costs nothing beside hashing it, and all of them together small
#: enough to stay in the cores' shared cache. Two cores with SHA-NI: 4 to 16 chunks of 1 to 4 MiB hash 1.2 to
#: 1.4 GB/s, smaller ones 0.7 to 1.2.
CHUNK_BYTES = 1 << 20
CHUNKS = 8

#: Non-blocking matters only to a fifo in the place of a file: opening it would wait for a writer.
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class Digests(NamedTuple):
    """What a metainfo file says of the content."""

    pieces: bytes  # 20 bytes for each piece
    id_hash: bytes | None  # of everything; None where it was not wanted


class Cancelled(MicrotorrError):
    """The caller wanted no more of it."""


def hash_content(
    files: Sequence[tuple[str, int]],
    piece_length: int,
    *,
    threads: int | None = None,
    on_progress: Callable[[int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    want_id_hash: bool = True,
) -> Digests:
    """Hash files, given as (path, length) in the order of the content; what lies `NOWHERE` is zeros.

    `threads` is how many hash pieces at the same time where the id hash is not wanted (default: one a core;
    the id hash is as much work as all pieces, so beside it one is enough). `on_progress` hears in the calling
    thread how many bytes are read so far, once a chunk; `cancelled` is asked as often.

    Raises StorageError naming the path, InvalidMetainfo for a piece length that makes too many pieces or too
    large ones, and Cancelled. What the callbacks raise ends the work, too.
    """
    length = sum(size for _, size in files)
    geometry = check_shape(length, piece_length, key="info.piece length")
    piece_threads = 1 if want_id_hash else threads or len(os.sched_getaffinity(0))
    with _Hashers(geometry, piece_threads, want_id_hash) as hashers, _Reader(files) as reader:
        done = 0
        while done < length:
            if cancelled is not None and cancelled():
                raise Cancelled("hashing was cancelled")
            chunk = hashers.next_chunk(done)
            reader.fill(chunk.view)
            hashers.hash(chunk)
            done += len(chunk.view)
            if on_progress is not None:
                on_progress(done)
        reader.finish()
        return hashers.finish()


class _Chunk:
    """A buffer that goes round. Nobody writes to it between `hash` and its return."""

    __slots__ = ("memory", "start", "users", "view")

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(CHUNK_BYTES))
        self.view = self.memory  # the part in use
        self.start = 0  # where that lies in the content
        self.users = 0  # hashers that have it still; counted in the calling thread only


_Inbox: TypeAlias = "SimpleQueue[_Chunk | None]"  # None: no more is to come


class _Hashers:
    """The threads that hash, and the chunks on their way to them and back."""

    def __init__(self, geometry: Geometry, piece_threads: int, want_id_hash: bool) -> None:
        self._geometry = geometry
        self._pieces = bytearray(20 * geometry.piece_count)  # each thread writes slices of its own
        self._id_hash = sha1() if want_id_hash else None
        self._free = [_Chunk() for _ in range(CHUNKS)]
        self._returned: _Inbox = SimpleQueue()  # None: a thread has ended
        self._ended_well: list[str] = []
        self._piece_inboxes: list[_Inbox] = [SimpleQueue() for _ in range(piece_threads)]
        self._whole_inbox: _Inbox = SimpleQueue()
        work = [(self._hash_pieces, inbox) for inbox in self._piece_inboxes]
        if want_id_hash:
            work.append((self._hash_whole, self._whole_inbox))
        # Daemon threads: an interrupt during the join must not make the process wait for them at its end.
        self._threads = [threading.Thread(target=self._run, args=job, daemon=True) for job in work]

    def __enter__(self) -> _Hashers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._join()

    def next_chunk(self, start: int) -> _Chunk:
        """A chunk to read the content from `start` into: whole pieces, or a part of one large piece. Waits
        until one is free."""
        while not self._free:
            chunk = self._returned.get()
            if chunk is None:
                raise RuntimeError("a hashing thread died")
            chunk.users -= 1
            if chunk.users == 0:
                self._free.append(chunk)
        chunk = self._free.pop()
        piece_length = self._geometry.piece_length
        if piece_length <= CHUNK_BYTES:
            size = CHUNK_BYTES - CHUNK_BYTES % piece_length
        else:
            size = min(CHUNK_BYTES, piece_length - start % piece_length)
        chunk.start, chunk.view = start, chunk.memory[: min(size, self._geometry.length - start)]
        return chunk

    def hash(self, chunk: _Chunk) -> None:
        """Hash what was read. Parts of one piece go to the same thread, one after the other."""
        turn = chunk.start // max(self._geometry.piece_length, CHUNK_BYTES // 2)
        chunk.users = 1
        self._piece_inboxes[turn % len(self._piece_inboxes)].put(chunk)
        if self._id_hash is not None:
            chunk.users += 1
            self._whole_inbox.put(chunk)

    def finish(self) -> Digests:
        """Wait for what is still being hashed."""
        self._join()
        if len(self._ended_well) != len(self._threads):
            raise RuntimeError("a hashing thread died")
        return Digests(bytes(self._pieces), None if self._id_hash is None else self._id_hash.digest())

    def _join(self) -> None:
        for inbox in (*self._piece_inboxes, self._whole_inbox):
            inbox.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self, work: Callable[[_Inbox], None], inbox: _Inbox) -> None:
        try:
            work(inbox)
            self._ended_well.append(work.__name__)
        finally:
            self._returned.put(None)

    def _hash_whole(self, inbox: _Inbox) -> None:
        assert self._id_hash is not None
        while (chunk := inbox.get()) is not None:
            self._id_hash.update(chunk.view)
            self._returned.put(chunk)

    def _hash_pieces(self, inbox: _Inbox) -> None:
        geometry, piece_length = self._geometry, self._geometry.piece_length
        hasher = sha1()
        while (chunk := inbox.get()) is not None:
            view, at = chunk.view, 0
            while at < len(view):
                piece, within = divmod(chunk.start + at, piece_length)
                if within == 0:
                    hasher = sha1()
                stretch = view[at : at + piece_length - within]
                hasher.update(stretch)
                at += len(stretch)
                if within + len(stretch) == geometry.piece_size(piece):
                    self._pieces[20 * piece : 20 * piece + 20] = hasher.digest()
            self._returned.put(chunk)


class _Reader:
    """Reads files one after the other as if they were one, and notices those that are not as listed."""

    def __init__(self, files: Sequence[tuple[str, int]]) -> None:
        self._waiting = iter(files)
        self._fd = -1
        self._path = ""
        self._left = 0  # bytes of the open file
        self._before = (0, 0)

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def fill(self, view: memoryview) -> None:
        """Read the next bytes of the content until the view is full. It is never more than is left."""
        while view:
            while self._left == 0:
                self._leave()
                self._enter(*next(self._waiting))
            if self._path == NOWHERE:
                count = min(self._left, len(view))
                view[:count] = bytes(count)
                view = view[count:]
                self._left -= count
                continue
            try:
                count = os.readv(self._fd, [view[: self._left]])
            except OSError as error:
                raise StorageError.from_os(error, self._path) from error
            if count == 0:
                raise self._changed("it became shorter while it was read")
            view = view[count:]
            self._left -= count

    def finish(self) -> None:
        """All is read: look at the last file once more, and at empty ones behind it."""
        self._leave()
        for path, length in self._waiting:
            self._enter(path, length)
            self._leave()

    def _enter(self, path: str, length: int) -> None:
        self._path, self._left = path, length
        if path == NOWHERE:
            return
        try:
            self._fd = os.open(path, _OPEN)
            found = os.fstat(self._fd)
            if not stat.S_ISREG(found.st_mode):
                raise self._changed("it is no regular file")
            if found.st_size != length:
                raise self._changed(f"it has {found.st_size} bytes, where {length} were expected")
            # Cold files are read with a larger window ahead.
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        except OSError as error:
            raise StorageError.from_os(error, path) from error
        self._before = (found.st_size, found.st_mtime_ns)

    def _leave(self) -> None:
        if self._fd < 0:
            return
        try:
            now = os.fstat(self._fd)
        except OSError as error:
            raise StorageError.from_os(error, self._path) from error
        if (now.st_size, now.st_mtime_ns) != self._before:
            raise self._changed("it was written to while it was read")
        os.close(self._fd)
        self._fd = -1

    def _changed(self, how: str) -> StorageError:
        return StorageError(f"{self._path}: {how}", path=self._path, cause="changed")
