"""What the daemon tells systemd, and what systemd hands to it: sd_notify(3), sd_listen_fds(3), the watchdog.

Without systemd all of it comes to nothing, quietly.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import sdnotify

#: The first descriptor that systemd passes (SD_LISTEN_FDS_START).
FIRST_DESCRIPTOR = 3


class ServiceManager:
    """The connection to whoever supervises this process."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.watchdog_s = _watchdog_s(environ)  # None: nobody watches
        self._notifier = sdnotify.SystemdNotifier() if "NOTIFY_SOCKET" in environ else None

    def ready(self, status: str) -> None:
        """The start, or a reload, is done."""
        self._tell(f"READY=1\nSTATUS={status}\nMAINPID={os.getpid()}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._tell(f"STATUS={text}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it. systemd 253 wants the time, older ones let it pass."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """The stop begins."""
        self._tell("STOPPING=1\nSTATUS=stopping")

    def extend(self, seconds: float) -> None:
        """Ask for so much more time to stop."""
        self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def close(self) -> None:
        """Say no more."""
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.close()
        self._notifier = None

    def _tell(self, message: str) -> None:
        if self._notifier is not None:
            self._notifier.notify(message.encode("ascii", "replace").decode("ascii"))


def passed_descriptors(environ: Mapping[str, str]) -> list[int]:
    """The listening sockets that systemd opened for us."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []  # meant for a process that started us
    count = environ.get("LISTEN_FDS", "")
    return list(range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count))) if count.isdigit() else []


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    text, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not text.isdigit() or int(text) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(text) / 1e6
