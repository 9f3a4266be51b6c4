"""Where `mtorrctl` begins and ends: every error has its line and its exit code here, and none a traceback.

Nothing heavy is imported before the first try (`streams.guarded`), so that Ctrl-C is clean from the first
moment.
"""

from __future__ import annotations

import os
import sys

from mtorrctl import streams


def main() -> int:
    """Run the program; its exit code."""
    return streams.guarded("mtorrctl", _run)


def _run() -> int:
    import click

    from microtorrd.errors import MicrotorrError
    from mtorrctl import exits
    from mtorrctl.cli import main as program
    from mtorrctl.commands.common import COMPLETE_VARIABLE, print_error

    if asked := os.environ.get(COMPLETE_VARIABLE):
        from click.shell_completion import shell_complete

        return shell_complete(program, {}, "mtorrctl", COMPLETE_VARIABLE, asked)
    try:
        # Not `program.main`: it has ideas of its own about Ctrl-C and closed pipes.
        with program.make_context("mtorrctl", sys.argv[1:]) as context:
            program.invoke(context)
        return exits.DONE
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # since click 8.2
            click.echo(error.format_message(), err=True)
            return exits.USAGE
        hint = f"{error.ctx.command_path} --help tells more" if error.ctx is not None else ""
        print_error(error.format_message(), hint)
        return exits.USAGE
    except click.ClickException as error:
        print_error(error.format_message())
        return exits.FAILED
    except MicrotorrError as error:
        print_error(str(error), getattr(error, "hint", ""))
        return exits.code_of(error)


if __name__ == "__main__":
    sys.exit(main())
