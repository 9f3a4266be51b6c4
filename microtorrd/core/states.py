"""The table of states of one torrent.

    STOPPED  --Started-->               CHECKING if something is to be checked, else RUNNING
    CHECKING --all is checked-->        RUNNING
    RUNNING  --a check is wanted-->     CHECKING
    RUNNING, CHECKING --Stopped-->      STOPPED
    any      --StorageFailed-->         FAILED
    FAILED   --StorageRecovered-->      as from STOPPED if it is wanted to run, else STOPPED
    FAILED   --Started, Stopped-->      as from STOPPED

A check that an operator wants at once of a stopped torrent leads from STOPPED to CHECKING and back.

What people see (`State`) derives from it: downloading, seeding, waiting and confirming are all RUNNING.

Rules:
- peers are connected in RUNNING only, and pieces are fetched in no other state;
- who stops running parts from everybody first; disk jobs that are under way then still count when they end;
- the trackers hear `started` once, and `stopped` only after that.
"""

from __future__ import annotations

from enum import Enum

from microtorrd.core import events
from microtorrd.core.checking import Checking
from microtorrd.core.comings import Comings
from microtorrd.core.ending import CONTRADICTION, Ending
from microtorrd.core.events import Announce, Cease, Emit
from microtorrd.core.fetching import Fetching
from microtorrd.core.introductions import Introductions
from microtorrd.core.peerbook import Peerbook
from microtorrd.core.snapshot import State
from microtorrd.core.swarm import Swarm
from microtorrd.core.workshop import Workshop
from microtorrd.errors import StorageError


class Phase(Enum):
    """The states of the table above."""

    STOPPED = "stopped"
    CHECKING = "checking"
    RUNNING = "running"
    FAILED = "failed"


#: Why nobody is let in.
CLOSED = {
    Phase.STOPPED: "the torrent is stopped",
    Phase.CHECKING: "the content is being checked",
    Phase.FAILED: "the torrent has failed",
}


