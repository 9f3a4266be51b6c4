"""The table of methods: what the control socket can be asked. Dispatch and documentation read this table.

A handler gets the services, its decoded parameters and the caller, answers at once with a value ready for
JSON, and raises `CallerError` for what the caller did wrong. Each call of a method that `changes` something
is logged with its caller.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from microtorrd import __version__
from microtorrd.errors import (
    Busy,
    CallerError,
    ConfigError,
    Duplicate,
    InvalidMetainfo,
    InvalidParams,
    NotAllowed,
    NotFound,
)
from microtorrd.proto.jsonrpc import METHOD_NOT_FOUND, RpcError, decode_params
from microtorrd.proto.selection import Choice
from microtorrd.rpc import params as p
from microtorrd.rpc import results as r
from microtorrd.rpc.api import Caller, Note, Row, Services
from microtorrd.rpc.openrpc import describe

#: Kinds of notes that come so often that they are streamed only to who asks for them by name.
QUIET_KINDS = frozenset({"piece_verified", "tracker_request"})

#: Every kind of note (DESIGN 6).
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

#: Characters of what is wrong with a parameter: the decoder repeats wrong words of a choice as they are.
MAX_PROBLEM = 300

Handler = Callable[[Services, Any, Caller], object]


@dataclass(frozen=True, slots=True)
class Method:
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


def read_params(method: Method, raw: msgspec.Raw | None) -> msgspec.Struct:
    """Decode and check the parameters. Raises `InvalidParams` that names the one at fault."""
    given = decode_params(raw)
    valid = method.params.__struct_fields__
    unknown = next((name for name in given if name not in valid), None)
    if unknown is not None:
        shown = unknown[:100]
        near = nearest(shown, valid)
        hint = f"; did you mean {near!r}?" if near else f"; it takes {_listed(valid)}"
        raise InvalidParams(
            f"{method.name} has no parameter {shown!r}{hint}",
            parameter=shown,
            nearest=near,
            valid=list(valid),
        )
    try:
        return msgspec.json.decode(b"{}" if raw is None else raw, type=method.params)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _name_parameter(method, str(error)) from None


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that is most like this one, None when none is."""
    return next(iter(difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)), None)


def _name_parameter(method: Method, problem: str) -> InvalidParams:
    missing = re.fullmatch(r"Object missing required field `(\w+)`", problem)
    if missing:
        return InvalidParams(f"{method.name} needs the parameter {missing[1]!r}", parameter=missing[1])
    at_fault = re.fullmatch(r"(.*) - at `\$\.(\w+)(.*)`", problem, re.DOTALL)
    if at_fault is None:
        return InvalidParams(f"params: {problem}")
    what, name, inside = at_fault.groups()
    if len(what) > MAX_PROBLEM:
        what = f"{what[:MAX_PROBLEM]}…"
    if "matching regex '^/" in what:
        what = "Expected an absolute path"
    return InvalidParams(f"{name}{inside}: {what[0].lower()}{what[1:]}", parameter=name)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


# ---------------------------------------------------------------------------------------------- torrent.*


def _add(services: Services, params: p.Add, caller: Caller) -> Row:
    if params.save_to is not None and params.seed_path is not None:
        raise InvalidParams("save_to and seed_path exclude each other", parameter="seed_path")
    if params.magnet:
        return _add_magnet(services, params)
    if not params.metainfo:
        raise InvalidParams(
            "torrent.add needs the parameter 'metainfo', or 'magnet' in its place", parameter="metainfo"
        )
    return services.session.add(
        params.metainfo,
        save_to=params.save_to,
        seed_path=params.seed_path,
        paused=params.paused,
        wait_seeders=params.wait_seeders,
        wait_leechers=params.wait_leechers,
        down=params.down,
        up=params.up,
        label=params.label,
        sequential=params.sequential,
        choice=_choice(params),
        seed_after_download=params.seed_after_download,
        super_seed=params.super_seed,
    )


def _choice(params: p.Add) -> Choice:
    if params.seed_path is not None and (params.files or params.priorities):
        raise InvalidParams("seed_path and files exclude each other: all of it is there", parameter="files")
    priorities = tuple((priority, tuple(files)) for priority, files in params.priorities.items())
    return Choice(tuple(params.files), priorities)


