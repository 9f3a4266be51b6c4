"""The private daemon of the foreground commands: what it is given, how it ends, and that nothing is left."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import psutil
import pytest

from mtorrctl import scratch, statistics, tether
from mtorrctl.course import Plan
from mtorrctl.exits import Failure
from mtorrctl.foreground import numeric_bind
from mtorrctl.interrupts import Interrupted, Interrupts
from tests.conftest import open_descriptors
from tests.programs import PATIENCE_S, Run, Stage

CONTENT = random.Random(2).randbytes(300_000)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


def gone(process: psutil.Process) -> bool:
    """Whether it ends within the time of a clean stop."""
    dead, _ = psutil.wait_procs([process], PATIENCE_S)
    return bool(dead)


def udp_ports(run: Run) -> set[int]:
    """Where its daemon takes datagrams."""
    return {found.laddr.port for found in run.daemon.net_connections("udp")}


class TestEnds:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_ends_it_and_nothing_is_left(self, stage: Stage, number: int) -> None:
        mtorrent = stage.share(CONTENT)
        run = stage.leech(mtorrent, "a")
        run.wait_for("waiting")
        daemon = run.daemon
        assert [name.startswith(scratch.PREFIX) for name in stage.leftovers()] == [True]
        assert run.signal(number).wait() == 0
        assert stage.leftovers() == []
        assert gone(daemon)
        assert statistics.HEAD in run.text

    def test_a_signal_before_the_daemon_is_ready(self, stage: Stage) -> None:
        mtorrent = stage.share(CONTENT)
        run = stage.leech(mtorrent, "a", "-v", "3")
        run.wait_for(r"\[DEBUG\]: starting")
        assert run.interrupt() == 0
        assert stage.leftovers() == []

    def test_ctrl_c_of_the_terminal_reaches_only_the_foreground(self, stage: Stage) -> None:
        run = stage.tracker()
        assert os.getpgid(run.daemon.pid) != os.getpgid(run.process.pid)
        assert os.getsid(run.daemon.pid) != os.getsid(run.process.pid)

    def test_nohup_is_respected(self, stage: Stage) -> None:
        run = stage.run("nohup", "MicroTorr", "tracker", "-b", "127.0.0.1:0")
        run.wait_for("Tracker serving on")
        run.signal(signal.SIGHUP)
        port = re.search(r"serving on: 127.0.0.1:(\d+)", run.text)
        assert port is not None
        assert announce(f"http://127.0.0.1:{port[1]}", port="1").startswith(b"HTTP/1.1 200")
        assert run.process.poll() is None
        assert run.signal(signal.SIGTERM).wait() == 0

    def test_a_daemon_that_is_killed_is_told_and_swept_up(self, stage: Stage) -> None:
        mtorrent = stage.share(CONTENT)
        run = stage.leech(mtorrent, "a")
        run.wait_for("waiting")
        run.daemon.kill()
        assert run.wait() == 1
        assert "[CRITICAL]: the private daemon was ended by signal 9" in run.text
        assert stage.leftovers() == []

    def test_a_tracker_whose_daemon_is_killed(self, stage: Stage) -> None:
        run = stage.tracker()
        run.daemon.kill()
        assert run.wait() == 1
        assert "the private daemon was ended by signal 9" in run.text
        assert stage.leftovers() == []

    def test_a_foreground_that_is_killed_takes_its_daemon_along(self, stage: Stage) -> None:
        run = stage.tracker()
        daemon = run.daemon
        run.signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        assert gone(daemon)
        left = stage.leftovers()
        assert len(left) == 1
        # It could not clean up; whoever comes next does.
        after = stage.tracker()
        assert left[0] not in stage.leftovers()
        assert after.interrupt() == 0
        assert stage.leftovers() == []

    def test_an_impatient_user_is_obeyed(self, stage: Stage) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            mtorrent = stage.share(CONTENT, url=f"http://127.0.0.1:{silent.getsockname()[1]}")
            run = stage.leech(mtorrent, "a", "-v", "3")
            client, _ = silent.accept()
            with client:
                run.signal(signal.SIGINT)
                run.wait_for(r"\[DEBUG\]: stopping")
                assert run.signal(signal.SIGINT).wait(5) == 0
        assert stage.leftovers() == []


class TestSurroundings:
    def test_it_sees_no_configuration_of_the_user(self, stage: Stage) -> None:
        config = stage.directory / ".config/microtorrd"
        config.mkdir(parents=True)
        (config / "microtorrd.toml").write_text("nonsense")
        run = stage.microtorr(
            "tracker",
            "-b",
            "127.0.0.1:0",
            MICROTORRD_TRACKER_BIND="nonsense",
            NOTIFY_SOCKET="/nonexistent",
            STATE_DIRECTORY="/nonexistent",
            CONFIGURATION_DIRECTORY=str(config),
        )
        run.wait_for("Tracker serving on: 127")
        assert run.interrupt() == 0

    def test_it_imports_nothing_from_where_it_is_started(self, stage: Stage) -> None:
        for name in ("flask", "gevent", "json", "random", "ctypes", "microtorrd", "sitecustomize"):
            (stage.directory / f"{name}.py").write_text("raise SystemExit('taken from the wrong place')")
        run = stage.tracker()
        assert run.interrupt() == 0

    def test_its_socket_is_for_its_user_alone(self, stage: Stage) -> None:
        run = stage.tracker()
        place = Path(run.daemon.cwd())
        assert place.stat().st_mode & 0o777 == 0o700
        assert (place / "control.sock").stat().st_mode & 0o777 == 0o600

    def test_a_temporary_directory_with_a_long_path_is_not_for_sockets(self, stage: Stage) -> None:
        long = stage.directory / ("x" * 100)
        long.mkdir()
        run = stage.microtorr(
            "tracker", "-b", "127.0.0.1:0", TMPDIR=str(long), XDG_RUNTIME_DIR=str(stage.temporary)
        )
        run.wait_for("Tracker serving on")
        assert len(stage.leftovers()) == 1
        assert run.interrupt() == 0

    def test_a_current_directory_that_is_gone(self, stage: Stage) -> None:
        mtorrent = stage.share(CONTENT)
        program = f"mkdir gone; cd gone; rmdir ../gone; MicroTorr download {mtorrent}"
        run = stage.run("bash", "-c", program)
        assert run.wait() == 1
        assert "[CRITICAL]: the current directory: No such file or directory" in run.text


class TestTerminal:
    def test_a_bar_and_colours_on_a_terminal_only(self, stage: Stage) -> None:
        stage.tracker()
        mtorrent = stage.share(CONTENT)
        stage.seed(mtorrent)
        on_terminal = stage.leech(mtorrent, "a", "-v", "2", pty=True, TERM="xterm-256color")
        assert on_terminal.wait() == 0
        assert "\x1b[32m[VERBOSE]:\x1b[0m" in on_terminal.text
        assert "━" in on_terminal.text
        in_file = stage.leech(mtorrent, "b", "-v", "2")
        assert in_file.wait() == 0
        assert "\x1b" not in in_file.text
        assert "[VERBOSE]: " in in_file.text
        without_color = stage.leech(mtorrent, "c", "-v", "2", pty=True, TERM="xterm", NO_COLOR="1")
        assert without_color.wait() == 0
        assert "[VERBOSE]: " in without_color.text
        assert "\x1b[32m" not in without_color.text

    def test_verbosity(self, stage: Stage) -> None:
        stage.tracker()
        mtorrent = stage.share(CONTENT)
        stage.seed(mtorrent)
        runs = [stage.leech(mtorrent, verbosity, "-v", verbosity) for verbosity in "0123"]
        assert [run.wait() for run in runs] == [0, 0, 0, 0]
        levels = [set(re.findall(r"\[(\w+)\]: ", run.text)) for run in runs]
        everything = ["VERBOSE", "INFORMATION", "DEBUG"]
        assert levels == [set(everything[:count]) for count in range(4)]


def announce(url: str, *, port: str, event: str = "started") -> bytes:
    """The answer to an announce as the original's client spells it."""
    query = f"peerId={'a' * 20}&swarmId={'b' * 40}&ip=127.0.0.1&port={port}&event={event}"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        sock.sendall(f"GET /announce?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1"))
        return sock.recv(4096)


