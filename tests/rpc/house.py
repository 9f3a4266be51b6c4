"""A control server on a real socket with the fake session behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from microtorrd.greenlets import Crew
from microtorrd.rpc.listening import open_control_socket
from microtorrd.rpc.server import Bounds, ControlServer
from tests.rpc.fake import FakeDaemon, FakeSession, services


class House:
    """What stands behind the socket at `path`."""

    def __init__(self, path: str, bounds: Bounds | None = None, note_bound: int = 10_000) -> None:
        self.path = path
        self.session = FakeSession(note_bound)
        self.daemon = FakeDaemon()
        self.crew = Crew("rpc")
        self.server = ControlServer(
            open_control_socket(path), services(self.session, self.daemon), self.crew, bounds
        )
        self.server.start()


@contextmanager
def open_house(directory: Path, bounds: Bounds | None = None, note_bound: int = 10_000) -> Iterator[House]:
    """Serve until the end of the block."""
    house = House(str(directory / "control.sock"), bounds, note_bound)
    try:
        yield house
    finally:
        house.server.stop()
