"""A metainfo file around an info dictionary that came from elsewhere."""

from __future__ import annotations

from hashlib import sha1

import pytest

from microtorrd.errors import InvalidMetainfo
from microtorrd.proto.metainfo import FileEntry, build, parse, wrap

OURS = build(
    name="thing",
    piece_length=16384,
    files=[FileEntry(("thing",), 5)],
    is_single_file=True,
    pieces=bytes(20),
    id_hash=b"i" * 20,
    trackers=[],
    private=True,
)
#: Keys in no order: nothing may be written anew.
UNSORTED = b"d4:name5:thing12:piece lengthi5e6:pieces20:" + bytes(20) + b"6:lengthi5ee"
ORIGINAL = b"d2:Id0:6:Lengthi5e4:Name5:thing12:Piece_lengthi5e7:Sha1sum40:" + b"0" * 40 + b"e"


@pytest.mark.parametrize("raw_info", [parse(OURS).raw_info, UNSORTED, ORIGINAL])
def test_it_reads_as_the_same_torrent(raw_info: bytes) -> None:
    tiers = [["http://a/announce"], ["udp://b:1", "udp://c:1"]]
    meta = parse(wrap(raw_info, trackers=tiers, web_seeds=["https://w/"]))
    assert (meta.name, meta.length, meta.raw_info) == ("thing", 5, raw_info)
    assert meta.info_hash == sha1(raw_info).digest()
    if raw_info != ORIGINAL:  # whose reader knows one tracker and no web seeds
        assert meta.trackers == (("http://a/announce",), ("udp://b:1", "udp://c:1"))
        assert meta.web_seeds == ("https://w/",)
    bare = parse(wrap(raw_info))
    assert (bare.info_hash, bare.trackers, bare.web_seeds) == (meta.info_hash, (), ())


def test_privacy_and_the_id_of_the_content_come_with_it() -> None:
    meta = parse(wrap(parse(OURS).raw_info, trackers=[["http://a/announce"]]))
    assert (meta.private, meta.id_hash, meta.dialect) == (True, b"i" * 20, "microtorr")


@pytest.mark.parametrize(
    "raw_info", [b"", b"le", b"i5e", UNSORTED + b"8:url-list1:x", UNSORTED[:-1], b"garbage"]
)
def test_what_is_no_dictionary_and_nothing_else_is_refused(raw_info: bytes) -> None:
    with pytest.raises(InvalidMetainfo):
        wrap(raw_info)
