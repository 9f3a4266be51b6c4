"""Deluge's daemon, and its console client that tells it what to do."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import ClassVar

from bench.foreign.client import Foreign

START_S = 30.0
PORT = 58846


class Deluge(Foreign):
    """Its daemon speaks to its client on the loopback of its place."""

    name: ClassVar[str] = "deluge"
    programs: ClassVar[tuple[str, ...]] = ("deluged", "deluge-console")
    version_command: ClassVar[tuple[str, ...]] = ("deluged", "--version")
    peer_id_start: ClassVar[str] = "-DE"

    def join(self, source: Path | str, save_to: Path) -> None:
        """The daemon starts empty, and gets the torrent from its client; it checks what is there."""
        assert self.place.prefix, "its port is fixed: it needs a place of its own"
        settings = {
            "dht": False,
            "listen_interface": self.place.address,
            "lsd": False,
            "natpmp": False,
            "new_release_check": False,
            "upnp": False,
        }
        header = {"file": 1, "format": 1}
        (self.home / "core.conf").write_text(json.dumps(header) + json.dumps(settings))
        (self.home / "auth").write_text("tester:secret:10\n")
        self.run("deluged", "-d", "-c", self.home, "-u", "127.0.0.1", "-p", str(PORT), "-L", "info")
        end = time.monotonic() + START_S
        while (said := self._console(f"add -p '{save_to}' '{source}'")) is not None:
            assert self.is_alive(), self.log()
            assert time.monotonic() < end, f"the daemon does not answer: {said}\n{self.log()}"

    def _console(self, command: str) -> str | None:
        """Run one command; None where it went well, else what was said."""
        done = subprocess.run(
            [
                *self.place.prefix,
                *("deluge-console", "-c", str(self.home / "console")),
                *("-d", "127.0.0.1", "-p", str(PORT), "-U", "tester", "-P", "secret"),
                command,
            ],
            env=dict(self.environ()),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        said = done.stdout + done.stderr
        return None if "Torrent added" in said else said
