"""What of the list of torrents has changed since a reader last saw it.

A reader gets a token with its rows, brings it along the next time, and gets the rows that changed since, and
the ids that went. Nothing is kept of the readers: a token is a number of ours that counts looks at the list,
and each torrent is remembered with the number of the look that found it changed. So memory is bounded by the
number of torrents. A token ends with the daemon, or when more torrents went since than are remembered; then,
as with a token that nobody ever gave out, the reader gets everything.

Rules:
- one look at a time: else a change could be found by one after another has passed it by, and be lost to that;
- nothing has to be told to us of what changes. Rows are compared, but not of torrents at rest: as long as the
  record and what is left of the core are the same objects, so is the row.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from gevent.lock import BoundedSemaphore

from microtorrd import rows
from microtorrd.disk.records import TorrentRecord
from microtorrd.resolver import Resolver
from microtorrd.rest import Rest
from microtorrd.roster import Member
from microtorrd.rows import Row

#: Ids of torrents that went, kept for readers who do not know it yet.
GONE_MAX = 10_000

#: Rows made between two breaths: about a millisecond.
ROWS_AT_ONCE = 100

#: The same for torrents that are only looked at.
LOOKS_AT_ONCE = 2000


class Changed(NamedTuple):
    """What a reader is to do: forget all it has if `full`, forget `removed`, then take over `torrents`."""

    torrents: list[Row]
    removed: list[str]  # as `info_hash` in rows
    token: str
    full: bool


class Seen:
    """One torrent as it was when last looked at."""

    __slots__ = ("fingerprint", "record", "rest", "revision")

    def __init__(self) -> None:
        self.record: TorrentRecord | None = None
        self.rest: Rest | None = None
        self.fingerprint: int | None = None
        self.revision = 0  # of the look that found it changed


class Changes:
    """The memory of one session's list."""

    def __init__(self, breathe: Callable[[], None]) -> None:
        """`breathe` is called between parts of the work, so that others get their turn."""
        self._breathe = breathe
        self._ours = secrets.token_hex(4)  # another daemon's tokens mean nothing
        self._revision = 0
        self._seen: dict[bytes, Seen] = {}
        self._gone: deque[tuple[int, bytes]] = deque()
        self._gone_before = 0  # what went up to this look is forgotten
        self._looking = BoundedSemaphore(1)

    def since(self, token: str, members: Callable[[], Collection[Member]]) -> Changed:
        """The changes since that token; everything for one that means nothing here, as an empty one."""
        with self._looking:
            since = self._read(token)
            self._revision += 1
            changed = self._look(members(), since)
            removed = [] if since is None else self._removed(since)
            return Changed(changed, removed, f"{self._ours}-{self._revision}", since is None)

    def _read(self, token: str) -> int | None:
        """The look that the token is of; None where what went since is not known."""
        ours, _, number = token.rpartition("-")
        if ours != self._ours or not number.isdecimal() or len(number) > 20:
            return None
        revision = int(number)
        return revision if self._gone_before <= revision <= self._revision else None

    def _look(self, members: Iterable[Member], since: int | None) -> list[Row]:
        """The rows to tell of; on the way everything is compared with how it was."""
        found: list[Row] = []
        present: set[bytes] = set()
        for number, member in enumerate(members, 1):
            key = member.info_hash
            present.add(key)
            seen = self._seen.get(key)
            if seen is None:
                seen = self._seen[key] = Seen()
            row = self._compare(member, seen)
            if since is None or seen.revision > since:
                found.append(rows.list_row(member) if row is None else row)
                if len(found) % ROWS_AT_ONCE == 0:
                    self._breathe()
            if number % LOOKS_AT_ONCE == 0:
                self._breathe()
        for key in self._seen.keys() - present:
            del self._seen[key]
            self._gone.append((self._revision, key))
        while len(self._gone) > GONE_MAX:
            self._gone_before = self._gone.popleft()[0]
        return found

    def _compare(self, member: Member, seen: Seen) -> Row | None:
        """Note whether it has changed. Returns its row where that had to be made."""
        record, rest = member.record, None if isinstance(member, Resolver) else member.rest
        if rest is not None and seen.rest is rest and seen.record is record:
            return None
        row = rows.list_row(member)
        fingerprint = hash(tuple(str(value) if type(value) is dict else value for value in row.values()))
        if fingerprint != seen.fingerprint:
            seen.fingerprint, seen.revision = fingerprint, self._revision
        seen.rest = rest
        seen.record = record if isinstance(record, TorrentRecord) else None
        return row

    def _removed(self, since: int) -> list[str]:
        return [key.hex() for revision, key in self._gone if revision > since and key not in self._seen]
