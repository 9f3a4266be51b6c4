"""How torrents come in: from metainfo, from a magnet link, and from a link that has found its metainfo.

Each is entered in the roster at once, so that nobody can bring the same one meanwhile, then put on record,
and only then acknowledged and started. What cannot be recorded leaves again.
"""

from __future__ import annotations

import os
import time

import gevent
from msgspec.structs import replace

from microtorrd import gist, logs, rows
from microtorrd.choosing import marks_of
from microtorrd.content import Content
from microtorrd.core.events import AddressesFound
from microtorrd.disk.records import MagnetRecord, TorrentRecord
from microtorrd.errors import CallerError, Duplicate, InvalidParams, NotAllowed, StorageError
from microtorrd.facilities import Facilities
from microtorrd.greenlets import Crew
from microtorrd.proto import metainfo as metainfo_room
from microtorrd.proto.magnet import parse_magnet
from microtorrd.proto.metainfo import Metainfo
from microtorrd.proto.selection import Choice
from microtorrd.resolver import Resolver
from microtorrd.roster import Roster
from microtorrd.rows import Row
from microtorrd.terms import Terms
from microtorrd.torrent import Torrent

#: Metainfo larger than this is parsed, and packed, in a thread; a smaller one takes a few milliseconds.
PARSE_INLINE_BYTES = 256 << 10

_log = logs.get(room="intake")


