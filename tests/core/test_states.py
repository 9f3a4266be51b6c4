"""The table of states, and what people see of it."""

from __future__ import annotations

import pytest

from microtorrd.core import events
from microtorrd.core.events import (
    AddressesFound,
    Announce,
    Cease,
    Check,
    Confirm,
    ContentConfirmed,
    Dial,
    Fetch,
    PiecesChecked,
    RecheckWanted,
    Release,
    Started,
    Stopped,
    StorageFailed,
    StorageRecovered,
    Store,
)
from microtorrd.core.settings import TorrentSettings
from microtorrd.errors import StorageError
from microtorrd.proto.messages import Interested
from tests.core.rig import Rig, dropped, noted, of

FULL = StorageError("/data/x: No space left on device", path="/data/x", cause="no_space", errno=28)


def announced(orders: list[events.Order]) -> list[str]:
    return [order.event for order in of(orders, Announce)]


def test_started_it_announces_and_dials() -> None:
    rig = Rig("..", start=False)
    assert rig.state == "stopped"
    assert rig.do(AddressesFound([("10.0.0.9", 1)], "tracker")) == []
    orders = rig.do(Started())
    assert announced(orders) == ["started"]
    assert of(orders, Dial) == [Dial(("10.0.0.9", 1))]
    assert rig.state == "downloading"
    assert rig.do(Started()) == []


@pytest.mark.parametrize(
    ("have", "state"), [("..", "downloading"), ("x.", "downloading"), ("xx", "seeding"), ("", "seeding")]
)
def test_running_is_what_the_bitfield_says(have: str, state: str) -> None:
    assert Rig(have).state == state


def test_a_recheck_goes_before_everything_else() -> None:
    rig = Rig("xx..", start=False)
    orders = rig.do(Started(recheck=True))
    assert orders == [Check(None)]
    assert rig.state == "checking"
    assert dropped(rig.connect(1)) == {1: "the content is being checked"}
    assert rig.do(PiecesChecked([0], [2], False)) == []
    snapshot = rig.core.snapshot(rig.now)
    assert (snapshot.checked_pieces, snapshot.to_check, snapshot.have_count) == (2, 4, 2)
    orders = rig.do(PiecesChecked([3], [1], True))
    assert announced(orders) == ["started"]
    assert (rig.state, rig.core.have.bits.to01()) == ("downloading", "1001")
    rig.join(1, "all")
    assert rig.pieces_asked(1) == {1, 2}


def test_a_recheck_of_a_running_torrent_drops_its_peers_and_keeps_its_announces() -> None:
    rig = Rig("x.")
    rig.join(1, "all")
    orders = rig.do(Started(recheck=True))
    assert dropped(orders) == {1: "the content is being checked"}
    assert of(orders, Check)
    assert of(orders, Release)
    assert announced(rig.do(PiecesChecked([0], [1], True))) == []
    assert rig.state == "downloading"


def test_suspicious_pieces_are_checked_alone() -> None:
    rig = Rig("xx..")
    assert rig.do(RecheckWanted([1, 2])) == [Check([1, 2])]
    rig.do(PiecesChecked([2], [1], True))
    assert rig.core.have.bits.to01() == "1010"
    assert rig.state == "downloading"


def test_suspicious_pieces_of_a_stopped_torrent_wait_for_its_start() -> None:
    rig = Rig("xx", start=False)
    assert rig.do(RecheckWanted([1])) == []
    assert rig.do(Started()) == [Check([1])]


def test_a_stopped_torrent_can_be_checked_and_stays_stopped() -> None:
    rig = Rig("xx", start=False)
    assert rig.do(RecheckWanted([0, 1], at_once=True)) == [Check(None)]
    assert rig.state == "checking"
    orders = rig.do(PiecesChecked([0], [1], True))
    assert not announced(orders)
    assert (rig.state, rig.core.have.count) == ("stopped", 1)


