"""Hashing whole content: against the plain definition, with files that change, vanish or cannot be read.

The tests run in a process that gevent has patched, where the hashing threads are greenlets; real threads are
tried in a process of their own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha1
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.disk.digest import CHUNK_BYTES, CHUNKS, Cancelled, hash_content, scan
from microtorrd.disk.listing import NOWHERE
from microtorrd.errors import InvalidMetainfo, NotAllowed, StorageError
from microtorrd.proto.metainfo import FileEntry, build, parse

MIB = 1 << 20


def bytes_of(size: int, seed: int = 0) -> bytes:
    """Bytes that differ from place to place, always the same."""
    block = b"".join(sha1(b"%d %d" % (seed, number)).digest() for number in range(1000))
    return (block * (size // len(block) + 1))[:size]


def plain(content: bytes, piece_length: int) -> tuple[bytes, bytes]:
    """What the hashes are, by definition."""
    pieces = [sha1(content[at : at + piece_length]).digest() for at in range(0, len(content), piece_length)]
    return b"".join(pieces), sha1(content).digest()


def files_of(directory: Path, *contents: bytes) -> list[tuple[str, int]]:
    files = []
    for number, content in enumerate(contents):
        path = directory / f"{number:04}"
        path.write_bytes(content)
        files.append((str(path), len(content)))
    return files


@pytest.mark.parametrize(
    ("size", "piece_length"),
    [
        (0, 16),
        (1, 16),
        (40, 16),
        (48, 16),
        (1000, 1),
        (3 * CHUNK_BYTES, CHUNK_BYTES),
        (3 * CHUNK_BYTES + 1, CHUNK_BYTES),
        (3 * CHUNK_BYTES - 1, CHUNK_BYTES - 1),
        (3 * CHUNK_BYTES, CHUNK_BYTES + 1),
        (5 * CHUNK_BYTES + 7, 2 * CHUNK_BYTES + 3),
        (2 * CHUNK_BYTES, 100_000),
        (2 * CHUNK_BYTES, CHUNK_BYTES // 2 + 1),
        (CHUNK_BYTES * (CHUNKS + 3), 16 * MIB),
        (100, 1 << 40),
    ],
)
@pytest.mark.parametrize("want_id_hash", [True, False])
def test_one_file_by_the_definition(tmp_path: Path, size: int, piece_length: int, want_id_hash: bool) -> None:
    content = bytes_of(size)
    pieces, id_hash = hash_content(
        files_of(tmp_path, content), piece_length, want_id_hash=want_id_hash, threads=3
    )
    expected_pieces, expected_id_hash = plain(content, piece_length)
    assert pieces == expected_pieces
    assert id_hash == (expected_id_hash if want_id_hash else None)


@given(st.lists(st.integers(0, 300), max_size=12), st.integers(1, 400))
def test_many_files_are_one_content_in_order(sizes: list[int], piece_length: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        contents = [bytes_of(size, seed) for seed, size in enumerate(sizes)]
        files = files_of(Path(directory), *contents)
        assert tuple(hash_content(files, piece_length)) == plain(b"".join(contents), piece_length)


def test_files_across_chunks(tmp_path: Path) -> None:
    contents = [bytes_of(size, size) for size in (CHUNK_BYTES - 1, 0, 2, 3 * CHUNK_BYTES + 5, 1, 0)]
    files = files_of(tmp_path, *contents)
    for piece_length in (16384, CHUNK_BYTES, CHUNK_BYTES + 1):
        assert tuple(hash_content(files, piece_length)) == plain(b"".join(contents), piece_length)


def test_progress_and_the_end_of_it(tmp_path: Path) -> None:
    size = 4 * CHUNK_BYTES + 10
    seen: list[int] = []
    hash_content(files_of(tmp_path, bytes_of(size)), 16384, on_progress=seen.append)
    assert seen == [CHUNK_BYTES * number for number in range(1, 5)] + [size]


def test_cancelling(tmp_path: Path) -> None:
    files = files_of(tmp_path, bytes_of(4 * CHUNK_BYTES))
    seen: list[int] = []
    with pytest.raises(Cancelled):
        hash_content(files, 16384, on_progress=seen.append, cancelled=lambda: len(seen) == 2)
    assert len(seen) == 2


def test_an_error_of_the_caller_ends_the_work(tmp_path: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hash_content(files_of(tmp_path, bytes_of(4 * CHUNK_BYTES)), 16384, on_progress=interrupt)


def test_a_piece_length_that_cannot_be_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    for size, piece_length in ((10, 0), (10, -1), (1 << 40, 1), (1 << 40, 1 << 40)):
        with pytest.raises(InvalidMetainfo) as caught:
            hash_content([(nowhere, size)], piece_length)
        assert caught.value.data == {"key": "info.piece length"}


# ------------------------------------------------------------------------------- files that are not as listed


def truncate(path: str) -> None:
    os.truncate(path, 10)


def grow(path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def rewrite(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("change", [truncate, grow, rewrite])
@pytest.mark.parametrize("last", [True, False])
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, change: Callable[[str], None], last: bool
) -> None:
    files = files_of(tmp_path, bytes_of(2 * CHUNK_BYTES), b"" if last else b"another")
    changed: list[int] = []

    def on_progress(done: int) -> None:
        if not changed:
            change(files[0][0])
            changed.append(done)

    with pytest.raises(StorageError, match="while it was read") as caught:
        hash_content(files, 16384, on_progress=on_progress)
    assert (caught.value.cause, caught.value.path) == ("changed", files[0][0])


@pytest.mark.parametrize("expected", [9, 11, 0])
def test_a_file_of_another_size_than_listed(tmp_path: Path, expected: int) -> None:
    [(path, _)] = files_of(tmp_path, b"0123456789")
    with pytest.raises(StorageError, match=f"10 bytes, where {expected}") as caught:
        hash_content([(path, expected)], 16)
    assert (caught.value.cause, caught.value.path) == ("changed", path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    files = [*files_of(tmp_path, b"here"), (str(tmp_path / "gone"), 0)]
    with pytest.raises(StorageError) as caught:
        hash_content(files, 16)
    assert (caught.value.cause, caught.value.path) == ("not_found", str(tmp_path / "gone"))


def test_a_fifo_in_the_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StorageError, match="no regular file") as caught:
        hash_content([(str(tmp_path / "fifo"), 10)], 16)
    assert caught.value.cause == "changed"


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    files_of(tmp_path, b"")
    (tmp_path / "loop").symlink_to("loop")
    for path, cause in ((tmp_path / "0000" / "below a file", "not_found"), (tmp_path / "loop", "io_error")):
        with pytest.raises(StorageError) as caught:
            hash_content([(str(path), 0)], 16)
        assert (caught.value.cause, caught.value.path) == (cause, str(path))
        assert str(path) in str(caught.value)


# --------------------------------------------------------------------------------------------- real threads

IN_ITS_OWN_PROCESS = """
import resource, sys, threading
from hashlib import sha1
from microtorrd.disk.digest import Cancelled, hash_content