def _add_magnet(services: Services, params: p.Add) -> Row:
    for name, value in (("metainfo", params.metainfo), ("seed_path", params.seed_path)):
        if value:
            raise InvalidParams(f"magnet and {name} exclude each other", parameter=name)
    return services.session.add_magnet(
        params.magnet,
        save_to=params.save_to,
        paused=params.paused,
        wait_seeders=params.wait_seeders,
        wait_leechers=params.wait_leechers,
        down=params.down,
        up=params.up,
        label=params.label,
        sequential=params.sequential,
        choice=_choice(params),
        seed_after_download=params.seed_after_download,
        super_seed=params.super_seed,
    )


def _list(services: Services, params: p.ListTorrents, caller: Caller) -> dict[str, Any]:
    if params.since is not None and params.ids is not None:
        raise InvalidParams("since and ids exclude each other", parameter="since")
    wanted = params.fields
    for name in wanted or ():
        if name not in r.TORRENT_FIELDS:
            near = nearest(name, r.TORRENT_FIELDS)
            hint = f"; did you mean {near!r}?" if near else f"; there are {_listed(r.TORRENT_FIELDS)}"
            raise InvalidParams(
                f"fields: there is no field {name[:100]!r}{hint}", parameter="fields", nearest=near
            )
    if params.since is None:
        answer: dict[str, Any] = {"torrents": services.session.list(params.ids)}
    else:
        answer = services.session.list_changes(params.since)
    if wanted is not None:
        answer["torrents"] = [{name: row.get(name) for name in wanted} for row in answer["torrents"]]
    return answer


