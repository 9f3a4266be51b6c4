"""Who is in which swarm: the PeerStore protocol, and MemoryStore, the one that a tracker has by itself.

A store keeps, for each swarm, peers with their addresses and the time at which they will be forgotten. It
knows no dialects, no HTTP and no clock. One that lies elsewhere (`redis_store.py`) waits, and says so. Every
store passes the same contract tests.

Rules that MemoryStore keeps:
- An announce costs the same in a swarm of three and of a million: no scan, no copy of a swarm.
- A member lies in exactly one pool (complete or not, IPv4 or IPv6), `pool.members[m.index] is m`, and
  `pool.raw` has its compact entry at the same index; so a sample for a compact reply is a slice of bytes.
- A sample is a window of neighbours. It is random because each announce moves its peer to a random place.
- A member lies in exactly one time bucket, never a later one than that of its time. Buckets are looked into
  when they are due, and who has been seen meanwhile moves on to a later one.
- Empty swarms are freed. Swarms, peers of a swarm and peers in all are bounded.

A peer is known by its id *and* its host: nobody can remove or redirect a peer from another address, and one
that announces over IPv4 and over IPv6 is found over both.
"""

from __future__ import annotations

from collections.abc import Collection
from heapq import heappop, heappush
from math import ceil
from random import Random
from typing import NamedTuple, Protocol

from microtorrd.proto.compact import ENTRY6_BYTES, ENTRY_BYTES
from microtorrd.proto.scrape import SwarmCounts


class Peer(NamedTuple):
    """A peer of a swarm."""

    peer_id: bytes  # 20
    entry: bytes  # host and port, compact: 6 or 18 bytes
    complete: bool  # it has everything


class Sample(NamedTuple):
    """What a peer that announces gets to know about its swarm, itself not among the peers."""

    complete: int  # in the whole swarm, the asker included
    incomplete: int
    entries: bytes = b""  # compact IPv4 peers; empty where `named` is asked for
    entries6: bytes = b""
    named: tuple[Peer, ...] = ()


class StoreSize(NamedTuple):
    """How much is in a store."""

    swarms: int
    peers: int


class StoreBounds(NamedTuple):
    """How much may be in a store; a peer takes about 400 bytes of memory."""

    swarms: int = 100_000
    peers_per_swarm: int = 50_000
    peers: int = 500_000


class PeerStore(Protocol):
    """What a tracker needs to remember its swarms. Times are seconds of one clock, handed in.

    Where a store lies elsewhere, its methods raise StoreUnreachable when it cannot be reached.
    """

    #: Its methods wait for an answer: they are for greenlets, and never for a callback of the loop. Others
    #: may share what is in it, so its times are those of the wall clock.
    waits: bool

    def enter(
        self, swarm_id: bytes, peer: Peer, *, expires_at: float, finished: bool, want: int, named: bool
    ) -> Sample | None:
        """Add the peer or refresh it, and return up to `want` others.

        A complete peer is told incomplete ones only. Hosts of the asker's family come first. `named` wants
        peers with their ids instead of compact ones. `finished` counts a download if the peer was not
        complete before. A peer that does not fit into its full swarm is told the others all the same; None
        means that there is no room for another swarm.
        """
        ...

    def refresh(self, swarm_id: bytes, peer_id: bytes, host: bytes, *, expires_at: float, now: float) -> bool:
        """Let a peer that is known, and not due to be forgotten, live on; False if there is none."""
        ...

    def refresh_many(
        self, swarm_ids: Collection[bytes], peer_id: bytes, host: bytes, *, expires_at: float, now: float
    ) -> set[bytes]:
        """Do so in each of some hundred swarms, and return those in which there is one."""
        ...

    def leave(self, swarm_id: bytes, peer_id: bytes, host: bytes, *, finished: bool) -> bool:
        """Forget the peer; False if it was not known. `finished` counts a download as `enter` does."""
        ...

    def counts(self, swarm_id: bytes) -> SwarmCounts | None:
        """Return the figures of a swarm; None if there is no such swarm."""
        ...

    def counts_many(self, swarm_ids: Collection[bytes]) -> dict[bytes, SwarmCounts]:
        """Return the figures of those of some hundred swarms that there are, in their order."""
        ...

    def swarm_ids(self) -> list[bytes]:
        """Return the ids of all swarms, in a list of the caller's own.

        In no order; one that comes or goes meanwhile may be among them or not.
        """
        ...

    def expire(self, now: float, limit: int) -> int:
        """Forget peers whose time has come, looking at no more than `limit`; how many it looked at."""
        ...

    def size(self) -> StoreSize:
        """Return how much is in the store."""
        ...

    def close(self) -> None:
        """Let go of what it holds outside of this process."""
        ...

    def complete_peers(self) -> int:
        """Return how many of the peers have everything."""
        ...


