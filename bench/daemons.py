"""Real daemons as processes of their own, for the demonstration, the benchmarks and the tests.

Each has a state directory, a socket and a log in one directory of its own, listens on loopback on a port that
the kernel picks, and dies with the `with` that started it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from mtorrctl.client import Client
from mtorrctl.exits import Unreachable

START_S = 30.0
STOP_S = 30.0
LOOK_S = 0.02


class Daemon:
    """One microtorrd below `directory`; `settings` are `section.key` (or `section__key`) and their values.

    `prefix` goes before its command line: what moves it to another place, as `ip netns exec NAME`.
    `probed` puts a watch on its hub, whose notes `probe_path` holds (`bench.probed`); `without` takes one of
    its optimisations away (`bench.without`).
    """

    def __init__(
        self,
        directory: Path,
        *,
        prefix: Sequence[str] = (),
        probed: bool = False,
        without: str = "",
        **settings: Any,
    ) -> None:
        self.directory = directory
        self._prefix = prefix
        self.probe_path = directory / "stalls"
        self._program: tuple[str, ...] = ("bench.probed", str(self.probe_path)) if probed else ("microtorrd",)
        if without:
            watch = ("--probe", str(self.probe_path)) if probed else ()
            self._program = ("bench.without", *watch, without)
        self.socket = directory / "control.sock"
        self.save_to = directory / "data"
        self.log_path = directory / "log"
        self._settings = {
            "daemon.state_dir": directory / "state",
            "daemon.log_level": "debug",
            "daemon.log_format": "console",
            "rpc.socket": self.socket,
            "listen.port": 0,
            "listen.addresses": "127.0.0.1",
            "storage.save_to": self.save_to,
            "swarm.local_discovery": "false",
            **{name.replace("__", "."): value for name, value in settings.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Daemon:
        """Start it, and return when its socket answers. RuntimeError with its log where it does not."""
        self.directory.mkdir(parents=True, exist_ok=True)
        overrides = [f"--set={name}={value}" for name, value in self._settings.items()]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", *self._program, *overrides],
                stdout=log,
                stderr=log,
                # Its modules are compiled once, as those of an installed one, and not at each start.
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": ""},
            )
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with self.client() as client:
                    client.call("daemon.ping")
                return self
            except Unreachable:
                self._wait_a_moment()  # the kernel tells of no socket that is to come
        self.kill()
        raise RuntimeError(f"the daemon did not start:\n{self.log()}")

    def _wait_a_moment(self) -> None:
        assert self.process is not None
        try:
            self.process.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            return

    def client(self) -> Client:
        """A connection to its control socket."""
        return Client.open(str(self.socket))

    def call(self, method: str, **params: Any) -> Any:
        """One call on a connection of its own."""
        with self.client() as client:
            return client.call(method, **params)

    def log(self) -> str:
        """What it has logged so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def stop(self) -> int:
        """End it as systemd would; returns its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"the daemon did not stop:\n{self.log()[-4000:]}") from None

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        self.kill()
