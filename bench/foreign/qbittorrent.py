"""qBittorrent without its window."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from bench.foreign.client import Foreign

SETTINGS = """\
[LegalNotice]
Accepted=true

[BitTorrent]
Session\\DHTEnabled=false
Session\\LSDEnabled=false
Session\\InterfaceAddress={address}
Session\\Port={port}
Session\\BTProtocol={protocol}

[Network]
PortForwardingEnabled=false

[Preferences]
WebUI\\Address=127.0.0.1
WebUI\\Enabled=false
"""


class Qbittorrent(Foreign):
    """Told of the torrent on its command line."""

    name: ClassVar[str] = "qbittorrent"
    programs: ClassVar[tuple[str, ...]] = ("qbittorrent-nox",)
    version_command: ClassVar[tuple[str, ...]] = ("qbittorrent-nox", "--version")
    peer_id_start: ClassVar[str] = "-qB"

    def join(self, source: Path | str, save_to: Path) -> None:
        """It checks what is there when it adds the torrent."""
        settings = self.home / "qBittorrent" / "config" / "qBittorrent.conf"
        settings.parent.mkdir(parents=True)
        settings.write_text(
            SETTINGS.format(
                address=self.place.address,
                port=self.place.free_port(),
                protocol="TCP" if self.measured else "Both",
            )
        )
        self.run(
            "qbittorrent-nox",
            f"--profile={self.home}",
            f"--save-path={save_to}",
            "--add-paused=false",
            "--skip-dialog=true",
            source,
        )