class States:
    """In which state one torrent is, and what follows from a change. `name`: of the content, for errors."""

    __slots__ = (
        "_announced",
        "_book",
        "_checking",
        "_comings",
        "_ending",
        "_fetching",
        "_introductions",
        "_name",
        "_swarm",
        "_wanted",
        "_workshop",
        "failure",
        "phase",
    )

    def __init__(
        self,
        swarm: Swarm,
        *,
        book: Peerbook,
        checking: Checking,
        comings: Comings,
        ending: Ending,
        fetching: Fetching,
        introductions: Introductions,
        workshop: Workshop,
        name: str,
    ) -> None:
        self._swarm = swarm
        self._book = book
        self._checking = checking
        self._comings = comings
        self._ending = ending
        self._fetching = fetching
        self._introductions = introductions
        self._workshop = workshop
        self._name = name
        self._wanted = False  # to run
        self._announced = False  # the trackers think that it runs
        self.phase = Phase.STOPPED
        self.failure: StorageError | None = None

    @property
    def running(self) -> bool:
        """Peers are welcome."""
        return self.phase is Phase.RUNNING

    def shown(self) -> tuple[State, StorageError | None]:
        """The state that people see, and the cause of a failure."""
        if self.phase is Phase.RUNNING:
            if self._ending.confirming:
                return "checking", None
            if self._swarm.satisfied:
                return "seeding", None
            return ("downloading" if self._ending.waited else "waiting"), None
        shown: dict[Phase, State] = {
            Phase.STOPPED: "stopped",
            Phase.CHECKING: "checking",
            Phase.FAILED: "failed",
        }
        return shown[self.phase], self.failure

    # -------------------------------------------------------------------------------------- wished

    def started(self, now: float, *, recheck: bool) -> None:
        """It is to run, after a check of everything where that is wished."""
        self._wanted = True
        if recheck:
            self._checking.want_all()
        if self.phase in {Phase.STOPPED, Phase.FAILED}:
            self.failure = None
            self._go(now)
        elif recheck:
            self._begin_check(now)

    def stopped(self, now: float) -> None:
        """It is not to run any more."""
        self._wanted = False
        self._stop(Phase.STOPPED, CLOSED[Phase.STOPPED], now)
        self.failure = None

    def leave(self, now: float) -> None:
        """Everything is here, it is not to seed, and nobody wants anything any more."""
        self._wanted = False
        self._stop(Phase.STOPPED, "complete, and not to seed", now)

    def recheck_wanted(self, fact: events.RecheckWanted, now: float) -> None:
        """Pieces are to be read again, now or when it runs."""
        self._checking.want(fact.pieces)
        at_once = {Phase.RUNNING, Phase.CHECKING, *({Phase.STOPPED} if fact.at_once else ())}
        if self.phase in at_once and self._checking.wanted:
            self._begin_check(now)

    # ------------------------------------------------------------------------------------ happened

    def failed(self, error: StorageError, now: float) -> None:
        """The disk failed. While it has failed already, that is no news."""
        if self.phase is not Phase.FAILED:
            self._fail(error, now)

    def recovered(self, now: float) -> None:
        """The cause of the failure is gone."""
        if self.phase is not Phase.FAILED:
            return
        self.failure = None
        self.phase = Phase.STOPPED
        if self._wanted:
            self._go(now)

    def pieces_checked(self, fact: events.PiecesChecked, now: float) -> None:
        """Some pieces were read again."""
        if self.phase is not Phase.CHECKING:
            return  # of a check that was stopped
        have, checking = self._swarm.have, self._checking
        for piece in fact.good:
            have.set(piece)
        for piece in fact.bad:
            have.clear(piece)
        checking.done(fact.good)
        checking.done(fact.bad)
        if not fact.done:
            return
        if checking.wanted and checking.progressed:
            self._swarm.orders.append(checking.order())  # asked for while the check was under way
            return
        for piece in checking.give_up():
            have.clear(piece)
        self._checked(now)

    def content_confirmed(self, fact: events.ContentConfirmed, now: float) -> None:
        """The whole was compared with its `id_hash`."""
        if not self._ending.confirming:
            return  # of a run that was stopped
        if fact.matches:
            self._ending.confirmed(now)
        else:
            self._fail(StorageError(CONTRADICTION, path=self._name, cause="id_hash_mismatch"), now)

    def look_complete(self, now: float) -> None:
        """While it runs: what we have or want has changed; see whether all that is wanted is here."""
        self._book.seeding(self._swarm.satisfied, now)
        self._introductions.say_whether_we_want()
        self._ending.look(now)

    # ------------------------------------------------------------------------------------- changes

    def _go(self, now: float) -> None:
        """From a standstill: check what is to be checked, then run."""
        if self._checking.wanted:
            self._begin_check(now)
        else:
            self._run(now)

    def _begin_check(self, now: float) -> None:
        if self.phase is Phase.CHECKING:
            self._swarm.orders.append(Cease())
        self._part(CLOSED[Phase.CHECKING], now)
        self.phase = Phase.CHECKING
        self._swarm.orders.append(self._checking.order())

    def _checked(self, now: float) -> None:
        """The check is over."""
        self._workshop.start_over()
        self._ending.checked(everything=self._checking.was_full)
        if self._wanted:
            self._run(now)
        else:
            self.phase = Phase.STOPPED

    def _run(self, now: float) -> None:
        self.phase = Phase.RUNNING
        self._fetching.enabled = self._ending.waited
        self._workshop.stirred = True  # there may be padding to make, which needs no peer
        if not self._announced:
            self._announced = True
            self._swarm.orders.append(Announce("started"))
        self.look_complete(now)
        self._comings.dial(now)

    def _part(self, reason: str, now: float) -> None:
        """Nobody is connected any more, and nothing is under way but disk jobs."""
        self._fetching.enabled = False
        self._comings.drop_all(reason, now)
        self._fetching.stop()
        self._ending.part()

    def _stop(self, phase: Phase, reason: str, now: float) -> None:
        if self.phase in {Phase.RUNNING, Phase.CHECKING}:
            self._part(reason, now)
            if self.phase is Phase.CHECKING:
                self._workshop.start_over()
            self._swarm.orders.append(Cease())
            if self._announced:
                self._announced = False
                self._swarm.orders.append(Announce("stopped"))
        self.phase = phase

    def _fail(self, error: StorageError, now: float) -> None:
        self._stop(Phase.FAILED, CLOSED[Phase.FAILED], now)
        self.failure = error
        self._swarm.orders.append(
            Emit("storage_failed", {"cause": error.cause, "path": error.path, "message": str(error)})
        )
