"""The program as a process: arguments, exit codes, signals, reload, systemd, and what it leaves behind."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from microtorrd import __version__
from tests.metainfos import mtorrent_of

#: A start and a stop on a busy machine. The promises themselves are tested on what the daemon says of itself.
PATIENCE_S = 30.0


def microtorrd(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "microtorrd", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, **environ},
    )


class Process:
    """A daemon of its own, with a supervisor that hears what it has to say."""

    def __init__(self, place: Path) -> None:
        self.state = place / "state"
        self.socket = place / "control.sock"
        self.config = place / "microtorrd.toml"
        self.log = place / "log"
        self.running: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._notify = place / "notify"
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(self._notify))
        self._manager.settimeout(PATIENCE_S)
        self.config.write_text(
            f"[daemon]\nstate_dir = '{self.state}'\nlog_format = 'json'\n"
            f"[rpc]\nsocket = '{self.socket}'\n"
            f"[listen]\nport = 0\naddresses = ['127.0.0.1']\n"
            f"[storage]\nsave_to = '{place / 'downloads'}'\n"
        )

    def begin(self, *arguments: str, prefix: tuple[str, ...] = (), **environ: str) -> None:
        command = [*prefix, sys.executable, "-m", "microtorrd", "--config", str(self.config), *arguments]
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                command, stderr=log, env={**os.environ, "NOTIFY_SOCKET": str(self._notify), **environ}
            )

    def start(self, *arguments: str, **environ: str) -> None:
        self.begin(*arguments, **environ)
        self.hear("READY")

    def hear(self, key: str) -> str:
        """Wait until the supervisor is told this; the value."""
        while True:
            told = dict(line.split("=", 1) for line in self._manager.recv(4096).decode().splitlines())
            if key in told:
                return told[key]

    def signal(self, number: int) -> None:
        assert self.running is not None
        self.running.send_signal(number)

    def wait(self) -> int:
        assert self.running is not None
        return self.running.wait(PATIENCE_S)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def call(self, method: str, **params: Any) -> Any:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE_S)
            client.connect(str(self.socket))
            request = {"jsonrpc": "2.0", "id": next(self._numbers), "method": method, "params": params}
            client.sendall(json.dumps(request).encode() + b"\n")
            with client.makefile("rb") as answers:
                answer = json.loads(answers.readline())
        if "error" in answer:
            raise LookupError(answer["error"]["message"])
        return answer["result"]

    def said(self, event: str) -> list[dict[str, Any]]:
        """The log lines of this event."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def close(self) -> None:
        if self.running is not None and self.running.poll() is None:
            self.running.kill()
            self.running.wait()
        self._manager.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    yield process
    process.close()


def a_torrent(tracker: str) -> bytes:
    return mtorrent_of("thing", b"x" * 40_000, 16384, tiers=((tracker,),))


class TestArguments:
    def test_version_and_help(self) -> None:
        assert microtorrd("--version").stdout == f"microtorrd {__version__}\n"
        shown = microtorrd("--help")
        assert shown.returncode == 0
        assert "75 another daemon" in shown.stdout

    @pytest.mark.parametrize(
        "arguments", [["--no-such"], ["--log-level", "loud"], ["extra"], ["--config"], ["--check"]]
    )
    def test_wrong_usage_is_2(self, arguments: list[str]) -> None:
        result = microtorrd(*arguments)
        assert result.returncode == 2
        assert result.stderr.startswith("usage: microtorrd")

    def test_a_right_configuration(self, process: Process) -> None:
        result = microtorrd("--check-config", "--config", str(process.config))
        assert (result.returncode, result.stdout, result.stderr) == (0, f"{process.config}: ok\n", "")
        assert not process.state.exists(), "checking makes nothing"

    @pytest.mark.parametrize("check", [True, False])
    def test_a_wrong_configuration_is_78_and_one_line(self, process: Process, check: bool) -> None:
        process.config.write_text("[limits]\nupp = 5\n")
        result = microtorrd("--config", str(process.config), *(["--check-config"] if check else []))
        assert result.returncode == 78
        assert result.stdout == ""
        assert (
            result.stderr
            == f"microtorrd: {process.config}:2: limits.upp is unknown: did you mean limits.up?\n"
        )

    @pytest.mark.parametrize("check", [True, False])
    def test_a_wrong_list_of_the_tracker_is_78_and_names_its_line(
        self, process: Process, tmp_path: Path, check: bool
    ) -> None:
        denied = tmp_path / "denied"
        denied.write_text("# none\nx\n")
        process.config.write_text(
            process.config.read_text()
            + f"[tracker]\nenabled = true\nbind = '127.0.0.1:0'\ndeny_file = '{denied}'\n"
        )
        result = microtorrd("--config", str(process.config), *(["--check-config"] if check else []))
        assert result.returncode == 78
        assert f"{denied}:2: a line is a swarm id" in result.stderr
        assert "Traceback" not in result.stderr

    def test_what_an_unset_variable_leaves_names_no_file(self) -> None:
        result = microtorrd("--check-config", "--config", "")
        assert result.returncode == 2
        assert result.stderr.endswith("microtorrd: error: argument --config: the path is empty\n")

    def test_log_level_and_format_are_settings_like_others(self) -> None:
        assert microtorrd("--check-config", "--log-level", "debug", "--log-format", "json").returncode == 0
        assert microtorrd("--check-config", MICROTORRD_DAEMON_LOG_LEVEL="loud").returncode == 78


