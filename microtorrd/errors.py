"""Every error of the house, sorted by whose fault it is, because that decides what happens next.

`except Exception` stands only where work of others is run (the layers test lists these places); everywhere
else one of these is caught, or nothing is. None of them ever needs a traceback: each message names the thing.
"""

from __future__ import annotations

import errno as errno_codes
import os
from typing import Any, ClassVar, Literal


class MicrotorrError(Exception):
    """The root of all errors that have a known cause."""


class Stopping(MicrotorrError):
    """Nobody's: the daemon stops, and a greenlet that hears this has nothing more to do."""


class ConfigError(MicrotorrError):
    """Ours, at start: a setting is unknown, of the wrong type or out of range. No start (exit 78)."""

    def __init__(
        self, message: str, *, key: str | None = None, file: str | None = None, line: int | None = None
    ) -> None:
        self.key, self.file, self.line = key, file, line
        where = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(where + message)


class CallerError(MicrotorrError):
    """The operator's: goes back in the reply, with a JSON-RPC `code` and the facts as `data`."""

    code = -32000

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.data = data


class InvalidParams(CallerError):
    """A parameter is missing, unknown, of the wrong type or out of range."""

    code = -32602


class NotFound(CallerError):
    """No torrent has this id, or several do."""

    code = 1004


class Duplicate(CallerError):
    """The torrent is already here."""

    code = 1009


class InvalidMetainfo(CallerError):
    """The metainfo is damaged, hostile or of a kind we do not take; `data["key"]` names the key at fault."""

    code = 1022


class NotAllowed(CallerError):
    """The call is understood but not possible in this state, or not permitted."""

    code = 1003


class Busy(CallerError):
    """A bound is reached (torrents, subscribers, queued checks); trying again later can help."""

    code = 1029


class ProtocolError(MicrotorrError):
    """A remote peer's: it broke the protocol and is dropped, with one debug line."""


class ClientError(MicrotorrError):
    """A client of our tracker's: the message is its `failure reason`; `parameter` is the one at fault.

    `retry_in` is when it may ask again, in minutes or `never` (BEP 31); None: that is for the client to say.
    `kind` sorts them for those who count.
    """

    kind: ClassVar[str] = "bad_request"

    def __init__(
        self, message: str, *, parameter: str | None = None, retry_in: int | Literal["never"] | None = None
    ) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.retry_in = retry_in


class NotAdmitted(ClientError):
    """It asks for a swarm that the tracker does not serve, or lacks a passkey."""

    kind = "not_admitted"


class UnknownPeer(ClientError):
    """It says that it is still here, and the tracker does not know it (any more)."""

    kind = "unknown_peer"


class TrackerFull(ClientError):
    """It found no room for another swarm."""

    kind = "full"


class StoreUnreachable(ClientError):
    """Not the client's: our tracker cannot reach its store. But all that can be done is to be told so."""

    kind = "store_unreachable"

    def __init__(self) -> None:
        super().__init__("the tracker cannot reach its store at the moment", retry_in=1)


class TrackerError(MicrotorrError):
    """A remote tracker's: it is down, slow, wrong or says no. We back off. `retry_s` is its own wish."""

    def __init__(self, message: str, *, retry_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class TrackerUnreachable(TrackerError):
    """Nothing came back from a remote tracker: no name, no route, no connection, no answer in time."""


class DialectRefused(TrackerError):
    """A remote tracker answered, but not in the dialect that it was spoken to: it does not know it."""


class PeerForgotten(TrackerError):
    """A remote tracker does not know us (any more): it was restarted, or we were silent for too long.

    The cure is to announce `started` again.
    """


class WebSeedError(MicrotorrError):
    """A web seed's: it is down, slow, says no, or sends something else than the file. It is left alone then.

    `rest_s` is for how long at least: its own wish, or what the kind of fault deserves.
    """

    def __init__(self, message: str, *, rest_s: float = 0.0) -> None:
        super().__init__(message)
        self.rest_s = rest_s


class StorageError(MicrotorrError):
    """Our disk's: the torrent concerned is parked in a failed state named by `cause`.

    `cause` is one of `no_space`, `not_found`, `not_permitted`, `read_only`, `missing_root` (the directory or
    its mount is gone), `changed` (a file is not what we left), `mismatch` (data that was brought along is
    not the torrent's), `id_hash_mismatch`, `corrupt` (the state database is damaged), `io_error`.
    """

    CAUSES: ClassVar[dict[int, str]] = {
        errno_codes.ENOSPC: "no_space",
        errno_codes.EDQUOT: "no_space",
        errno_codes.EFBIG: "no_space",
        errno_codes.ENOENT: "not_found",
        errno_codes.ENOTDIR: "not_found",
        errno_codes.EACCES: "not_permitted",
        errno_codes.EPERM: "not_permitted",
        errno_codes.EROFS: "read_only",
    }

    def __init__(self, message: str, *, path: str, cause: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.path, self.cause, self.errno = path, cause, errno

    @classmethod
    def from_os(cls, error: OSError, path: str) -> StorageError:
        """Name the cause behind an OSError that happened at `path`."""
        number = error.errno or 0
        cause = cls.CAUSES.get(number, "io_error")
        reason = os.strerror(number) if number else str(error)
        return cls(f"{path}: {reason}", path=path, cause=cause, errno=number or None)
