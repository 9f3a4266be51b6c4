"""What is asked of whom: scenarios of pieces, blocks, chokes, snubs, the end game and memory."""

from __future__ import annotations

import pytest

from microtorrd.core import events
from microtorrd.core.events import Fetch, Recall, Release, Store
from microtorrd.core.peer import STALL_S, START_BLOCKS, Pipeline
from microtorrd.core.settings import SwarmSettings, TorrentSettings
from microtorrd.core.slots import Slot
from microtorrd.core.workshop import ORPHAN_S
from microtorrd.proto.messages import AllowedFast, Choke, Have, NotInterested, Reject, Suggest, Unchoke
from tests.core.rig import Rig, of, told

MiB = 1 << 20


def blocks_of(slots: list[Slot]) -> list[tuple[int, int, int]]:
    return [(slot.piece, slot.begin, slot.length) for slot in slots]


# ------------------------------------------------------------------------------------------------ asking


def test_nothing_is_asked_of_a_peer_that_chokes_us_and_everything_at_once_when_it_stops() -> None:
    rig = Rig("....")
    assert not of(rig.join(1, "all", unchoke=False), Fetch)
    (fetch,) = of(rig.say(1, Unchoke()), Fetch)
    assert len(fetch.slots) == 8
    assert blocks_of(list(fetch.slots[:2]))[1][1] == 16384  # in order within a piece


def test_a_new_peer_is_asked_for_little_and_a_quick_one_for_twice_as_much_each_time() -> None:
    rig = Rig("." * 50)
    rig.join(1, "all", depth=0)
    for doubled in range(4):
        assert len(rig.asked(1)) == START_BLOCKS << doubled
        rig.now += 0.05
        rig.deliver(1)


def test_the_rarest_piece_goes_first() -> None:
    rig = Rig("....", blocks=16)
    rig.join(1, "xx.x", unchoke=False)
    rig.join(2, "xxxx")
    assert rig.pieces_asked(2) == {2}


def test_in_order_when_the_operator_says_so() -> None:
    rig = Rig("....", blocks=16, torrent=TorrentSettings(sequential=True))
    rig.join(1, "...x", unchoke=False)
    rig.join(2, "all")
    assert rig.pieces_asked(2) == {0}
    rig.join(3, "all")
    assert rig.pieces_asked(3) == {1}
    rig.do(events.SettingsChanged(TorrentSettings()))
    rig.join(4, "xx..")
    rig.join(5, "all")
    assert rig.pieces_asked(5) == {2}


def test_two_peers_work_on_different_pieces() -> None:
    rig = Rig("....", blocks=16)
    rig.join(1, "all")
    rig.join(2, "all")
    assert len(rig.pieces_asked(1) | rig.pieces_asked(2)) == 2


def test_the_last_block_of_the_content_is_shorter() -> None:
    rig = Rig("..", last_bytes=16385)
    rig.join(1, "all")
    assert sorted(blocks_of(rig.lent[1])) == [
        (0, 0, 16384),
        (0, 16384, 16384),
        (1, 0, 16384),
        (1, 16384, 1),
    ]


def test_a_full_piece_goes_to_the_disk_once() -> None:
    rig = Rig("..")
    rig.join(1, "all")
    assert not of(rig.deliver(1, 1), Store)
    (store,) = of(rig.deliver(1, 1), Store)
    assert store.buffer.size == 32768
    assert not store.want_digests


def test_a_piece_that_was_begun_is_finished_first() -> None:
    rig = Rig("....", blocks=16)
    rig.join(1, "all")
    (begun,) = rig.pieces_asked(1)
    rig.deliver(1, 3)
    rig.leave(1)
    rig.join(2, "all")
    assert rig.asked(2)[:13] == [(begun, block) for block in range(3, 16)]


def test_a_piece_of_which_nothing_came_is_chosen_afresh() -> None:
    rig = Rig("....", blocks=16)
    rig.join(1, "all")
    orders = rig.leave(1)
    assert of(orders, Release) and rig.borrowed == 0


