"""What is left of the core of a torrent that has everything and talks to nobody, be it that it is paused.

Thousands of torrents seed to nobody most of the time. Such a torrent needs no core with its rooms, no crew,
no files and no bitfield: when somebody comes they are made again from the record, in a fraction of a
millisecond. This is what cannot be: the totals of this run of the daemon, and the addresses that are known to
be no use.
"""

from __future__ import annotations

from microtorrd.core.core import Core
from microtorrd.core.peerbook import Peerbook
from microtorrd.core.snapshot import Snapshot, State
from microtorrd.core.states import Phase


class Rest:
    """Of one torrent, never changed. Those that had nobody to talk to yet share two."""

    __slots__ = ("book", "corrupt_pieces", "down_bytes", "paused", "up_bytes", "wasted_bytes")

    def __init__(
        self,
        *,
        paused: bool = False,
        book: Peerbook | None = None,
        down_bytes: int = 0,
        up_bytes: int = 0,
        wasted_bytes: int = 0,
        corrupt_pieces: int = 0,
    ) -> None:
        self.paused = paused  # nobody is welcome, and no tracker is told of us
        self.book = book  # None: nothing is in it
        self.down_bytes = down_bytes
        self.up_bytes = up_bytes
        self.wasted_bytes = wasted_bytes
        self.corrupt_pieces = corrupt_pieces

    @classmethod
    def of(cls, core: Core) -> Rest:
        """What is to be kept of this core."""
        swarm = core.swarm
        figures = {
            "down_bytes": swarm.down.total,
            "up_bytes": swarm.up.total,
            "wasted_bytes": swarm.wasted_bytes,
            "corrupt_pieces": swarm.corrupt_pieces,
        }
        paused = core.phase is Phase.STOPPED
        if core.book.blank and not any(figures.values()):
            return untouched(paused=paused)
        return cls(paused=paused, book=None if core.book.blank else core.book, **figures)

    def when(self, *, paused: bool) -> Rest:
        """The same, paused or not."""
        if self is _PAUSED or self is _SEEDING:
            return untouched(paused=paused)
        return Rest(
            paused=paused,
            book=self.book,
            down_bytes=self.down_bytes,
            up_bytes=self.up_bytes,
            wasted_bytes=self.wasted_bytes,
            corrupt_pieces=self.corrupt_pieces,
        )

    @property
    def state(self) -> State:
        """The state that people see."""
        return "stopped" if self.paused else "seeding"

    def give_to(self, core: Core) -> None:
        """Let a new core go on counting where the old one ended."""
        swarm = core.swarm
        swarm.down.total, swarm.up.total = self.down_bytes, self.up_bytes
        swarm.wasted_bytes, swarm.corrupt_pieces = self.wasted_bytes, self.corrupt_pieces

    def snapshot(self, *, length: int, piece_count: int) -> Snapshot:
        """What the core would say if it were there, of content of so many bytes."""
        return Snapshot(
            state=self.state,
            failure=None,
            have_count=piece_count,
            done_bytes=length,
            wanted_bytes=length,
            have_bytes=length,
            down_bytes=self.down_bytes,
            up_bytes=self.up_bytes,
            wasted_bytes=self.wasted_bytes,
            corrupt_pieces=self.corrupt_pieces,
            down_bytes_per_s=0.0,
            up_bytes_per_s=0.0,
            seeders=0,
            leechers=0,
            checked_pieces=0,
            to_check=0,
            peers=(),
        )


_SEEDING, _PAUSED = Rest(), Rest(paused=True)


def untouched(*, paused: bool) -> Rest:
    """Of a torrent that had nobody to talk to yet."""
    return _PAUSED if paused else _SEEDING


def may_rest(core: Core) -> bool:
    """Whether nothing is lost when this core goes."""
    ending = core.ending
    return (
        core.phase in {Phase.RUNNING, Phase.STOPPED}
        and core.idle
        and core.have.complete
        and core.have.count > 0
        and not ending.confirming
        and not core.checking.wanted
        and not core.workshop.storing
    )
