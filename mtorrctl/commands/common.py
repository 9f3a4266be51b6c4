"""What the commands share: options, kinds of arguments, and how the outcome of several operations is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from microtorrd.errors import CallerError, MicrotorrError, NotFound
from microtorrd.proto.units import parse_duration, parse_rate, parse_size
from mtorrctl import exits, render
from mtorrctl.client import Client

#: Set by the shell's script when it wants words completed.
COMPLETE_VARIABLE = "_MTORRCTL_COMPLETE"

Command = TypeVar("Command", bound=Callable[..., Any])
Item = TypeVar("Item")


if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # older releases of click have no parameter here


@dataclass(frozen=True, slots=True)
class Globals:
    """The options that stand before the command."""

    socket: str | None


class Measure(_ParamType):
    """An argument with a unit, such as `3 MB/s`."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value in bytes, bytes a second or seconds."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            return self.fail(str(error), param, ctx)


class NamedPath(_ParamType):
    """A path that is at least something: what an unset variable of a script leaves is none."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path as it was typed."""
        return value or self.fail("the path is empty", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[Any]]:
        """The shell knows best which files there are."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


PATH = NamedPath()
RATE = Measure("rate", parse_rate)
SIZE = Measure("size", parse_size)
TIME = Measure("time", parse_duration)


def open_client(socket: str | None) -> Client:
    """A connection to the daemon, by `--socket` of the command or of the program."""
    return Client.open(socket or _global_socket(click.get_current_context()))


def _global_socket(context: click.Context) -> str | None:
    found = context.find_object(Globals)
    return None if found is None else found.socket


socket_option = click.option(
    "--socket",
    metavar="PATH",
    help="The control socket of the daemon to ask.",
    type=PATH,
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")


def _complete_ids(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> Iterable[CompletionItem[Any]]:
    """Names of torrents for the shell; none when no daemon answers at once."""
    from click.shell_completion import CompletionItem

    socket = context.params.get("socket") or _global_socket(context)
    try:
        with Client.open(socket, answer_s=1.0) as client:
            rows = client.call("torrent.list", fields=["name", "state"])["torrents"]
    except MicrotorrError:
        return []
    return [
        CompletionItem(row["name"], help=row["state"])
        for row in rows
        if row["name"].startswith(incomplete) and row["name"].isprintable()
    ]


def id_argument(name: str = "id", **more: Any) -> Callable[[Command], Command]:
    """One torrent, or with nargs=-1 several."""
    metavar = {"metavar": "ID..." if more.get("nargs") == -1 else "ID"}
    return click.argument(name, shell_complete=_complete_ids, **{**metavar, **more})


#: How much a file can be wanted.
PRIORITIES = ("off", "low", "normal", "high")


def absolute(directory: str) -> str:
    """The path as the daemon needs it: absolute, from where the user stands."""
    return os.path.abspath(os.path.expanduser(directory))


def tell(text: str) -> None:
    """A line of the result."""
    click.echo(text)


def warn(text: str) -> None:
    """A line beside the result."""
    click.echo(render.paint(f"mtorrctl: {text}", "yellow", sys.stderr), err=True)


def complain(error: MicrotorrError) -> None:
    """One operation of several failed: say which and why, go on with the others."""
    print_error(str(error), getattr(error, "hint", ""))


def print_error(message: str, hint: str = "") -> None:
    """What went wrong, and below it what can be done. Safe for a terminal whatever stands in it."""
    head, *more = [render.clean(line) for line in message.split("\n")]
    mark = render.paint("mtorrctl:", "red", sys.stderr)
    click.echo(f"{mark} {head}", err=True)
    for line in [*more, *(render.clean(line) for line in hint.split("\n") if hint)]:
        click.echo(f"  {line.strip()}", err=True)


def each(
    items: Sequence[Item], work: Callable[[Item], None], *, of: int | None = None
) -> list[MicrotorrError]:
    """Do the work for each item; complain of those that fail, go on with the others, return what went wrong.

    Where there is only one (`of` so many altogether), or going on makes no sense, the error goes on as it is.
    """
    total = len(items) if of is None else of
    errors: list[MicrotorrError] = []
    for item in items:
        try:
            work(item)
        except MicrotorrError as error:
            if total == 1 or isinstance(error, exits.Unreachable | exits.OutOfTime):
                raise
            errors.append(error)
            complain(error)
    return errors


def act_on_each(
    socket: str | None,
    ids: Sequence[str],
    method: str,
    params: Mapping[str, Any],
    *,
    done: str,
    as_json: bool,
    hint: str = "",
) -> list[MicrotorrError]:
    """Make the same call for each id, tell how each came out, return what went wrong. `hint` is for ids that
    mean nothing."""
    with open_client(socket) as client:
        outcomes = client.batch([(method, {"id": id, **params}) for id in ids])
    rows: list[dict[str, Any]] = []
    errors: list[MicrotorrError] = []
    failures: list[dict[str, Any]] = []
    for id, outcome in zip(ids, outcomes, strict=True):
        if isinstance(outcome, CallerError):
            errors.append(outcome)
            failures.append({"id": id, "code": outcome.code, "message": str(outcome), "data": outcome.data})
        else:
            rows += outcome["torrents"]
    if as_json:
        tell(render.as_json({"torrents": rows, "errors": failures}))
    else:
        for row in rows:
            tell(f"{done} {render.clean(row['name'])}")
        if not rows and not errors:
            tell("there are no torrents")
    for error in errors:
        print_error(str(error), hint if isinstance(error, NotFound) else "")
    return errors


def finish(errors: Sequence[MicrotorrError] = (), total: int = 1) -> None:
    """End the command after `total` operations of which these failed."""
    click.get_current_context().exit(exits.code_of_several(errors, total))
