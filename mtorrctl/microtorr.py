"""The program `MicroTorr`: the commands of the original, spelled as the original spells them.

Its exit codes are two: 0, also after Ctrl-C, and 1 for everything that went wrong, wrong usage included. The
work is done by the rooms that `mtorrctl` uses; here are only names, defaults and texts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from microtorrd import __version__
from microtorrd.errors import MicrotorrError
from microtorrd.proto.metainfo import Metainfo
from mtorrctl import render, streams
from mtorrctl.create import Recipe, create, parse_trackers
from mtorrctl.exits import DONE, FAILED
from mtorrctl.sources import parse_named, read_metainfo

DEFAULT_TRACKER = "http://127.0.0.1:8888"
DEFAULT_BIND = "0.0.0.0:8888"

#: Limits are typed in kB/s, as the original has it.
KB = 1000

Command = TypeVar("Command", bound=Callable[..., Any])


def main() -> int:
    """Run the program; its exit code."""
    return streams.guarded("MicroTorr", _run)


def _run() -> int:
    try:
        outcome = program.main(prog_name="MicroTorr", standalone_mode=False)
        return outcome if isinstance(outcome, int) else DONE
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.UsageError as error:
        path = "MicroTorr" if error.ctx is None else error.ctx.command_path
        _complain(error.format_message(), f"{path} --help tells more")
    except click.ClickException as error:
        _complain(error.format_message())
    except MicrotorrError as error:
        _complain(str(error), getattr(error, "hint", ""))
    return FAILED


def _complain(message: str, hint: str = "") -> None:
    mark = render.paint("[CRITICAL]:", "red", sys.stderr)
    head, *more = [render.clean(line) for line in message.split("\n")]
    click.echo(f"{mark} {head}", err=True)
    for line in [*more, *(render.clean(line) for line in hint.split("\n") if hint)]:
        click.echo(f"  {line}", err=True)


# ------------------------------------------------------------------------------------- kinds of arguments


_PIECE_LENGTH = click.IntRange(min=1)
_PORT = click.IntRange(0, 65535)
_COUNT = click.IntRange(0, 100_000)
_SPEED = click.IntRange(-1, 10**12)
_VERBOSITY = click.IntRange(min=0)


def _verbosity_option(spelling: str) -> Callable[[Command], Command]:
    return click.option(
        "-v",
        spelling,
        "verbosity",
        type=_VERBOSITY,
        default=0,
        metavar="N",
        show_default=True,
        help="How much is said: 0 only what matters, 1 verbose, 2 information, 3 debug.",
    )


# ------------------------------------------------------------------------------------------- the commands


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(__version__, "-V", "--version", prog_name="MicroTorr", message="%(prog)s %(version)s")
@click.pass_context
def program(context: click.Context) -> None:
    """Share files peer to peer, from the command line, for as long as the command runs.

    \b
    1. MicroTorr createMtorr FILE            make FILE.mtorrent, and give it to everybody
    2. MicroTorr tracker                     where peers find each other
    3. MicroTorr download FILE.mtorrent -s FILE        the first seeder
    4. MicroTorr download FILE.mtorrent                everybody else

    A daemon that shares many files around the clock is microtorrd, and mtorrctl talks to it; they and
    MicroTorr share with each other, and with any BitTorrent client.

    Exit codes: 0 done, also when interrupted with Ctrl-C; 1 it failed, or makes no sense as typed.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@program.command("createMtorr", short_help="Make the .mtorrent of a file.")
