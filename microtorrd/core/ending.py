"""The ends of a download: waiting for others before it, confirming and leaving after it.

Rules:
- waiting ends once and for all: each number counts as soon as it was reached once, and progress on disk
  means that the waiting was over in an earlier life; a peer that leaves makes nobody wait again;
- `completed` is noted and announced once, when the content is whole and matches its `id_hash` if it has one;
- of a selection of files it is noted, and not announced, each time that all that is wanted has become there;
- a torrent that is not to seed leaves when nobody wants anything of it, at the latest after `LEAVE_S`.
"""

from __future__ import annotations

from microtorrd.core.events import Announce, Confirm, Emit
from microtorrd.core.shares import Shares
from microtorrd.core.swarm import Swarm

#: How long a torrent that is not to seed stays for those who still want something.
LEAVE_S = 3.0

#: What is said when all pieces match and the whole does not: the metainfo contradicts itself.
CONTRADICTION = "the content does not match the id_hash of its metainfo"


class Ending:
    """What lies before and after fetching, of one torrent."""

    __slots__ = (
        "_leave_by",
        "_met",
        "_most_leechers",
        "_most_seeders",
        "_settled",
        "_shares",
        "_swarm",
        "_to_confirm",
        "confirming",
        "waited",
    )

    def __init__(self, swarm: Swarm, shares: Shares, *, to_confirm: bool) -> None:
        self._swarm = swarm
        self._shares = shares
        self._to_confirm = to_confirm  # there is an id_hash that the content was not compared with yet
        # Complete and done with: nothing follows from being complete any more.
        self._settled = swarm.complete and not to_confirm
        self._met = swarm.satisfied  # all that is wanted is here, and was so when we looked last
        self._most_seeders = self._most_leechers = 0
        self._leave_by: float | None = None
        self.confirming = False
        self.waited = bool(swarm.have.count) or self._is_enough()

    # ---------------------------------------------------------------------------------------- waiting

    def look_around(self) -> bool:
        """Is everybody here whom we wait for? Called until it is so."""
        swarm = self._swarm
        self._most_seeders = max(self._most_seeders, swarm.seeder_count)
        self._most_leechers = max(self._most_leechers, swarm.leecher_count)
        self.waited = self._is_enough()
        return self.waited

    def _is_enough(self) -> bool:
        choices = self._swarm.choices
        ourselves = 1
        return (
            self._most_seeders >= choices.wait_seeders
            and self._most_leechers + ourselves >= choices.wait_leechers
        )

    # ------------------------------------------------------------------------------------- completing

    def look(self, now: float) -> None:
        """We run: if everything is here, have it confirmed, or be done."""
        swarm = self._swarm
        met, self._met = self._met, swarm.satisfied
        if not self._met:
            self._leave_by = None
        elif not swarm.complete and not met:
            self._complete(now)
        if not swarm.complete or self._settled or self.confirming:
            return
        if self._to_confirm:
            self.confirming = True
            self._swarm.orders.append(Confirm())
        else:
            self._complete(now)

    def confirmed(self, now: float) -> None:
        """The whole content matches."""
        self.confirming = self._to_confirm = False
        self._complete(now)

    def checked(self, *, everything: bool) -> None:
        """A check is over, of every piece or of some."""
        swarm = self._swarm
        self._met = swarm.satisfied and (self._met or (everything and not self._shares.size))
        if not swarm.complete:
            self._settled = False
        elif everything and not self._shares.size:
            # Every piece was read just now, and the whole was compared with them; none was fetched in this
            # run: nothing is left to confirm.
            self._settled = True
            self._to_confirm = False
            swarm.orders.append(Emit("content_verified", {"pieces": swarm.have.count}))

    def part(self) -> None:
        """The torrent stops running: what was under way is taken up at the next start."""
        self.confirming = False
        self._leave_by = None

    def _complete(self, now: float) -> None:
        swarm = self._swarm
        self._settled = swarm.complete
        facts = self._shares.summary(began_at=swarm.began_at, now=now)
        facts["wasted_bytes"] = swarm.wasted_bytes
        facts["corrupt_pieces"] = swarm.corrupt_pieces
        facts["whole"] = swarm.complete
        swarm.orders.append(Emit("completed", facts))
        if swarm.complete:
            swarm.orders.append(Announce("completed"))
        if not swarm.choices.seed_after_download:
            self._leave_by = now + LEAVE_S

    # ---------------------------------------------------------------------------------------- leaving

    @property
    def leaving(self) -> bool:
        """Done, and about to stop."""
        return self._leave_by is not None

    def is_time_to_leave(self, now: float) -> bool:
        """Nobody wants anything any more, or they had their time."""
        if self._leave_by is None:
            return False
        return now >= self._leave_by or not any(peer.peer_interested for peer in self._swarm.peers.values())
