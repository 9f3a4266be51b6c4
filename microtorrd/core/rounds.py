"""The announces of one swarm id in one dialect: whom to ask next, when, and with which event.

Rules:
- at most one announce is under way (a `Turn`); each begins at the top of the tiers (BEP 12);
- a tracker hears `started` first, and nothing but `started` until it has acknowledged it;
- one that answers decides when the next announce is due; one that fails rests, and the next is asked at once;
- `completed` is heard once, by the tracker that is answering at the time;
- once closed, only farewells are left: one to each tracker that acknowledged a `started` (or may have).

Pure: knows no URLs' contents, sockets or clocks. `due` says when `turn` should be called again.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

from microtorrd.core.tiers import Dialect, Fault, Pacing, Tiers, Tracker

#: `regular` is `alive` in the MicroTorr dialect, and an announce without event in the BitTorrent one.
Event = Literal["started", "regular", "completed", "stopped"]


class Turn(NamedTuple):
    """One announce: to whom, and what about."""

    tracker: Tracker
    event: Event


class Answer(NamedTuple):
    """What a tracker's reply says about announcing. Attacker-controlled: bounds are applied here."""

    interval_s: float | None = None
    min_interval_s: float | None = None
    seeders: int | None = None
    leechers: int | None = None
    peers: int | None = None  # how many addresses the reply held; None where it could hold none
    tracker_id: bytes | None = None
    warning: str = ""


#: How the other dialect of the torrent does, if there is one: what decides how bad a refusal of this one is.
Others = Literal["work", "undecided", "fail"]


