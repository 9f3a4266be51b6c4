"""Addresses of one torrent: where from, when to try them next, which never again.

An address is idle (waiting for its time), being dialed, connected, parked (it has everything, and so have
we), or barred for good (ourselves, banned). Only idle ones are in the queue, by the time of the next try; of
those whose time has come the operator's go first, then those that never failed, by canonical priority (BEP
40) where it is known and by lot where not.

Rules: the book is bounded, and what an operator named is never pushed out; every failure doubles the pause;
an address that fails too often is forgotten, because whoever told us of it will tell us again.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from heapq import heapify, heappop, heappush
from typing import Literal

from microtorrd.core.events import Address, Source
from microtorrd.core.ranking import Ranking

#: Addresses in the book; and barred ones, which are remembered beyond it.
BOOK_MAX = 2000
BARRED_MAX = 1000

#: The first pause after a failure and the longest one, in seconds, each with up to half of it on top by lot.
#: The first is short: peers that start together dial each other before they listen.
PAUSE_FIRST_S = 1.0
PAUSE_LONGEST_S = 1800.0

#: Failures in a row after which an address is forgotten while we need peers, and when we only serve: then
#: those who need us will call.
FAILURES_MAX = 10
FAILURES_MAX_SEEDING = 3

#: How long to leave a peer alone that parted in peace, and one that broke the protocol.
PARTED_S = 10.0
FAULT_S = 300.0

#: A connection that ends sooner than this counts as a failure: something drops us at once, again and again.
BRIEF_S = 5.0

#: A dial that nobody answered for this long is taken for failed: nothing may stay half-open for ever.
DIAL_LOST_S = 120.0

State = Literal["idle", "dialing", "connected", "parked"]


class Entry:
    """What is known of one address."""

    __slots__ = ("at", "failures", "is_seed", "source", "state")

    def __init__(self, source: Source, at: float) -> None:
        self.source = source
        self.state: State = "idle"
        self.at = at  # idle: when to try; otherwise since when it is in its state
        self.failures = 0
        self.is_seed = False


class Peerbook:
    """The known addresses of one torrent."""

    __slots__ = ("_barred", "_chance", "_entries", "_queue", "_ranking", "_ripe", "_seeding", "dialing")

    def __init__(self, chance: random.Random, ranking: Ranking | None = None) -> None:
        self.dialing = 0
        self._chance = chance
        self._ranking = ranking
        self._entries: dict[Address, Entry] = {}
        # (when, lot, address); stale ones are passed over
        self._queue: list[tuple[float, float, Address]] = []
        # Those whose time has come: (order, when, address).
        self._ripe: list[tuple[float, float, Address]] = []
        self._barred: dict[Address, None] = {}
        self._seeding = False

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def quiet(self) -> bool:
        """Nobody is being dialed or will be."""
        return not self.dialing and not self._queue and not self._ripe

    @property
    def blank(self) -> bool:
        """Nothing is written in it."""
        return not (self._entries or self._barred)

    def state(self, address: Address) -> State | Literal["barred"] | None:
        """What the book says of the address; None: unknown."""
        if address in self._barred:
            return "barred"
        entry = self._entries.get(address)
        return None if entry is None else entry.state

    def source(self, address: Address) -> Source | None:
        """Who told us of the address; None: unknown."""
        entry = self._entries.get(address)
        return None if entry is None else entry.source

    def promising(self) -> list[Address]:
        """Those whose last try did not fail, connected ones included."""
        return [address for address, entry in self._entries.items() if not entry.failures]

    def found(
        self, addresses: Iterable[Address], source: Source, now: float, *, seeds: Collection[Address] = ()
    ) -> None:
        """Somebody told us of these: attacker-controlled, and perhaps a million. `seeds` of them are said to
        have everything."""
        room = BOOK_MAX - len(self._entries)
        weak: list[Address] | None = None
        for address in addresses:
            entry = self._entries.get(address)
            if entry is not None:
                if source == "operator":
                    entry.source, entry.failures = source, 0
                elif source == "lsd" and entry.state == "idle" and entry.failures:
                    entry.failures = 0  # it is up, and near
                    self._rest(address, entry, now, 0.0)
                continue
            if address in self._barred or not 0 < address[1] < 65536:
                continue
            if room <= 0:
                if weak is None:
                    weak = self._weak()
                if not weak:
                    if source != "operator":
                        return
                else:
                    del self._entries[weak.pop()]
            room -= 1
            entry = self._entries[address] = Entry(source, now)
            entry.is_seed = address in seeds
            heappush(self._queue, (now, self._chance.random(), address))

    def due(self, most: int, now: float) -> list[Address]:
        """Up to `most` addresses to dial now. They count as dialed."""
        chosen: list[Address] = []
        queue, ripe = self._queue, self._ripe
        while queue and queue[0][0] <= now:
            at, lot, address = heappop(queue)
            entry = self._entries.get(address)
            if entry is not None and entry.state == "idle" and entry.at == at:
                heappush(ripe, (self._order(address, entry, lot), at, address))
        while ripe and len(chosen) < most:
            _, at, address = heappop(ripe)
            entry = self._entries.get(address)
            if entry is None or entry.state != "idle" or entry.at != at:
                continue
            if self._seeding and entry.is_seed:
                entry.state = "parked"
                continue
            entry.state, entry.at = "dialing", now
            self.dialing += 1
            chosen.append(address)
        return chosen

    def joined(self, address: Address, now: float) -> None:
        """A connection with this address stands."""
        if address in self._barred:
            return
        entry = self._entries.get(address)
        if entry is None:
            if len(self._entries) >= BOOK_MAX:
                return
            entry = self._entries[address] = Entry("incoming", now)
        elif entry.state == "dialing":
            self.dialing -= 1
        entry.state, entry.at = "connected", now

    def left(self, address: Address, now: float, *, is_seed: bool, fault: bool) -> None:
        """That connection ended."""
        entry = self._entries.get(address)
        if entry is None or entry.state != "connected":
            return
        entry.is_seed = is_seed
        if fault:
            self._rest(address, entry, now, FAULT_S)
        elif now - entry.at < BRIEF_S and not is_seed:
            self._fail(address, entry, now)
        else:
            entry.failures = 0
            self._rest(address, entry, now, PARTED_S)

    def failed(self, address: Address, now: float, *, ourselves: bool = False) -> None:
        """The dial came to nothing."""
        entry = self._entries.get(address)
        if entry is not None and entry.state == "dialing":
            self.dialing -= 1
            self._fail(address, entry, now)
        if ourselves:
            self.bar(address)

    def bar(self, address: Address) -> None:
        """Never again."""
        entry = self._entries.pop(address, None)
        if entry is not None and entry.state == "dialing":
            self.dialing -= 1
        if len(self._barred) >= BARRED_MAX:
            del self._barred[next(iter(self._barred))]
        self._barred[address] = None

    def seeding(self, seeding: bool, now: float) -> None:
        """Whether we want nothing more: then others who have everything are not worth a call."""
        if seeding == self._seeding:
            return
        self._seeding = seeding
        for address, entry in list(self._entries.items()):
            # Who was no use while we wanted nothing, or has parted for that, is wanted at once.
            parted = entry.state == "idle" and not entry.failures and entry.at - now <= PARTED_S
            if not seeding and (entry.state == "parked" or parted):
                self._rest(address, entry, now, 0.0)
            elif entry.state == "idle" and seeding and entry.failures >= FAILURES_MAX_SEEDING:
                self._forget(address, entry)

    def look_after(self, now: float) -> None:
        """Once in a while: dials that were never answered, and a queue full of stale entries."""
        if self.dialing:
            for address, entry in list(self._entries.items()):
                if entry.state == "dialing" and now - entry.at > DIAL_LOST_S:
                    self.failed(address, now)
        if len(self._queue) + len(self._ripe) > 2 * len(self._entries) + 16:
            self._queue = [item for item in self._queue if self._is_current(item)]
            heapify(self._queue)
            self._ripe = [item for item in self._ripe if self._is_current((item[1], item[0], item[2]))]
            heapify(self._ripe)

    # ---------------------------------------------------------------------------------------- within

    def _order(self, address: Address, entry: Entry, lot: float) -> float:
        """Who goes first among those whose time has come: the least."""
        if entry.source == "operator":
            return lot - 1
        priority = None if self._ranking is None else self._ranking.priority(*address)
        return entry.failures + (lot if priority is None else 1 - priority / (1 << 32))

    def _is_current(self, item: tuple[float, float, Address]) -> bool:
        entry = self._entries.get(item[2])
        return entry is not None and entry.state == "idle" and entry.at == item[0]

    def _fail(self, address: Address, entry: Entry, now: float) -> None:
        entry.failures += 1
        most = FAILURES_MAX_SEEDING if self._seeding else FAILURES_MAX
        if entry.failures >= most and entry.source != "operator":
            self._forget(address, entry)
            return
        pause = min(PAUSE_FIRST_S * 2.0 ** (entry.failures - 1), PAUSE_LONGEST_S)
        self._rest(address, entry, now, pause * (1 + self._chance.random() / 2))

    def _rest(self, address: Address, entry: Entry, now: float, pause_s: float) -> None:
        entry.state, entry.at = "idle", now + pause_s
        heappush(self._queue, (entry.at, self._chance.random(), address))

    def _forget(self, address: Address, entry: Entry) -> None:
        del self._entries[address]
        entry.state = "parked"

    def _weak(self) -> list[Address]:
        """Addresses that may be pushed out by new ones: those that failed, the worst at the end."""
        weak = [
            (entry.failures, address)
            for address, entry in self._entries.items()
            if entry.state == "idle" and entry.failures and entry.source != "operator"
        ]
        return [address for _, address in sorted(weak)]
