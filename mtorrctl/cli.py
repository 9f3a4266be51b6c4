"""The program `mtorrctl`: its commands by name, each imported only when it is used.

Importing all commands at once would cost a third of the time that a `ping` takes.
"""

from __future__ import annotations

import importlib

import click

from microtorrd import __version__
from mtorrctl.commands.common import PATH, Globals

#: The families of commands as `--help` shows them: command, and where it is.
FAMILIES: dict[str, dict[str, str]] = {
    "Share and fetch": {
        "create": "making:create",
        "show": "making:show",
        "add": "adding:add",
        "seed": "seeding:seed",
    },
    "Look at torrents": {
        "list": "torrents:list_torrents",
        "inspect": "torrents:inspect",
        "peers": "torrents:peers",
        "files": "torrents:files",
        "trackers": "torrents:trackers",
        "magnet": "torrents:magnet",
        "watch": "watching:watch",
        "events": "watching:events",
    },
    "Change torrents": {
        "pause": "changes:pause",
        "resume": "changes:resume",
        "verify": "changes:verify",
        "reannounce": "changes:reannounce",
        "order": "changes:order",
        "limit": "changes:limit",
        "move": "changes:move",
        "remove": "changes:remove",
    },
    "Without a daemon, in the foreground": {
        "download": "foreground:download",
        "tracker": "foreground:tracker",
    },
    "The daemon": {
        "ping": "process:ping",
        "stats": "process:stats",
        "reload": "process:reload",
        "shutdown": "process:shutdown",
        "completion": "process:completion",
    },
}

COMMANDS = {name: place for family in FAMILIES.values() for name, place in family.items()}


class Commands(click.Group):
    """The commands, found by name when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the families."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(importlib.import_module(f"mtorrctl.commands.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but a slip of the finger is answered with the nearest name."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]}?" if near else " mtorrctl --help lists the commands."
            ctx.fail(f"There is no command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The families, one after the other."""
        for family, members in FAMILIES.items():
            with formatter.section(family):
                rows = []
                for name in members:
                    command = self.get_command(ctx, name)
                    assert command is not None, "each name of the table is a command"
                    rows.append((name, command.get_short_help_str(limit=80)))
                formatter.write_dl(rows)


@click.command(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--socket", metavar="PATH", type=PATH, help="The control socket of the daemon to ask.")
@click.version_option(__version__, "-V", "--version", prog_name="mtorrctl", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context, socket: str | None) -> None:
    """Control microtorrd, the daemon that shares files peer to peer.

    \b
    Share something:  mtorrctl seed PATH        prints the .mtorrent to give away
    Fetch something:  mtorrctl add FILE --wait

    An ID is the name of a torrent, four or more hexadecimal digits that an id of it begins with, or `all`.

    The daemon is asked over --socket, or MTORRCTL_SOCKET, or the socket of your own daemon, or the system's
    (/run/microtorrd/control.sock). Colours and bars appear only on a terminal; NO_COLOR is honoured.

    \b
    Exit codes:  0 done, 1 failed, 2 wrong usage, 3 no daemon answers, 4 no such torrent,
                 5 some of several failed, 124 a --wait ran out of time, 130 interrupted
    """
    context.obj = Globals(socket)
