"""All torrents of the daemon: add, remove, find, list, and the shared means they work with.

Owns `torrents`; what changes it never waits between its check and its change. What the control socket asks is
answered here, from state. A change that is acknowledged is on record (`ledger.py`) first: that is the one
thing a caller waits for, and it is a commit to our own database, never a payload disk.
"""

from __future__ import annotations

import os
import re
import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence

import gevent

from microtorrd import logs, rows
from microtorrd.config import Config
from microtorrd.content import Content
from microtorrd.core.events import AddressesFound
from microtorrd.disk.state import MagnetRecord, TorrentRecord
from microtorrd.errors import (
    Busy,
    CallerError,
    Duplicate,
    InvalidParams,
    NotAllowed,
    NotFound,
    StorageError,
)
from microtorrd.facilities import Facilities
from microtorrd.greenlets import Crew
from microtorrd.net.connect import Joined, Listener
from microtorrd.notes import Subscription
from microtorrd.proto import metainfo as metainfo_room
from microtorrd.proto.magnet import Magnet, format_magnet, parse_magnet
from microtorrd.proto.metainfo import Metainfo
from microtorrd.resolver import Resolver
from microtorrd.rows import Row
from microtorrd.times import rfc3339
from microtorrd.torrent import Torrent

#: Torrents looked at together while the daemon starts; more would only queue at the disk threads.
LOADERS = 8

#: Metainfo larger than this is parsed in a thread; a smaller one takes a few milliseconds.
PARSE_INLINE_BYTES = 256 << 10

TORRENTS_MAX = 100_000

#: How often a parked torrent is looked at, whether the cause of it is gone.
PROBE_S = 5.0

#: How often totals and notes of progress are made.
TOTALS_EVERY_TICKS = 15

_HEX = re.compile(r"[0-9a-fA-F]{4,40}")

Rows = list[Row]
#: A torrent, or a magnet link that is to become one.
Member = Torrent | Resolver
Members = list[Member]

_log = logs.get(room="session")


