"""What the control socket needs from the rest of the daemon, stated as protocols.

The session and the daemon obey these; nothing else of them is known here. Every method answers at once, from
state, or starts work and says so: none waits for a disk, a tracker or a peer. What the caller did wrong is
raised as `CallerError`. Dictionaries are plain and ready for JSON; `results.py` says what is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct

from microtorrd.proto.selection import Priority
from microtorrd.terms import Terms

Note = dict[str, Any]
Row = dict[str, Any]


class Subscription(Protocol):
    """A bounded queue of notes. Over the bound the oldest is lost and counted."""

    #: Which notes are put into the queue; None: all.
    wanted: Callable[[Note], bool] | None

    @property
    def lost(self) -> int:
        """How many notes this reader has lost so far."""

    @property
    def closed(self) -> bool:
        """Whether no more notes will come; queued ones can still be read."""

    def get(self, timeout: float | None = None) -> Note | None:
        """The next note; None when `timeout` seconds passed, or when it is closed and empty."""

    def close(self) -> None:
        """Give the subscription back."""


class SessionApi(Protocol):
    """All torrents of the daemon. An `id` is a name, a prefix of an id (4 hex digits or more) or `all`."""

    def add(self, metainfo: bytes, terms: Terms) -> Row: ...

    def add_magnet(self, link: str, terms: Terms) -> Row: ...

    def magnet(self, id: str) -> str: ...

    def list(self, ids: Sequence[str] | None = None) -> Sequence[Row]: ...

    def list_changes(self, since: str) -> dict[str, Any]: ...

    def show(self, id: str) -> dict[str, Any]: ...

    def pause(self, id: str) -> dict[str, Any]: ...

    def resume(self, id: str) -> dict[str, Any]: ...

    def seed(self, id: str, super_seed: bool | None) -> dict[str, Any]: ...

    def verify(self, id: str) -> dict[str, Any]: ...

    def remove(self, id: str, data: bool) -> dict[str, Any]: ...

    def move(self, id: str, save_to: str) -> dict[str, Any]: ...

    def select(self, id: str, files: Sequence[str], priority: Priority) -> dict[str, Any]: ...

    def order(self, id: str, sequential: bool) -> dict[str, Any]: ...

    def reannounce(self, id: str) -> dict[str, Any]: ...

    def set_limit(self, id: str | None, down: int | None, up: int | None) -> dict[str, Any]: ...

    def limits(self) -> dict[str, Any]: ...

    def peers(self, id: str) -> Sequence[dict[str, Any]]: ...

    def files(self, id: str) -> Sequence[dict[str, Any]]: ...

    def trackers(self, id: str) -> Sequence[dict[str, Any]]: ...

    def stats(self) -> dict[str, Any]: ...

    def subscribe(self) -> Subscription: ...


class DaemonApi(Protocol):
    """The process."""

    def version(self) -> dict[str, Any]: ...

    def reload(self) -> object: ...

    def shutdown(self) -> object: ...


class Services(Struct, frozen=True):
    """What the methods work on."""

    session: SessionApi
    daemon: DaemonApi


#: Takes over a subscription and sends the notes that the filter lets through to the caller.
Attach = Callable[[Subscription, Callable[[Note], bool]], None]


class Caller(Struct, frozen=True):
    """Who calls, as the kernel says (SO_PEERCRED), and how to stream notes to it."""

    pid: int
    uid: int
    gid: int
    attach: Attach
