"""The SHA-1 of a whole content: the same whatever the order in which a check reads its parts."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path

import pytest
from gevent.event import AsyncResult

from microtorrd.disk.pool import DiskPool
from microtorrd.errors import StorageError
from microtorrd.whole import WholeHash
from tests.disk.sample import Sample

PART_BYTES = 7_001


@pytest.fixture
def pool() -> Iterator[DiskPool]:
    pool = DiskPool(3)
    yield pool
    pool.close(10.0)


def parts(length: int) -> list[tuple[int, int]]:
    return [(begin, min(length, begin + PART_BYTES)) for begin in range(0, length, PART_BYTES)]


def outcome_of(whole: WholeHash) -> bytes | BaseException:
    result: AsyncResult[bytes | BaseException] = AsyncResult()
    whole.finish(result.set)
    outcome: bytes | BaseException = result.get(timeout=10)
    return outcome


@pytest.mark.parametrize("order", ["in order", "backwards", "at random", "half of it", "nothing before"])
def test_any_order_gives_the_same(order: str, pool: DiskPool, tmp_path: Path) -> None:
    sample = Sample()
    files = sample.whole_at(tmp_path)
    steps: list[int] = []
    whole = WholeHash(files, pool, cancelled=lambda: False, on_progress=steps.append)
    read = parts(files.length)
    if order == "backwards":
        read.reverse()
    elif order == "at random":
        random.Random(5).shuffle(read)
    elif order == "half of it":
        read = read[: len(read) // 2] + read[len(read) // 2 + 1 :]
    elif order == "nothing before":
        read = []
    for begin, end in read:
        whole.was_read(begin, end)
    assert outcome_of(whole) == sha1(sample.content).digest()
    assert steps == sorted(set(steps)) and steps[-1] == files.length  # each byte was read once
    files.close()


def test_content_of_no_bytes_has_one_too(pool: DiskPool, tmp_path: Path) -> None:
    files = Sample([(("t", "empty"), 0)]).whole_at(tmp_path)
    assert outcome_of(WholeHash(files, pool, cancelled=lambda: False)) == sha1(b"").digest()


def test_a_disk_that_fails_is_told_at_the_end_and_tried_again(pool: DiskPool, tmp_path: Path) -> None:
    sample = Sample()
    files = sample.whole_at(tmp_path)
    lost, aside = files.path_of(3), tmp_path / "aside"
    os.rename(lost, aside)
    files.close()
    whole = WholeHash(files, pool, cancelled=lambda: False)
    for begin, end in parts(files.length):
        whole.was_read(begin, end)
    failure = outcome_of(whole)
    assert isinstance(failure, StorageError)
    assert (failure.cause, failure.path) == ("not_found", lost)
    os.rename(aside, lost)
    assert outcome_of(whole) == sha1(sample.content).digest()
    files.close()


def test_nothing_comes_of_it_after_a_cancellation(pool: DiskPool, tmp_path: Path) -> None:
    files = Sample().whole_at(tmp_path)
    is_cancelled = False
    whole = WholeHash(files, pool, cancelled=lambda: is_cancelled)
    result: AsyncResult[bytes | BaseException] = AsyncResult()
    whole.was_read(0, 10)
    is_cancelled = True
    whole.finish(result.set)
    pool.call(lambda: None, lane="bulk")  # whatever was under way is over
    assert not result.ready()
    files.close()
