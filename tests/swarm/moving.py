"""Moves that are held up, also in a process of their own that is to end in the middle of one.

`python -m tests.swarm.moving HOME kill|stop PAUSED` seeds a file, moves it, wishes a check, says so, and goes
on until it is killed, or told by the end of its input to stop.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gevent
from gevent import monkey

from microtorrd import relocation
from microtorrd.disk import move
from tests.swarm.house import FILE_BYTES, make_file, make_house


class Gate:
    """Holds up a move in its disk thread until it is opened, and lets it fail where that is wished."""

    def __init__(self) -> None:
        self.is_reached = False
        self.error: Exception | None = None
        self._lock = monkey.get_original("_thread", "allocate_lock")()  # for threads without a hub
        self._lock.acquire()
        self._relocate = move.relocate

    def relocate(self, *args: Any, **options: Any) -> object:
        """In the place of the real one."""
        options["on_progress"](1000, FILE_BYTES)
        self.is_reached = True
        with self._lock:
            pass
        if self.error is not None:
            raise self.error
        return self._relocate(*args, **options)

    def open(self) -> None:
        """Let it go on."""
        if self._lock.locked():
            self._lock.release()


def main(home: Path, *, paused: bool) -> None:
    """Until the end of the input."""
    gate = Gate()
    relocation.move.relocate = gate.relocate  # type: ignore[assignment]
    house = make_house(home)
    house.add(make_file(home, 1), [])
    house.wait_until(house.all_seed)
    (torrent,) = house.torrents()
    id = torrent.info_hash.hex()
    house.session.move(id, str(home / "away"))
    if paused:
        house.session.pause(id)
    house.wait_until(lambda: gate.is_reached)
    house.session.verify(id)
    print("it is moved, and a check is wished", flush=True)
    gevent.get_hub().threadpool.apply(sys.stdin.read)
    gevent.spawn_later(0.05, gate.open)
    house.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), paused=sys.argv[3] == "1")
