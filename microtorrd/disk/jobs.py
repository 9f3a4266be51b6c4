"""What disk threads do for a torrent: store a piece, check pieces, hash the whole, sync, delete.

Each job is a function of files, bytes and numbers. It waits as long as the disk takes, returns a value or
raises StorageError, and knows no gevent. Memory in use is bounded, whatever the size of pieces and files.

Order of a crash-safe commit: `sync` first, and only then is the bitfield that was true before it began
recorded as durable, with the figures that `sync` returned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from msgspec import Struct

from microtorrd.disk.files import FileSet, FileStat
from microtorrd.errors import StorageError
from microtorrd.proto.geometry import BLOCK_BYTES, Geometry

HASH_BYTES = 20

#: Read and hashed at once: large, because each call into the hash waits for the interpreter once.
READ_BYTES = 1 << 20

#: What one job of a check covers: some hundredths of a second of work. So urgent work and a stop do not wait
#: long, several threads end at the same time, and the way to the hub and back is still nothing beside it.
CHUNK_BYTES = 16 << 20

#: A job of a check covers no more pieces than this, where pieces are tiny.
CHUNK_PIECES = 4096


class Stored(Struct, frozen=True):
    """The piece matched and was written; `digests` of its blocks where they were wanted."""

    digests: tuple[bytes, ...] = ()


class Corrupt(Struct, frozen=True):
    """The piece did not match; nothing was written."""

    digests: tuple[bytes, ...]


class Checked(NamedTuple):
    """What a check found of its pieces; pieces in neither were not looked at: it was cancelled."""

    good: list[int]
    bad: list[int]


def never() -> bool:
    """For `cancelled`: go on to the end."""
    return False


def store(
    files: FileSet, offset: int, view: memoryview, expected: bytes, want_digests: bool
) -> Stored | Corrupt:
    """Hash the piece with one call, compare with the expected SHA-1, and write it at `offset`."""
    if hashlib.sha1(view).digest() != expected:
        return Corrupt(block_digests(view))
    files.write(offset, view)
    return Stored(block_digests(view) if want_digests else ())


def block_digests(view: memoryview) -> tuple[bytes, ...]:
    """The SHA-1 of each block of a piece, by which the sender of a bad one is found."""
    return tuple(
        hashlib.sha1(view[begin : begin + BLOCK_BYTES]).digest() for begin in range(0, len(view), BLOCK_BYTES)
    )


def chunks(geometry: Geometry, pieces: Sequence[int]) -> Iterator[Sequence[int]]:
    """Cut the pieces of a check into parts for one job each."""
    step = max(1, min(CHUNK_PIECES, CHUNK_BYTES // geometry.piece_length))
    for at in range(0, len(pieces), step):
        yield pieces[at : at + step]


def check(
    files: FileSet,
    geometry: Geometry,
    hashes: bytes,
    pieces: Sequence[int],
    *,
    cancelled: Callable[[], bool] = never,
) -> Checked:
    """Read these pieces (ascending) and compare them with `hashes`, 20 bytes for each piece of the content.

    What is missing or ends too early is bad, without being read; holes are zeros, without being read. A file
    that is too long raises StorageError `changed`, a root that is gone `missing_root`.
    """
    whole, bad = _present(files, geometry, pieces)
    good: list[int] = []
    buffer = memoryview(bytearray(min(READ_BYTES, max(1, geometry.length))))
    for run in _runs(whole):
        run_end = _end(geometry, run[-1])
        data = 0  # where the next data may lie; before it are holes
        for batch in _batches(geometry, run):
            if cancelled():
                return Checked(good, bad)
            offset, end = geometry.piece_offset(batch[0]), _end(geometry, batch[-1])
            if data < end:
                data = files.next_data(max(data, offset), run_end)
            if data >= end:
                digests = [_digest_of_zeros(geometry.piece_size(piece)) for piece in batch]
            elif len(batch) == 1:
                digests = [_digest(files, offset, end, buffer)]
            else:
                view = buffer[: end - offset]
                files.read_into(offset, view)
                step = geometry.piece_length
                digests = [hashlib.sha1(view[at : at + step]).digest() for at in range(0, len(view), step)]
            for piece, digest in zip(batch, digests, strict=True):
                expected = hashes[piece * HASH_BYTES : (piece + 1) * HASH_BYTES]
                (good if digest == expected else bad).append(piece)
    return Checked(good, bad)


def hash_on(
    files: FileSet,
    digest: hashlib._Hash,
    begin: int,
    end: int,
    *,
    cancelled: Callable[[], bool] = never,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Take the bytes of the content from `begin` to `end` into `digest`, or some of them where it is
    cancelled. `on_progress` is called in this thread with the place in the content."""
    buffer = memoryview(bytearray(min(READ_BYTES, max(1, end - begin))))
    for offset in range(begin, end, READ_BYTES):
        if cancelled():
            return
        view = buffer[: min(READ_BYTES, end - offset)]
        files.read_into(offset, view)
        digest.update(view)
        if on_progress is not None:
            on_progress(offset + len(view))


def sync(files: FileSet, everything: bool = False) -> list[FileStat | None]:
    """Make durable what was written; the figures to record with the bitfield. See `FileSet.sync`."""
    return files.sync(everything)


def delete(files: FileSet) -> None:
    """Remove the torrent's own files and its directories that are empty then."""
    files.delete()


def _present(files: FileSet, geometry: Geometry, pieces: Sequence[int]) -> tuple[list[int], list[int]]:
    """Those pieces that the files have all bytes of, and those that they have not."""
    if not pieces:
        return [], []
    first = files.spans(geometry.piece_offset(pieces[0]), 1)[0].number
    last = files.spans(_end(geometry, pieces[-1]) - 1, 1)[0].number
    sizes: dict[int, int] = {}
    for number, found in enumerate(files.stat(first, last + 1), start=first):
        size = -1 if found is None else found[0]
        if size > files.lengths[number]:
            path = files.path_of(number)
            message = f"{path}: has {size} bytes, more than the {files.lengths[number]} of the torrent"
            raise StorageError(message, path=path, cause="changed")
        sizes[number] = size
    whole: list[int] = []
    lacking: list[int] = []
    for piece in pieces:
        spans = files.spans(geometry.piece_offset(piece), geometry.piece_size(piece))
        there = all(sizes[number] >= begin + length for number, begin, length in spans)
        (whole if there else lacking).append(piece)
    return whole, lacking


def _runs(pieces: Sequence[int]) -> Iterator[list[int]]:
    """Pieces that follow each other directly."""
    for _, run in groupby(enumerate(pieces), key=lambda pair: pair[1] - pair[0]):
        yield [piece for _, piece in run]


def _batches(geometry: Geometry, run: Sequence[int]) -> Iterator[Sequence[int]]:
    """What is read at once: a piece, or several small ones."""
    step = max(1, READ_BYTES // geometry.piece_length)
    for at in range(0, len(run), step):
        yield run[at : at + step]


def _end(geometry: Geometry, piece: int) -> int:
    return geometry.piece_offset(piece) + geometry.piece_size(piece)


@lru_cache(maxsize=16)
def _digest_of_zeros(size: int) -> bytes:
    digest = hashlib.sha1()
    zeros = bytes(min(size, READ_BYTES))
    for begin in range(0, size, READ_BYTES):
        digest.update(zeros[: size - begin])
    return digest.digest()


def _digest(files: FileSet, offset: int, end: int, buffer: memoryview) -> bytes:
    digest = hashlib.sha1()
    while offset < end:
        view = buffer[: end - offset]
        files.read_into(offset, view)
        offset += len(view)
        digest.update(view)
    return digest.digest()
