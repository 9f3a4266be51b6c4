"""A hundred and more careless inputs: each gets a line that names what is wrong, and its exit code."""

from __future__ import annotations

import itertools
import os

import pytest

from microtorrd.terms import Terms
from mtorrctl.cli import COMMANDS
from tests.cli.program import Ran, Shell
from tests.rpc.fake import mtorrent
from tests.rpc.house import House

LONG = "x" * 5000
ONE_ID = ("inspect", "peers", "files", "trackers")
IDS = ("pause", "resume", "verify", "reannounce", "remove")

USAGE: list[list[str]] = [
    ["no-such-command"],
    ["--no-such-option"],
    ["--socket"],
    ["list", "--fields", "name"],
    ["list", "--json", "--fields", "name,naem"],
    ["list", "--json=yes"],
    *([name] for name in (*ONE_ID, *IDS, "create", "show", "add", "seed", "move", "completion")),
    *([name, "ubuntu.iso", "--jsno"] for name in (*ONE_ID, *IDS)),
    *([name, "ubuntu.iso", "debian.iso"] for name in ONE_ID),
    ["move", "ubuntu.iso"],
    ["move", "ubuntu.iso", "/tmp", "/var"],
    ["limit", "--down"],
    ["order", "ubuntu.iso", "first"],
    ["files", "ubuntu.iso", "0"],
    ["files", "ubuntu.iso", "--set", "off"],
    ["files", "ubuntu.iso", "--set", "never", "0"],
    ["add", "x.torrent", "--priority", "high"],
    *(
        ["limit", "--down", text]
        for text in ("", " ", "fast", "-1", "1e9 B", "3M", "1 Mb/s", "9" * 40, "NaN", "∞")
    ),
    ["limit", "ubuntu.iso", "debian.iso", "--up", "none"],
    *(["add", "x", "--wait-seeders", text] for text in ("-1", "many", "1.5", "99999999999")),
    *(["add", "x", "--wait", "--timeout", text] for text in ("-1", "soon", "")),
    ["add", "x", "--timeout", "5"],
    ["add", "x", "--wait", "--paused"],
    ["add", "x", "y", "--seed", "z"],
    ["add", "x", "--seed", "y", "--save-to", "z"],
    ["add", "magnet:?xt=urn:btih:00"],
    ["add", "MAGNET:"],
    ["magnet"],
    ["magnet", "ubuntu.iso", "debian.iso"],
    ["add", "ftp://example.org/x"],
    ["add", "gopher://x"],
    *(["create", "content", "-l", text] for text in ("0", "-1", "big", "1.5.5 MiB", "0 B")),
    *(
        ["create", "content", "-t", text]
        for text in ("", ",", "example.org", "ftp://x/", "http://", "http:// x", "x y")
    ),
    ["create", "content", "-t", "http://a/\x1b[2J"],
    ["create", "content", "--web-seed", "udp://x/"],
    ["create", "content", "-o", "directory"],
    ["create", "content", "-o", "content"],
    ["create", "directory", "-o", "directory/x.mtorrent"],
    ["create", "content", "other"],
    ["seed", "content.mtorrent"],
    ["seed", "content", "directory", "-o", "x.mtorrent"],
    ["watch", "--interval", "often"],
    ["events", "--count", "0"],
    ["events", "--kind", "no_such_kind"],
    ["completion", "tcsh"],
    *([name, ""] for name in ("create", "show", "add")),
    ["create", "content", "-o", ""],
    ["move", "ubuntu.iso", ""],
    ["add", "content.mtorrent", "--save-to", ""],
    ["add", "content.mtorrent", "--seed", ""],
    ["list", "--socket", ""],
    ["ping", "pong"],
    ["--socket", "/tmp/" + LONG, "ping"],
]

FAILED: list[list[str]] = [
    *(
        ["add", text]
        for text in ("nowhere", "directory", "content", "empty", "bad.mtorrent", LONG, "\x1b]0;x\x07")
    ),
    *(
        ["show", text]
        for text in ("nowhere", "directory", "content", "empty", "bad.mtorrent", "truncated.mtorrent")
    ),
    ["show", "3f9a"],
    ["show", "http://127.0.0.1:1/x"],
    ["show", "http://[::1"],
    ["show", "http://127.0.0.1:99999/"],
    ["show", "https://"],
    ["add", "http://\x07/"],
    ["create", "nowhere"],
    ["create", "/"],
    ["create", "/dev/null"],
    ["create", "hollow"],
    ["create", "content", "-o", "nowhere/x.mtorrent"],
    ["create", "content", "-o", "notes.txt"],
    ["create", "big", "-l", "1"],
    ["seed", "./nowhere"],
    ["seed", "hollow"],
    ["move", "ubuntu.iso", "content"],
]

