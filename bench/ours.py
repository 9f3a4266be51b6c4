"""microtorrd, handled as the other clients are, so that one harness measures all of them alike."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from bench import hubwatch
from bench.daemons import Daemon
from bench.foreign import Foreign
from bench.measure import for_rpc


class Microtorrd(Foreign):
    """A daemon of ours with one torrent, and a watch on its hub."""

    name: ClassVar[str] = "microtorrd"
    programs: ClassVar[tuple[str, ...]] = ()
    version_command: ClassVar[tuple[str, ...]] = ("microtorrd", "--version")
    peer_id_start: ClassVar[str] = "-MD"

    #: Which of its optimisations is taken away, if any (`bench.without`).
    without: ClassVar[str] = ""

    daemon: Daemon | None = None

    def prepare(self) -> None:
        """Start the daemon, without a torrent."""
        self.daemon = Daemon(
            self.home,
            prefix=self.place.prefix,
            probed=True,
            without=self.without,
            listen__addresses=self.place.address,
            limits__up=self.upload_bytes_per_s,
            daemon__log_level="warning" if self.measured else "debug",
        ).start()
        self.process = self.daemon.process

    def join(self, source: Path | str, save_to: Path) -> None:
        """Hand it the torrent: to seed what lies in `save_to`, or to save there."""
        if self.daemon is None:
            self.prepare()
        assert self.daemon is not None and isinstance(source, Path)
        content = next(save_to.iterdir(), None)
        where = {"save_to": str(save_to)} if content is None else {"seed_path": str(content)}
        self.daemon.call("torrent.add", metainfo=for_rpc(source.read_bytes()), **where)

    def stalls(self, *, since_s: float) -> list[hubwatch.Stall]:
        """How its hub stood still since that moment of `time.monotonic`."""
        assert self.daemon is not None
        return hubwatch.read(self.daemon.probe_path, since_s=since_s)
