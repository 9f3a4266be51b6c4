"""The command that shares a file or directory in one go, or lets torrents of the daemon seed."""

from __future__ import annotations

import os
from typing import Any

import click

from microtorrd.errors import Duplicate
from mtorrctl import render
from mtorrctl.client import Client
from mtorrctl.commands.common import (
    RATE,
    absolute,
    act_on_each,
    each,
    finish,
    id_argument,
    json_option,
    open_client,
    socket_option,
    tell,
)
from mtorrctl.commands.recipes import asks_for_more, read_recipe, recipe_options, warn_of_skipped
from mtorrctl.create import METAINFO_SUFFIXES, Created, create
from mtorrctl.exits import WrongUsage
from mtorrctl.waiting import first_outcome, refuse_failed


@click.command(short_help="Share a file or directory; or let torrents seed.")
@id_argument("what", nargs=-1, required=True, metavar="PATH|ID...")
@recipe_options
@click.option("--up", type=RATE, default=0, metavar="RATE", help="Upload limit, as `500 kB/s`.")
@click.option("--label", default="", metavar="WORD", help="A word of your own, shown by list --json.")
@click.option(
    "--super/--no-super",
    "super_seed",
    default=None,
    help="Super-seed: show each peer a few pieces at a time, or everything.",
)
@json_option
@socket_option
def seed(
    what: tuple[str, ...],
    *,
    output: str | None,
    up: int,
    label: str,
    super_seed: bool | None,
    as_json: bool,
    socket: str | None,
    **recipe: Any,
) -> None:
    """Share what lies at PATH: make its .mtorrent, add it and seed it. The path of the .mtorrent is printed.

    The .mtorrent is made next to PATH, or where --output says. Give it to those who shall have the content.
    It is the daemon that reads the content from now on: exit 1 says that it may not.
    One that is there already and describes the same is kept, unless options ask for other trackers or words.

    With an ID (where nothing of that name lies in the directory) a torrent of the daemon is started, and goes
    on seeding when it is whole, whatever was chosen when it was added.

    With --super each peer is shown a few pieces at a time, and the next ones when others have got them from
    it (BEP 16): a first seeder with little upload then gives about one copy to foreign clients, and more
    slowly where they pass little on. microtorrd's own need nothing of the kind.

    With --json it prints an object a line for each PATH: mtorrent (as of `create --json`) and torrent (as of
    `list --json`); for IDs one object: torrents and errors.

    \b
    Examples:
      mtorrctl seed /srv/images/ubuntu.iso -t http://tracker.example.org:8888/announce
      mtorrctl seed dataset/ --up '10 MB/s'
      mtorrctl seed 3f9a
      mtorrctl seed release.iso --super --up '2 MB/s'
    """
    asked = read_recipe(recipe)
    paths = [item for item in what if os.path.lexists(item) or "/" in item]
    ids = [item for item in what if item not in paths]
    if output is not None and len(paths) != 1:
        raise WrongUsage("--output goes with one PATH")
    for path in paths:
        if path.lower().endswith(METAINFO_SUFFIXES) and os.path.isfile(path):
            raise WrongUsage(
                f"{render.clean(path)} describes content, it is not content",
                f"to seed what it describes: mtorrctl add {render.clean(path)} --seed PATH",
            )

    def share(path: str) -> None:
        open_client(socket).close()  # before an hour of hashing: does a daemon answer at all?
        made = create(path, output, asked, keep_same=not asks_for_more(recipe))
        warn_of_skipped(made)
        options = {"seed_path": absolute(path), "up": up, "label": label, "super_seed": super_seed}
        with open_client(socket) as client:
            row = first_outcome(client, _add_or_seed(client, made, options))
        if as_json:
            tell(render.as_json_line({"mtorrent": made.facts, "torrent": row}))
        else:
            tell(made.path)
        refuse_failed(row)

    errors = each(paths, share, of=len(what))
    if ids:
        errors += act_on_each(
            socket,
            ids,
            "torrent.seed",
            {"super_seed": super_seed},
            done="seeding",
            as_json=as_json,
            hint="nor is there a file or directory of that name here",
        )
    finish(errors, len(what))


def _add_or_seed(client: Client, made: Created, options: dict[str, Any]) -> Any:
    """The row of the new torrent. One that is here already is told to seed: the command can be repeated."""
    try:
        return client.call("torrent.add", metainfo=made.raw, **options)
    except Duplicate:
        return client.call("torrent.seed", id=made.facts["info_hash"], super_seed=options["super_seed"])[
            "torrents"
        ][0]
