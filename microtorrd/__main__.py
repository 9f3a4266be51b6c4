"""The program `microtorrd`. Its first act makes the standard library wait politely, for all that follows."""

from __future__ import annotations

import signal
import sys

# Until the daemon listens to signals there is nothing to be ended: Ctrl-C makes no traceback of an import.
# Not where another program, which has gevent already, has us in it.
if "gevent" not in sys.modules and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from gevent import events, monkey

# No plugins of gevent's: it looks for them in all that is installed, a score of times, which takes 50 ms.
events.notify_and_call_entry_points = events.notify
if not monkey.is_module_patched("socket"):  # else by a program that has us in it
    monkey.patch_all(ssl=False)  # that one with its import: `libraries.py`

import argparse
import gc
from collections.abc import Sequence

import gevent

from microtorrd import __version__, config, libraries
from microtorrd.config import Config
from microtorrd.errors import ConfigError
from microtorrd.invocation import FAILED, MISCONFIGURED, OK, Invocation

DESCRIPTION = "A daemon that shares files peer to peer. It stays in the foreground; mtorrctl talks to it."

EPILOG = """\
SIGTERM and SIGINT stop it within seconds, a second one at once; SIGHUP reloads the configuration.
exit codes: 0 stopped, 1 failed, 2 usage, 75 another daemon holds the state directory, 78 bad configuration
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; the exit code."""
    options = parser().parse_args(arguments)
    if options.config == "":
        parser().error("argument --config: the path is empty")
    overrides = list(options.set)
    if options.log_level is not None:
        overrides.append(f"daemon.log_level={options.log_level}")
    if options.log_format is not None:
        overrides.append(f"daemon.log_format={options.log_format}")
    invocation = Invocation(options.config, tuple(overrides))
    try:
        settings = invocation.load()
    except ConfigError as error:
        print(f"microtorrd: {error}", file=sys.stderr)
        return MISCONFIGURED
    if options.check_config:
        return check(settings, invocation)
    lacking = libraries.missing((*libraries.LATER, *of_the_tracker(settings)))
    if lacking:
        print(f"microtorrd: not installed: {', '.join(lacking)}", file=sys.stderr)
        return FAILED
    postpone_collections()
    # Where each greenlet was started, kept for as long as it lives, is memory that nobody reads.
    gevent.config.track_greenlet_tree = False
    try:
        from microtorrd.daemon import Daemon  # all the rooms: not for --help and --check-config

        return Daemon(settings, invocation).run()
    except ImportError as error:  # installed, and broken: some of it is imported only when all stand
        print(f"microtorrd: a library is of no use: {error}", file=sys.stderr)
        return FAILED


def check(settings: Config, invocation: Invocation) -> int:
    """Say whether the settings, which are right, name lists that are right, too; the exit code."""
    if settings.tracker.enabled:
        from microtorrd.tracker.lists import read_lists

        try:
            read_lists(settings.tracker)
        except ConfigError as error:
            print(f"microtorrd: {error}", file=sys.stderr)
            return MISCONFIGURED
    file = invocation.config_file()
    print(f"{file}: ok" if file else "ok (no configuration file: defaults)")
    return OK


def of_the_tracker(settings: Config) -> list[str]:
    """The libraries that only a tracker needs."""
    needed = {"flask": settings.tracker.enabled, "redis": settings.tracker.store != "memory"}
    return [name for name, is_needed in needed.items() if settings.tracker.enabled and is_needed]


def postpone_collections() -> None:
    """Let Python look for reference cycles only when all torrents stand (`cycles.resume_collections`).

    Nothing of what a start makes goes. While thousands of torrents come in, all that is there would be gone
    through again and again; each time the hub stands still.
    """
    gc.disable()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="microtorrd",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # else a new option could change what an old script means
    )
    parser.add_argument("--config", metavar="FILE", help="read this file instead of the usual one")
    parser.add_argument(
        "--check-config", action="store_true", help="say whether the configuration is right, and end"
    )
    parser.add_argument("--log-level", choices=config.RECORDS["daemon.log_level"].choices)
    parser.add_argument("--log-format", choices=config.RECORDS["daemon.log_format"].choices)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="one setting, outweighing file and environment; may be repeated",
    )
    parser.add_argument("--version", action="version", version=f"microtorrd {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
