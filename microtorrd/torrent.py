"""One torrent of the session: how it comes to life, what the operator wishes of it, and how it ends.

It brings together the record and its bytes (`content.py`), the core with its surroundings (`host.py`) and the
announcer. Until it is loaded there is no core, and wishes are kept for it. A torrent that has everything and
talks to nobody has none either: it is at rest (`rest.py`) until somebody comes. Methods that wait say so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from gevent import Greenlet
from gevent.lock import BoundedSemaphore

from microtorrd import __version__, logs
from microtorrd.choosing import rechosen
from microtorrd.content import Content, Trusted
from microtorrd.core import events
from microtorrd.core.core import Core, Phase
from microtorrd.core.events import Fact, Snapshot, TorrentSettings
from microtorrd.core.peerbook import Peerbook
from microtorrd.core.tiers import place_of
from microtorrd.disk.state import TorrentRecord
from microtorrd.errors import MicrotorrError, NotAllowed, StorageError
from microtorrd.facilities import Facilities
from microtorrd.greenlets import Crew
from microtorrd.host import CoreHost
from microtorrd.ledger import Page
from microtorrd.net.announcer import Announcer, AnnounceStats
from microtorrd.net.connect import Joined
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.metainfo import Metainfo
from microtorrd.proto.selection import Priority
from microtorrd.rate import TokenBucket
from microtorrd.relocation import relocate
from microtorrd.rest import Rest, may_rest, untouched

#: Causes after which files are looked at again before anything of them is offered.
SUSPECT_CAUSES = frozenset({"changed", "not_found", "mismatch", "id_hash_mismatch", "io_error"})

#: Causes that can go away without the operator: mounts come back, space is made.
PASSING_CAUSES = frozenset(
    {"no_space", "not_found", "not_permitted", "read_only", "missing_root", "io_error"}
)


#: A failure so soon after a recovery is a relapse, and doubles the time until the next look. A disk that can
#: be listed and not read would otherwise be tried, and what it cannot take fetched, every few seconds.
RELAPSE_S = 120.0
PAUSE_FIRST_S = 10.0
PAUSE_MOST_S = 600.0


class Torrent:
    """One torrent. Made at once; `load` makes it work."""

    announcer: Announcer

    def __init__(self, content: Content, facilities: Facilities) -> None:
        record = content.record
        self.content = content
        self.facilities = facilities
        self.info_hash: bytes = record.info_hash
        self._crew: Crew | None = None
        self._up: TokenBucket | None = None
        self._down: TokenBucket | None = None
        self.moving = False
        self.move_progress = (0, 0)  # bytes done and to do
        self.host: CoreHost | None = None  # None until `load` is done, and at rest
        self.rest: Rest | None = None
        self._kept: tuple[Fact, ...] = ()  # facts that came before the core was there
        self._shown: tuple[events.State, str | None] | None = None
        self._probing = False
        self._probe_at = 0.0  # not looked at before this
        self._probe_pause_s = 0.0
        self._recovered_at: float | None = None
        self._unopened = False  # the files could not be looked at yet
        self._gone = False
        self._choices = 0  # of files, while this daemon runs
        self._choosing: Greenlet | None = None  # brings files to where the choices want them
        self._choice_turn: BoundedSemaphore | None = None  # made when first needed

    # --------------------------------------------------------------------------------------- reading

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
    def is_loaded(self) -> bool:
        """Its files were looked at."""
        return self.host is not None or self.rest is not None

    @property
    def have(self) -> Bitfield | None:
        """The verified pieces, to be read only; None while the torrent is being loaded."""
        if self.rest is not None:
            return Bitfield.full(self.content.geometry.piece_count)
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
            return self.rest.snapshot(self.content.geometry)
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

    def hear_of(self, addresses: list[events.Address]) -> None:
        """A tracker knows peers."""
        self.post((events.AddressesFound(addresses, "tracker"),))

    def _hear_failure(self, error: StorageError) -> None:
        """What is on record could not be brought up to date with the disk."""
        self.post((events.StorageFailed(error),))

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

    # ------------------------------------------------------------------------------------ life, death

    def load(self, metainfo: Metainfo | None, looked: Trusted | StorageError | None = None) -> None:
        """Look at what is on disk, make the core, and let the torrent run if it should. Waits for the disk.

        A disk that cannot be read parks the torrent; it is probed like any other parked one. `looked` is what
        `Content.look` found or raised, where somebody called it already: nothing is waited for then.
        """
        failure: StorageError | None = None
        try:
            if isinstance(looked, StorageError):
                raise looked
            trusted = self.content.open(metainfo) if looked is None else self.content.opened(looked)
        except StorageError as error:
            failure, trusted = error, Trusted(self.content.claimed)
        self._unopened = failure is not None
        self._begin(trusted, failure)

    def _begin(self, trusted: Trusted, failure: StorageError | None) -> None:
        """Make the core and tell it what to do."""
        record = self.content.record
        wishes: list[Fact] = []
        if trusted.recheck_all and record.stopped:
            wishes.append(events.RecheckWanted(range(self.content.geometry.piece_count)))
        elif trusted.recheck:
            wishes.append(events.RecheckWanted(trusted.recheck))
        if not record.stopped:
            wishes.append(events.Started(recheck=trusted.recheck_all))
            if failure is None and not (trusted.have.complete and trusted.have.count):
                failure = self._prepare()
        if failure is not None:
            wishes.append(events.StorageFailed(failure))
        if self._gone or self.facilities.crew.stopped:
            return
        self.announcer = self.facilities.make_announcer(
            self.content.trackers,
            info_hash=record.info_hash,
            id_hash=record.id_hash,
            listener=self,
        )
        if wishes in ([], [events.Started()]) and not self._kept and self._is_settled(trusted):
            self._go_on_at_rest(untouched(paused=record.stopped))
            return
        core = self._make_core(trusted.have)
        if not self._unopened:
            self._open_page(core, sync_all=trusted.sync_first)
        self.host = CoreHost(core, self, record.name)
        kept, self._kept = self._kept, ()
        self.host.act([*wishes, *kept])
        if self._choices:  # made meanwhile
            self._begin_to_follow()

    def _is_settled(self, trusted: Trusted) -> bool:
        """All is there, confirmed, and on record: a core would only wait for peers."""
        record, have = self.content.record, trusted.have
        if trusted.sync_first or record.dirty or not (record.confirmed or record.id_hash is None):
            return False
        if record.selection:
            return False  # what is wanted is to be reckoned with
        return have.complete and have.count > 0

    def _go_on_at_rest(self, rest: Rest) -> None:
        """Do what a core would do that begins, or ends, with nobody to talk to."""
        self._rest(rest)
        if rest.paused:
            self.announcer.stop()
        else:
            self.announcer.start()
        self._show(rest.state, None)

    def _rest(self, rest: Rest) -> None:
        """Nothing is kept from now on but what it takes to wake up."""
        self.host, self.rest = None, rest
        self.content.rest()
        self._up = self._down = None
        if self._crew is not None and not self._crew.alive():
            self._crew = None

    def _wake(self) -> None:
        """Somebody comes, or something is wished: make the core again, as it was."""
        if self.rest is None or self._gone:
            return
        rest, self.rest = self.rest, None
        core = self._make_core(Bitfield.full(self.content.geometry.piece_count), rest.book)
        rest.give_to(core)
        self._open_page(core, sync_all=False)
        self.host = CoreHost(core, self, self.content.record.name)
        self.host.act(() if rest.paused else (events.Started(),))

    def _go_to_rest(self) -> None:
        """Nothing has happened for a while: rest, as soon as everything is on record."""
        host, ledger = self.host, self.facilities.ledger
        if host is None or not self._may_rest(host.core):
            self.facilities.active.discard(self)
        elif ledger.is_settled(self.info_hash):
            self.facilities.active.discard(self)
            uploaded, downloaded = self.totals()
            ledger.record_totals(((self.info_hash, downloaded, uploaded),))
            ledger.close_page(self.info_hash)
            self._rest(Rest.of(host.core))

    def _may_rest(self, core: Core) -> bool:
        record = self.content.record
        is_as_wished = record.stopped == (core.phase is Phase.STOPPED)
        is_confirmed = record.confirmed or record.id_hash is None
        is_busy = self.moving or self._gone or self.content.is_busy or self._is_choosing
        if record.selection:
            return False  # what is wanted is to be reckoned with
        return is_as_wished and is_confirmed and not is_busy and may_rest(core)

    def _make_core(self, have: Bitfield, book: Peerbook | None = None) -> Core:
        record, facilities = self.content.record, self.facilities
        return Core(
            geometry=self.content.geometry,
            have=have,
            settings=facilities.swarm,
            torrent=settings_of(record),
            lend=self._lend,
            chance=facilities.chance,
            client=f"microtorrd/{__version__}",
            listen_port=facilities.listen_port,
            has_id_hash=record.id_hash is not None and not record.confirmed,
            info_hash=record.info_hash,
            priorities=self.content.priorities(),
            private=self.content.private,
            metadata_bytes=self.content.info_bytes,
            peer_id=facilities.peer_id,
            name=self.content.path,
            ourselves=facilities.ourselves,
            book=book,
        )

    def _open_page(self, core: Core, *, sync_all: bool) -> None:
        page = Page(
            self.info_hash,
            files=self.content.files,
            have=core.have.to_bytes,
            on_failure=self._hear_failure,
            dirty=self.content.record.dirty,
        )
        self.facilities.ledger.open_page(page, sync_all=sync_all)

    def _prepare(self) -> StorageError | None:
        """Make files before the first write, and where there is nothing to write. Waits."""
        if self.writes_no_more and self.content.geometry.piece_count:
            return None
        try:
            self.content.prepare()
        except StorageError as error:
            return error
        self._doubt()
        return None

    def _doubt(self) -> None:
        """Have read again what may not be what it was since the files were arranged."""
        doubtful = self.content.take_doubtful()
        if doubtful:
            self.post((events.RecheckWanted(doubtful),))

    def halt(self) -> None:
        """Say goodbye to peers and trackers; what is on record stays."""
        if self.rest is not None:
            self._gone = True  # nobody wakes it up any more
            self.announcer.stop()
        elif self.host is not None:
            self.host.post((events.Stopped(),))

    def close(self) -> None:
        """Let go of everything that runs for this torrent. Waits a moment for its greenlets."""
        self._gone = True
        self.facilities.active.discard(self)
        self.content.close()
        if self._crew is not None:
            self._crew.stop(1.0)

    def bury(self, data: bool) -> None:
        """After it was struck off the record: end what runs, and delete its files where that was wished."""
        self.close()
        if self.is_loaded:
            self.announcer.depart()
        if data:
            try:
                self.content.delete()
            except StorageError as error:
                self._log.error("data_not_deleted", cause=error.cause, path=error.path, reason=str(error))
                self.note("storage_failed", cause=error.cause, path=error.path, message=str(error))

    # ----------------------------------------------------------------------------- what comes from outside

    def post(self, facts: Sequence[Fact]) -> None:
        """Hand facts to the core, or keep them until there is one."""
        self._wake()
        if self.host is None:
            self._kept = (*self._kept, *facts)
        else:
            self.host.post(facts)

    def _act(self, fact: Fact) -> None:
        """The same for a wish of the operator's, who is to see the outcome in the answer."""
        self._wake()
        if self.host is None:
            self._kept = (*self._kept, fact)
        else:
            self.host.act((fact,))

    def adopt(self, joined: Joined) -> None:
        """Take over a connection whose handshake is done."""
        if self.takes_peers:
            self._wake()
        if self.host is None or not self.takes_peers:
            joined.sock.close()
        else:
            self.host.adopt(joined)

    def tick(self) -> None:
        """Comes about once a second while the torrent is among the active ones."""
        host = self.host
        if host is None:
            return
        if not host.core.idle or host.connected or host.web_seeds.expectant:
            host.post((events.Ticked(),))
        elif host.is_asleep:
            self._go_to_rest()

    def probe(self) -> None:
        """See, behind this call, whether the cause of the failure is gone, and go on if so."""
        if not self._probing and self.facilities.clock() >= self._probe_at:
            self._probing = True
            self.crew.spawn("probe", self._probe)

    def _probe(self) -> None:
        try:
            if self._unopened:
                self._reopen()
            else:
                snapshot = self.snapshot()
                missing = 0 if snapshot is None else snapshot.wanted_bytes - snapshot.done_bytes
                self.content.probe(missing)
                self._doubt()
                self._recovered_at = self.facilities.clock()
                # What was written since the last sync may be lost with whatever failed.
                doubtful = self.facilities.ledger.unsynced_pieces(self.info_hash)
                self.post((events.RecheckWanted(doubtful), events.StorageRecovered()))
        except StorageError as error:
            self._log.debug("still_parked", cause=error.cause, reason=str(error))
        finally:
            self._probing = False

    def _put_off_probe(self) -> None:
        """It has failed: each time that this happens soon after it had recovered, let it rest for longer."""
        now = self.facilities.clock()
        relapsed = self._recovered_at is not None and now - self._recovered_at < RELAPSE_S
        pause_s = max(PAUSE_FIRST_S, 2 * self._probe_pause_s) if relapsed else 0.0
        self._probe_pause_s = min(pause_s, PAUSE_MOST_S)
        self._probe_at = now + self._probe_pause_s

    def _reopen(self) -> None:
        """Look again at files that could not be looked at before. Waits. Raises StorageError."""
        trusted = self.content.open(None)
        self._unopened = False
        self.host = None
        self._begin(trusted, None)

    def _lend(self, size: int) -> memoryview | None:
        return self.facilities.lend(size, self)

    # ----------------------------------------------------------------------------- what the operator wishes

    def pause(self) -> None:
        """Stop until resumed. Waits for the record."""
        self._change(stopped=True)
        if self.rest is not None:
            self._go_on_at_rest(self.rest.when(paused=True))
        else:
            self._act(events.Stopped())

    def resume(self) -> None:
        """Run; a torrent that is parked is tried again. Waits for the record."""
        self.refuse_while_moving()
        failure = self.content.failure
        self._change(stopped=False)
        if self.rest is not None:
            self._go_on_at_rest(self.rest.when(paused=False))
        if self.host is None or self.moving:  # that has begun meanwhile, and goes on by itself when it ends
            return
        self._probe_at = 0.0
        if self._unopened:
            self.probe()
            return
        if failure is not None:
            self.content.doubt_files()
        if failure is None and (self.writes_no_more or self.content.is_ready_to_write):
            self._act(events.Started())
        else:
            self.crew.spawn("resume", self._resume, failure is not None and failure.cause in SUSPECT_CAUSES)

    def _resume(self, recheck: bool) -> None:
        """Make files where they are needed, then let the core run."""
        failure = self._prepare()
        if self.moving:  # nothing may be written meanwhile; it is taken up again at the end of that
            return
        if failure is not None:
            self.post((events.Started(), events.StorageFailed(failure)))
        else:
            self.post((events.Started(recheck=recheck),))

    def refuse_while_moving(self) -> None:
        """Raises NotAllowed."""
        if self.moving:
            raise NotAllowed(f"{self.content.record.name!r} is being moved", info_hash=self.info_hash.hex())

    def seed(self, super_seed: bool | None = None) -> None:
        """Run, and go on seeding when whole; `super_seed` None: as before. Waits for the record."""
        how = {} if super_seed is None else {"super_seed": super_seed}
        self.choose(seed_after_download=True, **how)
        self.resume()

    def verify(self) -> None:
        """Check all content again."""
        self._act(events.RecheckWanted(range(self.content.geometry.piece_count), at_once=True))

    def reannounce(self) -> None:
        """Ask the trackers for peers now, as far as they allow."""
        if self.is_loaded:
            self.announcer.reannounce(insist=True)

    def choose(self, **fields: Any) -> None:
        """Change run-time choices of this torrent. Waits for the record."""
        self._change(**fields)
        record, now = self.content.record, self.facilities.clock()
        if self.rest is None:  # else all of it is read when it wakes up
            self.up.set_rate(record.up_limit, now)
            self.down.set_rate(record.down_limit, now)
            self._act(events.SettingsChanged(settings_of(record)))
        if "up_limit" in fields or "down_limit" in fields:
            self.note("limits_changed", down=record.down_limit, up=record.up_limit)

    def choose_files(self, words: Sequence[str], priority: Priority) -> None:
        """Want these files more, less or not at all. Waits for the record; files come and go behind this
        call. Raises InvalidParams, NotAllowed."""
        if self._choice_turn is None:
            self._choice_turn = BoundedSemaphore()
        # One after the other: each choice is a change of what the one before it has put on record.
        with self._choice_turn:
            self._choose_files(words, priority)

    def _choose_files(self, words: Sequence[str], priority: Priority) -> None:
        content, record = self.content, self.content.record
        if record.seed_only or self.moving or not content.entries:
            why = "is seeded from where its data was" if record.seed_only else "is busy"
            raise NotAllowed(f"{record.name!r} {why}", info_hash=self.info_hash.hex())
        selection = rechosen(content, self.have or content.claimed, words, priority)
        if selection == record.selection:
            return
        self._change(selection=selection)
        self._choices += 1
        self._wake()
        if self.core is not None:
            self._begin_to_follow()

    @property
    def _is_choosing(self) -> bool:
        """Whether files are being chosen, or brought to where they belong since."""
        return self._choosing is not None or (self._choice_turn is not None and self._choice_turn.locked())

    def _begin_to_follow(self) -> None:
        if self._choosing is None:
            self._choosing = self.crew.spawn("choose", self._follow_choices)

    def _wait_for_choices(self) -> None:
        """Until nobody brings files from here to there. Waits."""
        if self._choice_turn is not None:
            with self._choice_turn:
                pass
        if self._choosing is not None:
            self._choosing.join()

    def _follow_choices(self) -> None:
        """Bring files in and put them aside, as was chosen; then let the core know."""
        followed = 0
        try:
            while followed != self._choices:
                followed = self._choices
                failure = self._see_to_files()
                self._doubt()
                self.post((events.WishesChanged(self.content.priorities()),))
                if failure is not None:
                    self.post((events.StorageFailed(failure),))
        finally:
            self._choosing = None

    def _see_to_files(self) -> StorageError | None:
        """Where the files are out of reach, or are not to be made yet, that is done when they are needed."""
        self.content.doubt_files()
        if self._unopened or self.content.failure is not None:
            return None
        try:
            if self.content.record.stopped:
                self.content.rearrange()
            else:
                self.content.prepare()
        except StorageError as error:
            return error
        return None

    def settings_changed(self) -> None:
        """The configuration was reloaded."""
        if self.rest is not None:
            return
        self.post((events.SettingsChanged(settings_of(self.content.record), self.facilities.swarm),))

    def _change(self, **fields: Any) -> None:
        try:
            self.content.change(**fields)
        except StorageError as error:
            raise NotAllowed(f"the choice cannot be put on record: {error}", cause=error.cause) from None

    def begin_move(self, save_to: str) -> None:
        """Move the content to another directory, behind this call. Raises NotAllowed where it cannot be."""
        self._wake()
        record = self.content.record
        if self._unopened:
            raise NotAllowed(
                f"the files of {record.name!r} cannot be looked at, so they stay where they are",
                info_hash=self.info_hash.hex(),
            )
        if self.moving or self.host is None:
            raise NotAllowed(f"{record.name!r} is busy", info_hash=self.info_hash.hex())
        if record.save_to == save_to:
            raise NotAllowed(f"{record.name!r} is in {save_to} already", path=save_to)
        self.moving = True
        self._act(events.Stopped())
        self.crew.spawn("move", self._move, save_to)

    def _move(self, save_to: str) -> None:
        """Stop, move, verify, go on: at the new place, or where that failed at the old one."""
        before = self.content.record.save_to
        try:
            assert self.core is not None
            self._wait_for_choices()  # of before: none is taken meanwhile
            relocate(self.content, save_to, self.core.have.copy(), self._note_move)
        except MicrotorrError as error:
            self._log.error("move_failed", to=save_to, reason=str(error))
            self.note("move_failed", save_to=before, wanted=save_to, message=str(error))
        else:
            self._log.info("moved", save_to=save_to)
            self.note("moved", save_to=save_to, before=before)
        finally:
            self.moving = False
        if not self.content.record.stopped:
            self._resume(recheck=False)

    def _note_move(self, done_bytes: int, size_bytes: int) -> None:
        """Called in a disk thread: the figures are published with the next note of progress."""
        self.move_progress = (done_bytes, size_bytes)

    # ------------------------------------------------------------------------------- for the core's host

    def handled(self, core: Core) -> None:
        """Publish a note when the state that people see has changed."""
        if not core.idle or may_rest(core):
            self.facilities.active.add(self)
        state, failure = core.state_shown()
        if not self._show(state, failure):
            return
        if state in {"stopped", "failed"}:
            self.content.release_files()
        record = self.content.record
        if state == "stopped" and core.satisfied and not record.seed_after_download and not record.stopped:
            self.content.update(stopped=True)  # it stopped by itself, and stays so after a restart

    def _show(self, state: events.State, failure: StorageError | None) -> bool:
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
            self._put_off_probe()
        return True

    def became_complete(self, facts: dict[str, Any]) -> None:
        """All that is wanted is here: remember when and how, and drop what only a download needs."""
        self.content.last_download = facts
        self.content.update(completed_at=time.time())
        if facts["whole"]:
            self.content.forget_hashes()
        self._log.info(
            "completed", **{key: value for key, value in facts.items() if not isinstance(value, list)}
        )

    def was_verified(self) -> None:
        """Every piece was read and matches: nothing is left to confirm at the next start."""
        self.content.update(confirmed=True)
        self.content.forget_hashes()


@lru_cache(maxsize=100)
def _shown(state: events.State, message: str | None) -> tuple[events.State, str | None]:
    """What people see, as a value that those which look alike share."""
    return state, message


def settings_of(record: TorrentRecord) -> TorrentSettings:
    """The part of a record that the core needs to know."""
    return TorrentSettings(
        wait_seeders=record.wait_seeders,
        wait_leechers=record.wait_leechers,
        sequential=record.sequential,
        seed_after_download=record.seed_after_download,
        super_seed=record.super_seed,
    )
