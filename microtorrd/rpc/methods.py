"""The table of methods: what the control socket can be asked. Dispatch and documentation read this table.

What they do is in `calls.py`, what they take in `params.py`, what they answer in `results.py`. Each call of a
method that `changes` something is logged with its caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from microtorrd.errors import Busy, CallerError, Duplicate, InvalidMetainfo, NotAllowed, NotFound
from microtorrd.proto.jsonrpc import METHOD_NOT_FOUND, RpcError
from microtorrd.rpc import calls
from microtorrd.rpc import params as p
from microtorrd.rpc import results as r
from microtorrd.rpc.api import Caller, Services
from microtorrd.rpc.openrpc import describe
from microtorrd.rpc.reading import nearest
from microtorrd.rpc.subscribing import subscribe

Handler = Callable[[Services, Any, Caller], object]


class Method(Struct, frozen=True):
    """One row of the table."""

    name: str
    summary: str
    params: type[msgspec.Struct]
    result: Any  # a type, for the schema
    handler: Handler
    changes: bool = False
    errors: tuple[type[CallerError], ...] = ()


def find_method(name: str) -> Method:
    """The row of this name. Raises `RpcError` with the nearest name there is."""
    method = METHODS.get(name)
    if method is None:
        near = nearest(name, METHODS)
        hint = f"; did you mean {near}?" if near else "; rpc.discover lists them"
        raise RpcError(METHOD_NOT_FOUND, f"there is no method {name[:100]!r}{hint}", nearest=near)
    return method


def _discover(services: Services, params: p.NoParams, caller: Caller) -> dict[str, Any]:
    return describe(METHODS.values())


_ROWS = (
    Method(
        "torrent.add",
        "Add a torrent from its file or a magnet link; answers with its row, the work starts behind it.",
        p.Add,
        r.Torrent,
        calls.add,
        changes=True,
        errors=(Duplicate, InvalidMetainfo, NotAllowed, Busy),
    ),
    Method(
        "torrent.list",
        "The torrents, one row each.",
        p.ListTorrents,
        r.SomeTorrents,
        calls.list_torrents,
        errors=(NotFound,),
    ),
    Method(
        "torrent.show",
        "Everything known of one torrent.",
        p.One,
        r.TorrentDetails,
        calls.show,
        errors=(NotFound,),
    ),
    Method(
        "torrent.pause",
        "Stop it until it is resumed.",
        p.One,
        r.Torrents,
        calls.pause,
        changes=True,
        errors=(NotFound,),
    ),
    Method(
        "torrent.resume",
        "Let it run again; also tries again what failed.",
        p.One,
        r.Torrents,
        calls.resume,
        changes=True,
        errors=(NotFound,),
    ),
    Method(
        "torrent.seed",
        "Let it run, and go on seeding when it is whole.",
        p.Seed,
        r.Torrents,
        calls.seed,
        changes=True,
        errors=(NotFound, NotAllowed),
    ),
    Method(
        "torrent.verify",
        "Check all its content against the hashes again; while it is moved, as soon as that is over.",
        p.One,
        r.Torrents,
        calls.verify,
        changes=True,
        errors=(NotFound, NotAllowed, Busy),
    ),
    Method(
        "torrent.remove",
        "Forget it; its files stay unless `data` is true.",
        p.Remove,
        r.Torrents,
        calls.remove,
        changes=True,
        errors=(NotFound,),
    ),
    Method(
        "torrent.move",
        "Move its files to another directory: copied, synced and checked before the old ones go.",
        p.Move,
        r.Torrents,
        calls.move,
        changes=True,
        errors=(NotFound, NotAllowed, Busy),
    ),
    Method(
        "torrent.limit",
        "Set its limits; without `down` and `up` it answers with those in force.",
        p.TorrentLimit,
        r.Limits,
        calls.limit_torrent,
        changes=True,
        errors=(NotFound,),
    ),
    Method(
        "torrent.magnet",
        "Its magnet link: both ids, its name, its trackers and web seeds.",
        p.One,
        r.MagnetLink,
        calls.magnet,
        errors=(NotFound,),
    ),
    Method(
        "torrent.select",
        "Want some of its files more, less or not at all; of a magnet link, as soon as they are known. Not "
        "of one that was added with `seed_path`: nothing of it is fetched.",
        p.Select,
        r.Torrents,
        calls.select,
        changes=True,
        errors=(NotFound, NotAllowed),
    ),
    Method(
        "torrent.order",
        "Fetch its pieces in their order, or the rarest first.",
        p.Order,
        r.Torrents,
        calls.order,
        changes=True,
        errors=(NotFound, NotAllowed),
    ),
    Method("torrent.peers", "Its connected peers.", p.One, r.Peers, calls.peers, errors=(NotFound,)),
    Method(
        "torrent.files", "Its files, and how far each is.", p.One, r.Files, calls.files, errors=(NotFound,)
    ),
    Method(
        "torrent.trackers",
        "Its trackers and their last answers.",
        p.One,
        r.Trackers,
        calls.trackers,
        errors=(NotFound,),
    ),
    Method(
        "torrent.reannounce",
        "Announce to its trackers now, as soon as they allow.",
        p.One,
        r.Torrents,
        calls.reannounce,
        changes=True,
        errors=(NotFound, NotAllowed),
    ),
    Method("session.stats", "Figures of the whole daemon.", p.NoParams, r.Stats, calls.stats),
    Method(
        "session.limit",
        "Set the limits of the whole daemon; without `down` and `up` it answers with those in force.",
        p.SessionLimit,
        r.Limits,
        calls.limit_session,
        changes=True,
    ),
    Method("daemon.version", "Which daemon this is.", p.NoParams, r.Version, calls.version),
    Method("daemon.ping", "Answer.", p.NoParams, r.Pong, calls.ping),
    Method(
        "daemon.reload",
        "Read the configuration again.",
        p.NoParams,
        r.Done,
        calls.reload,
        changes=True,
        errors=(NotAllowed,),
    ),
    Method("daemon.shutdown", "Stop the daemon cleanly.", p.NoParams, r.Done, calls.shutdown, changes=True),
    Method(
        "events.subscribe",
        "Stream notes as notifications named `event` on this connection, which still takes calls.",
        p.Subscribe,
        r.Subscribed,
        subscribe,
        errors=(NotFound, NotAllowed, Busy),
    ),
    Method("rpc.discover", "This document.", p.NoParams, dict[str, Any], _discover),
)

METHODS: Mapping[str, Method] = {row.name: row for row in _ROWS}
