"""Levers of the disk threads and of piece memory, and of what is written down of it."""

from __future__ import annotations

import hashlib
from typing import Any

from bench.levers.swaps import Lever, Swap, around

BLOCK_BYTES = 16 << 10


def hashed_by_block(files: Any, offset: int, view: memoryview, expected: bytes, want_digests: bool) -> Any:
    """The piece is hashed in as many calls as it has blocks, as if each were hashed when it comes."""
    from microtorrd.disk import jobs

    digest = hashlib.sha1()
    for at in range(0, len(view), BLOCK_BYTES):
        digest.update(view[at : at + BLOCK_BYTES])
    if digest.digest() != expected:
        return jobs.Corrupt(jobs.block_digests(view))
    files.write(offset, view)
    return jobs.Stored(jobs.block_digests(view) if want_digests else ())


def on_the_hub(self: Any, work: Any, done: Any, *, lane: Any = "urgent", place: Any = None) -> None:
    """The hub does it itself, and everybody waits."""
    try:
        outcome = work()
    except Exception as error:
        outcome = error
    self._hub.loop.run_callback(done, outcome)


def never_at_once(self: Any, offset: int, view: memoryview) -> bool:
    """A thread reads, also what lies in memory."""
    return False


def block_by_block(original: Any, files: Any, offset: int, view: memoryview) -> bool:
    """Each block is read by itself."""
    return all(
        original(files, offset + at, view[at : at + BLOCK_BYTES]) for at in range(0, len(view), BLOCK_BYTES)
    )


def nothing_open(self: Any, key: Any, *, writable: bool) -> None:
    """Every use opens the file anew."""


def one_thread_less(self: Any, now: float) -> int:
    """One of the threads stays free for what is urgent."""
    return max(1, self._threads - 1)


def not_behind(self: Any, begin: int, end: int) -> None:
    """The whole is hashed when the check is over."""


def each_by_itself(self: Any, members: Any, fields: Any) -> None:
    """Every torrent puts its own choice on record."""


def into_every_queue(self: Any, note: Any) -> None:
    """Each note wakes each reader, who looks whether he wants it."""
    self._notes.append(note)
    self._ready.set()


def looked_at_later(self: Any, timeout: float | None = None) -> Any:
    """The next one that is wanted, as far as there are any."""
    while True:
        if not self._notes and not self.closed:
            self._ready.clear()
            if not self._ready.wait(timeout) and timeout is not None:
                return None
        if not self._notes:
            return None
        note = self._notes.popleft()
        if self.wanted is None or self.wanted(note):
            return note


LEVERS = (
    Lever(
        "threads",
        "pieces are hashed and written in threads, and not on the hub",
        (Swap("microtorrd.disk.pool:DiskPool.submit", on_the_hub),),
        ("pair.rate", "pair.cpu"),
        besides="the hub never waits for a disk",
    ),
    Lever(
        "one-hash",
        "a piece is hashed with one call",
        (Swap("microtorrd.disk.jobs:store", hashed_by_block),),
        ("pair.rate", "pair.cpu"),
    ),
    Lever(
        "short-switches",
        "the interpreter changes threads after 0.5 ms, not 5",
        (Swap("microtorrd.daemon:SWITCH_INTERVAL_S", 0.005),),
        ("waking.late", "pair.rate"),
    ),
    Lever(
        "kept-memory",
        "memory of a piece that came back is lent to the next one",
        (Swap("microtorrd.disk.buffers:IDLE_BYTES", 0),),
        ("pair.rate", "pair.cpu"),
    ),
    Lever(
        "warm-reads",
        "what lies in memory is read by the hub, without a thread",
        (Swap("microtorrd.disk.files:FileSet.read_nowait", never_at_once),),
        ("crowd.alone", "crowd.cpu"),
    ),
    Lever(
        "joined-reads",
        "neighbours are read with one call",
        (Swap("microtorrd.disk.files:FileSet.read_nowait", make=around(block_by_block)),),
        ("crowd.alone", "crowd.cpu"),
    ),
    Lever(
        "kept-descriptors",
        "files stay open from one use to the next",
        (Swap("microtorrd.disk.descriptors:DescriptorCache.lease", nothing_open),),
        ("small-pieces.cpu",),
    ),
    Lever(
        "spare-thread",
        "a check has all the threads that were set while nothing is urgent",
        (Swap("microtorrd.disk.pool:DiskPool._bulk_room", one_thread_less),),
        ("check.time",),
    ),
    Lever(
        "small-jobs",
        "a job of a check has 16 MiB, not 256",
        (Swap("microtorrd.disk.jobs:CHUNK_BYTES", 256 << 20),),
        ("check.time",),
        besides="urgent work and a stop wait for less",
    ),
    Lever(
        "right-behind",
        "the whole content is hashed for its `id_hash` right behind the check of its pieces",
        (Swap("microtorrd.whole:WholeHash.was_read", not_behind),),
        ("confirm.time",),
    ),
    Lever(
        "journal",
        "progress is written down every 50 ms, not after each piece",
        (Swap("microtorrd.ledger:JOURNAL_S", 0.0),),
        ("small-pieces.cpu", "small-pieces.rate"),
        besides="a slow disk with the state database gets twenty commits a second at most",
    ),
    Lever(
        "wanted-notes",
        "a note that a reader does not want never comes into his queue",
        (
            Swap("microtorrd.notes:Subscription.put", into_every_queue),
            Swap("microtorrd.notes:Subscription.get", looked_at_later),
        ),
        ("small-pieces.cpu",),
        besides="in a full queue no wanted note is lost for one that is not",
    ),
    Lever(
        "one-commit",
        "what is wished of many torrents is put on record with one commit",
        (Swap("microtorrd.session:Session._put_on_record", each_by_itself),),
        ("pause.time",),
    ),
)
