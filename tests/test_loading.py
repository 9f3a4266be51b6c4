"""What a start finds: torrents as they were left go on without a look at their metainfo, and no others do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from microtorrd import gist, loading
from microtorrd.content import AS_LEFT, AsLeft, Content, Trusted
from microtorrd.disk.files import DescriptorCache
from microtorrd.disk.records import Kept, TorrentRecord
from microtorrd.disk.trust import decide
from microtorrd.errors import StorageError
from microtorrd.proto import metainfo
from microtorrd.proto.metainfo import FileEntry, build
from microtorrd.proto.selection import NORMAL
from microtorrd.rows import file_rows

PIECE = 16384

SINGLE = (FileEntry(("one",), 3 * PIECE + 5),)
SEVERAL = (
    FileEntry(("show", "a"), PIECE + 1),
    FileEntry(("show", ".pad", "1"), PIECE - 1, is_padding=True),
    FileEntry(("show", "deep", "b"), 2 * PIECE),
    FileEntry(("show", "deep", "empty"), 0),
)


class Left:
    """A torrent that is whole on record and below `root`, and what a start finds of it."""

    def __init__(self, root: Path, files: tuple[FileEntry, ...]) -> None:
        self.root = root
        length = sum(entry.length for entry in files)
        count = -(-length // PIECE)
        self.raw = build(
            name=files[0].path[0],
            piece_length=PIECE,
            files=files,
            is_single_file=len(files) == 1,
            pieces=bytes(20 * count),
            id_hash=None,
            trackers=[],
        )
        meta = metainfo.parse(self.raw)
        self.paths = [root.joinpath(*entry.path) for entry in files if entry.is_on_disk]
        stats = []
        for entry in files:
            path = root.joinpath(*entry.path)
            if entry.is_on_disk:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bytes(entry.length))
                stats.append((entry.length, path.stat().st_mtime_ns))
            else:
                stats.append((entry.length, 0))
        self.record = TorrentRecord(
            info_hash=meta.info_hash,
            name=meta.name,
            length=length,
            piece_length=PIECE,
            save_to=str(root),
            added_at=1.0,
            root_device=root.stat().st_dev,
            durable=(((1 << count) - 1) << (-count % 8)).to_bytes((count + 7) // 8, "big"),
            file_stats=tuple(stats),
        )
        self.gist: Any = gist.pack(meta, self.raw, meta.name)

    def change(self, **fields: Any) -> None:
        self.record = replace(self.record, **fields)

    def found(self) -> Trusted | AsLeft | StorageError | None:
        return loading.look_at(str(self.root), [self.content()], [self.kept]).outcomes[0]

    @property
    def kept(self) -> Kept:
        return Kept(self.raw, self.gist)

    def content(self) -> Content:
        facilities: Any = SimpleNamespace(
            descriptors=DescriptorCache(4), floor=None, ledger=SimpleNamespace(boot_id="boot", path="state")
        )
        return Content(self.record, facilities)


@pytest.fixture(params=[SINGLE, SEVERAL], ids=["single", "several"])
def left(request: pytest.FixtureRequest, tmp_path: Path) -> Left:
    return Left(tmp_path, request.param)


def test_what_nobody_touched_is_as_it_was_left(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metainfo, "parse", None)  # nobody reads it
    assert left.found() is AS_LEFT


def test_a_decision_by_the_rules_would_be_the_same(left: Left) -> None:
    content = left.content()
    content.learn(left.raw)
    decision = decide(
        left.record, content.geometry, content.files.lengths, content.files.stat(), boot_id="boot"
    )
    assert decision.have.complete
    assert (decision.recheck, decision.sync_first) == ((), False)


def test_a_check_that_is_still_wished_is_something_to_do(left: Left) -> None:
    left.change(then_verify=True)
    assert left.found() is not AS_LEFT


def test_without_a_gist_the_metainfo_is_read_and_packed_anew(left: Left) -> None:
    packed, left.gist = left.gist, None
    assert left.found() is AS_LEFT
    assert loading.look_at(str(left.root), [left.content()], [left.kept]).gists == [
        (left.record.info_hash, packed)
    ]


@pytest.mark.parametrize("packed", [b"", b"\x02", b"\x02" * 64, "a text", 7, 1.5])
def test_a_gist_that_is_none_is_no_gist(left: Left, packed: Any) -> None:
    left.gist = packed
    assert left.found() is AS_LEFT


def test_a_name_that_was_damaged_on_record_is_not_where_the_files_are(left: Left) -> None:
    right = left.content()
    assert right.recall(left.kept)
    left.change(name=f"{left.record.name}\x01")
    content = left.content()
    assert not content.recall(left.kept)
    content.learn(left.raw)
    assert content.entries == right.entries


def test_a_shape_that_was_damaged_on_record_is_found_out(left: Left) -> None:
    left.change(piece_length=2 * PIECE)
    left.gist = None
    found = left.found()
    assert isinstance(found, StorageError)
    assert found.cause == "corrupt"


def test_who_asks_before_the_look_does_not_decide_what_is_padding(left: Left) -> None:
    content = left.content()
    assert content.geometry.length == left.record.length
    assert content.recall(left.kept)
    assert content.geometry == metainfo.parse(left.raw).geometry


def test_files_are_told_of_none_or_all_while_a_disk_thread_finds_them_out() -> None:
    halfway: Any = SimpleNamespace(entries=(), marks=bytes([NORMAL]))  # the one asked for before the other
    torrent: Any = SimpleNamespace(have=None, content=halfway)
    assert file_rows(torrent) == []


def test_under_another_name_on_the_disk(left: Left) -> None:
    (left.root / left.record.name).rename(left.root / "renamed")
    assert left.found() is not AS_LEFT
    left.change(disk_name="renamed")
    assert left.found() is AS_LEFT


def grow(left: Left) -> None:
    with left.paths[0].open("ab") as file:
        file.write(b"x")


def same_size(left: Left) -> None:
    status = left.paths[0].stat()
    os.utime(left.paths[0], ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def link(left: Left) -> None:
    left.paths[0].rename(left.root / "elsewhere")
    left.paths[0].symlink_to(left.root / "elsewhere")


def directory(left: Left) -> None:
    left.paths[0].unlink()
    left.paths[0].mkdir()


TOUCHED: dict[str, Callable[[Left], object]] = {
    "it grew": grow,
    "it was cut off": lambda left: os.truncate(left.paths[0], 7),
    "it was written to": same_size,
    "it is gone": lambda left: left.paths[0].unlink(),
    "it is a link": link,
    "it is a directory": directory,
    "it is shorter since it was recorded": lambda left: (
        os.truncate(left.paths[0], 7),
        left.change(file_stats=((7, left.paths[0].stat().st_mtime_ns), *left.record.file_stats[1:])),
    ),
    "something lies aside": lambda left: (left.root / f".{left.record.info_hash.hex()}.parts").mkdir(),
    "it was being written to": lambda left: left.change(dirty=True),
    "files were chosen": lambda left: left.change(selection=bytes(len(left.record.file_stats))),
    "it was being moved": lambda left: left.change(moving_to="/elsewhere"),
    "another filesystem": lambda left: left.change(root_device=-1),
    "never on a filesystem": lambda left: left.change(root_device=None),
    "a piece is missing": lambda left: left.change(durable=b"\x7f" + left.record.durable[1:]),
    "nothing is durable": lambda left: left.change(durable=None),
    "a bitfield of others": lambda left: left.change(durable=left.record.durable + b"\x00"),
    "figures of others": lambda left: left.change(file_stats=(*left.record.file_stats, (1, 1))),
    "no figures": lambda left: left.change(file_stats=()),
}


@pytest.mark.parametrize("how", TOUCHED)
def test_what_somebody_touched_is_looked_at_by_the_rules(left: Left, how: str) -> None:
    TOUCHED[how](left)
    assert left.found() is not AS_LEFT


def test_metainfo_that_is_damaged_is_found_out(left: Left) -> None:
    left.raw = left.raw.replace(b"piece length", b"piece lenght")
    found = left.found()
    assert isinstance(found, StorageError)
    assert found.cause == "corrupt"


def test_a_directory_that_is_gone_is_told_of_each(left: Left, tmp_path: Path) -> None:
    left.change(save_to=str(tmp_path / "gone"))
    found = loading.look_at(str(tmp_path / "gone"), [left.content()] * 2, [left.kept] * 2)
    assert [type(outcome) for outcome in found.outcomes] == [StorageError] * 2
