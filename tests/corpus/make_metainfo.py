"""Writes the metainfo files of `good/` and `bad/` anew: `python -m tests.corpus.make_metainfo`.

A bad file is named `KEY__what_is_wrong.torrent`: KEY is what the refusal must name. The recorded file of the
original program in `good/` is not made here.
"""

from __future__ import annotations

from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

from microtorrd.proto.bencode import encode

HERE = Path(__file__).parent
CONTENT = b"Hello, MicroTorr! This is a 40-byte file"
HASHES = b"".join(sha1(CONTENT[at : at + 16]).digest() for at in range(0, 40, 16))
INFO: dict[str, Any] = {"length": 40, "name": "small.txt", "piece length": 16, "pieces": HASHES}
ORIGINAL: dict[str, Any] = {
    "Id": sha1(CONTENT).hexdigest(),
    "Length": 40,
    "Name": "small.txt",
    "Piece_length": 16,
    "Sha1sum": HASHES.hex(),
}
URL = "http://tracker.example/announce"


def info(top: dict[str, Any] | None = None, /, **changes: Any) -> bytes:
    """A file whose info dictionary has these changes (`_` for a blank in a key; None takes the key out)."""
    values = {**INFO, **{key.replace("_", " "): value for key, value in changes.items()}}
    return encode({"announce": URL, **(top or {}), "info": present(values)})


def files(*entries: Any, **changes: Any) -> bytes:
    return info(length=None, files=list(entries), **changes)


def file(length: Any, *path: Any, **more: Any) -> dict[str, Any]:
    return {"length": length, "path": list(path), **more}


def original(**changes: Any) -> bytes:
    return encode({"Announce": "http://127.0.0.1:8888", "Info": present({**ORIGINAL, **changes})})


