"""RedisStore: swarms in a Redis server, so that several trackers behind one name serve the same ones.

Every operation is one script that Redis runs undivided: trackers need no locks among themselves, and each
answer costs one way there and back, for many swarms as for one. It waits for that (`waits`), so it is asked
from greenlets only. While Redis does not answer nobody waits for it, but one who tries once a second.

What lies where, each name behind the prefix; S is a swarm id, a member a peer id of 20 bytes and its host:

| | |
|---|---|
| `peers:S` | hash: member to port (2 bytes) and `1` where it has everything, `0` where not |
| `0:S` `1:S` `2:S` `3:S` | sorted sets of members by lot: incomplete, complete; then both over IPv6 |
| `downloaded:S` | how often somebody finished |
| `due` | sorted set: S and member, by the time at which it is forgotten |
| `swarms` | set of all S |
| `complete` | how many members have everything |

Times are seconds of the wall clock, which all trackers share; clocks a second apart do no harm. An empty
swarm is no swarm: its keys are gone with its last member. What lost its place in the hash (a key that Redis
evicted, or somebody deleted) is nobody: it is told to none, and forgotten when it is met.

A sample is a window of neighbours, and random because each announce gives its member another lot, as in
MemoryStore. (SRANDMEMBER prefers some to others.) Lots are drawn here: those of a script are always the same.
"""

from __future__ import annotations

from collections.abc import Collection
from random import Random
from time import monotonic
from typing import Any

import redis
from gevent.lock import BoundedSemaphore
from redis.backoff import NoBackoff
from redis.retry import Retry

from microtorrd import logs
from microtorrd.errors import StoreUnreachable
from microtorrd.greenlets import breathe
from microtorrd.proto.compact import ENTRY6_BYTES
from microtorrd.proto.scrape import SwarmCounts
from microtorrd.tracker.store import Peer, Sample, StoreBounds, StoreSize

PREFIX = b"microtorrd:"

#: A Redis in the same house answers within a millisecond; whoever announces waits as long as this.
ANSWER_S = 2.0

#: Connections to Redis at a time; more announces than this at once wait for one another.
CONNECTIONS = 64

#: After Redis did not answer, for how long it is not asked; then by one alone.
REST_S = 1.0

#: Swarm ids that Redis hands over in one go: some 1 ms of our time to read.
_SCANNED = 500

_ID_BYTES = 20

_COMMON = """
local prefix, swarm = ARGV[1], ARGV[2]
local function key(name) return prefix .. name .. ':' .. swarm end
local due, swarms, complete = prefix .. 'due', prefix .. 'swarms', prefix .. 'complete'
local function has_everything(value) return value and string.sub(value, 3) == '1' end
local function pool_of(member, value)
    local number = (#member == 36 and 2 or 0) + (string.sub(value, 3) == '1' and 1 or 0)
    return key(number)
end
-- By where it lies: what the hash had of it may be lost.
local function take_out(member)
    local incomplete = #member == 36 and 2 or 0
    if redis.call('ZREM', key(incomplete + 1), member) == 1 then
        redis.call('DECR', complete)
    else
        redis.call('ZREM', key(incomplete), member)
    end
end
local function forget(member)
    take_out(member)
    redis.call('HDEL', key('peers'), member)
    redis.call('ZREM', due, swarm .. member)
    if redis.call('EXISTS', key('peers')) == 0 then
        redis.call('SREM', swarms, swarm)
        redis.call('DEL', key('downloaded'))
    end
end
"""

_ENTER = (
    _COMMON
    + """
local member, value, expires_at, finished, want = ARGV[3], ARGV[4], ARGV[5], ARGV[6] == '1', tonumber(ARGV[7])
local most_swarms, most_peers, most_in_all = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local lot, start = ARGV[11], tonumber(ARGV[12])
local function count(name) return redis.call('ZCARD', key(name)) end
local is_full = redis.call('ZCARD', due) >= most_in_all
if redis.call('SISMEMBER', swarms, swarm) == 0 then
    if is_full or redis.call('SCARD', swarms) >= most_swarms then return false end
    redis.call('SADD', swarms, swarm)
end
local before = redis.call('HGET', key('peers'), member)
if finished and not has_everything(before) then redis.call('INCR', key('downloaded')) end
local pool = pool_of(member, value)
if before or not (is_full or redis.call('HLEN', key('peers')) >= most_peers) then
    take_out(member)
    if has_everything(value) then redis.call('INCR', complete) end
    redis.call('ZADD', pool, lot, member)
    redis.call('HSET', key('peers'), member, value)
    redis.call('ZADD', due, expires_at, swarm .. member)
end
local is_complete = string.sub(value, 3) == '1'
local found = {}
local function draw(name, number)
    if number <= 0 then return end
    local size, first = count(name), redis.call('ZRANK', key(name), member)
    -- Behind the asker himself, so that he is never told of himself.
    first = first and first + 1 or math.floor(start * size)
    local window = redis.call('ZRANGE', key(name), first, first + number - 1)
    if #window < number then
        for _, other in ipairs(redis.call('ZRANGE', key(name), 0, number - #window - 1)) do
            window[#window + 1] = other
        end
    end
    for _, other in ipairs(window) do
        local known = redis.call('HGET', key('peers'), other)
        if known then
            found[#found + 1] = other
            found[#found + 1] = known
        else
            forget(other)
        end
    end
    want = want - number
end
local families = #member == 36 and {2, 0} or {0, 2}
for _, at in ipairs(families) do
    local there = count(at) - (redis.call('ZSCORE', key(at), member) and 1 or 0)
    local complete_there = is_complete and 0 or count(at + 1)
    local of_complete = math.min(complete_there, math.max(math.floor(want / 2), want - there))
    local of_others = math.min(there, want - of_complete)
    draw(at + 1, of_complete)
    draw(at, of_others)
end
return {count(1) + count(3), count(0) + count(2), found}
"""
)

