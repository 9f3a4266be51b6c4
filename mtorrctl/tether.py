"""A program of its own that becomes another one, after it has tied it to the life of whoever started it.

    python tether.py PARENT_PID PROGRAM ARGUMENT...

When the parent dies, however it does, the kernel sends SIGTERM to the program (PR_SET_PDEATHSIG of prctl(2)),
which ends it as cleanly as a stop by hand would. It starts without site packages and imports nothing of ours.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

#: From linux/prctl.h.
PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Become the program; the exit code where that fails or is too late."""
    parent, program = int(arguments[0]), arguments[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        sys.stderr.write(f"prctl: {os.strerror(ctypes.get_errno())}\n")
        return 1
    if os.getppid() != parent:  # it died before the kernel knew what to do then
        return 1
    try:
        os.execv(program[0], program)
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error.strerror}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
