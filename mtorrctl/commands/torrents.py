"""Commands that look at torrents and change nothing."""

from __future__ import annotations

import sys
from typing import Any

import click

from mtorrctl import render
from mtorrctl.commands.common import (
    PRIORITIES,
    id_argument,
    json_option,
    open_client,
    socket_option,
    tell,
)
from mtorrctl.exits import WrongUsage
from mtorrctl.render import Column, Row


def _state(row: Row) -> render.Color | None:
    return render.STATE_COLORS.get(row.get("state", ""))


def _done(row: Row) -> str:
    checked = row.get("checked")
    return render.percent(row.get("progress") if checked is None else checked)


TORRENT_COLUMNS = (
    Column("ID", lambda row: row["info_hash"][:8], color=lambda row: "dim", leaves=1),
    Column("NAME", lambda row: row["name"], gives_way=True),
    Column("STATE", lambda row: row["state"], color=_state),
    Column("DONE", _done, right=True),
    Column("SIZE", lambda row: render.size(row["size_bytes"]), right=True, leaves=2),
    Column("DOWN", lambda row: render.rate(row["down_bytes_per_s"]), right=True, leaves=6),
    Column("UP", lambda row: render.rate(row["up_bytes_per_s"]), right=True, leaves=5),
    Column("PEERS", lambda row: str(row["peers"]), right=True, leaves=3),
    Column("LEFT", lambda row: render.duration(row["eta_s"]), right=True, leaves=4),
)


def torrent_table(rows: list[dict[str, Any]]) -> str:
    """The rows of `torrent.list` as a table, and below it why some failed."""
    text = render.table(TORRENT_COLUMNS, rows)
    for row in rows:
        if row.get("error"):
            reason = f"{row['name']}: {row['error']['message']}"
            text += "\n" + render.paint(render.clean(reason), "red")
    return text


@click.command("list", short_help="The torrents, one line each.")
@id_argument("ids", nargs=-1)
@click.option("--fields", metavar="NAME,...", help="With --json: only these keys.")
@click.option(
    "--since",
    metavar="TOKEN",
    help="With --json: only what has changed since the answer that this token is from; '' for all.",
)
@json_option
@socket_option
def list_torrents(
    ids: tuple[str, ...], fields: str | None, since: str | None, as_json: bool, socket: str | None
) -> None:
    """Show the torrents of the daemon, or those with these IDs.

    An ID is a name, four or more hexadecimal digits that an id begins with, or `all`.

    With --json it prints a list of objects: name, info_hash, id_hash, state (stopped, checking, resolving,
    waiting, downloading, seeding, failed), progress (0 to 1), size_bytes, wanted_bytes, done_bytes,
    down_bytes_per_s, up_bytes_per_s, peers, seeders, eta_s, save_to, label, error (null, or cause, path and
    message), added_at, uploaded_bytes, downloaded_bytes, ratio, piece_length, piece_count, completed_at,
    sequential, checked.

    With --since it prints one object instead, for programs that look often: torrents (those that changed),
    removed (a list of info_hash), token (for the next time), and full: true when these are all torrents, and
    what was listed before is to be forgotten. A token lasts as long as the daemon runs.

    \b
    Examples:
      mtorrctl list
      mtorrctl list --json | jq -r '.[] | select(.state == "failed") | .name'
    """
    names = None if fields is None else [name.strip() for name in fields.split(",") if name.strip()]
    if names is not None and not as_json:
        raise WrongUsage("--fields goes with --json")
    if since is not None and (ids or not as_json):
        raise WrongUsage("--since goes with --json, and without IDs")
    with open_client(socket) as client:
        answer = client.call("torrent.list", ids=list(ids) or None, fields=names, since=since)
    rows = answer["torrents"]
    if as_json:
        tell(render.as_json(rows if since is None else answer))
    elif rows:
        tell(torrent_table(rows))
    elif render.is_terminal(sys.stdout):
        tell("there are no torrents; add one: mtorrctl add FILE.mtorrent")


#: The order in which `inspect` tells what it knows; the rest follows as it came.
_HEAD = (
    "name",
    "state",
    "error",
    "progress",
    "checked",
    "size_bytes",
    "wanted_bytes",
    "done_bytes",
    "eta_s",
    "down_bytes_per_s",
    "up_bytes_per_s",
    "downloaded_bytes",
    "uploaded_bytes",
    "ratio",
    "peers",
    "seeders",
    "leechers",
    "save_to",
    "content_path",
    "label",
    "info_hash",
    "id_hash",
)