class TestLife:
    def test_it_answers_at_once_and_leaves_nothing_behind(self, process: Process) -> None:
        process.start()
        version = process.call("daemon.version")
        assert version["version"] == __version__
        assert version["pid"] == process.running.pid  # type: ignore[union-attr]
        assert version["state_dir"] == str(process.state)
        assert process.said("ready")[0]["took_s"] < 1.0
        assert process.socket.stat().st_mode & 0o777 == 0o660
        before = process.config.read_bytes()
        assert process.stop() == 0
        assert process.hear("STOPPING") == "1"
        assert process.said("stopped")[0]["took_s"] < 10
        assert not process.socket.exists()
        assert process.config.read_bytes() == before
        assert process.said("greenlet_crashed") + process.said("greenlets_survived") == []
        process.start()
        assert process.stop() == 0

    def test_an_interrupt_before_it_listens_makes_no_traceback(self) -> None:
        asked = "import signal, microtorrd.__main__; print(signal.getsignal(signal.SIGINT).name)"
        command = [sys.executable, "-c", asked]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "SIG_DFL\n"

    def test_interrupt_and_shutdown_end_it_too(self, process: Process) -> None:
        process.start()
        process.signal(signal.SIGINT)
        assert process.wait() == 0
        process.start()
        assert process.call("daemon.shutdown") == {"ok": True}
        assert process.wait() == 0
        assert [line["wanted_by"] for line in process.said("stopping")] == ["SIGINT", "rpc"]

    def test_a_second_signal_ends_it_at_once(self, process: Process) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the `stopped` and never answers
            silent.settimeout(PATIENCE_S)
            process.start()
            raw = a_torrent(f"http://127.0.0.1:{silent.getsockname()[1]}/announce")
            process.call("torrent.add", metainfo=base64(raw))
            asked, _ = silent.accept()
            process.signal(signal.SIGTERM)
            process.hear("STOPPING")
            began = time.monotonic()
            process.signal(signal.SIGTERM)
            assert process.wait() == 1
            assert time.monotonic() - began < 2
            asked.close()

    def test_a_second_daemon_is_75_and_names_the_first(self, process: Process) -> None:
        process.start()
        result = microtorrd("--config", str(process.config))
        assert result.returncode == 75
        (line,) = [line for line in map(json.loads, result.stderr.splitlines()) if line["level"] == "error"]
        assert line["event"] == "start_failed"
        assert line["holder"] == process.running.pid  # type: ignore[union-attr]
        assert process.call("daemon.ping")["pong"] is True
        assert process.stop() == 0

    def test_after_a_kill_it_starts_again(self, process: Process) -> None:
        process.start()
        process.signal(signal.SIGKILL)
        process.wait()
        assert process.socket.exists()
        process.start()
        assert process.call("daemon.ping")["pong"] is True
        assert process.stop() == 0

    def test_a_port_in_use_is_1_and_named(self, process: Process) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            result = microtorrd("--config", str(process.config), "--set", f"listen.port={port}")
        assert result.returncode == 1
        (line,) = [line for line in map(json.loads, result.stderr.splitlines()) if line["level"] == "error"]
        assert str(port) in line["error"]
        assert "in use" in line["error"]
        assert "Traceback" not in result.stderr

    def test_an_unknown_interface_is_named(self, process: Process) -> None:
        result = microtorrd("--config", str(process.config), "--set", "listen.interface=nosuch0")
        assert result.returncode in (1, 78)
        assert "nosuch0" in result.stderr
        assert "Traceback" not in result.stderr

    def test_a_damaged_database_is_1_and_says_what_to_do(self, process: Process) -> None:
        process.state.mkdir()
        (process.state / "state.sqlite").write_bytes(b"garbage" * 1000)
        result = microtorrd("--config", str(process.config))
        assert result.returncode == 1
        (line,) = [line for line in map(json.loads, result.stderr.splitlines()) if line["level"] == "error"]
        assert f"{process.state}/state.sqlite: the state database is damaged" in line["error"]
        assert (process.state / "state.sqlite").read_bytes() == b"garbage" * 1000, "nothing was touched"

    @pytest.mark.parametrize(
        ("setting", "says"),
        [
            ("rpc.socket=/etc/passwd/control.sock", "/etc/passwd/control.sock: Not a directory"),
            ("rpc.socket_group=nosuchgroup", "there is no group 'nosuchgroup'"),
            ("daemon.state_dir=/etc/passwd/state", "/etc/passwd/state cannot be used: Not a directory"),
        ],
    )
    def test_what_only_an_edit_mends_is_78(self, process: Process, setting: str, says: str) -> None:
        result = microtorrd("--config", str(process.config), "--set", setting)
        assert result.returncode == 78
        (line,) = [line for line in map(json.loads, result.stderr.splitlines()) if line["level"] == "error"]
        assert says in line["error"]
        assert line["key"] == setting.partition("=")[0]
        assert not process.socket.exists()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root is told")
    def test_root_is_warned_and_not_refused(self, process: Process) -> None:
        process.start()
        assert process.stop() == 0
        assert len(process.said("running_as_root")) == 1

    def test_it_serves_a_tracker_when_told_to(self, process: Process) -> None:
        process.start("--set", "tracker.enabled=true", "--set", "tracker.bind=127.0.0.1:0")
        ready = process.said("ready")[0]
        port = ready["tracker_port"]
        assert ready["tracker_udp_port"] == port
        stats = process.call("session.stats")
        assert (stats["tracker_port"], stats["tracker_udp_port"]) == (port, port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE_S) as answer:
            assert answer.status == 200
        assert process.stop() == 0


