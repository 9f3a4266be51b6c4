"""Whose turn it is: who has something to do stands in a row, and in each turn of the hub as many from its
front may go as fit into a few milliseconds.

Without it every connection that can send does so in each turn of the hub, and with hundreds of them everybody
else waits for hundreds of batches. With it the row may be of any length and batches stay large: between two
turns the hub looks at its sockets and timers.

Who was woken by its socket need not stand in a row as long as there are few of them: that is what the gate is
for.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any

from gevent import get_hub, getcurrent

#: How long those who send hold up the hub, about: the batch that has begun is finished. It is a dozen large
#: batches over loopback, after which a look at all the sockets costs next to nothing.
TURN_S = 0.004


class Turns:
    """The row. Turns come in the order of asking: who all send batches of one size get equal parts."""

    __slots__ = ("_row", "_timer")

    def __init__(self) -> None:
        self._row: deque[list[Any]] = deque()  # of places: the greenlet that waits there, or nobody any more
        self._timer: Any = None  # made when first needed

    def wait(self) -> None:
        """Return when it is this greenlet's turn; the hub has looked at everything else before."""
        hub = get_hub()
        place: list[Any] = [getcurrent()]
        self._row.append(place)
        if self._timer is None:
            self._timer = hub.loop.timer(0)
        if not self._timer.active:
            self._timer.start(self._let_go)
        try:
            hub.switch()
        finally:
            place.clear()  # also when it was killed here

    def _let_go(self) -> None:
        """Wake those whose turn it is, one after the other; runs in the hub."""
        row, end = self._row, monotonic() + TURN_S
        for _ in range(len(row)):  # who comes back meanwhile waits for the next turn
            place = row.popleft()
            if place:
                place[0].switch()
                if monotonic() >= end:
                    break
        if row:
            self._timer.start(self._let_go)


class Gate:
    """Where those come through who were woken by their sockets: at once as long as the hub has not been at
    it for `TURN_S`, else in a row. The hub serves all sockets that are ready in one turn, were they
    thousands."""

    __slots__ = ("_began", "_row", "_used", "_watcher")

    def __init__(self) -> None:
        self._row = Turns()
        self._watcher: Any = None  # tells when a turn begins; it rests while nobody comes through
        self._began = 0.0
        self._used = False

    def enter(self) -> None:
        """Return when this greenlet may go on."""
        self._used = True
        if self._watcher is None:
            loop = get_hub().loop
            self._watcher = loop.check(ref=False, priority=loop.MAXPRI)  # before all that is ready
        if not self._watcher.active:
            self._began = monotonic()
            self._watcher.start(self._begin)
        elif monotonic() - self._began >= TURN_S:
            self._row.wait()

    def _begin(self) -> None:
        """The hub has looked at its sockets; runs in the hub."""
        self._began = monotonic()
        if not self._used:
            self._watcher.stop()
        self._used = False
