"""Commands that run a daemon of their own, in the foreground, for as long as they last."""

from __future__ import annotations

from typing import Any

import click

from mtorrctl.commands.common import RATE, absolute
from mtorrctl.exits import DONE

_COUNT = click.IntRange(0, 100_000)

_verbose_option = click.option(
    "-v", "--verbose", "verbosity", count=True, help="Say more; up to three times: -vvv shows its log, too."
)


@click.command(short_help="Download without a daemon, in the foreground.")
@click.argument("file", metavar="FILE|URL")
@click.option(
    "--save-to", default=".", metavar="DIR", type=click.Path(), help="Save here; else in this directory."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7777,
    show_default=True,
    metavar="PORT",
    help="The port where other peers reach us; 0 takes a free one.",
)
@click.option("--interface", default="", metavar="NAME", help="Speak to peers through this interface only.")
@click.option(
    "--seed",
    "seed_path",
    metavar="PATH",
    type=click.Path(),
    help="The data is there already: check it, then seed it until interrupted.",
)
@click.option("--auto-seed", is_flag=True, help="When it is whole, seed it until interrupted.")
@click.option(
    "--wait-seeders",
    type=_COUNT,
    default=1,
    show_default=True,
    metavar="N",
    help="Begin when N seeders are there.",
)
@click.option(
    "--wait-leechers",
    type=_COUNT,
    default=0,
    show_default=True,
    metavar="N",
    help="Begin when N leechers are there, we too.",
)
@click.option("--down", type=RATE, default=0, metavar="RATE", help="Download limit, as `3 MB/s`.")
@click.option("--up", type=RATE, default=0, metavar="RATE", help="Upload limit, as `500 kB/s`.")
@_verbose_option
@click.pass_context
def download(context: click.Context, /, file: str, *, verbosity: int, **wishes: Any) -> None:
    """Download what a .mtorrent or .torrent is about, with a daemon of its own that ends with the command.

    It serves others meanwhile. Each piece is checked before it is kept, and the whole in the end; then the
    figures are printed: the average speed, and who gave how much. What is there already is checked and not
    fetched again: the same command goes on with a download that was interrupted.

    Exit 0 when it is whole, or was seeded until interrupted; 130 when Ctrl-C came before it was whole.

    \b
    Examples:
      mtorrctl download ubuntu.iso.mtorrent --save-to /srv/images
      mtorrctl download dataset.mtorrent --seed dataset/ --up '20 MB/s'
    """
    from mtorrctl import foreground
    from mtorrctl.voice import Voice

    seed_path = wishes["seed_path"]
    plan = foreground.Plan(
        metainfo=foreground.read_checked(file),
        save_to=absolute(wishes["save_to"]),
        seed_path=None if seed_path is None else foreground.existing(seed_path),
        port=wishes["port"],
        interface=wishes["interface"],
        keeps_seeding=wishes["auto_seed"] or seed_path is not None,
        wait_seeders=wishes["wait_seeders"],
        wait_leechers=wishes["wait_leechers"],
        down=wishes["down"],
        up=wishes["up"],
    )
    ending = foreground.download(plan, Voice(verbosity))
    if ending.is_whole or ending.signal is None:
        context.exit(DONE)
    context.exit(128 + ending.signal)  # as a shell reports it


@click.command(short_help="Serve a tracker without a daemon, in the foreground.")
@click.option(
    "--bind",
    default="0.0.0.0:8888",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen; port 0 takes a free one, IPv6 goes in brackets.",
)
@click.option("--no-udp", is_flag=True, help="Answer over HTTP alone, not over UDP of the same port, too.")
@_verbose_option
def tracker(bind: str, no_udp: bool, verbosity: int) -> None:
    """Serve a tracker until interrupted: peers of any swarm find each other here, at /announce.

    Clients announce to http://HOST:PORT/announce or, with less traffic, to udp://HOST:PORT/announce. With -v
    each announce is shown, with -vv also who asked and what came of it. All it knows is gone when it ends;
    peers announce again to the next one by themselves. A tracker that is always there is a setting of the
    daemon: tracker.enabled.

    \b
    Example:
      mtorrctl tracker --bind 127.0.0.1:8888 -v
    """
    from mtorrctl.foreground import serve_tracker
    from mtorrctl.voice import Voice

    serve_tracker(bind, Voice(verbosity), udp=not no_udp)