class TestTracker:
    def test_requests_by_verbosity(self, stage: Stage) -> None:
        told = []
        for verbosity in "012":
            run = stage.tracker("-v", verbosity)
            assert announce(stage.url, port="7", event="started").startswith(b"HTTP/1.1 200")
            assert announce(stage.url, port="none").startswith(b"HTTP/1.1 400")
            run.wait_for({"0": "", "1": "port=none", "2": "refused"}[verbosity])
            assert run.interrupt() == 0
            told.append(run.text)
        shown = r"\[VERBOSE\]: Announce /announce\?peerId=a{20}&swarmId=b{40}&ip=127.0.0.1&port="
        assert "Announce" not in told[0]
        assert re.findall(shown + r"(\w+)", told[1]) == ["7", "none"]
        assert "[INFORMATION]" not in told[1]
        assert "[INFORMATION]: started from 127.0.0.1 (microtorr): answered" in told[2]
        assert "(microtorr): refused: port" in told[2]

    def test_a_request_cannot_steer_the_terminal(self, stage: Stage) -> None:
        run = stage.tracker("-v", "2")
        announce(stage.url, port="7\x9b31m")  # CSI, as one byte
        run.wait_for("refused: ")
        assert run.interrupt() == 0
        assert "\x9b" not in run.text
        assert "\\x9b31m" in run.text

    def test_a_port_that_is_taken(self, stage: Stage) -> None:
        first = stage.tracker()
        port = stage.url.rpartition(":")[2]
        second = stage.microtorr("tracker", "-b", f"127.0.0.1:{port}")
        assert second.wait() == 1
        assert re.search(rf"\[CRITICAL\]: tracker.bind: .*{port}.*in use", second.text)
        assert first.interrupt() == 0

    def test_no_peer_port_is_opened(self, stage: Stage) -> None:
        run = stage.tracker()
        ports = {found.laddr.port for found in run.daemon.net_connections("tcp") if found.status == "LISTEN"}
        assert ports == udp_ports(run) == {int(stage.url.rpartition(":")[2])}

    def test_mtorrctl_has_it_too(self, stage: Stage) -> None:
        run = stage.run("mtorrctl", "tracker", "--bind", "127.0.0.1:0", "-v")
        found = run.wait_for(r"Tracker serving on: 127.0.0.1:(\d+)")
        run.wait_for("Clients announce over HTTP and UDP")
        assert udp_ports(run) == {int(found[1])}
        assert run.interrupt() == 0

    def test_it_can_leave_udp_out(self, stage: Stage) -> None:
        run = stage.run("mtorrctl", "tracker", "--bind", "127.0.0.1:0", "--no-udp")
        run.wait_for(r"Clients announce over HTTP\s")
        assert udp_ports(run) == set()
        assert run.interrupt() == 0


