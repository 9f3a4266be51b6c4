"""Metainfo: a folder of good and one of bad files, libtorrent as the second opinion, and hostile bytes."""

from __future__ import annotations

import json
from hashlib import sha1
from pathlib import Path
from typing import Any

import libtorrent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd import __version__
from microtorrd.errors import InvalidMetainfo
from microtorrd.proto import paths
from microtorrd.proto.bencode import decode, encode
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.metainfo import (
    DEFAULT_TRACKER,
    MAX_FILES,
    MAX_METAINFO_BYTES,
    FileEntry,
    Metainfo,
    build,
    choose_piece_length,
    parse,
)
from microtorrd.proto.metainfo_model import padding
from tests.corpus.make_metainfo import BAD, CONTENT, GOOD, HASHES

CORPUS = Path(__file__).parent.parent / "corpus"
GOOD_FILES = sorted((CORPUS / "good").iterdir())
BAD_FILES = sorted((CORPUS / "bad").iterdir())
ID_HASH = sha1(CONTENT).digest()
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def good(name: str) -> Metainfo:
    return parse((CORPUS / "good" / name).read_bytes())


def by_name(path: Path) -> str:
    return path.name


# ------------------------------------------------------------------------------------------- good files


@pytest.mark.parametrize("path", GOOD_FILES, ids=by_name)
def test_every_good_file_is_consistent(path: Path) -> None:
    torrent = parse(path.read_bytes())
    assert sum(entry.length for entry in torrent.files) == torrent.length
    assert torrent.geometry == Geometry(torrent.length, torrent.piece_length, padding(torrent.files))
    assert torrent.piece_count == torrent.geometry.piece_count
    assert torrent.info_hash == sha1(torrent.raw_info).digest()
    assert torrent.raw_info in path.read_bytes()
    assert torrent.swarm_ids == tuple(filter(None, (torrent.info_hash, torrent.id_hash)))
    assert all(entry.path[0] == torrent.name for entry in torrent.files)
    assert torrent.is_single_file is ([entry.path for entry in torrent.files] == [(torrent.name,)])
    assert json.loads(json.dumps(torrent.name)) == torrent.name
    assert all(part.isprintable() for entry in torrent.files for part in entry.path)


#: libtorrent refuses content of no bytes and pieces without end, and does not know the other dialect.
NOT_THEIRS = ("empty.torrent", "piece_longer_than_content.torrent")
SECOND_OPINION = [
    path for path in GOOD_FILES if not path.name.startswith("original_") and path.name not in NOT_THEIRS
]


@pytest.mark.parametrize("path", SECOND_OPINION, ids=by_name)
def test_libtorrent_agrees(path: Path) -> None:
    torrent = parse(path.read_bytes())
    theirs = libtorrent.torrent_info(path.read_bytes().rstrip(b"\n"))
    assert theirs.info_hashes().v1.to_bytes() == torrent.info_hash
    assert theirs.piece_length() == torrent.piece_length
    assert theirs.num_pieces() == torrent.piece_count
    assert [theirs.hash_for_piece(piece) for piece in range(torrent.piece_count)] == [
        torrent.piece_hash(piece) for piece in range(torrent.piece_count)
    ]
    assert theirs.total_size() == torrent.length
    assert theirs.priv() is torrent.private


def test_the_recorded_file_of_the_original() -> None:
    torrent = good("original_small.txt.mtorrent")
    assert torrent.dialect == "original"
    assert torrent.name == "small.txt"
    assert torrent.pieces == HASHES
    assert torrent.id_hash is not None
    assert torrent.id_hash.hex() == "641057d4a3c5f2069380fcfa32ec3f7ea59566ca"
    assert torrent.trackers == (("http://127.0.0.1:8888/announce",),)
    assert torrent.info_hash.hex() == "0c08853d7799a7e6fc0b2a55cd9bdcfed5603b99"
    assert torrent.is_single_file


@pytest.mark.parametrize("name", ["lower_case", "upper_hex", "trailing", "typed_path", "without_id"])
def test_variants_of_the_original_mean_the_same(name: str) -> None:
    torrent = good(f"original_{name}.mtorrent")
    assert torrent.dialect == "original"
    assert torrent.files == (FileEntry(("small.txt",), 40),)
    assert torrent.pieces == HASHES
    assert torrent.id_hash == (None if name == "without_id" else ID_HASH)


