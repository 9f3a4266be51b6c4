"""Commands about the daemon itself, and about this program and the shell."""

from __future__ import annotations

import time

import click

from microtorrd import __version__
from mtorrctl import render
from mtorrctl.commands.common import COMPLETE_VARIABLE, json_option, open_client, socket_option, tell


@click.command(short_help="Does the daemon answer?")
@json_option
@socket_option
def ping(as_json: bool, socket: str | None) -> None:
    """Ask the daemon for a sign of life; print its version, and how long the answer took. Exit 3 without one.

    With --json it prints an object: version, latency_s, socket.
    """
    with open_client(socket) as client:
        began = time.perf_counter()
        answer = client.call("daemon.ping")
        latency_s = time.perf_counter() - began
    if as_json:
        facts = {"version": answer["version"], "latency_s": round(latency_s, 6), "socket": client.path}
        tell(render.as_json(facts))
    else:
        version = render.clean(answer["version"])
        tell(f"microtorrd {version} answers in {latency_s * 1000:.1f} ms on {render.clean(client.path)}")
    if answer["version"] != __version__:
        click.echo(f"mtorrctl: this is mtorrctl {__version__}", err=True)


@click.command(short_help="Figures of the whole daemon.")
@json_option
@socket_option
def stats(as_json: bool, socket: str | None) -> None:
    """Show figures of the whole daemon: torrents, peers, rates, totals, and the port that peers reach it at.

    With --json it prints one object.
    """
    with open_client(socket) as client:
        facts = client.call("session.stats")
    tell(render.as_json(facts) if as_json else render.facts(facts))


@click.command(short_help="Let the daemon read its configuration again.")
@socket_option
def reload(socket: str | None) -> None:
    """Let the daemon read its configuration again.

    What can change while it runs does. A configuration with a mistake changes nothing, and you are told.
    """
    with open_client(socket) as client:
        client.call("daemon.reload")
    tell("reloaded")


@click.command(short_help="Stop the daemon.")
@socket_option
def shutdown(socket: str | None) -> None:
    """Stop the daemon cleanly: trackers are told, what is verified is saved. It takes seconds.

    A daemon that systemd started is better stopped with `systemctl stop microtorrd`.
    """
    with open_client(socket) as client:
        client.call("daemon.shutdown")
    tell("stopping")


@click.command(short_help="The script that completes words in your shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets your shell complete commands, options, and names of torrents.

    \b
    bash:  mtorrctl completion bash > ~/.local/share/bash-completion/completions/mtorrctl
    zsh:   mtorrctl completion zsh > "${fpath[1]}/_mtorrctl"
    fish:  mtorrctl completion fish > ~/.config/fish/completions/mtorrctl.fish
    """
    from mtorrctl.completion import script

    tell(script(click.get_current_context().find_root().command, "mtorrctl", COMPLETE_VARIABLE, shell))
