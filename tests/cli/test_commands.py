"""Every command as people and scripts use it: the real program, a real socket, exit codes and JSON shapes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest

from microtorrd.errors import ConfigError
from microtorrd.proto.selection import Choice
from microtorrd.rpc import results
from microtorrd.terms import Terms
from mtorrctl.cli import COMMANDS
from tests.cli.program import PROGRAM, Shell
from tests.rpc.fake import mtorrent
from tests.rpc.house import House
from tests.waiting import until


@pytest.fixture
def stocked(house: House, shell: Shell) -> Shell:
    """Two torrents are there."""
    for name in ("ubuntu.iso", "debian.iso"):
        house.session.add(
            mtorrent(name, length=1_000_000),
            Terms(),
        )
    return shell


def file_of(shell: Shell, name: str = "ubuntu.iso", **more: Any) -> Path:
    path = shell.directory / f"{name}.mtorrent"
    path.write_bytes(mtorrent(name, **more))
    return path


# ---------------------------------------------------------------------------------------------------- help


def test_every_command_of_the_specification_is_there() -> None:
    asked = (
        "create show add list inspect pause resume seed verify remove peers files trackers reannounce move"
    )
    asked += " limit watch events stats reload shutdown ping completion"
    assert set(asked.split()) <= set(COMMANDS)


def test_every_command_has_help_that_says_something(lone_shell: Shell) -> None:
    texts = [lone_shell.run("--help"), lone_shell.run("-h")]
    assert texts[0] == texts[1]
    assert all(f"\n  {name} " in texts[0].out for name in COMMANDS)
    for name in COMMANDS:
        ran = lone_shell.run(name, "--help")
        assert (ran.code, ran.err) == (0, ""), name
        assert ran.out.startswith(f"Usage: mtorrctl {name}")
        assert len(ran.out.splitlines()) >= 6, name
        text, _, options = ran.out.partition("Options:")
        if "--json" in options and name not in (
            "pause",
            "resume",
            "verify",
            "reannounce",
            "remove",
            "move",
            "order",
        ):
            assert "ith --json" in text, name


def test_a_slip_of_the_finger_is_answered_with_the_nearest_command(lone_shell: Shell) -> None:
    ran = lone_shell.run("lits")
    assert ran.code == 2
    assert "Did you mean list?" in ran.err
    assert lone_shell.run("list", "--jsno").code == 2
    assert lone_shell.run().code in (0, 2)


# ------------------------------------------------------------------------------------------------- looking


def test_list_for_people_is_aligned_and_plain(stocked: Shell, house: House) -> None:
    house.session.fail("debian.iso", "no_space")
    ran = stocked.run("list")
    assert ran.code == 0
    head, first, second, problem = ran.out.splitlines()
    assert head.split() == ["ID", "NAME", "STATE", "DONE", "SIZE", "DOWN", "UP", "PEERS", "LEFT"]
    assert first.split()[1:] == ["ubuntu.iso", "downloading", "0.0%", "1.00", "MB", "-", "-", "0", "-"]
    assert first.index("downloading") == second.index("failed") == head.index("STATE")
    assert "no_space" in problem
    assert "\t" not in ran.out
    assert "\x1b" not in ran.out


def test_list_for_programs_has_the_promised_keys(stocked: Shell) -> None:
    rows = stocked.run("list", "--json").json
    assert [row["name"] for row in rows] == ["ubuntu.iso", "debian.iso"]
    msgspec.convert(rows, list[results.Torrent])
    (only,) = stocked.run("list", "--json", "--fields", "name, state", "debian.iso").json
    assert only == {"name": "debian.iso", "state": "downloading"}
    assert stocked.run("list", "--fields", "name").code == 2
    wrong = stocked.run("list", "--json", "--fields", "nmae")
    assert wrong.code == 2
    assert "did you mean 'name'" in wrong.err


def test_nothing_is_an_empty_list(shell: Shell) -> None:
    assert shell.run("list").out == ""
    assert shell.run("list", "--json").json == []


def test_inspect_shows_everything(stocked: Shell) -> None:
    ran = stocked.run("inspect", "ubuntu.iso")
    assert ran.code == 0
    for words in ("state           downloading", "piece length", "settings", "TRACKER", "wait seeders"):
        assert words in ran.out
    msgspec.convert(stocked.run("inspect", "ubuntu.iso", "--json").json, results.TorrentDetails)


def test_peers_files_and_trackers(stocked: Shell, house: House) -> None:
    house.session.peer_rows = [
        {
            "host": "2001:db8::1",
            "port": 7777,
            "client": "x\x1b[2Jy",
            "progress": 1,
            "source": "pex",
            "incoming": True,
            "down_bytes": 5_000_000,
            "down_bytes_per_s": 1_250_000,
        }
    ]
    peers = stocked.run("peers", "ubuntu.iso").out
    assert "[2001:db8::1]:7777" in peers
    assert "1.25 MB/s" in peers
    assert " IX" in peers
    assert "x\\x1b[2Jy" in peers
    assert stocked.run("peers", "ubuntu.iso", "--json").json == house.session.peer_rows
    assert "1.00 MB  ubuntu.iso" in stocked.run("files", "ubuntu.iso").out
    msgspec.convert(stocked.run("files", "ubuntu.iso", "--json").json, list[results.File])
    assert "http://127.0.0.1:8888/announce" in stocked.run("trackers", "ubuntu.iso").out
    msgspec.convert(stocked.run("trackers", "ubuntu.iso", "--json").json, list[results.Tracker])


def test_ping_stats_reload_shutdown(shell: Shell, house: House) -> None:
    ran = shell.run("ping")
    assert ran.code == 0
    assert house.path in ran.out
    facts = shell.run("ping", "--json").json
    assert facts["socket"] == house.path
    assert 0 < facts["latency_s"] < 5
    people = shell.run("stats").out
    assert re.search("^listen port +7777$", people, re.MULTILINE)
    assert "12.3 MB (12,345,678 bytes)" in people
    msgspec.convert(shell.run("stats", "--json").json, results.Stats)
    assert (shell.run("reload").code, house.daemon.reloads) == (0, 1)
    house.daemon.config_error = ConfigError("listen.port: 99999 is too large", key="listen.port")
    refused = shell.run("reload")
    assert refused.code == 1
    assert "listen.port: 99999 is too large" in refused.err
    assert (shell.run("shutdown").code, house.daemon.shutdowns) == (0, 1)


def test_the_options_for_the_socket_in_their_order(shell: Shell, house: House, tmp_path: Path) -> None:
    wrong = {"MTORRCTL_SOCKET": str(tmp_path / "wrong.sock")}
    assert shell.run("ping", environ=wrong).code == 3
    assert shell.run("ping", "--socket", house.path, environ=wrong).code == 0
    assert shell.run("--socket", house.path, "ping", environ=wrong).code == 0
    own = {"MTORRCTL_SOCKET": "", "XDG_RUNTIME_DIR": str(tmp_path / "xdg")}
    assert shell.run("ping", environ=own).code == 3
    (tmp_path / "xdg").mkdir()
    (tmp_path / "xdg" / "microtorrd").symlink_to(Path(house.path).parent)
    assert shell.run("ping", environ=own).code == 0


# ------------------------------------------------------------------------------------------------ changing


def test_changes_reach_the_session(stocked: Shell, house: House) -> None:
    assert stocked.run("pause", "ubuntu.iso", "debian.iso").out == "paused ubuntu.iso\npaused debian.iso\n"
    assert stocked.run("resume", "all").out == "resumed ubuntu.iso\nresumed debian.iso\n"
    assert stocked.run("verify", "ubuntu.iso").out == "checking ubuntu.iso\n"
    assert stocked.run("reannounce", "ubuntu.iso").out == "announcing ubuntu.iso\n"
    assert stocked.run("seed", "ubuntu.iso").out == "seeding ubuntu.iso\n"
    assert house.session.calls == [
        ("pause", "ubuntu.iso"),
        ("pause", "debian.iso"),
        ("resume", "ubuntu.iso"),
        ("resume", "debian.iso"),
        ("verify", "ubuntu.iso"),
        ("reannounce", "ubuntu.iso"),
        ("seed", "ubuntu.iso"),
    ]


def test_an_id_may_be_a_prefix(stocked: Shell, house: House) -> None:
    prefix = next(iter(house.session.rows))[:6]
    assert stocked.run("pause", prefix).code == 0
    assert stocked.run("pause", prefix[:3]).code == 4


def test_exit_codes_of_one_and_of_several(stocked: Shell) -> None:
    missing = stocked.run("pause", "nobody")
    assert (missing.code, missing.out) == (4, "")
    assert "no torrent is called 'nobody'" in missing.err
    some = stocked.run("pause", "ubuntu.iso", "nobody", "debian.iso")
    assert (some.code, some.out) == (5, "paused ubuntu.iso\npaused debian.iso\n")
    assert "nobody" in some.err
    assert stocked.run("pause", "nobody", "nothing").code == 4
    assert stocked.run("verify", "debian.iso").code == 1
    assert stocked.run("verify", "debian.iso", "nobody").code == 1
    assert stocked.run("inspect", "nobody").code == 4


def test_changes_have_json_too(stocked: Shell) -> None:
    ran = stocked.run("pause", "ubuntu.iso", "nobody", "--json")
    assert ran.code == 5
    assert [row["state"] for row in ran.json["torrents"]] == ["stopped"]
    assert [(error["id"], error["code"]) for error in ran.json["errors"]] == [("nobody", 1004)]


def test_remove_keeps_or_deletes_the_data_and_never_prompts_without_a_terminal(
    stocked: Shell, house: House
) -> None:
    assert stocked.run("remove", "ubuntu.iso").out == "removed ubuntu.iso\n"
    assert stocked.run("remove", "--data", "debian.iso").out == "removed with its files debian.iso\n"
    assert house.session.calls == [("remove", "ubuntu.iso", False), ("remove", "debian.iso", True)]
    assert stocked.run("remove", "all").out == "there are no torrents\n"


def test_move_is_meant_from_where_the_user_stands(stocked: Shell, house: House) -> None:
    ran = stocked.run("move", "ubuntu.iso", "elsewhere/deep")
    assert ran.code == 0
    assert house.session.find("ubuntu.iso")[0]["save_to"] == str(stocked.directory / "elsewhere/deep")
    (stocked.directory / "file").write_text("")
    assert stocked.run("move", "ubuntu.iso", "file").code == 1


def test_limits(stocked: Shell, house: House) -> None:
    assert stocked.run("limit").out == "down  none\nup    none\n"
    assert stocked.run("limit", "--up", "3 MB/s").out == "down  none\nup    3.00 MB/s\n"
    assert stocked.run("limit", "ubuntu.iso", "--down", "256 KiB", "--json").json == {"down": 262144, "up": 0}
    assert stocked.run("limit", "--up", "none", "--json").json == {"down": 0, "up": 0}
    assert house.session.calls[-1] == ("limit", None, {"up": 0})
    for nonsense in ("3 parsecs", "-5", "", "3 M"):
        ran = stocked.run("limit", "--up", nonsense)
        assert ran.code == 2, nonsense


def test_files_are_chosen_and_shown(stocked: Shell, house: House) -> None:
    ran = stocked.run("files", "ubuntu.iso", "--set", "high", "0", "*.iso")
    assert (ran.code, house.session.calls[-2]) == (0, ("select", "ubuntu.iso", [0], "high"))
    assert "PRIORITY" in ran.out
    wrong = stocked.run("files", "ubuntu.iso", "--set", "off", "7")
    assert wrong.code == 2 and "there is no file 7" in wrong.err


def test_the_order_of_pieces_is_chosen(stocked: Shell) -> None:
    assert stocked.run("order", "ubuntu.iso", "sequential").out == "sequential ubuntu.iso\n"
    rows = stocked.run("list", "--json").json
    assert [row["sequential"] for row in rows if row["name"] == "ubuntu.iso"] == [True]


# ------------------------------------------------------------------------------------------------- adding


def test_add_sends_the_file_and_the_options(shell: Shell, house: House) -> None:
    ran = shell.run(
        "add",
        file_of(shell),
        *("--save-to", "down", "--paused", "--wait-seeders", "2", "--wait-leechers", "1"),
        *("--down", "1 MB/s", "--up", "none", "--label", "os", "--sequential", "--stop-after"),
        *("--files", "*.iso", "--files", "0", "--priority", "high=0", "--priority", "high=1", "--super-seed"),
    )
    assert (ran.code, ran.out) == (0, f"stopped ubuntu.iso in {shell.directory}/down\n")
    assert house.session.added == [
        Terms(
            save_to=f"{shell.directory}/down",
            paused=True,
            wait_seeders=2,
            wait_leechers=1,
            down=1_000_000,
            label="os",
            sequential=True,
            choice=Choice(("*.iso", "0"), (("high", ("0", "1")),)),
            seed_after_download=False,
            super_seed=True,
        )
    ]


def test_add_takes_standard_input_and_data_that_is_there(shell: Shell, house: House) -> None:
    ran = shell.run("add", "-", "--seed", "data", "--json", stdin=mtorrent())
    assert ran.code == 0
    (row,) = ran.json_lines
    msgspec.convert(row, results.Torrent)
    assert row["state"] == "seeding"
    assert house.session.added[0].seed_path == f"{shell.directory}/data"


def test_add_refuses_what_it_cannot_add(shell: Shell, house: House) -> None:
    good, bad, empty = file_of(shell), shell.directory / "bad.mtorrent", shell.directory / "empty.mtorrent"
    bad.write_bytes(b"d4:infoi5ee")
    empty.write_bytes(b"")
    huge = shell.directory / "huge.mtorrent"
    with open(huge, "wb") as file:
        file.truncate(65 << 20)
    cases: list[tuple[str | Path, int, str]] = [
        ("nowhere.mtorrent", 1, "No such file"),
        (".", 1, "is a directory"),
        (bad, 1, "info"),
        (empty, 1, "is empty"),
        (huge, 1, "more than"),
        ("magnet:?xt=urn:btih:0123", 2, "magnet: xt: 4 characters"),
        ("magnet:?dn=thing", 2, "magnet: xt: missing"),
        ("ftp://example.org/x.torrent", 2, "only http and https"),
        ("file:///etc/passwd", 2, "only http and https"),
        ("http://127.0.0.1:9/x.torrent", 1, "refused"),
    ]
    for source, code, words in cases:
        ran = shell.run("add", source)
        assert ran.code == code, source
        assert words in ran.err, source
    assert shell.run("add", good).code == 0
    again = shell.run("add", good)
    assert again.code == 1
    assert "is already here" in again.err
    for options in (["--wait", "--paused"], ["--timeout", "5"], ["--seed", "x", "--save-to", "y"]):
        assert shell.run("add", good, *options).code == 2
    assert shell.run("add", good, good, "--seed", "x").code == 2
    assert shell.run("add", f"magnet:?xt=urn:btih:{'ab' * 20}", "--seed", "x").code == 2
    assert len(house.session.rows) == 1


def test_add_several_tells_each(shell: Shell) -> None:
    ran = shell.run("add", file_of(shell, "a"), "nowhere.mtorrent", file_of(shell, "b"))
    assert ran.code == 5
    assert ran.out == "downloading a in /srv/torrents\ndownloading b in /srv/torrents\n"
    assert "nowhere.mtorrent" in ran.err


def test_add_and_wait_until_it_is_whole(shell: Shell, house: House) -> None:
    process = shell.start("add", file_of(shell, length=1000), "--wait", "--json")
    until(lambda: house.server.subscriber_count == 1)
    for done in (300, 700, 1000):
        house.session.grow("ubuntu.iso", done)
        gevent.sleep(0.01)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert json.loads(out)["state"] == "seeding"
    assert err.decode().splitlines()[0] == "ubuntu.iso: 0.0% downloading"
    assert "ubuntu.iso: 100% seeding" in err.decode().splitlines()[-1]


def test_a_wait_ends_with_124_when_time_is_up(shell: Shell) -> None:
    ran = shell.run("add", file_of(shell), "--wait", "--timeout", "0.2")
    assert ran.code == 124
    assert "the daemon goes on with it" in ran.err


@pytest.mark.parametrize(
    ("happens", "words"),
    [
        (lambda session: session.fail("ubuntu.iso", "no_space"), "no_space"),
        (lambda session: session.remove("ubuntu.iso", False), "ubuntu.iso was removed"),
    ],
)
def test_a_wait_ends_with_1_when_it_cannot_come_true(
    shell: Shell, house: House, happens: Callable[[Any], object], words: str
) -> None:
    process = shell.start("add", file_of(shell), "--wait")
    until(lambda: house.server.subscriber_count == 1)
    happens(house.session)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert words in err.decode()


def test_a_wait_ends_with_3_when_the_daemon_goes(shell: Shell, house: House) -> None:
    process = shell.start("add", file_of(shell), "--wait")
    until(lambda: house.server.subscriber_count == 1)
    house.server.stop()
    _, err = process.communicate(timeout=10)
    assert process.returncode == 3
    assert "closed the connection" in err.decode()


def test_a_wait_that_is_interrupted_ends_with_130_and_without_noise(shell: Shell, house: House) -> None:
    process = shell.start("add", file_of(shell), "--wait")
    until(lambda: house.server.subscriber_count == 1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err.decode() in {"", "ubuntu.iso: 0.0% downloading\n"}  # it may not have come to its first line


def test_several_are_waited_for_together(shell: Shell, house: House) -> None:
    process = shell.start("add", file_of(shell, "a"), file_of(shell, "b"), "--wait")
    until(lambda: len(house.session.rows) == 2)
    house.session.grow("b", 40)
    house.session.grow("a", 40)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert out == b"seeding a in /srv/torrents\nseeding b in /srv/torrents\n"


# ------------------------------------------------------------------------------------------------- streams


def test_events_are_lines(shell: Shell, house: House) -> None:
    people = shell.start("events", "-n", "2")
    programs = shell.start(
        "events", "--json", "--count", "2", "--kind", "completed", "--kind", "torrent_added"
    )
    until(lambda: house.server.subscriber_count == 2)
    house.session.add(mtorrent("alpha"), Terms())
    house.session.grow("alpha", 40)
    out, _ = people.communicate(timeout=10)
    assert people.returncode == 0
    assert [line.split()[1:] for line in out.decode().splitlines()] == [
        ["torrent_added", "alpha"],
        ["progress", "alpha"],
    ]
    out, _ = programs.communicate(timeout=10)
    assert programs.returncode == 0
    notes = [json.loads(line) for line in out.splitlines()]
    assert [note["kind"] for note in notes] == ["torrent_added", "completed"]
    assert all(note["time"].endswith("Z") and note["name"] == "alpha" for note in notes)


def test_events_of_wrong_kinds_or_torrents(shell: Shell) -> None:
    wrong = shell.run("events", "--kind", "complete")
    assert wrong.code == 2
    assert "did you mean 'completed'" in wrong.err
    assert shell.run("events", "nobody").code == 4


def test_the_stream_ends_with_the_daemon(shell: Shell, house: House) -> None:
    process = shell.start("events", "--json")
    until(lambda: house.server.subscriber_count == 1)
    house.server.stop()
    out, err = process.communicate(timeout=10)
    assert process.returncode == 3
    assert json.loads(out)["kind"] == "daemon_stopping"
    assert "the daemon stops" in err.decode()


def test_watch_without_a_terminal_tells_changes(stocked: Shell, house: House) -> None:
    process = stocked.start("watch", "--json", "--interval", "0.1")
    assert process.stdout is not None
    first = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert [row["name"] for row in first] == ["ubuntu.iso", "debian.iso"]
    house.session.grow("debian.iso", 500_000)
    changed = json.loads(process.stdout.readline())
    assert (changed["name"], changed["progress"]) == ("debian.iso", 0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130


# ------------------------------------------------------------------------------------------------- endings


def test_no_daemon_is_3_and_says_what_was_tried(lone_shell: Shell) -> None:
    ran = lone_shell.run("list")
    assert (ran.code, ran.out) == (3, "")
    assert f"{lone_shell.directory}/.local/state/microtorrd/control.sock: not there" in ran.err
    assert "/run/microtorrd/control.sock" in ran.err
    assert "systemctl start microtorrd" in ran.err
    for arguments in (["events"], ["watch"], ["add", "-"], ["pause", "all"], ["limit"]):
        assert lone_shell.run(*arguments, stdin=mtorrent()).code == 3


@pytest.mark.parametrize("name", ["a directory", "a file"])
def test_what_is_no_socket_is_called_so(lone_shell: Shell, name: str) -> None:
    path = lone_shell.directory / name
    path.mkdir() if name == "a directory" else path.write_text("")
    ran = lone_shell.run("--socket", path, "list")
    assert (ran.code, ran.out) == (3, "")
    assert f"{path}: is no socket" in ran.err


def test_a_stale_socket_is_called_so(shell: Shell, house: House) -> None:
    path = shell.directory / "stale.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    ran = shell.run("--socket", path, "ping")
    assert ran.code == 3
    assert "nobody answers" in ran.err
    assert shell.run("--socket", "/tmp/" + "x" * 200, "ping").code == 2


def test_a_pipe_that_is_closed_makes_no_noise(stocked: Shell, house: House) -> None:
    process = stocked.start("events")
    assert process.stdout is not None
    assert process.stderr is not None
    until(lambda: house.server.subscriber_count == 1)
    process.stdout.close()
    house.session.note("limits_changed", down=1)
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=10), err) == (141, b"")


def test_a_full_disk_behind_the_output_is_told(stocked: Shell) -> None:
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [PROGRAM, "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=stocked.environ,
            timeout=10,
            check=False,
        )
    assert result.returncode == 1
    assert b"No space left" in result.stderr
    assert b"Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_scripts(lone_shell: Shell, name: str) -> None:
    ran = lone_shell.run("completion", name)
    assert ran.code == 0
    assert "_MTORRCTL_COMPLETE" in ran.out


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(
    ("typed", "inserted"),
    [("da", r"data\ set\ \$1"), ("'da", "data set $1"), (r"data\ s", r"data\ set\ \$1")],
)
def test_bash_gets_names_with_spaces_as_one_word(
    stocked: Shell, house: House, typed: str, inserted: str
) -> None:
    house.session.add(mtorrent("data set $1"), Terms())
    script = stocked.run("completion", "bash").out
    ask = """
        COMP_WORDS=(mtorrctl pause "$1") COMP_CWORD=2
        _mtorrctl_completion "$2"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    program = Path(sys.executable).with_name("mtorrctl")
    done = subprocess.run(
        ["bash", "--norc", "-c", script + ask, "bash", typed, program],
        env={**os.environ, **stocked.environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (f"{inserted}\n", "")


def test_completion_of_commands_and_torrents(stocked: Shell) -> None:
    asks = {"_MTORRCTL_COMPLETE": "bash_complete"}
    commands = stocked.run(environ={**asks, "COMP_WORDS": "mtorrctl re", "COMP_CWORD": "1"})
    assert {line.split(",")[1] for line in commands.out.splitlines()} == {
        "resume",
        "reannounce",
        "remove",
        "reload",
    }
    torrents = stocked.run(environ={**asks, "COMP_WORDS": "mtorrctl pause ub", "COMP_CWORD": "2"})
    assert torrents.out == "plain,ubuntu.iso\n"
    nobody = stocked.run(
        environ={**asks, "COMP_WORDS": "mtorrctl pause ub", "COMP_CWORD": "2", "MTORRCTL_SOCKET": "/nowhere"}
    )
    assert (nobody.code, nobody.out.strip()) == (0, "")