@pytest.mark.parametrize(
    ("announce", "expected"),
    [
        ("http://h:1", "http://h:1/announce"),
        ("http://h:1/", "http://h:1/announce"),
        ("http://h:1/announce", "http://h:1/announce"),
        ("http://h:1/announce/key", "http://h:1/announce/key"),
        ("http://h:1/sub?k=1", "http://h:1/sub/announce?k=1"),
        ("http://announce.example/", "http://announce.example/announce"),
    ],
)
def test_the_tracker_of_the_original_gets_its_path(announce: str, expected: str) -> None:
    top = decode((CORPUS / "good" / "original_small.txt.mtorrent").read_bytes())
    assert isinstance(top, dict)
    assert parse(encode({**top, b"Announce": announce})).trackers == ((expected,),)
    assert parse(encode({**top, b"Announce": ""})).trackers == ()
    assert parse(encode({b"Info": top[b"Info"]})).trackers == ()


def test_dialects_are_told_apart() -> None:
    assert good("microtorr.mtorrent").dialect == "microtorr"
    assert good("microtorr.mtorrent").id_hash == ID_HASH
    assert good("single.torrent").dialect == "bittorrent"
    assert good("single.torrent").id_hash is None
    assert good("hybrid.torrent").dialect == "bittorrent"


def test_tiers() -> None:
    assert good("tiers.torrent").trackers == (("http://a/x", "udp://b:1"), ("http://c/",), ("http://d",))
    assert good("announce_list_empty.torrent").trackers == (("http://tracker.example/announce",),)
    assert good("names_utf8_keys.torrent").trackers == ()


def test_web_seeds() -> None:
    assert good("web_seed_text.torrent").web_seeds == ("http://seed/",)
    assert good("web_seed_list.torrent").web_seeds == ("http://seed/1", "http://seed/2")
    assert good("web_seed_blank.torrent").web_seeds == ()


def test_ornaments_are_safe_to_show_and_never_in_the_way() -> None:
    torrent = good("ornaments.torrent")
    assert torrent.comment == "two\nlines\ufffd[2J"
    assert (torrent.created_by, torrent.creation_date, torrent.private) == ("somebody", 1234567890, True)
    torrent = good("ornaments_of_no_use.torrent")
    assert (torrent.comment, torrent.created_by, torrent.creation_date) == ("", "", None)


def test_names_are_made_printable_and_stay_the_same_otherwise() -> None:
    assert [entry.path for entry in good("names_not_utf8.torrent").files] == [
        ("small.txt", "caf%E9"),
        ("small.txt", "bell%07%1B[31m"),
    ]
    assert good("names_backslash.torrent").name == "a\\b"
    assert good("names_utf8_keys.torrent").files == (FileEntry(("国", "中"), 40),)


def test_padding_is_marked_and_has_paths_of_its_own() -> None:
    entries = good("padding.torrent").files
    assert [entry.is_padding for entry in entries] == [False, True, False, True]
    assert len({entry.path for entry in entries}) == 4


def test_content_of_no_bytes_has_no_pieces() -> None:
    torrent = good("empty.torrent")
    assert (torrent.length, torrent.piece_count, torrent.pieces) == (0, 0, b"")
    assert good("original_empty.mtorrent").piece_count == 0


def test_piece_hashes() -> None:
    torrent = good("single.torrent")
    assert [torrent.piece_hash(piece) for piece in range(3)] == [HASHES[:20], HASHES[20:40], HASHES[40:]]
    for piece in (-1, 3):
        with pytest.raises(IndexError):
            torrent.piece_hash(piece)


# -------------------------------------------------------------------------------------------- bad files


@pytest.mark.parametrize("path", BAD_FILES, ids=by_name)
def test_every_bad_file_is_refused_and_the_key_named(path: Path) -> None:
    key = path.name.partition("__")[0]
    with pytest.raises(InvalidMetainfo) as caught:
        parse(path.read_bytes())
    assert caught.value.data == {"key": key}
    assert str(caught.value).startswith(f"{key}: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_the_corpus_on_disk_is_the_one_that_is_written_down() -> None:
    assert {path.name for path in BAD_FILES} == {f"{name}.torrent" for name in BAD}
    assert {path.name for path in GOOD_FILES} == {*GOOD, "original_small.txt.mtorrent"}
    for name, raw in GOOD.items():
        assert (CORPUS / "good" / name).read_bytes() == raw
    for name, raw in BAD.items():
        assert (CORPUS / "bad" / f"{name}.torrent").read_bytes() == raw


def test_a_file_beyond_the_largest_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidMetainfo, match=f"at most {MAX_METAINFO_BYTES}"):
        parse(b"d4:info" + bytes(MAX_METAINFO_BYTES))