class _Member:
    """A peer in a swarm. Its id is the first 20 bytes of `key`, its host the rest."""

    __slots__ = ("bucket", "entry", "expires_at", "index", "key", "pool", "swarm")

    def __init__(self, swarm: _Swarm, key: bytes, entry: bytes, expires_at: float) -> None:
        self.swarm = swarm
        self.key = key
        self.entry = entry
        self.expires_at = expires_at
        self.bucket = 0  # the number of its time bucket
        self.pool = _NO_POOL
        self.index = 0  # in its pool


class _Pool:
    """Members of one kind, with their compact entries side by side."""

    __slots__ = ("complete", "entry_bytes", "members", "raw")

    def __init__(self, *, complete: bool, entry_bytes: int) -> None:
        self.complete = complete
        self.entry_bytes = entry_bytes
        self.members: list[_Member] = []
        self.raw = bytearray()

    def add(self, member: _Member) -> None:
        member.pool = self
        member.index = len(self.members)
        self.members.append(member)
        self.raw += member.entry

    def remove(self, member: _Member) -> None:
        """Take the member out; the last one fills the gap."""
        last = self.members.pop()
        if last is not member:
            self.members[member.index] = last
            last.index = member.index
            self.write(last)
        del self.raw[-self.entry_bytes :]

    def move(self, member: _Member, index: int) -> None:
        """Let the member and the one at `index` change places."""
        other = self.members[index]
        if other is not member:
            self.members[member.index], self.members[index] = other, member
            other.index, member.index = member.index, index
            self.write(member)
            self.write(other)

    def write(self, member: _Member) -> None:
        start = member.index * self.entry_bytes
        self.raw[start : start + self.entry_bytes] = member.entry

    def window(self, start: int, count: int) -> bytes:
        """Return `count` entries from `start` on, going round at the end."""
        width, beyond = self.entry_bytes, start + count - len(self.members)
        if beyond <= 0:
            return bytes(self.raw[start * width : (start + count) * width])
        return bytes(self.raw[start * width :] + self.raw[: beyond * width])

    def named_window(self, start: int, count: int) -> list[Peer]:
        """Return `count` peers from `start` on, going round at the end."""
        beyond = start + count - len(self.members)
        found = self.members[start : start + count] + self.members[: max(beyond, 0)]
        return [Peer(member.key[:20], member.entry, self.complete) for member in found]


#: Stands for a pool that a swarm does not have (yet). Nothing is ever added to it.
_NO_POOL = _Pool(complete=False, entry_bytes=ENTRY_BYTES)


class _Swarm:
    """The members of one swarm, and the same in up to four pools."""

    __slots__ = ("downloaded", "members", "pools", "swarm_id")

    def __init__(self, swarm_id: bytes) -> None:
        self.swarm_id = swarm_id
        self.downloaded = 0
        self.members: dict[bytes, _Member] = {}
        # Incomplete and complete ones over IPv4, then over IPv6; made when needed: most swarms are tiny.
        self.pools = [_NO_POOL, _NO_POOL, _NO_POOL, _NO_POOL]

    def pool_for(self, peer: Peer) -> _Pool:
        number = 2 * (len(peer.entry) == ENTRY6_BYTES) + peer.complete
        if self.pools[number] is _NO_POOL:
            self.pools[number] = _Pool(complete=peer.complete, entry_bytes=len(peer.entry))
        return self.pools[number]

    @property
    def incomplete(self) -> int:
        return len(self.pools[0].members) + len(self.pools[2].members)

    @property
    def complete(self) -> int:
        return len(self.pools[1].members) + len(self.pools[3].members)