def present(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


GOOD: dict[str, bytes] = {
    "microtorr.mtorrent": encode({"announce": URL, "info": {**INFO, "id_hash": sha1(CONTENT).digest()}}),
    "single.torrent": info(),
    "single_with_line_break.torrent": info() + b"\n",
    "empty.torrent": info(length=0, pieces=b""),
    "piece_longer_than_content.torrent": info(piece_length=1 << 40, pieces=sha1(CONTENT).digest()),
    "unsorted_keys.torrent": b"d4:infod4:name9:small.txt6:lengthi40e6:pieces60:"
    + HASHES
    + b"12:piece lengthi16ee8:announce"
    + encode(URL)
    + b"e",
    "multi.torrent": files(file(39, "a", "b.txt"), file(0, "a", "empty"), file(1, "c")),
    "multi_upper_and_lower.torrent": files(file(20, "readme"), file(20, "README")),
    "padding.torrent": files(
        file(10, "a"), file(6, ".pad", "6", attr="p"), file(18, "b"), file(6, ".pad", "6", attr="p")
    ),
    "symbolic_link.torrent": files(file(40, "a"), {"path": ["link"], "attr": "l", "symlink path": ["a"]}),
    "names_not_utf8.torrent": files(file(20, b"caf\xe9"), file(20, b"bell\x07\x1b[31m")),
    "names_utf8_keys.torrent": encode(
        {
            "info": {
                "files": [{"length": 40, "path": [b"\xc4\xd0"], "path.utf-8": ["中"]}],
                "name": b"\xb9\xfa",
                "name.utf-8": "国",
                "piece length": 16,
                "pieces": HASHES,
            }
        }
    ),
    "names_backslash.torrent": info(name="a\\b"),
    "tiers.torrent": info(
        {"announce-list": [["http://a/x", "udp://b:1"], [], ["http://a/x", " http://c/ "], "http://d"]}
    ),
    "announce_list_empty.torrent": info({"announce-list": [[""]]}),
    "web_seed_text.torrent": info({"url-list": "http://seed/"}),
    "web_seed_list.torrent": info({"url-list": ["http://seed/1", "", "http://seed/2"]}),
    "web_seed_blank.torrent": info({"url-list": ""}),
    "ornaments.torrent": info(
        {"comment": "two\nlines\x1b[2J", "created by": "somebody", "creation date": 1234567890}, private=1
    ),
    "ornaments_of_no_use.torrent": info({"comment": 5, "created by": [], "creation date": "yesterday"}),
    "hybrid.torrent": info(
        {"piece layers": {}},
        piece_length=16384,
        pieces=sha1(CONTENT).digest(),
        meta_version=2,
        # The root of a tree of one block is that block's hash (BEP 52).
        file_tree={"small.txt": {"": {"length": 40, "pieces root": sha256(CONTENT).digest()}}},
    ),
    "original_lower_case.mtorrent": encode(
        {"announce": "http://127.0.0.1:8888", "info": {key.lower(): value for key, value in ORIGINAL.items()}}
    ),
    "original_upper_hex.mtorrent": original(Sha1sum=HASHES.hex().upper(), Id=ORIGINAL["Id"].upper()),
    "original_trailing.mtorrent": original() + b"anything",
    "original_typed_path.mtorrent": original(Name="./sub/small.txt"),
    "original_without_id.mtorrent": original(Id=None),
    "original_empty.mtorrent": original(Length=0, Sha1sum=""),
}

BAD: dict[str, bytes] = {
    # the file as a whole
    "metainfo__empty": b"",
    "metainfo__html": b"<!DOCTYPE html><title>404</title>",
    "metainfo__list": b"le",
    "metainfo__truncated": info()[:-30],
    "metainfo__trailing_bytes": info() + b"i1e",
    "metainfo__nesting_bomb": b"d4:info" + b"l" * 5000 + b"e" * 5000 + b"e",
    "metainfo__unclosed_nesting_bomb": b"d4:info" * 2000,
    "metainfo__key_twice": b"d4:infode4:infodee",
    "metainfo__string_past_the_end": b"9999999999999:a",
    "metainfo__number_not_canonical": b"d4:infod6:lengthi040eee",
    "info__missing": b"de",
    "info__number": b"d4:infoi1ee",
    "info__list": b"d4:infolee",
    # names
    "info.name__missing": info(name=None),
    "info.name__number": info(name=7),
    "info.name__empty": info(name=""),
    "info.name__dot": info(name="."),
    "info.name__dot_dot": info(name=".."),
    "info.name__absolute": info(name="/etc/passwd"),
    "info.name__climbs": info(name="../../etc/passwd"),
    "info.name__has_directories": info(name="a/b"),
    "info.name__nul": info(name="a\0b"),
    "info.name__too_long": info(name="n" * 256),
    "info.name__too_long_after_cleaning": info(name="\x01" * 86),
    "info.name.utf-8__climbs": encode({"info": {**INFO, "name.utf-8": "../x"}}),
    "info.files[0].path__empty_list": files(file(40)),
    "info.files[0].path__empty_part": files(file(40, "a", "")),
    "info.files[0].path__dot_dot": files(file(40, "a", "..", "..", "b")),
    "info.files[0].path__dot": files(file(40, ".")),
    "info.files[0].path__absolute": files(file(40, "/etc", "passwd")),
    "info.files[0].path__slash": files(file(40, "a/../../b")),
    "info.files[0].path__nul": files(file(40, "a\0")),
    "info.files[0].path__number_in_it": files(file(40, "a", 1)),
    "info.files[0].path__text": files({"length": 40, "path": "a"}),
    "info.files[0].path__missing": files({"length": 40}),
    "info.files[0].path__too_long": files(file(40, *["d" * 200] * 16)),
    "info.files[0].path.utf-8__dot_dot": files({"length": 40, "path": ["a"], "path.utf-8": [".."]}),
    "info.files[1].path__twice": files(file(20, "a", "b"), file(20, "a", "b")),
    "info.files[1].path__twice_after_cleaning": files(file(20, b"\xff"), file(20, "%FF")),
    "info.files[0].path__file_and_directory": files(file(20, "a"), file(20, "a", "b", "c")),
    "info.files[2].path__directory_and_file": files(
        file(20, "a", "b", "c"), file(1, "a "), file(19, "a", "b")
    ),
    # lengths
    "info.length__missing": info(length=None),
    "info.length__negative": info(length=-1),
    "info.length__absurd": info(length=1 << 53),
    "info.length__text": info(length="40"),
    "info.length__beside_files": info(files=[file(40, "a")]),
    "info.files__empty": files(),
    "info.files__text": info(length=None, files="a"),
    "info.files__absurd_sum": files(file((1 << 53) - 1, "a"), file((1 << 53) - 1, "b")),
    "info.files[0]__text": files("a"),
    "info.files[1].length__negative": files(file(41, "a"), file(-1, "b")),
    "info.files[0].length__missing": files({"path": ["a"]}),
    "info.piece length__missing": info(piece_length=None),
    "info.piece length__zero": info(piece_length=0),
    "info.piece length__negative": info(piece_length=-16),
    "info.piece length__text": info(piece_length="16"),
    "info.piece length__too_many_pieces": info(length=1 << 50),
    "info.piece length__pieces_too_large": info(length=1 << 40, piece_length=1 << 40, pieces=b"h" * 20),
    "info.pieces__missing": info(pieces=None),
    "info.pieces__number": info(pieces=3),
    "info.pieces__not_whole_hashes": info(pieces=HASHES[:-1]),
    "info.pieces__one_too_few": info(pieces=HASHES[:40]),
    "info.pieces__one_too_many": info(pieces=HASHES + b"h" * 20),
    "info.pieces__some_for_nothing": info(length=0),
    # the rest
    "info.id_hash__hexadecimal": encode({"info": {**INFO, "id_hash": "ab" * 20}}),
    "info.id_hash__number": encode({"info": {**INFO, "id_hash": 1}}),
    "info.private__text": info(private="1"),
    "info.meta version__v2_only": encode(
        {"info": {"file tree": {}, "meta version": 2, "name": "a", "piece length": 16384}}
    ),
    "announce__number": info({"announce": 1}),
    "announce__control_characters": info({"announce": "http://a/\r\nHost: b"}),
    "announce__not_utf8": info({"announce": b"http://\xff/"}),
    "announce__too_long": info({"announce": "http://a/" + "a" * 4096}),
    "announce-list__text": info({"announce-list": "http://a"}),
    "announce-list[0]__number_in_it": info({"announce-list": [[1]]}),
    "announce-list[1]__number": info({"announce-list": [["http://a"], 7]}),
    "announce-list[0]__too_many": info({"announce-list": [[f"http://a/{n}" for n in range(1001)]]}),
    "url-list__dictionary": info({"url-list": {}}),
    # the original's dialect
    "Info.Name__climbs": original(Name="../escaped.bin"),
    "Info.Name__climbs_in_the_middle": original(Name="a/../b"),
    "Info.Name__absolute": original(Name="/tmp/escaped.bin"),
    "Info.Name__ends_in_a_slash": original(Name="sub/"),
    "Info.Name__nul": original(Name="a\0b"),
    "Info.Name__missing": original(Name=None),
    "Info.Length__negative": original(Length=-1),
    "Info.Length__missing": original(Length=None),
    "Info.Length__absurd": original(Length=1 << 60),
    "Info.Piece_length__zero": original(Piece_length=0),
    "Info.Piece_length__negative": original(Piece_length=-1),
    "Info.Sha1sum__length_does_not_fit": original(Length=1000),
    "Info.Sha1sum__one_too_many": original(Sha1sum=HASHES.hex() + "0" * 40),
    "Info.Sha1sum__missing": original(Sha1sum=None),
    "Info.Sha1sum__short": original(Sha1sum=HASHES.hex()[:-2]),
    "Info.Sha1sum__not_hexadecimal": original(Sha1sum="zz" * 60),
    "Info.Sha1sum__blanks": original(Sha1sum=" " * 120),
    "Info.Sha1sum__binary": original(Sha1sum=b"\xff" * 120),
    "Info.Id__short": original(Id="ab"),
    "Info.Id__not_hexadecimal": original(Id="x" * 40),
    "Info.Id__number": original(Id=5),
    "Info.Name__two_spellings": encode({"Info": {**ORIGINAL, "name": "other"}}),
    "Info__two_spellings": encode({"INFO": ORIGINAL, "Info": ORIGINAL}),
    "Announce__number": encode({"Announce": 1, "Info": ORIGINAL}),
}


def main() -> None:
    for name, raw in GOOD.items():
        (HERE / "good" / name).write_bytes(raw)
    for name, raw in BAD.items():
        (HERE / "bad" / f"{name}.torrent").write_bytes(raw)


if __name__ == "__main__":
    main()
