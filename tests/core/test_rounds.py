"""Rounds: whom to ask next, when, and with which event. Time is a number, chance is seeded."""

from __future__ import annotations

import math
import random
from typing import Any, Literal

import pytest

from microtorrd.core.rounds import Answer, Event, Others, Rounds, Turn
from microtorrd.core.tiers import Fault, Pacing


class Trip:
    """Rounds with a clock: `ask` goes to the next turn, `yes` and `no` say what came of it."""

    def __init__(self, picture: str, dialect: Literal["microtorr", "bittorrent"] = "bittorrent") -> None:
        tiers = [[f"http://{name}/announce" for name in tier.split()] for tier in picture.split("|")]
        self.rounds = Rounds(tiers, dialect, pacing=Pacing(), chance=random.Random(7))
        self.now = 1000.0
        self.turn: Turn | None = None
        self.rounds.begin(self.now)

    def ask(self) -> tuple[str, Event]:
        """Wait until something is due; who is asked, and what about."""
        while True:
            assert self.rounds.due is not None
            self.now = max(self.now, self.rounds.due)
            self.turn = self.rounds.turn(self.now)
            if self.turn is not None:
                return self.turn.tracker.url.split("/")[2], self.turn.event

    def yes(self, **answer: Any) -> None:
        assert self.turn is not None
        self.rounds.answered(self.turn, Answer(**answer), self.now)

    def no(
        self, fault: Fault = "unreachable", *, retry_s: float | None = None, others: Others = "fail"
    ) -> bool:
        assert self.turn is not None
        return self.rounds.failed(self.turn, fault, "why", self.now, retry_s=retry_s, others=others)

    def outlook(self, name: str) -> Others:
        return self.rounds.outlook(f"http://{name}/announce")

    @property
    def wait_s(self) -> float:
        assert self.rounds.due is not None
        return self.rounds.due - self.now

    def state(self, name: str) -> str:
        return next(t.state for t in self.rounds.tiers if t.url == f"http://{name}/announce")


def test_started_until_acknowledged_then_the_interval_of_the_tracker() -> None:
    trip = Trip("a")
    assert trip.ask() == ("a", "started")
    assert trip.state("a") == "announcing"
    trip.no()
    assert trip.state("a") == "failing"
    assert trip.ask() == ("a", "started")
    trip.yes(interval_s=600)
    assert trip.state("a") == "working"
    assert 600 <= trip.wait_s <= 630
    assert trip.ask() == ("a", "regular")


@pytest.mark.parametrize(
    ("answer", "low", "high"),
    [
        ({}, 1800, 1890),
        ({"interval_s": 60, "min_interval_s": 900}, 900, 945),
        ({"interval_s": 1}, 5, 5.25),
        ({"interval_s": 10**12}, 86_400, 90_720),
    ],
)
def test_no_tracker_sets_an_interval_that_hurts(answer: dict[str, int], low: float, high: float) -> None:
    trip = Trip("a")
    trip.ask()
    trip.yes(**answer)
    assert low <= trip.wait_s <= high


def test_the_next_tracker_is_asked_at_once_and_the_next_announce_begins_at_the_top() -> None:
    trip = Trip("a | b | c")
    assert trip.ask() == ("a", "started")
    trip.no()
    assert trip.wait_s == 0
    assert trip.ask() == ("b", "started")
    trip.yes(interval_s=600)
    assert trip.wait_s >= 600
    assert trip.ask() == ("a", "started")
    trip.no()
    assert trip.ask() == ("b", "regular")


def test_when_all_rest_the_one_that_wakes_first_is_next() -> None:
    trip = Trip("a | b")
    trip.ask()
    trip.no(retry_s=300)
    trip.ask()
    trip.no(retry_s=100)
    assert trip.wait_s == 100
    assert trip.ask() == ("b", "started")


def test_the_wish_of_the_tracker_outlasts_our_back_off_but_not_a_day() -> None:
    trip = Trip("a")
    trip.ask()
    trip.no("failed", retry_s=10**9)
    assert trip.wait_s == 86_400
    trip.ask()
    trip.no("failed", retry_s=math.inf)
    assert trip.rounds.due is None


def test_failing_is_news_once_and_again_after_a_good_time() -> None:
    trip = Trip("a")
    trip.ask()
    assert trip.no() is True
    trip.ask()
    assert trip.no() is False
    trip.ask()
    trip.yes()
    trip.ask()
    assert trip.no() is True


def test_completed_is_said_once_and_at_once() -> None:
    trip = Trip("a")
    trip.ask()
    trip.yes()
    trip.rounds.complete(trip.now + 10)
    assert trip.ask() == ("a", "completed")
    assert trip.now == 1010
    trip.no()
    assert trip.ask() == ("a", "completed")
    trip.yes()
    assert trip.ask() == ("a", "regular")


