"""One torrent of the session: what the operator wishes of it.

A wish is on record before it is acknowledged, and its outcome shows in the answer; what takes long is begun,
and goes on behind the call. Everything below, from loading to the end, is in `life.py`. Methods that wait say
so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gevent.lock import BoundedSemaphore

from microtorrd.choosing import rechosen
from microtorrd.core import events
from microtorrd.errors import MicrotorrError, NotAllowed, StorageError
from microtorrd.life import Life, settings_of
from microtorrd.proto.selection import Priority
from microtorrd.relocation import Move, relocate

#: Causes after which files are looked at again before anything of them is offered.
SUSPECT_CAUSES = frozenset({"changed", "not_found", "mismatch", "id_hash_mismatch", "io_error"})


class Torrent(Life):
    """One torrent. Made at once; `load` makes it work."""

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
        if self._gone:  # somebody removed it meanwhile: it must not announce itself for ever
            return
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
        """Check all content again; where it is being moved after that, or the check would end the move. Then
        it waits for the record."""
        if self.move is not None:
            self._change(then_verify=True)
            if self.move is not None or not self._takes_up_check():
                return
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
        if record.seed_only:
            why = (
                "is shared from where its data is (--seed): nothing is fetched, so nothing is to choose; "
                "removed and added with --save-to it keeps what is there, and fetches what is chosen"
            )
            raise NotAllowed(f"{record.name!r} {why}", info_hash=self.info_hash.hex())
        self.refuse_while_moving()
        if not content.entries:
            why = "was not looked at yet, so its files are not known"
            raise NotAllowed(f"{record.name!r} {why}", info_hash=self.info_hash.hex())
        selection = rechosen(content, self.have or content.claimed, words, priority)
        if selection == record.selection:
            return
        self._change(selection=selection)
        self._choices += 1
        self._wake()
        if self.core is not None:
            self._begin_to_follow()

    def settings_changed(self) -> None:
        """The configuration was reloaded."""
        if self._announcer is not None:
            record = self.content.record
            self.facilities.retune(self._announcer, info_hash=record.info_hash, id_hash=record.id_hash)
        if self.rest is not None:
            return
        self.post((events.SettingsChanged(settings_of(self.content.record), self.facilities.swarm),))

    def _change(self, **fields: Any) -> None:
        try:
            self.content.change(**fields)
        except StorageError as error:
            raise NotAllowed(f"the choice cannot be put on record: {error}", cause=error.cause) from None

    def refuse_move(self, save_to: str) -> None:
        """Raises NotAllowed where its content cannot be moved there."""
        record = self.content.record
        if self._unopened:
            raise NotAllowed(
                f"the files of {record.name!r} cannot be looked at, so they stay where they are",
                info_hash=self.info_hash.hex(),
            )
        self.refuse_while_moving()
        if not self.is_loaded or self._gone:
            raise NotAllowed(f"{record.name!r} is busy", info_hash=self.info_hash.hex())
        if record.save_to == save_to:
            raise NotAllowed(f"{record.name!r} is in {save_to} already", path=save_to)

    def begin_move(self, save_to: str) -> None:
        """Move the content to another directory, behind this call. Raises NotAllowed where it cannot be."""
        self.refuse_move(save_to)
        self._wake()
        self.move = Move(save_to)
        self._act(events.Stopped())
        self.crew.spawn("move", self._relocate, self.move)

    def _relocate(self, move: Move) -> None:
        """Stop, move, verify, go on: at the new place, or where that failed at the old one."""
        before, save_to = self.content.record.save_to, move.save_to
        try:
            assert self.core is not None
            self._wait_for_choices()  # of before: none is taken meanwhile
            relocate(self.content, save_to, self.core.have.copy(), move.progressed)
        except MicrotorrError as error:
            self._log.error("move_failed", to=save_to, reason=str(error))
            self.note("move_failed", save_to=before, wanted=save_to, message=str(error))
        else:
            self._log.info("moved", save_to=save_to)
            self.note("moved", save_to=save_to, before=before)
        finally:
            self.move = None
        if self._gone or self.facilities.crew.stopped:
            return
        recheck = self._takes_up_check()
        if not self.content.record.stopped:
            self._resume(recheck)
        elif recheck:
            self.verify()

    def _takes_up_check(self) -> bool:
        """Whether a check was wished while it was moved, which begins now."""
        wished = self.content.record.then_verify
        if wished:
            self.content.update(then_verify=False)
        return wished
