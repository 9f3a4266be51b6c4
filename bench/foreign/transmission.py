"""Transmission's daemon. It ignores peers on loopback: give it a place in a network of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from bench.foreign.client import Foreign

RPC = Path(__file__).with_name("transmission_rpc.py")
RPC_PORT = 9091
START_S = 30.0


class Transmission(Foreign):
    """Told of a file by its watched directory, of a magnet link by its RPC."""

    name: ClassVar[str] = "transmission"
    programs: ClassVar[tuple[str, ...]] = ("transmission-daemon",)
    version_command: ClassVar[tuple[str, ...]] = ("transmission-daemon", "--version")
    peer_id_start: ClassVar[str] = "-TR"
    makes_empty_files: ClassVar[bool] = False

    def join(self, source: Path | str, save_to: Path) -> None:
        """It finds a file when it starts, and checks what is there; of a magnet link it must be told."""
        watched = self.home / "watched"
        watched.mkdir()
        if isinstance(source, Path):
            # It takes files of this suffix only, and renames them.
            shutil.copy(source, watched / "shared.torrent")
        settings = {
            "bind-address-ipv4": self.place.address,
            "dht-enabled": False,
            "download-dir": str(save_to),
            "lpd-enabled": self.local_discovery,
            "message-level": 1 if self.measured else 3,
            "port-forwarding-enabled": False,
            "rpc-bind-address": "127.0.0.1",
            "rpc-port": RPC_PORT,
            # It tries uTP first, and never falls back to TCP before a packet of somebody else's came by UDP,
            # which without its DHT does not happen (docs/INTEROP.md).
            "utp-enabled": False,
            "watch-dir": str(watched),
            "watch-dir-enabled": True,
        }
        (self.home / "settings.json").write_text(json.dumps(settings))
        log = "--log-error" if self.measured else "--log-debug"
        self.run("transmission-daemon", "--foreground", log, "--config-dir", self.home)
        if isinstance(source, str):
            self._tell(source)

    def _tell(self, magnet: str) -> None:
        assert self.place.prefix, "its port is fixed: it needs a place of its own"
        done = subprocess.run(
            [*self.place.prefix, sys.executable, str(RPC), str(RPC_PORT), "torrent-add", "filename", magnet],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def has_metadata(self) -> bool:
        """It puts the file among the others that it has."""
        return any((self.home / "torrents").glob("*.torrent"))
