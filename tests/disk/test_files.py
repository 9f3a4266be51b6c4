"""The files of a torrent on a real filesystem: spans, sizes, links, lost mounts, full disks."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtorrd.disk import syscalls
from microtorrd.disk.files import DescriptorCache, FileSet, FreeSpaceFloor
from microtorrd.disk.pool import DiskPool
from microtorrd.errors import StorageError
from tests.disk.sample import Sample

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=8)


@pytest.fixture
def sample() -> Iterator[Sample]:
    sample = Sample()
    yield sample
    sample.descriptors.close()


def tree(root: Path) -> dict[str, bytes | None]:
    """Everything below: the content of files, None for anything else."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(root.rglob("*"))
    }


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond `size`: a full disk that needs no disk (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# ------------------------------------------------------------------------------------------------ arithmetic


def test_spans_over_files_with_empty_ones_between(sample: Sample) -> None:
    files = sample.at("/nowhere")
    assert files.spans(0, 5) == [(0, 0, 5)]
    assert files.spans(39_999, 3) == [(0, 39_999, 1), (2, 0, 1), (3, 0, 1)]
    assert files.spans(140_001, 16_384) == [(4, 0, 16_384)]
    assert files.spans(7, 0) == []
    assert files.starts == (0, 40_000, 40_000, 40_001, 140_001, 156_385)


@given(LENGTHS, st.data())
def test_spans_cover_exactly_the_bytes_asked_for(lengths: list[int], data: st.DataObject) -> None:
    files = FileSet(
        "/nowhere", [((f"{n}",), size) for n, size in enumerate(lengths)], descriptors=DescriptorCache(1)
    )
    offset = data.draw(st.integers(0, files.length))
    length = data.draw(st.integers(0, files.length - offset))
    found = [
        (number, at)
        for number, begin, part in files.spans(offset, length)
        for at in range(begin, begin + part)
    ]
    every = [(number, at) for number, size in enumerate(lengths) for at in range(size)]
    assert found == every[offset : offset + length]


def test_the_first_part_of_paths_can_have_another_name_on_disk(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path, rename_first="other")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    assert files.path_of(3) == str(tmp_path / "other/deep/b.bin")
    assert files.at(str(tmp_path)).path_of(3) == files.path_of(3)


# ------------------------------------------------------------------------------------------- write and read


@pytest.mark.parametrize("preallocate", ["none", "sparse", "full"])
def test_pieces_in_any_order_make_the_files(
    sample: Sample, tmp_path: Path, preallocate: Literal["none", "sparse", "full"]
) -> None:
    files = sample.at(tmp_path)
    files.create(preallocate)
    sizes = [found and found[0] for found in files.stat()]
    assert sizes == ([0] * 6 if preallocate == "none" else list(sample.lengths))
    blocks = os.stat(files.path_of(3)).st_blocks * 512
    assert blocks >= 100_000 if preallocate == "full" else blocks < 100_000
    for piece in reversed(sample.all_pieces):
        files.write(sample.geometry.piece_offset(piece), memoryview(sample.piece(piece)))
    got = memoryview(bytearray(len(sample.content)))
    files.read_into(0, got)
    assert got == sample.content
    on_disk = b"".join(Path(files.path_of(number)).read_bytes() for number in range(6))
    assert on_disk == sample.content
    assert Path(files.path_of(1)).read_bytes() == b""


@settings(deadline=None)  # the disk may take its time
@given(LENGTHS, st.data())
def test_what_is_written_anywhere_is_read_from_there(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], data: st.DataObject
) -> None:
    descriptors = DescriptorCache(2)
    files = FileSet(
        str(tmp_path_factory.mktemp("any")),
        [(("t", f"{n}"), size) for n, size in enumerate(lengths)],
        descriptors=descriptors,
    )
    try:
        files.create("sparse")
        model = bytearray(files.length)
        for mark in range(1, 5):
            offset = data.draw(st.integers(0, files.length))
            length = data.draw(st.integers(0, files.length - offset))
            model[offset : offset + length] = bytes([mark]) * length
            files.write(offset, memoryview(bytes([mark]) * length))
        got = memoryview(bytearray(files.length))
        files.read_into(0, got)
        assert got == model
    finally:
        descriptors.close()


