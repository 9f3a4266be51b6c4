"""Making and showing `.mtorrent` files, and sharing content in one go."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from microtorrd.proto import metainfo
from tests.cli.program import Shell
from tests.rpc.house import House


@pytest.fixture
def content(lone_shell: Shell) -> Path:
    """A directory with files of uneven sizes."""
    top = lone_shell.directory / "data set"
    (top / "deep" / "er").mkdir(parents=True)
    (top / "empty").write_bytes(b"")
    (top / "one").write_bytes(b"1")
    (top / "deep" / "odd").write_bytes(os.urandom(70_001))
    (top / "deep" / "er" / "Ωμέγα").write_bytes(os.urandom(200_000))
    return top


def whole(top: Path) -> bytes:
    files = sorted(
        (path for path in top.rglob("*") if path.is_file()), key=lambda path: os.fsencode(path).split(b"/")
    )
    return b"".join(path.read_bytes() for path in files)


def test_a_file(lone_shell: Shell) -> None:
    path = lone_shell.directory / "ubuntu.iso"
    path.write_bytes(b"x" * 100_000)
    before = int(time.time())
    ran = lone_shell.run("create", "./ubuntu.iso")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{path}.mtorrent\n"
    made = metainfo.parse(Path(f"{path}.mtorrent").read_bytes())
    assert (made.name, made.length, made.piece_length, made.is_single_file) == (
        "ubuntu.iso",
        100_000,
        16384,
        True,
    )
    assert made.piece_hash(0) == hashlib.sha1(b"x" * 16384).digest()
    assert made.id_hash == hashlib.sha1(b"x" * 100_000).digest()
    assert made.trackers == (("http://127.0.0.1:8888/announce",),)
    assert made.dialect == "microtorr"
    assert made.creation_date is not None
    assert before <= made.creation_date <= time.time()


def test_a_directory_with_everything(lone_shell: Shell, content: Path) -> None:
    ran = lone_shell.run(
        *("create", "data set/", "-l", "32 KiB", "--private", "--comment", "for you", "--no-date", "--json"),
        *("-t", "http://a.example/announce,http://b.example/announce", "-t", "udp://c.example:6969"),
        *("--web-seed", "http://d.example/", "-o", "out.mtorrent"),
    )
    assert ran.code == 0, ran.err
    made = metainfo.parse((lone_shell.directory / "out.mtorrent").read_bytes())
    assert ran.json == {
        "path": str(lone_shell.directory / "out.mtorrent"),
        "name": "data set",
        "info_hash": made.info_hash.hex(),
        "id_hash": hashlib.sha1(whole(content)).hexdigest(),
        "size_bytes": 270_002,
        "piece_length": 32768,
        "piece_count": 9,
        "file_count": 4,
        "skipped": [],
    }
    assert made.private
    assert made.comment == "for you"
    assert made.creation_date is None
    assert made.web_seeds == ("http://d.example/",)
    assert made.trackers == (
        ("http://a.example/announce", "http://b.example/announce"),
        ("udp://c.example:6969",),
    )


def test_two_runs_without_a_date_give_the_same_bytes(lone_shell: Shell, content: Path) -> None:
    first, second = lone_shell.directory / "1.mtorrent", lone_shell.directory / "2.mtorrent"
    assert lone_shell.run("create", content, "--no-date", "-o", first).code == 0
    assert lone_shell.run("create", content, "--no-date", "-o", second).code == 0
    assert first.read_bytes() == second.read_bytes()
    dated = lone_shell.run("create", content, "-o", second, environ={"SOURCE_DATE_EPOCH": "1000000000"})
    assert dated.code == 0
    assert metainfo.parse(second.read_bytes()).creation_date == 1_000_000_000


def test_the_name_inside_is_the_last_part_of_the_path(lone_shell: Shell, content: Path) -> None:
    inside = Shell(lone_shell._forker, content / "deep", None)
    assert inside.run("create", ".").out == f"{content}/deep.mtorrent\n"
    assert inside.run("create", "../deep/../one").out == f"{content}/one.mtorrent\n"
    assert metainfo.parse((content / "one.mtorrent").read_bytes()).name == "one"


def test_an_old_mtorrent_is_replaced_at_once_and_nothing_else_ever(lone_shell: Shell, content: Path) -> None:
    target = lone_shell.directory / "data set.mtorrent"
    target.write_bytes(b"old")
    os.link(target, lone_shell.directory / "kept")
    assert lone_shell.run("create", content).code == 0
    assert target.read_bytes().startswith(b"d8:announce")
    assert (lone_shell.directory / "kept").read_bytes() == b"old"  # a new file took the name
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~_umask()
    notes = lone_shell.directory / "notes.txt"
    notes.write_text("dear diary")
    ran = lone_shell.run("create", content, "-o", notes)
    assert (ran.code, notes.read_text()) == (1, "dear diary")
    assert "is there already" in ran.err
    assert lone_shell.run("create", content / "one", "-o", content / "one").code == 2
    os.link(content / "one", lone_shell.directory / "alias.mtorrent")
    assert lone_shell.run("create", content / "one", "-o", "alias.mtorrent").code == 2
    assert (content / "one").read_bytes() == b"1"
    assert not [name for name in os.listdir(lone_shell.directory) if name.startswith(".mtorrent")]


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_what_cannot_be_shared_is_left_out_and_said_so(lone_shell: Shell, content: Path) -> None:
    (content / "link").symlink_to("one")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(content / "sock"))
    ran = lone_shell.run("create", content, "--json")
    assert ran.code == 0
    assert sorted(Path(item["path"]).name for item in ran.json["skipped"]) == ["link", "sock"]
    assert "a symbolic link" in ran.err
    assert ran.json["file_count"] == 4


def test_content_that_cannot_be_read_or_written(lone_shell: Shell, content: Path) -> None:
    (content / "bad\nname").write_bytes(b"")
    refused = lone_shell.run("create", content)
    assert refused.code == 1
    assert "rename it" in refused.err
    assert lone_shell.run("create", content / "one", "-o", "no/where.mtorrent").code == 1


def test_show_for_people_and_programs(lone_shell: Shell, content: Path) -> None:
    lone_shell.run("create", content, "-t", "http://a.example/announce", environ={"SOURCE_DATE_EPOCH": "0"})
    ran = lone_shell.run("show", "data set.mtorrent")
    assert ran.code == 0
    for words in (
        "name        data set",
        "270 kB (270,002 bytes)",
        "17 of 16 KiB",
        "files (4)",
        "deep/er/Ωμέγα",
    ):
        assert words in ran.out
    facts = lone_shell.run("show", "data set.mtorrent", "--json").json
    assert facts["creation_date"] == datetime.fromtimestamp(0, UTC).isoformat().replace("+00:00", "Z")
    assert facts["trackers"] == [["http://a.example/announce"]]
    assert facts["files"][0] == {
        "index": 0,
        "path": "data set/deep/er/Ωμέγα",
        "size_bytes": 200_000,
        "attributes": "",
        "link": None,
    }
    raw = (lone_shell.directory / "data set.mtorrent").read_bytes()
    assert lone_shell.run("show", "-", "--json", stdin=raw).json == facts


def test_show_of_the_original_dialect(lone_shell: Shell) -> None:
    (lone_shell.directory / "small.mtorrent").write_bytes(
        b"d8:Announce21:http://127.0.0.1:88884:Infod2:Id40:641057d4a3c5f2069380fcfa32ec3f7ea59566ca6:Lengthi40e"
        b"4:Name9:small.txt12:Piece_lengthi16e7:Sha1sum120:e4b003bfdb91d9f3ac76cedfb113bc97af89442f4bf02077931d"
        b"84462005bd5d562e06a0ba29a7a6913a6b53cd4625a041fcca7137eb82dc29ffe83dee"
    )
    facts = lone_shell.run("show", "small.mtorrent", "--json").json
    assert (facts["dialect"], facts["id_hash"]) == ("original", "641057d4a3c5f2069380fcfa32ec3f7ea59566ca")
    assert facts["trackers"] == [["http://127.0.0.1:8888/announce"]]


def test_names_that_would_steer_a_terminal_are_shown_harmless(lone_shell: Shell) -> None:
    (lone_shell.directory / "x.torrent").write_bytes(
        b"d7:comment5:\x1b[31m4:infod6:lengthi0e4:name5:a\x1b[2J12:piece lengthi16384e6:pieces0:ee"
    )
    ran = lone_shell.run("show", "x.torrent")
    assert ran.code == 0
    assert "\x1b" not in ran.out


# --------------------------------------------------------------------------------------------- seed PATH


def test_one_command_shares_a_directory(shell: Shell, house: House, content: Path) -> None:
    ran = shell.run(
        "seed", "data set", "--up", "1 MB/s", "--label", "mine", "-t", "http://a.example/announce"
    )
    assert ran.code == 0
    assert ran.out == f"{shell.directory}/data set.mtorrent\n"
    (terms,) = house.session.added
    assert (terms.seed_path, terms.up, terms.label) == (str(content), 1_000_000, "mine")
    (row,) = house.session.rows.values()
    assert (row["name"], row["state"], row["size_bytes"]) == ("data set", "seeding", 270_002)


def test_sharing_again_is_no_mistake(shell: Shell, house: House, content: Path) -> None:
    first = shell.run("seed", content, "--json", "-t", "http://mine.example/announce")
    house.session.pause("data set")
    again = shell.run("seed", content, "--json")
    assert again.code == 0
    (facts,) = again.json_lines
    assert facts["torrent"]["state"] == "seeding"
    assert facts["mtorrent"] == first.json_lines[0]["mtorrent"]
    made = Path(f"{content}.mtorrent")
    assert metainfo.parse(made.read_bytes()).trackers == (("http://mine.example/announce",),)
    assert shell.run("seed", content, "--comment", "new").code == 0
    assert metainfo.parse(made.read_bytes()).comment == "new"
    (content / "one").write_bytes(b"2")
    before = made.read_bytes()
    assert shell.run("seed", content).code == 0
    assert metainfo.parse(made.read_bytes()).id_hash != metainfo.parse(before).id_hash


def test_paths_and_ids_together(shell: Shell, house: House, content: Path) -> None:
    shell.run("seed", content / "one")
    house.session.pause("one")
    ran = shell.run("seed", "one", content / "deep", "nobody")
    assert ran.code == 5
    assert ran.out == f"{content}/deep.mtorrent\nseeding one\n"
    assert "nobody" in ran.err


def test_metainfo_is_not_content(shell: Shell, house: House, content: Path) -> None:
    shell.run("create", content)
    ran = shell.run("seed", "data set.mtorrent")
    assert ran.code == 2
    assert "mtorrctl add data set.mtorrent --seed PATH" in ran.err


def test_without_a_daemon_nothing_is_hashed_first(lone_shell: Shell, content: Path) -> None:
    assert lone_shell.run("seed", content).code == 3
    assert not (lone_shell.directory / "data set.mtorrent").exists()


def test_super_seeding_is_a_choice(shell: Shell, house: House, content: Path) -> None:
    assert shell.run("seed", content, "--super").code == 0
    assert house.session.added[-1].super_seed is True
    assert shell.run("seed", content, "--no-super").code == 0  # it is there already
    (row,) = house.session.rows.values()
    assert shell.run("seed", row["info_hash"], "--super").code == 0
    assert shell.run("seed", row["info_hash"]).code == 0
    assert [choice for _, choice in house.session.super_seeding] == [False, True, None]


def test_a_program_is_marked_and_two_runs_are_the_same(tmp_path: Path, lone_shell: Shell) -> None:
    program, first, second = tmp_path / "run.sh", tmp_path / "1.mtorrent", tmp_path / "2.mtorrent"
    program.write_bytes(b"#!/bin/sh\n")
    program.chmod(0o755)
    for made in (first, second):
        assert lone_shell.run("create", program, "--no-date", "-o", made).code == 0
    assert first.read_bytes() == second.read_bytes()
    shown = json.loads(lone_shell.run("show", first, "--json").out)
    assert [row["attributes"] for row in shown["files"]] == ["x"]
    # The content is the same without the mark; the torrent is another one.
    program.chmod(0o644)
    assert lone_shell.run("create", program, "--no-date", "-o", second).code == 0
    plain = json.loads(lone_shell.run("show", second, "--json").out)
    assert plain["id_hash"] == shown["id_hash"] and plain["info_hash"] != shown["info_hash"]