def test_too_many_files_are_refused() -> None:
    info = {"files": [{}] * (MAX_FILES + 1), "name": "a", "piece length": 1, "pieces": b""}
    with pytest.raises(InvalidMetainfo, match=f"at most {MAX_FILES}") as caught:
        parse(encode({"info": info}))
    assert caught.value.data == {"key": "info.files"}


@given(st.sampled_from(sorted(GOOD)), st.data())
def test_damaged_files_load_or_are_refused(name: str, data: st.DataObject) -> None:
    raw = bytearray(GOOD[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    loads_or_is_refused(bytes(raw))


LEAVES = (
    st.integers(-(2**63), 2**63) | st.binary(max_size=5) | st.sampled_from([b"..", b"/", b"a" * 256, HASHES])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.binary(max_size=3), inner, max_size=2),
)


@given(st.sampled_from(sorted(GOOD)), st.data())
def test_values_of_any_type_anywhere_load_or_are_refused(name: str, data: st.DataObject) -> None:
    top = decode(GOOD[name].rstrip(b"\n").removesuffix(b"anything"))
    spots = list(places(top))
    put, _ = data.draw(st.sampled_from(spots))
    put(data.draw(VALUES))
    loads_or_is_refused(encode(top))


def places(value: Any) -> Any:
    """Every place in a decoded value: how to put something else there, and what is there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:

        def put(replacement: Any, key: Any = key) -> None:
            value[key] = replacement

        yield put, value[key]
        yield from places(value[key])


def loads_or_is_refused(raw: bytes) -> None:
    try:
        torrent = parse(raw)
    except InvalidMetainfo as error:
        assert error.data["key"]
        return
    assert len(torrent.pieces) == 20 * torrent.geometry.piece_count
    assert sum(entry.length for entry in torrent.files) == torrent.length
    for entry in torrent.files:
        for part in entry.path:
            assert part not in ("", ".", "..")
            assert not set(part) & set("/\0")
            assert len(part.encode()) <= 255


# ------------------------------------------------------------------------------------------------ names


@given(st.binary(max_size=300))
def test_a_clean_part_is_safe_printable_and_stable(raw: bytes) -> None:
    try:
        part = paths.clean_part(raw, "key")
    except InvalidMetainfo as error:
        assert raw in (b"", b".", b"..") or b"/" in raw or b"\0" in raw or len(raw) > 80
        assert error.data == {"key": "key"}
        return
    assert paths.is_clean(part)
    assert paths.clean_part(part.encode(), "key") == part
    assert not set(part) & set("/\0\n\r\x1b\x9b\u2028\u202e")


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("plain name.txt", "plain name.txt"),
        ("naïve 日本語 🎉", "naïve 日本語 🎉"),
        ("e\u0301", "e\u0301"),
        ("tab\there", "tab%09here"),
        ("exe.\u202etxt", "exe.%E2%80%AEtxt"),
        ("c1\u009b", "c1%C2%9B"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("100%41", "100%41"),
        ("...", "..."),
        ("a\\..\\b", "a\\..\\b"),
    ],
)
def test_clean_names(raw: str, name: str) -> None:
    assert paths.clean_part(raw.encode(), "key") == name


@given(st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map(tuple), max_size=5))
def test_distinct_paths_by_the_plain_definition(some: list[tuple[str, ...]]) -> None:
    clash = any(
        first != second and some[second][: len(some[first])] == some[first]
        for first in range(len(some))
        for second in range(len(some))
    )
    if clash:
        with pytest.raises(InvalidMetainfo):
            paths.check_distinct(some, str)
    else:
        paths.check_distinct(some, str)


# ---------------------------------------------------------------------------------------------- writing


def built(**changes: Any) -> bytes:
    arguments: dict[str, Any] = {
        "name": "small.txt",
        "piece_length": 16,
        "files": [FileEntry(("small.txt",), 40)],
        "is_single_file": True,
        "pieces": HASHES,
        "id_hash": ID_HASH,
        "trackers": [[DEFAULT_TRACKER]],
    }
    return build(**{**arguments, **changes})


def test_what_is_built_is_known_to_the_byte() -> None:
    assert built() == (
        b"d8:announce30:http://127.0.0.1:8888/announce"
        b"10:created by%d:microtorrd/%s"
        % (len(f"microtorrd/{__version__}"), __version__.encode())
        + b"4:infod7:id_hash20:"
        + ID_HASH
        + b"6:lengthi40e4:name9:small.txt12:piece lengthi16e6:pieces60:"
        + HASHES
        + b"ee"
    )


def test_everything_built_reads_back() -> None:
    files = (
        FileEntry(("dir", "a", "b"), 10),
        FileEntry(("dir", ".pad", "1"), 6, is_padding=True),
        FileEntry(("dir", "c"), 24),
        FileEntry(("dir", "empty"), 0),
    )
    tiers = (("http://a/announce", "udp://b:1"), ("http://c/announce",))
    torrent = parse(
        built(
            name="dir",
            files=files,
            is_single_file=False,
            trackers=tiers,
            private=True,
            web_seeds=["http://seed/"],
            comment="grüße",
            creation_date=5,
        )
    )
    assert torrent.dialect == "microtorr"
    assert torrent.name == "dir"
    assert torrent.files == files
    assert not torrent.is_single_file
    assert torrent.pieces == HASHES
    assert torrent.id_hash == ID_HASH
    assert torrent.trackers == tiers
    assert torrent.private
    assert torrent.web_seeds == ("http://seed/",)
    assert (torrent.comment, torrent.creation_date) == ("grüße", 5)
    assert torrent.created_by == f"microtorrd/{__version__}"


def test_the_same_arguments_give_the_same_bytes() -> None:
    assert built() == built()
    top, lonely = decode(built()), decode(built(trackers=[]))
    assert isinstance(top, dict)
    assert sorted(top) == [b"announce", b"created by", b"info"]
    assert isinstance(lonely, dict)
    assert sorted(lonely) == [b"created by", b"info"]


def test_libtorrent_reads_what_is_built() -> None:
    raw = built(
        trackers=[["http://a/announce"], ["http://b/announce"]], private=True, web_seeds=["http://s/"]
    )
    theirs = libtorrent.torrent_info(raw)
    assert theirs.info_hashes().v1.to_bytes() == parse(raw).info_hash
    assert theirs.name() == "small.txt"
    assert theirs.priv()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"name": "other"}, "info.name"),
        ({"name": "a/b", "files": [FileEntry(("a/b",), 40)]}, "info.name"),
        ({"name": "\udcff", "files": [FileEntry(("\udcff",), 40)]}, "info.name"),
        ({"name": "a\n", "files": [FileEntry(("a\n",), 40)]}, "info.name"),
        ({"files": [FileEntry(("small.txt",), 41)], "piece_length": 1}, "info.pieces"),
        ({"is_single_file": False}, "info.files[0].path"),
        ({"is_single_file": False, "files": [FileEntry(("small.txt", "a\x1b"), 40)]}, "info.files[0].path"),
        ({"is_single_file": False, "files": []}, "info.files"),
        ({"piece_length": 0}, "info.piece length"),
        ({"pieces": b""}, "info.pieces"),
        ({"id_hash": b"short"}, "info.id_hash"),
        ({"trackers": [["http://a b/"]]}, "announce"),
        ({"comment": "\ud800"}, "metainfo"),
    ],
)
def test_what_would_not_read_back_is_not_built(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidMetainfo) as caught:
        built(**changes)
    assert caught.value.data == {"key": key}


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (0, 16 * KIB),
        (1, 16 * KIB),
        (31 * MIB, 16 * KIB),
        (32 * MIB, 32 * KIB),
        (100 * MIB, 64 * KIB),
        (1 * GIB, 1 * MIB),
        (4 * GIB, 4 * MIB),
        (31 * GIB, 16 * MIB),
        (1000 * GIB, 16 * MIB),
    ],
)
def test_known_choices_of_a_piece_length(total: int, expected: int) -> None:
    assert choose_piece_length(total) == expected


@given(st.integers(32 * MIB, 31 * GIB))
def test_a_chosen_piece_length_makes_one_to_two_thousand_pieces(total: int) -> None:
    assert 1000 < Geometry(total, choose_piece_length(total)).piece_count <= 2000