class Intake:
    """The door for new torrents. `closed` when the session stops."""

    def __init__(self, roster: Roster, facilities: Facilities, crew: Crew) -> None:
        self.closed = False
        self._roster = roster
        self._facilities = facilities
        self._crew = crew

    def add(self, metainfo: bytes, terms: Terms) -> Row:
        """Put a torrent on record and start it. Raises InvalidMetainfo, Duplicate, NotAllowed, Busy."""
        meta = self._parse(metainfo)
        selection = marks_of(meta.files, terms.choice)
        is_there = terms.seed_path is not None
        if terms.seed_path is not None:
            save_to, disk_name = os.path.split(terms.seed_path.rstrip("/") or "/")
            if not disk_name:
                raise InvalidParams("seed_path: is the root directory", parameter="seed_path")
        else:
            save_to, disk_name = self._save_to(terms), meta.name
        record = TorrentRecord(
            info_hash=meta.info_hash,
            id_hash=meta.id_hash,
            name=meta.name,
            length=meta.length,
            piece_length=meta.piece_length,
            save_to=save_to,
            disk_name=None if disk_name == meta.name else disk_name,
            label=terms.label,
            stopped=terms.paused,
            added_at=time.time(),
            wait_seeders=terms.wait_seeders,
            wait_leechers=terms.wait_leechers,
            sequential=terms.sequential,
            selection=selection,
            seed_after_download=is_there or self._keep_seeding(terms),
            super_seed=self._super_seeds(terms),
            down_limit=terms.down,
            up_limit=terms.up,
            seed_only=is_there,
            gist=self._gist(meta, metainfo),
            metainfo=metainfo,
        )
        self._roster.refuse_conflicts(record)
        torrent = self._torrent(record)
        self._roster.enter(torrent)
        try:
            self._facilities.ledger.add(record)
        except StorageError as error:
            self._roster.leave(torrent)
            raise NotAllowed(f"the torrent cannot be put on record: {error}", cause=error.cause) from None
        torrent.note("torrent_added")
        self._crew.spawn("load", torrent.load, meta)
        return rows.list_row(torrent)

    def add_magnet(self, link: str, terms: Terms) -> Row:
        """Put a magnet link on record and look for its metainfo. Raises InvalidParams, Duplicate, NotAllowed,
        Busy."""
        magnet = parse_magnet(link)
        self._roster.refuse_present(magnet)
        record = MagnetRecord(
            swarm_id=magnet.swarm_id,
            link=link.strip(),
            save_to=self._save_to(terms),
            added_at=time.time(),
            label=terms.label,
            stopped=terms.paused,
            wait_seeders=terms.wait_seeders,
            wait_leechers=terms.wait_leechers,
            sequential=terms.sequential,
            selection=terms.choice.to_json(),
            seed_after_download=self._keep_seeding(terms),
            super_seed=self._super_seeds(terms),
            down_limit=terms.down,
            up_limit=terms.up,
        )
        resolver = Resolver(record, self._facilities, self._resolved)
        self._roster.enter(resolver)
        try:
            self._facilities.ledger.add_magnet(record)
        except StorageError as error:
            self._roster.leave(resolver)
            raise NotAllowed(f"the link cannot be put on record: {error}", cause=error.cause) from None
        resolver.note("torrent_added")
        resolver.start()
        return rows.list_row(resolver)

    def load_magnets(self) -> None:
        """Go on with the links on record. Waits for the database."""
        for record in self._facilities.ledger.magnets():
            try:
                resolver = Resolver(record, self._facilities, self._resolved)
            except InvalidParams as error:  # of an earlier version's, which took more than we do
                _log.error("magnet_not_loaded", link=record.link, reason=str(error))
                continue
            self._roster.enter(resolver)
            resolver.start()

    def _resolved(self, resolver: Resolver, raw: bytes, meta: Metainfo) -> None:
        """The metainfo of a link is here: the torrent takes its place. Waits for the record."""
        if self.closed or resolver not in self._roster:
            return
        chosen: MagnetRecord | None = None
        while chosen is not resolver.record:  # the operator may choose again meanwhile
            chosen = resolver.record
            try:
                selection = marks_of(meta.files, Choice.from_json(chosen.selection), resolver.link.files)
            except InvalidParams as error:
                resolver.fail(str(error))
                return
        record = TorrentRecord(
            info_hash=meta.info_hash,
            id_hash=meta.id_hash,
            name=meta.name,
            length=meta.length,
            piece_length=meta.piece_length,
            save_to=chosen.save_to,
            added_at=chosen.added_at,
            label=chosen.label,
            stopped=chosen.stopped,
            wait_seeders=chosen.wait_seeders,
            wait_leechers=chosen.wait_leechers,
            sequential=chosen.sequential,
            selection=selection,
            seed_after_download=chosen.seed_after_download,
            super_seed=chosen.super_seed,
            down_limit=chosen.down_limit,
            up_limit=chosen.up_limit,
            gist=self._gist(meta, raw),
            metainfo=raw,
        )
        try:
            self._roster.refuse_conflicts(record, instead_of=resolver)
        except CallerError as error:
            resolver.fail(str(error))
            return
        torrent = self._torrent(record)
        self._roster.leave(resolver)
        self._roster.enter(torrent)
        try:
            self._facilities.ledger.resolve_magnet(chosen.swarm_id, record)
        except (StorageError, Duplicate) as error:
            self._roster.leave(torrent)
            self._roster.enter(resolver)
            resolver.fail(f"the torrent cannot be put on record: {error}")
            return
        torrent.post((AddressesFound(resolver.hand_over(private=meta.private), "resume"),))
        resolver.note("resolved", resolved_info_hash=record.info_hash.hex(), size_bytes=record.length)
        # Not here: this is a greenlet of the link's, which ends with it.
        self._crew.spawn("load", torrent.load, meta)
        self._crew.spawn("bury", resolver.bury, False)

    def _torrent(self, record: TorrentRecord) -> Torrent:
        """It keeps of the record what is not to be had again."""
        kept = replace(record, metainfo=b"", gist=None)
        return Torrent(Content(kept, self._facilities), self._facilities)

    def _parse(self, raw: bytes) -> Metainfo:
        if len(raw) <= PARSE_INLINE_BYTES:
            return metainfo_room.parse(raw)
        parsed: Metainfo = gevent.get_hub().threadpool.apply(metainfo_room.parse, (raw,))
        return parsed

    def _gist(self, meta: Metainfo, raw: bytes) -> bytes | None:
        if len(raw) <= PARSE_INLINE_BYTES:
            return gist.pack(meta, raw, meta.name)
        packed: bytes | None = gevent.get_hub().threadpool.apply(gist.pack, (meta, raw, meta.name))
        return packed

    def _save_to(self, terms: Terms) -> str:
        return os.path.normpath(terms.save_to or self._facilities.config.storage.save_to)

    def _keep_seeding(self, terms: Terms) -> bool:
        wish = terms.seed_after_download
        return self._facilities.config.swarm.seed_after_download if wish is None else wish

    def _super_seeds(self, terms: Terms) -> bool:
        """Nobody but the first seeder is in need of it: where nothing is said, content that comes along."""
        if terms.super_seed is None:
            return terms.seed_path is not None and self._facilities.config.swarm.super_seed
        return terms.super_seed
