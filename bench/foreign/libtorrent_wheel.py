"""libtorrent, as its wheel for Python: a session in a process of its own (it has threads, and sockets that
nobody patched)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from bench.foreign.client import Foreign

SESSION = Path(__file__).with_name("libtorrent_session.py")


class Libtorrent(Foreign):
    """The reference of most deployed clients."""

    name: ClassVar[str] = "libtorrent"
    programs: ClassVar[tuple[str, ...]] = ()
    version_command: ClassVar[tuple[str, ...]] = (
        sys.executable,
        "-c",
        "import libtorrent as l; print(l.version)",
    )
    peer_id_start: ClassVar[str] = "-LT"

    def join(self, source: Path | str, save_to: Path) -> None:
        """One session with one torrent."""
        how = "neighbourly" if self.local_discovery else "measured" if self.measured else "watched"
        options = (str(self.upload_bytes_per_s), how)
        self.run(sys.executable, SESSION, self.place.address, source, save_to, *options)

    def has_metadata(self) -> bool:
        """It reports that."""
        return "metadata_received_alert" in self.log()
