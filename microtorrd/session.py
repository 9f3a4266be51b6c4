"""All torrents of the daemon: their life, what is asked about them, and what is wished of them.

Owns the roster of torrents; what changes it never waits between its check and its change. What the control
socket asks is answered here, from state. A change that is acknowledged is on record (`ledger.py`) first: that
is the one thing a caller waits for, and it is a commit to our own database, never a payload disk.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import gevent

from microtorrd import libraries, logs, rows
from microtorrd.changes import ROWS_AT_ONCE, Changes
from microtorrd.config import Config
from microtorrd.content import Content
from microtorrd.core.events import Address, AddressesFound
from microtorrd.cycles import HighWater
from microtorrd.errors import (
    NotAllowed,
    StorageError,
)
from microtorrd.facilities import Facilities
from microtorrd.greenlets import Crew, breathe
from microtorrd.intake import Intake
from microtorrd.loading import Loading
from microtorrd.net.discovery import Discovery
from microtorrd.net.greeting import Joined
from microtorrd.net.listener import Listener
from microtorrd.net.neighbourhood import ways
from microtorrd.notes import Subscription
from microtorrd.proto.magnet import Magnet, format_magnet
from microtorrd.proto.selection import Priority
from microtorrd.resolver import Resolver
from microtorrd.roster import Member, Roster
from microtorrd.rows import Row
from microtorrd.terms import Terms
from microtorrd.times import rfc3339
from microtorrd.torrent import Torrent

#: How often a parked torrent is looked at, whether the cause of it is gone.
PROBE_S = 5.0

#: How often totals and notes of progress are made.
TOTALS_EVERY_TICKS = 15

#: Ids looked up among all torrents between two breaths: with thousands each costs half a millisecond.
FINDS_AT_ONCE = 4

#: Torrents that are told of something between two breaths: those that have to wake up take half a
#: millisecond each.
TOLD_AT_ONCE = 20

Rows = list[Row]

_log = logs.get(room="session")


class Session:
    """The torrents. `start` returns when the socket may answer; loading goes on behind it."""

    def __init__(self, config: Config, *, crew: Crew, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.roster = Roster()
        self._crew = crew
        self._started_at = time.time()
        self._loading: Loading | None = None
        self._ticks = 0
        self._stopping = False
        self.tracker_port: int | None = None  # of the tracker that the daemon serves beside us
        self.tracker_udp_port: int | None = None  # and where it answers over UDP
        self.facilities = Facilities.make(config, crew=crew, clock=clock)
        self._intake = Intake(self.roster, self.facilities, crew)
        self._listener: Listener | None = None
        self._discovery: Discovery | None = None
        self._changes = Changes(breathe)
        self._high_water = HighWater()

    # --------------------------------------------------------------------------------- life and death

    def start(
        self,
        on_loaded: Callable[[], None] | None = None,
        warm_up: Callable[[], None] | None = None,
    ) -> None:
        """Open listeners and database; load the torrents behind it, and call `on_loaded` when that is done,
        `warm_up` (of the libraries) before trackers are told. Raises ConfigError or StorageError."""
        facilities = self.facilities
        self._listener = facilities.listen(resolve=self.roster.of_swarm, accept=self._accept)
        self._discover()
        facilities.ledger.start()
        for record in facilities.ledger.summaries():
            self.roster.enter(Torrent(Content(record, facilities), facilities))
        self._intake.load_magnets()
        self._crew.spawn("loaders", self._load_all, on_loaded, warm_up)
        self._crew.spawn("ticker", self._tick_forever)
        self._crew.spawn("prober", self._probe_forever)
        _log.info("session_started", port=facilities.listen_port, torrents=len(self.roster.torrents))

    def stop(self, timeout_s: float) -> None:
        """Listeners, announcers, peers, disk, state: in this order, within about `timeout_s` seconds."""
        if self._stopping:
            return
        self._stopping = self._intake.closed = True
        facilities, deadline = self.facilities, time.monotonic() + timeout_s
        if self._listener is not None:
            self._listener.close()
        if self._discovery is not None:
            self._discovery.close()
        if self._loading is not None:
            self._loading.give_up()
        for member in unhurried(self.roster.members()):
            member.halt()
        self._record_totals()
        left = max(0.5, min(5.0, (deadline - time.monotonic()) / 2))
        facilities.scheduler.drain(left)
        for member in unhurried(self.roster.members()):
            member.close()
        facilities.ledger.close(max(0.5, deadline - time.monotonic()))
        facilities.pool.close(max(0.5, deadline - time.monotonic()))
        facilities.descriptors.close()
        facilities.notes.close()

    def apply(self, config: Config) -> None:
        """Adopt what may change while running: limits, and how swarms are dealt with."""
        self.config = config
        self.facilities.apply(config)
        self._discover()
        for member in self.roster.members():
            member.settings_changed()

    def heartbeat(self, within_s: float = 20.0) -> bool:
        """Whether the disk threads still answer."""
        return self.facilities.pool.heartbeat(within_s)

    # ---------------------------------------------------------------------------------------- adding

    def add(self, metainfo: bytes, terms: Terms) -> Row:
        """Put a torrent on record and start it; see `Intake.add`."""
        self._refuse_while_stopping()
        return self._intake.add(metainfo, terms)

    def add_magnet(self, link: str, terms: Terms) -> Row:
        """Put a magnet link on record and look for its metainfo; see `Intake.add_magnet`."""
        self._refuse_while_stopping()
        return self._intake.add_magnet(link, terms)

    def magnet(self, id: str) -> str:
        """The magnet link of one torrent: with its trackers and web seeds, and both of its ids."""
        member = self.roster.one(id)
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

    def _load_all(self, on_loaded: Callable[[], None] | None, warm_up: Callable[[], None] | None) -> None:
        """Load what there was at the start, some at a time."""
        began = time.monotonic()
        loading = self._loading = Loading(
            self.roster.torrents.values(), self.facilities, warm_up or partial(libraries.warm_up, breathe)
        )
        count = len(self.roster.torrents)
        loading.run(self._crew)
        _log.info("torrents_loaded", torrents=count, took_s=round(time.monotonic() - began, 3))
        if on_loaded is not None:
            on_loaded()

    # --------------------------------------------------------------------------------------- finding

    def _refuse_while_stopping(self) -> None:
        if self._stopping:
            raise NotAllowed("the daemon is stopping")

    # --------------------------------------------------------------------------------------- reading

    def list(self, ids: Sequence[str] | None = None) -> Rows:
        """Rows of all torrents, or of these. Others get their turn meanwhile."""
        if ids is None:
            members = self.roster.members()
        else:
            found: dict[bytes, Member] = {}
            for number, id in enumerate(ids, 1):
                found |= {member.info_hash: member for member in self.roster.find(id)}
                if number % FINDS_AT_ONCE == 0:
                    breathe()
            members = list(found.values())
        listed: Rows = []
        for start in range(0, len(members), ROWS_AT_ONCE):
            if start:
                breathe()
            listed += map(rows.list_row, members[start : start + ROWS_AT_ONCE])
        return listed

    def list_changes(self, since: str) -> Row:
        """What of the list has changed since that token: see `Changes`."""
        return self._changes.since(since, self.roster.members)._asdict()

    def show(self, id: str) -> Row:
        """Everything about one torrent."""
        return rows.detail_row(self.roster.one(id))

    def peers(self, id: str) -> Rows:
        """The connected peers of one torrent."""
        return rows.peer_rows(self.roster.one(id))

    def files(self, id: str) -> Rows:
        """The files of one torrent."""
        return rows.file_rows(self.roster.one(id))

    def trackers(self, id: str) -> Rows:
        """The trackers of one torrent."""
        return rows.tracker_rows(self.roster.one(id))

    def limits(self) -> Row:
        """The limits of the whole daemon, bytes a second; 0: none."""
        return {"down": int(self.facilities.down.rate_per_s), "up": int(self.facilities.up.rate_per_s)}

    def stats(self) -> Row:
        """Figures of the whole daemon."""
        figures = rows.total_row(self.roster.members())
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            **figures,
            "connections": self.facilities.connections,
            "limits": self.limits(),
            "listen_port": self.facilities.listen_port,
            "listen_addresses": [] if self._listener is None else self._listener.addresses,
            "external_addresses": self.facilities.ourselves.known(),
            "tracker_port": self.tracker_port,
            "tracker_udp_port": self.tracker_udp_port,
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
        return self._change(id, lambda member: member.pause(), stopped=True)

    def resume(self, id: str) -> Row:
        """Let these torrents run; one that failed is tried again."""
        return self._change(id, lambda member: member.resume(), stopped=False)

    def seed(self, id: str, super_seed: bool | None = None) -> Row:
        """Let these torrents run, and seed when they are whole; `super_seed` None: as before."""
        how = {} if super_seed is None else {"super_seed": super_seed}
        fields = {"stopped": False, "seed_after_download": True, **how}
        return self._change(id, lambda member: member.seed(super_seed), **fields)

    def verify(self, id: str) -> Row:
        """Check all content again; of all torrents, those that have some."""
        return self._change(id, lambda member: member.verify(), also_links=False)

    def reannounce(self, id: str) -> Row:
        """Ask the trackers for peers now, as far as they allow."""
        return self._change(id, lambda member: member.reannounce())

    def remove(self, id: str, data: bool) -> Row:
        """Forget these torrents; with `data` delete their files too, behind this call."""
        self._refuse_while_stopping()
        found = self.roster.find(id)
        for torrent in found:
            if torrent.moving:
                raise NotAllowed(f"{torrent.name!r} is being moved", info_hash=torrent.info_hash.hex())
        gone = [rows.list_row(torrent) for torrent in unhurried(found)]
        for torrent in found:
            if data and isinstance(torrent, Torrent):
                torrent.recall_files()
            self._strike(torrent)
            if torrent not in self.roster:
                continue  # somebody else was quicker
            self.roster.leave(torrent)
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
        found = self.roster.find(id)
        target = os.path.normpath(save_to)
        if len(found) > 1:  # of all those, some may be there already
            found = [torrent for torrent in found if torrent.record.save_to != target]
        for torrent in found:
            torrent.refuse_move(target)
        self.roster.refuse_moves(found, target)
        # Links wait for their record, and a torrent may become busy meanwhile: torrents first.
        for torrent in sorted(found, key=lambda member: isinstance(member, Resolver)):
            torrent.begin_move(target)
        return {"torrents": [rows.list_row(torrent) for torrent in found]}

    def select(self, id: str, files: Sequence[str], priority: Priority) -> Row:
        """Want these files of one torrent more, less or not at all; of a link, as soon as they are known."""
        self._refuse_while_stopping()
        torrent = self.roster.one(id)
        torrent.choose_files(files, priority)
        return {"torrents": [rows.list_row(torrent)]}

    def order(self, id: str, sequential: bool) -> Row:
        """Let these torrents fetch their pieces in their order, or the rarest first."""
        return self._change(id, lambda member: member.choose(sequential=sequential))

    def set_limit(self, id: str | None, down: int | None, up: int | None) -> Row:
        """Limit these torrents, or with None the whole daemon; None for a rate leaves it as it is."""
        self._refuse_while_stopping()
        if id is None:
            self.facilities.set_limits(down=down, up=up)
            self.facilities.notes.publish("limits_changed", **self.limits())
            return self.limits()
        wanted = {"down_limit": down, "up_limit": up}
        given = {key: value for key, value in wanted.items() if value is not None}
        found = self.roster.find(id)
        self._put_on_record(found, given)
        for torrent in unhurried(found):
            torrent.choose(**given)
        records = [torrent.record for torrent in found]
        return {
            "down": max((record.down_limit for record in records), default=0),
            "up": max((record.up_limit for record in records), default=0),
        }

    def _change(
        self,
        id: str,
        change: Callable[[Member], object],
        *,
        also_links: bool = True,
        **fields: Any,
    ) -> Row:
        """Let each of them do it; `fields` are what it will put on record. Without `also_links` magnet links
        are not meant where there are several."""
        self._refuse_while_stopping()
        found = self.roster.find(id)
        if not also_links and len(found) > 1:
            found = [member for member in found if not isinstance(member, Resolver)]
        self._put_on_record(found, fields)
        for torrent in unhurried(found):
            change(torrent)
        return {"torrents": [rows.list_row(torrent) for torrent in unhurried(found)]}

    def _put_on_record(self, members: Sequence[Member], fields: Row) -> None:
        """Of several torrents at once, because each commit waits for the disk. Waits for one."""
        torrents = [member for member in members if isinstance(member, Torrent)]
        if len(torrents) < 2 or not fields:
            return  # each sees to it itself
        if fields.get("stopped") is False:
            for torrent in torrents:
                torrent.refuse_while_moving()
        try:
            self.facilities.ledger.change_all([torrent.info_hash for torrent in torrents], **fields)
        except StorageError as error:
            raise NotAllowed(f"the choice cannot be put on record: {error}", cause=error.cause) from None
        for torrent in torrents:
            torrent.content.adopt_change(**fields)

    # -------------------------------------------------------------------------------- the daemon's own

    def _accept(self, joined: Joined) -> None:
        torrent = self.roster.of_swarm(joined.handshake.swarm_id)
        if torrent is None:
            joined.sock.close()
        else:
            torrent.adopt(joined)

    def _discover(self) -> None:
        """Look for neighbours, or look for them no more, as the setting says."""
        wanted = self.config.swarm.local_discovery and not self._stopping
        if not wanted and self._discovery is not None:
            self._discovery.close()
            self._discovery = None
        elif wanted and self._discovery is None and self._listener is not None and self._listener.places:
            listened = [host for host, _ in self._listener.places]
            self._discovery = Discovery(
                crew=self._crew.child("discovery"),
                port=self._listener.port,
                ways=partial(ways, self.config.listen.interface, listened),
                present=self._shown_to_neighbours,
                heard=self._hear_neighbour,
            )
            self._discovery.start()

    def _shown_to_neighbours(self) -> Iterator[bytes]:
        """The swarm ids of what is shared with anybody."""
        for member in self.roster.members():
            if member.takes_peers and member.is_public:
                yield from member.swarm_ids

    def _hear_neighbour(self, swarm_id: bytes, address: Address) -> None:
        member = self.roster.of_swarm(swarm_id)
        if member is None or not member.is_public:
            return
        # Every five minutes they say it again; nobody is woken for what is known.
        if member.book is None or member.book.state(address) in (None, "idle"):
            member.post((AddressesFound((address,), "lsd"),))

    def _tick_forever(self) -> None:
        notes = self.facilities.notes
        while True:
            gevent.sleep(1.0)
            self._ticks += 1
            self.facilities.pool.look()
            self._high_water.look(self.facilities.connections)
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
            for torrent in self.roster.torrents.values()
            if torrent.rest is None  # else it was recorded when it went to rest
            for uploaded, downloaded in (torrent.totals(),)
        )

    def _probe_forever(self) -> None:
        """Look at each parked torrent now and then: it goes on by itself when the cause is gone."""
        while True:
            gevent.sleep(PROBE_S)
            for torrent in tuple(self.roster.torrents.values()):
                if torrent.is_parked:
                    torrent.probe()


def unhurried(members: Sequence[Member]) -> Iterator[Member]:
    """These, and now and then a turn for others."""
    for number, member in enumerate(members, 1):
        yield member
        if number % TOLD_AT_ONCE == 0:
            breathe()


def resident_bytes() -> int:
    """Memory of this process that is in RAM (proc(5), statm)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