@click.argument("file", metavar="FILE", type=click.Path())
@click.option(
    "-t",
    "--tracker",
    default=DEFAULT_TRACKER,
    show_default=True,
    metavar="URL",
    help="The tracker. Without a path, /announce is appended.",
)
@click.option(
    "-l",
    "--pieceLength",
    "piece_length",
    type=_PIECE_LENGTH,
    metavar="PIECE_LENGTH",
    help="Bytes of a piece, any number. [default: chosen by the size of the file]",
)
@_verbosity_option("--verbose")
def create_mtorr(file: str, tracker: str, piece_length: int | None, verbosity: int) -> None:
    """Make FILE.mtorrent beside FILE (a directory will do as well); an older one is replaced.

    Everybody needs it to download FILE. It is valid BitTorrent metainfo, so other clients take it, too. The
    content is read once. Nothing is printed unless -v asks for it.

    \b
    Example:
      MicroTorr createMtorr freeware -t http://tracker.example.org:8888
    """
    from mtorrctl.voice import Voice

    voice = Voice(verbosity)
    recipe = Recipe(trackers=parse_trackers((complete_tracker(tracker),)), piece_length=piece_length)
    made = create(file, None, recipe)
    for path, reason in made.skipped:
        voice.say("CRITICAL", f"left out {path}: {reason}")
    facts = made.facts
    voice.say("VERBOSE", f"{made.path} is made")
    voice.say(
        "INFORMATION",
        f"{facts['size_bytes']} bytes in {facts['piece_count']} pieces of {facts['piece_length']}",
    )
    voice.say("INFORMATION", f"id hash {facts['id_hash']}, info hash {facts['info_hash']}")


@program.command("loadMtorr", short_help="Show what a .mtorrent says.")
@click.argument("file", metavar="FILE.mtorrent", type=click.Path())
@_verbosity_option("--verbosity")
def load_mtorr(file: str, verbosity: int) -> None:
    """Show what a .mtorrent says: tracker, name, length, pieces, and the identity of its swarm.

    The files of the original MicroTorr and any .torrent load as well. `Sha1sum` is that of the first piece.
    With -v 1 more is said.
    """
    from mtorrctl.voice import Voice

    found = parse_named(read_metainfo(file), file)
    voice = Voice(verbosity)
    voice.tell(*_described(found))
    if voice.hears("VERBOSE"):
        voice.tell(*_described_more(found))


def _described(found: Metainfo) -> list[str]:
    """The lines of the original, as it spells them."""
    trackers = [url for tier in found.trackers for url in tier]
    return [
        f"Tracker Link: {trackers[0] if trackers else '(none)'}",
        f"File Name: {found.name}",
        f"File Length: {found.length}",
        f"Piece Length: {found.piece_length}",
        f"Sha1sum (first 20 bytes): {found.pieces[:20].hex() or '(no pieces)'}",
        f"Id Hash:{'(none)' if found.id_hash is None else found.id_hash.hex()}",
    ]


def _described_more(found: Metainfo) -> list[str]:
    further = [url for tier in found.trackers for url in tier][1:]
    return [
        f"Info Hash: {found.info_hash.hex()}",
        f"Pieces: {found.piece_count}",
        f"Dialect: {found.dialect}",
        *(f"Further Tracker: {url}" for url in further),
        *(f"File: {'/'.join(entry.path)} ({entry.length} bytes)" for entry in found.files),
    ]


@program.command("tracker", short_help="Serve a tracker, where peers find each other.")
@click.option(
    "-b",
    "--bind",
    default=DEFAULT_BIND,
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen; port 0 takes a free one, IPv6 goes in brackets.",
)
@_verbosity_option("--verbosity")
def tracker(bind: str, verbosity: int) -> None:
    """Serve a tracker until interrupted: peers of any swarm find each other here, at /announce.

    It knows the requests of MicroTorr and those of BitTorrent clients, these over UDP, too. With -v 1 each
    announce is shown, with -v 2 also who asked and what came of it. All it knows is gone when it ends; peers
    announce again to the next one by themselves.
    """
    from mtorrctl.foreground import serve_tracker
    from mtorrctl.voice import Voice

    serve_tracker(bind, Voice(verbosity))


