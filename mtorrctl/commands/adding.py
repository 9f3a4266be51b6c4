"""The command that brings torrents to the daemon."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from microtorrd.errors import InvalidMetainfo
from mtorrctl import render
from mtorrctl.commands.common import (
    PATH,
    PRIORITIES,
    RATE,
    TIME,
    absolute,
    each,
    finish,
    json_option,
    open_client,
    socket_option,
    tell,
)
from mtorrctl.exits import WrongUsage
from mtorrctl.sources import check_magnet, is_magnet, read_metainfo, unfit
from mtorrctl.waiting import first_outcome, refuse_failed, wait_until_whole

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # older releases of click have no parameter here


class FilesOfPriority(_ParamType):
    """`PRIORITY=FILES` as a pair."""

    name = "priority"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The priority and the files."""
        if not isinstance(value, str):
            return value
        priority, mark, files = value.partition("=")
        if priority not in PRIORITIES or not mark or not files:
            self.fail(f"{value!r} is not PRIORITY=FILES, with off, low, normal or high first", param, ctx)
        return priority, files


_COUNT = click.IntRange(0, 100_000)


@click.command(short_help="Add torrents from files, URLs or magnet links.")
@click.argument("sources", metavar="FILE|URL|MAGNET...", type=PATH, nargs=-1, required=True)
@click.option(
    "--save-to", metavar="DIR", type=PATH, help="Save here; else where the daemon is configured to."
)
@click.option(
    "--seed",
    "seed_path",
    metavar="PATH",
    type=PATH,
    help="The data is there already: check it, then seed it.",
)
@click.option("--paused", is_flag=True, help="Add without starting.")
@click.option("--wait", is_flag=True, help="Return when it is whole, with a bar until then.")
@click.option("--timeout", type=TIME, metavar="TIME", help="With --wait: give up after this, as `15 min`.")
@click.option("--wait-seeders", type=_COUNT, default=0, metavar="N", help="Begin when N seeders are there.")
@click.option(
    "--wait-leechers", type=_COUNT, default=0, metavar="N", help="Begin when N leechers are there, we too."
)
@click.option("--down", type=RATE, default=0, metavar="RATE", help="Download limit, as `3 MB/s`.")
@click.option("--up", type=RATE, default=0, metavar="RATE", help="Upload limit, as `500 kB/s`.")
@click.option("--label", default="", metavar="WORD", help="A word of your own, shown by list --json.")
@click.option("--sequential", is_flag=True, help="Fetch the pieces in their order.")
@click.option(
    "--files",
    "only",
    multiple=True,
    metavar="FILES",
    help="Fetch only these, by number or pattern, as `0,2,4-6` or `*.iso`; repeatable.",
)
@click.option(
    "--priority",
    "priorities",
    type=FilesOfPriority(),
    multiple=True,
    metavar="PRIORITY=FILES",
    help="off, low, normal or high, as `high=*.nfo`; repeatable.",
)
@click.option(
    "--seed-after/--stop-after",
    "seed_after",
    default=None,
    help="When it is whole, seed it or stop it; else as the daemon is configured.",
)
@click.option(
    "--super-seed/--no-super-seed",
    "super_seed",
    default=None,
    help="When seeding, show each peer a few pieces at a time, or everything.",
)
@json_option
@socket_option
def add(
    sources: tuple[str, ...],
    *,
    save_to: str | None,
    seed_path: str | None,
    paused: bool,
    wait: bool,
    timeout: float | None,
    wait_seeders: int,
    wait_leechers: int,
    down: int,
    up: int,
    label: str,
    sequential: bool,
    only: tuple[str, ...],
    priorities: tuple[tuple[str, str], ...],
    seed_after: bool | None,
    super_seed: bool | None,
    as_json: bool,
    socket: str | None,
) -> None:
    """Add torrents to the daemon, from .mtorrent or .torrent files, their URLs, or magnet links.

    This program reads the files and sends what is in them; `-` reads standard input. Relative paths are meant
    from where you stand. It returns when the daemon has looked at the files of the torrent: exit 1 where it
    cannot have them, and it goes on when it can. With --wait it returns when the content is whole (exit 0),
    when it failed (1), or after --timeout (124); the daemon goes on in any case.

    Of a magnet link (in quotes, for the shell) the torrent is `resolving` until a peer has handed over what a
    file would say. It is found through the trackers (tr) and peers (x.pe) in the link, by the info_hash
    (xt=urn:btih:) or the id of the content (xt=urn:mtid:). Where it chooses files (so=) these are fetched and
    no others, unless you say --files; `files --set` works before its files are known, too.

    FILES are numbers from 0, as `files` and `show` have them, and ranges of them, or patterns for paths: `*`
    and `?` stand for anything, what names a directory means all that is in it. What matches nothing is an
    error. Files that are not wanted are not made; of a piece that they share with others, their part is kept
    in a hidden directory. `mtorrctl files --set` changes the choice later.

    With --json it prints an object a line for each torrent: the keys of `list`.

    \b
    Examples:
      mtorrctl add ubuntu.iso.mtorrent
      mtorrctl add https://example.org/data.torrent --save-to . --wait
      mtorrctl add data.mtorrent --seed /srv/data
      mtorrctl add 'magnet:?xt=urn:btih:...' --wait
      mtorrctl add album.torrent --files '*.flac' --priority high=0
    """
    if wait and paused:
        raise WrongUsage("--wait and --paused exclude each other: it would wait for ever")
    if timeout is not None and not wait:
        raise WrongUsage("--timeout goes with --wait")
    if seed_path is not None and save_to is not None:
        raise WrongUsage("--seed and --save-to exclude each other: the data is where --seed says")
    if seed_path is not None and any(map(is_magnet, sources)):
        raise WrongUsage("--seed needs the .mtorrent or .torrent file, and a magnet link is none")
    if seed_path is not None and len(sources) > 1:
        raise WrongUsage("--seed names the data of one torrent, and there are several")
    if seed_path is not None and (only or priorities):
        raise WrongUsage("--seed and a choice of files exclude each other: all of the data is there")
    options = {
        "save_to": None if save_to is None else absolute(save_to),
        "seed_path": None if seed_path is None else absolute(seed_path),
        "paused": paused,
        "wait_seeders": wait_seeders,
        "wait_leechers": wait_leechers,
        "down": down,
        "up": up,
        "label": label,
        "sequential": sequential,
        "files": list(only),
        "priorities": _by_priority(priorities),
        "seed_after_download": seed_after,
        "super_seed": super_seed,
    }
    end = None if timeout is None else time.monotonic() + timeout
    rows: list[dict[str, Any]] = []

    def bring(source: str) -> None:
        raw = b"" if is_magnet(source) else read_metainfo(source)
        what = {"metainfo": raw} if raw else {"magnet": check_magnet(source)}
        try:
            with open_client(socket) as client:
                row = client.call("torrent.add", **what, **options)
                rows.append(row if wait else first_outcome(client, row))
        except InvalidMetainfo as error:
            raise unfit(raw, source, error) from None
        if not wait:
            _tell_added(rows[-1], as_json=as_json)
            refuse_failed(rows[-1])

    def await_whole(row: dict[str, Any]) -> None:
        left_s = None if end is None else max(0.0, end - time.monotonic())
        with open_client(socket) as client:
            whole = wait_until_whole(client, row, timeout_s=left_s)
        _tell_added(whole, as_json=as_json)

    errors = each(sources, bring)
    if wait:
        # All are on their way before the first is waited for.
        errors += each(rows, await_whole)
    finish(errors, len(sources))


def _by_priority(given: tuple[tuple[str, str], ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for priority, files in given:
        found.setdefault(priority, []).append(files)
    return found


def _tell_added(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        tell(render.as_json_line(row))
    else:
        tell(f"{row['state']} {render.clean(row['name'])} in {render.clean(row['save_to'])}")
