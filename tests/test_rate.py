"""rate.py: what a meter reads, what a bucket lets through, who goes first, what a change of limit does."""

from __future__ import annotations

import heapq
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.rate import MAX_DEBT_S, MAX_NAP_S, Limiter, RateMeter, TokenBucket

KIB = 1024
MIB = 1024 * KIB


class TestRateMeter:
    def test_at_rest_it_reads_nothing(self) -> None:
        meter = RateMeter()
        assert meter.rate(0.0) == 0.0
        assert meter.rate(1e9) == 0.0
        assert meter.total == 0

    @pytest.mark.parametrize("seconds", [1, 2, 3, 10, 60])
    def test_a_steady_flow_reads_its_rate_from_the_first_seconds_on(self, seconds: int) -> None:
        meter = RateMeter()
        for tick in range(seconds * 100):
            meter.add(10 * KIB, 1000 + tick / 100)
        assert meter.rate(1000 + seconds) == pytest.approx(1000 * KIB, rel=0.03)
        assert meter.total == seconds * 1000 * KIB

    def test_the_first_read_does_not_look_like_gigabytes(self) -> None:
        meter = RateMeter()
        meter.add(64 * KIB, 5.0)
        assert meter.rate(5.0) <= 64 * KIB * 4
        assert meter.rate(5.001) <= 64 * KIB * 4

    def test_it_forgets_within_its_window(self) -> None:
        meter = RateMeter(window_s=5)
        for tick in range(1000):
            meter.add(KIB, tick / 100)
        readings = [meter.rate(10 + later / 10) for later in range(60)]
        assert all(after <= before + 1e-6 for before, after in itertools.pairwise(readings))
        assert readings[-1] == 0.0
        assert meter.total == 1000 * KIB

    def test_after_a_long_pause_it_starts_afresh(self) -> None:
        meter = RateMeter()
        meter.add(100 * MIB, 0.0)
        for tick in range(100):
            meter.add(KIB, 3600 + tick / 100)
        assert meter.rate(3601) == pytest.approx(100 * KIB, rel=0.05)

    def test_reading_it_while_idle_does_not_spoil_the_next_start(self) -> None:
        meter = RateMeter()
        meter.add(KIB, 0.0)
        for tick in range(100):
            meter.rate(float(tick))
        for tick in range(100):
            meter.add(KIB, 200 + tick / 100)
        assert meter.rate(201) == pytest.approx(100 * KIB, rel=0.05)

    def test_a_clock_that_steps_back_a_little_is_no_harm(self) -> None:
        meter = RateMeter()
        for tick in range(200):
            meter.add(KIB, 50 + tick / 100)
            meter.add(KIB, 50 + tick / 100 - 0.005)
        assert meter.rate(52) == pytest.approx(200 * KIB, rel=0.03)

    @given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 10**9)), max_size=60))
    def test_it_never_reads_below_zero_nor_more_than_all_of_it_at_once(
        self, moves: list[tuple[float, int]]
    ) -> None:
        meter = RateMeter()
        now = 0.0
        for pause, n in moves:
            now += pause
            meter.add(n, now)
            assert 0 <= meter.rate(now) <= meter.total * 4 + 1e-6
        assert meter.total == sum(n for _, n in moves)


def through(limiters: list[Limiter], seconds: float, *, wanted: int = MIB) -> list[int]:
    """Let one taker a limiter take and move as fast as it may for so long; the bytes that each moved."""
    moved = [0] * len(limiters)
    heap = [(0.0, who) for who in range(len(limiters))]
    while heap:
        now, who = heapq.heappop(heap)
        n = limiters[who].chunk(wanted, now)
        due = now + limiters[who].take(n, now)
        if due <= seconds:
            moved[who] += n
            heapq.heappush(heap, (due, who))
    return moved


