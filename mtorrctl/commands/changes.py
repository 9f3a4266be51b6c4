"""Commands that change what torrents do."""

from __future__ import annotations

import os
import sys

import click

from microtorrd.errors import MicrotorrError, NotAllowed
from mtorrctl import render
from mtorrctl.commands.common import (
    PATH,
    RATE,
    absolute,
    act_on_each,
    complain,
    finish,
    id_argument,
    json_option,
    open_client,
    socket_option,
    tell,
)
from mtorrctl.exits import Failure
from mtorrctl.waiting import first_ends, subscribe_if_possible


@click.command(short_help="Stop torrents until they are resumed.")
@id_argument("ids", nargs=-1, required=True)
@json_option
@socket_option
def pause(ids: tuple[str, ...], as_json: bool, socket: str | None) -> None:
    """Stop torrents until they are resumed, also over restarts of the daemon.

    \b
    Examples:
      mtorrctl pause ubuntu.iso 3f9a
      mtorrctl pause all
    """
    finish(act_on_each(socket, ids, "torrent.pause", {}, done="paused", as_json=as_json), len(ids))


@click.command(short_help="Let torrents run again.")
@id_argument("ids", nargs=-1, required=True)
@json_option
@socket_option
def resume(ids: tuple[str, ...], as_json: bool, socket: str | None) -> None:
    """Let torrents run again. One that failed is tried again."""
    finish(act_on_each(socket, ids, "torrent.resume", {}, done="resumed", as_json=as_json), len(ids))


@click.command(short_help="Check the content of torrents again.")
@id_argument("ids", nargs=-1, required=True)
@json_option
@socket_option
def verify(ids: tuple[str, ...], as_json: bool, socket: str | None) -> None:
    """Compare all content of torrents with its hashes again. `list` and `watch` show how far it is.

    One that is being moved is checked as soon as that is over.
    """
    finish(act_on_each(socket, ids, "torrent.verify", {}, done="checking", as_json=as_json), len(ids))


@click.command(short_help="Announce to the trackers now.")
@id_argument("ids", nargs=-1, required=True)
@json_option
@socket_option
def reannounce(ids: tuple[str, ...], as_json: bool, socket: str | None) -> None:
    """Announce torrents to their trackers now, or as soon as the trackers allow."""
    finish(act_on_each(socket, ids, "torrent.reannounce", {}, done="announcing", as_json=as_json), len(ids))


@click.command(short_help="Forget torrents; their files stay unless --data.")
@id_argument("ids", nargs=-1, required=True)
@click.option("--data", is_flag=True, help="Delete their files too.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before files are deleted.")
@json_option
@socket_option
def remove(ids: tuple[str, ...], data: bool, yes: bool, as_json: bool, socket: str | None) -> None:
    """Forget torrents. Their files stay where they are, unless --data is given.

    On a terminal --data asks first; without one it never does.

    \b
    Examples:
      mtorrctl remove ubuntu.iso
      mtorrctl remove --data --yes old-data-set
    """
    asks = data and not yes and sys.stdin.isatty() and sys.stdout.isatty()
    if asks and not click.confirm(f"Delete the files of {', '.join(map(render.clean, ids))} too?"):
        finish()
    done = "removed with its files" if data else "removed"
    finish(act_on_each(socket, ids, "torrent.remove", {"data": data}, done=done, as_json=as_json), len(ids))


@click.command(short_help="Move the files of a torrent to another directory.")
@id_argument()
@click.argument("directory", metavar="DIR", type=PATH)
@json_option
@socket_option
def move(id: str, directory: str, as_json: bool, socket: str | None) -> None:
    """Move the files of a torrent to DIR, and go on there.

    They are copied, synced and checked before the old ones are deleted, and nothing is ever overwritten. A
    move that takes longer goes on when the command has returned; `inspect` tells how far it is, and `events`
    what came of it.
    """
    target = absolute(directory)
    if os.path.exists(target) and not os.path.isdir(target):
        raise Failure(f"{render.clean(target)} is not a directory")
    with open_client(socket) as client:
        hears = subscribe_if_possible(client, kinds=["moved", "move_failed"])
        rows = client.call("torrent.move", id=id, save_to=target)["torrents"]
        ends = first_ends(client, [row["info_hash"] for row in rows]) if hears else {}
    errors: list[MicrotorrError] = []
    failures = []
    for row in rows:
        end = ends.get(row["info_hash"], {"kind": "moving"})
        if end["kind"] == "move_failed":
            errors.append(Failure(f"{render.clean(row['name'])} stays where it is: {end['message']}"))
            failures.append(
                {"id": row["info_hash"], "code": NotAllowed.code, "message": end["message"], "data": {}}
            )
        elif not as_json:
            tell(f"{end['kind']} {render.clean(row['name'])} to {render.clean(target)}")
    if as_json:
        tell(render.as_json({"torrents": rows, "errors": failures}))
    elif not rows:
        tell("there is nothing to move")
    for error in errors:
        complain(error)
    finish(errors, len(rows))


@click.command(short_help="In which order pieces are fetched.")
@id_argument()
@click.argument("order", type=click.Choice(["sequential", "rarest"]))
@json_option
@socket_option
def order(id: str, order: str, as_json: bool, socket: str | None) -> None:
    """Let a torrent fetch its pieces in their order, to be used while they come, or the rarest first.

    The rarest first is better for everybody, and what there is without this. Priorities of files go before
    either.

    \b
    Examples:
      mtorrctl order film sequential
      mtorrctl order all rarest
    """
    params = {"sequential": order == "sequential"}
    finish(act_on_each(socket, (id,), "torrent.order", params, done=order, as_json=as_json))


@click.command(short_help="Show or set limits, of all or of one torrent.")
@id_argument(required=False)
@click.option("--down", type=RATE, metavar="RATE", help="Download limit, as `3 MB/s`; `none` lifts it.")
@click.option("--up", type=RATE, metavar="RATE", help="Upload limit, as `500 kB/s`; `none` lifts it.")
@json_option
@socket_option
def limit(id: str | None, down: int | None, up: int | None, as_json: bool, socket: str | None) -> None:
    """Show or set the limits of the whole daemon, or those of one torrent.

    What is not given stays as it is. Limits of a torrent stay over restarts; those of the daemon hold until
    it ends, and then its configuration counts again.

    With --json it prints an object: down and up in bytes a second, 0 for none.

    \b
    Examples:
      mtorrctl limit
      mtorrctl limit --up '3 MB/s'
      mtorrctl limit ubuntu.iso --down none --up '200 kB/s'
    """
    with open_client(socket) as client:
        if id is None:
            limits = client.call("session.limit", down=down, up=up)
        else:
            limits = client.call("torrent.limit", id=id, down=down, up=up)
    if as_json:
        tell(render.as_json(limits))
    else:
        shown = [(name, render.limit(limits.get(name))) for name in ("down", "up")]
        tell(render.pairs(shown))
