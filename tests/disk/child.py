"""A process to be killed: it downloads or moves the sample torrent and says on stdout how far it is.

`python -m tests.disk.child store ROOT DATABASE SEED` or `python -m tests.disk.child move SOURCE TARGET WAY`.
"""

from __future__ import annotations

import random
import sys

from microtorrd.disk import jobs, move, trust
from microtorrd.disk.files import FileSet
from microtorrd.disk.records import TorrentRecord
from microtorrd.disk.state import StateStore
from microtorrd.errors import NotFound
from microtorrd.proto.bitfield import Bitfield
from tests.disk.sample import Sample

#: Many small pieces over files that share them.
LARGE = tuple((("show", f"{number:02}"), 30_000 + 7_001 * number) for number in range(20))
INFO_HASH = b"i" * 20


def sample() -> Sample:
    return Sample(LARGE, piece_length=4_096, seed=7)


def believed(store: StateStore, files: FileSet, content: Sample) -> trust.Trust:
    """What a start of the daemon would trust."""
    record = store.load(INFO_HASH)
    return trust.decide(record, content.geometry, content.lengths, files.stat(), boot_id=store.boot_id)


def store_pieces(root: str, database: str, seed: str) -> None:
    """Store missing pieces in any order. A line is said after each commit of the journal: pieces so far."""
    chance, content = random.Random(seed), sample()
    files, store = content.at(root), StateStore(database)
    files.create("sparse")
    try:
        have = believed(store, files, content).have
    except NotFound:
        have = Bitfield(content.geometry.piece_count)
        store.add(TorrentRecord(INFO_HASH, "show", len(content.content), 4_096, root, 1.0))
    store.mark_dirty([INFO_HASH])
    first_sync = True
    missing = list(have.missing())
    chance.shuffle(missing)
    for piece in missing:
        view = memoryview(content.piece(piece))
        jobs.store(files, content.geometry.piece_offset(piece), view, content.hash_of(piece), False)
        have.set(piece)
        if chance.random() < 0.05:
            before = have.to_bytes()
            stats = jobs.sync(files, everything=first_sync)
            first_sync = False
            store.record_durable(INFO_HASH, before, stats)
        if chance.random() < 0.5:
            store.record_written([(INFO_HASH, have.to_bytes())])
            print(have.count, flush=True)
    stats = jobs.sync(files, everything=first_sync)
    store.record_durable(INFO_HASH, have.to_bytes(), stats, clean=True)
    print("done", flush=True)


def move_files(source: str, target: str, way: move.Way) -> None:
    """Move, one line a step."""
    content = sample()
    moved = move.relocate(
        content.at(source),
        target,
        tag="tag",
        geometry=content.geometry,
        hashes=content.hashes,
        have=content.all_pieces,
        ways=[way],
        on_progress=lambda done, total: print(done, total, flush=True),
    )
    assert moved is not None
    print("moved", flush=True)
    jobs.delete(content.at(source))
    print("done", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "store":
        store_pieces(*sys.argv[2:])
    else:
        move_files(*sys.argv[2:])
