"""How fast something is (`RateMeter`) and how fast it may be (`TokenBucket`, `Limiter`, `Allowance`).

Pure: time is handed in, in seconds of a monotonic clock that never runs backwards by more than a moment.
Nothing here sleeps; whoever takes from a limiter is told how long to wait before it acts.

A bucket keeps two running sums: the bytes booked by everybody, and the bytes paid for by the passing of time.
A booking is due when the second reaches the place in the first at which it was made. So bookings are due in
the order they were made, whoever made them, and a change of the rate applies at once to those that wait.
"""

from __future__ import annotations

#: How much time a meter looks back on, and in how many steps it forgets.
WINDOW_S = 5.0
STEPS = 10

#: What an unused bucket saves up, in seconds of its rate: enough for greenlets that wake late, no surge.
BURST_S = 0.2

#: Takes are cut so that one costs at most this time at the current rate: smooth, and cheap in wake-ups.
CHUNK_S = 0.064
CHUNK_MIN_BYTES = 1024

#: How much of a wait in one bucket a taker may make good at once in another (`Limiter.chunk`).
CATCH_UP_S = 1.0

#: Sleep no longer than this at a time, then ask `Limiter.remaining` again: a limit may have been lifted.
MAX_NAP_S = 0.25

#: After a change of the rate everybody who waits is let go within this time.
MAX_DEBT_S = 1.0

_AT_REST = float("-inf")


class RateMeter:
    """The recent rate of something counted in bytes (or anything else), and its total.

    It averages over the last `window_s` seconds, or over the time since it began to move when that is
    shorter, so a transfer of two seconds already shows its true rate. After `window_s` without anything it
    reads 0.
    """

    __slots__ = ("_current", "_edge", "_past", "_started", "_step_s", "total")

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self.total = 0
        self._step_s = window_s / STEPS
        # One sum a finished step, the oldest first; only while moving, most meters rest. A deque takes four
        # times the memory of a list, and each peer has two of them.
        self._past: list[int] | None = None
        self._current = 0
        self._edge = _AT_REST  # when the current step ends
        self._started = 0.0

    def add(self, n: int, now: float) -> None:
        """Count `n`. A few tenths of a microsecond."""
        if now >= self._edge:
            self._roll(now)
        self._current += n
        self.total += n

    def rate(self, now: float) -> float:
        """The recent rate, per second."""
        if now >= self._edge and self._edge != _AT_REST:
            self._roll(now)
        if self._past is None:
            return 0.0
        recent = self._current + sum(self._past)
        if recent == 0:
            self._rest()
            return 0.0
        covered_s = len(self._past) * self._step_s + (now - self._edge + self._step_s)
        # Half a step at least: the very first read of a socket must not look like gigabytes per second.
        return recent / max(min(covered_s, now - self._started), self._step_s / 2)

    def _roll(self, now: float) -> None:
        """Move on to the step that `now` lies in."""
        steps = int((now - self._edge) / self._step_s) + 1 if self._past is not None else STEPS + 1
        if self._past is None or steps > STEPS:  # at rest, or nothing remembered is recent any more
            self._past = []
            self._current = 0
            self._started = now
            self._edge = now + self._step_s
            return
        for _ in range(steps):
            self._past.append(self._current)
            self._current = 0
        del self._past[:-STEPS]
        self._edge += steps * self._step_s

    def _rest(self) -> None:
        self._past = None
        self._current = 0
        self._edge = _AT_REST


