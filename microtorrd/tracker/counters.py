"""What the tracker counts about itself: plain integers that only grow, added to where things happen.

They are attributes and dictionaries with all their keys from the start, because they stand in the way of
every announce: adding to one costs 0.1 µs, where a counter of a metrics library, with its labels and its
lock, costs ten times that. `metrics.py` writes them down for Prometheus when somebody asks.
"""

from __future__ import annotations

from microtorrd.errors import ClientError, NotAdmitted, StoreUnreachable, TrackerFull, UnknownPeer
from microtorrd.proto.announce import Dialect

#: Why a request is refused, beside the kinds of ClientError: a connection id that is none, and our own fault.
UNKNOWN_CONNECTION = "unknown_connection"
INTERNAL = "internal"

_KINDS = (
    ClientError.kind,
    NotAdmitted.kind,
    UnknownPeer.kind,
    TrackerFull.kind,
    StoreUnreachable.kind,
    UNKNOWN_CONNECTION,
    INTERNAL,
)


class Counters:
    """Of one service, whatever its servers speak."""

    __slots__ = (
        "announces",
        "datagrams",
        "failures",
        "joint_announces",
        "joint_swarms",
        "scraped_swarms",
        "scrapes",
    )

    def __init__(self) -> None:
        #: Well-formed ones, whether or not they were admitted, by dialect and event.
        self.announces: dict[Dialect, dict[str, int]] = {
            "microtorr": dict.fromkeys(("started", "alive", "completed", "stopped"), 0),
            "bittorrent": dict.fromkeys(("", "started", "completed", "stopped"), 0),
        }
        self.joint_announces = 0  # keep-alives of many swarms
        self.joint_swarms = 0  # named in them
        self.scrapes = 0
        self.scraped_swarms = 0
        self.datagrams = 0  # that came, of any kind
        #: Announces and scrapes that were refused, by dialect and kind.
        self.failures: dict[Dialect, dict[str, int]] = {
            "microtorr": dict.fromkeys(_KINDS, 0),
            "bittorrent": dict.fromkeys(_KINDS, 0),
        }

    def fail(self, dialect: Dialect, kind: str) -> None:
        """A request was refused; `kind` is that of a ClientError, or one of those above."""
        self.failures[dialect][kind] += 1