@pytest.mark.parametrize(("rate", "joins"), [(50_000.0, True), (5e6, False)])
def test_a_slow_peer_joins_what_others_have_begun(rate: float, joins: bool) -> None:
    rig = Rig("." * 8, blocks=1024)  # 16 MiB
    rig.join(1, "all")
    rig.join(2, "all", unchoke=False)
    rig.peer(2).pipeline.rate = rate
    rig.say(2, Unchoke())
    assert (rig.pieces_asked(1) == rig.pieces_asked(2)) == joins
    assert not set(rig.asked(1)) & set(rig.asked(2))


def test_a_new_have_is_used_at_once() -> None:
    rig = Rig("....")
    rig.join(1, "")
    assert rig.asked(1) == []
    rig.say(1, Have(2))
    assert rig.pieces_asked(1) == {2}


def test_pieces_a_peer_suggests_go_first_among_equals() -> None:
    rig = Rig("." * 40, blocks=16)
    rig.join(1, "all", unchoke=False)
    rig.say(1, Suggest(7), Suggest(9), Unchoke())
    assert rig.pieces_asked(1) == {7}


# ------------------------------------------------------------------------------------- who is asked first


def test_the_fastest_goes_first_but_for_the_lot() -> None:
    chosen = []
    for seed in range(200):
        rig = Rig(".", blocks=32, seed=seed, memory=0)
        for peer, rate in ((1, 1e6), (2, 9e6), (3, 5e6)):
            rig.join(peer, "all")
            rig.peer(peer).pipeline.rate = rate
        rig.memory = 1 << 30
        (*_, first) = [None, *(order.peer for order in of(rig.do(events.MemoryFreed()), Fetch))][:2]
        chosen.append(first)
    assert 170 < chosen.count(2) < 198  # 90 %, and a third of the remaining 10
    assert chosen.count(1) and chosen.count(3)


def test_a_peer_that_was_never_measured_counts_as_the_fastest() -> None:
    rig = Rig(".", blocks=32, memory=0, settings=SwarmSettings(random_peer_share=0.0))
    for peer in (1, 2, 3):
        rig.join(peer, "all")
        rig.peer(peer).pipeline.rate = 1e9
    rig.peer(2).pipeline.rate = 0.0
    rig.memory = 1 << 30
    assert of(rig.do(events.MemoryFreed()), Fetch)[0].peer == 2


# ----------------------------------------------------------------------------------------------- pipeline


def drive(pipeline: Pipeline, rate: float, rounds: int, *, latency_s: float = 0.0) -> list[int]:
    """Answer at this rate, always keeping the pipeline full; the depths on the way."""
    now, depths = 0.0, []
    pipeline.asked(pipeline.depth, now)
    for _ in range(rounds):
        blocks = pipeline.out
        now += max(blocks * 16384 / rate, latency_s)
        pipeline.received(blocks, blocks * 16384, now)
        pipeline.asked(pipeline.depth - pipeline.out, now)
        depths.append(pipeline.depth)
    return depths


def test_the_pipeline_of_a_quick_peer_doubles_up_to_its_bound() -> None:
    assert drive(Pipeline(512, 16), 500e6, 7) == [32, 64, 128, 256, 512, 512, 512]


def test_the_pipeline_of_a_slow_peer_holds_a_second() -> None:
    assert drive(Pipeline(512), 163_840, 5)[-1] in range(10, 22)


def test_a_burst_is_not_the_rate_of_a_line() -> None:
    """A segment was lost; what had come behind it is handed over with it, in one moment and several reads."""
    pipeline, now = Pipeline(512), 0.0
    pipeline.asked(4, now)
    for _ in range(5):  # 40 kB/s
        for _ in range(3):
            now += 0.4
            pipeline.received(1, 16384, now)
            pipeline.asked(1, now)
    for _ in range(4):  # nothing more to ask at the moment
        pipeline.received(1, 16384, now)
    assert not pipeline.out
    assert pipeline.rate < 60_000


