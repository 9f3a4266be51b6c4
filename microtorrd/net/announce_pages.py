"""Keep-alives of many torrents in one exchange, where a tracker of the MicroTorr dialect takes such.

A tracker that does says so when it is asked, with the `started` of a torrent (proto.joint). From then on
whoever needs nothing of it but to be kept alive is written on a page, and the schedule has one entry for all
of a page instead of one for each. Rules:
- a page is due no later than the keep-alive of anybody on it would be;
- who has anything else to say leaves his page and says it himself, at his own time;
- whom the tracker does not know leaves, and announces `started`;
- when anything goes wrong the page is torn up and everybody on it says his own `alive` at once, as if there
  were no pages: what is wrong becomes known that way. The tracker gets no new pages for a minute, doubled
  each time, up to an hour; what of its other pages goes wrong meanwhile counts as the same trouble. After
  that torrents ask with their own `alive` whether it still takes pages;
- a tracker that takes none any more, or smaller ones, is believed: who is too much leaves.

Pages are bounded by what the tracker offers (attacker-controlled, and bounded) and by the length of a URL.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from microtorrd.core.tiers import Pacing, Tracker
from microtorrd.errors import TrackerError, TrackerUnreachable
from microtorrd.greenlets import breathe
from microtorrd.net.announce_hosts import Entry, Errand
from microtorrd.net.tracker_client import Heard, Identity, Question
from microtorrd.proto.announce import AnnounceRequest
from microtorrd.proto.joint import ids_that_fit

#: The URL's own parameters, and what of a head is not ids: the rest of 8 KiB is for those.
_HEAD_BYTES = 8192
_BESIDES_BYTES = 800
#: Without new pages after one that went wrong, seconds.
_REST_FIRST_S = 60.0
_REST_MOST_S = 3600.0
#: Trackers remembered for what they offer.
_MOST_OFFERS = 512
#: So many are told at a time that they are on their own, before others get their turn.
_TOLD_AT_ONCE = 50


class Member(Protocol):
    """One swarm id that is kept alive at one tracker."""

    swarm_id: bytes
    page: Page | None

    def kept_alive(self, now: float, due: float) -> None:
        """It was, and will be again by then."""
        ...

    def forgotten(self) -> None:
        """The tracker does not know it: it leaves its page."""
        ...

    def go_alone(self, now: float) -> None:
        """Nobody speaks for it any more: it leaves its page, and its keep-alive is due now."""
        ...


class Client(Protocol):
    """Who announces."""

    def announce(self, question: Question, *, within_s: float | None = None) -> Heard:
        """See TrackerClient."""
        ...


class Schedule(Protocol):
    """What pages need of the schedule."""

    chance: random.Random

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds, of a monotonic clock."""
        ...

    @property
    def client(self) -> Client:
        """Who announces."""
        ...

    def book(self, entry: Entry, due: float | None) -> None:
        """See AnnounceScheduler."""
        ...


class _Offer:
    """What one tracker takes in one request, and the pages there are for it."""

    __slots__ = ("failures", "is_in_doubt", "most", "pages", "rests_until")

    def __init__(self) -> None:
        self.most = 0
        self.failures = 0  # in a row
        self.rests_until = 0.0
        self.is_in_doubt = False  # something went wrong since it was made
        self.pages: list[Page] = []


