"""The Unix socket that the daemon listens on: made, guarded and taken away here.

Rules: a socket that somebody answers on is never touched; one that nobody answers on is replaced; anything
else at the path stops the start. The socket has its final owner and mode before a client can reach it. A
socket that systemd passed belongs to systemd: its file is left alone.
"""

from __future__ import annotations

import errno
import grp
import os
import socket as system_socket
import stat
from pathlib import Path

from gevent import socket

from microtorrd.errors import ConfigError

#: sun_path of unix(7) has 108 bytes, the last of them a NUL.
MAX_PATH_BYTES = 107

BACKLOG = 512


class ControlSocket:
    """A listening Unix stream socket, and its file if that is ours."""

    def __init__(self, sock: socket.socket, path: str, *, owns_file: bool) -> None:
        self.sock = sock
        self.path = path
        self._inode = _inode_at(path) if owns_file else None

    def close(self) -> None:
        """Stop listening and take the file away, unless it has become somebody else's."""
        self.sock.close()
        if self._inode is not None and _inode_at(self.path) == self._inode:
            os.unlink(self.path)
        self._inode = None


def open_control_socket(path: str, *, mode: int = 0o660, group: str = "") -> ControlSocket:
    """Listen at `path`, for the owner and `group` (name or number; empty: as it is). Raises ConfigError."""
    raw_path = os.fsencode(path)
    if len(raw_path) > MAX_PATH_BYTES:
        raise ConfigError(
            f"rpc.socket: the path has {len(raw_path)} bytes, a Unix socket allows {MAX_PATH_BYTES}: {path}",
            key="rpc.socket",
        )
    gid = _group_id(group)
    try:
        _make_directory(path)
        _remove_stale(path)
        return ControlSocket(_bind(path, mode, gid), path, owns_file=True)
    except OSError as error:
        raise ConfigError(f"rpc.socket: {path}: {error.strerror or error}", key="rpc.socket") from error


def adopt_control_socket(descriptor: int) -> ControlSocket:
    """Take over the listening socket that systemd passed (sd_listen_fds(3)). Raises ConfigError."""
    try:
        sock = socket.socket(fileno=descriptor)
        is_ours = (
            sock.family == system_socket.AF_UNIX
            and sock.type == system_socket.SOCK_STREAM
            and sock.getsockopt(system_socket.SOL_SOCKET, system_socket.SO_ACCEPTCONN) == 1
        )
        name = sock.getsockname()
    except OSError as error:
        raise ConfigError(f"the descriptor {descriptor} that was passed is no socket: {error}") from error
    if not is_ours:
        sock.detach()
        raise ConfigError(f"the descriptor {descriptor} that was passed is no listening Unix stream socket")
    return ControlSocket(sock, name if isinstance(name, str) else os.fsdecode(name), owns_file=False)


def _group_id(group: str) -> int:
    if not group:
        return -1
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"rpc.socket_group: there is no group {group!r}", key="rpc.socket_group") from None


def _make_directory(path: str) -> None:
    parent = Path(path).parent
    if not parent.exists():
        # Nobody else's business by default; an operator who wants a group in makes the directory himself.
        parent.mkdir(mode=0o700, parents=True)


def _remove_stale(path: str) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ConfigError(f"rpc.socket: {path} is there and is no socket; it is left alone", key="rpc.socket")
    probe = socket.socket(system_socket.AF_UNIX, system_socket.SOCK_STREAM)
    probe.settimeout(2)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.ETIMEDOUT, None):
            raise
    finally:
        probe.close()
    raise ConfigError(f"rpc.socket: another process answers on {path}", key="rpc.socket")


def _bind(path: str, mode: int, gid: int) -> socket.socket:
    sock = socket.socket(system_socket.AF_UNIX, system_socket.SOCK_STREAM)
    bound = False
    try:
        # On Linux the file gets the mode that the socket has when it is bound: nobody slips in before chmod.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(path)
        bound = True
        if gid >= 0:
            _give_to_group(path, gid)
        os.chmod(path, mode)
        sock.listen(BACKLOG)
    except (OSError, ConfigError):
        sock.close()
        if bound:
            os.unlink(path)
        raise
    return sock


def _give_to_group(path: str, gid: int) -> None:
    try:
        os.chown(path, -1, gid)
    except OSError as error:
        raise ConfigError(
            f"rpc.socket_group: {path} cannot be given to group {gid}: {error.strerror}",
            key="rpc.socket_group",
        ) from error


def _inode_at(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
