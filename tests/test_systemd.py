"""The units: systemd takes them as they are, and finds little to object to."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from microtorrd.invocation import LOCKED, MISCONFIGURED, USAGE
from microtorrd.proto.places import SYSTEM_SOCKET
from microtorrd.settings import Config

UNITS = Path(__file__).parents[1] / "systemd"

#: What an outsider's daemon of the same kind reaches at best is 1.9.
EXPOSURE_MAX = 1.6

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and "CI" not in os.environ,
    reason="there is no systemd-analyze here",
)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def unit(name: str) -> dict[str, list[str]]:
    settings: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            settings.setdefault(key, []).append(value)
    return settings


@needs_systemd
@pytest.mark.parametrize("name", ["microtorrd.service", "microtorrd.socket"])
def test_systemd_takes_the_unit_without_a_word(tmp_path: Path, name: str) -> None:
    for file in UNITS.glob("microtorrd.s*"):
        # The program and the manual are where a package puts them, which is not here.
        text = file.read_text().replace("/usr/bin/microtorrd", sys.executable)
        (tmp_path / file.name).write_text(re.sub(r"^Documentation=.*\n", "", text, flags=re.MULTILINE))
    result = run("systemd-analyze", "verify", str(tmp_path / name))
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@needs_systemd
def test_the_sandbox_holds() -> None:
    result = run("systemd-analyze", "security", "--offline=true", str(UNITS / "microtorrd.service"))
    found = re.search(r"exposure level for microtorrd\.service: ([\d.]+)", result.stdout)
    assert found is not None, result.stdout + result.stderr
    assert float(found[1]) <= EXPOSURE_MAX


def test_no_restart_for_what_only_an_edit_mends() -> None:
    codes = {int(code) for code in unit("microtorrd.service")["RestartPreventExitStatus"][0].split()}
    assert {USAGE, MISCONFIGURED} <= codes
    assert LOCKED not in codes


def test_the_places_are_those_of_the_settings() -> None:
    service = unit("microtorrd.service")
    assert Config().daemon.state_dir == f"/var/lib/{service['StateDirectory'][0]}"
    assert Config().rpc.socket == f"/run/{service['RuntimeDirectory'][0]}/control.sock" == SYSTEM_SOCKET
    socket = unit("microtorrd.socket")
    assert socket["ListenStream"] == [Config().rpc.socket]
    assert int(socket["SocketMode"][0], 8) == Config().rpc.socket_mode
    lines = [
        line.split() for line in (UNITS / "microtorrd.tmpfiles").read_text().splitlines() if line[:1] == "d"
    ]
    assert {Config().daemon.state_dir, Config().storage.save_to} <= {line[1] for line in lines}


def test_the_user_of_the_unit_is_made() -> None:
    lines = [line for line in (UNITS / "microtorrd.sysusers").read_text().splitlines() if line[:1] == "u"]
    assert [line.split()[1] for line in lines] == unit("microtorrd.service")["User"]


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("systemd-sysusers") is None, reason="needs root and systemd"
)
def test_user_and_directories_come_out_as_they_should(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    made = run("systemd-sysusers", f"--root={tmp_path}", str(UNITS / "microtorrd.sysusers"))
    assert made.returncode == 0, made.stderr
    assert "\nmicrotorrd:" in (tmp_path / "etc/passwd").read_text()
    made = run("systemd-tmpfiles", f"--root={tmp_path}", "--create", str(UNITS / "microtorrd.tmpfiles"))
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "var/lib/microtorrd/downloads").is_dir()
    assert (tmp_path / "srv/microtorr").is_dir()