class Pages:
    """All pages of the session."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._offers: dict[str, _Offer] = {}

    def __len__(self) -> int:
        return sum(len(offer.pages) for offer in self._offers.values())

    def offered(self, url: str, most: int) -> None:
        """A tracker that was asked said of how many swarms one request may be; 0: of one."""
        offer = self._offers.get(url)
        if offer is None:
            if not most or (len(self._offers) >= _MOST_OFFERS and not self._make_room()):
                return
            offer = self._offers[url] = _Offer()
        offer.most = min(most, ids_that_fit(_HEAD_BYTES - _BESIDES_BYTES - len(url)))
        offer.is_in_doubt = False

    def asks_again(self, url: str) -> bool:
        """Whether that tracker is to be asked if its offer still stands: there was trouble, and the rest
        after it is over."""
        offer = self._offers.get(url)
        return offer is not None and offer.is_in_doubt and self._schedule.clock() >= offer.rests_until

    def take(self, member: Member, tracker: Tracker, identity: Identity, pacing: Pacing) -> bool:
        """Write somebody who was heard just now on a page of that tracker; False where it takes none."""
        offer, now = self._offers.get(tracker.url), self._schedule.clock()
        if offer is None or offer.most < 2 or tracker.place is None:
            return False
        if offer.is_in_doubt or now < offer.rests_until:
            return False
        for page in offer.pages:
            if page.takes(member, identity, pacing):
                break
        else:
            page = Page(self._schedule, offer, tracker, identity, pacing)
            offer.pages.append(page)
            page.book(now)
        page.add(member)
        member.kept_alive(now, page.due)
        return True

    def _make_room(self) -> bool:
        idle = next((url for url, offer in self._offers.items() if not offer.pages), None)
        if idle is not None:
            del self._offers[idle]
        return idle is not None


class Page(Entry):
    """Who is kept alive by one request: an entry of the schedule."""

    __slots__ = ("_offer", "_schedule", "due", "identity", "is_out", "members", "pacing", "place", "url")

    def __init__(
        self, schedule: Schedule, offer: _Offer, tracker: Tracker, identity: Identity, pacing: Pacing
    ) -> None:
        super().__init__()
        assert tracker.place is not None  # others are no trackers
        self.members: dict[bytes, Member] = {}
        self.url = tracker.url
        self.place = tracker.place
        self.identity = identity
        self.pacing = pacing
        self.due = 0.0
        self.is_out = False  # its request is under way, or waits for room at the host
        self._schedule = schedule
        self._offer = offer

    def takes(self, member: Member, identity: Identity, pacing: Pacing) -> bool:
        """Whether there is room for it, by the same peer and at the same pace. Not while it is out: then
        nobody knows when it is due again."""
        return (
            not self.is_out
            and len(self.members) < self._offer.most
            and member.swarm_id not in self.members
            and self.identity == identity
            and self.pacing is pacing
        )

    def add(self, member: Member) -> None:
        """Write somebody down."""
        self.members[member.swarm_id] = member
        member.page = self

    def remove(self, member: Member) -> None:
        """Cross somebody out."""
        del self.members[member.swarm_id]
        member.page = None
        if not self.members:
            self._end()

    def book(self, now: float) -> None:
        """Settle when it is due next: a little early and never late, as the dialect's single keep-alives."""
        self.due = now + self.pacing.alive_s * self._schedule.chance.uniform(0.9, 1.0)
        self._schedule.book(self, self.due)

    def call(self, now: float) -> Errand | None:
        """Entry: its time has come."""
        self.is_out = True
        most = self._offer.most if self._offer.most > 1 else 0
        for member in list(self.members.values())[most:]:
            member.go_alone(now)
        return _JointAlive(self) if self.members else None

    def send(self, within_s: float | None) -> str | None:
        """Keep everybody alive who is on it now. Says why when the tracker could not be reached."""
        asked = list(self.members.values())
        if not asked:
            self.is_out = False
            return None
        request = AnnounceRequest(
            swarm_id=b"",
            swarm_ids=tuple(self.members),
            peer_id=self.identity.peer_id,
            port=self.identity.port,
            event="alive",
        )
        try:
            heard = self._schedule.client.announce(
                Question(self.url, self.place, "microtorr", request), within_s=within_s
            )
        except TrackerError as error:
            self.tear()
            return str(error) if isinstance(error, TrackerUnreachable) else None
        self._answered(asked, frozenset(heard.reply.unknown))
        return None

    def tear(self) -> None:
        """It went wrong: everybody on his own."""
        offer, now = self._offer, self._schedule.clock()
        if now >= offer.rests_until:  # else it is the same trouble, which meets one page after the other
            offer.rests_until = now + min(_REST_MOST_S, _REST_FIRST_S * 2.0 ** min(offer.failures, 10))
            offer.failures += 1
            offer.is_in_doubt = True
        self.is_out = True  # for good
        for member in list(self.members.values()):
            member.go_alone(now)

    def _answered(self, asked: list[Member], unknown: frozenset[bytes]) -> None:
        self.is_out = False
        self._offer.failures, self._offer.rests_until, self._offer.is_in_doubt = 0, 0.0, False
        if not self.members:
            return
        now = self._schedule.clock()
        self.book(now)
        forgotten = []
        for member in asked:
            if member.page is not self:
                continue
            if member.swarm_id in unknown:
                forgotten.append(member)
            else:
                member.kept_alive(now, self.due)
        for number, member in enumerate(forgotten, 1):
            if member.page is self:
                member.forgotten()
            if number % _TOLD_AT_ONCE == 0:
                breathe()
        self._merge(now)

    def _merge(self, now: float) -> None:
        """Go over to another page, if this one is half empty and that one has room for all of it."""
        if len(self.members) * 2 > self._offer.most:
            return
        for other in self._offer.pages:
            fits = len(self.members) + len(other.members) <= self._offer.most
            if other is self or not fits:
                continue
            movers = list(self.members.values())
            if all(other.takes(member, self.identity, self.pacing) for member in movers):
                for member in movers:
                    self.remove(member)
                    other.add(member)
                    member.kept_alive(now, other.due)
                return

    def _end(self) -> None:
        self._offer.pages.remove(self)
        self._schedule.book(self, None)


class _JointAlive:
    """The request of a page, as an errand of the schedule (`announce_hosts.Errand`)."""

    __slots__ = ("_page", "is_cancelled", "is_farewell", "is_metered", "is_urgent", "place")

    def __init__(self, page: Page) -> None:
        self._page = page
        self.place = page.place
        # Like single keep-alives it goes without meter: its time is fixed.
        self.is_cancelled = self.is_farewell = self.is_metered = self.is_urgent = False

    def run(self, within_s: float | None) -> str | None:
        return self._page.send(within_s)

    def skip(self, message: str) -> None:
        """The service is known to be out of reach: everybody hears that himself."""
        self._page.tear()
