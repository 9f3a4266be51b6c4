"""Where `mtorrctl` begins and ends: every error has its line and its exit code here, and none a traceback.

Nothing heavy is imported before the first try, so that Ctrl-C is clean from the first moment.
"""

from __future__ import annotations

import os
import sys

from mtorrctl import streams

FAILED = 1
INTERRUPTED = 130
PIPE_CLOSED = 141


def main() -> int:
    """Run the program; its exit code."""
    streams.prepare()
    try:
        code = _run()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        streams.hush(sys.stdout)
        sys.stderr.write("\n" if sys.stderr.isatty() else "")
        return INTERRUPTED
    except BrokenPipeError:
        # Who read our output has seen enough. Python would complain once more while it closes the stream.
        streams.hush(sys.stdout)
        return PIPE_CLOSED
    except OSError as error:
        # A full disk behind our output, for one. What the commands expect to fail they explain themselves.
        streams.hush(sys.stdout)
        sys.stderr.write(f"mtorrctl: {error}\n")
        return FAILED


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
