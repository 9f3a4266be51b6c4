"""`events.subscribe`: which notes a connection gets."""

from __future__ import annotations

from typing import Any

from microtorrd.errors import InvalidParams
from microtorrd.rpc import params as p
from microtorrd.rpc.api import Caller, Note, Services
from microtorrd.rpc.reading import listed, nearest

#: Kinds of notes that come so often that they are streamed only to who asks for them by name.
QUIET_KINDS = frozenset({"piece_verified", "tracker_request"})

#: Every kind of note.
NOTE_KINDS = (
    "torrent_added",
    "torrent_removed",
    "resolved",
    "state_changed",
    "progress",
    "piece_verified",
    "piece_corrupt",
    "content_verified",
    "completed",
    "storage_failed",
    "tracker_announced",
    "tracker_scraped",
    "tracker_failed",
    "peer_joined",
    "peer_left",
    "peer_banned",
    "moved",
    "move_failed",
    "limits_changed",
    "tracker_request",
)


def subscribe(services: Services, params: p.Subscribe, caller: Caller) -> dict[str, Any]:
    """Turn the connection into a stream of notes, which still takes calls."""
    kinds = None if params.kinds is None else frozenset(params.kinds)
    for kind in sorted(kinds or ()):
        if kind not in NOTE_KINDS:
            near = nearest(kind, NOTE_KINDS)
            hint = f"; did you mean {near!r}?" if near else f"; there are {listed(NOTE_KINDS)}"
            raise InvalidParams(
                f"kinds: there is no kind {kind[:100]!r}{hint}", parameter="kinds", nearest=near
            )
    hashes: frozenset[str] | None = None
    if params.ids is not None and "all" not in params.ids:
        hashes = frozenset(row["info_hash"] for row in services.session.list(params.ids))

    def wanted(note: Note) -> bool:
        kind = note.get("kind")
        if kind in QUIET_KINDS if kinds is None else kind not in kinds:
            return False
        return hashes is None or note.get("info_hash") in hashes

    caller.attach(services.session.subscribe(), wanted)
    return {
        "subscribed": True,
        "kinds": None if kinds is None else sorted(kinds),
        "info_hashes": None if hashes is None else sorted(hashes),
    }