def test_completed_follows_a_started_that_is_still_on_its_way() -> None:
    trip = Trip("a")
    trip.ask()
    trip.rounds.complete(trip.now)
    trip.yes(interval_s=600)
    assert trip.wait_s == 0
    assert trip.ask() == ("a", "completed")


def test_a_leaver_says_completed_before_stopped() -> None:
    trip = Trip("a")
    trip.ask()
    trip.yes()
    trip.rounds.complete(trip.now)
    trip.rounds.close()
    (farewell,) = trip.rounds.farewells()
    assert farewell.event == "completed"
    trip.rounds.parted(farewell, reached=True)
    (farewell,) = trip.rounds.farewells()
    assert farewell.event == "stopped"
    trip.rounds.parted(farewell, reached=True)
    assert trip.rounds.farewells() == []


def test_stopped_goes_only_to_those_who_acknowledged_started() -> None:
    trip = Trip("a | b | c")
    trip.ask()
    trip.no()
    trip.ask()
    trip.yes()
    trip.rounds.close()
    assert trip.rounds.due is None
    farewells = trip.rounds.farewells()
    assert [(turn.tracker.url, turn.event) for turn in farewells] == [("http://b/announce", "stopped")]
    assert trip.rounds.farewells() == []  # handed out once
    assert trip.rounds.turn(trip.now + 9999) is None


def test_a_started_that_is_answered_after_the_stop_is_taken_back() -> None:
    trip = Trip("a")
    trip.ask()
    trip.rounds.close()
    assert trip.rounds.farewells() == []
    trip.yes()
    assert [turn.event for turn in trip.rounds.farewells()] == ["stopped"]
    assert trip.rounds.due is None


def test_a_tracker_that_is_gone_gets_no_farewell() -> None:
    trip = Trip("a")
    trip.ask()
    trip.yes()
    trip.ask()
    trip.rounds.close()
    trip.no()
    assert trip.rounds.farewells() == []


def test_keep_alives_come_every_15_seconds_and_never_late() -> None:
    trip = Trip("a", "microtorr")
    assert trip.ask() == ("a", "started")
    trip.yes(interval_s=1800)
    for _ in range(20):
        assert 13.5 <= trip.wait_s <= 15
        assert trip.ask() == ("a", "regular")
        trip.yes()


def test_who_is_forgotten_announces_started_at_once_and_nothing_failed() -> None:
    trip = Trip("a", "microtorr")
    trip.ask()
    trip.yes()
    trip.ask()
    assert trip.no("unknown_peer") is False
    assert trip.wait_s == 0
    assert trip.ask() == ("a", "started")
    assert trip.no("unknown_peer") is True  # to `started` that is no answer
    assert trip.wait_s >= 5


def test_after_a_silence_longer_than_its_memory_the_tracker_hears_started() -> None:
    trip = Trip("a", "microtorr")
    trip.ask()
    trip.yes()
    trip.ask()
    trip.no(retry_s=60)
    assert trip.ask() == ("a", "started")


def test_hurrying_keeps_the_minimum_of_the_tracker_and_our_own() -> None:
    trip = Trip("a")
    trip.ask()
    trip.yes(interval_s=1800, min_interval_s=60)
    trip.rounds.hurry(trip.now + 1)
    assert trip.wait_s == 60
    assert trip.ask() == ("a", "regular")
    trip.yes(interval_s=1800)
    trip.rounds.hurry(trip.now + 1)
    trip.rounds.hurry(trip.now + 2)
    assert trip.wait_s == 5
    trip.ask()
    trip.yes()
    trip.rounds.hurry(trip.now + 700)
    assert trip.wait_s == 700


def test_in_the_microtorr_dialect_only_started_brings_peers() -> None:
    trip = Trip("a", "microtorr")
    trip.ask()
    trip.yes()
    trip.rounds.hurry(trip.now + 6)
    assert trip.wait_s == 6
    assert trip.ask() == ("a", "started")
    trip.yes()
    assert trip.ask() == ("a", "regular")


def test_only_who_insists_cuts_a_back_off_short_and_never_the_tracker_s_own() -> None:
    trip = Trip("a")
    for _ in range(8):
        trip.ask()
        trip.no()
    assert trip.wait_s > 300
    trip.rounds.hurry(trip.now + 30)
    assert trip.wait_s > 300
    trip.rounds.hurry(trip.now + 30, insist=True)
    assert trip.wait_s <= 30
    trip.ask()
    trip.no("failed", retry_s=900)
    trip.rounds.hurry(trip.now + 30, insist=True)
    assert trip.wait_s >= 900


