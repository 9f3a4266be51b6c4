"""One daemon for one state directory: a lock that the kernel drops when its holder dies.

The lock file stays when the daemon has gone; what counts is who holds the lock on it, not that it is there.
"""

from __future__ import annotations

import fcntl
import os

from microtorrd.errors import ConfigError, MicrotorrError


class AlreadyRunning(MicrotorrError):
    """Another daemon works on this state directory. `pid` is None when it does not say."""

    def __init__(self, state_dir: str, pid: int | None) -> None:
        self.pid = pid
        who = "another daemon" if pid is None else f"another daemon (process {pid})"
        super().__init__(f"{who} holds the state directory {state_dir}")


class StateLock:
    """Holds `state_dir` for this process from `__init__` until `release`.

    Makes the directory where there is none. Raises AlreadyRunning, or ConfigError when the directory cannot
    be used.
    """

    def __init__(self, state_dir: str) -> None:
        path = os.path.join(state_dir, "lock")
        try:
            os.makedirs(state_dir, mode=0o700, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigError(
                f"daemon.state_dir: {error.filename} cannot be used: {error.strerror}", key="daemon.state_dir"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _pid_in(self._descriptor)
            os.close(self._descriptor)
            raise AlreadyRunning(state_dir, holder) from None
        except OSError as error:
            os.close(self._descriptor)
            raise ConfigError(
                f"daemon.state_dir: {path} cannot be locked: {error.strerror}", key="daemon.state_dir"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _pid_in(descriptor: int) -> int | None:
    text = os.pread(descriptor, 20, 0).strip()
    return int(text) if text.isdigit() else None
