"""Files that nobody wants, padding and attributes: what of them is on a real filesystem, and where."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microtorrd.disk import jobs, move
from microtorrd.disk.files import FileSet
from microtorrd.errors import NotAllowed, StorageError
from microtorrd.proto.selection import HIGH, KEPT, LEAVING, LOW, NORMAL, OFF
from tests.disk.sample import Sample

TAG = "ab" * 20
HIDDEN = f".{TAG}.parts"


@pytest.fixture
def sample() -> Iterator[Sample]:
    sample = Sample()
    yield sample
    sample.descriptors.close()


def tree(root: Path) -> dict[str, int]:
    """Every file below, with its size."""
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}


def marks(picture: str) -> bytes:
    """A letter for each file: off, low, normal, high, kept, leaving."""
    return bytes({"o": OFF, "l": LOW, "n": NORMAL, "h": HIGH, "k": KEPT, "L": LEAVING}[c] for c in picture)


def store_all(sample: Sample, files: FileSet) -> None:
    for piece in sample.all_pieces:
        view = memoryview(sample.piece(piece))
        jobs.store(files, sample.geometry.piece_offset(piece), view, sample.hash_of(piece), False)


def good(sample: Sample, files: FileSet) -> list[int]:
    return jobs.check(files, sample.geometry, sample.hashes, sample.all_pieces).good


def test_what_is_aside_is_made_in_the_hidden_directory_and_only_when_written_to(
    sample: Sample, tmp_path: Path
) -> None:
    files = sample.at(tmp_path, aside={0, 2, 3}, tag=TAG)
    files.create("sparse")
    assert tree(tmp_path) == {"show/empty": 0, "show/deep/er/c.bin": 16_384, "show/last": 0}
    last = sample.geometry.piece_count - 1
    for piece in (0, last):
        view = memoryview(sample.piece(piece))
        jobs.store(files, sample.geometry.piece_offset(piece), view, sample.hash_of(piece), False)
    assert set(tree(tmp_path)) == {f"{HIDDEN}/0", "show/empty", "show/deep/er/c.bin", "show/last"}
    assert good(sample, files) == [0, last]
    files.sync()
    assert [stat and stat[0] for stat in files.stat()] == [16_384, 0, None, None, 16_384, 0]
    files.delete()
    assert os.listdir(tmp_path) == []


def test_a_file_comes_into_the_tree_and_leaves_it_with_its_bytes_size_and_time(
    sample: Sample, tmp_path: Path
) -> None:
    files = sample.at(tmp_path, aside={3}, tag=TAG)
    files.create("sparse")
    store_all(sample, files)
    before = files.stat()
    assert files.arrange(marks("nnnnnn")) == (marks("nnnnnn"), ())
    assert files.aside == frozenset()
    assert HIDDEN not in os.listdir(tmp_path)
    assert (tmp_path / "show/deep/b.bin").read_bytes() == sample.content[40_001:140_001]
    assert files.arrange(marks("nnLLLn")) == (marks("nnooon"), ())
    assert set(tree(tmp_path)) == {"show/a.bin", "show/empty", "show/last"} | {
        f"{HIDDEN}/{number}" for number in (2, 3, 4)
    }
    assert not (tmp_path / "show/deep").exists()  # nothing was left in it
    assert files.stat() == before
    assert good(sample, files) == list(sample.all_pieces)


def test_arranging_again_changes_nothing_and_ends_what_a_crash_interrupted(
    sample: Sample, tmp_path: Path
) -> None:
    files = sample.whole_at(tmp_path, tag=TAG)
    files.arrange(marks("Lnnnnn"))
    after_crash = sample.at(tmp_path, tag=TAG)
    # The rename was done, the record still has the wish.
    assert after_crash.arrange(marks("Lnnnnn")) == (marks("onnnnn"), ())
    assert after_crash.arrange(marks("onnnnn")) == (marks("onnnnn"), ())
    assert good(sample, after_crash) == list(sample.all_pieces)
    # The wish to have it back is on record, the rename was not done.
    once_more = sample.at(tmp_path, tag=TAG, aside={0})
    assert once_more.arrange(marks("nnnnnn")) == (marks("nnnnnn"), ())
    assert good(sample, once_more) == list(sample.all_pieces)


def test_a_file_of_somebody_in_the_tree_is_not_touched_while_it_is_off(
    sample: Sample, tmp_path: Path
) -> None:
    mine = tmp_path / "show" / "a.bin"
    mine.parent.mkdir()
    mine.write_bytes(b"my own words")
    files = sample.at(tmp_path, aside={0}, tag=TAG)
    files.create("full")
    store_all(sample, files)
    files.arrange(marks("onnnnn"))
    assert mine.read_bytes() == b"my own words"
    # Wanted now: what is there is taken for the file, and has to be checked.
    assert files.arrange(marks("nnnnnn")) == (marks("nnnnnn"), (0,))
    assert mine.read_bytes() == b"my own words"
    assert 0 not in good(sample, files)
    assert not (tmp_path / HIDDEN).exists()


def test_what_is_no_file_in_the_place_of_one_is_an_error_and_nothing_is_lost(
    sample: Sample, tmp_path: Path
) -> None:
    files = sample.at(tmp_path, aside={0}, tag=TAG)
    files.create("sparse")
    store_all(sample, files)
    (tmp_path / "show" / "a.bin").mkdir()
    with pytest.raises(StorageError) as caught:
        files.arrange(marks("nnnnnn"))
    assert caught.value.cause == "changed"
    assert good(sample, files) == list(sample.all_pieces)


def test_a_kept_file_stays_until_somebody_takes_it_away(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path, tag=TAG)
    assert files.arrange(marks("knnnnn")) == (marks("knnnnn"), ())
    assert (tmp_path / "show/a.bin").exists()
    files.read_into(0, memoryview(bytearray(5)))
    (tmp_path / "show/a.bin").unlink()
    assert files.arrange(marks("knnnnn")) == (marks("onnnnn"), ())
    assert 0 not in good(sample, files)


def test_what_is_aside_moves_along(sample: Sample, tmp_path: Path) -> None:
    source, target = tmp_path / "one", tmp_path / "two"
    source.mkdir()
    for way in move.WAYS:
        files = sample.at(source, aside={3, 4}, tag=TAG)
        files.create("sparse")
        store_all(sample, files)
        try:
            moved = move.relocate(
                files,
                str(target),
                tag=TAG,
                geometry=sample.geometry,
                hashes=sample.hashes,
                have=sample.all_pieces,
                ways=(way,),
            )
        except NotAllowed:
            assert way == "rename"  # two renames would leave a crash between them
            continue
        assert moved is not None and moved.way == way
        files.delete()
        assert os.listdir(source) == []
        assert good(sample, moved.files) == list(sample.all_pieces)
        assert sorted(os.listdir(target)) == [HIDDEN, "show"]
        moved.files.delete()
        assert os.listdir(target) == []


def test_a_crash_between_the_two_names_of_a_move_leaves_the_source(sample: Sample, tmp_path: Path) -> None:
    source, target = tmp_path / "one", tmp_path / "two"
    files = sample.at(source, aside={0}, tag=TAG)
    files.create("sparse")
    store_all(sample, files)
    (target / HIDDEN).mkdir(parents=True)
    os.link(source / HIDDEN / "0", target / HIDDEN / "0")
    assert move.recover(files, str(target), tag=TAG) is None
    assert os.listdir(target) == []
    assert good(sample, files) == list(sample.all_pieces)


def test_padding_is_zeros_and_nothing_on_disk(tmp_path: Path) -> None:
    sample = padded(
        [(("show", "a"), 20_000), (("show", ".pad", "1"), 12_768), (("show", "b"), 5)], {1}, 16_384
    )
    files = sample.at(tmp_path, virtual={1}, tag=TAG)
    files.create("full")
    store_all(sample, files)
    assert tree(tmp_path) == {"show/a": 20_000, "show/b": 5}
    assert good(sample, files) == list(sample.all_pieces)
    whole = bytearray(len(sample.content))
    files.read_into(0, memoryview(whole))
    assert bytes(whole) == sample.content
    assert files.stat()[1] == (12_768, 0)
    files.sync(everything=True)
    files.delete()
    assert os.listdir(tmp_path) == []
    sample.descriptors.close()


def test_executable_files_are_made_so(sample: Sample, tmp_path: Path) -> None:
    files = sample.at(tmp_path, executable={0, 3}, aside={3}, tag=TAG)
    files.create("sparse")
    store_all(sample, files)
    files.arrange(marks("nnnnnn"))
    modes = {name: (tmp_path / "show" / name).stat().st_mode & 0o111 for name in ("a.bin", "deep/b.bin")}
    assert all(modes.values())
    assert not (tmp_path / "show/deep/one").stat().st_mode & 0o111


LAYOUT = st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=7)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(LAYOUT, st.integers(1, 40), st.data())
def test_any_order_of_wishes_loses_no_byte(
    tmp_path_factory: pytest.TempPathFactory,
    layout: list[tuple[int, bool]],
    piece_length: int,
    data: st.DataObject,
) -> None:
    names = [(("t", f"d{number % 2}", str(number)), length) for number, (length, _) in enumerate(layout)]
    pads = {number for number, (_, is_pad) in enumerate(layout) if is_pad}
    sample = padded(names, pads, piece_length)
    try:
        live_through_wishes(sample, pads, tmp_path_factory.mktemp("any"), data)
    finally:
        sample.descriptors.close()


def padded(names: list[tuple[tuple[str, ...], int]], pads: set[int], piece_length: int) -> Sample:
    """A sample whose padding is zeros."""
    sample = Sample(names, piece_length)
    content, at = bytearray(sample.content), 0
    for number, (_, length) in enumerate(names):
        if number in pads:
            content[at : at + length] = bytes(length)
        at += length
    sample.content = bytes(content)
    sample.hashes = b"".join(sha1(sample.piece(number)).digest() for number in sample.all_pieces)
    return sample


def live_through_wishes(sample: Sample, pads: set[int], root: Path, data: st.DataObject) -> None:
    """Store some pieces, change the wishes, look, and again."""
    count = len(sample.files)
    one = st.sampled_from([OFF, LOW, NORMAL, HIGH])
    wishes = st.lists(one, min_size=count, max_size=count)
    now = bytes(data.draw(wishes))
    aside = {number for number, mark in enumerate(now) if mark == OFF} - pads
    files = sample.at(root, virtual=pads, aside=aside, tag=TAG)
    files.create(data.draw(st.sampled_from(["none", "sparse"])))
    here: set[int] = set()
    for _ in range(data.draw(st.integers(0, 6))):
        pieces = data.draw(st.sets(st.sampled_from(sample.all_pieces))) if sample.all_pieces else set()
        for piece in pieces:
            view = memoryview(sample.piece(piece))
            jobs.store(files, sample.geometry.piece_offset(piece), view, sample.hash_of(piece), False)
        here |= pieces
        wished = data.draw(wishes)
        leaves = [mark == OFF and before != OFF for mark, before in zip(wished, now, strict=True)]
        asked = bytes(LEAVING if gone else mark for mark, gone in zip(wished, leaves, strict=True))
        now, replaced = files.arrange(asked)
        assert not replaced
        files.create("none")
        assert here <= set(good(sample, files))
        in_tree = {name for name in tree(root) if not name.startswith(".")}
        wanted = [number for number in range(count) if now[number] != OFF and number not in pads]
        assert in_tree == {"/".join(sample.files[number][0]) for number in wanted}
    files.delete()
    assert os.listdir(root) == []
