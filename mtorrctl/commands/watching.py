"""Commands that go on until they are interrupted: `watch`, a live table; `events`, the stream of notes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import click

from mtorrctl import render
from mtorrctl.client import Client, Note
from mtorrctl.commands.common import TIME, finish, id_argument, json_option, open_client, socket_option, tell
from mtorrctl.commands.torrents import torrent_table
from mtorrctl.exits import Unreachable

#: What makes a line of `watch` worth another line where there is no terminal.
_SHOWN = ("state", "done_bytes", "down_bytes_per_s", "up_bytes_per_s", "peers", "error")


@click.command(short_help="A live table of the torrents.")
@id_argument("ids", nargs=-1)
@click.option("--interval", type=TIME, default=1.0, metavar="TIME", help="How often to look.  [default: 1 s]")
@json_option
@socket_option
def watch(ids: tuple[str, ...], interval: float, as_json: bool, socket: str | None) -> None:
    """Show the torrents as `list` does, again and again until Ctrl-C.

    Where there is no terminal, or with --json, each torrent gets a line when something about it has changed;
    with --json that line is an object, as of `list --json`.
    """
    every_s = max(0.1, interval)
    with open_client(socket) as client:
        if as_json or not render.is_terminal(sys.stdout):
            _print_changes(client, ids, every_s, _json_line if as_json else _plain_line)
        else:
            _draw(client, ids, every_s)


class _Listing:
    """The rows of the torrents that are watched. Of all of them only what changed is fetched each time."""

    def __init__(self, client: Client, ids: tuple[str, ...]) -> None:
        self._client = client
        self._ids = list(ids)
        self._token = ""
        self._rows: dict[str, dict[str, Any]] = {}

    def rows(self) -> list[dict[str, Any]]:
        """All of them, as they are now."""
        self.fresh()
        return list(self._rows.values())

    def fresh(self) -> list[dict[str, Any]]:
        """Those that may have changed since the last time."""
        if self._ids:
            answer = self._client.call("torrent.list", ids=self._ids)
            self._rows.clear()
        else:
            answer = self._client.call("torrent.list", since=self._token)
            self._token = answer["token"]
            if answer["full"]:
                self._rows.clear()
            for info_hash in answer["removed"]:
                self._rows.pop(info_hash, None)
        rows: list[dict[str, Any]] = answer["torrents"]
        self._rows.update((row["info_hash"], row) for row in rows)
        return rows


def _draw(client: Client, ids: tuple[str, ...], every_s: float) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    listing = _Listing(client, ids)

    def picture() -> Text:
        rows = listing.rows()
        down = sum(row["down_bytes_per_s"] for row in rows)
        up = sum(row["up_bytes_per_s"] for row in rows)
        foot = f"{len(rows)} torrents, down {render.rate(down)}, up {render.rate(up)}; Ctrl-C ends this"
        body = torrent_table(rows) if rows else "there are no torrents"
        return Text.from_ansi(f"{body}\n\n{render.paint(foot, 'dim')}", no_wrap=True)

    with Live(picture(), console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            time.sleep(every_s)
            live.update(picture(), refresh=True)


def _print_changes(
    client: Client, ids: tuple[str, ...], every_s: float, line_of: Callable[[dict[str, Any]], str]
) -> None:
    shown: dict[str, tuple[Any, ...]] = {}
    listing = _Listing(client, ids)
    while True:
        for row in listing.fresh():
            now = tuple(row.get(name) for name in _SHOWN)
            if shown.get(row["info_hash"]) != now:
                shown[row["info_hash"]] = now
                _say(line_of(row))
        time.sleep(every_s)


def _json_line(row: dict[str, Any]) -> str:
    return render.as_json_line(row)


def _plain_line(row: dict[str, Any]) -> str:
    parts = [
        time.strftime("%H:%M:%S"),
        f"{row['state']:<11}",
        f"{render.percent(row['progress']):>6}",
        f"{render.rate(row['down_bytes_per_s']):>9}",
        f"{render.rate(row['up_bytes_per_s']):>9}",
        render.clean(row["name"]),
    ]
    return "  ".join(parts)


def _say(line: str) -> None:
    tell(line)
    sys.stdout.flush()  # whoever reads a pipe wants it now


# --------------------------------------------------------------------------------------------------- events


@click.command(short_help="The stream of what happens.")
@id_argument("ids", nargs=-1)
@click.option(
    "-k",
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="Only events of this kind; repeatable. A wrong one is answered with the list.",
)
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="End after N events.")
@json_option
@socket_option
def events(
    ids: tuple[str, ...], kinds: tuple[str, ...], count: int | None, as_json: bool, socket: str | None
) -> None:
    """Print what happens, as it happens, until Ctrl-C: of all torrents, or of those with these IDs.

    Kinds are torrent_added, torrent_removed, resolved, state_changed, progress, content_verified,
    completed, storage_failed, moved, move_failed, limits_changed, tracker_announced, tracker_scraped,
    tracker_failed, peer_joined, peer_left, peer_banned, piece_corrupt; and, only when asked for by name
    because there are so many, piece_verified and tracker_request. There is a notes_lost when this program
    was too slow, with the number of those lost so far; daemon_stopping is the last.

    With --json it prints an object a line: kind, time, info_hash and name where it is about a torrent, and
    the facts of its kind.

    \b
    Examples:
      mtorrctl events -k completed -n 1 ubuntu.iso && notify-send done
      mtorrctl events --json | jq -c 'select(.kind == "tracker_failed")'
    """
    with open_client(socket) as client:
        client.subscribe(kinds=kinds or None, ids=ids or None)
        for number, note in enumerate(client.notes(), 1):
            _say(render.as_json_line(note) if as_json else _note_line(note))
            if number == count:
                finish()
    raise Unreachable("the daemon stops, and the stream with it")


def _note_line(note: Note) -> str:
    facts = [
        f"{name}={render.by_name(name, value)}"
        for name, value in note.items()
        if name not in ("kind", "time", "info_hash", "name") and value not in (None, "")
    ]
    head = [render.clock(note.get("time", "")), f"{render.clean(note.get('kind', '')):<17}"]
    return "  ".join([*head, *([render.clean(note["name"])] if note.get("name") else []), *facts]).rstrip()
