"""What the methods do, in the order of their table (`methods.py`).

Each gets the services, its decoded parameters and the caller, answers at once with a value ready for JSON,
and raises `CallerError` for what the caller did wrong.
"""

from __future__ import annotations

from typing import Any

from microtorrd import __version__
from microtorrd.errors import ConfigError, InvalidParams, NotAllowed
from microtorrd.proto.selection import Choice
from microtorrd.rpc import params as p
from microtorrd.rpc import results as r
from microtorrd.rpc.api import Caller, Row, Services
from microtorrd.rpc.reading import listed, nearest
from microtorrd.terms import Terms

# ---------------------------------------------------------------------------------------------- torrent.*


def add(services: Services, params: p.Add, caller: Caller) -> Row:
    if params.save_to is not None and params.seed_path is not None:
        raise InvalidParams("save_to and seed_path exclude each other", parameter="seed_path")
    if not params.magnet:
        if not params.metainfo:
            raise InvalidParams(
                "torrent.add needs the parameter 'metainfo', or 'magnet' in its place", parameter="metainfo"
            )
        return services.session.add(params.metainfo, _terms(params))
    for name, value in (("metainfo", params.metainfo), ("seed_path", params.seed_path)):
        if value:
            raise InvalidParams(f"magnet and {name} exclude each other", parameter=name)
    return services.session.add_magnet(params.magnet, _terms(params))


def _terms(params: p.Add) -> Terms:
    if params.seed_path is not None and (params.files or params.priorities):
        raise InvalidParams("seed_path and files exclude each other: all of it is there", parameter="files")
    priorities = tuple((priority, tuple(files)) for priority, files in params.priorities.items())
    return Terms(
        save_to=params.save_to,
        seed_path=params.seed_path,
        paused=params.paused,
        wait_seeders=params.wait_seeders,
        wait_leechers=params.wait_leechers,
        down=params.down,
        up=params.up,
        label=params.label,
        sequential=params.sequential,
        choice=Choice(tuple(params.files), priorities),
        seed_after_download=params.seed_after_download,
        super_seed=params.super_seed,
    )


def list_torrents(services: Services, params: p.ListTorrents, caller: Caller) -> dict[str, Any]:
    if params.since is not None and params.ids is not None:
        raise InvalidParams("since and ids exclude each other", parameter="since")
    wanted = params.fields
    for name in wanted or ():
        if name not in r.TORRENT_FIELDS:
            near = nearest(name, r.TORRENT_FIELDS)
            hint = f"; did you mean {near!r}?" if near else f"; there are {listed(r.TORRENT_FIELDS)}"
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


def show(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return services.session.show(params.id)


def pause(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return services.session.pause(params.id)


def resume(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return services.session.resume(params.id)


def seed(services: Services, params: p.Seed, caller: Caller) -> dict[str, Any]:
    return services.session.seed(params.id, params.super_seed)


def verify(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return services.session.verify(params.id)


def remove(services: Services, params: p.Remove, caller: Caller) -> dict[str, Any]:
    return services.session.remove(params.id, params.data)


def move(services: Services, params: p.Move, caller: Caller) -> dict[str, Any]:
    return services.session.move(params.id, params.save_to)


def select(services: Services, params: p.Select, caller: Caller) -> dict[str, Any]:
    return services.session.select(params.id, params.files, params.priority)


def order(services: Services, params: p.Order, caller: Caller) -> dict[str, Any]:
    return services.session.order(params.id, params.sequential)


def reannounce(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return services.session.reannounce(params.id)


def magnet(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return {"magnet": services.session.magnet(params.id)}


def limit_torrent(services: Services, params: p.TorrentLimit, caller: Caller) -> dict[str, Any]:
    return services.session.set_limit(params.id, params.down, params.up)


def peers(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return {"peers": list(services.session.peers(params.id))}


def files(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return {"files": list(services.session.files(params.id))}


def trackers(services: Services, params: p.One, caller: Caller) -> dict[str, Any]:
    return {"trackers": list(services.session.trackers(params.id))}


# -------------------------------------------------------------------------------------- session, daemon


def stats(services: Services, params: p.NoParams, caller: Caller) -> dict[str, Any]:
    return services.session.stats()


def limit_session(services: Services, params: p.SessionLimit, caller: Caller) -> dict[str, Any]:
    if params.down is None and params.up is None:
        return services.session.limits()
    return services.session.set_limit(None, params.down, params.up)


def version(services: Services, params: p.NoParams, caller: Caller) -> dict[str, Any]:
    return services.daemon.version()


def ping(services: Services, params: p.NoParams, caller: Caller) -> dict[str, Any]:
    return {"pong": True, "version": __version__}


def reload(services: Services, params: p.NoParams, caller: Caller) -> dict[str, Any]:
    try:
        services.daemon.reload()
    except ConfigError as error:
        raise NotAllowed(
            f"the configuration is not taken: {error}", key=error.key, file=error.file, line=error.line
        ) from error
    return {"ok": True}


def shutdown(services: Services, params: p.NoParams, caller: Caller) -> dict[str, Any]:
    services.daemon.shutdown()
    return {"ok": True}
