"""How one torrent stands, and what people and trackers are told of it.

What is here reads and tells: nothing waits, and nothing makes the torrent do anything. How it lives is in
`life.py`, what the operator wishes of it in `torrent.py`; each builds on the one before and knows nothing of
the one after.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from microtorrd import logs
from microtorrd.content import Content
from microtorrd.core.core import Core
from microtorrd.core.peerbook import Peerbook
from microtorrd.core.snapshot import Snapshot, State
from microtorrd.core.states import Phase
from microtorrd.core.tiers import place_of
from microtorrd.disk.records import TorrentRecord
from microtorrd.errors import StorageError
from microtorrd.facilities import Facilities
from microtorrd.greenlets import Crew
from microtorrd.host import CoreHost
from microtorrd.net.announcer import AnnounceStats
from microtorrd.proto.bitfield import Bitfield
from microtorrd.rate import TokenBucket
from microtorrd.relocation import Move
from microtorrd.rest import Rest

#: Causes that can go away without the operator: mounts come back, space is made.
PASSING_CAUSES = frozenset(
    {"no_space", "not_found", "not_permitted", "read_only", "missing_root", "io_error"}
)


class Standing:
    """What there is to see of one torrent."""

    def __init__(self, content: Content, facilities: Facilities) -> None:
        record = content.record
        self.content = content
        self.facilities = facilities
        self.info_hash: bytes = record.info_hash
        self._crew: Crew | None = None
        self._up: TokenBucket | None = None
        self._down: TokenBucket | None = None
        self.move: Move | None = None  # under way
        self.host: CoreHost | None = None  # None until `load` is done, and at rest
        self.rest: Rest | None = None
        self._shown: tuple[State, str | None] | None = None
        self._gone = False

    @property
    def short_id(self) -> str:
        """Enough of the id to tell torrents apart."""
        return self.info_hash.hex()[:8]

    @property
    def swarm_ids(self) -> tuple[bytes, ...]:
        """What a handshake may name: the info_hash, and the id_hash where there is another one."""
        id_hash = self.content.record.id_hash
        return (self.info_hash,) if id_hash in {None, self.info_hash} else (self.info_hash, id_hash)

    @property
    def crew(self) -> Crew:
        """What runs for this torrent."""
        if self._crew is None:
            self._crew = self.facilities.crew.child(self.short_id)
        return self._crew

    @property
    def up(self) -> TokenBucket:
        """Its upload limit."""
        if self._up is None:
            self._up = TokenBucket(self.content.record.up_limit)
        return self._up

    @property
    def down(self) -> TokenBucket:
        """Its download limit."""
        if self._down is None:
            self._down = TokenBucket(self.content.record.down_limit)
        return self._down

    @property
    def _log(self) -> logs.Log:
        # Made when there is something to say: thousands of loggers weigh more than making one.
        return logs.get(room="torrent", torrent=self.content.record.name)

    @property
    def record(self) -> TorrentRecord:
        """What is on record."""
        return self.content.record

    @property
    def name(self) -> str:
        """What it is called."""
        return self.content.record.name

    @property
    def core(self) -> Core | None:
        """The core, None while the torrent is being loaded, and at rest."""
        return None if self.host is None else self.host.core

    @property
    def takes_peers(self) -> bool:
        """Whether a connection for this torrent is welcome."""
        if self.rest is not None:
            return not self.rest.paused and not self._gone
        return self.core is not None and self.core.phase is Phase.RUNNING and not self._gone

    @property
    def moving(self) -> bool:
        """Whether its content is on its way to another directory."""
        return self.move is not None

    @property
    def is_loaded(self) -> bool:
        """Its files were looked at."""
        return self.host is not None or self.rest is not None

    @property
    def have(self) -> Bitfield | None:
        """The verified pieces, to be read only; None while the torrent is being loaded."""
        if self.rest is not None:
            return Bitfield.full(self.content.piece_count)
        return None if self.core is None else self.core.have

    @property
    def book(self) -> Peerbook | None:
        """The addresses that it knows, to be read only; None: none."""
        return self.rest.book if self.rest is not None else None if self.core is None else self.core.book

    @property
    def is_public(self) -> bool:
        """Whether others than trackers may lead peers to it (BEP 27)."""
        return not self.content.private

    @property
    def is_parked(self) -> bool:
        """Whether a disk error holds it whose cause may go away by itself."""
        failure = self.content.failure
        return failure is not None and failure.cause in PASSING_CAUSES and not self._gone

    @property
    def writes_no_more(self) -> bool:
        """Whether its files are only read: they are complete, or not ours to write."""
        if self.content.record.seed_only or self.rest is not None:
            return True
        return self.core is not None and self.core.have.complete

    def snapshot(self, *, with_peers: bool = False) -> Snapshot | None:
        """The frozen picture of the core, None while the torrent is being loaded."""
        if self.rest is not None:
            content = self.content
            return self.rest.snapshot(length=content.record.length, piece_count=content.piece_count)
        return (
            None if self.core is None else self.core.snapshot(self.facilities.clock(), with_peers=with_peers)
        )

    def totals(self) -> tuple[int, int]:
        """Payload bytes ever sent and ever received."""
        record, rest, core = self.content.record, self.rest, self.core
        if rest is not None:
            return record.up_total + rest.up_bytes, record.down_total + rest.down_bytes
        if core is None:
            return record.up_total, record.down_total
        return record.up_total + core.swarm.up.total, record.down_total + core.swarm.down.total

    def announce_stats(self) -> AnnounceStats:
        """What a tracker is told of the progress: this run of the daemon, as BEP 3 has it."""
        snapshot, length = self.snapshot(), self.content.record.length
        if snapshot is None:
            return AnnounceStats(uploaded=0, downloaded=0, left=length)
        return AnnounceStats(
            uploaded=snapshot.up_bytes,
            downloaded=snapshot.down_bytes,
            left=length - snapshot.have_bytes,
            wants_nothing=snapshot.done_bytes == snapshot.wanted_bytes and snapshot.have_bytes < length,
        )

    def note(self, kind: str, **facts: Any) -> None:
        """Publish a note of this torrent."""
        notes = self.facilities.notes
        if notes.has_readers:
            notes.publish(kind, info_hash=self.info_hash.hex(), name=self.content.record.name, **facts)

    def hear_tracker(self, kind: str, facts: dict[str, Any]) -> None:
        """A tracker answered, or has begun to fail."""
        if kind == "tracker_failed":
            place = place_of(facts["url"])  # the rest of it may be a passkey
            tracker = None if place is None else f"{place.host}:{place.port}"
            # Thousands of torrents may have the same dead tracker: those who asked in vain say so loudly.
            speak = self._log.warning if facts["asked"] else self._log.debug
            speak(kind, tracker=tracker, dialect=facts["dialect"], reason=facts["message"])
        self.note(kind, **facts)

    def note_progress(self) -> None:
        """Publish how far a transfer or check is."""
        snapshot = self.snapshot()
        if snapshot is None:
            return
        self.note(
            "progress",
            state=snapshot.state,
            done_bytes=snapshot.done_bytes,
            wanted_bytes=snapshot.wanted_bytes,
            size_bytes=self.content.record.length,
            down_bytes_per_s=round(snapshot.down_bytes_per_s),
            up_bytes_per_s=round(snapshot.up_bytes_per_s),
            peers=snapshot.seeders + snapshot.leechers,
            seeders=snapshot.seeders,
            checked_pieces=snapshot.checked_pieces,
            to_check=snapshot.to_check,
        )

    def _show(self, state: State, failure: StorageError | None) -> bool:
        """Tell people of the state, if it is another than before."""
        shown = _shown(state, None if failure is None else str(failure))
        if shown == self._shown:
            return False
        before, self._shown = self._shown, shown
        self.content.failure = failure
        self.note("state_changed", state=state, before=None if before is None else before[0])
        if failure is None:
            # That thousands go on after a start as they were before it is no news.
            if before is None and self.rest is not None:
                self._log.debug("state_changed", state=state)
            else:
                self._log.info("state_changed", state=state)
        else:
            self._log.error("torrent_parked", cause=failure.cause, path=failure.path, reason=str(failure))
        return True


@lru_cache(maxsize=100)
def _shown(state: State, message: str | None) -> tuple[State, str | None]:
    """What people see, as a value that those which look alike share."""
    return state, message
