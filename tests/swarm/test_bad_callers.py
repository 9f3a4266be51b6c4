"""Callers who shout, stammer, flood or fall asleep, and operators in a hurry: each gets a clear answer.

One daemon serves them all. After each it is as before, and answers the next one at once.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
import pytest

from bench.daemons import Daemon
from microtorrd.proto.jsonrpc import INTERNAL_ERROR, MAX_LINE_BYTES
from mtorrctl.exits import Unreachable
from tests.swarm.conftest import mtorrctl
from tests.swarm.disks import MIB, Sample, make_sample, plain_log, until
from tests.swarm.hostile import Health, wait


class RawCaller:
    """A connection to the control socket, byte for byte."""

    def __init__(self, daemon: Daemon) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(str(daemon.socket))
        self._read = b""

    def say(self, raw: bytes) -> None:
        self.sock.sendall(raw)

    def line(self) -> Any:
        """The next line, EOFError at the end."""
        while b"\n" not in self._read:
            part = self.sock.recv(1 << 20)
            if not part:
                raise EOFError
            self._read += part
        line, _, self._read = self._read.partition(b"\n")
        return json.loads(line)

    def ask(self, raw: bytes) -> Any:
        """Say a line and hear the answer."""
        self.say(raw + b"\n")
        return self.line()

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> RawCaller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def call(method: str, number: int = 1, **params: Any) -> bytes:
    """A request, without its end of line."""
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode()


PING = call("daemon.ping", 7)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("callers")


@pytest.fixture(scope="module")
def daemon(place: Path) -> Iterator[Daemon]:
    with Daemon(place / "daemon") as daemon:
        sample = make_sample("seeded.bin", 2 * MIB)
        daemon.call("torrent.add", metainfo=sample.raw, seed_path=str(sample.write(place)))
        until(daemon, sample, lambda row: row["state"] == "seeding")
        yield daemon
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log(), plain_log(daemon)[-6000:]


class Bystander:
    """Somebody who asks politely, again and again, while others do not."""

    def __init__(self, daemon: Daemon) -> None:
        self.longest_s = 0.0
        self._daemon = daemon
        self._greenlet = gevent.spawn(self._ask)

    def _ask(self) -> None:
        while True:
            began = time.monotonic()
            self._daemon.call("daemon.ping")
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            gevent.sleep(0.02)

    def __enter__(self) -> Bystander:
        return self

    def __exit__(self, *_: object) -> None:
        self._greenlet.kill()


# ----------------------------------------------------------------------------------------- the control socket


NONSENSE = [
    b"{",
    b"}",
    b"nonsense",
    b"[1,2",
    b"\xff\xfe\x00",
    b"null",
    b"42",
    b'"ping"',
    b"[]",
    b"[[]]",
    b"[1]",
    b"{}",
    b'{"jsonrpc":"1.0","method":"daemon.ping","id":1}',
    b'{"jsonrpc":"2.0","id":1}',
    b'{"jsonrpc":"2.0","method":42,"id":1}',
    b'{"jsonrpc":"2.0","method":"daemon.ping","params":[1],"id":1}',
    b'{"jsonrpc":"2.0","method":"daemon.ping","params":"x","id":1}',
    b'{"jsonrpc":"2.0","method":"daemon.ping","id":{"a":1}}',
    b'{"jsonrpc":"2.0","method":"daemon.ping","id":"' + b"x" * 5000 + b'"}',
    b'{"jsonrpc":"2.0","method":"' + b"x" * 100_000 + b'","id":1}',
    b'{"jsonrpc":"2.0","method":"\\ud800","id":1}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"jsonrpc":"2.0","method":"torrent.list","params":' + b'{"ids":' * 50_000 + b"}" * 50_000 + b',"id":1}',
    b'{"jsonrpc":"2.0","method":"torrent.list","params":{"ids":'
    + b"[" * 50_000
    + b"]" * 50_000
    + b'},"id":1}',
    b"9" * 100_000,
    b"GET / HTTP/1.1\r",
    b"\x00" * 1000,
]


def test_nonsense_is_answered_and_the_connection_goes_on(daemon: Daemon) -> None:
    with RawCaller(daemon) as caller:
        for raw in NONSENSE:
            answer = caller.ask(raw)
            for reply in answer if isinstance(answer, list) else [answer]:
                assert reply["error"]["code"] in {-32700, -32600, -32601, -32602}, (raw[:50], reply)
                assert reply["error"]["message"], raw[:50]
                assert len(json.dumps(reply)) < 2000, "an answer that repeats what it was told"
            assert caller.ask(PING)["result"]["pong"] is True


def test_an_unknown_method_is_named_with_the_nearest(daemon: Daemon) -> None:
    with RawCaller(daemon) as caller:
        error = caller.ask(call("torrent.lst"))["error"]
        assert error["code"] == -32601
        assert error["data"]["nearest"] == "torrent.list"


def test_a_line_of_a_hundred_mebibytes(daemon: Daemon) -> None:
    health = Health(daemon)
    health.MEMORY_BYTES = MAX_LINE_BYTES + (32 << 20)
    with RawCaller(daemon) as caller, Bystander(daemon) as bystander:
        chunk = b"x" * MIB
        for _ in range(100):
            caller.say(chunk)
        answer = caller.line()
        assert answer["error"]["code"] == -32001
        assert str(MAX_LINE_BYTES) in answer["error"]["message"]
        with pytest.raises((EOFError, ConnectionError)):
            caller.line()
    assert bystander.longest_s < 2
    health.check()


def test_two_such_lines_at_a_time_do_not_add_up(daemon: Daemon) -> None:
    health = Health(daemon)
    health.MEMORY_BYTES = MAX_LINE_BYTES + (48 << 20)
    codes = []
    with ExitStack() as stack:
        callers = [stack.enter_context(RawCaller(daemon)) for _ in range(4)]
        for _ in range(60):
            for caller in list(callers):
                try:
                    caller.say(b"x" * MIB)
                except OSError:
                    callers.remove(caller)
        stack.pop_all().close()
    with RawCaller(daemon) as caller:
        codes.append(caller.ask(PING)["result"]["pong"])
    assert codes == [True]
    health.check()


def test_five_hundred_that_say_nothing(daemon: Daemon) -> None:
    health = Health(daemon)
    with ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(RawCaller(daemon))
        began = time.monotonic()
        assert mtorrctl(daemon, "ping").returncode == 0
        with RawCaller(daemon) as caller:
            assert caller.ask(PING)["result"]["pong"] is True
        assert time.monotonic() - began < 10
    health.check()


def test_five_hundred_that_begin_a_line(daemon: Daemon) -> None:
    health = Health(daemon)
    with ExitStack() as stack:
        for _ in range(500):
            caller = stack.enter_context(RawCaller(daemon))
            caller.say(b'{"jsonrpc":')
        assert daemon.call("daemon.ping")["pong"] is True
    health.check()


BATCHES = {
    "a thousand lists": b"[" + b",".join(call("torrent.list", n) for n in range(1000)) + b"]",
    "a thousand subscriptions": b"[" + b",".join(call("events.subscribe", n) for n in range(1000)) + b"]",
    "too many": b"[" + b",".join(call("daemon.ping", n) for n in range(1001)) + b"]",
    "a million nulls": b"[" + b"null," * 1_000_000 + b"null]",
    "a thousand bad torrents": b"["
    + b",".join(call("torrent.add", n, metainfo="QUFB" * 5000) for n in range(1000))
    + b"]",
    "a thousand checks": b"["
    + b",".join(call("torrent.verify", n, id="seeded.bin") for n in range(1000))
    + b"]",
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_that_asks_for_too_much(daemon: Daemon, name: str) -> None:
    health = Health(daemon)
    health.MEMORY_BYTES = 128 << 20
    with RawCaller(daemon) as caller, Bystander(daemon) as bystander:
        answer = caller.ask(BATCHES[name])
        if isinstance(answer, list):
            assert len(answer) == 1000
            assert all(reply.get("error", {}).get("code") != INTERNAL_ERROR for reply in answer)
        else:
            assert answer["error"]["code"] == -32600
    assert bystander.longest_s < 2
    row = daemon.call("torrent.list", ids=["seeded.bin"])["torrents"][0]
    wait(
        lambda: daemon.call("torrent.list", ids=["seeded.bin"])["torrents"][0]["state"] == "seeding",
        lambda: f"{row}",
    )
    health.check()


def test_who_subscribes_and_never_reads(daemon: Daemon) -> None:
    """Its notes are bounded, and it is told how many it lost; nobody waits for it."""
    health = Health(daemon)
    with ExitStack() as stack:
        callers = [stack.enter_context(RawCaller(daemon)) for _ in range(10)]
        for caller in callers:
            assert caller.ask(call("events.subscribe"))["result"]["subscribed"] is True
        with daemon.client() as client, Bystander(daemon) as bystander:
            for _ in range(25):
                client.batch([("session.limit", {"down": 0})] * 1000)
        assert bystander.longest_s < 2
        lost = 0
        for _ in range(25_000):
            note = callers[0].line()
            if note["params"]["kind"] == "notes_lost":
                lost = note["params"]["lost"]
                break
        assert lost > 0
    health.check()


def test_who_asks_and_never_reads(daemon: Daemon) -> None:
    health = Health(daemon)
    with RawCaller(daemon) as caller, Bystander(daemon) as bystander:
        caller.sock.settimeout(1.0)
        with pytest.raises(TimeoutError):  # it is not heard any more, before its answers pile up
            for _ in range(10_000):
                caller.say(call("rpc.discover") + b"\n")
    assert bystander.longest_s < 2
    health.check()


# ---------------------------------------------------------------------------------------------- parameters


ODD_VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1 << 63,
    1 << 200,
    1.5,
    "",
    " ",
    "\0",
    "/",
    "/\0",
    "..",
    "/../..",
    "/" + "x/" * 3000,
    "x" * 100_000,
    "\n",
    "\u202e\x1b[2J",
    "all",
    "0000",
    [],
    [[]],
    ["all"] * 20_000,
    {},
    {"a": 1},
]

METHODS: dict[str, tuple[str, ...]] = {
    "torrent.add": (
        "metainfo",
        "save_to",
        "seed_path",
        "paused",
        "wait_seeders",
        "down",
        "label",
        "sequential",
        "files",
        "priorities",
    ),
    "torrent.select": ("id", "files", "priority"),
    "torrent.order": ("id", "sequential"),
    "torrent.list": ("ids", "fields"),
    "torrent.show": ("id",),
    "torrent.peers": ("id",),
    "torrent.files": ("id",),
    "torrent.trackers": ("id",),
    "torrent.pause": ("id",),
    "torrent.move": ("id", "save_to"),
    "torrent.limit": ("id", "down", "up"),
    "torrent.reannounce": ("id",),
    "session.limit": ("down", "up"),
    "session.stats": ("id",),
    "events.subscribe": ("kinds", "ids"),
}


def test_odd_parameters_are_refused_by_name(tmp_path: Path) -> None:
    """On a daemon of its own, since `all` is among them and some of it is even right."""
    sample = make_sample("victim.bin", 100_000)
    good = {"metainfo": "QUFB", "id": "victim.bin", "save_to": str(tmp_path)}
    with Daemon(tmp_path / "daemon") as daemon, RawCaller(daemon) as caller:
        daemon.call("torrent.add", metainfo=sample.raw, paused=True)
        for (method, names), value in itertools.product(METHODS.items(), ODD_VALUES):
            for name in names:
                params = {key: good[key] for key in names if key in good} | {name: value}
                answer = caller.ask(call(method, **params))
                while "id" not in answer:  # a subscription that was right
                    answer = caller.line()
                error = answer.get("error")
                if error is not None:
                    assert error["code"] != INTERNAL_ERROR, (method, params)
                    assert len(error["message"]) < 2000, (method, name, str(value)[:50])
        assert daemon.call("torrent.list")["torrents"][0]["name"] == sample.name
        assert "Traceback" not in daemon.log(), plain_log(daemon)[-6000:]


# ------------------------------------------------------------------------------------------- the start


def start(*arguments: str, place: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    """A daemon that is not expected to start."""
    wanted = {
        "daemon.state_dir": place / "state",
        "rpc.socket": place / "control.sock",
        "listen.port": 0,
        "listen.addresses": "127.0.0.1",
        "daemon.log_format": "console",
        **{key.replace("__", "."): value for key, value in settings.items()},
    }
    sets = [f"--set={key}={value}" for key, value in wanted.items()]
    return subprocess.run(
        [sys.executable, "-m", "microtorrd", *arguments, *sets],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The one line about what went wrong."""
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr + done.stdout)
    assert "Traceback" not in said, said
    (line,) = [
        line for line in said.splitlines() if "start_failed" in line or line.startswith("microtorrd: ")
    ]
    return line