assert "gevent" not in sys.modules and "socket" not in sys.modules
path, size = sys.argv[1], int(sys.argv[2])
content = open(path, "rb").read()
for piece_length in (16384, 1 << 20, 3 << 20, 100_000_000):
    expected = b"".join(
        sha1(content[at : at + piece_length]).digest() for at in range(0, size, piece_length)
    )
    assert hash_content([(path, size)], piece_length) == (expected, sha1(content).digest())
    for threads in (1, 2, 5):
        pieces = hash_content([(path, size)], piece_length, want_id_hash=False, threads=threads)
        assert pieces == (expected, None)
try:
    hash_content([(path, size)], 16384, cancelled=lambda: True)
except Cancelled:
    print("cancelled")
assert threading.active_count() == 1, threading.enumerate()
"""


def test_with_real_threads_and_without_gevent(tmp_path: Path) -> None:
    [(path, size)] = files_of(tmp_path, bytes_of(20 * CHUNK_BYTES + 77))
    ended = subprocess.run(
        [sys.executable, "-c", IN_ITS_OWN_PROCESS, path, str(size)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "cancelled\n", "")


# ---------------------------------------------------------------------------------------------------- scan


def tree(root: Path, **sizes: int) -> Path:
    for name, size in sizes.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes_of(size))
    return root


def test_a_single_file(tmp_path: Path) -> None:
    tree(tmp_path, one=5)
    listing = scan(str(tmp_path / "one"))
    assert listing.length == 5
    assert listing.sources == [(str(tmp_path / "one"), 5)]
    assert listing == (True, "one", [FileEntry(("one",), 5)], [str(tmp_path / "one")], [])


def test_a_directory_in_the_order_of_bytes(tmp_path: Path) -> None:
    root = tree(tmp_path / "dir", b=1, B=0, a__z=3, a__a__a=4, é=5, **{"a-": 6})
    (root / "empty directory").mkdir()
    listing = scan(str(root) + "/")
    assert (listing.is_single_file, listing.name) == (False, "dir")
    assert [entry.path[1:] for entry in listing.files] == [
        ("B",),
        ("a", "a", "a"),
        ("a", "z"),
        ("a-",),
        ("b",),
        ("é",),
    ]
    assert {entry.path[0] for entry in listing.files} == {"dir"}
    assert [os.path.getsize(path) for path in listing.paths] == [entry.length for entry in listing.files]
    assert listing.length == 19
    assert listing.sources[0] == (str(root / "B"), 0)
    assert listing.skipped == []


def test_the_name_never_depends_on_how_the_path_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path / "dir", a=1, sub__b=1)
    monkeypatch.chdir(root / "sub")
    assert scan("..") == scan(str(root)) == scan(f"{root}/sub/../")
    assert scan(".").name == "sub"
    assert scan("./b").name == "b"


def test_files_that_their_owner_may_execute_are_marked(tmp_path: Path) -> None:
    root = tree(tmp_path / "dir", a=1, b=1, c=1)
    for name, mode in (("a", 0o600), ("b", 0o755), ("c", 0o611)):
        (root / name).chmod(mode)
    assert [entry.attributes for entry in scan(str(root)).files] == ["", "x", ""]
    assert scan(str(root / "b")).files == [FileEntry(("b",), 1, attributes="x")]


def test_what_is_no_file_is_skipped_and_said(tmp_path: Path) -> None:
    root = tree(tmp_path / "dir", a=1, sub__b=1)
    os.mkfifo(root / "fifo")
    (root / "link to file").symlink_to("a")
    (root / "link to directory").symlink_to("sub")
    (root / "link to nothing").symlink_to("nothing")
    (root / "loop").symlink_to(".")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(root)  # the path of a socket has to be short
        listener.bind("socket")
        os.chdir(here)
    listing = scan(str(root))
    assert [entry.path[1:] for entry in listing.files] == [("a",), ("sub", "b")]
    assert [(os.path.basename(path), reason) for path, reason in listing.skipped] == [
        ("fifo", "a fifo"),
        ("link to directory", "a symbolic link"),
        ("link to file", "a symbolic link"),
        ("link to nothing", "a symbolic link"),
        ("loop", "a symbolic link"),
        ("socket", "a socket"),
    ]


def test_links_that_end_in_the_tree_are_listed_where_that_is_wished(tmp_path: Path) -> None:
    root = tree(tmp_path / "dir", a=1, sub__b=1, sub__deep__c=1)
    (tmp_path / "beside").mkdir()
    for name, target in (
        ("one", "a"),
        ("chain", "one"),
        ("sub/up", "../a"),
        ("sub/whole", str(root / "sub" / "deep")),
        ("zdir", "sub"),
        ("through", "zdir/b"),
        ("sub/deep/loop", ".."),
        ("top", "."),
        ("out", "../beside"),
        ("outside", "/etc"),
        ("dead", "nothing"),
        ("self", "self"),
    ):
        (root / name).symlink_to(target)
    (root / "empty").mkdir()
    (root / "to nothing in it").symlink_to("empty")
    listing = scan(str(root), links=True)
    assert {"/".join(entry.path[1:]): "/".join(entry.link) for entry in listing.files if entry.is_link} == {
        "one": "a",
        "chain": "a",
        "sub/up": "a",
        "sub/whole": "sub/deep",
        "zdir": "sub",
        "through": "sub/b",
    }
    assert [entry.path for entry in listing.files] == sorted(entry.path for entry in listing.files)
    places = zip(listing.paths, listing.files, strict=True)
    assert all((where == NOWHERE) == entry.is_link for where, entry in places)
    assert sorted(os.path.basename(path) for path, _ in listing.skipped) == sorted(
        ["loop", "top", "out", "outside", "dead", "self", "to nothing in it"]
    )
    raw = build(
        name=listing.name,
        piece_length=16384,
        files=listing.files,
        is_single_file=False,
        pieces=hash_content(listing.sources, 16384).pieces,
        id_hash=None,
        trackers=(),
    )
    assert parse(raw).files == tuple(listing.files)


def test_the_path_itself_may_be_a_link(tmp_path: Path) -> None:
    tree(tmp_path / "dir", a=1)
    (tmp_path / "link").symlink_to("dir")
    assert scan(str(tmp_path / "link")).files == [FileEntry(("link", "a"), 1)]


def test_nothing_to_share(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    os.mkfifo(tmp_path / "fifo")
    cases = ((tmp_path / "a", "no file in it"), (tmp_path / "fifo", "a fifo"), (Path("/"), "no name"))
    for path, reason in cases:
        with pytest.raises(NotAllowed, match=reason) as caught:
            scan(str(path))
        assert caught.value.data == {"path": str(path)}


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        scan(str(tmp_path / "nowhere"))
    assert (caught.value.cause, caught.value.path) == ("not_found", str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", [b"\xff", b"a\nb", b"\x1b[2J", b"\xe2\x80\xae"])
def test_a_name_that_would_not_come_back_is_refused(tmp_path: Path, name: bytes) -> None:
    root = tree(tmp_path / "dir", a=1)
    path = os.fsencode(root) + b"/" + name
    os.mkdir(path)
    with pytest.raises(NotAllowed, match="rename it") as caught:
        scan(str(root))
    assert str(caught.value).isprintable()


def test_a_path_longer_than_a_torrent_can_hold(tmp_path: Path) -> None:
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(17):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        Path("file").touch()
    finally:
        os.chdir(here)
    with pytest.raises(NotAllowed, match="longer than the 3072 bytes"):
        scan(str(tmp_path / ("d" * 200)))


def test_from_a_directory_to_metainfo_and_back(tmp_path: Path) -> None:
    root = tree(tmp_path / "dir", empty=0, one=1, sub__large=3 * CHUNK_BYTES + 1)
    listing = scan(str(root))
    pieces, id_hash = hash_content(listing.sources, 65536)
    torrent = parse(
        build(
            name=listing.name,
            piece_length=65536,
            files=listing.files,
            is_single_file=listing.is_single_file,
            pieces=pieces,
            id_hash=id_hash,
            trackers=[],
        )
    )
    assert torrent.files == tuple(listing.files)
    content = b"".join(Path(path).read_bytes() for path in listing.paths)
    assert torrent.id_hash == sha1(content).digest()
    for piece in range(torrent.piece_count):
        at = torrent.geometry.piece_offset(piece)
        assert torrent.piece_hash(piece) == sha1(content[at : at + 65536]).digest()