@click.command(short_help="Everything about one torrent.")
@id_argument()
@json_option
@socket_option
def inspect(id: str, as_json: bool, socket: str | None) -> None:
    """Show everything that is known of one torrent: how far it is, where it lies, its settings and trackers.

    With --json it prints one object: the keys of `list`, and metadata, settings, totals and trackers besides;
    `move` is null, or where it is being moved to, and how far that is.

    \b
    Examples:
      mtorrctl inspect ubuntu.iso
      mtorrctl inspect 3f9a --json
    """
    with open_client(socket) as client:
        facts = client.call("torrent.show", id=id)
    if as_json:
        tell(render.as_json(facts))
        return
    trackers, web_seeds = facts.pop("trackers", []), facts.pop("web_seeds", [])
    first = {name: facts.pop(name) for name in _HEAD if name in facts}
    tell(render.facts({**first, **facts}))
    if trackers:
        tell("\n" + render.table(TRACKER_COLUMNS, trackers))
    if web_seeds:
        tell("\n" + render.table(WEB_SEED_COLUMNS, web_seeds))


def _address(row: Row) -> str:
    host, port = row.get("host", ""), row.get("port")
    if port is None:
        return str(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _flags(row: Row) -> str:
    """The letters that other clients use; `peers --help` explains them."""
    wanted, served = row.get("am_interested"), not row.get("peer_choking", True)
    asked, serving = row.get("peer_interested"), not row.get("am_choking", True)
    letters = [
        ("D" if served else "d") if wanted else "K" if served else "",
        ("U" if serving else "u") if asked else "?" if serving else "",
        "O" if row.get("optimistic") else "",
        "S" if row.get("snubbed") else "",
        "I" if row.get("incoming") else "",
        {"pex": "X", "lsd": "L", "dht": "H"}.get(str(row.get("source")), ""),
    ]
    return "".join(letters)


PEER_COLUMNS = (
    Column("ADDRESS", _address),
    Column("CLIENT", lambda row: row.get("client") or render.NOTHING, gives_way=True, leaves=4),
    Column("HAS", lambda row: render.percent(row.get("progress")), right=True, leaves=3),
    Column("DOWN", lambda row: render.rate(row.get("down_bytes_per_s", 0)), right=True),
    Column("UP", lambda row: render.rate(row.get("up_bytes_per_s", 0)), right=True),
    Column("RECEIVED", lambda row: render.size(row.get("down_bytes", 0)), right=True, leaves=1),
    Column("SENT", lambda row: render.size(row.get("up_bytes", 0)), right=True, leaves=2),
    Column("FLAGS", _flags),
)


@click.command(short_help="The connected peers of a torrent.")
@id_argument()
@json_option
@socket_option
def peers(id: str, as_json: bool, socket: str | None) -> None:
    """Show the peers that a torrent is connected to, the fastest first.

    \b
    FLAGS, with the letters that other clients use:
      D  we want something, and it serves us       d  we want something, and it does not serve us
      U  it wants something, and we serve it       u  it wants something, and we do not serve it
      K  it would serve us, and we want nothing    ?  we would serve it, and it wants nothing
      O  it is served for once, to see its speed   S  it was asked, and sends nothing (snubbed)
      I  it connected to us                        X  another peer told us of it (peer exchange)
      L  found in this network (local discovery)   H  found in the DHT

    With --json it prints a list of objects: host, port, peer_id, client, incoming, source (tracker,
    incoming, operator, pex, lsd, dht or resume), progress, is_seeder, upload_only, am_choking, am_interested,
    peer_choking, peer_interested, optimistic, snubbed, down_bytes, up_bytes, down_bytes_per_s,
    up_bytes_per_s, requests_out.
    """
    _show_table(socket, "peers", id, columns=PEER_COLUMNS, as_json=as_json, nothing="no peer is connected")


#: What stands for the attributes of a file.
_ATTRIBUTES = {"x": "executable", "h": "hidden", "l": "link"}


def _priority(row: Row) -> render.Color | None:
    colors: dict[str, render.Color] = {"off": "dim", "low": "dim", "high": "green"}
    return colors.get(row.get("priority", ""))


def _kind(row: Row) -> str:
    return ", ".join(word for letter, word in _ATTRIBUTES.items() if letter in row.get("attributes", ""))


FILE_COLUMNS = (
    Column("#", lambda row: str(row["index"]), right=True),
    Column("PRIORITY", lambda row: row["priority"], color=_priority),
    Column("DONE", lambda row: render.percent(row.get("progress")), right=True),
    Column("SIZE", lambda row: render.size(row["size_bytes"]), right=True),
    Column("PATH", lambda row: row["path"]),
    Column("", _kind),
)


@click.command(short_help="The files of a torrent; how much each is wanted.")
@id_argument()
@click.argument("names", metavar="[FILES]...", nargs=-1)
@click.option(
    "--set",
    "priority",
    type=click.Choice(PRIORITIES),
    help="Want these FILES so much; `off`: not at all.",
)
@json_option
@socket_option
def files(id: str, names: tuple[str, ...], priority: str | None, as_json: bool, socket: str | None) -> None:
    """Show the files of a torrent and how much of each is there, or choose among them with --set.

    FILES are their numbers, also as lists and ranges (`0,2,4-6`), or patterns for their paths (`*.iso`,
    `extras`, `disc 1/*`). What matches nothing is an error, and nothing is changed then.

    Of a magnet link that is resolving the choices are kept, one after the other, until its files are known.
    If something matches nothing then, the link has failed: `--set normal '*'` makes all choices void, and
    `resume` tries again.

    A file that is `off` is not fetched; if it is here whole it stays, else what is here of it is put aside
    in a hidden directory, and comes back when it is wanted again. Pieces of files that are `high` come first,
    those of `low` ones last. When all that is wanted is here the torrent is seeding.

    Of a torrent that was added with `--seed` nothing is fetched, so there is nothing to choose. One that is
    to share what is there and to fetch some of the rest is removed, and added with `--save-to`.

    With --json it prints a list of objects: index, path, size_bytes, done_bytes, progress, priority,
    attributes.

    \b
    Examples:
      mtorrctl files album
      mtorrctl files album --set off '*.jpg' '*.nfo'
      mtorrctl files album --set high 3-5
    """
    if bool(names) != (priority is not None):
        raise WrongUsage("--set and FILES go together", "as in: mtorrctl files ID --set off '*.jpg'")
    if priority is not None:
        with open_client(socket) as client:
            client.call("torrent.select", id=id, files=list(names), priority=priority)
    _show_table(socket, "files", id, columns=FILE_COLUMNS, as_json=as_json, nothing="no files are known")


def _answered(row: Row) -> render.Color | None:
    return "red" if row.get("state") in ("failed", "error", "failing") else None


def _served(row: Row) -> render.Color | None:
    return "red" if row.get("state") in ("resting", "banned") else None


TRACKER_COLUMNS = (
    Column("TIER", lambda row: str(row.get("tier", "")), right=True, leaves=6),
    Column("TRACKER", lambda row: row["url"], gives_way=True),
    Column("DIALECT", lambda row: row.get("dialect") or render.NOTHING, leaves=8),
    Column("STATE", lambda row: row.get("state") or render.NOTHING, color=_answered),
    Column("PEERS", lambda row: render.by_name("peers", row.get("peers_received")), right=True, leaves=7),
    Column("SEEDERS", lambda row: render.by_name("seeders", row.get("seeders")), right=True, leaves=5),
    Column("LEECHERS", lambda row: render.by_name("leechers", row.get("leechers")), right=True, leaves=4),
    Column("FINISHED", lambda row: render.by_name("downloaded", row.get("downloaded")), right=True, leaves=1),
    Column("LAST", lambda row: render.moment(row.get("last_announce_at")), leaves=3),
    Column("NEXT", lambda row: render.moment(row.get("next_announce_at")), leaves=2),
    Column("MESSAGE", lambda row: row.get("message") or "", color=_answered, gives_way=True),
)


WEB_SEED_COLUMNS = (
    Column("WEB SEED", lambda row: row["url"], gives_way=True),
    Column("STATE", lambda row: row["state"], color=_served),
    Column("OPEN", lambda row: str(row["connections"]), right=True),
    Column("RETRY IN", lambda row: render.duration(row["retry_in_s"]), right=True),
    Column("MESSAGE", lambda row: row["message"], color=_served, gives_way=True),
)


@click.command(short_help="The trackers of a torrent.")
@id_argument()
@json_option
@socket_option
def trackers(id: str, as_json: bool, socket: str | None) -> None:
    """Show the trackers of a torrent and how each of them answered last.

    With --json it prints a list of objects: url, tier, dialect, state, last_announce_at, next_announce_at,
    interval_s, peers_received, seeders, leechers, downloaded (how often somebody finished, as the tracker
    says when it is scraped, once an hour), message.
    """
    _show_table(socket, "trackers", id, columns=TRACKER_COLUMNS, as_json=as_json, nothing="it has no tracker")


@click.command(short_help="A torrent as a magnet link.")
@id_argument()
@json_option
@socket_option
def magnet(id: str, as_json: bool, socket: str | None) -> None:
    """Print a magnet link to a torrent, to be given away instead of its file.

    It has the info_hash and, where there is one, the id of the content, the name, the trackers and the web
    seeds. Whoever adds it gets the rest from the peers; of a private torrent nobody gives that away.

    With --json it prints one object: magnet.

    \b
    Examples:
      mtorrctl magnet ubuntu.iso
    """
    with open_client(socket) as client:
        answer = client.call("torrent.magnet", id=id)
    tell(render.as_json(answer) if as_json else render.clean(answer["magnet"]))


def _show_table(
    socket: str | None, what: str, id: str, *, columns: tuple[Column, ...], as_json: bool, nothing: str
) -> None:
    with open_client(socket) as client:
        rows = client.call(f"torrent.{what}", id=id)[what]
    if as_json:
        tell(render.as_json(rows))
    elif rows:
        tell(render.table(columns, rows))
    elif render.is_terminal(sys.stdout):
        tell(nothing)