class TestReload:
    @pytest.mark.parametrize("by", ["signal", "rpc"])
    def test_what_can_change_changes_and_the_rest_is_named(self, process: Process, by: str) -> None:
        process.start()
        assert process.call("session.limit")["up"] == 0
        process.config.write_text(
            process.config.read_text().replace("port = 0", "port = 1") + "[limits]\nup = '2 MB/s'\n"
        )
        reload(process, by)
        assert process.call("session.limit")["up"] == 2_000_000
        (line,) = process.said("reloaded")
        assert (line["applied"], line["need_restart"]) == (["limits.up"], ["listen.port"])
        assert process.stop() == 0

    def test_a_mistake_leaves_everything_as_it_was(self, process: Process) -> None:
        process.start()
        process.config.write_text(process.config.read_text() + "[limits]\nupp = 1\n")
        with pytest.raises(LookupError, match=r"limits\.upp is unknown: did you mean limits\.up\?"):
            process.call("daemon.reload")
        process.hear("READY")
        reload(process, "signal")
        assert "limits.upp is unknown" in process.said("reload_failed")[0]["error"]
        assert process.call("daemon.ping")["pong"] is True
        assert process.stop() == 0


def reload(process: Process, by: str) -> None:
    if by == "rpc":
        assert process.call("daemon.reload") == {"ok": True}
    else:
        process.signal(signal.SIGHUP)
    assert int(process.hear("MONOTONIC_USEC")) > 0
    process.hear("READY")


class TestSupervision:
    def test_the_watchdog_is_fed(self, process: Process) -> None:
        process.start(WATCHDOG_USEC="200000")
        assert [process.hear("WATCHDOG") for _ in range(3)] == ["1", "1", "1"]
        assert process.stop() == 0

    def test_a_process_that_stands_still_is_not_fed(self, process: Process) -> None:
        process.start(WATCHDOG_USEC="200000")
        process.hear("WATCHDOG")
        process.signal(signal.SIGSTOP)
        process._manager.settimeout(0.5)
        with pytest.raises(TimeoutError):
            while True:
                process.hear("WATCHDOG")
        process.signal(signal.SIGCONT)
        process._manager.settimeout(PATIENCE_S)
        process.hear("WATCHDOG")
        assert process.stop() == 0

    @pytest.mark.skipif(
        shutil.which("systemd-socket-activate") is None and "CI" not in os.environ, reason="no systemd here"
    )
    def test_a_socket_of_systemd_is_served_and_left_alone(self, process: Process) -> None:
        process.begin(prefix=("systemd-socket-activate", f"--listen={process.socket}"))
        eventually(lambda: is_listened_at(process.socket))
        assert process.call("daemon.ping")["pong"] is True, "the first call started it"
        assert process.stop() == 0
        assert process.socket.exists()


def is_listened_at(path: Path) -> bool:
    """Whether a Unix socket of that name takes connections; its file is there a moment before it does."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return any(row[-1] == str(path) and int(row[3], 16) & 0x10000 for row in rows if len(row) == 8)


def eventually(condition: Callable[[], bool]) -> None:
    """For what no fact tells of: the doings of somebody else's program."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def base64(raw: bytes) -> str:
    import base64 as codec

    return codec.b64encode(raw).decode()