class TestTokenBucket:
    def test_no_limit_never_waits(self) -> None:
        bucket = TokenBucket(0)
        assert [bucket.take(10**12, now) for now in (0.0, 0.0, 1.0)] == [0.0, 0.0, 0.0]

    def test_a_burst_goes_at_once_and_the_rest_waits(self) -> None:
        bucket = TokenBucket(1000, burst=500)
        assert bucket.take(500, 0.0) == 0.0
        assert bucket.take(100, 0.0) == pytest.approx(0.1)
        assert bucket.take(100, 0.0) == pytest.approx(0.2)
        assert bucket.take(100, 0.2) == pytest.approx(0.1)

    def test_a_pause_saves_up_a_burst_and_no_more(self) -> None:
        bucket = TokenBucket(1000, burst=500)
        bucket.take(500, 0.0)
        assert bucket.take(600, 100.0) == pytest.approx(0.1)

    def test_a_take_larger_than_the_burst_goes_into_debt_and_is_paid(self) -> None:
        bucket = TokenBucket(1000, burst=100)
        assert bucket.take(10_100, 0.0) == pytest.approx(10.0)
        assert bucket.take(0, 4.0) == pytest.approx(6.0)

    def test_a_negative_rate_is_a_mistake(self) -> None:
        with pytest.raises(ValueError, match="0 or more"):
            TokenBucket(-1)

    @given(
        st.integers(1, 10**9),
        st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10**7)), min_size=1, max_size=50),
    )
    def test_what_is_due_never_exceeds_the_rate_and_a_burst(
        self, rate: int, takes: list[tuple[float, int]]
    ) -> None:
        bucket = TokenBucket(rate)
        now, booked, last_due = 0.0, 0, 0.0
        for pause, n in takes:
            now += pause
            booked += n
            due = now + bucket.take(n, now)
            assert due >= last_due - 1e-6, "bookings are due in their order"
            assert booked <= due * rate + 0.2 * rate + 1e-3 * booked + 1
            last_due = due


class TestLimiter:
    @pytest.mark.parametrize("rate", [10 * KIB, 300_000, 3_000_000, 100 * MIB])
    @pytest.mark.parametrize("takers", [1, 7, 50])
    def test_all_takers_together_get_the_rate_and_equal_shares(self, rate: int, takers: int) -> None:
        seconds = 30.0
        shared = TokenBucket(rate)
        moved = through([Limiter(shared, TokenBucket(0)) for _ in range(takers)], seconds)
        assert sum(moved) == pytest.approx(rate * seconds, rel=0.03, abs=takers * KIB)
        saved_up = 0.2 * rate  # whoever comes first takes it
        assert max(moved) - min(moved) <= max(2 * KIB, saved_up + rate * 0.064 * 2)

    def test_a_turn_comes_round_quickly_among_many(self) -> None:
        shared = TokenBucket(MIB, burst=0)
        through([Limiter(shared) for _ in range(200)], 10.0)
        assert shared.queue_s(10.0) < 1.0

    def test_the_narrowest_limit_decides(self) -> None:
        everything, torrent, peer = TokenBucket(1_000_000), TokenBucket(200_000), TokenBucket(50_000)
        moved = through([Limiter(everything, torrent, peer)], 20.0)
        assert moved[0] == pytest.approx(50_000 * 20, rel=0.05)

    def test_a_slow_peer_leaves_the_shared_rate_to_the_others(self) -> None:
        shared = TokenBucket(1_000_000)
        moved = through([Limiter(shared, TokenBucket(10_000)), Limiter(shared), Limiter(shared)], 20.0)
        assert moved[0] == pytest.approx(10_000 * 20, rel=0.1)
        assert moved[1] == pytest.approx(990_000 * 10, rel=0.05)

    def test_a_slow_one_reaches_its_limit_beside_many_fast_ones(self) -> None:
        shared = TokenBucket(1_000_000)
        moved = through([Limiter(shared, TokenBucket(10_000)), *(Limiter(shared) for _ in range(40))], 30.0)
        assert moved[0] == pytest.approx(10_000 * 30, rel=0.25)

    def test_a_chunk_waits_no_longer_than_a_tenth_of_a_second(self) -> None:
        for rate in (100 * KIB, MIB, 50 * MIB):
            bucket = TokenBucket(rate, burst=0)
            limiter = Limiter(bucket, TokenBucket(0))
            assert limiter.take(limiter.chunk(10**9), 0.0) <= 0.1

    def test_chunks_are_whole_where_nothing_limits_and_never_tiny(self) -> None:
        assert Limiter().chunk(10**9) == 10**9
        assert Limiter(TokenBucket(0)).chunk(10**9) == 10**9
        assert Limiter(TokenBucket(1)).chunk(10**9) == 1024
        assert Limiter(TokenBucket(1)).chunk(3) == 3

    def test_unlimited_follows_the_buckets(self) -> None:
        bucket = TokenBucket(0)
        limiter = Limiter(TokenBucket(0), bucket)
        assert limiter.unlimited
        bucket.set_rate(5, 0.0)
        assert not limiter.unlimited

    def test_remaining_counts_down_to_the_moment_it_is_due(self) -> None:
        limiter = Limiter(TokenBucket(1000, burst=0), TokenBucket(0))
        wait = limiter.take(2000, 10.0)
        assert wait == pytest.approx(2.0)
        assert limiter.remaining(11.5) == pytest.approx(0.5)
        assert limiter.remaining(12.0 + 1e-9) == 0.0

    def test_later_bookings_of_others_do_not_lengthen_the_wait(self) -> None:
        shared = TokenBucket(1000, burst=0)
        first, second = Limiter(shared), Limiter(shared)
        first.take(1000, 0.0)
        assert second.take(1000, 0.0) == pytest.approx(2.0)
        assert first.remaining(0.5) == pytest.approx(0.5)
        assert second.remaining(0.5) == pytest.approx(1.5)


