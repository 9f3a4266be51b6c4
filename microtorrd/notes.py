"""Notes: what an outside reader may care for, from the torrents to whoever subscribed.

A note is a plain dictionary: `kind`, `time` (seconds since the epoch), where it concerns one torrent
`info_hash` (hex) and `name`, and the facts of its kind. Publishing never waits. A subscriber that is slow
loses its oldest notes and can read in `lost` how many.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from gevent.event import Event

Note = dict[str, Any]

#: Enough for a burst of a few thousand torrents changing state at once; a note is a few hundred bytes.
SUBSCRIPTION_BOUND = 10_000


class Subscription:
    """One reader's queue of notes: iterate over it, or `get` with a timeout, until `closed`."""

    def __init__(self, close: Callable[[Subscription], None], bound: int = SUBSCRIPTION_BOUND) -> None:
        self.lost = 0
        self.closed = False
        #: Which notes are put into the queue. One for every piece must not wake who waits for the last.
        self.wanted: Callable[[Note], bool] | None = None
        self._close = close
        self._notes: deque[Note] = deque()
        self._bound = bound
        self._ready = Event()

    def put(self, note: Note) -> None:
        """Append a note that is wanted; over the bound the oldest one is lost and counted."""
        if self.wanted is not None and not self.wanted(note):
            return
        if len(self._notes) >= self._bound:
            self._notes.popleft()
            self.lost += 1
        self._notes.append(note)
        self._ready.set()

    def get(self, timeout: float | None = None) -> Note | None:
        """The next note; None when `timeout` seconds went by, or the subscription is closed and empty."""
        if not self._notes and not self.closed:
            self._ready.clear()
            self._ready.wait(timeout)
        return self._notes.popleft() if self._notes else None

    def __iter__(self) -> Iterator[Note]:
        while (note := self.get()) is not None:
            yield note

    def close(self) -> None:
        """No more notes will come; what is queued can still be read."""
        if not self.closed:
            self.closed = True
            self._close(self)
            self._ready.set()


class NoteBoard:
    """Where notes are published and subscribed to."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._subscriptions: list[Subscription] = []
        self._clock = clock

    @property
    def has_readers(self) -> bool:
        """Whether anybody listens: periodic notes are not even made when nobody does."""
        return bool(self._subscriptions)

    def subscribe(self, bound: int = SUBSCRIPTION_BOUND) -> Subscription:
        """Return a subscription to all notes from now on."""
        subscription = Subscription(self._subscriptions.remove, bound)
        self._subscriptions.append(subscription)
        return subscription

    def publish(self, kind: str, **facts: Any) -> None:
        """Hand a note to every subscriber."""
        if self._subscriptions:
            note: Note = {"kind": kind, "time": self._clock(), **facts}
            for subscription in self._subscriptions:
                subscription.put(note)

    def close(self) -> None:
        """End every subscription; the readers see the end of their streams."""
        for subscription in list(self._subscriptions):
            subscription.close()
