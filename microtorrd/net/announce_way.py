"""One swarm id of a torrent on its way through the trackers, in one dialect.

A `Way` joins the rounds (core.rounds: what to do next) with the schedule (when) and the client (how). While
nothing is due it is an entry of the schedule; a turn of the rounds becomes an errand there, and what came of
it goes back to the rounds first and is told to the torrent after that.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from msgspec import Struct

from microtorrd.core.events import Address
from microtorrd.core.rounds import Answer, Others, Rounds, Turn
from microtorrd.core.tiers import Dialect, Fault, Pacing, Place, Tracker
from microtorrd.errors import DialectRefused, PeerForgotten, TrackerError, TrackerUnreachable
from microtorrd.net.announce_hosts import Entry, Errand
from microtorrd.net.announce_pages import Page
from microtorrd.net.announce_schedule import AnnounceScheduler
from microtorrd.net.tracker_client import Heard, Identity, Question
from microtorrd.proto.announce import AnnounceRequest, Event
from microtorrd.proto.tracker_reply import NOT_IN_SWARM

#: Peers asked for: enough for a torrent that has none, few enough for a datagram.
NUMWANT = 50


class AnnounceStats(Struct, frozen=True):
    """What a tracker is told of the progress, in bytes."""

    uploaded: int
    downloaded: int
    left: int
    wants_nothing: bool = False  # although something is left: a partial seed (BEP 21)


class Listener(Protocol):
    """Whose announces these are: a torrent, or what is to become one. One object instead of three functions,
    because there are thousands."""

    def announce_stats(self) -> AnnounceStats:
        """What to tell a tracker."""
        ...

    def hear_of(self, addresses: list[Address]) -> None:
        """A tracker knows peers."""
        ...

    def hear_tracker(self, kind: str, facts: dict[str, Any]) -> None:
        """A tracker answered, or has begun to fail."""
        ...


class Owner(Protocol):
    """The announcer whose ways these are."""

    scheduler: AnnounceScheduler
    identity: Identity
    listener: Listener
    pacing: Pacing
    trackers: tuple[
        tuple[str, ...], ...
    ]  # drawn once for all dialects, so that both talk to the same tracker

    def outlook_beside(self, way: Way, url: str) -> Others:
        """How the other dialect does at that tracker."""
        ...

    def leave(self, way: Way) -> None:
        """Send the farewells that this way owes."""
        ...

    def left(self, farewell: Farewell) -> None:
        """A farewell is over."""
        ...


class Way(Entry):
    """One swarm id in one dialect: the rounds, and their entry in the schedule."""

    __slots__ = ("call_errand", "owner", "page", "rounds", "scrape_errand", "swarm_id")

    def __init__(self, owner: Owner, dialect: Dialect, swarm_id: bytes) -> None:
        super().__init__()
        self.owner = owner
        self.swarm_id = swarm_id
        self.rounds = Rounds(owner.trackers, dialect, pacing=owner.pacing, chance=owner.scheduler.chance)
        self.call_errand: _Call | None = None  # the announce that waits or is under way
        self.scrape_errand: _Scrape | None = None  # and the scrape
        self.page: Page | None = None  # on which others keep it alive; it is not booked itself then

    def begin(self) -> None:
        scheduler = self.owner.scheduler
        now = scheduler.clock()
        first = self.rounds.tiers.candidate(now)
        if first is not None and first.place is not None:
            self.rounds.begin(now, scheduler.first_delay(first.place))
            self.rebook()

    def rebook(self) -> None:
        if self.page is not None:
            self.page.remove(self)
        self.owner.scheduler.book(self, self.rounds.due)

    def call(self, now: float) -> Errand | None:
        turn = self.rounds.turn(now)
        if turn is None:
            self.rebook()
            return None
        self.call_errand = _Call(self, turn)
        return self.call_errand

    def close(self, last_word: Literal["stopped", "completed"]) -> None:
        if self.rounds.closed:
            return
        self.rounds.close(last_word)
        if self.call_errand is not None and not self.call_errand.is_running:
            self.owner.scheduler.cancel(self.call_errand)
            self.rounds.dropped(self.call_errand.turn)
            self.call_errand = None
        if self.scrape_errand is not None and not self.scrape_errand.is_running:
            self.owner.scheduler.cancel(self.scrape_errand)
            self.scrape_errand = None
        self.rebook()
        self.owner.leave(self)

    def question(self, turn: Turn) -> Question:
        """The announce in words."""
        tracker, event = turn
        place = tracker.place
        assert place is not None  # such trackers get no turn
        identity, stats = self.owner.identity, self.owner.listener.announce_stats()
        request = AnnounceRequest(
            swarm_id=self.swarm_id,
            peer_id=identity.peer_id,
            port=identity.port,
            event=_word(event, self.rounds.dialect),
            uploaded=stats.uploaded,
            downloaded=stats.downloaded,
            left=stats.left,
            paused=stats.wants_nothing,
            numwant=0 if event == "stopped" else NUMWANT,
            no_peer_id=True,
            key=f"{identity.key:08x}",
            tracker_id=tracker.tracker_id or b"",
            asks_joint=event == "started"
            or (event == "regular" and self.owner.scheduler.pages.asks_again(tracker.url)),
        )
        return Question(tracker.url, place, self.rounds.dialect, request)

    # -------------------------------------------------------------------- on a page (announce_pages.Member)

    def kept_alive(self, now: float, due: float) -> None:
        tracker = self.rounds.tiers.top
        assert tracker is not None  # as long as it is on a page
        self.rounds.kept_alive(tracker, now, due)

    def forgotten(self) -> None:
        tracker = self.rounds.tiers.top
        assert tracker is not None
        self.failed(Turn(tracker, "regular"), PeerForgotten(NOT_IN_SWARM))

    def go_alone(self, now: float) -> None:
        self.rounds.due = now
        self.rebook()

    # ------------------------------------------------------------------------------- what came of a turn

    def answered(self, turn: Turn, heard: Heard, *, asked_joint: bool) -> None:
        tracker, reply = turn.tracker, heard.reply
        recovered = tracker.failing
        self.rounds.answered(
            turn,
            Answer(
                interval_s=reply.interval,
                min_interval_s=reply.min_interval,
                seeders=reply.complete,
                leechers=reply.incomplete,
                peers=len(heard.addresses) if reply.peers or turn.event == "started" else None,
                tracker_id=reply.tracker_id or None,
                warning=reply.warning,
            ),
            self.owner.scheduler.clock(),
        )
        self._over()
        # A keep-alive that went well, four times a minute, is no news.
        if recovered or turn.event != "regular" or self.rounds.dialect == "bittorrent":
            self.owner.listener.hear_tracker(
                "tracker_announced",
                {
                    **_named(tracker),
                    "event": _word(turn.event, self.rounds.dialect),
                    "peers": len(heard.addresses),
                    "seeders": reply.complete,
                    "leechers": reply.incomplete,
                    "interval_s": reply.interval,
                    "external_ip": reply.external_ip,
                    "message": reply.warning,
                },
            )
        if heard.addresses and not self.rounds.closed:
            self.owner.listener.hear_of(heard.addresses)
        if self.rounds.dialect == "bittorrent":
            self._scrape(turn)
        else:
            self._share(tracker, reply.joint if asked_joint else None)

    def _share(self, tracker: Tracker, most: int | None) -> None:
        """Let others send our keep-alives along, where the tracker takes such; `most` is what it said of that
        when it was asked."""
        pages, owner = self.owner.scheduler.pages, self.owner
        if most is not None:
            pages.offered(tracker.url, most)
        may = self.page is None and self.rounds.may_share(tracker)
        if may and pages.take(self, tracker, owner.identity, owner.pacing):
            owner.scheduler.book(self, None)

    def _scrape(self, turn: Turn) -> None:
        """Ask for the figures, too, unless many wait to be sent there: then after the next announce."""
        scheduler, place = self.owner.scheduler, turn.tracker.place
        if self.scrape_errand is not None or place is None or not scheduler.is_calm(place):
            return
        if self.rounds.wants_scrape(turn.tracker, scheduler.clock()):
            self.scrape_errand = _Scrape(self, turn)
            scheduler.submit(self.scrape_errand)

    def failed(self, turn: Turn, error: TrackerError, *, asked: bool = True) -> None:
        """It came to nothing; not `asked`: it was known that the service is out of reach."""
        is_news = self.rounds.failed(
            turn,
            _fault(error),
            str(error),
            self.owner.scheduler.clock(),
            retry_s=error.retry_s,
            others=self.owner.outlook_beside(self, turn.tracker.url),
        )
        self._over()
        if is_news and not self.rounds.closed:
            facts = {**_named(turn.tracker), "message": str(error), "asked": asked}
            self.owner.listener.hear_tracker("tracker_failed", facts)

    def _over(self) -> None:
        """The state is settled before anybody is told of it."""
        self.call_errand = None
        if self.rounds.closed:
            self.owner.leave(self)
        else:
            self.rebook()


class _OfTurn:
    """A turn of the rounds as an errand of the schedule (`announce_hosts.Errand`): what all kinds have."""

    __slots__ = (
        "is_cancelled",
        "is_farewell",
        "is_metered",
        "is_running",
        "is_urgent",
        "place",
        "turn",
        "way",
    )

    def __init__(self, way: Way, turn: Turn) -> None:
        assert turn.tracker.place is not None
        self.way = way
        self.turn = turn
        self.place: Place = turn.tracker.place
        self.is_cancelled = self.is_farewell = self.is_metered = self.is_running = self.is_urgent = False


class _Call(_OfTurn):
    """An announce."""

    __slots__ = ()

    def __init__(self, way: Way, turn: Turn) -> None:
        super().__init__(way, turn)
        self.is_urgent = turn.event == "completed"
        # The times of keep-alives are fixed by their dialect: delayed, they would keep nothing alive.
        self.is_metered = not self.is_urgent and not (
            turn.event == "regular" and way.rounds.dialect == "microtorr"
        )

    def run(self, within_s: float | None) -> str | None:
        self.is_running = True
        question = self.way.question(self.turn)
        try:
            heard = self.way.owner.scheduler.client.announce(question, within_s=within_s)
        except TrackerError as error:
            self.way.failed(self.turn, error)
            return str(error) if isinstance(error, TrackerUnreachable) else None
        self.way.answered(self.turn, heard, asked_joint=question.request.asks_joint)
        return None

    def skip(self, message: str) -> None:
        self.way.failed(self.turn, TrackerUnreachable(message), asked=False)


class _Scrape(_OfTurn):
    """Asking a tracker that answered for its figures. Whatever comes of it, announces go on."""

    __slots__ = ()

    def __init__(self, way: Way, turn: Turn) -> None:
        super().__init__(way, turn)
        self.is_metered = True

    def run(self, within_s: float | None) -> str | None:
        self.is_running = True
        way, tracker = self.way, self.turn.tracker
        try:
            counts = way.owner.scheduler.client.scrape(way.question(self.turn))
        except TrackerError:
            way.rounds.not_scraped(tracker, way.owner.scheduler.clock())
        else:
            way.rounds.scraped(
                tracker,
                seeders=counts.complete,
                leechers=counts.incomplete,
                downloaded=counts.downloaded,
            )
            facts = {
                "seeders": counts.complete,
                "leechers": counts.incomplete,
                "downloaded": counts.downloaded,
            }
            way.owner.listener.hear_tracker("tracker_scraped", {**_named(tracker), **facts})
        finally:
            way.scrape_errand = None
        # A tracker may not answer scrapes at all, and still be well.
        return None

    def skip(self, message: str) -> None:
        self.way.scrape_errand = None
        self.way.rounds.not_scraped(self.turn.tracker, self.way.owner.scheduler.clock())


class Farewell(_OfTurn):
    """The last word to one tracker. One try: whatever comes of it, it is over."""

    __slots__ = ()

    def __init__(self, way: Way, turn: Turn) -> None:
        super().__init__(way, turn)
        self.is_farewell = True
        # A MicroTorr tracker forgets us in half a minute anyway: when time is short, the others go first.
        self.is_urgent = way.rounds.dialect == "bittorrent"

    def run(self, within_s: float | None) -> str | None:
        self.is_running = True
        unreached = None
        try:
            self.way.owner.scheduler.client.announce(self.way.question(self.turn), within_s=within_s)
        except TrackerUnreachable as error:
            unreached = str(error)
        except TrackerError:
            # It does not want our farewell: we part all the same.
            unreached = None
        self._over(reached=unreached is None)
        return unreached

    def skip(self, message: str) -> None:
        self._over(reached=False)

    def _over(self, *, reached: bool) -> None:
        self.way.rounds.parted(self.turn, reached=reached)
        self.way.owner.leave(self.way)
        self.way.owner.left(self)


def _word(event: str, dialect: Dialect) -> Event:
    """The event as the dialect spells it."""
    if event == "regular":
        return "alive" if dialect == "microtorr" else ""
    words: dict[str, Event] = {"started": "started", "completed": "completed", "stopped": "stopped"}
    return words[event]


def _fault(error: TrackerError) -> Fault:
    if isinstance(error, TrackerUnreachable):
        return "unreachable"
    if isinstance(error, DialectRefused):
        return "refused"
    return "unknown_peer" if isinstance(error, PeerForgotten) else "failed"


def _named(tracker: Tracker) -> dict[str, Any]:
    return {"url": tracker.url, "tier": tracker.tier, "dialect": tracker.dialect}
