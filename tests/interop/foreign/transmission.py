"""Transmission's daemon. It ignores peers on loopback: give it a place in a network of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar

from tests.interop.foreign.client import Foreign


class Transmission(Foreign):
    """Told of the torrent by its watched directory."""

    name: ClassVar[str] = "transmission"
    programs: ClassVar[tuple[str, ...]] = ("transmission-daemon",)
    version_command: ClassVar[tuple[str, ...]] = ("transmission-daemon", "--version")
    peer_id_start: ClassVar[str] = "-TR"
    makes_empty_files: ClassVar[bool] = False

    def join(self, metainfo: Path, save_to: Path) -> None:
        """It finds the torrent when it starts, and checks what is there."""
        watched = self.home / "watched"
        watched.mkdir()
        # It takes files of this suffix only, and renames them.
        shutil.copy(metainfo, watched / "shared.torrent")
        settings = {
            "bind-address-ipv4": self.place.address,
            "dht-enabled": False,
            "download-dir": str(save_to),
            "lpd-enabled": False,
            "message-level": 3,
            "port-forwarding-enabled": False,
            "rpc-enabled": False,
            # It tries uTP first, and never falls back to TCP before a packet of somebody else's came by UDP,
            # which without its DHT does not happen (docs/INTEROP.md).
            "utp-enabled": False,
            "watch-dir": str(watched),
            "watch-dir-enabled": True,
        }
        (self.home / "settings.json").write_text(json.dumps(settings))
        self.run("transmission-daemon", "--foreground", "--log-debug", "--config-dir", self.home)
