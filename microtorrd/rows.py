"""What outside readers see of a torrent: plain dictionaries made from snapshots and records.

The names are a promise: sizes in bytes, rates in bytes a second, times RFC 3339, ids lower-case hex. Nothing
here waits or changes anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from microtorrd.core.snapshot import PeerView, Snapshot
from microtorrd.core.stranger import Stranger
from microtorrd.errors import StorageError
from microtorrd.proto.clients import client_name
from microtorrd.proto.selection import name_of
from microtorrd.resolver import Resolver
from microtorrd.times import rfc3339
from microtorrd.webseeds import WebSeeds

if TYPE_CHECKING:
    from microtorrd.disk.records import MagnetRecord, TorrentRecord
    from microtorrd.net.announcer import TrackerStatus
    from microtorrd.relocation import Move
    from microtorrd.rest import Rest
    from microtorrd.torrent import Torrent

Row = dict[str, Any]

#: A time to the end beyond this is no estimate any more.
ETA_MAX_S = 365 * 86_400

#: States in which content comes in, and in which it may go out.
GETTING = frozenset({"downloading", "waiting"})
GIVING = frozenset({"downloading", "waiting", "checking", "seeding"})


def list_row(torrent: Torrent | Resolver) -> Row:
    """One row of `torrent.list`."""
    if isinstance(torrent, Resolver):
        return _resolver_row(torrent)
    if torrent.rest is not None:
        return _row_at_rest(torrent, torrent.rest)
    record, snapshot = torrent.content.record, torrent.snapshot()
    done = snapshot.done_bytes if snapshot is not None else torrent.content.done_on_record
    state = snapshot.state if snapshot is not None else state_before_loading(record)
    uploaded, downloaded = torrent.totals()
    # The meters look back some seconds; what cannot move any more is not shown as moving.
    wanted = snapshot.wanted_bytes if snapshot is not None else record.length
    down_rate = 0.0 if snapshot is None or state not in GETTING else snapshot.down_bytes_per_s
    up_rate = 0.0 if snapshot is None or state not in GIVING else snapshot.up_bytes_per_s
    return {
        "name": record.name,
        "info_hash": record.info_hash.hex(),
        "id_hash": None if record.id_hash is None else record.id_hash.hex(),
        "state": state,
        "progress": done / wanted if wanted else 1.0 if done_when_empty(snapshot) else 0.0,
        "size_bytes": record.length,
        "wanted_bytes": wanted,
        "done_bytes": done,
        "down_bytes_per_s": round(down_rate),
        "up_bytes_per_s": round(up_rate),
        "peers": 0 if snapshot is None else snapshot.seeders + snapshot.leechers,
        "seeders": 0 if snapshot is None else snapshot.seeders,
        "eta_s": eta_s(wanted - done, down_rate) if state == "downloading" else None,
        "save_to": record.save_to,
        "label": record.label,
        "error": error_row(torrent.content.failure),
        "added_at": rfc3339(record.added_at),
        "uploaded_bytes": uploaded,
        "downloaded_bytes": downloaded,
        "ratio": round(uploaded / record.length, 4) if record.length else None,
        "piece_length": record.piece_length,
        "piece_count": torrent.content.piece_count,
        "completed_at": None if record.completed_at is None else rfc3339(record.completed_at),
        "sequential": record.sequential,
        "checked": check_progress(torrent, snapshot),
    }


def state_before_loading(record: TorrentRecord) -> str:
    """What people see of a torrent that is still to be looked at."""
    return "stopped" if record.stopped else "checking"


def _row_at_rest(torrent: Torrent, rest: Rest) -> Row:
    """The same of a torrent that has everything and talks to nobody: most of thousands, so it is quick."""
    record, length = torrent.content.record, torrent.content.record.length
    uploaded, downloaded = torrent.totals()
    return {
        "name": record.name,
        "info_hash": record.info_hash.hex(),
        "id_hash": None if record.id_hash is None else record.id_hash.hex(),
        "state": rest.state,
        "progress": 1.0,
        "size_bytes": length,
        "wanted_bytes": length,
        "done_bytes": length,
        "down_bytes_per_s": 0,
        "up_bytes_per_s": 0,
        "peers": 0,
        "seeders": 0,
        "eta_s": None,
        "save_to": record.save_to,
        "label": record.label,
        "error": None,
        "added_at": rfc3339(record.added_at),
        "uploaded_bytes": uploaded,
        "downloaded_bytes": downloaded,
        "ratio": round(uploaded / length, 4),
        "piece_length": record.piece_length,
        "piece_count": torrent.content.piece_count,
        "completed_at": None if record.completed_at is None else rfc3339(record.completed_at),
        "sequential": record.sequential,
        "checked": None,
    }


def done_when_empty(snapshot: Snapshot | None) -> bool:
    """Content of no bytes at all is whole as soon as its files were made."""
    return snapshot is not None and snapshot.state == "seeding"


def check_progress(torrent: Torrent, snapshot: Snapshot | None) -> float | None:
    """How far a running check is, 0 to 1; None when none runs."""
    if snapshot is None or snapshot.state != "checking":
        return None
    if snapshot.to_check:
        return round(snapshot.checked_pieces / snapshot.to_check, 4)
    return round(torrent.content.confirmed_share, 4)


def error_row(failure: StorageError | None) -> Row | None:
    """Why the torrent is parked; None when it is not."""
    if failure is None:
        return None
    return {"cause": failure.cause, "path": failure.path, "message": str(failure)}


def total_row(torrents: Sequence[Torrent | Resolver]) -> Row:
    """How many are in which state, and what all of them moved and move."""
    states: Counter[str] = Counter()
    down = up = down_rate = up_rate = 0
    for torrent in torrents:
        if isinstance(torrent, Resolver):
            states[torrent.state] += 1
            continue
        uploaded, downloaded = torrent.totals()
        up, down = up + uploaded, down + downloaded
        if torrent.rest is not None:
            states[torrent.rest.state] += 1
            continue
        if not torrent.is_loaded:  # thousands of them just after a start: no row is made for each
            states[state_before_loading(torrent.record)] += 1
            continue
        row = list_row(torrent)
        states[row["state"]] += 1
        down_rate += row["down_bytes_per_s"]
        up_rate += row["up_bytes_per_s"]
    return {
        "torrents": len(torrents),
        "states": dict(states),
        "down_bytes_per_s": down_rate,
        "up_bytes_per_s": up_rate,
        "downloaded_bytes": down,
        "uploaded_bytes": up,
    }


def detail_row(torrent: Torrent | Resolver) -> Row:
    """Everything of `torrent.show`: the row and what does not fit into a list."""
    if isinstance(torrent, Resolver):
        return _resolver_details(torrent)
    record, snapshot = torrent.content.record, torrent.snapshot()
    waste = 0 if snapshot is None else snapshot.wasted_bytes
    corrupt = 0 if snapshot is None else snapshot.corrupt_pieces
    return {
        **list_row(torrent),
        "private": torrent.content.private,
        **torrent.content.about,
        "file_count": len(torrent.content.entries),
        "content_path": torrent.content.path,
        "move": move_row(torrent.move),
        "pieces_done": 0 if snapshot is None else snapshot.have_count,
        "leechers": 0 if snapshot is None else snapshot.leechers,
        "wasted_bytes": waste,
        "corrupt_pieces": corrupt,
        "settings": settings_row(record),
        "confirmed": record.confirmed,
        "trackers": tracker_rows(torrent),
        "web_seeds": web_seed_rows(torrent),
        "last_download": torrent.content.last_download,
    }


def move_row(move: Move | None) -> Row | None:
    """Where it is being moved to, and how far; None when it is not."""
    if move is None:
        return None
    return {"save_to": move.save_to, "done_bytes": move.done_bytes, "size_bytes": move.size_bytes}


def settings_row(record: TorrentRecord | MagnetRecord) -> Row:
    """The run-time choices of one torrent."""
    return {
        "wait_seeders": record.wait_seeders,
        "wait_leechers": record.wait_leechers,
        "sequential": record.sequential,
        "seed_after_download": record.seed_after_download,
        "super_seed": record.super_seed,
        "down": record.down_limit,
        "up": record.up_limit,
    }


def peer_rows(torrent: Torrent | Resolver) -> list[Row]:
    """The connected peers, the fastest first."""
    if isinstance(torrent, Resolver):
        return [_stranger_row(torrent, peer) for peer in torrent.resolution.peers.values()]
    snapshot = torrent.snapshot(with_peers=True)
    peers: Sequence[PeerView] = () if snapshot is None else snapshot.peers
    ordered = sorted(peers, key=lambda peer: -(peer.down_bytes_per_s + peer.up_bytes_per_s))
    return [
        {
            "host": peer.host,
            "port": peer.port,
            "peer_id": peer.peer_id.hex(),
            "client": peer.client or client_name(peer.peer_id),
            "incoming": peer.incoming,
            "source": peer.source,
            "progress": peer.progress,
            "is_seeder": peer.is_seeder,
            "upload_only": peer.upload_only,
            "am_choking": peer.am_choking,
            "am_interested": peer.am_interested,
            "peer_choking": peer.peer_choking,
            "peer_interested": peer.peer_interested,
            "optimistic": peer.optimistic,
            "snubbed": peer.snubbed,
            "down_bytes": peer.down_bytes,
            "up_bytes": peer.up_bytes,
            "down_bytes_per_s": round(peer.down_bytes_per_s),
            "up_bytes_per_s": round(peer.up_bytes_per_s),
            "requests_out": peer.requests_out,
        }
        for peer in ordered
    ]


def file_rows(torrent: Torrent | Resolver) -> list[Row]:
    """The files of the torrent and how much of each is there, counted in whole pieces."""
    if isinstance(torrent, Resolver):
        return []
    have, content = torrent.have, torrent.content
    rows: list[Row] = []
    offset = 0
    # The entries first, and not as many as marks: a disk thread may be finding them out between the two.
    for number, (entry, mark) in enumerate(zip(content.entries, content.marks, strict=False)):
        start, offset = offset, offset + entry.length
        if entry.is_padding:
            continue
        done = 0 if have is None else content.verified_bytes(have, start, entry.length)
        rows.append(
            {
                "index": number,
                "path": "/".join(entry.path),
                "size_bytes": entry.length,
                "done_bytes": done,
                "progress": done / entry.length if entry.length else 1.0,
                "priority": name_of(mark),
                "attributes": entry.attributes,
            }
        )
    return rows


def tracker_rows(torrent: Torrent | Resolver) -> list[Row]:
    """The trackers and how each answered last."""
    if not isinstance(torrent, Resolver) and not torrent.is_loaded:
        return []
    return [tracker_row(status) for status in torrent.announcer.status()]


def tracker_row(status: TrackerStatus) -> Row:
    """One tracker of the torrent in one dialect."""
    return {
        "url": status.url,
        "tier": status.tier,
        "dialect": status.dialect,
        "state": status.state,
        "last_announce_at": None if status.last_announce_at is None else rfc3339(status.last_announce_at),
        "next_announce_at": None if status.next_announce_at is None else rfc3339(status.next_announce_at),
        "interval_s": status.interval_s,
        "peers_received": status.peers_received,
        "seeders": status.seeders,
        "leechers": status.leechers,
        "downloaded": status.downloaded,
        "message": status.message,
    }


def web_seed_rows(torrent: Torrent) -> list[Row]:
    """The web seeds and how each does."""
    if torrent.rest is not None:
        return [status._asdict() for status in WebSeeds.at_rest(torrent.content)]
    if torrent.host is None:
        return []
    return [status._asdict() for status in torrent.host.web_seeds.status(torrent.facilities.clock())]


def _resolver_row(resolver: Resolver) -> Row:
    """A magnet link as a row like all others: what nobody knows yet is 0 or null."""
    record, id_hash = resolver.record, resolver.link.id_hash
    return {
        "name": resolver.name,
        "info_hash": resolver.info_hash.hex(),
        "id_hash": None if id_hash is None else id_hash.hex(),
        "state": resolver.state,
        "progress": 0.0,
        "size_bytes": 0,
        "wanted_bytes": 0,
        "done_bytes": 0,
        "down_bytes_per_s": 0,
        "up_bytes_per_s": 0,
        "peers": len(resolver.resolution.peers),
        "seeders": 0,
        "eta_s": None,
        "save_to": record.save_to,
        "label": record.label,
        "error": error_row(resolver.failure),
        "added_at": rfc3339(record.added_at),
        "uploaded_bytes": 0,
        "downloaded_bytes": 0,
        "ratio": None,
        "piece_length": 0,
        "piece_count": 0,
        "completed_at": None,
        "sequential": record.sequential,
        "checked": None,
    }


def _resolver_details(resolver: Resolver) -> Row:
    return {
        **_resolver_row(resolver),
        "private": False,
        "comment": "",
        "created_by": "",
        "created_at": None,
        "dialect": "bittorrent" if resolver.link.id_hash is None else "microtorr",
        "file_count": 0,
        "content_path": resolver.record.save_to,
        "move": None,
        "pieces_done": 0,
        "leechers": 0,
        "wasted_bytes": 0,
        "corrupt_pieces": 0,
        "settings": settings_row(resolver.record),
        "confirmed": False,
        "trackers": tracker_rows(resolver),
        "web_seeds": [],
        "last_download": None,
    }


def _stranger_row(torrent: Resolver, peer: Stranger) -> Row:
    """A peer of which we want nothing but the metadata."""
    return {
        "host": peer.host,
        "port": peer.address[1] if peer.address else None,
        "peer_id": peer.peer_id.hex(),
        "client": peer.client or client_name(peer.peer_id),
        "incoming": peer.incoming,
        "source": (peer.address and torrent.book.source(peer.address)) or "incoming",
        "progress": 0.0,
        "is_seeder": False,
        "upload_only": False,
        "am_choking": True,
        "am_interested": False,
        "peer_choking": True,
        "peer_interested": False,
        "optimistic": False,
        "snubbed": False,
        "down_bytes": 0,
        "up_bytes": 0,
        "down_bytes_per_s": 0,
        "up_bytes_per_s": 0,
        "requests_out": 0,
    }


def eta_s(left: int, rate: float) -> float | None:
    """Seconds to go at this rate; None when there is no end in sight."""
    if rate <= 0 or left / rate > ETA_MAX_S:
        return None
    return round(left / rate, 1)