def test_a_file_that_is_only_read_is_opened_for_reading_only(sample: Sample, tmp_path: Path) -> None:
    sample.whole_at(tmp_path).close()
    files = sample.at(tmp_path)
    files.read_into(0, memoryview(bytearray(10)))
    assert open_flags(tmp_path / "show/a.bin") == [os.O_RDONLY]
    files.write(0, memoryview(sample.content[:10]))
    assert open_flags(tmp_path / "show/a.bin") == [os.O_RDWR]


def open_flags(path: Path) -> list[int]:
    flags = []
    for name in os.listdir("/proc/self/fd"):
        if os.path.islink(f"/proc/self/fd/{name}") and os.readlink(f"/proc/self/fd/{name}") == str(path):
            info = Path(f"/proc/self/fdinfo/{name}").read_text()
            flags.append(int(info.split("flags:")[1].split()[0], 8) & os.O_ACCMODE)
    return flags


def test_reading_without_waiting(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path)
    files.sync()
    files.close()
    got = memoryview(bytearray(len(sample.content)))
    assert not files.read_nowait(0, got), "finding a file may need the disk"
    files.read_into(0, got)
    got[:] = bytes(len(got))
    assert files.read_nowait(0, got)
    assert got == sample.content
    files.drop_cached([3])
    assert files.read_nowait(40_001, got[:100_000]) is kernel_has(files.path_of(3))
    os.truncate(files.path_of(0), 100)
    assert not files.read_nowait(0, got[:200])