def test_a_burst_in_the_middle_of_a_quick_stream_counts_with_the_time_around_it() -> None:
    pipeline, now = Pipeline(512, 16), 0.0
    pipeline.asked(16, now)
    for _ in range(400):  # 100 MB/s, in reads of four blocks that come by twos
        now += 8 * 16384 / 100e6
        for _ in range(2):
            pipeline.received(4, 4 * 16384, now)
            pipeline.asked(pipeline.depth - pipeline.out, now)
    assert 90e6 < pipeline.rate < 110e6


def test_latency_is_added() -> None:
    far = drive(Pipeline(4096), 16e6, 12, latency_s=0.3)[-1]
    near = drive(Pipeline(4096), 16e6, 12)[-1]
    assert far > near * 1.2


def test_the_pipeline_never_asks_for_more_than_the_peer_takes() -> None:
    rig = Rig("." * 100, blocks=16)
    rig.join(1, "all")
    pipeline = rig.peer(1).pipeline
    assert pipeline.limit == 250
    pipeline.set_limit(5)
    rig.deliver(1)
    assert len(rig.asked(1)) == 5


# -------------------------------------------------------------------------------------- chokes, rejects


def test_choked_without_the_fast_extension_everything_is_free_for_others() -> None:
    rig = Rig("..")
    rig.join(1, "all", fast=False)
    rig.deliver(1, 1)
    rig.join(2, "all")
    orders = rig.say(1, Choke())
    (recall,) = of(orders, Recall)
    assert (recall.peer, len(recall.slots), recall.cancel) == (1, 3, False)
    assert len(rig.asked(2)) == 3


def test_choked_with_the_fast_extension_we_wait_for_rejects() -> None:
    rig = Rig("..")
    rig.join(1, "all")
    asked = list(rig.lent[1])
    rig.join(2, "all")
    assert not of(rig.say(1, Choke()), Recall)
    assert rig.asked(2) == []
    rig.lent[1] = asked[2:]  # the wire knows of rejects
    rig.say(1, *(Reject(*block) for block in blocks_of(asked[:2])))
    assert len(rig.asked(2)) == 2
    rig.lent[1] = []
    rig.say(1, *(Reject(*block) for block in blocks_of(asked[2:])))
    assert len(rig.asked(2)) == 4


def test_rejects_that_never_come_are_not_waited_for() -> None:
    rig = Rig("..")
    rig.join(1, "all")
    rig.say(1, Choke())
    rig.join(2, "x.")
    rig.tick(15)
    assert rig.pieces_asked(2) == {0}
    assert rig.asked(1) == []


def test_peers_that_promise_and_send_nothing_keep_a_block_from_nobody() -> None:
    rig = Rig(".", blocks=1)
    for number in range(1, 8):
        rig.join(number, "x")
        assert rig.asked(number) == [(0, 0)], f"{number - 1} have stalled"
        rig.tick(2.0)
    rig.deliver(7)
    rig.stored(0)
    assert rig.core.have.complete


def test_what_a_peer_rejects_is_asked_of_others_and_of_it_again_later() -> None:
    rig = Rig(".")
    rig.join(1, "all")
    asked = rig.lent[1]
    rig.lent[1] = []
    rig.say(1, *(Reject(*block) for block in blocks_of(asked)))
    assert rig.asked(1) == []
    rig.tick(12)
    assert len(rig.asked(1)) == 2


def test_a_reject_of_what_was_not_asked_is_ignored() -> None:
    rig = Rig("..")
    rig.join(1, "x.")
    assert rig.say(1, Reject(1, 0, 16384), Reject(0, 5, 16384), Reject(0, 0, 100)) == []
    assert len(rig.asked(1)) == 2


