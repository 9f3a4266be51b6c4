"""aria2: one command a download."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from bench.foreign.client import Foreign


class Aria2(Foreign):
    """A download program that speaks BitTorrent among other things."""

    name: ClassVar[str] = "aria2"
    programs: ClassVar[tuple[str, ...]] = ("aria2c",)
    version_command: ClassVar[tuple[str, ...]] = ("aria2c", "--version")
    peer_id_start: ClassVar[str] = "A2-"

    def join(self, source: Path | str, save_to: Path) -> None:
        """Check what is there, fetch the rest, seed until it is ended."""
        self.run(
            "aria2c",
            "--no-conf",
            "--enable-color=false",
            f"--console-log-level={'notice' if self.measured else 'info'}",
            "--summary-interval=0",
            f"--enable-dht={str(self.udp_trackers).lower()}",
            f"--dht-file-path={self.home / 'dht.dat'}",
            "--enable-dht6=false",
            "--disable-ipv6=true",
            f"--interface={self.place.address}",
            f"--bt-enable-lpd={str(self.local_discovery).lower()}",
            f"--listen-port={self.place.free_port()}",
            "--check-integrity=true",
            "--seed-ratio=0.0",
            f"--max-overall-upload-limit={self.upload_bytes_per_s}",
            f"--dir={save_to}",
            source if isinstance(source, str) else f"--torrent-file={source}",
        )
