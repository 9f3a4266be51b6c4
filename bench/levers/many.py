"""Levers for thousands of torrents: at rest, at the start, in lists."""

from __future__ import annotations

from typing import Any

from bench.levers.swaps import Lever, Swap, around, without_cache


def never_settled(self: Any, trusted: Any) -> bool:
    """Every torrent gets a core when it is loaded …"""
    return False


def never_resting(self: Any, core: Any) -> bool:
    """… and keeps it."""
    return False


def not_postponed() -> None:
    """The collector does as it does."""


def not_resumed() -> None:
    """And nothing is kept out of its sight."""


def itself(string: str, /) -> str:
    """The string, as it was made."""
    return string


class Awake:
    """A torrent at rest, as who does not look for that sees it."""

    def __init__(self, torrent: Any) -> None:
        self._torrent = torrent

    def __getattr__(self, name: str) -> Any:
        return None if name == "rest" else getattr(self._torrent, name)


def row_like_any(torrent: Any, rest: Any) -> Any:
    """The row of a torrent at rest is made as that of any other."""
    from microtorrd import rows

    return rows.list_row(Awake(torrent))


def always_compared(original: Any, changes: Any, member: Any, seen: Any) -> Any:
    """Its row is made and compared, though nothing can have changed."""
    seen.rest = None
    return original(changes, member, seen)


LEVERS = (
    Lever(
        "rest",
        "a torrent that has everything and talks to nobody has no core",
        (
            Swap("microtorrd.life:Life._is_settled", never_settled),
            Swap("microtorrd.life:Life._may_rest", never_resting),
        ),
        ("many.memory", "many.start-cpu"),
    ),
    Lever(
        "shared-values",
        "what torrents have in common is kept once",
        (
            Swap("microtorrd.disk.state:intern", itself),
            Swap("microtorrd.on_record:intern", itself),
            Swap("microtorrd.on_record:_same", make=without_cache),
            Swap("microtorrd.core.tiers:intern", itself),
            Swap("microtorrd.core.tiers:_same", make=without_cache),
        ),
        ("many.memory",),
    ),
    Lever(
        "together",
        "32 torrents of a directory are loaded at a time",
        (Swap("microtorrd.loading:TOGETHER", 1),),
        ("many.start-cpu", "many.start-time"),
    ),
    Lever(
        "no-collections",
        "Python looks for reference cycles after a start, and never among what it loaded",
        (
            Swap("microtorrd.daemon:postpone_collections", not_postponed),
            Swap("microtorrd.daemon:resume_collections", not_resumed),
        ),
        ("many.stall", "many.start-cpu"),
    ),
    Lever(
        "rows-at-rest",
        "the row of a torrent at rest is made a shorter way",
        (Swap("microtorrd.rows:_row_at_rest", row_like_any),),
        ("many.list-cpu",),
    ),
    Lever(
        "unchanged-rows",
        "a torrent at rest that is as it was is not compared for `since`",
        (Swap("microtorrd.changes:Changes._compare", make=around(always_compared)),),
        ("many.since",),
    ),
)
