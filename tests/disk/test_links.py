"""Symbolic links on disk: made last, taken along, removed with the torrent, and never gone through."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from microtorrd.disk import move
from microtorrd.disk.files import FileSet
from microtorrd.disk.reach import Link
from microtorrd.errors import StorageError
from tests.disk.sample import UNEVEN, Sample

FILES = (
    *UNEVEN,
    (("show", "to file"), 0),
    (("show", "deep", "to directory"), 0),
    (("show", "only", "links", "here"), 0),
)
LINKS = {
    6: Link("deep/b.bin", ("deep", "b.bin")),
    7: Link("er", ("deep", "er")),
    8: Link("../../last", ("last",)),
}


@pytest.fixture
def sample() -> Sample:
    return Sample(FILES)


def links_of(top: Path) -> dict[str, str]:
    return {str(path.relative_to(top)): os.readlink(path) for path in top.rglob("*") if path.is_symlink()}


MADE = {"to file": "deep/b.bin", "deep/to directory": "er", "only/links/here": "../../last"}


def whole(sample: Sample, root: Path, **options: object) -> FileSet:
    return sample.whole_at(root, virtual=LINKS, links=LINKS, **options)


def test_they_are_made_and_removed_with_the_files(sample: Sample, tmp_path: Path) -> None:
    files = whole(sample, tmp_path)
    top = tmp_path / "show"
    assert links_of(top) == MADE
    assert (top / "to file").read_bytes() == (top / "deep" / "b.bin").read_bytes()
    files.create("sparse")  # again
    files.sync()
    assert files.links_there() == [6, 7, 8]
    assert files.stat()[6:] == [(0, 0)] * 3
    files.delete()
    assert list(tmp_path.iterdir()) == []


def test_what_has_their_name_is_left_alone(sample: Sample, tmp_path: Path) -> None:
    top = tmp_path / "show"
    (top / "deep").mkdir(parents=True)
    (top / "to file").write_bytes(b"mine")
    (top / "deep" / "to directory").symlink_to("/etc")
    files = whole(sample, tmp_path)
    assert files.links_there() == [8]
    files.delete()
    assert (top / "to file").read_bytes() == b"mine"
    assert links_of(top) == {"deep/to directory": "/etc"}


def test_what_leads_to_nothing_is_made_when_that_comes(sample: Sample, tmp_path: Path) -> None:
    files = whole(sample, tmp_path, aside={3, 4}, tag="t")
    top = tmp_path / "show"
    assert links_of(top) == {"only/links/here": "../../last"}
    (top / "deep" / "b.bin").write_bytes(b"")
    files.create("none")
    assert links_of(top) == {"only/links/here": "../../last", "to file": "deep/b.bin"}
    files.close()


def test_a_link_to_where_a_stranger_has_put_another_is_not_made(sample: Sample, tmp_path: Path) -> None:
    top = tmp_path / "show"
    top.mkdir()
    (tmp_path / "elsewhere").mkdir()
    files = sample.at(tmp_path, virtual=LINKS, links=LINKS)
    (top / "deep").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError) as caught:
        files.create("sparse")
    assert caught.value.cause == "changed"
    assert list((tmp_path / "elsewhere").iterdir()) == []
    files.make_links(LINKS)
    assert links_of(top) == {"deep": str(tmp_path / "elsewhere")}
    files.delete()
    assert links_of(top) == {"deep": str(tmp_path / "elsewhere")}


@pytest.mark.parametrize("way", ["link", "rename", "copy"])
def test_they_move_along(sample: Sample, tmp_path: Path, way: move.Way) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    files = whole(sample, here)
    (here / "show" / "to file").unlink()  # which somebody did not want
    moved = move.relocate(
        files,
        str(there),
        tag="t",
        geometry=sample.geometry,
        hashes=sample.hashes,
        have=list(sample.all_pieces),
        ways=(way,),
    )
    assert moved is not None
    left = {name: text for name, text in MADE.items() if name != "to file"}
    assert links_of(there / "show") == left
    if way != "rename":
        assert links_of(here / "show") == left
        files.delete()
    assert not (here / "show").exists()
    assert os.listdir(there) == ["show"]


def test_where_there_are_no_links_there_are_none(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # as FAT says it

    monkeypatch.setattr(os, "symlink", refuse)
    files = whole(sample, tmp_path)
    assert links_of(tmp_path) == {}
    files.delete()
    assert list(tmp_path.iterdir()) == []