class Session:
    """The torrents. `start` returns when the socket may answer; loading goes on behind it."""

    def __init__(self, config: Config, *, crew: Crew, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.torrents: dict[bytes, Torrent] = {}
        self.magnets: dict[bytes, Resolver] = {}  # by the id that the link names
        self._swarms: dict[bytes, Members] = {}  # by swarm id: one content can be here in two shapes
        self._crew = crew
        self._started_at = time.time()
        self._to_load: list[Torrent] = []
        self._ticks = 0
        self._stopping = False
        self.tracker_port: int | None = None  # of the tracker that the daemon serves beside us
        self.facilities = Facilities.make(config, crew=crew, clock=clock)
        self._listener: Listener | None = None

    # --------------------------------------------------------------------------------- life and death

    def start(self) -> None:
        """Open listeners and database; load the torrents behind it. Raises ConfigError or StorageError."""
        facilities = self.facilities
        self._listener = facilities.listen(resolve=self._resolve, accept=self._accept)
        facilities.ledger.start()
        for record in facilities.ledger.summaries():
            self._register(Torrent(Content(record, facilities), facilities))
        self._to_load = list(self.torrents.values())
        self._load_magnets()
        for _ in range(LOADERS):
            self._crew.spawn("loader", self._load_waiting)
        self._crew.spawn("ticker", self._tick_forever)
        self._crew.spawn("prober", self._probe_forever)
        _log.info("session_started", port=facilities.listen_port, torrents=len(self.torrents))

    def stop(self, timeout_s: float) -> None:
        """Listeners, announcers, peers, disk, state: in this order, within about `timeout_s` seconds."""
        if self._stopping:
            return
        self._stopping = True
        facilities, deadline = self.facilities, time.monotonic() + timeout_s
        if self._listener is not None:
            self._listener.close()
        self._to_load.clear()
        for member in self._members():
            member.halt()
        self._record_totals()
        left = max(0.5, min(5.0, (deadline - time.monotonic()) / 2))
        facilities.scheduler.drain(left)
        for member in self._members():
            member.close()
        facilities.ledger.close()
        facilities.pool.close(max(0.5, deadline - time.monotonic()))
        facilities.descriptors.close()
        facilities.notes.close()

    def apply(self, config: Config) -> None:
        """Adopt what may change while running: limits, and how swarms are dealt with."""
        self.config = config
        self.facilities.apply(config)
        for member in self._members():
            member.settings_changed()

    def heartbeat(self, within_s: float = 20.0) -> bool:
        """Whether the disk threads still answer."""
        return self.facilities.pool.heartbeat(within_s)

    # ---------------------------------------------------------------------------------------- adding

    def add(
        self,
        metainfo: bytes,
        *,
        save_to: str | None,
        seed_path: str | None,
        paused: bool,
        wait_seeders: int,
        wait_leechers: int,
        down: int,
        up: int,
        label: str,
        sequential: bool,
        seed_after_download: bool | None,
    ) -> Row:
        """Put a torrent on record and start it. Raises InvalidMetainfo, Duplicate, NotAllowed, Busy."""
        self._refuse_while_stopping()
        meta = self._parse(metainfo)
        if seed_path is not None:
            save_to, disk_name = os.path.split(seed_path.rstrip("/") or "/")
            if not disk_name:
                raise InvalidParams("seed_path: is the root directory", parameter="seed_path")
        else:
            save_to, disk_name = os.path.normpath(save_to or self.config.storage.save_to), meta.name
        keep_seeding = (
            self.config.swarm.seed_after_download if seed_after_download is None else seed_after_download
        )
        record = TorrentRecord(
            info_hash=meta.info_hash,
            id_hash=meta.id_hash,
            name=meta.name,
            length=meta.length,
            piece_length=meta.piece_length,
            save_to=save_to,
            disk_name=None if disk_name == meta.name else disk_name,
            label=label,
            stopped=paused,
            added_at=time.time(),
            wait_seeders=wait_seeders,
            wait_leechers=wait_leechers,
            sequential=sequential,
            seed_after_download=keep_seeding or seed_path is not None,
            down_limit=down,
            up_limit=up,
            seed_only=seed_path is not None,
            metainfo=metainfo,
        )
        self._refuse_conflicts(record)
        torrent = Torrent(Content(record, self.facilities), self.facilities)
        self._register(torrent)
        try:
            self.facilities.ledger.add(record)
        except StorageError as error:
            self._unregister(torrent)
            raise NotAllowed(f"the torrent cannot be put on record: {error}", cause=error.cause) from None
        torrent.note("torrent_added")
        self._crew.spawn("load", torrent.load, meta)
        return rows.list_row(torrent)

    def add_magnet(
        self,
        link: str,
        *,
        save_to: str | None,
        paused: bool,
        wait_seeders: int,
        wait_leechers: int,
        down: int,
        up: int,
        label: str,
        sequential: bool,
        seed_after_download: bool | None,
    ) -> Row:
        """Put a magnet link on record and look for its metainfo. Raises InvalidParams, Duplicate, NotAllowed,
        Busy."""
        self._refuse_while_stopping()
        magnet = parse_magnet(link)
        self._refuse_present(magnet)
        keep_seeding = (
            self.config.swarm.seed_after_download if seed_after_download is None else seed_after_download
        )
        record = MagnetRecord(
            swarm_id=magnet.swarm_id,
            link=link.strip(),
            save_to=os.path.normpath(save_to or self.config.storage.save_to),
            added_at=time.time(),
            label=label,
            stopped=paused,
            wait_seeders=wait_seeders,
            wait_leechers=wait_leechers,
            sequential=sequential,
            seed_after_download=keep_seeding,
            down_limit=down,
            up_limit=up,
        )
        resolver = Resolver(record, self.facilities, self._resolved)
        self._register(resolver)
        try:
            self.facilities.ledger.add_magnet(record)
        except StorageError as error:
            self._unregister(resolver)
            raise NotAllowed(f"the link cannot be put on record: {error}", cause=error.cause) from None
        resolver.note("torrent_added")
        resolver.start()
        return rows.list_row(resolver)

    def _refuse_present(self, magnet: Magnet) -> None:
        """A link to what is here already, as a torrent or as another link to the same."""
        if len(self.torrents) + len(self.magnets) >= TORRENTS_MAX:
            raise Busy(f"there are {TORRENTS_MAX} torrents already", limit=TORRENTS_MAX)
        present = next(iter(self._swarms.get(magnet.swarm_id, ())), None)
        if present is not None:
            raise Duplicate(
                f"the torrent is already here as {present.name!r}",
                info_hash=present.info_hash.hex(),
                name=present.name,
            )

    def _load_magnets(self) -> None:
        for record in self.facilities.ledger.magnets():
            try:
                resolver = Resolver(record, self.facilities, self._resolved)
            except InvalidParams as error:  # of an earlier version's, which took more than we do
                _log.error("magnet_not_loaded", link=record.link, reason=str(error))
                continue
            self._register(resolver)
            resolver.start()

    def _resolved(self, resolver: Resolver, raw: bytes, meta: Metainfo) -> None:
        """The metainfo of a link is here: the torrent takes its place. Waits for the record."""
        if self._stopping or self.magnets.get(resolver.info_hash) is not resolver:
            return
        chosen = resolver.record
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
            seed_after_download=chosen.seed_after_download,
            down_limit=chosen.down_limit,
            up_limit=chosen.up_limit,
            metainfo=raw,
        )
        try:
            self._refuse_conflicts(record, instead_of=resolver)
        except CallerError as error:
            resolver.fail(str(error))
            return
        torrent = Torrent(Content(record, self.facilities), self.facilities)
        self._unregister(resolver)
        self._register(torrent)
        try:
            self.facilities.ledger.resolve_magnet(chosen.swarm_id, record)
        except (StorageError, Duplicate) as error:
            self._unregister(torrent)
            self._register(resolver)
            resolver.fail(f"the torrent cannot be put on record: {error}")
            return
        torrent.post((AddressesFound(resolver.hand_over(), "resume"),))
        resolver.note("resolved", resolved_info_hash=record.info_hash.hex(), size_bytes=record.length)
        # Not here: this is a greenlet of the link's, which ends with it.
        self._crew.spawn("load", torrent.load, meta)
        self._crew.spawn("bury", resolver.bury, False)

    def magnet(self, id: str) -> str:
        """The magnet link of one torrent: with its trackers and web seeds, and both of its ids."""
        member = self._one(id)
        if isinstance(member, Resolver):
            return member.record.link
        content = member.content
        magnet = Magnet(
            info_hash=member.info_hash,
            id_hash=content.record.id_hash,
            name=content.record.name,
            trackers=tuple(tracker for tier in content.trackers for tracker in tier),
            web_seeds=content.web_seeds,
        )
        return format_magnet(magnet)

    def _parse(self, raw: bytes) -> Metainfo:
        if len(raw) <= PARSE_INLINE_BYTES:
            return metainfo_room.parse(raw)
        parsed: Metainfo = gevent.get_hub().threadpool.apply(metainfo_room.parse, (raw,))
        return parsed

    def _refuse_conflicts(self, record: TorrentRecord, instead_of: Resolver | None = None) -> None:
        """Two torrents must never write to the same files."""
        if len(self.torrents) + len(self.magnets) - (instead_of is not None) >= TORRENTS_MAX:
            raise Busy(f"there are {TORRENTS_MAX} torrents already", limit=TORRENTS_MAX)
        present = self.torrents.get(record.info_hash) or self.magnets.get(record.info_hash)
        if present is not None and present is not instead_of:
            raise Duplicate(
                f"the torrent is already here as {present.name!r}",
                info_hash=record.info_hash.hex(),
                name=present.name,
            )
        path = os.path.join(record.save_to, record.disk_name or record.name)
        for other in self.torrents.values():
            if other.content.path == path and not (record.seed_only and other.writes_no_more):
                raise NotAllowed(
                    f"{path} belongs to the torrent {other.content.record.name!r} ({other.short_id}) already",
                    path=path,
                    info_hash=other.info_hash.hex(),
                )

    def _members(self) -> Members:
        return [*self.torrents.values(), *self.magnets.values()]

    def _register(self, member: Member) -> None:
        if isinstance(member, Resolver):
            self.magnets[member.info_hash] = member
        else:
            self.torrents[member.info_hash] = member
        for swarm_id in member.swarm_ids:
            self._swarms.setdefault(swarm_id, []).append(member)

    def _unregister(self, member: Member) -> None:
        if isinstance(member, Resolver):
            self.magnets.pop(member.info_hash, None)
        else:
            self.torrents.pop(member.info_hash, None)
        for swarm_id in member.swarm_ids:
            sharers = self._swarms.get(swarm_id, [])
            if member in sharers:
                sharers.remove(member)
            if not sharers:
                self._swarms.pop(swarm_id, None)

    def _load_waiting(self) -> None:
        while self._to_load:
            torrent = self._to_load.pop(0)
            torrent.load(None)

    # --------------------------------------------------------------------------------------- finding

    def _refuse_while_stopping(self) -> None:
        if self._stopping:
            raise NotAllowed("the daemon is stopping")

    def find(self, id: str) -> Members:
        """Those meant by a name, a prefix of an id (4 hex digits or more) or `all`. Raises NotFound."""
        members = self._members()
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
        candidates = [torrent.info_hash.hex() for torrent in named[:20]]
        raise NotFound(
            f"{id!r} may mean {len(named)} torrents: {', '.join(candidates)}", id=id, candidates=candidates
        )

    def _one(self, id: str) -> Member:
        found = self.find(id)
        if len(found) != 1:
            raise NotFound(f"{id!r} means {len(found)} torrents; this call is about one", id=id)
        return found[0]

    # --------------------------------------------------------------------------------------- reading

    def list(self, ids: Sequence[str] | None = None) -> Rows:
        """Rows of all torrents, or of these."""
        if ids is None:
            return [rows.list_row(member) for member in self._members()]
        wanted = {torrent.info_hash: torrent for id in ids for torrent in self.find(id)}
        return [rows.list_row(torrent) for torrent in wanted.values()]

    def show(self, id: str) -> Row:
        """Everything about one torrent."""
        return rows.detail_row(self._one(id))

    def peers(self, id: str) -> Rows:
        """The connected peers of one torrent."""
        return rows.peer_rows(self._one(id))

    def files(self, id: str) -> Rows:
        """The files of one torrent."""
        return rows.file_rows(self._one(id))

    def trackers(self, id: str) -> Rows:
        """The trackers of one torrent."""
        return rows.tracker_rows(self._one(id))

    def limits(self) -> Row:
        """The limits of the whole daemon, bytes a second; 0: none."""
        return {"down": int(self.facilities.down.rate_per_s), "up": int(self.facilities.up.rate_per_s)}

    def stats(self) -> Row:
        """Figures of the whole daemon."""
        listed = self.list()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "torrents": len(listed),
            "states": dict(Counter(row["state"] for row in listed)),
            "down_bytes_per_s": sum(row["down_bytes_per_s"] for row in listed),
            "up_bytes_per_s": sum(row["up_bytes_per_s"] for row in listed),
            "downloaded_bytes": sum(row["downloaded_bytes"] for row in listed),
            "uploaded_bytes": sum(row["uploaded_bytes"] for row in listed),
            "connections": self.facilities.connections,
            "limits": self.limits(),
            "listen_port": self.facilities.listen_port,
            "listen_addresses": [] if self._listener is None else self._listener.addresses,
            "tracker_port": self.tracker_port,
            "started_at": rfc3339(self._started_at),
            "uptime_s": round(time.time() - self._started_at, 1),
            "memory_bytes": resident_bytes(),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
            "piece_memory_bytes": self.facilities.buffers.lent_bytes,
            "disk_backlog": self.facilities.pool.backlog,
            "banned_hosts": len(self.facilities.banned),
            "pid": os.getpid(),
        }

    def subscribe(self) -> Subscription:
        """A stream of notes from now on."""
        return self.facilities.notes.subscribe()

    # -------------------------------------------------------------------------------------- changing

    def pause(self, id: str) -> Row:
        """Stop these torrents until they are resumed."""
        return self._change(id, lambda member: member.pause())

    def resume(self, id: str) -> Row:
        """Let these torrents run; one that failed is tried again."""
        return self._change(id, lambda member: member.resume())

    def seed(self, id: str) -> Row:
        """Let these torrents run, and seed when they are whole."""
        return self._change(id, lambda member: member.seed())

    def verify(self, id: str) -> Row:
        """Check all content again."""
        return self._change(id, lambda member: member.verify())

    def reannounce(self, id: str) -> Row:
        """Ask the trackers for peers now, as far as they allow."""
        return self._change(id, lambda member: member.reannounce())

    def remove(self, id: str, data: bool) -> Row:
        """Forget these torrents; with `data` delete their files too, behind this call."""
        self._refuse_while_stopping()
        found = self.find(id)
        for torrent in found:
            if torrent.moving:
                raise NotAllowed(f"{torrent.name!r} is being moved", info_hash=torrent.info_hash.hex())
        gone = [rows.list_row(torrent) for torrent in found]
        for torrent in found:
            self._strike(torrent)
            if torrent not in self._members():
                continue  # somebody else was quicker
            self._unregister(torrent)
            torrent.halt()
            torrent.note("torrent_removed", data=data)
            self._crew.spawn("bury", torrent.bury, data)
        return {"torrents": gone}

    def _strike(self, member: Member) -> None:
        """Take it off the record; where that cannot be it stays, here as there. Waits for the commit."""
        ledger = self.facilities.ledger
        try:
            if isinstance(member, Resolver):
                ledger.remove_magnet(member.info_hash)
            else:
                ledger.remove(member.info_hash)
        except StorageError as error:
            message = f"{member.name!r} cannot be taken off the record: {error}"
            raise NotAllowed(message, cause=error.cause) from None

    def move(self, id: str, save_to: str) -> Row:
        """Move the content of these torrents to another directory, behind this call."""
        self._refuse_while_stopping()
        found = self.find(id)
        target = os.path.normpath(save_to)
        for torrent in found:
            torrent.begin_move(target)
        return {"torrents": [rows.list_row(torrent) for torrent in found]}

    def set_limit(self, id: str | None, down: int | None, up: int | None) -> Row:
        """Limit these torrents, or with None the whole daemon; None for a rate leaves it as it is."""
        self._refuse_while_stopping()
        if id is None:
            self.facilities.set_limits(down=down, up=up)
            self.facilities.notes.publish("limits_changed", **self.limits())
            return self.limits()
        wanted = {"down_limit": down, "up_limit": up}
        given = {key: value for key, value in wanted.items() if value is not None}
        found = self.find(id)
        for torrent in found:
            torrent.choose(**given)
        records = [torrent.record for torrent in found]
        return {
            "down": max((record.down_limit for record in records), default=0),
            "up": max((record.up_limit for record in records), default=0),
        }

    def _change(self, id: str, change: Callable[[Member], object]) -> Row:
        self._refuse_while_stopping()
        found = self.find(id)
        for torrent in found:
            change(torrent)
        return {"torrents": [rows.list_row(torrent) for torrent in found]}

    # -------------------------------------------------------------------------------- the daemon's own

    def _resolve(self, swarm_id: bytes) -> Member | None:
        """The torrent that a handshake means, one that runs before one that does not."""
        sharers = self._swarms.get(swarm_id, ())
        return next((torrent for torrent in sharers if torrent.takes_peers), None)

    def _accept(self, joined: Joined) -> None:
        torrent = self._resolve(joined.handshake.swarm_id)
        if torrent is None:
            joined.sock.close()
        else:
            torrent.adopt(joined)

    def _tick_forever(self) -> None:
        notes = self.facilities.notes
        while True:
            gevent.sleep(1.0)
            self._ticks += 1
            for torrent in tuple(self.facilities.active):
                torrent.tick()
                if notes.has_readers:
                    torrent.note_progress()
            if self._ticks % TOTALS_EVERY_TICKS == 0:
                self._record_totals()
                self.facilities.buffers.trim()

    def _record_totals(self) -> None:
        ledger = self.facilities.ledger
        ledger.record_totals(
            (torrent.info_hash, downloaded, uploaded)
            for torrent in self.torrents.values()
            for uploaded, downloaded in (torrent.totals(),)
        )

    def _probe_forever(self) -> None:
        """Look at each parked torrent now and then: it goes on by itself when the cause is gone."""
        while True:
            gevent.sleep(PROBE_S)
            for torrent in tuple(self.torrents.values()):
                if torrent.is_parked:
                    torrent.probe()


def resident_bytes() -> int:
    """Memory of this process that is in RAM (proc(5), statm)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