_REFRESH = (
    _COMMON
    + """
local member, expires_at, now = ARGV[2], ARGV[3], tonumber(ARGV[4])
local lives = {}
for at = 5, #ARGV do
    local score = redis.call('ZSCORE', due, ARGV[at] .. member)
    lives[#lives + 1] = score and tonumber(score) > now and 1 or 0
    if lives[#lives] == 1 then redis.call('ZADD', due, expires_at, ARGV[at] .. member) end
end
return lives
"""
)

_LEAVE = (
    _COMMON
    + """
local member, finished = ARGV[3], ARGV[4] == '1'
local value = redis.call('HGET', key('peers'), member)
if not value then return 0 end
if finished and string.sub(value, 3) ~= '1' then redis.call('INCR', key('downloaded')) end
forget(member)
return 1
"""
)

_COUNTS = (
    _COMMON
    + """
local function count(name) return redis.call('ZCARD', key(name)) end
local counts = {}
for at = 2, #ARGV do
    swarm = ARGV[at]
    counts[#counts + 1] = redis.call('SISMEMBER', swarms, swarm) == 1 and {
        count(1) + count(3), tonumber(redis.call('GET', key('downloaded')) or '0'), count(0) + count(2)
    }
end
return counts
"""
)

_EXPIRE = (
    _COMMON
    + """
local late = redis.call('ZRANGEBYSCORE', due, '-inf', ARGV[3], 'LIMIT', 0, ARGV[4])
for _, one in ipairs(late) do
    swarm = string.sub(one, 1, 20)
    forget(string.sub(one, 21))
end
return #late
"""
)

_log = logs.get(room="tracker")


