"""A connected peer of which we want nothing but the metadata: what it is, what it says that it has."""

from __future__ import annotations

from microtorrd.core import events
from microtorrd.core.exchange import allowance


class Stranger:
    """One peer of a magnet link, from the first word on."""

    __slots__ = (
        "address",
        "allowance",
        "client",
        "extended",
        "fast",
        "has_spoken",
        "heard_at",
        "host",
        "incoming",
        "joined_at",
        "noise",
        "number",
        "peer",
        "peer_id",
        "size",
    )

    def __init__(self, fact: events.PeerJoined, now: float) -> None:
        self.peer = fact.peer
        self.peer_id = fact.peer_id
        self.address = fact.address
        self.host = fact.host or (fact.address[0] if fact.address else "")
        self.incoming = fact.incoming
        self.fast = fact.fast
        self.extended = fact.extended
        self.joined_at = self.heard_at = now
        self.client = ""  # what it calls itself
        self.allowance = allowance(now)  # of peer exchange
        self.has_spoken = False  # its extended handshake has come
        self.number = 0  # of its metadata messages; 0: it has none
        self.size: int | None = None  # of the metadata, as it says
        self.noise = 0
