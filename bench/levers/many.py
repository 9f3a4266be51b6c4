"""Levers for thousands of torrents: at rest, at the start, in lists."""

from __future__ import annotations

from typing import Any

from bench.levers.swaps import Lever, Swap, around, without_cache


def never_settled(self: Any) -> bool:
    """Every torrent gets a core when it is loaded …"""
    return False


def never_resting(self: Any, core: Any) -> bool:
    """… and keeps it."""
    return False


def nothing_packed(packed: bytes, raw: bytes, name: str) -> Any:
    """The metainfo has to be read."""
    return None


def never_as_left(self: Any, glance: Any) -> bool:
    """It is decided by the rules."""
    return False


def all_at_once(names: Any) -> list[str]:
    """They are there: they are imported before anything begins."""
    from microtorrd import libraries

    libraries.warm_up(lambda: None)
    return []


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
            Swap("microtorrd.life:Life._may_begin_at_rest", never_settled),
            Swap("microtorrd.life:Life._may_rest", never_resting),
        ),
        ("many.memory", "many.start-cpu"),
    ),
    Lever(
        "shared-values",
        "what torrents have in common is kept once",
        (
            Swap("microtorrd.disk.records:intern", itself),
            Swap("microtorrd.gist:_same", make=without_cache),
            Swap("microtorrd.gist:_read_short", make=without_cache),
            Swap("microtorrd.core.tiers:intern", itself),
            Swap("microtorrd.core.tiers:_same", make=without_cache),
        ),
        ("many.memory",),
    ),
    Lever(
        "together",
        "250 torrents of a directory are looked at together",
        (Swap("microtorrd.loading:TOGETHER", 1),),
        ("many.start-cpu", "many.start-time"),
    ),
    Lever(
        "in-turn",
        "one batch is looked at after the other, as long as that is quick",
        (Swap("microtorrd.loading:PATIENCE_S", 0.0),),
        ("many.start-cpu", "many.start-time"),
    ),
    Lever(
        "gists",
        "what a start needs of the metainfo is packed into the record",
        (Swap("microtorrd.gist:unpack", nothing_packed),),
        ("many.start-cpu", "many.start-time"),
    ),
    Lever(
        "as-left",
        "whole content whose files look as they did is trusted without a decision",
        (Swap("microtorrd.content:Content.is_as_left", never_as_left),),
        ("many.start-cpu", "many.start-time"),
    ),
    Lever(
        "late-libraries",
        "structlog, TLS and the HTTP library are imported when all torrents stand",
        (Swap("microtorrd.libraries:missing", all_at_once),),
        ("many.start-time",),
    ),
    Lever(
        "late-announces",
        "the trackers are told when all torrents stand",
        (Swap("microtorrd.loading:SILENCE_S", 0.0),),
        ("many.start-time",),
    ),
    Lever(
        "no-collections",
        "Python looks for reference cycles after a start, and never among what it loaded",
        (
            Swap("microtorrd.__main__:postpone_collections", not_postponed),
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