def test_a_dialect_that_is_not_understood_is_no_trouble_while_the_other_one_works() -> None:
    trip = Trip("a", "microtorr")
    trip.ask()
    assert trip.no("refused", others="work") is False
    assert trip.state("a") == "unsupported"
    assert trip.wait_s >= 3600


def test_judgement_waits_while_the_other_dialect_is_undecided() -> None:
    trip = Trip("a", "microtorr")
    assert trip.outlook("a") == "undecided"
    trip.ask()
    assert trip.no("refused", others="undecided") is False
    assert trip.outlook("a") == "fail"
    assert trip.wait_s < 10
    trip.ask()
    assert trip.no("refused", others="fail") is True  # now it is
    assert trip.state("a") == "failing"


def test_out_of_reach_is_trouble_whatever_the_other_dialect_does() -> None:
    trip = Trip("a", "microtorr")
    trip.ask()
    assert trip.no("unreachable", others="work") is True
    assert trip.wait_s < 10


def test_a_turn_that_was_called_off_never_was() -> None:
    trip = Trip("a")
    trip.ask()
    assert trip.turn is not None
    trip.rounds.dropped(trip.turn)
    assert trip.state("a") == "idle"


def test_the_next_announce_of_each_tracker_is_told() -> None:
    trip = Trip("a | b")
    first, second = trip.rounds.tiers
    trip.ask()
    trip.no(retry_s=3600)
    trip.ask()
    trip.yes(interval_s=600)
    assert trip.rounds.next_for(first) == 1000 + 3600
    assert trip.rounds.next_for(second) == trip.rounds.due


def test_there_is_one_announce_at_a_time() -> None:
    trip = Trip("a | b")
    trip.ask()
    assert trip.rounds.turn(trip.now) is None


def test_without_a_tracker_that_can_be_asked_nothing_is_ever_due() -> None:
    rounds = Rounds([["wss://a/"]], "bittorrent", pacing=Pacing(), chance=random.Random(1))
    rounds.begin(5.0)
    assert rounds.due is None
    assert rounds.outlook("wss://a/") == "fail"


def test_each_tracker_is_judged_by_what_it_says_itself() -> None:
    trip = Trip("page | good | later")
    trip.ask()
    trip.no("refused", others="undecided")
    trip.ask()
    trip.yes()
    assert trip.outlook("page") == "fail"
    assert trip.outlook("good") == "work"
    assert trip.outlook("later") == "undecided"
    assert trip.outlook("of another torrent") == "fail"
    trip.rounds.close()
    assert trip.outlook("good") == "fail"


def test_figures_of_an_answer_stay_until_there_are_others() -> None:
    trip = Trip("a")
    trip.ask()
    trip.yes(seeders=3, leechers=4, peers=7, tracker_id=b"x", warning="soon down")
    trip.ask()
    trip.yes()
    tracker = next(iter(trip.rounds.tiers))
    assert (tracker.seeders, tracker.leechers, tracker.peers, tracker.tracker_id) == (3, 4, 7, b"x")
    assert tracker.message == ""


def test_who_answers_is_scraped_once_an_hour() -> None:
    trip = Trip("a")
    trip.ask()
    trip.yes(interval_s=600)
    assert trip.turn is not None
    tracker = trip.turn.tracker
    assert trip.rounds.wants_scrape(tracker, trip.now)
    assert not trip.rounds.wants_scrape(tracker, trip.now + 3599)
    trip.rounds.scraped(tracker, seeders=1, leechers=2, downloaded=3)
    assert (tracker.seeders, tracker.leechers, tracker.downloaded) == (1, 2, 3)
    assert trip.rounds.wants_scrape(tracker, trip.now + 3961)


def test_who_tells_no_figures_is_asked_for_them_less_and_less() -> None:
    trip = Trip("a")
    trip.ask()
    trip.yes(interval_s=600)
    assert trip.turn is not None
    tracker, waits = trip.turn.tracker, []
    for _ in range(8):
        now = max(tracker.scrape_at, 0.0)
        assert trip.rounds.wants_scrape(tracker, now)
        trip.rounds.not_scraped(tracker, now)
        waits.append(tracker.scrape_at - now)
    assert waits == [7200, 14_400, 28_800, 57_600, 86_400, 86_400, 86_400, 86_400]
    assert trip.state("a") == "working"


def test_no_scrapes_in_the_microtorr_dialect_and_none_after_the_end() -> None:
    trip, other = Trip("a", "microtorr"), Trip("a")
    for one in (trip, other):
        one.ask()
        one.yes()
    other.rounds.close()
    for one in (trip, other):
        assert one.turn is not None
        assert not one.rounds.wants_scrape(one.turn.tracker, one.now)