@program.command("download", short_help="Download what a .mtorrent is about, or seed it.")
@click.argument("file", metavar="FILE.mtorrent", type=click.Path())
@click.option(
    "-i", "--interface", default="", metavar="INTERFACE", help="Speak to peers through this interface only."
)
@click.option(
    "-p",
    "--port",
    type=_PORT,
    default=7777,
    show_default=True,
    metavar="PORT",
    help="The port where other peers reach us; 0 takes a free one.",
)
@click.option(
    "-s",
    "--seed",
    "seed_file",
    type=click.Path(),
    metavar="SEED_FILE",
    help="Check that this is what the .mtorrent is about, and seed it until interrupted.",
)
@click.option(
    "-a", "--auto-seed", is_flag=True, help="When it is whole, go on and seed it until interrupted."
)
@click.option(
    "--waitSeeders",
    "wait_seeders",
    type=_COUNT,
    default=1,
    show_default=True,
    metavar="N",
    help="Begin when so many seeders are there.",
)
@click.option(
    "--waitLeechers",
    "wait_leechers",
    type=_COUNT,
    default=0,
    show_default=True,
    metavar="N",
    help="Begin when so many leechers are there, ourselves included.",
)
@click.option(
    "-d",
    "--max-down-speed",
    "down",
    type=_SPEED,
    default=0,
    metavar="KB/s",
    help="Download no faster than this, over all connections; 0 or -1 is no limit.",
)
@click.option(
    "-u",
    "--max-up-speed",
    "up",
    type=_SPEED,
    default=0,
    metavar="KB/s",
    help="Upload no faster than this, over all connections; 0 or -1 is no limit.",
)
@_verbosity_option("--verbose")
def download(
    file: str,
    *,
    interface: str,
    port: int,
    seed_file: str | None,
    auto_seed: bool,
    wait_seeders: int,
    wait_leechers: int,
    down: int,
    up: int,
    verbosity: int,
) -> None:
    """Download what FILE.mtorrent is about into the current directory, and serve others meanwhile.

    Each piece is checked before it is kept, and the whole in the end; then the figures are printed: the
    average speed, and who gave how much. What is there already is checked and not fetched again, so a
    download that was interrupted with Ctrl-C goes on when the same command is given again.

    It runs a daemon of its own, which ends with it and leaves nothing but the file.

    \b
    Examples:
      MicroTorr download freeware.mtorrent -p 1111 --waitLeechers 2
      MicroTorr download freeware.mtorrent -p 3333 -s freeware -u 3000 -v 2
    """
    from mtorrctl import foreground
    from mtorrctl.voice import Voice

    voice = Voice(verbosity)
    if seed_file is not None and wait_leechers:
        voice.say("CRITICAL", "--waitLeechers means nothing to a seeder")
    plan = foreground.Plan(
        metainfo=foreground.read_checked(file),
        save_to=foreground.current_directory(),
        seed_path=None if seed_file is None else foreground.existing(seed_file),
        port=port,
        interface=interface,
        keeps_seeding=auto_seed or seed_file is not None,
        wait_seeders=wait_seeders,
        wait_leechers=wait_leechers,
        down=max(down, 0) * KB,
        up=max(up, 0) * KB,
    )
    foreground.download(plan, voice)


@program.command("completion", short_help="The script that completes words in your shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets your shell complete commands, options and names of files.

    \b
    bash:  MicroTorr completion bash > ~/.local/share/bash-completion/completions/MicroTorr
    zsh:   MicroTorr completion zsh > "${fpath[1]}/_MicroTorr"
    fish:  MicroTorr completion fish > ~/.config/fish/completions/MicroTorr.fish
    """
    from mtorrctl.completion import script

    click.echo(script(program, "MicroTorr", "_MICROTORR_COMPLETE", shell))


def complete_tracker(url: str) -> str:
    """The URL with the path that the original's client appends by itself, where it has none."""
    scheme, mark, rest = url.partition("://")
    host = rest.rstrip("/")
    if scheme.lower() in ("http", "https") and mark and host and not set("/?#") & set(host):
        return f"{scheme}://{host}/announce"
    return url


if __name__ == "__main__":
    sys.exit(main())