class TestMtorrctlDownload:
    def test_from_a_seeder_to_a_directory(self, stage: Stage) -> None:
        stage.tracker()
        mtorrent = stage.share(CONTENT)
        download = ("mtorrctl", "download", mtorrent, "--interface", "lo", "--port", "0")
        seeder = stage.run(*download, "--seed", "freeware", "--up", "20 MB/s")
        seeder.wait_for("Seeding freeware until interrupted")
        leecher = stage.run(*download, "--save-to", "new/place", "--wait-leechers", "1", "-v")
        assert leecher.wait() == 0
        assert (stage.directory / "new/place/freeware").read_bytes() == CONTENT
        assert "Downloaded from Seeders: 100%" in leecher.text
        assert seeder.interrupt() == 0

    def test_an_interruption_before_the_end_is_told_by_the_exit_code(self, stage: Stage) -> None:
        mtorrent = stage.share(CONTENT)
        run = stage.run("mtorrctl", "download", mtorrent, "--port", "0", "--save-to", "x")
        run.wait_for("waiting")
        assert run.interrupt() == 130

    def test_what_fails_is_told_in_its_own_name(self, stage: Stage) -> None:
        mtorrent = stage.share(CONTENT)
        run = stage.run("mtorrctl", "download", mtorrent, "--port", "0", "--interface", "nonet0")
        assert run.wait() == 1
        assert "mtorrctl: there is no interface 'nonet0'" in run.text