def test_allowed_fast_pieces_are_asked_of_a_choking_peer() -> None:
    rig = Rig("....")
    rig.join(1, "all", unchoke=False)
    rig.say(1, AllowedFast(2))
    assert rig.pieces_asked(1) == {2}
    rig.deliver(1)
    assert rig.asked(1) == []


# --------------------------------------------------------------------------------------- snubs, end game


def test_a_silent_peer_is_snubbed_and_its_blocks_are_asked_elsewhere() -> None:
    rig = Rig("....", settings=SwarmSettings(request_timeout_s=20))
    rig.join(1, "xx..")
    rig.tick(15)
    rig.join(2, "x...")
    rig.deliver(2)
    rig.tick(7)
    assert rig.core.snapshot(rig.now, with_peers=True).peers[0].snubbed
    assert rig.pieces_asked(2) == {0} or 0 in rig.storing


def test_a_snubbed_peer_that_sends_again_is_forgiven() -> None:
    rig = Rig("....", settings=SwarmSettings(request_timeout_s=20))
    rig.join(1, "xx..")
    rig.tick(22)
    assert rig.peer(1).snubbed
    assert len(rig.asked(1)) == 4
    rig.deliver(1, 1)
    assert not rig.peer(1).snubbed
    rig.deliver(1)
    assert sorted(rig.storing) == [0, 1]


def test_a_silent_seeder_does_not_hold_the_last_piece() -> None:
    rig = Rig("..")
    rig.join(1, "all")
    rig.join(2, "all")
    assert rig.asked(2) == []  # everything is asked of the first, who seems all right
    rig.tick(STALL_S + 1)
    assert sorted(rig.asked(2)) == sorted(rig.asked(1)) != []
    orders = rig.deliver(2)
    assert sum(len(order.slots) for order in of(orders, Recall)) == 4
    assert rig.asked(1) == []
    assert len(of(orders, Store)) == 2


def test_the_tail_of_a_slow_peer_is_taken_from_its_end() -> None:
    rig = Rig(".", blocks=16)
    rig.join(1, "all")
    for _ in range(4):  # one block in half a second
        rig.now += 0.5
        rig.deliver(1, 1)
    rig.join(2, "all")
    taken = [block for _, block in rig.asked(2)]
    assert len(taken) == 6  # half of the twelve, as far as we know its speed
    assert sorted(taken) == list(range(10, 16))
    rig.deliver(2)
    assert not set(rig.asked(1)) & {(0, block) for block in taken}


def test_a_block_is_asked_of_three_peers_at_most_that_may_still_send_it() -> None:
    rig = Rig(".", blocks=1)
    rig.join(1, "all")
    rig.tick(STALL_S + 1)
    for peer in range(2, 7):
        rig.join(peer, "all")
    assert [bool(rig.asked(peer)) for peer in range(1, 7)] == [True, True, True, True, False, False]


def test_blocks_that_crossed_with_a_recall_are_waste() -> None:
    rig = Rig(".")
    rig.join(1, "all")
    rig.join(2, "all")
    rig.tick(STALL_S + 1)
    late = list(rig.lent[1])
    rig.deliver(2)
    rig.do(events.BlocksReceived(1, (), sum(slot.length for slot in late)))
    snapshot = rig.core.snapshot(rig.now)
    assert (snapshot.wasted_bytes, snapshot.down_bytes) == (32768, 32768)


def test_a_block_that_came_before_its_recall_was_carried_out_counts() -> None:
    rig = Rig(".")
    rig.join(1, "all", fast=False)
    rig.deliver(1, 1)
    slot = rig.lent[1][0]
    slot.filled_by = 1  # its wire has it already; the fact is in the inbox behind the choke
    rig.say(1, Choke())
    rig.join(2, "all")
    assert rig.asked(2) == [(0, 1)]
    orders = rig.do(events.BlocksReceived(1, [slot]))
    assert [order.peer for order in of(orders, Recall)] == [2]
    assert of(orders, Store)
    assert rig.core.snapshot(rig.now).down_bytes == 2 * slot.length