def _show(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return services.session.show(params.id)


def _pause(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return services.session.pause(params.id)


def _resume(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return services.session.resume(params.id)


def _seed(services: Services, params: p.Seed, caller: Caller) -> dict[str, Any]:
    return services.session.seed(params.id, params.super_seed)


def _verify(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return services.session.verify(params.id)


def _remove(services: Services, params: p.Remove, caller: Caller) -> dict[str, Any]:
    return services.session.remove(params.id, params.data)


def _move(services: Services, params: p.Move, caller: Caller) -> dict[str, Any]:
    return services.session.move(params.id, params.save_to)


def _select(services: Services, params: p.Select, caller: Caller) -> dict[str, Any]:
    return services.session.select(params.id, params.files, params.priority)


def _order(services: Services, params: p.Order, caller: Caller) -> dict[str, Any]:
    return services.session.order(params.id, params.sequential)


def _reannounce(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return services.session.reannounce(params.id)


def _magnet(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return {"magnet": services.session.magnet(params.id)}


def _limit_torrent(services: Services, params: p.TorrentLimit, caller: Caller) -> dict[str, Any]:
    return services.session.set_limit(params.id, params.down, params.up)


def _peers(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return {"peers": list(services.session.peers(params.id))}


def _files(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return {"files": list(services.session.files(params.id))}


def _trackers(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return {"trackers": list(services.session.trackers(params.id))}


# ------------------------------------------------------------------------- session, daemon, events, rpc


def _stats(services: Services, params: p.NoParams, caller: Caller) -> dict[str, Any]:
    return services.session.stats()


def _limit_session(services: Services, params: p.SessionLimit, caller: Caller) -> dict[str, Any]:
    if params.down is None and params.up is None:
        return services.session.limits()
    return services.session.set_limit(None, params.down, params.up)


def _version(services: Services, params: p.NoParams, caller: Caller) -> dict[str, Any]:
    return services.daemon.version()


def _ping(services: Services, params: p.NoParams, caller: Caller) -> dict[str, Any]:
    return {"pong": True, "version": __version__}


def _reload(services: Services, params: p.NoParams, caller: Caller) -> dict[str, Any]:
    try:
        services.daemon.reload()
    except ConfigError as error:
        raise NotAllowed(
            f"the configuration is not taken: {error}", key=error.key, file=error.file, line=error.line
        ) from error
    return {"ok": True}


def _shutdown(services: Services, params: p.NoParams, caller: Caller) -> dict[str, Any]:
    services.daemon.shutdown()
    return {"ok": True}


def _subscribe(services: Services, params: p.Subscribe, caller: Caller) -> dict[str, Any]:
    kinds = None if params.kinds is None else frozenset(params.kinds)
    for kind in sorted(kinds or ()):
        if kind not in NOTE_KINDS:
            near = nearest(kind, NOTE_KINDS)
            hint = f"; did you mean {near!r}?" if near else f"; there are {_listed(NOTE_KINDS)}"
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


def _discover(services: Services, params: p.NoParams, caller: Caller) -> dict[str, Any]:
    return describe(METHODS.values())


# ---------------------------------------------------------------------------------------------- the table

_ROWS = (
    Method(
        "torrent.add",
        "Add a torrent from its file or a magnet link; answers with its row, the work starts behind it.",
        p.Add,
        r.Torrent,
        _add,
        changes=True,
        errors=(Duplicate, InvalidMetainfo, NotAllowed, Busy),
    ),
    Method(
        "torrent.list",
        "The torrents, one row each.",
        p.ListTorrents,
        r.SomeTorrents,
        _list,
        errors=(NotFound,),
    ),
    Method(
        "torrent.show", "Everything known of one torrent.", p.One, r.TorrentDetails, _show, errors=(NotFound,)
    ),
    Method(
        "torrent.pause",
        "Stop it until it is resumed.",
        p.One,
        r.Torrents,
        _pause,
        changes=True,
        errors=(NotFound,),
    ),
    Method(
        "torrent.resume",
        "Let it run again; also tries again what failed.",
        p.One,
        r.Torrents,
        _resume,
        changes=True,
        errors=(NotFound,),
    ),
    Method(
        "torrent.seed",
        "Let it run, and go on seeding when it is whole.",
        p.Seed,
        r.Torrents,
        _seed,
        changes=True,
        errors=(NotFound, NotAllowed),
    ),
    Method(
        "torrent.verify",
        "Check all its content against the hashes again; while it is moved, as soon as that is over.",
        p.One,
        r.Torrents,
        _verify,
        changes=True,
        errors=(NotFound, NotAllowed, Busy),
    ),
    Method(
        "torrent.remove",
        "Forget it; its files stay unless `data` is true.",
        p.Remove,
        r.Torrents,
        _remove,
        changes=True,
        errors=(NotFound,),
    ),
    Method(
        "torrent.move",
        "Move its files to another directory: copied, synced and checked before the old ones go.",
        p.Move,
        r.Torrents,
        _move,
        changes=True,
        errors=(NotFound, NotAllowed, Busy),
    ),
    Method(
        "torrent.limit",
        "Set its limits; without `down` and `up` it answers with those in force.",
        p.TorrentLimit,
        r.Limits,
        _limit_torrent,
        changes=True,
        errors=(NotFound,),
    ),
    Method(
        "torrent.magnet",
        "Its magnet link: both ids, its name, its trackers and web seeds.",
        p.One,
        r.MagnetLink,
        _magnet,
        errors=(NotFound,),
    ),
    Method(
        "torrent.select",
        "Want some of its files more, less or not at all; of a magnet link, as soon as they are known. Not "
        "of one that was added with `seed_path`: nothing of it is fetched.",
        p.Select,
        r.Torrents,
        _select,
        changes=True,
        errors=(NotFound, NotAllowed),
    ),
    Method(
        "torrent.order",
        "Fetch its pieces in their order, or the rarest first.",
        p.Order,
        r.Torrents,
        _order,
        changes=True,
        errors=(NotFound, NotAllowed),
    ),
    Method("torrent.peers", "Its connected peers.", p.One, r.Peers, _peers, errors=(NotFound,)),
    Method("torrent.files", "Its files, and how far each is.", p.One, r.Files, _files, errors=(NotFound,)),
    Method(
        "torrent.trackers",
        "Its trackers and their last answers.",
        p.One,
        r.Trackers,
        _trackers,
        errors=(NotFound,),
    ),
    Method(
        "torrent.reannounce",
        "Announce to its trackers now, as soon as they allow.",
        p.One,
        r.Torrents,
        _reannounce,
        changes=True,
        errors=(NotFound, NotAllowed),
    ),
    Method("session.stats", "Figures of the whole daemon.", p.NoParams, r.Stats, _stats),
    Method(
        "session.limit",
        "Set the limits of the whole daemon; without `down` and `up` it answers with those in force.",
        p.SessionLimit,
        r.Limits,
        _limit_session,
        changes=True,
    ),
    Method("daemon.version", "Which daemon this is.", p.NoParams, r.Version, _version),
    Method("daemon.ping", "Answer.", p.NoParams, r.Pong, _ping),
    Method(
        "daemon.reload",
        "Read the configuration again.",
        p.NoParams,
        r.Done,
        _reload,
        changes=True,
        errors=(NotAllowed,),
    ),
    Method("daemon.shutdown", "Stop the daemon cleanly.", p.NoParams, r.Done, _shutdown, changes=True),
    Method(
        "events.subscribe",
        "Stream notes as notifications named `event` on this connection, which still takes calls.",
        p.Subscribe,
        r.Subscribed,
        _subscribe,
        errors=(NotFound, NotAllowed, Busy),
    ),
    Method("rpc.discover", "This document.", p.NoParams, dict[str, Any], _discover),
)

METHODS: Mapping[str, Method] = {row.name: row for row in _ROWS}