def test_an_interrupted_check_goes_on_where_it_was_and_loses_nothing() -> None:
    rig = Rig("xxxx", start=False)
    rig.do(Started(recheck=True))
    rig.do(PiecesChecked([0], [1], False))
    assert of(rig.do(Stopped()), Cease)
    rig.do(PiecesChecked([], [3], True))  # late news of a check that was stopped
    assert rig.core.have.bits.to01() == "1011"
    assert rig.do(Started()) == [Check([2, 3])]


def test_what_was_asked_for_during_a_check_is_checked_too() -> None:
    rig = Rig("xxxx", start=False)
    rig.do(RecheckWanted([0]), Started())
    orders = rig.do(RecheckWanted([2]))
    assert orders == [Cease(), Check([0, 2])]
    assert rig.do(PiecesChecked([0], [], True)) == [Check([2])]  # the end of the first one
    rig.do(PiecesChecked([], [], True))  # a check that says nothing of its piece: we do not have it
    assert rig.core.have.bits.to01() == "1101"


def test_stopped_everybody_goes_and_all_memory_is_given_back() -> None:
    rig = Rig("....")
    rig.join(1, "all")
    rig.deliver(1, 1)
    rig.join(2, "all")
    orders = rig.do(Stopped())
    assert dropped(orders) == dict.fromkeys([1, 2], "the torrent is stopped")
    assert rig.borrowed == 0
    assert of(orders, Cease)
    assert announced(orders) == ["stopped"]
    assert rig.state == "stopped"
    assert rig.do(events.Ticked()) == []
    assert dropped(rig.connect(3)) == {3: "the torrent is stopped"}


def test_facts_of_dropped_peers_are_ignored() -> None:
    rig = Rig("..")
    rig.join(1, "all")
    slot = rig.lent[1][0]
    rig.do(Stopped())
    slot.filled_by = 1
    facts: list[events.Fact] = [
        events.BlocksReceived(1, [slot]),
        events.RequestsReceived(1, [(0, 0, 1)]),
        events.MessagesReceived(1, []),
        events.PeerLeft(1, "closed"),
    ]
    assert rig.do(*facts) == []


def test_a_store_under_way_counts_after_the_stop() -> None:
    rig = Rig("..")
    rig.join(1, "all")
    assert len(of(rig.deliver(1), Store)) == 2
    rig.do(Stopped())
    rig.stored(0)
    assert rig.core.have[0]
    rig.corrupt(1)
    rig.do(Started())
    assert rig.state == "downloading"
    rig.join(2, "all")
    assert rig.pieces_asked(2) == {1}


def test_a_piece_that_is_still_being_stored_is_not_fetched_again_after_a_restart() -> None:
    rig = Rig("..")
    rig.join(1, "all")
    rig.deliver(1, 2)
    (stored,) = rig.storing
    rig.do(Stopped(), Started())
    rig.join(2, "all")
    assert rig.pieces_asked(2) == {1 - stored}


def test_a_full_disk_parks_the_torrent_and_recovery_needs_no_check() -> None:
    rig = Rig("..")
    rig.join(1, "all")
    rig.deliver(1)
    orders = rig.do(StorageFailed(FULL, 0))
    assert announced(orders) == ["stopped"]
    assert dropped(orders) == {1: "the torrent has failed"}
    assert noted(orders, "storage_failed") == [
        {"cause": "no_space", "path": "/data/x", "message": "/data/x: No space left on device"}
    ]
    assert rig.core.state_shown() == ("failed", FULL)
    assert rig.do(StorageFailed(FULL, 1)) == []  # of the other job: the same trouble
    rig.storing.clear()
    assert announced(rig.do(StorageRecovered())) == ["started"]
    assert rig.state == "downloading"
    rig.join(2, "all")
    assert rig.pieces_asked(2) == {0, 1}


