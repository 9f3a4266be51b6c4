"""A small session and daemon that obey `SessionApi` and `DaemonApi`, for tests of what is around the socket.

They keep torrents as rows, change their states at once, and publish notes on the real board. What a test
wants to happen later (progress, completion, failure) it makes happen with `grow` and `fail`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from microtorrd import __version__
from microtorrd.errors import ConfigError, Duplicate, InvalidParams, NotAllowed, NotFound
from microtorrd.notes import NoteBoard, Subscription
from microtorrd.proto import metainfo
from microtorrd.proto.magnet import Magnet, format_magnet, parse_magnet
from microtorrd.proto.metainfo import FileEntry, Metainfo
from microtorrd.proto.selection import Priority, find_files
from microtorrd.rpc.api import DaemonApi, Row, Services, SessionApi
from microtorrd.terms import Terms

#: The class below has a method called `list`.
Rows = list[Row]


def mtorrent(name: str = "ubuntu.iso", length: int = 40, piece_length: int = 16, **more: Any) -> bytes:
    """A `.mtorrent` of a single file, its hashes made of the name."""
    pieces = -(-length // piece_length)
    hashes = (name.encode() * 20)[:20]
    return metainfo.build(
        name=name,
        piece_length=piece_length,
        files=[FileEntry((name,), length)],
        is_single_file=True,
        pieces=hashes * pieces,
        id_hash=hashes,
        trackers=[["http://127.0.0.1:8888/announce"]],
        **more,
    )


class FakeSession:
    """Torrents that do what they are told."""

    def __init__(self, bound: int = 10_000) -> None:
        self.board = NoteBoard()
        self.rows: dict[str, Row] = {}
        self.parsed: dict[str, Metainfo] = {}
        self.added: list[Terms] = []
        self.super_seeding: list[tuple[str, bool | None]] = []  # what `seed` was told
        self.calls: list[tuple[Any, ...]] = []
        self.torrent_limits: dict[str, dict[str, int]] = {}
        self.session_limits = {"down": 0, "up": 0}
        self.peer_rows: list[Row] = []
        self.crash: Exception | None = None
        self._bound = bound

    # ------------------------------------------------------------------------------ what SessionApi asks for

    def add(self, metainfo: bytes, terms: Terms) -> Row:
        if self.crash is not None:
            raise self.crash
        what = parse(metainfo)
        key = what.info_hash.hex()
        if key in self.rows:
            raise Duplicate(f"{what.name} is already here", info_hash=key, name=what.name)
        if terms.seed_path is not None:
            state, done = "seeding", what.length
        else:
            state, done = "stopped" if terms.paused else "downloading", 0
        row: Row = {
            "name": what.name,
            "info_hash": key,
            "id_hash": None if what.id_hash is None else what.id_hash.hex(),
            "state": state,
            "progress": done / what.length if what.length else 1.0,
            "size_bytes": what.length,
            "wanted_bytes": what.length,
            "done_bytes": done,
            "down_bytes_per_s": 0,
            "up_bytes_per_s": 0,
            "peers": 0,
            "seeders": 0,
            "eta_s": None,
            "save_to": terms.save_to or "/srv/torrents",
            "label": terms.label,
            "error": None,
            "added_at": "2026-01-02T03:04:05Z",
            "uploaded_bytes": 0,
            "downloaded_bytes": 0,
            "ratio": 0.0,
            "piece_length": what.piece_length,
            "piece_count": what.piece_count,
            "completed_at": None,
            "sequential": terms.sequential,
            "checked": None,
        }
        self.rows[key] = row
        self.parsed[key] = what
        self.added.append(terms)
        self.torrent_limits[key] = {"down": terms.down, "up": terms.up}
        self.note("torrent_added", row)
        return dict(row)

    def add_magnet(self, link: str, terms: Terms) -> Row:
        magnet = parse_magnet(link)
        row = self.add(mtorrent(magnet.shown_name), terms)
        self.rows[row["info_hash"]]["state"] = "resolving"
        return {**row, "state": "resolving"}

    def magnet(self, id: str) -> str:
        row = self._one(id)
        return format_magnet(Magnet(bytes.fromhex(row["info_hash"]), name=row["name"]))

    def list(self, ids: Sequence[str] | None = None) -> Rows:
        if self.crash is not None:
            raise self.crash
        chosen = self.rows.values() if ids is None else [row for id in ids for row in self.find(id)]
        return [dict(row) for row in chosen]

    def list_changes(self, since: str) -> dict[str, Any]:
        listed = self.list()
        token = f"fake-{hash(str(listed))}"
        unchanged = since == token
        return {"torrents": [] if unchanged else listed, "removed": [], "token": token, "full": not unchanged}

    def show(self, id: str) -> dict[str, Any]:
        row = self._one(id)
        what = self.parsed[row["info_hash"]]
        return {
            **row,
            "private": what.private,
            "comment": what.comment,
            "created_by": what.created_by,
            "created_at": None,
            "dialect": what.dialect,
            "file_count": len(what.files),
            "content_path": f"{row['save_to']}/{what.name}",
            "pieces_done": 0,
            "leechers": 0,
            "wasted_bytes": 0,
            "corrupt_pieces": 0,
            "settings": {
                "wait_seeders": 0,
                "wait_leechers": 0,
                "sequential": False,
                "seed_after_download": True,
                "super_seed": False,
                **self.torrent_limits[row["info_hash"]],
            },
            "confirmed": False,
            "trackers": self.trackers(id),
            "web_seeds": [],
            "last_download": None,
            "move": None,
        }

    def pause(self, id: str) -> dict[str, Any]:
        return self._change("pause", id, "stopped")

    def resume(self, id: str) -> dict[str, Any]:
        return self._change("resume", id, "downloading")

    def seed(self, id: str, super_seed: bool | None) -> dict[str, Any]:
        self.super_seeding.append((id, super_seed))
        return self._change("seed", id, "seeding")

    def verify(self, id: str) -> dict[str, Any]:
        for row in self.find(id):
            if row["state"] == "stopped":
                raise NotAllowed(f"{row['name']} is paused", id=id)
        return self._change("verify", id, "checking")

    def remove(self, id: str, data: bool) -> dict[str, Any]:
        gone = self.find(id)
        for row in gone:
            self.calls.append(("remove", row["name"], data))
            del self.rows[row["info_hash"]]
            self.note("torrent_removed", row)
        return {"torrents": gone}

    def move(self, id: str, save_to: str) -> dict[str, Any]:
        for row in self.find(id):
            row["save_to"] = save_to
        return self._change("move", id, None)

    def select(self, id: str, files: Sequence[str], priority: Priority) -> dict[str, Any]:
        numbers = find_files(files, self.parsed[self._one(id)["info_hash"]].files)
        self.calls.append(("select", id, numbers, priority))
        return self._change("select", id, None)

    def order(self, id: str, sequential: bool) -> dict[str, Any]:
        for row in self.find(id):
            row["sequential"] = sequential
        return self._change("order", id, None)

    def reannounce(self, id: str) -> dict[str, Any]:
        return self._change("reannounce", id, None)

    def set_limit(self, id: str | None, down: int | None, up: int | None) -> dict[str, Any]:
        asked = {name: value for name, value in (("down", down), ("up", up)) if value is not None}
        self.calls.append(("limit", id, asked))
        if id is None:
            self.session_limits.update(asked)
            return dict(self.session_limits)
        for row in self.find(id):
            self.torrent_limits[row["info_hash"]].update(asked)
        return dict(self.torrent_limits[self._one(id)["info_hash"]])

    def limits(self) -> dict[str, Any]:
        return dict(self.session_limits)

    def peers(self, id: str) -> Rows:
        self._one(id)
        return list(self.peer_rows)

    def files(self, id: str) -> Rows:
        what = self.parsed[self._one(id)["info_hash"]]
        return [
            {
                "index": index,
                "path": "/".join(entry.path),
                "size_bytes": entry.length,
                "done_bytes": 0,
                "progress": 0.0,
                "priority": "normal",
                "attributes": "",
            }
            for index, entry in enumerate(what.files)
        ]

    def trackers(self, id: str) -> Rows:
        what = self.parsed[self._one(id)["info_hash"]]
        return [
            {
                "url": url,
                "tier": number,
                "dialect": "bittorrent",
                "state": "working",
                "last_announce_at": "2026-01-02T03:04:05Z",
                "next_announce_at": None,
                "interval_s": 1800,
                "peers_received": 3,
                "seeders": 2,
                "leechers": None,
                "downloaded": None,
                "message": None,
            }
            for number, tier in enumerate(what.trackers)
            for url in tier
        ]

    def stats(self) -> dict[str, Any]:
        states = [row["state"] for row in self.rows.values()]
        return {
            "torrents": len(states),
            "states": {state: states.count(state) for state in states},
            "down_bytes_per_s": 1_500_000,
            "up_bytes_per_s": 0,
            "downloaded_bytes": 12_345_678,
            "uploaded_bytes": 0,
            "connections": 3,
            "limits": self.limits(),
            "listen_port": 7777,
            "listen_addresses": ["0.0.0.0", "::"],
            "external_addresses": ["192.0.2.7"],
            "tracker_port": None,
            "tracker_udp_port": None,
            "started_at": "2026-01-02T03:04:05Z",
            "uptime_s": 61.0,
            "memory_bytes": 40_000_000,
            "cpu_s": 0.5,
            "piece_memory_bytes": 0,
            "disk_backlog": 0,
            "banned_hosts": 0,
            "pid": 1,
        }

    def subscribe(self) -> Subscription:
        return self.board.subscribe(self._bound)

    # ------------------------------------------------------------------------------- what tests make happen

    def note(self, kind: str, row: Row | None = None, **facts: Any) -> None:
        """Publish a note about a torrent, or about the daemon."""
        named = {} if row is None else {"info_hash": row["info_hash"], "name": row["name"]}
        self.board.publish(kind, **named, **facts)

    def grow(self, id: str, done_bytes: int) -> None:
        """The torrent has this much now."""
        (row,) = self.find(id)
        row["done_bytes"] = done_bytes
        row["progress"] = done_bytes / row["size_bytes"]
        row["down_bytes_per_s"] = 1000
        self.note("progress", row)
        if done_bytes == row["size_bytes"]:
            row["state"], row["completed_at"] = "seeding", "2026-01-02T03:05:00Z"
            self.note("state_changed", row)
            self.note("completed", row)

    def fail(self, id: str, cause: str) -> None:
        """The disk of the torrent failed."""
        (row,) = self.find(id)
        row["state"] = "failed"
        row["error"] = {"cause": cause, "path": "/srv/torrents", "message": f"/srv/torrents: {cause}"}
        self.note("storage_failed", row)

    def find(self, id: str) -> Rows:
        """The torrents that this means."""
        if id == "all":
            return list(self.rows.values())
        named = [row for row in self.rows.values() if row["name"] == id]
        if named:
            return named
        if not re.fullmatch(r"[0-9a-fA-F]{4,40}", id):
            raise NotFound(f"no torrent is called {id!r}", id=id)
        found = [row for key, row in self.rows.items() if key.startswith(id.lower())]
        if len(found) > 1:
            raise NotFound(f"{id} means {len(found)} torrents", id=id)
        if not found:
            raise NotFound(f"no torrent has an id that begins with {id}", id=id)
        return found

    def _one(self, id: str) -> Row:
        found = self.find(id)
        if len(found) != 1:
            raise InvalidParams(
                f"{id!r} means {len(found)} torrents, and this call is about one", parameter="id"
            )
        return found[0]

    def _change(self, verb: str, id: str, state: str | None) -> dict[str, Any]:
        rows = self.find(id)
        for row in rows:
            self.calls.append((verb, row["name"]))
            if state is not None:
                row["state"] = state
                self.note("state_changed", row, state=state)
        return {"torrents": [dict(row) for row in rows]}


class FakeDaemon:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.reloads = 0
        self.shutdowns = 0
        self.config_error: ConfigError | None = None

    def version(self) -> dict[str, Any]:
        return {
            "version": __version__,
            "python": "3.11.0",
            "pid": 1,
            "uptime_s": 61.0,
            "state_dir": "/var/lib/microtorrd",
            "config_file": None,
        }

    def reload(self) -> None:
        if self.config_error is not None:
            raise self.config_error
        self.reloads += 1

    def shutdown(self) -> None:
        self.shutdowns += 1


def parse(raw: bytes) -> Metainfo:
    """Under another name, because `FakeSession.add` calls its argument as the contract does."""
    return metainfo.parse(raw)


def services(session: FakeSession, daemon: FakeDaemon) -> Services:
    """Both as the methods want them; mypy holds the fakes against the protocols here."""
    as_session: SessionApi = session
    as_daemon: DaemonApi = daemon
    return Services(as_session, as_daemon)
