"""Which control socket: the named one, that of the user's own daemon, or the system's; why none answers."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from microtorrd.proto.places import SYSTEM_SOCKET, user_socket
from mtorrctl.exits import Unreachable, WrongUsage

VARIABLE = "MTORRCTL_SOCKET"

#: A local socket answers at once, or its queue is full.
CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one socket was not it."""

    path: str
    error: OSError

    def __str__(self) -> str:
        if isinstance(self.error, FileNotFoundError | NotADirectoryError):
            return f"{self.path}: not there"
        if isinstance(self.error, ConnectionRefusedError):
            if not _is_socket(self.path):
                return f"{self.path}: is no socket"
            return f"{self.path}: nobody answers (left by a daemon that has ended)"
        if isinstance(self.error, BlockingIOError | TimeoutError):
            return f"{self.path}: the daemon does not answer"
        return f"{self.path}: {self.error.strerror or self.error}"


def connect(named: str | None, environ: Mapping[str, str]) -> tuple[socket.socket, str]:
    """A connected socket and its path. Raises Unreachable with all that were tried."""
    refusals: list[Refusal] = []
    for path in candidates(named, environ):
        try:
            return _connect(path), path
        except OSError as error:
            refusals.append(Refusal(path, error))
    raise _explain(refusals, is_named=bool(named or environ.get(VARIABLE)))


def candidates(named: str | None, environ: Mapping[str, str]) -> list[str]:
    """The sockets to try, in order. A named one is the only one."""
    if named:
        return [named]
    if environ.get(VARIABLE):
        return [environ[VARIABLE]]
    return [user_socket(environ, os.path.expanduser("~")), SYSTEM_SOCKET]


def _connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(CONNECT_S)
        sock.connect(path)
    except OSError as error:
        sock.close()
        if error.errno is None and not isinstance(error, TimeoutError):
            # Python refuses a path beyond sun_path before the kernel sees it.
            raise WrongUsage(f"the path of the socket is too long: {path}") from None
        raise
    except ValueError as error:  # an embedded NUL
        sock.close()
        raise WrongUsage(f"the path of the socket is no path: {error}") from None
    return sock


def _explain(refusals: list[Refusal], *, is_named: bool) -> Unreachable:
    for refusal in refusals:
        if isinstance(refusal.error, PermissionError):
            return _explain_permission(refusal.path)
    tried = "\n".join(f"  tried {refusal}" for refusal in refusals)
    if is_named:
        hint = (
            f"is microtorrd running with this socket? Its setting is rpc.socket, ours --socket or {VARIABLE}"
        )
    else:
        hint = (
            "start the system's daemon with `systemctl start microtorrd`, or one of your own with\n"
            f"`microtorrd`; if its socket is elsewhere, name it with --socket or {VARIABLE}"
        )
    return Unreachable(f"no microtorrd answers\n{tried}", hint)


def _explain_permission(path: str) -> Unreachable:
    place, status = _nearest_visible(path)
    group = _group_name(status.st_gid)
    what = f"permission denied on {path}"
    if place != path:
        what += f" (in {place})"
    owner = _user_name(status.st_uid)
    rights = f"it belongs to {owner}:{group}, mode {stat.S_IMODE(status.st_mode):04o}"
    group_may = status.st_mode & (stat.S_IXGRP if stat.S_ISDIR(status.st_mode) else stat.S_IWGRP)
    if status.st_gid in (*os.getgroups(), os.getegid()) or not group_may:
        return Unreachable(f"{what}: {rights}", f"run it as {owner}, or change rpc.socket_mode of the daemon")
    me = _user_name(os.geteuid())
    return Unreachable(
        f"{what}: {rights}, and you are not in the group {group}",
        f"join it with `sudo usermod -aG {group} {me}`, then log in again",
    )


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:  # gone meanwhile: it was one
        return True


def _nearest_visible(path: str) -> tuple[str, os.stat_result]:
    place = path
    while True:
        try:
            return place, os.stat(place)
        except OSError:
            above = os.path.dirname(place) or "."
            if above == place:
                raise
            place = above


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