def test_a_block_of_a_piece_that_was_given_up_is_waste() -> None:
    rig = Rig("..")
    rig.join(1, "all", fast=False)
    slot = rig.lent[1][0]
    slot.filled_by = 1
    rig.say(1, Choke())  # nothing of it had come: its memory went back
    assert rig.borrowed == 0
    rig.do(events.BlocksReceived(1, [slot]))
    assert rig.core.snapshot(rig.now).wasted_bytes == slot.length


# ------------------------------------------------------------------------------------------------ memory


def test_without_memory_it_goes_on_with_what_is_begun_and_waits() -> None:
    rig = Rig("....", blocks=32, memory=32 * 16384)
    rig.join(1, "all")
    rig.join(2, "all")
    assert rig.pieces_asked(1) == rig.pieces_asked(2) != set()
    assert rig.core.workshop.starved
    while not rig.storing:
        rig.deliver(1)
        rig.deliver(2)
    assert rig.asked(1) == rig.asked(2) == []
    rig.stored()
    assert rig.asked(1) == []
    rig.do(events.MemoryFreed())
    assert rig.asked(1) or rig.asked(2)


def test_pieces_without_a_source_give_their_memory_back_when_it_is_short() -> None:
    rig = Rig("....", blocks=16, memory=16 * 16384)
    rig.join(1, "x...")
    rig.deliver(1, 3)
    rig.leave(1)
    assert rig.borrowed  # it may come back
    orders = rig.join(2, ".xxx")
    assert of(orders, Release) and rig.borrowed == 0
    rig.do(events.MemoryFreed())
    assert rig.asked(2)
    assert rig.core.snapshot(rig.now).wasted_bytes == 3 * 16384


def test_they_do_so_for_other_torrents_too() -> None:
    rig = Rig("....", blocks=16)
    rig.join(1, "x...")
    rig.deliver(1, 3)
    rig.leave(1)
    rig.join(2, ".x..")
    orders = rig.do(events.MemoryWanted())
    assert [order.buffer.piece for order in of(orders, Release)] == [0]


def test_they_do_so_by_themselves_after_a_while() -> None:
    rig = Rig("....", blocks=16)
    rig.join(1, "x...")
    rig.deliver(1, 3)
    rig.leave(1)
    rig.join(2, "")
    assert not rig.core.idle
    rig.tick(ORPHAN_S - 2)
    assert rig.borrowed
    rig.tick(4)
    assert rig.borrowed == 0


def test_a_snubbed_only_source_does_not_keep_memory_from_others() -> None:
    rig = Rig("....", blocks=16, memory=16 * 16384, settings=SwarmSettings(request_timeout_s=5))
    rig.join(1, "x...")
    rig.deliver(1, 3)
    rig.tick(7)
    orders = rig.join(2, ".xxx")
    assert [order.peer for order in of(orders, Recall)] == [1]
    assert of(orders, Release)


def test_interest_ends_when_nothing_more_is_wanted() -> None:
    rig = Rig("..")
    rig.join(1, "x.")
    rig.deliver(1)
    assert NotInterested() in told(rig.stored(), 1)


@pytest.mark.parametrize("pieces", [1, 3])
def test_pieces_of_less_than_a_block(pieces: int) -> None:
    rig = Rig("." * pieces, last_bytes=1)
    rig.join(1, "all")
    rig.deliver(1)
    rig.stored()
    assert rig.state == "seeding"


def test_a_snubbed_peer_that_rejects_is_not_asked_twice_for_the_rest() -> None:
    rig = Rig("..", settings=SwarmSettings(request_timeout_s=4))
    rig.join(1, "all")
    rig.tick(5)
    slot = rig.lent[1].pop(0)
    rig.say(1, Reject(slot.piece, slot.begin, slot.length))
    rig.tick(12)
    assert len(rig.asked(1)) == len(set(rig.asked(1))) == 3