class Rounds:
    """One swarm id's way through its trackers."""

    __slots__ = (
        "_chance",
        "_complete",
        "_hurried",
        "_last_word",
        "_pacing",
        "_under_way",
        "closed",
        "dialect",
        "due",
        "tiers",
    )

    def __init__(
        self, tiers: Sequence[Sequence[str]], dialect: Dialect, *, pacing: Pacing, chance: random.Random
    ) -> None:
        self.dialect = dialect
        self.tiers = Tiers(tiers, dialect)
        self.due: float | None = None
        self.closed = False
        self._pacing = pacing
        self._chance = chance
        self._under_way: Turn | None = None
        self._complete = False  # a `completed` is owed
        self._hurried = False  # somebody wants peers, not only to be remembered
        self._last_word: Literal["stopped", "completed"] = "stopped"

    def outlook(self, url: str) -> Others:
        """How this dialect does at that tracker, as seen by the other one."""
        tracker = next((tracker for tracker in self.tiers if tracker.url == url), None)
        if tracker is None or tracker.place is None or self.closed:
            return "fail"
        if tracker.registered and tracker.fault is None:
            return "work"
        return "undecided" if tracker.last_at is None else "fail"

    def begin(self, now: float, delay_s: float = 0.0) -> None:
        """Announce from now on; the first one after `delay_s`."""
        self.due = None if self.tiers.next_try() is None else now + delay_s

    def turn(self, now: float) -> Turn | None:
        """What to do now that it is due. None: nothing, and `due` has moved."""
        if self.closed or self._under_way is not None:
            self.due = None
            return None
        tracker = self.tiers.candidate(now)
        if tracker is None:
            self.due = self.tiers.next_try()
            return None
        tracker.announcing = True
        self._under_way = Turn(tracker, self._event_for(tracker, now))
        self.due = None
        return self._under_way

    def answered(self, turn: Turn, answer: Answer, now: float) -> None:
        """The tracker answered well."""
        tracker = turn.tracker
        self._settle(turn, now)
        tracker.heard_at = now
        tracker.failures, tracker.fault, tracker.tolerated = 0, None, False
        tracker.retry_at, tracker.asked = -math.inf, False
        tracker.message = answer.warning
        tracker.interval_s, tracker.min_interval_s = answer.interval_s, answer.min_interval_s
        tracker.tracker_id = answer.tracker_id or tracker.tracker_id
        for name in ("seeders", "leechers", "peers"):
            if (value := getattr(answer, name)) is not None:
                setattr(tracker, name, value)
        tracker.registered = True
        self.tiers.promote(tracker)
        if turn.event == "completed":
            self._complete = False
        if not self.closed:
            self.due = now + (0.0 if self._complete else self._interval_s(answer))

    def failed(
        self, turn: Turn, fault: Fault, message: str, now: float, *, retry_s: float | None, others: Others
    ) -> bool:
        """It came to nothing. True when this is news: the tracker was not failing before.

        `retry_s` is the tracker's own wish (infinite: never again). Where the other dialect works, one that
        is not understood is no trouble and is tried rarely; where that is not known yet, judgement waits.
        """
        tracker = turn.tracker
        self._settle(turn, now)
        if fault == "unknown_peer" and turn.event == "regular":
            tracker.registered = False
            self.due = None if self.closed else now
            return False
        news = not tracker.failing
        tracker.failures += 1
        tracker.fault, tracker.message = fault, message
        tracker.tolerated = fault == "refused" and others != "fail"
        wait_s = self._pacing.backoff_s(
            tracker.failures, rarely=tracker.tolerated and others == "work", chance=self._chance
        )
        tracker.asked = retry_s is not None
        if retry_s is not None:
            wait_s = max(
                wait_s, retry_s if math.isinf(retry_s) else min(retry_s, self._pacing.longest_interval_s)
            )
        tracker.retry_at = now + wait_s
        if self.closed:
            tracker.registered = tracker.registered and fault != "unreachable"  # no use in a second try
        else:
            self.due = now if self.tiers.candidate(now) is not None else self.tiers.next_try()
        return news and tracker.failing

    def may_share(self, tracker: Tracker) -> bool:
        """Whether nothing is ahead but keep-alives, and all of them to this tracker: then others may send
        them along with theirs. What puts an end to that sets `due`."""
        idle = not (self.closed or self._under_way or self._hurried)
        return (
            idle
            and self.dialect == "microtorr"
            and tracker.registered
            and tracker.fault is None
            and self.tiers.top is tracker
        )

    def kept_alive(self, tracker: Tracker, now: float, due: float) -> None:
        """A keep-alive that others sent along went well; the next one is due then."""
        tracker.last_at = tracker.heard_at = now
        self.due = due

    def wants_scrape(self, tracker: Tracker, now: float) -> bool:
        """Whether a tracker that has just answered may be scraped, too: it knows figures that it does not say
        in announces. True books it: one scrape, and none for `scrape_s`."""
        if self.closed or self.dialect != "bittorrent" or tracker.scrape_at > now:
            return False
        tracker.scrape_at = now + self._pacing.scrape_s * self._chance.uniform(1.0, 1.1)
        return True

    def scraped(self, tracker: Tracker, *, seeders: int, leechers: int, downloaded: int) -> None:
        """The tracker told its figures."""
        tracker.scrape_failures = 0
        tracker.seeders, tracker.leechers, tracker.downloaded = seeders, leechers, downloaded

    def not_scraped(self, tracker: Tracker, now: float) -> None:
        """It did not. That is no fault of a tracker, and nothing that it is left alone for; but the next one
        is later each time."""
        tracker.scrape_failures += 1
        wait_s = self._pacing.scrape_s * 2.0 ** min(tracker.scrape_failures, 30)
        tracker.scrape_at = now + min(wait_s, self._pacing.longest_interval_s)

    def dropped(self, turn: Turn) -> None:
        """The announce was called off before it began: as if it had never been due."""
        turn.tracker.announcing = False
        if self._under_way is turn:
            self._under_way = None

    def complete(self, now: float) -> None:
        """The content became whole: say so, once."""
        self._complete = True
        if not self.closed and self._under_way is None and self.due is not None:
            self.due = min(self.due, now)

    def hurry(self, now: float, *, insist: bool = False) -> None:
        """Somebody wants peers now: as soon as the trackers' minimum and our own allow it.

        Who insists cuts back-offs of our own making short; those that a tracker asked for stand.
        """
        if self.closed or self._under_way is not None:
            return
        self._hurried = True
        for tracker in self.tiers:
            if insist and tracker.failing and not tracker.asked and tracker.last_at is not None:
                tracker.retry_at = min(tracker.retry_at, tracker.last_at + self._pacing.hurry_s)
        first = self.tiers.candidate(now)
        if first is None:
            self.due = self.tiers.next_try()
            return
        soonest = now
        if first.last_at is not None:
            soonest = max(now, first.last_at + max(self._pacing.hurry_s, first.min_interval_s or 0.0))
        self.due = soonest if self.due is None else min(self.due, soonest)

    def close(self, last_word: Literal["stopped", "completed"] = "stopped") -> None:
        """No more announces; what is under way goes on. `farewells` says what is left to do."""
        self._last_word = last_word
        self.closed, self.due = True, None

    def farewells(self) -> list[Turn]:
        """After `close`, and again after the end of what was under way: the farewells not handed out yet."""
        turns = []
        for tracker in self.tiers:
            if tracker.registered and not tracker.announcing:
                tracker.announcing = True
                # Who became whole says so before he leaves.
                owes_completed = self._complete and self.dialect == "bittorrent"
                self._complete = False
                turns.append(Turn(tracker, "completed" if owes_completed else self._last_word))
        return turns

    def parted(self, turn: Turn, *, reached: bool) -> None:
        """The farewell was sent, or given up: either way it is over (but see `farewells` again)."""
        turn.tracker.announcing = False
        if turn.event == self._last_word or not reached:
            turn.tracker.registered = False

    def next_for(self, tracker: Tracker) -> float | None:
        """When this tracker's turn comes, as things stand; None while others are asked instead."""
        if self.due is None or tracker.place is None:
            return None
        if tracker.retry_at > self.due:
            return None if math.isinf(tracker.retry_at) else tracker.retry_at
        return self.due if self.tiers.candidate(self.due) is tracker else None

    def _event_for(self, tracker: Tracker, now: float) -> Event:
        if self.dialect == "microtorr":
            silence_s = math.inf if tracker.heard_at is None else now - tracker.heard_at
            if silence_s > self._pacing.forgotten_s:
                tracker.registered = False
            # Only `started` is answered with the peers.
            return "started" if self._hurried or not tracker.registered else "regular"
        if not tracker.registered:
            return "started"
        return "completed" if self._complete else "regular"

    def _interval_s(self, answer: Answer) -> float:
        """Until the next announce after a good one."""
        pacing = self._pacing
        if self.dialect == "microtorr":
            # A little early and never late: it forgets us after two of these.
            return pacing.alive_s * self._chance.uniform(0.9, 1.0)
        wanted = max(answer.interval_s or pacing.default_interval_s, answer.min_interval_s or 0.0)
        wanted = min(max(wanted, pacing.shortest_interval_s), pacing.longest_interval_s)
        # A little late and never early: that keeps torrents which started together from staying together.
        return wanted * self._chance.uniform(1.0, 1.05)

    def _settle(self, turn: Turn, now: float) -> None:
        turn.tracker.announcing = False
        turn.tracker.last_at = now
        if self._under_way is turn:
            self._under_way = None
        self._hurried = False