#: How exactly peers are forgotten, seconds: they may be told that much longer.
_BUCKET_S = 1.0


class MemoryStore:
    """Swarms in the memory of this process."""

    waits = False

    def __init__(self, chance: Random, bounds: StoreBounds | None = None) -> None:
        self._random = chance.random
        self._bounds = bounds or StoreBounds()
        self._swarms: dict[bytes, _Swarm] = {}
        self._peers = 0
        self._complete = 0  # of them
        self._buckets: dict[int, set[_Member]] = {}
        self._due: list[int] = []  # a heap of the numbers of the buckets

    def enter(
        self, swarm_id: bytes, peer: Peer, *, expires_at: float, finished: bool, want: int, named: bool
    ) -> Sample | None:
        """See PeerStore."""
        swarm = self._swarms.get(swarm_id)
        if swarm is None:
            if len(self._swarms) >= self._bounds.swarms or self._peers >= self._bounds.peers:
                return None
            swarm = self._swarms[swarm_id] = _Swarm(swarm_id)
        key = peer.peer_id + peer.entry[:-2]
        member = swarm.members.get(key)
        if finished and (member is None or not member.pool.complete):
            swarm.downloaded += 1
        if member is not None:
            self._update(member, peer)
            self._postpone(member, expires_at)
        elif len(swarm.members) < self._bounds.peers_per_swarm and self._peers < self._bounds.peers:
            member = swarm.members[key] = _Member(swarm, key, peer.entry, expires_at)
            swarm.pool_for(peer).add(member)
            self._peers += 1
            self._complete += peer.complete
            self._schedule(member)
        if member is not None:
            member.pool.move(member, int(self._random() * len(member.pool.members)))
        return self._sample(swarm, peer, member, want, named)

    def refresh(self, swarm_id: bytes, peer_id: bytes, host: bytes, *, expires_at: float, now: float) -> bool:
        """See PeerStore."""
        member = self._find(swarm_id, peer_id, host)
        if member is None or member.expires_at <= now:
            return False
        self._postpone(member, expires_at)
        return True

    def refresh_many(
        self, swarm_ids: Collection[bytes], peer_id: bytes, host: bytes, *, expires_at: float, now: float
    ) -> set[bytes]:
        """See PeerStore."""
        return {
            swarm_id
            for swarm_id in swarm_ids
            if self.refresh(swarm_id, peer_id, host, expires_at=expires_at, now=now)
        }

    def leave(self, swarm_id: bytes, peer_id: bytes, host: bytes, *, finished: bool) -> bool:
        """See PeerStore."""
        member = self._find(swarm_id, peer_id, host)
        if member is None:
            return False
        if finished and not member.pool.complete:
            member.swarm.downloaded += 1
        self._buckets[member.bucket].discard(member)
        self._forget(member)
        return True

    def counts(self, swarm_id: bytes) -> SwarmCounts | None:
        """See PeerStore."""
        swarm = self._swarms.get(swarm_id)
        return None if swarm is None else SwarmCounts(swarm.complete, swarm.downloaded, swarm.incomplete)

    def counts_many(self, swarm_ids: Collection[bytes]) -> dict[bytes, SwarmCounts]:
        """See PeerStore."""
        counts_of = self.counts
        return {swarm_id: counts for swarm_id in swarm_ids if (counts := counts_of(swarm_id)) is not None}

    def swarm_ids(self) -> list[bytes]:
        """See PeerStore."""
        return list(self._swarms)

    def expire(self, now: float, limit: int) -> int:
        """See PeerStore."""
        looked_at = 0
        while self._due and self._due[0] * _BUCKET_S <= now and looked_at < limit:
            bucket = self._buckets[self._due[0]]
            while bucket and looked_at < limit:
                member = bucket.pop()
                looked_at += 1
                if member.expires_at <= now:
                    self._forget(member)
                else:
                    self._schedule(member)  # into a later bucket than this one: this loop ends
            if not bucket:
                del self._buckets[heappop(self._due)]
        return looked_at

    def size(self) -> StoreSize:
        """See PeerStore."""
        return StoreSize(len(self._swarms), self._peers)

    def close(self) -> None:
        """See PeerStore. It holds nothing."""

    def complete_peers(self) -> int:
        """See PeerStore."""
        return self._complete

    def check(self) -> None:
        """Recount everything and assert the rules at the top of this file; for tests."""
        everybody = {member for swarm in self._swarms.values() for member in swarm.members.values()}
        assert len(everybody) == self._peers
        assert sum(member.pool.complete for member in everybody) == self._complete
        assert sorted(self._due) == sorted(self._buckets)
        assert sum(len(bucket) for bucket in self._buckets.values()) == self._peers
        for swarm in self._swarms.values():
            assert swarm.members
            assert sum(len(pool.members) for pool in swarm.pools) == len(swarm.members)
            for pool in swarm.pools:
                assert bytes(pool.raw) == b"".join(member.entry for member in pool.members)
        for member in everybody:
            assert member.swarm.members[member.key] is member
            assert any(pool is member.pool for pool in member.swarm.pools)
            assert member.pool.members[member.index] is member
            assert len(member.entry) == member.pool.entry_bytes
            assert member.key[20:] == member.entry[:-2]
            assert member in self._buckets[member.bucket]
            assert (member.bucket - 1) * _BUCKET_S < member.expires_at

    def _find(self, swarm_id: bytes, peer_id: bytes, host: bytes) -> _Member | None:
        swarm = self._swarms.get(swarm_id)
        return None if swarm is None else swarm.members.get(peer_id + host)

    def _update(self, member: _Member, peer: Peer) -> None:
        """Give the member the port and the completeness that it has now."""
        if member.pool.complete != peer.complete:
            self._complete += 1 if peer.complete else -1
            member.pool.remove(member)
            member.entry = peer.entry
            member.swarm.pool_for(peer).add(member)
        elif member.entry != peer.entry:
            member.entry = peer.entry
            member.pool.write(member)

    def _forget(self, member: _Member) -> None:
        """Take the member out of its swarm, and out of existence an empty swarm. Not out of its bucket."""
        member.pool.remove(member)
        del member.swarm.members[member.key]
        self._peers -= 1
        self._complete -= member.pool.complete
        if not member.swarm.members:
            del self._swarms[member.swarm.swarm_id]

    def _schedule(self, member: _Member) -> None:
        """Put the member into the bucket of its time."""
        member.bucket = number = ceil(member.expires_at / _BUCKET_S)
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = set()
            heappush(self._due, number)
        bucket.add(member)

    def _postpone(self, member: _Member, expires_at: float) -> None:
        """Set the member's time. It stays in its bucket, unless its time is now before that."""
        member.expires_at = expires_at
        if expires_at <= (member.bucket - 1) * _BUCKET_S:
            self._buckets[member.bucket].discard(member)
            self._schedule(member)

    def _sample(self, swarm: _Swarm, peer: Peer, asker: _Member | None, want: int, named: bool) -> Sample:
        """Choose up to `want` peers: the asker's family of addresses first, complete ones and others by half.

        The asker has just moved to a random place: the window of its pool begins behind it, so that it is
        never told itself.
        """
        own_pool = None if asker is None else asker.pool
        windows: list[tuple[_Pool, int, int]] = []
        for at in (2, 0) if len(peer.entry) == ENTRY6_BYTES else (0, 2):
            incompletes, completes = swarm.pools[at], swarm.pools[at + 1]
            there = len(incompletes.members) - (own_pool is incompletes)
            complete_there = 0 if peer.complete else len(completes.members)
            of_complete = min(complete_there, max(want // 2, want - there))
            for pool, count in (completes, of_complete), (incompletes, min(there, want - of_complete)):
                if count > 0:
                    size = len(pool.members)
                    start = asker.index + 1 if asker and pool is own_pool else int(self._random() * size)
                    windows.append((pool, start, count))
                    want -= count
        if named:
            found = [other for pool, start, count in windows for other in pool.named_window(start, count)]
            return Sample(swarm.complete, swarm.incomplete, named=tuple(found))
        entries, entries6 = b"", b""
        for pool, start, count in windows:
            if pool.entry_bytes == ENTRY_BYTES:
                entries += pool.window(start, count)
            else:
                entries6 += pool.window(start, count)
        return Sample(swarm.complete, swarm.incomplete, entries, entries6)