def test_a_second_daemon_on_the_same_state(daemon: Daemon, tmp_path: Path) -> None:
    assert daemon.process is not None
    done = start(place=tmp_path, daemon__state_dir=daemon.directory / "state")
    assert done.returncode == 75
    assert f"process {daemon.process.pid}" in told(done)
    assert daemon.call("daemon.ping")["pong"] is True


def test_a_socket_that_is_in_use(daemon: Daemon, tmp_path: Path) -> None:
    done = start(place=tmp_path, rpc__socket=daemon.socket)
    assert done.returncode != 0
    assert str(daemon.socket) in told(done)
    assert daemon.call("daemon.ping")["pong"] is True


def test_a_port_that_is_in_use(daemon: Daemon, tmp_path: Path) -> None:
    port = daemon.call("session.stats")["listen_port"]
    done = start(place=tmp_path, listen__port=port)
    assert done.returncode == 1
    line = told(done)
    assert f"port {port} of 127.0.0.1 is in use" in line and "listen.port" in line
    done = start(place=tmp_path, tracker__enabled="true", tracker__bind=f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert str(port) in told(done)


def test_an_interface_that_is_none(tmp_path: Path) -> None:
    done = start(place=tmp_path, listen__interface="nosuch0")
    assert done.returncode == 78
    assert "nosuch0" in told(done)


CONFIGS = [
    ("[listen]\nport = 7777\nprot = 1\n", ":3:", "prot", "port"),
    ("[lisen]\nport = 1\n", ":1:", "lisen", "listen"),
    ('[listen]\n\nport = "high"\n', ":3:", "port", ""),
    ("[listen]\nport = 70000\n", ":2:", "port", "65535"),
    ("[storage]\npiece_memory = 1.5\n", ":2:", "piece_memory", ""),
    ('[storage]\npiece_memory = "lots"\n', ":2:", "piece_memory", ""),
    ('[swarm]\nannounce_as = "bothh"\n', ":2:", "announce_as", "both"),
    ("[swarm]\nrandom_peer_share = 2\n", ":2:", "random_peer_share", "1"),
    ("[listen\nport = 1\n", ":1:", "", ""),
    ("port = 1\n", ":1:", "port", ""),
    ("[listen]\nport = 1\nport = 2\n", ":3:", "", ""),
    ("listen = 3\n", ":1:", "listen", ""),
    ("\x00\x01", "", "", ""),
]


def test_a_config_that_is_wrong(tmp_path: Path) -> None:
    """Each kind of mistake: the file, the line, the key, and what would be right."""
    for number, (text, where, key, hint) in enumerate(CONFIGS):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "microtorrd", "--config", str(path), "--check-config"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 78, (text, done.stderr)
        line = told(done)
        assert str(path) + where in line, (text, line)
        assert key in line and hint in line, (text, line)


def test_a_config_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.toml", tmp_path):
        done = start("--config", str(path), place=tmp_path)
        assert done.returncode == 78
        assert str(path) in told(done)


# ------------------------------------------------------------------------------------------- mtorrctl


def spoiled(sample: Sample, find: bytes, put: bytes) -> bytes:
    """The metainfo with a part replaced."""
    assert sample.raw.count(find) == 1
    return sample.raw.replace(find, put)


def test_files_that_are_no_torrents(daemon: Daemon, tmp_path: Path) -> None:
    sample = make_sample("torrent.bin", 300_000)
    pieces = sample.raw[sample.raw.index(b"6:pieces") :]
    files: dict[str, bytes] = {
        "empty.mtorrent": b"",
        "photo.mtorrent": b"\xff\xd8\xff\xe0\x00\x10JFIF" + random.Random(1).randbytes(50_000),
        "page.mtorrent": b"<!DOCTYPE html><html></html>",
        "text.mtorrent": b"d8:announce",
        "truncated.mtorrent": sample.raw[: len(sample.raw) // 2],
        "trailing.mtorrent": sample.raw + b"x",
        "deep.mtorrent": b"l" * 100_000,
        "up.mtorrent": spoiled(sample, b"4:name11:torrent.bin", b"4:name11:../escaped/"),
        "absolute.mtorrent": spoiled(sample, b"4:name11:torrent.bin", b"4:name11:/etc/passwd"),
        "nul.mtorrent": spoiled(sample, b"4:name11:torrent.bin", b"4:name11:torren\0.bin"),
        "dots.mtorrent": spoiled(sample, b"4:name11:torrent.bin", b"4:name2:.."),
        "negative.mtorrent": spoiled(sample, b"6:lengthi300000e", b"6:lengthi-1e"),
        "absurd.mtorrent": spoiled(sample, b"6:lengthi300000e", b"6:lengthi9000000000000000000e"),
        "misfit.mtorrent": spoiled(sample, b"6:lengthi300000e", b"6:lengthi900000e"),
        "no pieces.mtorrent": sample.raw.replace(pieces, b"6:pieces0:ee"),
        "big.mtorrent": b"d4:info" + b"1:x" * (22 << 20),
    }
    for name, raw in files.items():
        path = tmp_path / name
        path.write_bytes(raw)
        done = mtorrctl(daemon, "add", path)
        assert done.returncode == 1, (name, done)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.stdout == "" and 1 <= len(done.stderr.splitlines()) <= 3, (name, done.stderr)
    for path, word in ((tmp_path, "directory"), (tmp_path / "missing", "No such file")):
        done = mtorrctl(daemon, "add", path)
        assert done.returncode == 1 and word.lower() in done.stderr.lower(), done
    assert [row["name"] for row in daemon.call("torrent.list")["torrents"]] == ["seeded.bin"]
    assert not (daemon.save_to.parent / "escaped").exists()


NAMES = ["with space", "ünï-çødé 日本", "'quo\"ted'", "-dash", "a" * 255, "%s{0}"]
PAINTING = ["new\nline", "tab\tand\x1b[31mcolour", "\x7f"]


def test_names_that_are_a_nuisance(daemon: Daemon, tmp_path: Path) -> None:
    """Seeded, listed, found by name and removed again."""
    for name in NAMES:
        content = tmp_path / name
        content.write_bytes(name.encode() * 1000)
        done = mtorrctl(daemon, "seed", "-o", tmp_path / "x.mtorrent", "--", content)
        assert done.returncode == 0, (name, done.stderr)
        row = daemon.call("torrent.list", ids=[name])["torrents"][0]
        assert row["name"] == name
        assert json.loads(mtorrctl(daemon, "list", "--json", "--", name).stdout)[0]["name"] == name
        done = mtorrctl(daemon, "remove", "--", name)
        assert done.returncode == 0, (name, done.stderr)


def test_names_that_would_paint_a_terminal_are_refused(daemon: Daemon, tmp_path: Path) -> None:
    for name in PAINTING:
        content = tmp_path / name
        content.write_bytes(b"x")
        for command in ("seed", "create"):
            done = mtorrctl(daemon, command, "-o", tmp_path / "x.mtorrent", "--", content)
            assert done.returncode == 1, (name, done)
            assert name not in done.stderr and "\x1b[31m" not in done.stderr
            assert not (tmp_path / "x.mtorrent").exists()


def test_ids_that_mean_nothing_or_too_much(daemon: Daemon, tmp_path: Path) -> None:
    found = samples_that_share_a_prefix()
    for number, sample in enumerate(found):
        daemon.call("torrent.add", metainfo=sample.raw, paused=True, save_to=str(tmp_path / str(number)))
    prefix = found[0].info_hash.hex()[:4]
    for word in (prefix, "same-name", "nothing", prefix[:3], "ZZZZ", "0" * 41):
        for command in ("inspect", "pause", "remove", "files"):
            done = mtorrctl(daemon, command, word)
            assert done.returncode == 4, (command, word, done)
            assert "Traceback" not in done.stderr
    done = mtorrctl(daemon, "pause", "seeded.bin", "nothing")
    assert done.returncode == 5
    assert mtorrctl(daemon, "resume", "seeded.bin").returncode == 0
    for sample in found:
        assert mtorrctl(daemon, "remove", sample.info_hash.hex()).returncode == 0


def samples_that_share_a_prefix() -> list[Sample]:
    """Two torrents of one name whose ids begin alike."""
    seen: dict[str, Sample] = {}
    for number in itertools.count():
        sample = make_sample("same-name", number + 1, piece_bytes=16384)
        other = seen.setdefault(sample.info_hash.hex()[:4], sample)
        if other is not sample:
            return [other, sample]
    raise AssertionError("unreachable")


def test_numbers_that_are_too_large(daemon: Daemon) -> None:
    for arguments in (
        ["limit", "--down", "9" * 400],
        ["limit", "--up", "99999999999999 TB/s"],
        ["limit", "seeded.bin", "--down", str(1 << 63)],
        ["add", "x.mtorrent", "--wait", "--timeout", "9" * 400],
    ):
        done = mtorrctl(daemon, *arguments)
        assert done.returncode in {1, 2}, (arguments, done)
        assert "Traceback" not in done.stderr, done.stderr
    assert daemon.call("session.limit") == {"down": 0, "up": 0}


def test_a_daemon_that_is_not_there(tmp_path: Path) -> None:
    nobody = Daemon(tmp_path / "nobody")
    assert mtorrctl(nobody, "list").returncode == 3
    (tmp_path / "nobody").mkdir()
    nobody.socket.write_text("no socket")
    assert mtorrctl(nobody, "list").returncode == 3
    nobody.socket.unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(nobody.socket))
        assert mtorrctl(nobody, "list").returncode == 3
    with pytest.raises(Unreachable):
        nobody.call("daemon.ping")
