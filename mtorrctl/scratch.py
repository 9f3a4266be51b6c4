"""A directory for one run, gone with it.

It is locked by whoever works there; the lock belongs to an open descriptor that children inherit, so it holds
as long as one of them lives. A run that was killed cannot clean up: its directory, which nobody locks any
more, is removed by the next run of the same user. Only directories with our mark in them are ever removed,
and the mark goes last, so that one whose removal was cut short is still known for what it is.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress

from mtorrctl.exits import Failure

PREFIX = "microtorr-run-"

#: Set after the lock is held: a directory with the mark and without a lock is a dead run's.
MARK = "private-daemon-of-a-foreground-run"

#: Room for the name of a socket below it: `sun_path` of unix(7) takes 107 bytes in all.
PATH_MAX_BYTES = 90


class Scratch:
    """The directory `path`. `descriptor` holds the lock, and is for children to inherit."""

    def __init__(self) -> None:
        """Make it; raises Failure where there is no place for it."""
        base = _base()
        sweep(base)
        try:
            self.path = tempfile.mkdtemp(prefix=PREFIX, dir=base)
            self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
            os.close(os.open(MARK, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600, dir_fd=self.descriptor))
        except OSError as error:
            raise Failure(
                f"no temporary directory can be made in {base}: {error.strerror}",
                "TMPDIR names another place",
            ) from None

    def remove(self) -> None:
        """Remove it with all that is in it. Nobody may work there any more."""
        _remove(self.path)
        os.close(self.descriptor)


def sweep(base: str) -> None:
    """Remove what runs of this user that were killed have left behind in `base`."""
    try:
        names = os.listdir(base)
    except OSError:
        return  # a directory that may be written to and not listed holds nothing that we could find
    for name in names:
        if name.startswith(PREFIX):
            _remove_if_dead(os.path.join(base, name))


def _remove_if_dead(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return  # another user's, or just removed by another run
    try:
        is_ours = os.fstat(descriptor).st_uid == os.geteuid()
        if not is_ours or not stat.S_ISREG(os.stat(MARK, dir_fd=descriptor, follow_symlinks=False).st_mode):
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # it lives, or has no mark
    else:
        _remove(path)
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    """Remove a directory with all that is in it, the mark last. What resists stays, and the mark with it."""
    with suppress(FileNotFoundError):  # somebody was quicker
        for name in os.listdir(path):
            inside = os.path.join(path, name)
            if os.path.isdir(inside) and not os.path.islink(inside):
                shutil.rmtree(inside, ignore_errors=True)
            elif name != MARK:
                with suppress(OSError):
                    os.unlink(inside)
        if os.listdir(path) in ([], [MARK]):
            shutil.rmtree(path, ignore_errors=True)


def _base() -> str:
    """Where temporary files go, unless a socket's path would not fit there."""
    longest = PATH_MAX_BYTES - len(PREFIX) - 9
    for base in (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp"):
        if base.startswith("/") and len(os.fsencode(base)) <= longest and os.access(base, os.W_OK | os.X_OK):
            return base
    raise Failure("there is no temporary directory with a path short enough for a socket", "set TMPDIR")