class TestScratch:
    def test_it_is_made_locked_and_removed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", "/tmp")
        made = scratch.Scratch()
        (Path(made.path) / "deep/er").mkdir(parents=True)
        scratch.sweep("/tmp")
        assert Path(made.path).exists()
        made.remove()
        assert not Path(made.path).exists()

    def test_what_is_cut_short_while_it_is_removed_is_removed_the_next_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cut_short = tmp_path / f"{scratch.PREFIX}cut-short"
        cut_short.mkdir()
        for number in range(20):  # in whatever order they are listed
            (cut_short / f"directory{number}").mkdir()
            (cut_short / f"file{number}").touch()
        (cut_short / scratch.MARK).touch()

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as dying:
            dying.setattr(shutil, "rmtree", killed)
            with pytest.raises(KeyboardInterrupt):
                scratch.sweep(str(tmp_path))
        assert (cut_short / scratch.MARK).exists()
        # The next run is another process. In this one gevent closes descriptors, and lets go of locks, later.
        with gevent.Timeout(PATIENCE_S):
            while str(cut_short) in open_descriptors().values():
                gevent.sleep(0.001)
        sweep = "import sys; from mtorrctl import scratch; scratch.sweep(sys.argv[1])"
        subprocess.run([sys.executable, "-c", sweep, str(tmp_path)], check=True, timeout=PATIENCE_S)
        assert not cut_short.exists()

    def test_only_what_bears_the_mark_and_is_not_locked_is_swept(self, tmp_path: Path) -> None:
        dead = tmp_path / f"{scratch.PREFIX}dead"
        dead.mkdir()
        (dead / scratch.MARK).touch()
        (dead / "state").mkdir()
        unmarked = tmp_path / f"{scratch.PREFIX}unmarked"
        unmarked.mkdir()
        other = tmp_path / "other"
        other.mkdir()
        (other / scratch.MARK).touch()
        link = tmp_path / f"{scratch.PREFIX}link"
        link.symlink_to(other)
        (tmp_path / f"{scratch.PREFIX}file").touch()
        scratch.sweep(str(tmp_path))
        assert not dead.exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            f"{scratch.PREFIX}file",
            f"{scratch.PREFIX}link",
            f"{scratch.PREFIX}unmarked",
            "other",
        ]
        assert (other / scratch.MARK).exists()

    def test_a_directory_that_is_none_holds_nothing(self, tmp_path: Path) -> None:
        scratch.sweep(str(tmp_path / "nothing"))

    def test_no_place_at_all(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        long = tmp_path / ("x" * 100)
        long.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(long))
        monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
        monkeypatch.setattr("os.access", lambda *_: False)
        with pytest.raises(Failure, match="no temporary directory"):
            scratch.Scratch()


class TestInterrupts:
    def test_heeded_only_where_it_waits(self) -> None:
        hurried = []
        before = signal.getsignal(signal.SIGTERM)
        with Interrupts() as interrupts:
            interrupts.hurry = lambda: hurried.append(True)
            with interrupts.heeded():
                assert interrupts.number is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupts.number == signal.SIGTERM
            with pytest.raises(Interrupted, match="SIGTERM"), interrupts.heeded():
                pytest.fail("it came before")
            os.kill(os.getpid(), signal.SIGINT)
            assert hurried == [True]
        assert signal.getsignal(signal.SIGTERM) is before

    def test_raised_at_once_while_it_waits(self) -> None:
        with (
            Interrupts() as interrupts,
            pytest.raises(Interrupted) as caught,
            interrupts.heeded(),
        ):
            os.kill(os.getpid(), signal.SIGINT)
        assert caught.value.number == signal.SIGINT
        assert not isinstance(caught.value, Exception)


