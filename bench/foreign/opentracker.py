"""opentracker, as Debian packages it: for the swarms on its white list only, over HTTP and UDP."""

from __future__ import annotations

import getpass
import http.client
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from bench.places import LOOPBACK
from microtorrd.proto import bencode

START_S = 20.0
LOOK_S = 0.05


class Opentracker:
    """Use it in a `with`. It serves these swarms on loopback, over HTTP and UDP on one port number."""

    def __init__(self, port: int, swarms: Iterable[bytes]) -> None:
        self.port = port
        self._swarms = swarms

    @staticmethod
    def free_port() -> int:
        """A port for it."""
        return LOOPBACK.free_port()

    def __enter__(self) -> Opentracker:
        # It goes on as nobody, who may not look into the directories of tests.
        self._home = Path(tempfile.mkdtemp(prefix="opentracker-"))
        self._home.chmod(0o755)
        (self._home / "whitelist").write_text("".join(f"{swarm.hex()}\n" for swarm in self._swarms))
        user = "nobody" if os.geteuid() == 0 else getpass.getuser()
        with (self._home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("opentracker", "-i", "127.0.0.1", "-p", str(self.port), "-P", str(self.port)),
                    *("-w", "whitelist", "-d", ".", "-u", user),
                ],
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + START_S
        while not self._answers():
            assert time.monotonic() < end and self._process.poll() is None, self.log()
            try:
                self._process.wait(LOOK_S)
            except subprocess.TimeoutExpired:
                continue
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._home)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def log(self) -> str:
        """What it said."""
        return (self._home / "log").read_text(errors="replace")

    def scrape(self, swarm: bytes) -> dict[str, int]:
        """`complete`, `downloaded` and `incomplete` of the swarm."""
        reply: Any = bencode.decode(self._get(f"/scrape?info_hash={quote(swarm)}"))
        return {key.decode(): value for key, value in reply[b"files"][swarm].items()}

    def _answers(self) -> bool:
        try:
            self._get("/stats")
        except OSError:
            return False
        return True

    def _get(self, target: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_S)
        try:
            connection.request("GET", target)
            return connection.getresponse().read()
        finally:
            connection.close()