def kernel_has(path: str) -> bool:
    """Is the file in memory? Mostly not after `drop_cached`, but the kernel may keep what it likes."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return os.preadv(file.fileno(), [bytearray(size)], 0, os.RWF_NOWAIT) == size
        except BlockingIOError:
            return False
        except OSError:
            return syscalls.lives_in_memory(file.fileno())


def test_a_filesystem_in_memory_is_read_on_the_spot(sample: Sample) -> None:
    with subprocess.Popen(["true"]) as process:  # a name that no other run has
        root = Path(f"/dev/shm/microtorrd-test-{os.getpid()}-{process.pid}")
    files = sample.whole_at(root)
    try:
        got = memoryview(bytearray(len(sample.content) - 3))
        files.read_into(0, got[:5])
        files.read_into(40_000, got[:100_000])
        files.read_into(150_000, got[:100])
        assert files.read_nowait(3, got)
        assert got == sample.content[3:]
    finally:
        files.delete()
        root.rmdir()


# ----------------------------------------------------------------------------------------- what is not ours


@pytest.mark.parametrize("what", ["link", "link to nothing", "fifo", "directory"])
def test_nothing_but_a_file_is_opened_in_the_place_of_a_file(
    sample: Sample, tmp_path: Path, what: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"foreign")
    files = sample.whole_at(tmp_path / "root")
    files.close()
    place = tmp_path / "root/show/a.bin"
    place.unlink()
    if what == "link":
        place.symlink_to(outside)
    elif what == "link to nothing":
        place.symlink_to(tmp_path / "nothing")
    elif what == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()
    for attempt in (
        lambda: files.write(0, memoryview(b"x")),
        lambda: files.read_into(0, memoryview(bytearray(1))),
        lambda: files.create("sparse"),
    ):
        with pytest.raises(StorageError) as error:
            attempt()
        assert (error.value.cause, error.value.path) == ("changed", str(place))
    assert files.stat()[0] is None
    files.delete()
    assert os.path.lexists(place), "it is not ours to remove"
    assert outside.read_bytes() == b"foreign"
    assert not (tmp_path / "nothing").exists()


def test_a_link_in_the_place_of_a_directory_leads_nowhere(sample: Sample, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "a.bin").write_bytes(b"foreign")
    root = tmp_path / "root"
    root.mkdir()
    (root / "show").symlink_to(outside)
    files = sample.at(root)
    before = tree(outside)
    for attempt in (lambda: files.create("none"), lambda: files.write(0, memoryview(b"x"))):
        with pytest.raises(StorageError) as error:
            attempt()
        assert error.value.cause == "changed"
    files.delete()
    assert tree(outside) == before


def test_the_save_directory_itself_may_be_a_link(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    sample.whole_at(tmp_path / "link")
    assert (tmp_path / "real/show/a.bin").read_bytes() == sample.content[:40_000]


def test_a_file_longer_than_the_torrent_says_is_refused_and_left_alone(
    sample: Sample, tmp_path: Path
) -> None:
    (tmp_path / "show").mkdir()
    (tmp_path / "show/a.bin").write_bytes(bytes(40_001))
    with pytest.raises(StorageError, match="more than the 40000") as error:
        sample.at(tmp_path).create("sparse")
    assert error.value.cause == "changed"
    assert tree(tmp_path) == {"show": None, "show/a.bin": bytes(40_001)}


def test_files_that_are_there_keep_their_content(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "show").mkdir()
    (tmp_path / "show/a.bin").write_bytes(sample.content[:123])
    sample.at(tmp_path).create("sparse")
    assert (tmp_path / "show/a.bin").read_bytes() == sample.content[:123] + bytes(40_000 - 123)


def test_deleting_leaves_what_is_foreign(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path)
    (tmp_path / "show/deep/foreign").write_bytes(b"mine")
    (tmp_path / "beside").write_bytes(b"mine")
    (tmp_path / "show/a.bin").unlink()
    files.delete()
    assert tree(tmp_path) == {
        "beside": b"mine",
        "show": None,
        "show/deep": None,
        "show/deep/foreign": b"mine",
    }
    files.delete()
    assert (tmp_path / "show/deep/foreign").exists()


def test_deleting_what_was_never_made_is_no_error(sample: Sample, tmp_path: Path) -> None:
    sample.at(tmp_path / "nowhere").delete()
    with pytest.raises(StorageError, match="is gone"):
        sample.at(tmp_path / "unplugged", root_device=1).delete()


def test_deleting_leaves_a_file_that_is_longer_than_ours(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path)
    longer = Path(files.path_of(0))
    longer.write_bytes(bytes(files.lengths[0] + 1))
    files.delete()
    assert longer.stat().st_size == files.lengths[0] + 1
    assert not any(Path(files.path_of(number)).exists() for number in range(1, len(files.paths)))


def test_deleting_removes_emptied_directories_but_not_the_save_directory(
    sample: Sample, tmp_path: Path
) -> None:
    sample.whole_at(tmp_path).delete()
    assert tree(tmp_path) == {}


# ------------------------------------------------------------------------------------------- what goes wrong


def test_a_save_directory_that_vanished_is_not_made_again(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path / "root")
    files.delete()
    (tmp_path / "root").rmdir()
    again = sample.at(tmp_path / "root", root_device=files.root_device)
    for attempt in (
        lambda: again.create("sparse"),
        lambda: again.write(0, memoryview(b"x")),
        lambda: again.read_into(0, memoryview(bytearray(1))),
        again.stat,
        again.delete,
    ):
        with pytest.raises(StorageError) as error:
            attempt()
        assert (error.value.cause, error.value.path) == ("missing_root", str(tmp_path / "root"))
    assert tree(tmp_path) == {}


def test_a_directory_removed_under_open_files_is_noticed_by_the_next_write(
    sample: Sample, tmp_path: Path
) -> None:
    files = sample.whole_at(tmp_path / "root")
    for path in sorted((tmp_path / "root").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(StorageError, match="deleted while") as error:
        files.write(0, memoryview(b"x"))
    assert error.value.cause == "changed"
    (tmp_path / "root").rmdir()
    with pytest.raises(StorageError) as error:
        files.write(40_001, memoryview(b"x"))
    assert error.value.cause == "missing_root"
    assert tree(tmp_path) == {}


def test_another_filesystem_in_the_place_of_the_root(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path)
    assert files.root_device is not None
    returned = sample.at(tmp_path, root_device=files.root_device + 1)
    returned.read_into(0, memoryview(bytearray(1)))
    assert returned.remounted
    assert returned.root_device == files.root_device

    empty = tmp_path / "bare mount point"
    empty.mkdir()
    lost = sample.at(empty, root_device=files.root_device + 1)
    for attempt in (lambda: lost.create("sparse"), lambda: lost.write(0, memoryview(b"x")), lost.stat):
        with pytest.raises(StorageError, match="is its disk mounted") as error:
            attempt()
        assert error.value.cause == "missing_root"
    assert tree(empty) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_an_unmounted_disk_is_missed_and_known_again(sample: Sample, tmp_path: Path) -> None:
    mount = tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "--bind", "/dev/shm", str(mount)], check=True)
    root = mount / f"microtorrd-mount-{os.getpid()}"
    try:
        files = sample.whole_at(root)
        device = files.root_device
        files.close()
        subprocess.run(["umount", "-l", str(mount)], check=True)
        again = sample.at(root, root_device=device)
        with pytest.raises(StorageError) as error:
            again.write(0, memoryview(b"x"))
        assert error.value.cause == "missing_root"
        assert tree(mount) == {}
        subprocess.run(["mount", "--bind", "/dev/shm", str(mount)], check=True)
        again.write(0, memoryview(sample.content))
        again.delete()
        root.rmdir()
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_missing_file_is_not_made_by_a_write(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path)
    files.close()
    (tmp_path / "show/a.bin").unlink()
    with pytest.raises(StorageError) as error:
        files.write(0, memoryview(b"x"))
    assert (error.value.cause, error.value.path) == ("not_found", str(tmp_path / "show/a.bin"))
    assert files.stat()[0] is None


def test_a_truncated_file_is_changed(sample: Sample, tmp_path: Path) -> None:
    files = sample.whole_at(tmp_path)
    os.truncate(files.path_of(3), 500)
    with pytest.raises(StorageError, match="ends at 500 bytes") as error:
        files.read_into(40_001, memoryview(bytearray(501)))
    assert (error.value.cause, error.value.path) == ("changed", files.path_of(3))


def test_a_full_disk_has_its_cause_and_path(sample: Sample, tmp_path: Path) -> None:
    files = sample.at(tmp_path)
    files.create("none")
    with largest_file(50_000), pytest.raises(StorageError) as error:
        files.write(0, memoryview(sample.content))
    assert (error.value.cause, error.value.path) == ("no_space", files.path_of(3))
    files.write(0, memoryview(sample.content))
    got = memoryview(bytearray(len(sample.content)))
    files.read_into(0, got)
    assert got == sample.content


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_is_really_full(sample: Sample, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    try:
        files = sample.at(tmp_path)
        with pytest.raises(StorageError, match="bytes are needed") as error:
            files.create("full")
        assert error.value.cause == "no_space"
        assert tree(tmp_path) == {}
        files.create("sparse")
        with pytest.raises(StorageError) as error:
            files.write(0, memoryview(sample.content))
        assert error.value.cause == "no_space"
        files.close()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_full_preallocation_says_before_anything_is_made_that_it_does_not_fit(tmp_path: Path) -> None:
    descriptors = DescriptorCache(1)
    files = FileSet(str(tmp_path), [(("t", "small"), 1), (("t", "huge"), 1 << 60)], descriptors=descriptors)
    with pytest.raises(StorageError, match="bytes are needed") as error:
        files.create("full")
    assert error.value.cause == "no_space"
    assert tree(tmp_path) == {}


def test_a_filesystem_that_cannot_reserve_gives_sparse_files(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(fd: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(syscalls, "allocate", cannot)
    files = sample.at(tmp_path)
    files.create("full")
    assert [found and found[0] for found in files.stat()] == list(sample.lengths)


def test_the_floor_under_the_free_space(sample: Sample, tmp_path: Path) -> None:
    files = sample.at(tmp_path, floor=FreeSpaceFloor(1 << 60))
    files.create("sparse")
    with pytest.raises(StorageError, match="would be left") as error:
        files.write(0, memoryview(sample.content))
    assert error.value.cause == "no_space"
    assert os.stat(files.path_of(0)).st_blocks == 0
    with pytest.raises(StorageError, match="can be had"):
        sample.at(tmp_path / "other", floor=FreeSpaceFloor(1 << 60)).create("full")


def test_what_is_reserved_may_be_filled_below_the_floor(sample: Sample, tmp_path: Path) -> None:
    sample.at(tmp_path).create("full")
    files = sample.at(tmp_path, floor=FreeSpaceFloor(1 << 60))
    files.write(0, memoryview(sample.content))
    assert (tmp_path / "show/a.bin").read_bytes() == sample.content[:40_000]


def test_the_filesystem_is_asked_for_its_space_now_and_then_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    real = os.fstatvfs

    def counting(fd: int) -> os.statvfs_result:
        nonlocal asked
        asked += 1
        return real(fd)

    monkeypatch.setattr(os, "fstatvfs", counting)
    now = 100.0
    floor = FreeSpaceFloor(1, clock=lambda: now)
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(64):
        floor.admit(fd, 1, 1 << 20, lambda: "here")
    assert asked == 1
    floor.admit(fd, 1, 1 << 20, lambda: "here")
    assert asked == 2
    now += 1.0
    floor.admit(fd, 1, 1 << 20, lambda: "here")
    assert asked == 3
    floor.admit(fd, 2, 1 << 20, lambda: "another filesystem")
    assert asked == 4
    FreeSpaceFloor(0).admit(fd, 1, 1 << 60, lambda: "no floor")
    assert asked == 4
    os.close(fd)


# --------------------------------------------------------------------------------------------------- durable


class Fsync:
    """Notes what is synced; `failing` makes it fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: list[str] = []
        self.failing = False
        self._real = os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, fd: int) -> None:
        if self.failing:
            raise OSError(errno.EIO, "the disk is dying")
        self._real(fd)
        self.synced.append(os.readlink(f"/proc/self/fd/{fd}"))

    def take(self) -> set[str]:
        taken, self.synced = set(self.synced), []
        return taken


