"""`MicroTorr` without its daemon: metadata, help, completion, and what makes no sense as typed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from hashlib import sha1
from pathlib import Path

import pytest

from microtorrd.proto import metainfo
from mtorrctl.microtorr import complete_tracker
from tests.cli.program import Ran

PROGRAM = Path(sys.executable).with_name("MicroTorr")

#: What the original's createMtorr -l 16 makes of `Hello, MicroTorr! This is a 40-byte file`.
ORIGINAL = (
    b"d8:Announce21:http://127.0.0.1:88884:Infod2:Id40:641057d4a3c5f2069380fcfa32ec3f7ea59566ca6:Lengthi40e"
    b"4:Name9:small.txt12:Piece_lengthi16e7:Sha1sum120:e4b003bfdb91d9f3ac76cedfb113bc97af89442f4bf02077931d84"
    b"462005bd5d562e06a0ba29a7a6913a6b53cd4625a041fcca7137eb82dc29ffe83dee"
)


class Place:
    """A directory to run the program in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, *arguments: str | bytes | Path, **environ: str) -> Ran:
        """Run it to its end. A traceback is never right."""
        result = subprocess.run(
            [PROGRAM, *arguments],
            capture_output=True,
            cwd=self.directory,
            env={"PATH": os.environ["PATH"], "HOME": str(self.directory), "LANG": "C.UTF-8", **environ},
            stdin=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
        ran = Ran(result.returncode, result.stdout.decode(), result.stderr.decode())
        assert "Traceback" not in ran.err, ran.err
        return ran

    def refused(self, *arguments: str | bytes | Path) -> str:
        """Run what cannot work: exit 1, nothing on standard output; returns what it says."""
        ran = self.run(*arguments)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("[CRITICAL]: ")
        return ran.err


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def freeware(tmp_path: Path) -> bytes:
    """The content of a file of that name."""
    content = random.Random(1).randbytes(100_000)
    (tmp_path / "freeware").write_bytes(content)
    return content


class TestCreate:
    def test_it_is_made_beside_the_file_without_a_word(self, place: Place, freeware: bytes) -> None:
        ran = place.run("createMtorr", "freeware")
        assert (ran.code, ran.out, ran.err) == (0, "", "")
        made = metainfo.parse((place.directory / "freeware.mtorrent").read_bytes())
        assert made.trackers == (("http://127.0.0.1:8888/announce",),)
        assert (made.name, made.length, made.is_single_file) == ("freeware", 100_000, True)
        assert made.id_hash == sha1(freeware).digest()
        assert made.piece_length == metainfo.choose_piece_length(100_000)
        assert made.pieces[:20] == sha1(freeware[: made.piece_length]).digest()

    def test_twice_gives_the_same_bytes(self, place: Place, freeware: bytes) -> None:
        place.run("createMtorr", "freeware")
        first = (place.directory / "freeware.mtorrent").read_bytes()
        assert place.run("createMtorr", "freeware").code == 0
        assert (place.directory / "freeware.mtorrent").read_bytes() == first

    def test_the_name_inside_is_not_the_path_as_typed(self, place: Place) -> None:
        (place.directory / "sub").mkdir()
        (place.directory / "sub/s.txt").write_bytes(b"text")
        assert place.run("createMtorr", "./sub/s.txt").code == 0
        assert metainfo.parse((place.directory / "sub/s.txt.mtorrent").read_bytes()).name == "s.txt"

    @pytest.mark.parametrize("option", ["-l", "--pieceLength"])
    def test_any_piece_length_from_one_byte_on(self, place: Place, freeware: bytes, option: str) -> None:
        assert place.run("createMtorr", "freeware", option, "16000").code == 0
        made = metainfo.parse((place.directory / "freeware.mtorrent").read_bytes())
        assert (made.piece_length, made.piece_count) == (16000, 7)
        (place.directory / "ten").write_bytes(b"0123456789")
        assert place.run("createMtorr", "ten", option, "1").code == 0
        assert metainfo.parse((place.directory / "ten.mtorrent").read_bytes()).piece_count == 10

    def test_an_empty_file(self, place: Place) -> None:
        (place.directory / "empty").write_bytes(b"")
        assert place.run("createMtorr", "empty").code == 0
        assert metainfo.parse((place.directory / "empty.mtorrent").read_bytes()).piece_count == 0

    @pytest.mark.parametrize("length", ["0", "-1", "many", ""])
    def test_a_piece_length_that_is_none(self, place: Place, freeware: bytes, length: str) -> None:
        assert "--pieceLength" in place.refused("createMtorr", "freeware", "-l", length)
        assert not (place.directory / "freeware.mtorrent").exists()

    def test_what_cannot_be_shared(self, place: Place) -> None:
        assert "Missing argument 'FILE'" in place.refused("createMtorr")
        assert "nothing-here: No such file or directory" in place.refused("createMtorr", "nothing-here")
        assert "ftp://x" in place.refused("createMtorr", PROGRAM, "-t", "ftp://x")
        os.mkfifo(place.directory / "pipe")
        assert "a fifo" in place.refused("createMtorr", "pipe")

    def test_more_words_with_verbosity(self, place: Place, freeware: bytes) -> None:
        said = [place.run("createMtorr", "freeware", "-v", level).out.splitlines() for level in "0123"]
        assert [len(lines) for lines in said] == [0, 1, 3, 3]
        assert said[1][0] == f"[VERBOSE]: {place.directory}/freeware.mtorrent is made"
        assert sha1(freeware).hexdigest() in said[2][2]


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("http://127.0.0.1:8888", "http://127.0.0.1:8888/announce"),
        ("http://127.0.0.1:8888/", "http://127.0.0.1:8888/announce"),
        ("HTTPS://[::1]:8888", "HTTPS://[::1]:8888/announce"),
        ("http://a.example/x/announce", "http://a.example/x/announce"),
        ("http://a.example/?a=b", "http://a.example/?a=b"),
        ("udp://a.example:1", "udp://a.example:1"),
        ("http://", "http://"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_tracker_without_a_path_gets_the_usual_one(typed: str, written: str) -> None:
    assert complete_tracker(typed) == written


class TestLoad:
    def test_the_lines_of_the_original(self, place: Place, freeware: bytes) -> None:
        place.run("createMtorr", "freeware", "-l", "16000", "-t", "http://10.0.0.1:81")
        ran = place.run("loadMtorr", "freeware.mtorrent")
        assert ran.code == 0
        assert ran.out.splitlines() == [
            "Tracker Link: http://10.0.0.1:81/announce",
            "File Name: freeware",
            "File Length: 100000",
            "Piece Length: 16000",
            f"Sha1sum (first 20 bytes): {sha1(freeware[:16000]).hexdigest()}",
            f"Id Hash:{sha1(freeware).hexdigest()}",
        ]

    def test_a_file_of_the_original(self, place: Place) -> None:
        (place.directory / "small.txt.mtorrent").write_bytes(ORIGINAL)
        assert place.run("loadMtorr", "small.txt.mtorrent").out.splitlines() == [
            "Tracker Link: http://127.0.0.1:8888/announce",
            "File Name: small.txt",
            "File Length: 40",
            "Piece Length: 16",
            "Sha1sum (first 20 bytes): e4b003bfdb91d9f3ac76cedfb113bc97af89442f",
            "Id Hash:641057d4a3c5f2069380fcfa32ec3f7ea59566ca",
        ]

    def test_a_plain_torrent_without_anything_of_ours(self, place: Place) -> None:
        raw = b"d4:infod6:lengthi0e4:name1:a12:piece lengthi16384e6:pieces0:ee"
        (place.directory / "a.torrent").write_bytes(raw)
        assert place.run("loadMtorr", "a.torrent").out.splitlines() == [
            "Tracker Link: (none)",
            "File Name: a",
            "File Length: 0",
            "Piece Length: 16384",
            "Sha1sum (first 20 bytes): (no pieces)",
            "Id Hash:(none)",
        ]

    def test_more_with_verbosity(self, place: Place, freeware: bytes) -> None:
        place.run("createMtorr", "freeware")
        plain = place.run("loadMtorr", "freeware.mtorrent").out
        for option in (["-v", "1"], ["--verbosity", "2"]):
            more = place.run("loadMtorr", "freeware.mtorrent", *option).out
            assert more.startswith(plain)
            assert "\nFile: freeware (100000 bytes)\n" in more
            assert "\nInfo Hash: " in more

    def test_names_cannot_steer_the_terminal(self, place: Place) -> None:
        raw = b"d7:comment5:\x1b[31m4:infod6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:ee"
        (place.directory / "a\x1b[31m").write_bytes(raw)
        assert "\x1b" not in place.run("loadMtorr", "a\x1b[31m", "-v", "3").out
        assert "\x1b" not in place.refused("loadMtorr", "no\x1b[31m")

    @pytest.mark.parametrize("raw", [b"", b"text\n", b"d", ORIGINAL[:100], b"9999999999999:a", b"i5e", b"de"])
    def test_what_is_none(self, place: Place, raw: bytes) -> None:
        (place.directory / "bad.mtorrent").write_bytes(raw)
        assert "bad.mtorrent" in place.refused("loadMtorr", "bad.mtorrent")

    def test_what_is_not_there(self, place: Place) -> None:
        assert "Missing argument 'FILE.mtorrent'" in place.refused("loadMtorr")
        assert "nothing: No such file or directory" in place.refused("loadMtorr", "nothing")
        assert "is a directory" in place.refused("loadMtorr", ".")


class TestTyped:
    def test_without_a_command_it_helps(self, place: Place) -> None:
        ran = place.run()
        assert ran.code == 0
        assert all(
            name in ran.out for name in ("createMtorr", "loadMtorr", "tracker", "download", "completion")
        )
        assert place.run("--help").out == ran.out

    @pytest.mark.parametrize(
        ("command", "words"),
        [
            ("createMtorr", ["-t, --tracker", "-l, --pieceLength", "-v, --verbose", "http://127.0.0.1:8888"]),
            ("loadMtorr", ["-v, --verbosity"]),
            ("tracker", ["-b, --bind", "0.0.0.0:8888", "-v, --verbosity"]),
            (
                "download",
                ["-i, --interface", "-p, --port", "7777", "-s, --seed", "-a, --auto-seed"],
            ),
            (
                "download",
                ["--waitSeeders", "--waitLeechers", "-d, --max-down-speed", "-u, --max-up-speed"],
            ),
            (
                "download",
                ["-v, --verbose"],
            ),
            ("completion", ["bash", "zsh", "fish"]),
        ],
    )
    def test_help_has_every_spelling_of_the_original(
        self, place: Place, command: str, words: list[str]
    ) -> None:
        ran = place.run(command, "-h")
        assert ran.code == 0
        assert [word for word in words if word not in ran.out] == []

    def test_version(self, place: Place) -> None:
        assert place.run("--version").out.startswith("MicroTorr ")

    @pytest.mark.parametrize(
        ("typed", "named"),
        [
            (["loadMTorr", "x"], "loadMTorr"),
            (["download"], "FILE.mtorrent"),
            (["download", "x", "--nonsense"], "--nonsense"),
            (["download", "x", "-p", "65536"], "--port"),
            (["download", "x", "-p", "-1"], "--port"),
            (["download", "x", "-p", "http"], "--port"),
            (["download", "x", "-u", "-2"], "--max-up-speed"),
            (["download", "x", "-d", "fast"], "--max-down-speed"),
            (["download", "x", "--waitSeeders", "-1"], "--waitSeeders"),
            (["download", "x", "--waitLeechers", "-1"], "--waitLeechers"),
            (["download", "x", "-v", "-1"], "--verbose"),
            (["download", "x"], "x: No such file or directory"),
            (["tracker", "-b", "8888"], "HOST:PORT"),
            (["tracker", "-b", "127.0.0.1:99999"], "HOST:PORT"),
            (["tracker", "-b", "no.such.host.invalid:0"], "no.such.host.invalid"),
            (["completion", "csh"], "csh"),
        ],
    )
    def test_what_makes_no_sense(self, place: Place, typed: list[str], named: str) -> None:
        assert named in place.refused(*typed)


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_the_script_asks_the_program(self, place: Place, shell: str) -> None:
        ran = place.run("completion", shell)
        assert ran.code == 0
        assert f"_MICROTORR_COMPLETE={shell}_complete" in ran.out
        assert "MicroTorr" in ran.out

    def test_commands_and_options_are_completed(self, place: Place) -> None:
        asked = {"_MICROTORR_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
        assert "plain,createMtorr" in place.run(**asked, COMP_WORDS="MicroTorr cr").out
        asked["COMP_CWORD"] = "2"
        assert "plain,--waitSeeders" in place.run(**asked, COMP_WORDS="MicroTorr download --wait").out

    def test_bash_takes_it(self, place: Place) -> None:
        program = 'eval "$(MicroTorr completion bash)"; complete -p MicroTorr'
        ran = subprocess.run(
            ["bash", "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"},
            timeout=30,
        )
        assert "-F _MicroTorr_completion MicroTorr" in ran.stdout


def test_a_reader_that_leaves_hears_no_complaint(place: Place) -> None:
    ran = subprocess.run(
        ["bash", "-c", f"exec 3> >(true); wait $!; {PROGRAM} download --help >&3"],
        capture_output=True,
        text=True,
        check=False,
        cwd=place.directory,
        timeout=30,
    )
    assert (ran.returncode != 0, ran.stderr) == (True, "")
