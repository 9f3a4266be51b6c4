"""The options of a new `.mtorrent`, shared by `create` and `seed PATH`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from microtorrd.proto.metainfo import DEFAULT_TRACKER
from mtorrctl import render
from mtorrctl.commands.common import PATH, SIZE, warn
from mtorrctl.create import Created, Recipe, check_url, parse_trackers
from mtorrctl.exits import WrongUsage

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "-t",
        "--tracker",
        "trackers",
        multiple=True,
        metavar="URL[,URL]...",
        help=f"A tracker, or several of one tier; repeat it for more tiers. [default: {DEFAULT_TRACKER}]",
    ),
    click.option(
        "-l",
        "--piece-length",
        type=SIZE,
        metavar="SIZE",
        help="Any length, as 16000 or `256 KiB`; else chosen by the size of the content.",
    ),
    click.option(
        "-o",
        "--output",
        metavar="FILE",
        type=PATH,
        help="Write here; else next to the content, with .mtorrent appended.",
    ),
    click.option(
        "--align", is_flag=True, help="Pad, so that each file begins with a piece of its own (BEP 47)."
    ),
    click.option(
        "--links", is_flag=True, help="Keep symbolic links that end in the content, as links (BEP 47)."
    ),
    click.option("--private", is_flag=True, help="Peers come from the trackers alone (BEP 27)."),
    click.option(
        "--web-seed", "web_seeds", multiple=True, metavar="URL", help="An HTTP copy (BEP 19); repeatable."
    ),
    click.option("--comment", default="", metavar="TEXT", help="A word to those who receive it."),
    click.option("--no-date", is_flag=True, help="Write no date: the same input then gives the same bytes."),
)


def recipe_options(command: Command) -> Command:
    """Give a command these options; `read_recipe` makes a recipe of what comes in."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_recipe(options: Mapping[str, Any]) -> Recipe:
    """The recipe, from the values of the options but `output`. Raises WrongUsage."""
    if options["piece_length"] is not None and options["piece_length"] < 1:
        raise WrongUsage("--piece-length must be at least one byte")
    for url in options["web_seeds"]:
        check_url(url, ("http", "https"), "--web-seed")
    given = parse_trackers(options["trackers"])
    return Recipe(
        trackers=given or ((DEFAULT_TRACKER,),),
        piece_length=options["piece_length"],
        private=options["private"],
        align=options["align"],
        links=options["links"],
        web_seeds=tuple(options["web_seeds"]),
        comment=options["comment"],
        creation_date=None if options["no_date"] else _now(),
    )


def asks_for_more(options: Mapping[str, Any]) -> bool:
    """Whether something is asked for that the info_hash says nothing about."""
    return bool(options["trackers"] or options["web_seeds"] or options["comment"])


def warn_of_skipped(made: Created) -> None:
    """Say what is not in the torrent though it lies there; the first few by name."""
    for path, reason in made.skipped[:10]:
        warn(f"left out {render.clean(path)}: {reason}")
    if len(made.skipped) > 10:
        warn(f"left out {len(made.skipped) - 10} more")


def _now() -> int:
    # reproducible-builds.org/specs/source-date-epoch
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(given) if given.isdecimal() else int(time.time())