def test_sync_covers_what_was_made_and_written_and_no_more(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = Fsync(monkeypatch)
    root = tmp_path / "new" / "root"
    files = sample.at(root)
    files.create("sparse")
    assert fsync.take() == {str(tmp_path), str(tmp_path / "new")}, "the way to the root"
    files.write(0, memoryview(sample.content[:10]))
    stats = files.sync()
    show = root / "show"
    assert fsync.take() == {
        str(path) for path in (root, show, show / "deep", show / "deep/er", show / "a.bin")
    }
    assert stats == files.stat()
    files.sync()
    assert fsync.take() == set()
    files.write(39_999, memoryview(b"abc"))
    files.sync()
    assert fsync.take() == {files.path_of(0), files.path_of(2), files.path_of(3)}
    files.sync(everything=True)
    assert {files.path_of(number) for number in range(6)} < fsync.take()


def test_what_could_not_be_synced_is_synced_again(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sample.whole_at(tmp_path)
    fsync = Fsync(monkeypatch)
    fsync.failing = True
    with pytest.raises(StorageError) as error:
        files.sync()
    assert error.value.cause == "io_error"
    fsync.failing = False
    files.sync()
    assert {files.path_of(number) for number in (0, 2, 3, 4)} <= fsync.take()


# ----------------------------------------------------------------------------------------------- descriptors


def test_the_least_recently_used_descriptor_is_closed_first(tmp_path: Path) -> None:
    cache = DescriptorCache(2)
    paths = [((f"{number}",), 1) for number in range(3)]
    files = FileSet(str(tmp_path), paths, descriptors=cache)
    files.create("sparse")
    got = memoryview(bytearray(1))
    for number in (0, 1, 0, 2):
        files.read_into(number, got)
    assert len(cache) == 2
    assert [bool(open_flags(tmp_path / f"{number}")) for number in range(3)] == [True, False, True]
    files.close()
    assert len(cache) == 0


def test_a_descriptor_in_use_is_closed_by_who_returns_it(tmp_path: Path) -> None:
    cache = DescriptorCache(1)
    files = FileSet(str(tmp_path), [(("0",), 1), (("1",), 1)], descriptors=cache)
    files.create("sparse")
    got = memoryview(bytearray(1))
    files.read_into(0, got)
    lease = cache.lease((1, 0), writable=False)
    assert lease is not None
    assert cache.lease((1, 0), writable=True) is None
    files.read_into(1, got)
    files.close()
    assert os.fstat(lease.fd).st_size == 1
    cache.give_back(lease)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(lease.fd)
    assert len(cache) == 0


def test_many_threads_share_few_descriptors(tmp_path: Path) -> None:
    cache = DescriptorCache(2)
    count = 12
    files = FileSet(str(tmp_path), [((f"{n}",), 64) for n in range(count)], descriptors=cache)
    files.create("sparse")
    pool = DiskPool(4)

    def work(number: int) -> None:
        got = memoryview(bytearray(64))
        for turn in range(20):
            at = (number + turn) % count
            with_mark = bytes([at]) * 64
            files.write(at * 64, memoryview(with_mark))
            files.read_into(at * 64, got)
            assert got == with_mark

    outcomes: list[object] = []
    for number in range(32):
        pool.submit(partial(work, number), outcomes.append)
    assert pool.close(20)
    assert outcomes == [None] * 32
    assert len(cache) <= 2
    cache.close()
