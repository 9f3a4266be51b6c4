"""What a start needs of metainfo, packed: it says the same, and is believed beside those very bytes only."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd import gist
from microtorrd.gist import Words
from microtorrd.proto import metainfo
from microtorrd.proto.metainfo import FileEntry, build

GOOD = sorted((Path(__file__).parent / "corpus" / "good").iterdir())


def plain(name: str = "file", length: int = 5) -> bytes:
    return build(
        name=name,
        piece_length=16384,
        files=[FileEntry((name,), length)],
        is_single_file=True,
        pieces=bytes(20),
        id_hash=None,
        trackers=[["http://t/announce"]],
        comment="of many",
        creation_date=7,
    )


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.name)
def test_it_says_what_the_metainfo_says(path: Path) -> None:
    raw = path.read_bytes()
    meta = metainfo.parse(raw)
    packed = gist.pack(meta, raw, meta.name)
    assert packed is not None
    known = gist.unpack(packed, raw, meta.name)
    assert known is not None
    words = known.words
    assert (words.files or (FileEntry((meta.name,), meta.length),)) == meta.files
    said = (words.trackers, words.web_seeds, words.private, words.is_single_file, words.dialect)
    assert said == (meta.trackers, meta.web_seeds, meta.private, meta.is_single_file, meta.dialect)
    assert (words.comment, words.created_by) == (meta.comment, meta.created_by)
    assert (known.info_bytes, known.creation_date) == (len(meta.raw_info), meta.creation_date)
    assert words == Words.of(meta, meta.name)


def test_it_is_believed_beside_those_very_bytes_only() -> None:
    raw = plain()
    packed = gist.pack(metainfo.parse(raw), raw, "file")
    assert packed is not None
    assert gist.unpack(packed, raw, "file") is not None
    assert gist.unpack(packed, raw[:-1], "file") is None
    assert gist.unpack(packed, raw.replace(b"of many", b"of mamy"), "file") is None
    assert gist.unpack(packed, b"", "file") is None


def test_it_is_believed_of_that_name_only() -> None:
    raw = plain()
    packed = gist.pack(metainfo.parse(raw), raw, "file")
    assert packed is not None
    assert gist.unpack(packed, raw, "file") is not None
    assert gist.unpack(packed, raw, "fill") is None


@pytest.mark.parametrize(("what", "other"), [("VERSION", b"\x00"), ("_PACKER", b"0.0.9\0")])
def test_one_of_another_version_is_not_read(what: str, other: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = plain()
    packed = gist.pack(metainfo.parse(raw), raw, "file")
    assert packed is not None
    monkeypatch.setattr(gist, what, other)
    assert gist.unpack(packed, raw, "file") is None


@given(at=st.integers(0, 200), other=st.integers(0, 255), length=st.integers(0, 200))
def test_one_that_is_damaged_is_not_believed(at: int, other: int, length: int) -> None:
    raw = plain()
    packed = gist.pack(metainfo.parse(raw), raw, "file")
    assert packed is not None
    damaged = bytearray(packed)
    damaged[at % len(packed)] = other
    for bad in (bytes(damaged), packed[: length % len(packed)], packed + b"\x00"):
        assert bad == packed or gist.unpack(bad, raw, "file") is None


def test_torrents_that_say_the_same_share_their_words() -> None:
    words = []
    for number in range(2):
        raw = plain(f"file-{number}")
        packed = gist.pack(metainfo.parse(raw), raw, f"file-{number}")
        assert packed is not None
        known = gist.unpack(packed, raw, f"file-{number}")
        assert known is not None
        words.append(known.words)
    assert words[0] is words[1]
    assert words[0].files == ()


def test_a_single_file_under_another_name_keeps_its_own() -> None:
    raw = plain("file")
    meta = metainfo.parse(raw)
    assert Words.of(meta, "else").files == (FileEntry(("file",), 5),)


def test_very_many_files_are_not_packed() -> None:
    files = [FileEntry(("d", f"{number:0200}"), 0) for number in range(400)]
    raw = build(
        name="d",
        piece_length=16384,
        files=[*files, FileEntry(("d", "one"), 1)],
        is_single_file=False,
        pieces=bytes(20),
        id_hash=None,
        trackers=[],
    )
    assert gist.pack(metainfo.parse(raw), raw, "d") is None
