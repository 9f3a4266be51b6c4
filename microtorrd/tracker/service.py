"""The tracker's rules: what an announce does to a swarm and what its sender gets to know.

Time is handed in; nothing waits unless the store does, and nothing knows HTTP. Whoever breaks a rule gets
ClientError with the reason; nothing was changed then.

| | MicroTorr | BitTorrent |
|---|---|---|
| is forgotten | 30 s after its last request | two intervals after it |
| `started` | enters, or is refreshed | the same |
| `alive` | is refreshed; an error for whom we do not know | an unknown event |
| `alive` in many swarms | is refreshed in each; told where we do not know it | – |
| no event | an error | as `started` |
| `completed` | counts a download and leaves | counts a download and stays |
| `stopped` | leaves; no matter whether it was there | the same |
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

from microtorrd.errors import ClientError, NotAdmitted, TrackerFull, UnknownPeer
from microtorrd.proto.announce import ALIVE_LIFETIME_S, AnnounceRequest, Dialect
from microtorrd.proto.compact import pack, read_host
from microtorrd.proto.scrape import SwarmCounts
from microtorrd.proto.tracker_reply import NOT_IN_SWARM
from microtorrd.tracker.counters import Counters
from microtorrd.tracker.passkeys import Passkeys
from microtorrd.tracker.settings import TrackerSettings
from microtorrd.tracker.source import Source
from microtorrd.tracker.store import Peer, PeerStore, Sample, StoreSize

#: Peers looked at in one step of forgetting: about 2 ms.
EXPIRE_STEP = 1000

#: When a client that found no room may ask again: by then some swarm has been forgotten, or none will be.
FULL_RETRY_MINUTES = 15

_NOTHING = Sample(complete=0, incomplete=0)


class Admission(Protocol):
    """Who may use the tracker."""

    def check(self, swarm_id: bytes, passkey: str | None) -> None:
        """Return for a swarm and a user that are admitted; raises ClientError with the reason for others.

        NotAdmitted is for the swarm alone.
        """
        ...


class OpenAdmission:
    """Everybody, for every swarm."""

    def check(self, swarm_id: bytes, passkey: str | None) -> None:
        """See Admission."""


class TrackerService:
    """What a tracker decides. Every server of the tracker, whatever it speaks, asks this."""

    def __init__(self, settings: TrackerSettings, store: PeerStore, admission: Admission) -> None:
        self._settings = settings
        self._store = store
        self._admission = admission
        self._passkeys: Passkeys | None = None
        self.counters = Counters()
        self._announces = self.counters.announces
        self._lifetime_s: dict[Dialect, int] = {
            "microtorr": ALIVE_LIFETIME_S,
            "bittorrent": 2 * settings.interval,
        }
        self._read_host = lru_cache(maxsize=4096)(read_host)

    @property
    def takes_passkeys(self) -> bool:
        """Whether clients have passkeys; without one no request of theirs is admitted then."""
        return self._passkeys is not None

    def admit_by(self, admission: Admission, passkeys: Passkeys | None = None) -> None:
        """From now on these say who may use the tracker. Who is in and may not stay is forgotten in time."""
        self._admission, self._passkeys = admission, passkeys

    def user_of(self, passkey: str | None) -> str | None:
        """Return whose passkey this is; None for nobody's, and where there are none."""
        return None if passkey is None or self._passkeys is None else self._passkeys.user_of(passkey)

    @property
    def waits(self) -> bool:
        """Whether what needs the store waits for an answer of it."""
        return self._store.waits

    def announce(
        self,
        request: AnnounceRequest,
        dialect: Dialect,
        source: Source,
        now: float,
        *,
        passkey: str | None = None,
    ) -> Sample:
        """Do what the request says and return what its sender may know; raises ClientError.

        Peers are there for those who stay only: compact, or named for the MicroTorr dialect and for
        BitTorrent clients that want a list. The sender is not among them.
        """
        self._announces[dialect][request.event] += 1
        self._admission.check(request.swarm_id, passkey)
        host = self.host_of(request, source)
        leaves = request.event == "stopped" or (request.event == "completed" and dialect == "microtorr")
        if leaves:
            self._store.leave(request.swarm_id, request.peer_id, host, finished=request.event == "completed")
            counts = self._store.counts(request.swarm_id)
            return Sample(counts.complete, counts.incomplete) if counts else _NOTHING
        expires_at = now + self._lifetime_s[dialect]
        if request.event == "alive":
            known = self._store.refresh(
                request.swarm_id, request.peer_id, host, expires_at=expires_at, now=now
            )
            if not known:
                raise UnknownPeer(NOT_IN_SWARM, parameter="peer_id")
            return _NOTHING
        finished = request.event == "completed"
        sample = self._store.enter(
            request.swarm_id,
            Peer(request.peer_id, pack(host, request.port), finished or _says_it_is_complete(request)),
            expires_at=expires_at,
            finished=finished,
            want=self._how_many(request, dialect),
            named=dialect == "microtorr" or not request.compact,
        )
        if sample is None:
            raise TrackerFull(
                "the tracker is full: it takes no more swarms at the moment", retry_in=FULL_RETRY_MINUTES
            )
        return sample

    def keep_alive(
        self, request: AnnounceRequest, source: Source, now: float, *, passkey: str | None = None
    ) -> list[bytes]:
        """Let the peer of a joint keep-alive live on in its swarms, and return those in which it cannot.

        Those are for `started`, one by one, which is where rules are applied and reasons given. Raises
        ClientError where the request itself is wrong.
        """
        self.counters.joint_announces += 1
        self.counters.joint_swarms += len(request.swarm_ids)
        host, expires_at = self.host_of(request, source), now + ALIVE_LIFETIME_S
        swarm_ids = dict.fromkeys(request.swarm_ids)
        admitted = [swarm_id for swarm_id in swarm_ids if self._admits(swarm_id, passkey)]
        known = self._store.refresh_many(admitted, request.peer_id, host, expires_at=expires_at, now=now)
        return [swarm_id for swarm_id in swarm_ids if swarm_id not in known]

    def host_of(self, request: AnnounceRequest, source: Source) -> bytes:
        """Return the host that the request's peer is known by, 4 or 16 bytes; raises ClientError."""
        if not request.ip or not source.may_name_host:
            return source.host
        host = self._read_host(request.ip)
        if host is None:
            raise ClientError("ip must be a numeric address that a peer can have", parameter="ip")
        return host

    def scrape(self, swarm_ids: list[bytes], *, passkey: str | None = None) -> dict[bytes, SwarmCounts]:
        """Return the figures of those of the swarms that are known; raises ClientError.

        Swarms that are not admitted are like unknown ones, as long as there are others.
        """
        self.counters.scrapes += 1
        self.counters.scraped_swarms += len(swarm_ids)
        admitted = []
        refusal: NotAdmitted | None = None
        for swarm_id in dict.fromkeys(swarm_ids):
            try:
                self._admission.check(swarm_id, passkey)
            except NotAdmitted as error:
                refusal = refusal or error
            else:
                admitted.append(swarm_id)
        if refusal is not None and not admitted:
            raise refusal
        return self._store.counts_many(admitted)

    def expire(self, now: float) -> bool:
        """Forget some of those whose time has come; True if there may be more: call again soon."""
        return self._store.expire(now, EXPIRE_STEP) >= EXPIRE_STEP

    def size(self) -> StoreSize:
        """Return how many swarms and peers are known."""
        return self._store.size()

    def complete_peers(self) -> int:
        """Return how many of these peers have everything."""
        return self._store.complete_peers()

    def counts(self, swarm_id: bytes) -> SwarmCounts | None:
        """Return the figures of a swarm for who may see all of them; None if there is no such swarm."""
        return self._store.counts(swarm_id)

    def _admits(self, swarm_id: bytes, passkey: str | None) -> bool:
        try:
            self._admission.check(swarm_id, passkey)
        except ClientError:
            return False
        return True

    def _how_many(self, request: AnnounceRequest, dialect: Dialect) -> int:
        most = self._settings.max_peers
        if request.numwant is not None:
            return min(request.numwant, most)
        # The MicroTorr dialect has no number, and its clients learn of peers from this one reply only.
        return most if dialect == "microtorr" else min(self._settings.default_peers, most)


def _says_it_is_complete(request: AnnounceRequest) -> bool:
    """Tell whether the sender has everything by what it says.

    aria2 says left=0 while it has no more of a torrent than a magnet link; and as a complete peer it would
    not be told of those that have the metadata. Where nothing moved yet, it may as well be that.
    """
    nothing_moved = not (request.downloaded or request.uploaded)
    return request.left == 0 and not (nothing_moved and request.peer_id.startswith(b"A2-"))