def test_a_failed_torrent_that_is_stopped_stays_so_and_one_that_fails_while_stopped_too() -> None:
    rig = Rig("..")
    rig.do(StorageFailed(FULL))
    rig.do(Stopped())
    assert rig.core.state_shown() == ("stopped", None)
    assert rig.do(StorageRecovered()) == []
    rig.do(StorageFailed(FULL))
    assert rig.state == "failed"
    rig.do(StorageRecovered())
    assert rig.state == "stopped"


def test_the_operator_may_try_a_failed_torrent_again() -> None:
    rig = Rig("..")
    rig.do(StorageFailed(FULL))
    assert announced(rig.do(Started())) == ["started"]
    assert rig.core.state_shown() == ("downloading", None)


def test_a_check_that_fails_is_taken_up_again() -> None:
    rig = Rig("xx", start=False)
    rig.do(Started(recheck=True))
    rig.do(PiecesChecked([0], [], False), StorageFailed(FULL))
    assert rig.do(StorageRecovered()) == [Check([1])]


# --------------------------------------------------------------------------------------------- completing


def fetch_all(rig: Rig, peer: int = 1) -> list[events.Order]:
    orders: list[events.Order] = []
    while rig.asked(peer) or rig.storing:
        orders += rig.deliver(peer)
        if rig.storing:
            orders += rig.stored()
    return orders


def test_the_last_piece_completes_it_and_it_seeds() -> None:
    rig = Rig("....", last_bytes=100)
    rig.join(1, "all")
    rig.tick(2)
    orders = fetch_all(rig)
    assert announced(orders) == ["completed"]
    (facts,) = noted(orders, "completed")
    assert facts["fetched_bytes"] == 3 * 32768 + 100
    assert facts["from_seeders"] == 1.0
    assert facts["elapsed_s"] == 2.0
    assert facts["shares"][0]["pieces"] == 4.0
    assert rig.state == "seeding"
    snapshot = rig.core.snapshot(rig.now, with_peers=True)
    assert snapshot.done_bytes == snapshot.down_bytes == 3 * 32768 + 100
    assert snapshot.peers[0].down_bytes == snapshot.down_bytes


def test_what_is_complete_at_the_start_is_not_announced_as_completed() -> None:
    rig = Rig("xx", start=False)
    orders = rig.do(Started())
    assert announced(orders) == ["started"]
    assert not noted(orders, "completed")


def test_the_whole_content_is_confirmed_while_peers_are_served() -> None:
    rig = Rig("..", id_hash=True)
    rig.join(1, "all")
    rig.join(2, "")
    orders = fetch_all(rig)
    assert of(orders, Confirm) and not announced(orders)
    assert rig.state == "checking"
    rig.say(2, Interested())
    assert of(rig.do(events.RequestsReceived(2, [(0, 0, 16384)])), events.Serve)
    orders = rig.do(ContentConfirmed(True))
    assert announced(orders) == ["completed"]
    assert rig.state == "seeding"


def test_content_that_is_not_what_it_should_be_fails() -> None:
    rig = Rig("..", id_hash=True)
    rig.join(1, "all")
    fetch_all(rig)
    rig.do(ContentConfirmed(False))
    state, failure = rig.core.state_shown()
    assert state == "failed" and failure is not None
    assert (failure.cause, failure.path) == ("id_hash_mismatch", "thing")
    assert of(rig.do(Started()), Confirm)  # trying again means looking again


def test_a_stop_while_confirming_confirms_at_the_next_start() -> None:
    rig = Rig("xx", id_hash=True)
    assert of(rig.journal, Confirm)
    rig.do(Stopped())
    assert rig.do(ContentConfirmed(True)) == []
    assert of(rig.do(Started()), Confirm)
    assert announced(rig.do(ContentConfirmed(True))) == ["completed"]