class TestChangingTheRate:
    def test_lifting_the_limit_lets_everybody_go_at_once(self) -> None:
        shared = TokenBucket(1000, burst=0)
        limiters = [Limiter(shared) for _ in range(20)]
        for limiter in limiters:
            limiter.take(1000, 0.0)
        shared.set_rate(0, 0.1)
        assert [limiter.remaining(0.1) for limiter in limiters] == [0.0] * 20
        assert limiters[0].take(10**9, 0.1) == 0.0

    def test_a_higher_rate_shortens_the_waits_that_run(self) -> None:
        bucket = TokenBucket(1000, burst=0)
        limiter = Limiter(bucket)
        assert limiter.take(1000, 0.0) == pytest.approx(1.0)
        bucket.set_rate(10_000, 0.5)
        assert limiter.remaining(0.5) == pytest.approx(0.05)

    def test_a_much_lower_rate_does_not_strand_those_who_wait(self) -> None:
        shared = TokenBucket(10 * MIB, burst=0)
        limiters = [Limiter(shared) for _ in range(50)]
        for limiter in limiters:
            limiter.take(limiter.chunk(MIB), 0.0)
        shared.set_rate(1000, 0.0)
        assert max(limiter.remaining(0.0) for limiter in limiters) <= MAX_DEBT_S + 1e-6
        moved = through([Limiter(shared)], 20.0)
        assert moved[0] == pytest.approx(1000 * 20, rel=0.1)

    def test_a_limit_set_on_a_running_flow_holds_from_then_on(self) -> None:
        bucket = TokenBucket(0)
        bucket.take(10**9, 0.0)
        bucket.set_rate(1000, 50.0)
        assert bucket.take(1000, 50.0) == pytest.approx(1.0)

    def test_the_same_rate_again_changes_nothing(self) -> None:
        bucket = TokenBucket(1000, burst=0)
        bucket.take(100_000, 0.0)
        bucket.set_rate(1000, 1.0)
        assert bucket.take(0, 1.0) == pytest.approx(99.0)

    def test_taking_a_limit_away_and_setting_it_again_begins_with_nothing_owed(self) -> None:
        bucket = TokenBucket(1000, burst=0)
        bucket.take(100_000, 0.0)
        bucket.set_rate(0, 1.0)
        bucket.set_rate(500, 2.0)
        assert bucket.take(500, 2.0) == pytest.approx(1.0)

    def test_a_nap_is_short_enough_to_notice_a_change(self) -> None:
        assert 0 < MAX_NAP_S <= 0.5
