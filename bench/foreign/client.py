"""What all foreign clients have in common: a home, a place to run in, processes, a log, and an end.

Tests want to read what a client did, so it logs all it can. Where it is `measured` it logs as it does by
itself, and speaks TCP only, as ours does: over uTP the same clients are many times slower between two
processes of one machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from bench.places import Place

STOP_S = 10.0


class Foreign:
    """A client below `home`, in `place`. `join` starts it; `close` ends it."""

    #: How people call it, what must be installed, how its version is asked for, how its peer ids begin.
    name: ClassVar[str]
    programs: ClassVar[tuple[str, ...]]
    version_command: ClassVar[tuple[str, ...]]
    peer_id_start: ClassVar[str]
    #: Whether it tells the tracker at once when it has everything.
    tells_completion: ClassVar[bool] = True
    #: Whether it makes the files of a torrent that have no bytes.
    makes_empty_files: ClassVar[bool] = True
    #: Whether it looks for its neighbours (BEP 14) beside asking the tracker.
    local_discovery: ClassVar[bool] = False
    #: Whether it is to ask trackers over UDP. aria2 does so only where its DHT is on; all others always may.
    udp_trackers: ClassVar[bool] = False

    def __init__(
        self, home: Path, place: Place, *, measured: bool = False, upload_bytes_per_s: int = 0
    ) -> None:
        self.home = home
        self.place = place
        self.measured = measured
        #: Its upload limit, for those who have one here; 0 is none.
        self.upload_bytes_per_s = upload_bytes_per_s
        self.log_path = home / "log"
        self.process: subprocess.Popen[bytes] | None = None
        home.mkdir(parents=True, exist_ok=True)

    def prepare(self) -> None:
        """Whatever can be done before it joins, so that starting a program is not measured."""

    def join(self, source: Path | str, save_to: Path) -> None:
        """Start, and join the swarm of a metainfo file or a magnet link: what lies in `save_to` is checked
        and shared, the rest fetched."""
        raise NotImplementedError

    def has_metadata(self) -> bool:
        """Whether a magnet link that it follows has become a torrent."""
        raise NotImplementedError

    def run(self, *command: str | Path) -> None:
        """Start the client's own process; it says what it says into the log."""
        assert self.process is None
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.place.prefix, *map(str, command)],
                cwd=self.home,
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def environ(self) -> Mapping[str, str]:
        """No setting of whoever runs the tests reaches the client."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8", "TERM": "dumb"}

    def log(self) -> str:
        """What it said so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def is_alive(self) -> bool:
        """Whether its process still runs."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """End it as a crash would."""
        if self.is_alive():
            assert self.process is not None
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        """End it: as a service manager would, and by force when it does not go."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    @classmethod
    def version(cls) -> str:
        """The first line with a digit in it that the client says about itself."""
        said = subprocess.run(
            cls.version_command,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        lines = (said.stdout + said.stderr).splitlines()
        return next((line.strip() for line in lines if any(map(str.isdigit, line))), "?")
