"""lock.py and service_manager.py: one daemon a state directory, and what systemd hears."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from microtorrd.errors import ConfigError
from microtorrd.lock import AlreadyRunning, StateLock
from microtorrd.service_manager import ServiceManager, passed_descriptors


class TestLock:
    def test_a_second_one_is_told_who_holds_it(self, tmp_path: Path) -> None:
        lock = StateLock(str(tmp_path))
        with pytest.raises(AlreadyRunning) as caught:
            StateLock(str(tmp_path))
        assert caught.value.pid == os.getpid()
        assert f"(process {os.getpid()}) holds the state directory {tmp_path}" in str(caught.value)
        lock.release()
        StateLock(str(tmp_path)).release()

    def test_releasing_twice_is_no_harm(self, tmp_path: Path) -> None:
        lock = StateLock(str(tmp_path))
        lock.release()
        lock.release()

    def test_it_makes_the_directory_for_its_owner_alone(self, tmp_path: Path) -> None:
        place = tmp_path / "a/b"
        StateLock(str(place)).release()
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert stat.S_IMODE((place / "lock").stat().st_mode) == 0o600

    def test_the_lock_of_a_dead_process_is_free(self, tmp_path: Path) -> None:
        program = (
            "import os, sys; from microtorrd.lock import StateLock; "
            f"lock = StateLock({str(tmp_path)!r}); print('held', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(AlreadyRunning) as caught:
                StateLock(str(tmp_path))
            assert caught.value.pid == holder.pid
            holder.kill()
            holder.wait()
        StateLock(str(tmp_path)).release()
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"

    def test_rubbish_in_the_file_is_no_harm(self, tmp_path: Path) -> None:
        lock = StateLock(str(tmp_path))
        (tmp_path / "lock").write_text("not a number")
        with pytest.raises(AlreadyRunning, match="another daemon holds") as caught:
            StateLock(str(tmp_path))
        assert caught.value.pid is None
        lock.release()

    def test_a_directory_that_cannot_be_used_is_a_mistake_in_the_settings(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(
            ConfigError, match=r"daemon\.state_dir: .*/file.* cannot be used: Not a directory"
        ):
            StateLock(str(tmp_path / "file/state"))

    def test_a_link_in_place_of_the_lock_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ConfigError):
            StateLock(str(tmp_path))
        assert not (tmp_path / "elsewhere").exists()


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.sock.settimeout(5)
        self.environ = {"NOTIFY_SOCKET": str(path)}

    def hear(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.sock.recv(4096).decode().splitlines())


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", manager.environ["NOTIFY_SOCKET"])
    yield manager
    manager.sock.close()


class TestServiceManager:
    def test_what_it_hears(self, manager: Manager) -> None:
        service = ServiceManager(manager.environ)
        service.ready("all is well")
        assert manager.hear() == {"READY": "1", "STATUS": "all is well", "MAINPID": str(os.getpid())}
        service.alive()
        assert manager.hear() == {"WATCHDOG": "1"}
        service.reloading()
        heard = manager.hear()
        assert heard["RELOADING"] == "1"
        assert int(heard["MONOTONIC_USEC"]) > 0
        service.extend(2.5)
        assert manager.hear() == {"EXTEND_TIMEOUT_USEC": "2500000"}
        service.stopping()
        assert manager.hear()["STOPPING"] == "1"
        service.status("käse")
        assert manager.hear() == {"STATUS": "k?se"}
        service.close()
        service.alive()
        manager.sock.settimeout(0.01)
        with pytest.raises(TimeoutError):
            manager.hear()

    def test_without_systemd_nothing_happens(self) -> None:
        service = ServiceManager({})
        service.ready("x")
        service.close()
        assert service.watchdog_s is None

    @pytest.mark.parametrize(
        ("environ", "watchdog_s"),
        [
            ({"WATCHDOG_USEC": "60000000"}, 60.0),
            ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
            ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
            ({"WATCHDOG_USEC": "0"}, None),
            ({"WATCHDOG_USEC": "soon"}, None),
            ({}, None),
        ],
    )
    def test_whether_it_watches(self, environ: dict[str, str], watchdog_s: float | None) -> None:
        assert ServiceManager(environ).watchdog_s == watchdog_s

    def test_sockets_that_it_passes(self) -> None:
        mine = str(os.getpid())
        assert passed_descriptors({"LISTEN_PID": mine, "LISTEN_FDS": "2"}) == [3, 4]
        assert passed_descriptors({"LISTEN_PID": "1", "LISTEN_FDS": "2"}) == []
        assert passed_descriptors({"LISTEN_PID": mine, "LISTEN_FDS": "x"}) == []
        assert passed_descriptors({}) == []