def test_a_full_check_of_what_was_there_is_confirmation_enough() -> None:
    rig = Rig("..", id_hash=True, start=False)
    rig.do(Started(recheck=True))
    orders = rig.do(PiecesChecked([0, 1], [], True))
    assert not of(orders, Confirm)
    assert noted(orders, "content_verified")
    assert announced(orders) == ["started"]
    assert rig.state == "seeding"


def test_a_torrent_that_is_not_to_seed_leaves_when_nobody_wants_anything() -> None:
    rig = Rig("..", torrent=TorrentSettings(seed_after_download=False))
    rig.join(1, "all")
    orders = fetch_all(rig)
    assert announced(orders) == ["completed", "stopped"]
    assert rig.state == "stopped"


def test_a_torrent_that_is_not_to_seed_gives_a_moment_to_those_who_still_want_something() -> None:
    rig = Rig("..", torrent=TorrentSettings(seed_after_download=False))
    rig.join(1, "all")
    rig.join(2, "")
    rig.say(2, Interested())
    assert announced(fetch_all(rig)) == ["completed"]
    assert rig.state == "seeding"
    assert announced(rig.tick(4)) == ["stopped"]


def test_an_empty_content_is_complete_at_once() -> None:
    rig = Rig("", id_hash=True)
    assert of(rig.journal, Confirm)
    rig.do(ContentConfirmed(True))
    assert rig.state == "seeding"
    rig.join(1, "all")


# ------------------------------------------------------------------------------------------------ waiting


def test_nothing_is_asked_before_the_seeders_and_leechers_are_there() -> None:
    rig = Rig("..", torrent=TorrentSettings(wait_seeders=1, wait_leechers=2))
    assert rig.state == "waiting"
    rig.join(1, "all")
    assert (rig.state, rig.asked(1)) == ("waiting", [])
    orders = rig.join(2, "")
    assert rig.state == "downloading"
    assert of(orders, Fetch)


def test_ourselves_count_as_a_leecher() -> None:
    assert Rig("..", torrent=TorrentSettings(wait_leechers=1)).state == "downloading"


def test_a_connection_that_has_said_nothing_counts_as_nobody() -> None:
    rig = Rig("..", torrent=TorrentSettings(wait_leechers=2))
    rig.connect(1)
    assert rig.state == "waiting"


def test_who_leaves_makes_nobody_wait_again() -> None:
    rig = Rig("..", torrent=TorrentSettings(wait_seeders=1, wait_leechers=2))
    rig.join(2, "")
    rig.leave(2)  # it was there, that is enough
    rig.join(1, "all")
    assert rig.state == "downloading"
    rig.leave(1)
    assert rig.state == "downloading"
    rig.do(Stopped(), Started())
    assert rig.state == "downloading"


def test_progress_means_that_the_waiting_was_over_before() -> None:
    assert Rig("x.", torrent=TorrentSettings(wait_seeders=3)).state == "downloading"


def test_the_operator_may_cut_the_waiting_short() -> None:
    rig = Rig("..", torrent=TorrentSettings(wait_seeders=2))
    rig.join(1, "all")
    orders = rig.do(events.SettingsChanged(TorrentSettings(wait_seeders=1)))
    assert of(orders, Fetch)


def test_an_idle_torrent_needs_no_ticks() -> None:
    rig = Rig("xx")
    assert rig.core.idle
    rig.do(AddressesFound([("10.0.0.9", 1)], "tracker"))
    assert not rig.core.idle
    for _ in range(3):
        rig.do(events.DialFailed(("10.0.0.9", 1), "refused"))
        rig.tick(60)
    assert rig.core.idle
    rig.join(1, "")
    assert not rig.core.idle


def test_it_is_not_entered_again() -> None:
    rig = Rig("..")

    def lend(_: int) -> memoryview | None:
        rig.core.handle(events.Ticked(), rig.now)
        return None

    rig.core.workshop._lend = lend
    with pytest.raises(AssertionError, match="entered again"):
        rig.join(1, "all")
