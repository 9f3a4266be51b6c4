"""Moving content: three ways, nothing overwritten, and a crash anywhere leaves one whole copy."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microtorrd.disk import jobs, move, syscalls
from microtorrd.disk.files import FileSet, FreeSpaceFloor
from microtorrd.errors import NotAllowed, StorageError
from tests.disk import child
from tests.disk.sample import Sample
from tests.disk.test_files import largest_file, tree

TAG = "0123abcd"
HIDDEN = f".{TAG}.moving"


@pytest.fixture
def sample() -> Iterator[Sample]:
    sample = Sample()
    yield sample
    sample.descriptors.close()


def relocate(sample: Sample, files: FileSet, target: Path, **options: Any) -> move.Moved | None:
    have = options.pop("have", sample.all_pieces)
    return move.relocate(
        files,
        str(target),
        tag=TAG,
        geometry=sample.geometry,
        hashes=sample.hashes,
        have=have,
        **options,
    )


def is_whole(sample: Sample, files: FileSet) -> bool:
    return not jobs.check(files, sample.geometry, sample.hashes, sample.all_pieces).bad


# --------------------------------------------------------------------------------------------- the three ways


@pytest.mark.parametrize("way", move.WAYS)
def test_the_content_arrives_whole(sample: Sample, tmp_path: Path, way: move.Way) -> None:
    files = sample.whole_at(tmp_path / "old")
    os.chmod(files.path_of(0), 0o640)
    os.utime(files.path_of(0), ns=(5, 1_234_567_891))
    before, content = files.stat(), tree(tmp_path / "old")
    moved = relocate(sample, files, tmp_path / "new" / "deeper", ways=[way])
    assert moved is not None
    assert (moved.way, moved.stats) == (way, before)
    assert moved.files.root_device == os.stat(tmp_path).st_dev
    assert tree(tmp_path / "new/deeper") == content
    assert is_whole(sample, moved.files)
    assert os.stat(moved.files.path_of(0)).st_mode & 0o777 == 0o640
    assert tree(tmp_path / "old") == ({} if way == "rename" else content)
    jobs.delete(files)
    assert tree(tmp_path / "old") == {}
    assert tree(tmp_path / "new/deeper") == content


def test_within_a_filesystem_nothing_is_copied(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path / "old")
    number = os.stat(files.path_of(3)).st_ino
    moved = relocate(sample, files, tmp_path / "new")
    assert moved is not None
    assert moved.way == "link"
    assert os.stat(moved.files.path_of(3)).st_ino == number


def test_from_one_filesystem_to_another(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path / "old")
    target = Path(f"/dev/shm/microtorrd-move-{os.getpid()}")
    assert os.stat("/dev/shm").st_dev != os.stat(tmp_path).st_dev
    moved = relocate(sample, files, target)
    assert moved is not None
    try:
        assert moved.way == "copy"
        assert moved.files.root_device == os.stat("/dev/shm").st_dev
        assert is_whole(sample, moved.files)
        assert moved.stats == files.stat()
    finally:
        jobs.delete(moved.files)
        target.rmdir()


def test_where_links_are_not_possible_all_is_renamed_at_once(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    files = sample.whole_at(tmp_path / "old")
    moved = relocate(sample, files, tmp_path / "new")
    assert moved is not None
    assert moved.way == "rename"
    assert is_whole(sample, moved.files)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["show"]


def no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "no links here")


def test_foreign_files_stay_where_they_are(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    files = sample.whole_at(tmp_path / "old")
    (tmp_path / "old/show/deep/mine").write_bytes(b"mine")
    moved = relocate(sample, files, tmp_path / "new")
    assert moved is not None
    assert moved.way == "copy"
    jobs.delete(files)
    assert tree(tmp_path / "old") == {"show": None, "show/deep": None, "show/deep/mine": b"mine"}
    assert "show/deep/mine" not in tree(tmp_path / "new")


def test_a_filesystem_that_cannot_refuse_to_overwrite(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object, **__: object) -> None:
        raise OSError(errno.EINVAL, "not here")

    monkeypatch.setattr(syscalls, "rename_noreplace", cannot)
    moved = relocate(sample, sample.whole_at(tmp_path / "old"), tmp_path / "new")
    assert moved is not None
    assert is_whole(sample, moved.files)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["show"]

    single = Sample([(("one",), 10)])
    moved = relocate(single, single.whole_at(tmp_path / "old"), tmp_path / "new")
    assert moved is not None
    assert (tmp_path / "new/one").read_bytes() == single.content
    with pytest.raises(NotAllowed):
        relocate(single, single.whole_at(tmp_path / "third"), tmp_path / "new")
    single.descriptors.close()


def test_a_half_downloaded_torrent_moves_with_its_holes_and_without_files_that_are_not_there(
    tmp_path: Path,
) -> None:
    mib = 1 << 20
    sample = Sample([(("t", "big"), 64 * mib), (("t", "absent"), mib), (("t", "empty"), 0)], mib)
    files = sample.at(tmp_path / "old")
    files.create("sparse")
    os.unlink(files.path_of(1))
    for piece in (0, 40):
        files.write(piece * mib, memoryview(sample.piece(piece)))
    steps: list[tuple[int, int]] = []
    moved = relocate(
        sample,
        files,
        tmp_path / "new",
        ways=["copy"],
        have=[0, 40],
        on_progress=lambda done, total: steps.append((done, total)),
    )
    assert moved is not None
    assert moved.stats == files.stat()
    assert jobs.check(moved.files, sample.geometry, sample.hashes, [0, 1, 40]) == ([0, 40], [1])
    assert os.stat(moved.files.path_of(0)).st_blocks * 512 < 3 * mib
    assert steps[-1][0] == 4 * mib, "two pieces copied, and read again"
    assert steps == sorted(steps)
    assert all(done <= total for done, total in steps)
    sample.descriptors.close()


def test_a_file_system_without_copies_in_the_kernel(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object, **__: object) -> int:
        raise OSError(errno.EXDEV, "not between these")

    monkeypatch.setattr(os, "copy_file_range", cannot)
    moved = relocate(sample, sample.whole_at(tmp_path / "old"), tmp_path / "new", ways=["copy"])
    assert moved is not None
    assert is_whole(sample, moved.files)


# ------------------------------------------------------------------------------------------ never overwriting


@pytest.mark.parametrize("what", ["directory", "file", "link to nothing"])
@pytest.mark.parametrize("way", move.WAYS)
def test_what_is_there_is_named_and_not_touched(
    sample: Sample, tmp_path: Path, what: str, way: move.Way
) -> None:
    target = tmp_path / "new"
    target.mkdir()
    if what == "directory":
        (target / "show").mkdir()
    elif what == "file":
        (target / "show").write_bytes(b"foreign")
    else:
        (target / "show").symlink_to("nothing")
    files = sample.whole_at(tmp_path / "old")
    before = tree(tmp_path)
    with pytest.raises(NotAllowed, match="is there already") as error:
        relocate(sample, files, target, ways=[way])
    assert error.value.data == {"path": str(target / "show")}
    assert tree(tmp_path) == before


def test_what_appears_while_we_copy_is_not_overwritten_either(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path / "old")

    def appear(done: int, total: int) -> None:
        if done == total:
            (tmp_path / "new/show").mkdir()

    with pytest.raises(NotAllowed):
        relocate(sample, files, tmp_path / "new", ways=["copy"], on_progress=appear)
    assert tree(tmp_path / "new") == {"show": None}
    assert is_whole(sample, files)


def test_to_where_it_is_already(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path)
    with pytest.raises(NotAllowed):
        relocate(sample, files, tmp_path)
    assert is_whole(sample, files)


def test_into_a_directory_of_its_own(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path)
    moved = relocate(sample, files, tmp_path / "show" / "inner")
    assert moved is not None
    jobs.delete(files)
    assert is_whole(sample, moved.files)
    assert sorted(path.name for path in (tmp_path / "show").iterdir()) == ["inner"]


# ------------------------------------------------------------------------------------------------- what fails


def nothing_moved(sample: Sample, files: FileSet, target: Path) -> None:
    assert is_whole(sample, files)
    assert tree(target) == {}


def test_a_bad_copy_is_found_before_it_gets_its_name(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.copy_file_range

    def lies(reading: int, writing: int, length: int, at: int, to: int) -> int:
        done = real(reading, writing, length, at, to)
        if done == 100_000:
            os.pwrite(writing, b"\0\0\0\0", 70_000)
        return done

    monkeypatch.setattr(os, "copy_file_range", lies)
    files = sample.whole_at(tmp_path / "old")
    with pytest.raises(StorageError, match="piece 6 does not match") as error:
        relocate(sample, files, tmp_path / "new", ways=["copy"])
    assert error.value.cause == "io_error"
    assert error.value.path.startswith(str(tmp_path / "new"))
    nothing_moved(sample, files, tmp_path / "new")


def test_a_bad_source_is_blamed_itself(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path / "old")
    files.write(40_001, memoryview(bytes(4)))
    with pytest.raises(StorageError) as error:
        relocate(sample, files, tmp_path / "new", ways=["copy"])
    assert (error.value.cause, error.value.path) == ("changed", files.path_of(0))
    assert tree(tmp_path / "new") == {}


def test_no_room_for_a_copy(sample: Sample, tmp_path: Path) -> None:
    sample.whole_at(tmp_path / "old")
    files = sample.at(tmp_path / "old", floor=FreeSpaceFloor(1 << 60))
    with pytest.raises(StorageError, match="can be had") as error:
        relocate(sample, files, tmp_path / "new", ways=["copy"])
    assert error.value.cause == "no_space"
    nothing_moved(sample, files, tmp_path / "new")


def test_a_disk_that_fills_up_in_the_middle(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path / "old")
    with largest_file(50_000), pytest.raises(StorageError) as error:
        relocate(sample, files, tmp_path / "new", ways=["copy"])
    assert error.value.cause == "no_space"
    nothing_moved(sample, files, tmp_path / "new")


@pytest.mark.parametrize("steps", [0, 1, 3, 6])
def test_a_move_that_is_stopped_leaves_nothing(sample: Sample, tmp_path: Path, steps: int) -> None:
    files = sample.whole_at(tmp_path / "old")
    done: list[int] = []
    stopped = relocate(
        sample,
        files,
        tmp_path / "new",
        ways=["copy"],
        on_progress=lambda so_far, _: done.append(so_far),
        cancelled=lambda: len(done) >= steps,
    )
    if steps == 6:  # four files and one chunk of verifying: stopped too late
        assert stopped is not None
    else:
        assert stopped is None
        nothing_moved(sample, files, tmp_path / "new")


def test_a_source_that_is_not_there_makes_nothing(sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as error:
        relocate(sample, sample.at(tmp_path / "gone"), tmp_path / "new")
    assert error.value.cause == "missing_root"
    assert tree(tmp_path) == {}


# ---------------------------------------------------------------------------------------------------- crashes


@pytest.mark.parametrize(
    ("way", "lines"),
    [("link", 0), ("link", 1), *(("copy", lines) for lines in (0, 1, 2, 13, 20, 21, 22))],
)
def test_a_kill_anywhere_leaves_the_source_whole_and_the_move_can_go_on(
    tmp_path: Path, way: move.Way, lines: int
) -> None:
    content = child.sample()
    source, target = tmp_path / "old", tmp_path / "new"
    files = content.whole_at(source)
    command = [sys.executable, "-m", "tests.disk.child", "move", str(source), str(target), way]
    said = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(lines):
            said.append(process.stdout.readline().strip())
            if said[-1] == "moved":
                break
        process.send_signal(signal.SIGKILL)
    assert "" not in said, "the child failed"

    arrived = move.recover(files, str(target), tag="tag")
    assert not (target / ".tag.moving").exists()
    if "moved" in said:
        assert arrived is not None
    if arrived is None:
        assert is_whole(content, files)
        assert not (target / "show").exists()
        moved = move.relocate(
            files,
            str(target),
            tag="tag",
            geometry=content.geometry,
            hashes=content.hashes,
            have=content.all_pieces,
        )
        assert moved is not None
        arrived = moved.files
    assert is_whole(content, arrived)
    jobs.delete(files)
    assert is_whole(content, arrived)
    assert tree(source) == {}
    content.descriptors.close()


def test_recovery_knows_a_finished_move_from_something_foreign(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path / "old")
    assert move.recover(files, str(tmp_path / "never"), tag=TAG) is None
    relocate(sample, files, tmp_path / "new", ways=["copy"])
    arrived = move.recover(files, str(tmp_path / "new"), tag=TAG)
    assert arrived is not None
    assert arrived.root == str(tmp_path / "new")
    os.utime(tmp_path / "new/show/a.bin", ns=(1, 1))
    assert move.recover(files, str(tmp_path / "new"), tag=TAG) is None
    jobs.delete(files)
    assert move.recover(files, str(tmp_path / "new"), tag=TAG) is not None, "it was renamed"


def test_what_a_crash_left_hidden_is_removed_by_the_next_try(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path / "old")
    sample.whole_at(tmp_path / "new" / HIDDEN).close()
    assert move.recover(files, str(tmp_path / "new"), tag=TAG) is None
    assert tree(tmp_path / "new") == {}
    sample.whole_at(tmp_path / "new" / HIDDEN).close()
    moved = relocate(sample, files, tmp_path / "new")
    assert moved is not None
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["show"]
