"""The daemon as it is, with a watch on its hub: `python -m bench.probed FILE [OPTIONS OF MICROTORRD]`

A timer of the hub beats every few milliseconds. A gap between two beats means that something held the hub up
meanwhile, or that the kernel ran other processes on all cores: how long this thread was ready to run and did
not get a core is subtracted. What is left beyond `NOTED_S` becomes a line of FILE: when the gap ended
(`time.monotonic`, which all processes share), how long it was, and how long the thread had waited for a
core. `bench.hubwatch` reads them.

Nothing else of the bench may import this: it turns its process into one of greenlets.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import _thread
import os
import sys
import time
from pathlib import Path

import gevent

from bench.hubwatch import NOTED_S
from microtorrd.__main__ import main

BEAT_S = 0.005


class Probe:
    """Beats for as long as the process lives."""

    def __init__(self, path: Path) -> None:
        self._notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._scheduling = os.open(f"/proc/self/task/{_thread.get_native_id()}/schedstat", os.O_RDONLY)
        self._beaten_s = time.monotonic()
        self._lacked_s = self._lacked_core_s()
        self._timer = gevent.get_hub().loop.timer(BEAT_S, BEAT_S)

    def start(self) -> None:
        """Begin."""
        self._timer.start(self._beat)

    def _beat(self) -> None:
        now_s, lacked_s = time.monotonic(), self._lacked_core_s()
        lacked_core_s = lacked_s - self._lacked_s
        stood_s = now_s - self._beaten_s - BEAT_S - lacked_core_s
        self._beaten_s, self._lacked_s = now_s, lacked_s
        if stood_s > NOTED_S:
            os.write(self._notes, f"{now_s:.6f} {stood_s:.6f} {lacked_core_s:.6f}\n".encode())

    def _lacked_core_s(self) -> float:
        """Seconds that this thread was ready and not running, since it began (`man 5 proc`, schedstat)."""
        return int(os.pread(self._scheduling, 64, 0).split()[1]) / 1e9


if __name__ == "__main__":
    Probe(Path(sys.argv[1])).start()
    sys.exit(main(sys.argv[2:]))
