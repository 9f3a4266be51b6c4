"""How the client ends: its exit codes, and which error means which.

Errors of the house carry a message for people; here they get their code. Nothing ends with a traceback that a
user, a daemon or a disk can cause.
"""

from __future__ import annotations

from collections.abc import Sequence

from microtorrd.errors import InvalidParams, MicrotorrError, NotFound

DONE = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3  # no daemon answers
NOT_FOUND = 4  # no such torrent
SOME_FAILED = 5  # some of several
TIMEOUT = 124  # a --wait ran out of time; as timeout(1)
INTERRUPTED = 130  # Ctrl-C; as a shell reports SIGINT
PIPE_CLOSED = 141  # who read our output has gone; as a shell reports SIGPIPE


class Failure(MicrotorrError):
    """The operation failed; `hint` says what can be done about it."""

    code = FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class WrongUsage(Failure):
    """What was typed makes no sense, though each word of it does."""

    code = USAGE


class Unreachable(Failure):
    """No daemon answers."""

    code = UNREACHABLE


class OutOfTime(Failure):
    """A wait ran out of time."""

    code = TIMEOUT


def code_of(error: MicrotorrError) -> int:
    """The exit code that this error ends the program with."""
    if isinstance(error, Failure):
        return error.code
    if isinstance(error, InvalidParams):
        return USAGE
    return NOT_FOUND if isinstance(error, NotFound) else FAILED


def code_of_several(errors: Sequence[MicrotorrError], total: int) -> int:
    """The exit code after `total` operations of which these failed."""
    if not errors:
        return DONE
    if len(errors) < total:
        return SOME_FAILED
    codes = {code_of(error) for error in errors}
    return codes.pop() if len(codes) == 1 else FAILED