class Allowance:
    """How often something may happen that is passed over when it comes too often: `burst` times at once, and
    `per_s` times a second in the long run."""

    __slots__ = ("_at", "_burst", "_left", "_per_s")

    def __init__(self, burst: float, per_s: float, now: float) -> None:
        self._burst = self._left = burst
        self._per_s = per_s
        self._at = now

    def take(self, now: float) -> bool:
        """It has happened. False: too often."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class TokenBucket:
    """One limit: `rate_per_s` bytes a second on average, `burst` bytes at once after a pause; 0 is no limit.

    `burst` None means a fifth of a second of the rate, following its changes.
    """

    __slots__ = ("__weakref__", "_at", "_booked", "_burst", "_paid", "_wanted_burst", "rate_per_s")

    def __init__(self, rate_per_s: float = 0, burst: float | None = None) -> None:
        self.rate_per_s: float = 0.0
        self._wanted_burst = burst
        self._burst = 0.0
        self._booked = 0.0  # bytes booked so far, by everybody
        self._paid = 0.0  # bytes that time has paid for so far; at most a burst ahead of what is booked
        self._at: float | None = None  # when `_paid` was last brought up to date
        self._adopt(rate_per_s)
        self._paid = self._burst

    def take(self, n: int, now: float) -> float:
        """Book `n` bytes, always, and say how many seconds to wait before they may move (0.0: at once)."""
        if not self.rate_per_s:
            return 0.0
        self._pay(now)
        self._booked += n
        debt = self._booked - self._paid
        return debt / self.rate_per_s if debt > 0 else 0.0

    def queue_s(self, now: float | None = None) -> float:
        """How long the queue is in seconds; without `now`, as it was when somebody last took or asked."""
        if not self.rate_per_s:
            return 0.0
        if now is not None:
            self._pay(now)
        return max(0.0, (self._booked - self._paid) / self.rate_per_s)

    def place(self) -> float:
        """Where the latest booking stands, for `remaining`."""
        return self._booked

    def remaining(self, place: float, now: float) -> float:
        """How many seconds longer the booking that stands at `place` has to wait, at the rate of today."""
        if not self.rate_per_s:
            return 0.0
        self._pay(now)
        debt = place - self._paid
        return debt / self.rate_per_s if debt > 0 else 0.0

    def set_rate(self, rate_per_s: float, now: float) -> None:
        """Change the limit. Whoever waits is let go within a second, in order, whatever the old rate was."""
        if rate_per_s == self.rate_per_s:
            return
        if self.rate_per_s:
            self._pay(now)
        else:
            # Nothing was counted without a limit: begin with nothing saved and nothing owed.
            self._paid, self._at = self._booked, now
        self._adopt(rate_per_s)
        if rate_per_s:
            self._paid = min(self._paid, self._booked + self._burst)
            self._paid = max(self._paid, self._booked - rate_per_s * MAX_DEBT_S)
        else:
            self._paid = self._booked

    def _pay(self, now: float) -> None:
        at = self._at
        if at is None:
            self._at = now
        elif now > at:
            paid = self._paid + (now - at) * self.rate_per_s
            most = self._booked + self._burst
            self._paid = paid if paid < most else most
            self._at = now

    def _adopt(self, rate_per_s: float) -> None:
        if rate_per_s < 0:
            raise ValueError(f"a rate is 0 or more, not {rate_per_s}")
        self.rate_per_s = float(rate_per_s)
        self._burst = self.rate_per_s * BURST_S if self._wanted_burst is None else self._wanted_burst


class Limiter:
    """Several limits at once, as of the daemon, of a torrent and of a peer; one for each greenlet that takes.

    How to use it: `n = limiter.chunk(n, now)`, `wait = limiter.take(n, now)`, and while `wait` is above 0:
    sleep `min(wait, MAX_NAP_S)` seconds and ask `wait = limiter.remaining(now)`; then move the `n` bytes.
    """

    __slots__ = ("_places", "buckets")

    def __init__(self, *buckets: TokenBucket) -> None:
        self.buckets = buckets
        self._places: tuple[float, ...] = ()

    @property
    def unlimited(self) -> bool:
        """No limit is set at present."""
        return not any(bucket.rate_per_s for bucket in self.buckets)

    def take(self, n: int, now: float) -> float:
        """Book `n` bytes in every bucket; the seconds to wait before they may move (the longest of all)."""
        longest = 0.0
        for bucket in self.buckets:
            if bucket.rate_per_s:
                wait = bucket.take(n, now)
                longest = max(longest, wait)
        if longest > 0:
            self._places = tuple(bucket.place() for bucket in self.buckets)
        return longest

    def remaining(self, now: float) -> float:
        """How much longer the latest `take` of this limiter has to wait, at the rates of today."""
        waits = [
            bucket.remaining(place, now) for bucket, place in zip(self.buckets, self._places, strict=False)
        ]
        return max(waits, default=0.0)

    def chunk(self, n: int, now: float | None = None) -> int:
        """How much of `n` bytes to take at a time so that waits stay short at the current rates.

        The longer the queue of a bucket, the smaller the chunk, so that a turn comes round in well under a
        second even among hundreds of takers. And while one waits its turn in one bucket its own narrow limit
        recovers: it may take that much more, or it would never reach its limit beside takers with wide ones.
        Without `now` the queues are judged as they were last seen.
        """
        limited = [bucket for bucket in self.buckets if bucket.rate_per_s]
        if not limited:
            return n
        queues = [bucket.queue_s(now) for bucket in limited]
        most = float(n)
        for at, bucket in enumerate(limited):
            elsewhere_s = max(queues[:at] + queues[at + 1 :], default=0.0)
            share = (CHUNK_S + min(elsewhere_s, CATCH_UP_S)) / (CHUNK_S + queues[at])
            most = min(most, bucket.rate_per_s * CHUNK_S * share)
        return min(n, max(CHUNK_MIN_BYTES, int(most)))
