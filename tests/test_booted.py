"""The service on a machine booted for it: systemd starts it, watches it, restarts it and stops it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from microtorrd.invocation import MISCONFIGURED
from tests.lacking import lacking
from tests.machine import CannotBoot, Machine
from tests.swarm.hostile import wait
from tests.test_systemd import EXPOSURE_MAX

THING = "/srv/microtorr/thing.bin"
BAD = "/etc/microtorrd/conf.d/bad.toml"


@pytest.fixture(scope="module")
def booted() -> Iterator[Machine]:
    try:
        machine = Machine().__enter__()
    except CannotBoot as error:
        lacking(f"systemd does not boot in namespaces here: {error}", forbidden=error.forbidden)
    with closing(machine):
        machine.must("sh", "-c", f"head -c 3000000 /dev/urandom >{THING}")
        machine.must("systemctl", "enable", "microtorrd")
        yield machine


@pytest.fixture
def machine(booted: Machine) -> Machine:
    """With the service running, which seeds something."""
    booted.drop_in("[Service]\nRestartSec=100ms\n")
    booted.must("systemctl", "reset-failed")
    booted.must("systemctl", "restart", "microtorrd")
    if not rows(booted):
        booted.must("mtorrctl", "seed", THING, "-t", "http://127.0.0.1:1/announce")
    wait_until_seeding(booted)
    return booted


def rows(machine: Machine) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(machine.must("mtorrctl", "list", "--json"))
    return found


def wait_until_seeding(machine: Machine) -> None:
    wait(lambda: [row["state"] for row in rows(machine)] == ["seeding"], lambda: str(rows(machine)))


def wait_until_restarted(machine: Machine) -> None:
    wait(lambda: machine.property("NRestarts") == "1", machine.journal)
    wait(lambda: machine.property("ActiveState") == "active", machine.journal)


def test_it_is_ready_when_it_says_so_and_who_it_should_be(machine: Machine) -> None:
    assert machine.property("ActiveState") == "active"
    assert "/run/microtorrd/control.sock" in machine.property("StatusText")
    pid = machine.property("MainPID")
    status = dict(
        line.split(":\t", 1)
        for line in machine.must("cat", f"/proc/{pid}/status").splitlines()
        if ":\t" in line
    )
    assert status["Uid"].split() == [machine.must("id", "-u", "microtorrd").strip()] * 4
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0, 0)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    owner = machine.must("stat", "-c", "%U:%G %a", "/run/microtorrd/control.sock", "/var/lib/microtorrd")
    assert owner.splitlines() == ["microtorrd:microtorrd 660", "microtorrd:microtorrd 750"]


def test_the_sandbox_stands(machine: Machine) -> None:
    """Also before root, who is looked at with the mounts of the service."""
    pid = machine.property("MainPID")

    def writes(path: str) -> bool:
        return machine.run("nsenter", "--target", pid, "--mount", "touch", path).returncode == 0

    assert not any(
        writes(f"{place}/x") for place in ("/etc", "/usr", "/opt", "/etc/microtorrd", "/home", "/root")
    )
    assert all(writes(f"{place}/x") for place in ("/var/lib/microtorrd", "/srv/microtorr", "/tmp"))
    machine.must("rm", "/var/lib/microtorrd/x", "/srv/microtorr/x")
    assert machine.run("test", "-e", "/tmp/x").returncode != 0  # its /tmp is its own
    shown = machine.must("systemd-analyze", "security", "--no-pager", "microtorrd")
    found = re.search(r"exposure level for microtorrd\.service: ([\d.]+)", shown)
    assert found is not None and float(found[1]) <= EXPOSURE_MAX


def test_a_reload_is_heeded_by_the_same_process(machine: Machine) -> None:
    pid = machine.property("MainPID")
    machine.write("/etc/microtorrd/conf.d/up.toml", '[limits]\nup = "1 MB/s"\n')
    machine.must("systemctl", "reload", "microtorrd")

    def limit() -> object:
        return json.loads(machine.must("mtorrctl", "limit", "--json"))["up"]

    wait(lambda: limit() == 1_000_000, machine.journal)
    machine.must("rm", "/etc/microtorrd/conf.d/up.toml")
    machine.must("systemctl", "reload", "microtorrd")
    wait(lambda: limit() == 0, machine.journal)
    assert machine.property("MainPID") == pid


def test_one_that_hangs_is_ended_by_the_watchdog_and_comes_back(machine: Machine) -> None:
    machine.drop_in("[Service]\nRestartSec=100ms\nWatchdogSec=2\nTimeoutAbortSec=1\n")
    machine.must("systemctl", "restart", "microtorrd")
    pid = machine.property("MainPID")
    machine.must("kill", "-STOP", pid)
    wait_until_restarted(machine)
    assert "Watchdog timeout" in machine.journal()
    assert machine.property("MainPID") != pid
    wait_until_seeding(machine)


def test_one_that_is_killed_comes_back(machine: Machine) -> None:
    pid = machine.property("MainPID")
    machine.must("kill", "-KILL", pid)
    wait_until_restarted(machine)
    assert machine.property("MainPID") != pid
    wait_until_seeding(machine)


def test_what_only_an_edit_mends_is_not_tried_again(machine: Machine) -> None:
    machine.write(BAD, "[listen]\nprot = 1\n")
    try:
        assert machine.run("systemctl", "restart", "microtorrd").returncode != 0
        assert machine.property("ActiveState") == "failed"
        assert machine.property("ExecMainStatus") == str(MISCONFIGURED)
        assert machine.property("NRestarts") == "0"
        assert f"{BAD}:2: listen.prot is unknown: did you mean listen.port?" in machine.journal()
    finally:
        machine.must("rm", BAD)
    machine.must("systemctl", "start", "microtorrd")


def test_a_stop_is_clean_and_quick(machine: Machine) -> None:
    began = time.monotonic()
    machine.must("systemctl", "stop", "microtorrd")
    assert time.monotonic() - began < 10
    assert (machine.property("Result"), machine.property("ExecMainStatus")) == ("success", "0")
    assert machine.must("cat", "/etc/systemd/system/multi-user.target.wants/microtorrd.service")


def test_the_socket_starts_it_when_somebody_asks(machine: Machine) -> None:
    machine.must("systemctl", "stop", "microtorrd")
    machine.must("systemctl", "start", "microtorrd.socket")
    try:
        assert machine.property("ActiveState") == "inactive"
        assert "answers" in machine.must("mtorrctl", "ping")
        assert machine.property("ActiveState") == "active"
        wait_until_seeding(machine)
    finally:
        machine.must("systemctl", "stop", "microtorrd.service", "microtorrd.socket")
