"""How torrents come back to life when the daemon starts: some hundreds at a time.

Each turn of a thread costs more than looking at a small torrent. So torrents whose files lie in the same
directory are looked at together: a directory on a disk that hangs holds up nobody but its own. What is large,
or was being moved, is loaded by itself.

Batches are looked at one after the other as long as that is quick: threads which all hold the interpreter's
lock for microseconds only take it from each other, and from the hub. When one takes longer, it waits for a
disk, and others need not wait for that.

The trackers are told when all torrents stand, or after a second where that takes longer: nobody misses us in
it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import zip_longest
from typing import NamedTuple

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from microtorrd.content import AS_LEFT, AsLeft, Content, Trusted
from microtorrd.disk.glance import Glance
from microtorrd.disk.records import Kept
from microtorrd.errors import StorageError
from microtorrd.facilities import Facilities
from microtorrd.greenlets import Crew, breathe
from microtorrd.torrent import Torrent

#: Batches looked at together; more would only queue at the disk threads.
LOADERS = 8

#: After so long the next batch does not wait for the one before it.
PATIENCE_S = 0.1

#: Torrents in a batch, and bytes of their metainfo: what does not fit comes with the next one, and what alone
#: is larger is loaded by itself. The hub goes on in one turn with all of a batch that are at rest.
TOGETHER = 250
TOGETHER_BYTES = 4 << 20

#: How long the trackers are not told of what stands already.
SILENCE_S = 1.0

#: Torrents that begin to announce themselves between two breaths.
ANNOUNCED_AT_ONCE = 100


class Found(NamedTuple):
    """What a look at a batch found: for each torrent what is trusted of it or why that is not known, None
    where it was not looked at; and the gists of those that had none, as (info_hash, gist)."""

    outcomes: list[Trusted | AsLeft | StorageError | None]
    gists: list[tuple[bytes, bytes]]


class Loading:
    """The torrents of one start."""

    def __init__(
        self, torrents: Iterable[Torrent], facilities: Facilities, warm_up: Callable[[], None]
    ) -> None:
        """`warm_up` is called before the trackers are told, and may wait."""
        self._facilities = facilities
        self._warm_up = warm_up
        self._batches = deque(batches(torrents))
        self._turn = BoundedSemaphore(1)
        self._untold: deque[Torrent] = deque()
        self._all_stand = Event()

    def run(self, crew: Crew) -> None:
        """Load them all. Waits."""
        width = min(LOADERS, len(self._batches))
        teller = crew.spawn("first announces", self._tell)
        gevent.joinall([crew.spawn("loader", self._load_waiting) for _ in range(width)])
        self._all_stand.set()
        teller.join()

    def give_up(self) -> None:
        """Begin with no more of them."""
        self._batches.clear()
        self._untold.clear()

    def _tell(self) -> None:
        """Let those announce themselves that stand."""
        is_last = self._all_stand.wait(SILENCE_S)
        self._warm_up()
        while True:
            for _ in range(min(len(self._untold), ANNOUNCED_AT_ONCE)):
                self._untold.popleft().announce()
            if self._untold:
                breathe()
            elif is_last:
                return
            else:
                is_last = self._all_stand.wait(SILENCE_S)

    def _load_waiting(self) -> None:
        while self._batches:
            is_in_turn = self._turn.acquire(timeout=PATIENCE_S)
            try:
                slow = self._load(self._batches.popleft()) if self._batches else []
            finally:
                if is_in_turn:
                    self._turn.release()
            for torrent, outcome in slow:
                torrent.load(None, outcome)
                breathe()

    def _load(self, batch: Sequence[Torrent]) -> list[tuple[Torrent, Trusted | StorageError | None]]:
        """Look at them, and go on with those that need no more than that. Returns the others."""
        ledger, pool = self._facilities.ledger, self._facilities.pool
        settled = [torrent.info_hash for torrent in batch if torrent.record.moving_to is None]
        kept: dict[bytes, Kept] = {}
        with suppress(StorageError):  # whose page of the database is damaged is found out for each
            kept = ledger.metainfos(settled, at_most_bytes=TOGETHER_BYTES)
        if kept and len(kept) < len(settled):
            left = [one for one in batch if one.record.moving_to is None and one.info_hash not in kept]
            batch = [one for one in batch if one.record.moving_to is not None or one.info_hash in kept]
            self._batches.appendleft(left)
        contents = [torrent.content for torrent in batch]
        known = [kept.get(torrent.info_hash) for torrent in batch]
        look = partial(look_at, batch[0].record.save_to, contents, known)
        found = pool.call(look, lane="bulk", place=contents[0].place)
        if found.gists:
            ledger.record_gists(found.gists)
        others: list[tuple[Torrent, Trusted | StorageError | None]] = []
        for torrent, outcome in zip(batch, found.outcomes, strict=True):
            if outcome is AS_LEFT:
                torrent.load(None, outcome)
                self._untold.append(torrent)
                if torrent.rest is None:  # it has a core, and that costs as much as a hundred at rest
                    breathe()
            else:
                others.append((torrent, outcome))
        return others


def batches(torrents: Iterable[Torrent]) -> list[list[Torrent]]:
    """The torrents of each directory in batches; the directories take turns."""
    places: dict[str, list[list[Torrent]]] = {}
    for torrent in torrents:
        runs = places.setdefault(torrent.record.save_to, [[]])
        if len(runs[-1]) == TOGETHER:
            runs.append([])
        runs[-1].append(torrent)
    return [run for turn in zip_longest(*places.values()) for run in turn if run is not None]


def look_at(root: str, contents: Sequence[Content], known: Sequence[Kept | None]) -> Found:
    """In a disk thread: look at torrents whose files lie below the same root."""
    found = Found([], [])
    with ExitStack() as stack:
        glance: Glance | None = None
        with suppress(OSError):  # whom that hurts, and how, is found out for each
            glance = stack.enter_context(Glance(root))
        for content, kept in zip(contents, known, strict=True):
            try:
                found.outcomes.append(None if kept is None else _look(content, kept, glance, found.gists))
            except StorageError as error:
                found.outcomes.append(error)
    return found


def _look(
    content: Content, kept: Kept, glance: Glance | None, gists: list[tuple[bytes, bytes]]
) -> Trusted | AsLeft:
    if not content.recall(kept) and (packed := content.learn(kept.raw)) is not None:
        gists.append((content.record.info_hash, packed))
    if glance is not None and content.is_as_left(glance):
        return AS_LEFT
    if not content.has_hashes:  # of content that is not whole, or has to be read, they will be wanted
        content.learn(kept.raw)
    return content.examine()
