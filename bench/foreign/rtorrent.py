"""rTorrent, as a daemon without a screen."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from bench.foreign.client import Foreign

SETTINGS = """\
system.daemon.set = true
session.path.set = {home}/session
directory.default.set = {save_to}
network.bind_address.set = {address}
network.port_range.set = {port}-{port}
network.port_random.set = no
dht.mode.set = disable
schedule2 = load, 0, 0, ((load.start, "{source}"))
"""

LOG = """\
log.open_file = "log", {home}/log.rtorrent
log.add_output = "debug", "log"
log.add_output = "connection_debug", "log"
log.add_output = "peer_debug", "log"
log.add_output = "tracker_debug", "log"
"""


class Rtorrent(Foreign):
    """Told of the torrent, and of all else, by its settings file."""

    name: ClassVar[str] = "rtorrent"
    programs: ClassVar[tuple[str, ...]] = ("rtorrent",)
    version_command: ClassVar[tuple[str, ...]] = ("rtorrent", "-h")
    peer_id_start: ClassVar[str] = "-lt"
    # It hashes everything once more first, with its trackers off: the event waits for the next announce.
    tells_completion: ClassVar[bool] = False

    def join(self, source: Path | str, save_to: Path) -> None:
        """It checks what is there when it loads the torrent."""
        (self.home / "session").mkdir()
        settings = self.home / "settings.rc"
        settings.write_text(
            ("" if self.measured else LOG.format(home=self.home))
            + SETTINGS.format(
                home=self.home,
                save_to=save_to,
                address=self.place.address,
                port=self.place.free_port(),
                source=source,
            )
        )
        self.run("rtorrent", "-n", "-o", f"import={settings}")

    def log(self) -> str:
        """What it printed, and what it logged."""
        path = self.home / "log.rtorrent"
        return super().log() + (path.read_text(errors="replace") if path.exists() else "")
