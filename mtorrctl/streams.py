"""The standard streams at the beginning and the end of a program."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import TextIO


def prepare() -> None:
    """Streams that are closed lead nowhere; names that the locale cannot show are shown escaped."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        # Their numbers must be taken, or a socket would get one and be written to.
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)
    sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def guarded(program: str, run: Callable[[], int]) -> int:
    """Run it; the exit code. Nothing that becomes of the streams, or Ctrl-C, makes a traceback."""
    try:
        prepare()
        code = run()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        from mtorrctl.exits import INTERRUPTED

        hush(sys.stdout)
        sys.stderr.write("\n" if sys.stderr.isatty() else "")
        return INTERRUPTED
    except BrokenPipeError:
        from mtorrctl.exits import PIPE_CLOSED

        # Who read our output has seen enough. Python would complain once more while it closes the stream.
        hush(sys.stdout)
        return PIPE_CLOSED
    except OSError as error:
        from mtorrctl.exits import FAILED

        # A full disk behind our output, for one. What the commands expect to fail they explain themselves.
        hush(sys.stdout)
        sys.stderr.write(f"{program}: {error}\n")
        return FAILED


def hush(stream: TextIO) -> None:
    """Let what is still buffered go nowhere: Python would complain once more when it closes the stream."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
