"""Who is here: all torrents and the magnet links that are to become some, by id, by swarm and by name.

Nothing here waits, so what is found stays true until the caller waits itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from microtorrd.disk.records import TorrentRecord
from microtorrd.errors import Busy, Duplicate, NotAllowed, NotFound
from microtorrd.proto.magnet import Magnet
from microtorrd.resolver import Resolver
from microtorrd.torrent import Torrent

TORRENTS_MAX = 100_000

#: So many are named when an id may mean several.
CANDIDATES_SHOWN = 20

_HEX = re.compile(r"[0-9a-fA-F]{4,40}")

#: Hidden directories beside contents (`disk/aside.py`, `disk/move.py`): no torrent may have their names.
_OURS = re.compile(r"\.[0-9a-f]{40}\.(?:parts|moving)")

#: A torrent, or a magnet link that is to become one.
Member = Torrent | Resolver


class Roster:
    """The members of the session."""

    def __init__(self) -> None:
        self.torrents: dict[bytes, Torrent] = {}
        self.magnets: dict[bytes, Resolver] = {}  # by the id that the link names
        # By swarm id: one content can be here in two shapes.
        self._swarms: dict[bytes, tuple[Member, ...]] = {}

    def __len__(self) -> int:
        return len(self.torrents) + len(self.magnets)

    def __contains__(self, member: Member) -> bool:
        kept: dict[bytes, Torrent] | dict[bytes, Resolver]
        kept = self.magnets if isinstance(member, Resolver) else self.torrents
        return kept.get(member.info_hash) is member

    def members(self) -> list[Member]:
        """Everybody, in a list of its own."""
        return [*self.torrents.values(), *self.magnets.values()]

    def enter(self, member: Member) -> None:
        """From now on it is found."""
        if isinstance(member, Resolver):
            self.magnets[member.info_hash] = member
        else:
            self.torrents[member.info_hash] = member
        for swarm_id in member.swarm_ids:
            self._swarms[swarm_id] = (*self._swarms.get(swarm_id, ()), member)

    def leave(self, member: Member) -> None:
        """From now on it is not found."""
        if isinstance(member, Resolver):
            self.magnets.pop(member.info_hash, None)
        else:
            self.torrents.pop(member.info_hash, None)
        for swarm_id in member.swarm_ids:
            others = tuple(other for other in self._swarms.pop(swarm_id, ()) if other is not member)
            if others:
                self._swarms[swarm_id] = others

    # --------------------------------------------------------------------------------------- finding

    def find(self, id: str) -> list[Member]:
        """Those meant by a name, a prefix of an id (4 hex digits or more) or `all`. Raises NotFound."""
        if len(id) == 40 and (member := self._called(id)) is not None:
            return [member]
        members = self.members()
        if id == "all":
            return members
        named = [member for member in members if member.name == id]
        if not named and _HEX.fullmatch(id):
            prefix = id.lower()
            named = [
                member
                for member in members
                if any(swarm_id.hex().startswith(prefix) for swarm_id in member.swarm_ids)
            ]
        if len(named) == 1:
            return named
        if not named:
            raise NotFound(f"no torrent is called {id!r}, and no id begins with it", id=id)
        candidates = [member.info_hash.hex() for member in named[:CANDIDATES_SHOWN]]
        raise NotFound(
            f"{id!r} may mean {len(named)} torrents: {', '.join(candidates)}", id=id, candidates=candidates
        )

    def _called(self, id: str) -> Member | None:
        """Who has this whole id: found without a look at all the others."""
        try:
            key = bytes.fromhex(id)
        except ValueError:
            return None
        return self.torrents.get(key) or self.magnets.get(key)

    def one(self, id: str) -> Member:
        """The one that is meant. Raises NotFound where there is none, or more."""
        found = self.find(id)
        if len(found) != 1:
            raise NotFound(f"{id!r} means {len(found)} torrents; this call is about one", id=id)
        return found[0]

    def name_of(self, swarm_id: bytes) -> str | None:
        """What is called by this id of a swarm; None: nothing here."""
        return next((member.name for member in self._swarms.get(swarm_id, ())), None)

    def of_swarm(self, swarm_id: bytes) -> Member | None:
        """Who a handshake means: one that takes peers."""
        return next((member for member in self._swarms.get(swarm_id, ()) if member.takes_peers), None)

    # -------------------------------------------------------------------------------------- conflicts

    def refuse_conflicts(self, record: TorrentRecord, instead_of: Resolver | None = None) -> None:
        """Two torrents must never write to the same files. Raises Duplicate, NotAllowed, Busy."""
        self._refuse_too_many(len(self) - (instead_of is not None))
        present = self.torrents.get(record.info_hash) or self.magnets.get(record.info_hash)
        if present is not None and present is not instead_of:
            raise _duplicate(present, record.info_hash)
        name = record.disk_name or record.name
        if _OURS.fullmatch(name):
            raise NotAllowed(f"{name!r} is a name that we keep for ourselves", path=record.save_to)
        for other in self._present_in(record.save_to):
            if other.content.disk_name == name and not (record.seed_only and other.writes_no_more):
                raise _taken(record.save_to, other)

    def refuse_moves(self, members: Sequence[Member], save_to: str) -> None:
        """Neither where they are brought together by a move. Raises NotAllowed."""
        taken = {other.content.disk_name: other for other in self._present_in(save_to)}
        for member in members:
            # What a link leads to has no name yet: it is seen to when it has one.
            if (
                isinstance(member, Torrent)
                and taken.setdefault(member.content.disk_name, member) is not member
            ):
                raise _taken(save_to, taken[member.content.disk_name])

    def _present_in(self, save_to: str) -> Iterator[Torrent]:
        """Whose content lies in that directory, or is on its way to it."""
        for torrent in self.torrents.values():
            move = torrent.move
            if torrent.record.save_to == save_to or (move is not None and move.save_to == save_to):
                yield torrent

    def refuse_present(self, magnet: Magnet) -> None:
        """A link to what is here already, as a torrent or as another link to the same. Raises as above."""
        self._refuse_too_many(len(self))
        present = next(iter(self._swarms.get(magnet.swarm_id, ())), None)
        if present is not None:
            raise _duplicate(present, present.info_hash)

    def _refuse_too_many(self, count: int) -> None:
        if count >= TORRENTS_MAX:
            raise Busy(f"there are {TORRENTS_MAX} torrents already", limit=TORRENTS_MAX)


def _taken(save_to: str, by: Torrent) -> NotAllowed:
    path = os.path.join(save_to, by.content.disk_name)
    return NotAllowed(
        f"{path} belongs to the torrent {by.name!r} ({by.short_id}) already",
        path=path,
        info_hash=by.info_hash.hex(),
    )


def _duplicate(present: Member, info_hash: bytes) -> Duplicate:
    return Duplicate(
        f"the torrent is already here as {present.name!r}", info_hash=info_hash.hex(), name=present.name
    )