class RedisStore:
    """Swarms in the Redis server at `url`: `redis://host:port/0`, `rediss://…` or `unix:///path`.

    Connects when it is first asked. Raises ValueError for what is no such URL, and StoreUnreachable wherever
    Redis does not answer, or is no such server.
    """

    waits = True

    def __init__(self, url: str, chance: Random, bounds: StoreBounds | None = None) -> None:
        self._random = chance.random
        self._bounds = bounds or StoreBounds()
        self._is_lost = False
        self._rests_until = 0.0  # by time.monotonic
        self._is_tried = False  # somebody finds out whether it answers again
        self._places = BoundedSemaphore(CONNECTIONS)
        self._pool = pool = _connections(url)
        self._redis = redis.Redis(connection_pool=pool)
        scripts = (_ENTER, _REFRESH, _LEAVE, _COUNTS, _EXPIRE)
        self._enter, self._refresh, self._leave, self._counts, self._expire = (
            self._redis.register_script(script) for script in scripts
        )

    def enter(
        self, swarm_id: bytes, peer: Peer, *, expires_at: float, finished: bool, want: int, named: bool
    ) -> Sample | None:
        """See PeerStore."""
        member, port = peer.peer_id + peer.entry[:-2], peer.entry[-2:]
        value = port + (b"1" if peer.complete else b"0")
        bounds = self._bounds
        answer = self._run(
            self._enter,
            swarm_id,
            member,
            value,
            repr(expires_at),
            int(finished),
            want,
            bounds.swarms,
            bounds.peers_per_swarm,
            bounds.peers,
            repr(self._random()),
            repr(self._random()),
        )
        if answer is None:
            return None
        complete, incomplete, found = answer
        peers = [
            Peer(member[:_ID_BYTES], member[_ID_BYTES:] + value[:2], value[2:] == b"1")
            for member, value in zip(found[::2], found[1::2], strict=True)
        ]
        if named:
            return Sample(complete, incomplete, named=tuple(peers))
        entries = b"".join(peer.entry for peer in peers if len(peer.entry) != ENTRY6_BYTES)
        entries6 = b"".join(peer.entry for peer in peers if len(peer.entry) == ENTRY6_BYTES)
        return Sample(complete, incomplete, entries, entries6)

    def refresh(self, swarm_id: bytes, peer_id: bytes, host: bytes, *, expires_at: float, now: float) -> bool:
        """See PeerStore."""
        return bool(self.refresh_many((swarm_id,), peer_id, host, expires_at=expires_at, now=now))

    def refresh_many(
        self, swarm_ids: Collection[bytes], peer_id: bytes, host: bytes, *, expires_at: float, now: float
    ) -> set[bytes]:
        """See PeerStore."""
        answer = self._run(self._refresh, peer_id + host, repr(expires_at), repr(now), *swarm_ids)
        return {swarm_id for swarm_id, lives in zip(swarm_ids, answer, strict=True) if lives}

    def leave(self, swarm_id: bytes, peer_id: bytes, host: bytes, *, finished: bool) -> bool:
        """See PeerStore."""
        return bool(self._run(self._leave, swarm_id, peer_id + host, int(finished)))

    def counts(self, swarm_id: bytes) -> SwarmCounts | None:
        """See PeerStore."""
        return self.counts_many((swarm_id,)).get(swarm_id)

    def counts_many(self, swarm_ids: Collection[bytes]) -> dict[bytes, SwarmCounts]:
        """See PeerStore."""
        answer = self._run(self._counts, *swarm_ids)
        return {
            swarm_id: SwarmCounts(*counts)
            for swarm_id, counts in zip(swarm_ids, answer, strict=True)
            if counts is not None
        }

    def swarm_ids(self) -> list[bytes]:
        """See PeerStore."""
        found: set[bytes] = set()  # Redis may name one twice
        cursor = 0
        while True:
            cursor, some = self._ask(
                lambda at=cursor: self._redis.sscan(PREFIX + b"swarms", at, count=_SCANNED)
            )
            found.update(some)
            if not cursor:
                return list(found)
            breathe()

    def complete_peers(self) -> int:
        """Return how many of the peers have everything."""
        return int(self._ask(lambda: self._redis.get(PREFIX + b"complete")) or 0)

    def expire(self, now: float, limit: int) -> int:
        """See PeerStore. Each tracker does it, and each peer is forgotten by one of them."""
        return int(self._run(self._expire, b"", repr(now), limit))

    def size(self) -> StoreSize:
        """See PeerStore."""
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.scard(PREFIX + b"swarms")
            pipeline.zcard(PREFIX + b"due")
            swarms, peers = self._ask(pipeline.execute)
        return StoreSize(swarms, peers)

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.disconnect()

    def _run(self, script: Any, *arguments: Any) -> Any:
        return self._ask(lambda: script(keys=(), args=(PREFIX, *arguments)))

    def _ask(self, question: Any) -> Any:
        """Ask, and raise StoreUnreachable where there is no answer."""
        # Who waits for a place looks afterwards whether Redis rests: else each would wait for it in turn.
        if not self._places.acquire(timeout=ANSWER_S):
            raise StoreUnreachable
        try:
            if not self._rests_until:
                return self._asked(question)
            if self._is_tried or monotonic() < self._rests_until:
                raise StoreUnreachable
            self._is_tried = True
            try:
                return self._asked(question)
            finally:
                self._is_tried = False
        finally:
            self._places.release()

    def _asked(self, question: Any) -> Any:
        try:
            answer = question()
        except (redis.RedisError, OSError) as error:
            # One that refuses something (it is full, or we have no right to it) answers, and may do the rest.
            self._rests_until = 0.0 if isinstance(error, redis.ResponseError) else monotonic() + REST_S
            if not self._is_lost:
                self._is_lost = True
                _log.error("tracker_store_lost", reason=str(error))
            raise StoreUnreachable from error
        self._rests_until = 0.0
        if self._is_lost:
            self._is_lost = False
            _log.info("tracker_store_found")
        return answer


def _connections(url: str) -> Any:
    """Return the pool of connections, none of which is made yet; raises ValueError."""
    if "?" in url or "#" in url:
        # These would be arguments of redis-py, of which some break what is sent here.
        raise ValueError("the URL has an address only, nothing from ? or # on (in a password: %3F, %23)")
    pool = redis.BlockingConnectionPool.from_url(
        url,
        protocol=2,  # which Redis 5 speaks, too
        max_connections=CONNECTIONS,
        timeout=ANSWER_S,
        socket_timeout=ANSWER_S,
        socket_connect_timeout=ANSWER_S,
        # A connection kept open may have been closed by the other side. Who is silent is not asked twice.
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )
    try:
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, redis.RedisError) as error:
        raise ValueError(str(error)) from error
    return pool