class TestTether:
    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-S", tether.__file__, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    def test_it_becomes_the_program(self) -> None:
        result = self.run(str(os.getpid()), shutil.which("echo") or "", "I am")
        assert (result.returncode, result.stdout) == (0, "I am\n")

    def test_too_late(self) -> None:
        result = self.run("1", shutil.which("echo") or "", "I am")
        assert (result.returncode, result.stdout) == (1, "")

    def test_no_such_program(self) -> None:
        result = self.run(str(os.getpid()), "/nonexistent")
        assert (result.returncode, result.stderr) == (1, "/nonexistent: No such file or directory\n")


def share(letters: str, part: float, *, seeder: bool = False, host: str = "10.0.0.1") -> dict[str, object]:
    peer_id = f"-MD0100-{letters:x<12}".encode().hex()
    return {"peer_id": peer_id, "host": host, "share": part, "was_seeder": seeder}


class TestStatistics:
    def test_the_block_of_the_original(self) -> None:
        facts = {
            "average_bytes_per_s": 2_996_400.0,
            "from_seeders": 0.504,
            "shares": [share("ABCDEF", 0.504, seeder=True), share("q1w2e3", 0.496)],
        }
        assert statistics.block(facts) == [
            "---------------- DOWNLOAD STATS ----------------",
            "Average speed: 2.996 MB/s",
            "Peer ABCDE: 50% of pieces downloaded",
            "Peer q1w2e: 50% of pieces downloaded",
            "Downloaded from Seeders: 50%",
            "---------------- END ----------------",
        ]

    def test_peers_that_would_have_the_same_name(self) -> None:
        facts = {
            "average_bytes_per_s": 0.0,
            "from_seeders": 0.0,
            "shares": [share("aaaaa1", 0.5), share("aaaaa2", 0.25, host="10.0.0.2"), share("aaaaa3", 0.25)],
        }
        assert statistics.block(facts)[2:4] == [
            "Peer aaaaa (10.0.0.1): 75% of pieces downloaded",
            "Peer aaaaa (10.0.0.2): 25% of pieces downloaded",
        ]

    @pytest.mark.parametrize(
        ("peer_id", "name"),
        [
            (b"-MD0100-abcdefghijkl", "abcde"),
            (b"TU9dOwo0SFuskrq6N3Rc", "TU9dO"),
            (b"-lt\xff\x1b-\n\x00-9999999999", ".lt.."),
            (b"", "others"),
        ],
    )
    def test_names(self, peer_id: bytes, name: str) -> None:
        assert statistics.peer_name(peer_id.hex()) == name

    def test_of_a_download_that_is_not_over(self) -> None:
        peers = [
            {"peer_id": "61" * 20, "host": "h", "down_bytes": 1_000_000, "is_seeder": False},
            {"peer_id": "62" * 20, "host": "h", "down_bytes": 3_000_000, "is_seeder": True},
            {"peer_id": "63" * 20, "host": "h", "down_bytes": 0, "is_seeder": True},
        ]
        assert statistics.block(statistics.of_peers(peers, 2.0))[1:5] == [
            "Average speed: 2.000 MB/s",
            "Peer bbbbb: 75% of pieces downloaded",
            "Peer aaaaa: 25% of pieces downloaded",
            "Downloaded from Seeders: 75%",
        ]
        assert "Average speed: 0.000 MB/s" in statistics.block(statistics.of_peers([], 0.0))


@pytest.mark.parametrize(
    ("typed", "bind"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        (":8888", "0.0.0.0:8888"),
        ("[::1]:80", "[::1]:80"),
        ("localhost:80", "127.0.0.1:80"),
    ],
)
def test_where_a_tracker_listens(typed: str, bind: str) -> None:
    assert numeric_bind(typed) == bind or (
        typed.startswith("localhost") and numeric_bind(typed) == "[::1]:80"
    )


def test_limits_are_those_of_the_whole_program() -> None:
    settings = Plan(metainfo=b"", save_to="/", down=5_000_000, up=3_000_000, port=0).settings()
    assert settings["limits.down"] == "5000000"
    assert settings["limits.up"] == "3000000"
    assert not any("peer" in name for name in settings)
