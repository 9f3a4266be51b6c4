"""A session in the test's own process, with files that it seeds."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent

from bench.measure import make_torrent
from microtorrd import config
from microtorrd.greenlets import Crew
from microtorrd.session import Session
from microtorrd.terms import Terms
from microtorrd.torrent import Torrent

FILE_BYTES = 40_000  # two and a half blocks
PATIENCE_S = 60.0


class House:
    """A session in this process, on a state directory that may be full of torrents."""

    def __init__(self, home: Path) -> None:
        self.crew = Crew("house", on_crash=lambda name, error: self.crashes.append(f"{name}: {error!r}"))
        self.crashes: list[str] = []
        overrides = [
            f"daemon.state_dir={home / 'state'}",
            f"storage.save_to={home / 'data'}",
            "listen.port=0",
            "listen.addresses=127.0.0.1",
        ]
        self.session = Session(config.load(None, overrides, {"HOME": str(home)}), crew=self.crew)
        self.notes = self.session.subscribe()
        self.session.start()

    def stop(self, timeout_s: float = 8.0) -> float:
        """Stop it. How long that took, in seconds."""
        began = time.monotonic()
        self.session.stop(timeout_s)
        took_s = time.monotonic() - began
        assert self.crew.stop(2.0) == []
        assert self.crashes == []
        return took_s

    def add(self, path: Path, trackers: list[str]) -> None:
        """Have this file seeded."""
        self.session.add(make_torrent(path, 16384, trackers), Terms(seed_path=str(path)))

    def wait_until(self, done: Callable[[], bool]) -> list[dict[str, Any]]:
        """Go on until that is so; the notes that came meanwhile."""
        heard: list[dict[str, Any]] = []
        with gevent.Timeout(PATIENCE_S, AssertionError("it never came to that")):
            while not done():
                # Many at a time: to look at all torrents after each of their notes takes long.
                while (note := self.notes.get(0.05)) is not None:
                    heard.append(note)
        return heard

    def torrents(self) -> list[Torrent]:
        return list(self.session.roster.torrents.values())

    def all_seed(self) -> bool:
        return self.session.stats()["states"] == {"seeding": len(self.torrents())}

    def all_rest(self) -> bool:
        return all(torrent.rest is not None for torrent in self.torrents())


def make_house(home: Path) -> House:
    """A session on an empty state directory."""
    (home / "state").mkdir()
    (home / "content").mkdir()
    return House(home)


def make_file(home: Path, number: int) -> Path:
    path = home / "content" / f"file-{number:04}"
    path.write_bytes(struct.pack(">I", number) * (FILE_BYTES // 4))
    return path
