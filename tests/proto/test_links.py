"""Symbolic links of a torrent: whatever strangers write, none leads where it should not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtorrd.errors import InvalidMetainfo
from microtorrd.proto import bencode, metainfo
from microtorrd.proto.links import MOST_HOPS, MOST_TO_DIRECTORIES, settle, text_of
from microtorrd.proto.metainfo import FileEntry

Parts = tuple[str, ...]


def file(path: str) -> FileEntry:
    return FileEntry(("top", *path.split("/")), 1)


def link(path: str, target: str) -> FileEntry:
    return FileEntry(("top", *path.split("/")), 0, attributes="l", link=tuple(target.split("/")))


def ends(*files: FileEntry) -> dict[str, str]:
    """Where each link ends; "" for nowhere."""
    return {"/".join(entry.path[1:]): "/".join(entry.link) for entry in settle(files) if entry.is_link}


@pytest.mark.parametrize(
    ("path", "target", "end"),
    [
        ("l", "a", "a"),
        ("l", "sub/b", "sub/b"),
        ("l", "sub", "sub"),
        ("deep/er/l", "sub", "sub"),
        ("sub/l", "sub/b", "sub/b"),
        ("sub/l", "sub", ""),  # it lies in it
        ("sub/dir/l", "sub", ""),
        ("l", "l", ""),  # to itself
        ("l", "none", ""),
        ("l", "a/none", ""),  # below a file
        ("l", "sub/b/none", ""),
        ("l", "su", ""),
    ],
)
def test_a_link_leads_to_a_file_or_a_directory_of_the_torrent(path: str, target: str, end: str) -> None:
    assert ends(file("a"), file("sub/b"), file("sub/c"), link(path, target)) == {path: end}


def test_a_chain_ends_where_its_last_link_does() -> None:
    chain = [link("so", "so.1"), link("so.1", "so.1.2"), file("so.1.2"), link("x", "so")]
    assert set(ends(*chain).values()) == {"so.1.2"}
    through = [file("v1/data"), link("now", "v1"), link("data", "now/data"), link("dir/data", "data")]
    assert ends(*through) == {"now": "v1", "data": "v1/data", "dir/data": "v1/data"}
    # Through a link into a directory that the last one lies in.
    assert ends(file("v1/a"), link("now", "v1"), link("v1/l", "now")) == {"now": "v1", "v1/l": ""}


def test_directories_that_lead_into_each_other_are_no_way_to_go() -> None:
    both = [file("a/f"), file("b/f"), link("a/x", "b"), link("b/y", "a")]
    assert ends(*both) == {"a/x": "", "b/y": ""}
    # One that leads into such a circle, and one that leads to no more than a file in it.
    assert ends(*both, link("in", "a"), link("file", "a/f")) == {
        "a/x": "",
        "b/y": "",
        "in": "",
        "file": "a/f",
    }
    nested = [file("v1/lib/f"), link("v1/lib64", "v1/lib"), link("now", "v1"), link("x/now", "v1")]
    assert ends(*nested) == {"v1/lib64": "v1/lib", "now": "v1", "x/now": "v1"}
    many = [link(f"l{number}", "v1") for number in range(MOST_TO_DIRECTORIES)]
    assert all(ends(file("v1/f"), *many).values())
    assert not any(ends(file("v1/f"), *many, link("one more", "v1")).values())


def test_circles_and_dead_ends_are_not_made() -> None:
    circle = [file("a"), link("x", "y"), link("y", "z"), link("z", "x"), link("w", "x")]
    assert set(ends(*circle).values()) == {""}
    growing = [file("a"), link("x", "x2/b"), link("x2", "x")]
    assert set(ends(*growing).values()) == {""}
    assert ends(file("a"), link("x", "none"), link("y", "x")) == {"x": "", "y": ""}
    long = [link(f"l{number}", f"l{number + 1}") for number in range(MOST_HOPS + 2)]
    found = ends(*long, link(f"l{MOST_HOPS + 2}", "a"), file("a"))
    assert (found["l0"], found[f"l{MOST_HOPS}"]) == ("", "a")


@pytest.mark.parametrize(
    ("path", "target", "text"),
    [
        ("l", "a", "a"),
        ("l", "sub/b", "sub/b"),
        ("sub/l", "sub/b", "b"),
        ("sub/l", "a", "../a"),
        ("sub/dir/l", "other/x", "../../other/x"),
        ("sub/dir/l", "sub/x", "../x"),
        ("sub/l", "subx", "../subx"),
    ],
)
def test_what_is_written_in_a_link(path: str, target: str, text: str) -> None:
    assert text_of(tuple(path.split("/")), tuple(target.split("/"))) == text


NAMES = st.sampled_from(["a", "b", "c", "ab"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(tuple)


@settings(max_examples=100, deadline=None)
@given(st.lists(PATHS, min_size=1, max_size=5), st.dictionaries(PATHS, PATHS, max_size=6))
def test_on_disk_every_link_ends_in_the_torrent_without_another_link(
    tmp_path_factory: pytest.TempPathFactory, files: list[Parts], links: dict[Parts, Parts]
) -> None:
    """Made for real, of any tree and any links: the kernel is asked where they end."""
    entries: list[FileEntry] = []
    for path in [*files, *links]:
        taken = [entry.path[1:] for entry in entries]
        if all(path[: len(other)] != other and other[: len(path)] != path for other in taken):
            target = links.get(path)
            attributes = "" if target is None else "l"
            entries.append(FileEntry(("top", *path), 0, attributes=attributes, link=target or ()))
    top = tmp_path_factory.mktemp("any") / "top"
    settled = settle(tuple(entries))
    for entry in settled:
        place = top.joinpath(*entry.path[1:])
        if not entry.is_link:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
    made = [entry for entry in settled if entry.link]
    for entry in made:
        place = top.joinpath(*entry.path[1:])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(text_of(entry.path[1:], entry.link))
    for entry in made:
        place = top.joinpath(*entry.path[1:])
        end = Path(os.path.realpath(place))
        assert end == top.joinpath(*entry.link)  # nothing on the way is a link, or it would lie elsewhere
        assert end.is_relative_to(top) and end != top and (end.is_file() or end.is_dir())
        assert not place.parent.is_relative_to(end)
    # A walk that follows links comes to an end, or the kernel would give up on some path.
    for number, _ in enumerate(os.walk(top, followlinks=True)):
        assert number < 10_000


def torrent(*files: dict[str, Any]) -> bytes:
    info = {"name": "top", "piece length": 16384, "pieces": bytes(20), "files": list(files)}
    return bencode.encode({"info": info})


A_FILE = {"length": 5, "path": ["a"]}


@pytest.mark.parametrize(
    "target",
    [
        ["..", "..", "etc", "passwd"],
        ["/etc/passwd"],
        ["", "etc"],
        ["a", ".."],
        [],
        ["."],
        "a",
        [5],
        ["a", 5],
        ["a\0b"],
        [b"\xff" * 300],
        ["x"] * 4000,
    ],
)
def test_what_is_no_path_in_the_torrent_leads_nowhere(target: object) -> None:
    raw = torrent(A_FILE, {"attr": "l", "path": ["l"], "symlink path": target})
    assert [entry.link for entry in metainfo.parse(raw).files] == [(), ()]


def test_what_lies_beneath_a_link_is_refused() -> None:
    raw = torrent(
        A_FILE,
        {"attr": "l", "path": ["l"], "symlink path": ["a"]},
        {"length": 5, "path": ["l", "evil"]},
    )
    with pytest.raises(InvalidMetainfo, match="both a file and a directory"):
        metainfo.parse(raw)
    with pytest.raises(InvalidMetainfo, match="stands there twice"):
        metainfo.parse(torrent(A_FILE, {"attr": "l", "path": ["a"], "symlink path": ["a"]}))


def test_thousands_of_links_take_no_time() -> None:
    """In a row, in circles, and deep."""
    count = 5_000
    deep = tuple("d" * 1000)
    entries = [file("a"), FileEntry(("top", *deep), 1)]
    entries += [link(f"l{number:05}", f"l{number + 1:05}/x") for number in range(count)]
    entries += [FileEntry(("top", f"m{number}"), 0, attributes="l", link=deep[:-1]) for number in range(100)]
    settled = settle(tuple(entries))
    assert sum(bool(entry.link) for entry in settled) == 100
    circle = [link(f"d{number}/x", f"d{(number + 1) % 500}") for number in range(500)]
    settled = settle((*circle, *[file(f"d{number}/f") for number in range(500)]))
    assert not any(entry.link for entry in settled)