UNREACHABLE: list[list[str]] = [
    ["--socket", path, *arguments]
    for path, arguments in itertools.product(
        ("nowhere.sock", "content", "directory", "content/x"),
        (["ping"], ["list", "--json"], ["pause", "all"], ["events"], ["seed", "content"]),
    )
]

NOT_FOUND: list[list[str]] = [
    *(
        [name, id]
        for name in (*ONE_ID, *IDS, "list", "events", "watch")
        for id in ("nobody", "abc", LONG[:1000], "*")
    ),
    ["move", "nobody", "/srv"],
    ["limit", "nobody", "--up", "none"],
    ["order", "nobody", "rarest"],
    ["files", "nobody", "--set", "off", "0"],
    ["seed", "nobody"],
    ["pause", "nobody", "nothing"],
]


@pytest.fixture
def littered(house: House, shell: Shell) -> Shell:
    """A directory with the things that people name by mistake."""
    for name in ("ubuntu.iso", "debian.iso"):
        house.session.add(mtorrent(name), Terms())
    for name, raw in {
        "content": b"some content\n" * 100,
        "content.mtorrent": mtorrent("content"),
        "truncated.mtorrent": mtorrent("content")[:-30],
        "bad.mtorrent": b"d4:infod4:name3:../6:lengthi-1eee",
        "notes.txt": b"dear diary",
        "empty": b"",
        "directory/a": b"a",
    }.items():
        path = shell.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(raw)
    (shell.directory / "hollow").mkdir()
    with open(shell.directory / "big", "wb") as big:
        big.truncate(10 << 20)
    return shell


def check(ran: Ran, arguments: list[str], codes: tuple[int, ...]) -> None:
    told = f"mtorrctl {arguments!r:.200}: exit {ran.code}\n{ran.out}{ran.err}"
    assert ran.code in codes, told
    assert "Traceback" not in ran.err, told
    assert "Error:" not in ran.err, told  # the bare name of an exception
    assert ran.err.startswith(("mtorrctl: ", "Usage: ")), told
    assert ran.out == "", told
    assert "\x1b" not in ran.err, told
    assert len(ran.err.encode()) < 8000, told


@pytest.mark.parametrize(
    ("lines", "codes"),
    [(USAGE, (2,)), (FAILED, (1,)), (UNREACHABLE, (3,)), (NOT_FOUND, (4,))],
    ids=["usage", "failed", "unreachable", "not found"],
)
def test_careless_inputs(littered: Shell, lines: list[list[str]], codes: tuple[int, ...]) -> None:
    for arguments in lines:
        check(littered.run(*arguments), arguments, codes)
    assert (littered.directory / "notes.txt").read_text() == "dear diary"
    assert sorted(os.listdir(littered.directory / "directory")) == ["a"]


def test_there_are_a_hundred() -> None:
    assert len(USAGE) + len(FAILED) + len(UNREACHABLE) + len(NOT_FOUND) > 100
    # These run a daemon of their own, or take no arguments at all.
    others = {"download", "tracker", "stats", "reload", "shutdown"}
    assert {line[0] for line in USAGE + FAILED + NOT_FOUND} >= set(COMMANDS) - others


def test_bytes_that_are_no_text(shell: Shell) -> None:
    for arguments in ([b"inspect", b"\xff\xfe"], [b"add", b"\xff"], [b"move", b"ubuntu.iso", b"/\xff"]):
        ran = shell.run(*arguments)
        assert ran.code in (1, 2)
        assert ran.err.startswith("mtorrctl: ")


def test_closed_standard_streams(shell: Shell, house: House) -> None:
    for closed in (0, 1, 2):
        process = shell.start("ping", preexec_fn=lambda number=closed: os.close(number))
        process.communicate(timeout=10)
        assert process.returncode == 0, closed
