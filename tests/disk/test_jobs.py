"""What disk threads do: a piece is stored or refused, pieces are checked, the whole is confirmed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtorrd.disk import jobs
from microtorrd.disk.files import DescriptorCache, FileSet
from microtorrd.disk.jobs import Checked, Corrupt, Stored
from microtorrd.errors import StorageError
from microtorrd.proto.geometry import Geometry
from tests.disk.sample import Sample


@pytest.fixture
def sample() -> Iterator[Sample]:
    sample = Sample()
    yield sample
    sample.descriptors.close()


# ----------------------------------------------------------------------------------------------------- store


def test_a_good_piece_is_written_and_a_bad_one_is_not(sample: Sample, tmp_path: Path) -> None:
    files = sample.at(tmp_path)
    files.create("sparse")
    offset = sample.geometry.piece_offset(2)
    good = memoryview(sample.piece(2))
    bad = memoryview(bytes([good[0] ^ 1]) + good[1:].tobytes())
    assert jobs.store(files, offset, bad, sample.hash_of(2), False) == Corrupt((sha1(bad).digest(),))
    got = memoryview(bytearray(len(good)))
    files.read_into(offset, got)
    assert got == bytes(len(good))
    assert jobs.store(files, offset, good, sample.hash_of(2), False) == Stored()
    files.read_into(offset, got)
    assert got == good


def test_digests_are_those_of_the_blocks(tmp_path: Path) -> None:
    sample = Sample([(("one",), 50_000)], piece_length=50_000)
    files = sample.at(tmp_path)
    files.create("none")
    stored = jobs.store(files, 0, memoryview(sample.content), sample.hashes, True)
    blocks = [sample.content[at : at + 16_384] for at in range(0, 50_000, 16_384)]
    assert stored == Stored(tuple(sha1(block).digest() for block in blocks))
    sample.descriptors.close()


# ----------------------------------------------------------------------------------------------------- check


def check(sample: Sample, files: FileSet, pieces: range | list[int] | None = None) -> Checked:
    found = jobs.check(files, sample.geometry, sample.hashes, sample.all_pieces if pieces is None else pieces)
    return Checked(sorted(found.good), sorted(found.bad))


def test_a_check_finds_exactly_the_pieces_that_were_changed(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path)
    assert check(sample, files) == (list(sample.all_pieces), [])
    files.write(40_000, memoryview(bytes([sample.content[40_000] ^ 1])))
    files.write(len(sample.content) - 1, memoryview(bytes([sample.content[-1] ^ 1])))
    wrong = [40_000 // 16_384, sample.all_pieces[-1]]
    right = [piece for piece in sample.all_pieces if piece not in wrong]
    assert check(sample, files) == (right, wrong)
    assert check(sample, files, [1, 2, 5]) == ([1, 5], [2])
    assert check(sample, files, []) == ([], [])


def test_missing_and_short_files_make_bad_pieces(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path)
    os.unlink(files.path_of(0))
    os.truncate(files.path_of(3), 50_000)
    touched = sample.geometry.pieces_within(0, 40_000), sample.geometry.pieces_within(90_001, 50_000)
    bad = sorted({piece for pieces in touched for piece in pieces})
    good = [piece for piece in sample.all_pieces if piece not in bad]
    assert check(sample, files) == (good, bad)
    files.delete()
    assert check(sample, files) == ([], list(sample.all_pieces))


def test_a_check_without_a_save_directory_says_so_and_blames_no_piece(sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as error:
        check(sample, sample.at(tmp_path / "gone"))
    assert error.value.cause == "missing_root"


def test_a_check_does_not_overlook_bytes_after_the_end(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path)
    with open(files.path_of(4), "ab") as file:
        file.write(b"x")
    with pytest.raises(StorageError, match="16385 bytes, more than the 16384") as error:
        check(sample, files)
    assert (error.value.cause, error.value.path) == ("changed", files.path_of(4))


@settings(deadline=None)  # the disk may take its time
@given(
    piece_length=st.integers(1, 50),
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=6),
    data=st.data(),
)
def test_a_check_agrees_with_the_definition(
    tmp_path_factory: pytest.TempPathFactory, piece_length: int, lengths: list[int], data: st.DataObject
) -> None:
    sample = Sample([(("t", f"{n}"), size) for n, size in enumerate(lengths)], piece_length)
    try:
        files = sample.whole_at(tmp_path_factory.mktemp("check"))
        for at in data.draw(st.lists(st.integers(0, max(0, len(sample.content) - 1)), max_size=3)):
            if sample.content:
                files.write(at, memoryview(bytes([sample.content[at] ^ 1])))
        lost = data.draw(st.sets(st.integers(0, len(lengths) - 1), max_size=2))
        for number in lost:
            os.truncate(files.path_of(number), lengths[number] // 2)
        on_disk = b"".join(
            Path(files.path_of(n)).read_bytes().ljust(size, b"?") for n, size in enumerate(lengths)
        )
        gone = {
            at
            for number in lost
            for at in range(
                files.starts[number] + lengths[number] // 2, files.starts[number] + lengths[number]
            )
        }
        good = []
        for piece in sample.all_pieces:
            begin = sample.geometry.piece_offset(piece)
            span = range(begin, begin + sample.geometry.piece_size(piece))
            if not gone & set(span) and sha1(on_disk[span.start : span.stop]).digest() == sample.hash_of(
                piece
            ):
                good.append(piece)
        pieces = sorted(data.draw(st.sets(st.sampled_from(sample.all_pieces)))) if sample.all_pieces else []
        wanted = Checked([p for p in pieces if p in good], [p for p in pieces if p not in good])
        assert check(sample, files, pieces) == wanted
    finally:
        sample.descriptors.close()


def test_a_hole_is_good_only_where_zeros_are_wanted(tmp_path: Path) -> None:
    piece_length = 1 << 20
    zeros, ones = bytes(piece_length), b"\1" * piece_length
    content = zeros + ones + zeros + zeros[:5]
    geometry = Geometry(len(content), piece_length)
    hashes = b"".join(
        sha1(content[at : at + piece_length]).digest() for at in range(0, len(content), piece_length)
    )
    descriptors = DescriptorCache(4)
    files = FileSet(str(tmp_path), [(("holes",), len(content))], descriptors=descriptors)
    files.create("sparse")
    assert jobs.check(files, geometry, hashes, range(4)) == ([0, 2, 3], [1])
    files.write(piece_length, memoryview(ones))
    assert jobs.check(files, geometry, hashes, range(4)) == ([0, 1, 2, 3], [])
    files.write(0, memoryview(b"x"))
    assert jobs.check(files, geometry, hashes, range(4)) == ([1, 2, 3], [0])
    descriptors.close()


def test_a_hundred_empty_gigabytes_are_checked_at_once(tmp_path: Path) -> None:
    geometry = Geometry(100 << 30, 16 << 20)
    descriptors = DescriptorCache(4)
    files = FileSet(str(tmp_path), [(("huge",), geometry.length)], descriptors=descriptors)
    files.create("sparse")
    begin = time.monotonic()
    bad = []
    for chunk in jobs.chunks(geometry, range(geometry.piece_count)):
        bad += jobs.check(files, geometry, bytes(20 * geometry.piece_count), chunk).bad
    assert bad == list(range(6400))
    assert time.monotonic() - begin < 5.0  # reading it would take a minute and more
    descriptors.close()


def test_chunks_are_of_bounded_work() -> None:
    def sizes(piece_length: int, count: int) -> list[int]:
        pieces = range(count)
        parts = list(jobs.chunks(Geometry(piece_length * count, piece_length), pieces))
        assert [piece for part in parts for piece in part] == list(pieces)
        return [len(part) for part in parts]

    assert sizes(1 << 20, 34) == [16, 16, 2]
    assert sizes(128 << 20, 3) == [1, 1, 1]
    assert max(sizes(16, 10_000)) == 4096
    assert sizes(16, 0) == []


def test_a_check_that_is_cancelled_tells_what_it_saw(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path)
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked == 2

    pieces = [0, 2, 4]  # not neighbours: read one by one
    found = jobs.check(files, sample.geometry, sample.hashes, pieces, cancelled=cancelled)
    assert found == ([0], [])


# ------------------------------------------------------------------------------------- the whole and the rest


def test_the_whole_content_is_hashed_in_parts(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path)
    digest, steps = sha1(), list[int]()
    for begin, end in ((0, 1), (1, 70_000), (70_000, files.length)):
        jobs.hash_on(files, digest, begin, end, on_progress=steps.append)
    assert digest.digest() == sha1(sample.content).digest()
    assert steps == [1, 70_000, len(sample.content)]
    jobs.hash_on(files, digest, 0, files.length, cancelled=lambda: True)
    assert digest.digest() == sha1(sample.content).digest()
    os.unlink(files.path_of(2))
    files.close()
    with pytest.raises(StorageError) as error:
        jobs.hash_on(files, digest, 0, files.length)
    assert (error.value.cause, error.value.path) == ("not_found", files.path_of(2))


def test_content_of_no_bytes_is_good(tmp_path: Path) -> None:
    sample = Sample([(("t", "empty"), 0)])
    files = sample.whole_at(tmp_path)
    assert check(sample, files) == ([], [])


def test_sync_gives_the_figures_to_record_and_delete_removes(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path)
    assert jobs.sync(files) == files.stat()
    jobs.delete(files)
    assert list(tmp_path.iterdir()) == []
