"""The life of one torrent: how it begins, rests and wakes, is parked and tried again, and how it ends.

It brings together the record and its bytes (`content.py`), the core with its surroundings (`host.py`) and the
announcer. Until it is loaded there is no core, and facts are kept for it. A torrent that has everything and
talks to nobody has none either: it is at rest (`rest.py`) until somebody comes. Methods that wait say so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from gevent import Greenlet
from gevent.lock import BoundedSemaphore

from microtorrd import __version__
from microtorrd.content import AS_LEFT, AsLeft, Content, Trusted
from microtorrd.core import events
from microtorrd.core.core import Core
from microtorrd.core.events import Fact
from microtorrd.core.peerbook import Peerbook
from microtorrd.core.settings import TorrentSettings
from microtorrd.core.states import Phase
from microtorrd.disk.records import TorrentRecord
from microtorrd.errors import StorageError
from microtorrd.facilities import Facilities
from microtorrd.host import CoreHost
from microtorrd.ledger import Page
from microtorrd.net.announcer import Announcer
from microtorrd.net.greeting import Joined
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.metainfo import Metainfo
from microtorrd.rest import Rest, may_rest, untouched
from microtorrd.standing import Standing

#: A failure so soon after a recovery is a relapse, and doubles the time until the next look. A disk that can
#: be listed and not read would otherwise be tried, and what it cannot take fetched, every few seconds.
RELAPSE_S = 120.0
PAUSE_FIRST_S = 10.0
PAUSE_MOST_S = 600.0


class Life(Standing):
    """One torrent as far as it lives by itself."""

    def __init__(self, content: Content, facilities: Facilities) -> None:
        super().__init__(content, facilities)
        self._announcer: Announcer | None = None
        self._kept: tuple[Fact, ...] = ()  # facts that came before the core was there
        self._probing = False
        self._probe_at = 0.0  # not looked at before this
        self._probe_pause_s = 0.0
        self._recovered_at: float | None = None
        self._unopened = False  # the files could not be looked at yet
        self._choices = 0  # of files, while this daemon runs
        self._choosing: Greenlet | None = None  # brings files to where the choices want them
        self._choice_turn: BoundedSemaphore | None = None  # made when first needed

    # ------------------------------------------------------------------------------------ life, death

    def load(self, metainfo: Metainfo | None, looked: Trusted | AsLeft | StorageError | None = None) -> None:
        """Look at what is on disk, make the core, and let the torrent run if it should. Waits for the disk.

        A disk that cannot be read parks the torrent; it is probed like any other parked one. `looked` is what
        was found or raised where somebody looked already (`loading.py`): nothing is waited for then. One that
        is found as it was left, and has nothing to do, announces itself only when `announce` is called.
        """
        if looked is AS_LEFT:
            if self._may_begin_at_rest():
                self._rest(untouched(paused=self.content.record.stopped))
                return
            looked = Trusted(Bitfield.full(self.content.piece_count))
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
        recheck_all = trusted.recheck_all or record.then_verify
        if recheck_all and record.stopped:
            everything = range(self.content.geometry.piece_count)
            wishes.append(events.RecheckWanted(everything, at_once=record.then_verify))
        elif trusted.recheck:
            wishes.append(events.RecheckWanted(trusted.recheck))
        if not record.stopped:
            wishes.append(events.Started(recheck=recheck_all))
            if failure is None and not (trusted.have.complete and trusted.have.count):
                failure = self._prepare()
        if failure is not None:
            wishes.append(events.StorageFailed(failure))
        if self._gone or self.facilities.crew.stopped:
            return
        if record.then_verify and not self._unopened:
            self.content.update(then_verify=False)  # a stop came before it had begun
        self._announcer = None  # the trackers may not have been known until now
        wants_little = wishes in ([], [events.Started()]) and not trusted.sync_first
        if wants_little and trusted.have.complete and self._may_begin_at_rest():
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

    def _may_begin_at_rest(self) -> bool:
        """Where all is there: it is confirmed and on record, and nobody waits; a core would do nothing."""
        record = self.content.record
        if self._kept or self._gone or record.dirty or not (record.confirmed or record.id_hash is None):
            return False
        if record.selection:
            return False  # what is wanted is to be reckoned with
        return record.length > 0

    @property
    def announcer(self) -> Announcer:
        """What tells the trackers of us; for who is loaded."""
        if self._announcer is None:
            record = self.content.record
            self._announcer = self.facilities.make_announcer(
                self.content.trackers,
                info_hash=record.info_hash,
                id_hash=record.id_hash,
                listener=self,
            )
        return self._announcer

    def announce(self) -> None:
        """After `load`: tell the trackers, too."""
        if self.rest is not None and not self.rest.paused and not self._gone:
            self.announcer.start()

    def _go_on_at_rest(self, rest: Rest) -> None:
        """Do what a core would do that begins, or ends, with nobody to talk to."""
        self._rest(rest)
        if not rest.paused:
            self.announcer.start()
        elif self._announcer is not None:
            self._announcer.stop()

    def _rest(self, rest: Rest) -> None:
        """Nothing is kept from now on but what it takes to wake up."""
        self.host, self.rest = None, rest
        self.content.rest()
        self._up = self._down = None
        if self._crew is not None and not self._crew.alive():
            self._crew = None
        self._show(rest.state, None)

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

    def halt(self) -> None:
        """Say goodbye to peers and trackers; what is on record stays."""
        if self.rest is not None:
            self._gone = True  # nobody wakes it up any more
            if self._announcer is not None:
                self._announcer.stop()
        elif self.host is not None:
            # At once, with all that waits before it and follows from it: the crew may be stopped next.
            self.host.act((events.Stopped(),))

    def close(self) -> None:
        """Let go of everything that runs for this torrent. Waits a moment for its greenlets."""
        self._gone = True
        self.facilities.active.discard(self)
        self.content.close()
        if self._crew is not None:
            self._crew.stop(1.0)
        if self.host is not None:
            self.host.disown()

    def recall_files(self) -> None:
        """Before it is struck off the record and was perhaps not looked at yet: which files are its own.
        Waits."""
        with suppress(StorageError):  # `bury` says what comes of that
            self.content.require_entries()

    def bury(self, data: bool) -> None:
        """After it was struck off the record: end what runs, and delete its files where that was wished."""
        self.close()
        if self._announcer is not None:
            self._announcer.depart()
        if data:
            try:
                self.content.delete()
            except StorageError as error:
                self._log.error("data_not_deleted", cause=error.cause, path=error.path, reason=str(error))
                self.note("storage_failed", cause=error.cause, path=error.path, message=str(error))

    # ------------------------------------------------------------------------------- files in their places

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

    @property
    def _is_choosing(self) -> bool:
        """Whether files are being chosen, or brought to where they belong since."""
        return self._choosing is not None or (self._choice_turn is not None and self._choice_turn.locked())

    def _begin_to_follow(self) -> None:
        if self._choosing is None and not self._gone:
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

    # ----------------------------------------------------------------------------- what comes from outside

    def post(self, facts: Sequence[Fact]) -> None:
        """Hand facts to the core, or keep them until there is one. Of one that is gone nobody wants any."""
        if self._gone:
            return
        self._wake()
        if self.host is None:
            self._kept = (*self._kept, *facts)
        else:
            self.host.post(facts)

    def _act(self, fact: Fact) -> None:
        """The same for a wish of the operator's, who is to see the outcome in the answer."""
        if self._gone:  # removed by another one while this one waited: nothing can be begun any more
            return
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

    def hear_of(self, addresses: list[events.Address]) -> None:
        """A tracker knows peers."""
        self.post((events.AddressesFound(addresses, "tracker"),))

    def _hear_failure(self, error: StorageError) -> None:
        """What is on record could not be brought up to date with the disk."""
        self.post((events.StorageFailed(error),))

    # ------------------------------------------------------------------------------- for the core's host

    def handled(self, core: Core) -> None:
        """Publish a note when the state that people see has changed."""
        if not core.idle or may_rest(core):
            self.facilities.active.add(self)
        state, failure = core.state_shown()
        if not self._show(state, failure):
            return
        if failure is not None:
            self._put_off_probe()
        if state in {"stopped", "failed"}:
            self.content.release_files()
        record = self.content.record
        if state == "stopped" and core.satisfied and not record.seed_after_download and not record.stopped:
            self.content.update(stopped=True)  # it stopped by itself, and stays so after a restart

    def became_complete(self, facts: dict[str, Any]) -> None:
        """All that is wanted is here: remember when and how, and drop what only a download needs."""
        self.content.last_download = facts
        self.content.update(completed_at=time.time())
        if facts["whole"]:
            self.content.forget_hashes()
        self._log.info(
            "completed",
            **{
                key: round(value, 3) if isinstance(value, float) else value
                for key, value in facts.items()
                if not isinstance(value, list)
            },
        )

    def was_verified(self) -> None:
        """Every piece was read and matches: nothing is left to confirm at the next start."""
        self.content.update(confirmed=True)
        self.content.forget_hashes()


def settings_of(record: TorrentRecord) -> TorrentSettings:
    """The part of a record that the core needs to know."""
    return TorrentSettings(
        wait_seeders=record.wait_seeders,
        wait_leechers=record.wait_leechers,
        sequential=record.sequential,
        seed_after_download=record.seed_after_download,
        super_seed=record.super_seed,
    )
