"""When Python looks for reference cycles, and among what.

A search goes through everything that is there, and the hub stands still meanwhile: for 50 ms and more with
two thousand connections, each of which is 70 objects. So what is old is searched as good as never. That does
no harm as long as nothing that comes and goes by the thousands leaves cycles behind: a torrent that is
removed is in none, and a connection that ended has cut its own.
"""

from __future__ import annotations

import gc

#: What has survived two searches is searched again when that has happened so many times ten times 700 more
#: objects have come than gone: what thousands of connections are made of.
SEARCHES_BETWEEN = 100

#: So many connections at once are no longer few.
MANY = 500


def resume_collections() -> None:
    """Look for reference cycles again, but not among what is there now: that stays, or is in none when it
    goes."""
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, SEARCHES_BETWEEN)
    gc.enable()


class HighWater:
    """Sets all that is there aside whenever there are twice as many connections as ever before: else each
    time that thousands come together everything would be searched."""

    __slots__ = ("_mark",)

    def __init__(self) -> None:
        self._mark = MANY

    def look(self, connections: int) -> None:
        """So many are open; once a second."""
        if connections >= self._mark:
            self._mark = 2 * connections
            gc.collect(1)  # of what is young some may be rubbish
            gc.freeze()
