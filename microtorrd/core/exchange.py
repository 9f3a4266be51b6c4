"""Peer exchange (BEP 11): telling peers with whom else we are connected, and hearing the same from them.

Rules:
- of a private torrent (BEP 27), and while the setting says no, nothing is told and nothing is heard;
- only peers that are connected are told of, at the address where they listen; to each peer not more often
  than once in `EVERY_S`, and at most `MOST` that came and `MOST` that went. What does not fit comes with the
  next message; who was told of is taken back when it is gone;
- of many who are here each is told of others, by lot: whoever is told of gets dialed, and all would dial the
  same few;
- newcomers are told first: they know nobody else. Those that come together are told the same, page by page,
  so that thousands hear of somebody within seconds;
- addresses of one's own network stay in it: they are told to those who are in it, too, and believed from
  those alone;
- what is heard is bounded: in how often (`allowance`), how much at a time, and how many ports of one host,
  because whoever is named gets dialed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from itertools import chain, islice

from microtorrd.core.events import Address
from microtorrd.core.peer import Peer
from microtorrd.core.peerbook import Peerbook
from microtorrd.core.swarm import Swarm
from microtorrd.proto import pex
from microtorrd.proto.compact import is_near, read_host
from microtorrd.proto.messages import Extended
from microtorrd.rate import Allowance

#: Time between two messages to one peer, and how long a new one is left alone with its first bitfields.
EVERY_S = 60.0
FIRST_S = 1.0

#: When there was nothing new for a peer, look again after this time.
LOOK_S = 3.0

#: So many are looked after in one tick, the longest due first, and so many newcomers besides. Who came
#: together is due together, and to tell two thousand of each other at once held up everybody for a quarter
#: of a second; now it is a few milliseconds in each of a few seconds.
AT_ONCE = 48
NEWCOMERS_AT_ONCE = 300

#: So many of those who are here are on the sheet of one tick, from which everybody is told.
SHEET_MOST = 250

#: Of each kind in a message (BEP 11), and addresses that one peer is told of at a time.
MOST = 50
TOLD_MAX = 250

#: Addresses taken of one message. Of one host several may be right (clients behind one address), but who
#: fills a list with the ports of one host wants it to be knocked at.
TAKEN_MAX = 100
PORTS_OF_A_HOST = 4

#: Messages that may come at once, and the time in which one more may come. One a minute is allowed (BEP 11);
#: libtorrent bears six.
BURST = 4
ALLOW_EVERY_S = 30.0

#: What a message beyond that weighs as noise (`Swarm.hear_noise`).
FLOOD_NOISE = 512


def allowance(now: float) -> Allowance:
    """How many messages a new peer may send."""
    return Allowance(BURST, 1 / ALLOW_EVERY_S, now)


class Partner:
    """A peer that exchanges with us."""

    __slots__ = ("allowance", "due_at", "near", "number", "told")

    def __init__(self, number: int, *, near: bool, now: float) -> None:
        self.number = number  # of its messages; 0: it wants none any more
        self.near = near  # it is in our own network
        self.told: dict[Address, None] = {}
        self.due_at = now + FIRST_S
        self.allowance = allowance(now)


class Sheet:
    """Some of those who are here, in an order by lot, and what is said of each: as it is told to some peers.

    Whoever was told nothing yet gets a page of it, which is written once for all of them.
    """

    __slots__ = ("_entries", "_pages", "_turn", "_written")

    def __init__(self, entries: list[tuple[Address, int]]) -> None:
        self._entries = entries
        starts = range(0, max(1, len(entries) - MOST + 1), MOST)  # only whole ones, or the only one
        self._pages = [dict(entries[start : start + MOST]) for start in starts]
        self._written: list[bytes | None] = [None] * len(self._pages)
        self._turn = 0

    def page(self, but: Address | None) -> tuple[Mapping[Address, int], bytes] | None:
        """The next page and its payload. None: there is nobody to tell of, or the page names `but`."""
        self._turn = (self._turn + 1) % len(self._pages)
        page = self._pages[self._turn]
        if not page or but in page:
            return None
        written = self._written[self._turn]
        if written is None:
            written = self._written[self._turn] = pex.PexMessage(page).encode()
        return page, written

    def untold(self, told: Mapping[Address, None], but: Address | None, most: int) -> dict[Address, int]:
        """So many that somebody was not told of."""
        entries = self._entries
        self._turn = (self._turn + 1) % len(self._pages)
        begin = self._turn * MOST  # not all begin with the same ones
        rest = chain(islice(entries, begin, None), islice(entries, begin))
        fresh = ((address, flags) for address, flags in rest if address not in told and address != but)
        return dict(islice(fresh, max(0, most)))


class Exchange:
    """The peer exchange of one torrent."""

    __slots__ = ("_book", "_first", "_later", "_partners", "_private", "_swarm")

    def __init__(self, swarm: Swarm, book: Peerbook, *, private: bool) -> None:
        self._swarm = swarm
        self._book = book
        self._private = private
        self._partners: dict[int, Partner] = {}
        # When who is due, for the first time and again: what does not agree with the partner is out of date.
        self._first: deque[tuple[float, int]] = deque()
        self._later: list[tuple[float, int]] = []

    @property
    def on(self) -> bool:
        """Whether addresses are exchanged at all."""
        return not self._private and self._swarm.settings.peer_exchange

    def agreed(self, peer: Peer, number: int | None, now: float) -> None:
        """The peer says what number its messages have; 0: it wants none, None: it says nothing of it.

        That is remembered while the setting says no, too: it may say yes again.
        """
        partner = self._partners.get(peer.number)
        if number and not self._private:
            if partner is None:
                partner = self._partners[peer.number] = Partner(number, near=is_near(peer.host), now=now)
                self._stand_in_line(partner.due_at, peer.number)
            else:
                partner.number = number
        elif number == 0 and partner is not None:
            # Kept, with what it has used up: else it would be new each time it changes its mind.
            partner.number = 0

    def _stand_in_line(self, due_at: float, number: int) -> None:
        self._first.append((due_at, number))
        if len(self._first) > 2 * len(self._partners) + AT_ONCE:  # most of them have left, unserved
            self._first = deque(entry for entry in self._first if self._is_current(*entry))

    def left(self, peer: Peer) -> None:
        """The peer is gone."""
        self._partners.pop(peer.number, None)

    # ------------------------------------------------------------------------------------- hearing

    def hear(self, peer: Peer, payload: bytes, now: float) -> None:
        """A message. ProtocolError where it is none, and for a flood of them."""
        partner = self._partners.get(peer.number)
        if partner is None or not partner.number or not partner.allowance.take(now):
            self._swarm.hear_noise(peer, FLOOD_NOISE)
            return
        added = pex.PexMessage.decode(payload).added
        credible = credible_from(peer.host, added)
        seeds = {address for address in credible if added[address] & pex.SEED}
        self._book.found(credible, "pex", now, seeds=seeds)

    # ------------------------------------------------------------------------------------- telling

    def tick(self, now: float) -> None:
        """Once a second: tell those whose time has come."""
        if not self.on:
            return
        due = [*islice(self._due_first(now), NEWCOMERS_AT_ONCE), *islice(self._due_later(now), AT_ONCE)]
        if not due:
            return
        everybody, far = self._sheets()
        for number in due:
            peer, partner = self._swarm.peers[number], self._partners[number]
            payload = self._news(peer, partner, everybody if partner.near else far)
            partner.due_at = now + (LOOK_S if payload is None else EVERY_S)
            heappush(self._later, (partner.due_at, number))
            if payload is not None:
                self._swarm.tell(peer, Extended(partner.number, payload))

    def _due_first(self, now: float) -> Iterator[int]:
        first = self._first
        while first and first[0][0] <= now:
            due_at, number = first.popleft()
            if self._is_current(due_at, number):
                yield number

    def _due_later(self, now: float) -> Iterator[int]:
        if len(self._later) > 2 * len(self._partners) + AT_ONCE:  # most of them have left
            self._later = [entry for entry in self._later if self._is_current(*entry)]
            heapify(self._later)
        later = self._later
        while later and later[0][0] <= now:
            due_at, number = heappop(later)
            if self._is_current(due_at, number):
                yield number

    def _is_current(self, due_at: float, number: int) -> bool:
        partner = self._partners.get(number)
        return partner is not None and partner.due_at == due_at

    def _sheets(self) -> tuple[Sheet, Sheet]:
        """Who is told of in this tick: to those in our own network, and to all others."""
        peers = list(self._swarm.peers.values())
        everybody: list[tuple[Address, int]] = []
        far: list[tuple[Address, int]] = []
        for peer in self._swarm.chance.sample(peers, min(len(peers), SHEET_MOST)):
            address = peer.address
            if address is None or peer.web_seed or peer.whole_pieces:
                continue  # not reachable, or not in this protocol
            if read_host(address[0]) is None:
                continue  # means something on this machine only
            flags = pex.SEED if peer.is_seed or peer.upload_only else 0
            entry = (address, flags if peer.incoming else flags | pex.REACHABLE)
            everybody.append(entry)
            if not is_near(address[0]):
                far.append(entry)
        return Sheet(everybody), Sheet(far)

    def _news(self, peer: Peer, partner: Partner, sheet: Sheet) -> bytes | None:
        """What the partner is to hear, as the payload of a message; None: nothing."""
        if not partner.number:
            return None
        told, is_connected = partner.told, self._swarm.attendance.is_connected
        page = None if told else sheet.page(but=peer.address)
        if page is not None:
            partner.told = dict.fromkeys(page[0])
            return page[1]
        dropped = tuple(islice((address for address in told if not is_connected(address)), MOST))
        added = sheet.untold(told, peer.address, min(MOST, TOLD_MAX - len(told)))
        if not added and not dropped:
            return None
        for address in dropped:
            del told[address]
        told.update(dict.fromkeys(added))
        return pex.PexMessage(added, dropped).encode()


def credible_from(host: str, added: Mapping[Address, int]) -> list[Address]:
    """Those addresses of a message of this host that may be tried."""
    near, ports = is_near(host), Counter[str]()
    credible: list[Address] = []
    for address in added:
        if len(credible) >= TAKEN_MAX:
            break
        if not near and is_near(address[0]):
            continue
        ports[address[0]] += 1
        if ports[address[0]] <= PORTS_OF_A_HOST:
            credible.append(address)
    return credible
