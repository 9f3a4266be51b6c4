"""The socket file: made with the right mode, never taken from a living process, never left behind."""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path

import pytest

from microtorrd.errors import ConfigError
from microtorrd.rpc.listening import MAX_PATH_BYTES, adopt_control_socket, open_control_socket


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == 0


def test_it_listens_with_its_mode_and_leaves_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    control = open_control_socket(path, mode=0o640)
    assert mode_of(path) == 0o640
    assert answers(path)
    control.close()
    assert os.listdir(tmp_path) == []
    control.close()


def test_nobody_can_connect_before_mode_and_group_are_right(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        control = open_control_socket(str(tmp_path / "control.sock"))
    finally:
        os.umask(old)
    assert mode_of(control.path) == 0o660
    control.close()


def test_a_missing_directory_is_made_for_the_owner_alone(tmp_path: Path) -> None:
    control = open_control_socket(str(tmp_path / "microtorrd" / "control.sock"))
    assert mode_of(str(tmp_path / "microtorrd")) == 0o700
    control.close()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(path)
    assert not answers(path)
    control = open_control_socket(path)
    assert answers(path)
    control.close()


def test_a_living_socket_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    first = open_control_socket(path)
    with pytest.raises(ConfigError, match="another process answers"):
        open_control_socket(path)
    assert answers(path)
    first.close()


def test_a_socket_with_a_full_backlog_counts_as_living(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as busy:
        busy.bind(path)
        busy.listen(0)
        waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(3)]
        for caller in waiting:
            caller.settimeout(0.01)
            caller.connect_ex(path)
        with pytest.raises(ConfigError, match="another process answers"):
            open_control_socket(path)
        assert os.path.exists(path)
        for caller in waiting:
            caller.close()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("dear diary")
    with pytest.raises(ConfigError, match="is no socket"):
        open_control_socket(str(path))
    assert path.read_text() == "dear diary"


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    path = "/tmp/" + "x" * (MAX_PATH_BYTES - 4)
    with pytest.raises(ConfigError, match="108 bytes, a Unix socket allows 107") as caught:
        open_control_socket(path)
    assert caught.value.key == "rpc.socket"


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"rpc\.socket: .*Not a directory"):
        open_control_socket(str(tmp_path / "file" / "control.sock"))


def test_the_group_is_given_by_name_or_number(tmp_path: Path) -> None:
    gid = os.getgroups()[0] if os.getgroups() else os.getgid()
    for spelling in (grp.getgrgid(gid).gr_name, str(gid)):
        control = open_control_socket(str(tmp_path / "control.sock"), group=spelling)
        assert os.stat(control.path).st_gid == gid
        control.close()


def test_a_group_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no group 'no-such-group'") as caught:
        open_control_socket(str(tmp_path / "control.sock"), group="no-such-group")
    assert caught.value.key == "rpc.socket_group"
    assert os.listdir(tmp_path) == []


def test_a_file_that_became_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    first = open_control_socket(path)
    os.unlink(path)
    second = open_control_socket(path)
    first.close()
    assert answers(path)
    second.close()


def test_a_passed_socket_is_taken_over_and_its_file_left_to_systemd(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    passed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    passed.bind(path)
    passed.listen()
    control = adopt_control_socket(passed.detach())
    assert control.path == path
    assert answers(path)
    control.close()
    assert os.path.exists(path)


def test_a_passed_descriptor_that_is_something_else(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as wrong:
        with pytest.raises(ConfigError, match="no listening Unix stream socket"):
            adopt_control_socket(wrong.fileno())
        wrong.getsockname()  # still open: it was not ours to close
    with open(tmp_path / "file", "w") as file, pytest.raises(ConfigError, match="is no socket"):
        adopt_control_socket(file.fileno())
