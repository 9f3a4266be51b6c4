"""Who gave how much, and how fast it went: the statistics at the end of a download.

Counts verified bytes only, per peer identity, also of peers that have left. A peer is a seeder here when it
had everything as it joined: one that completes beside us gave most of its share as a leecher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from microtorrd.core.peer import Peer

#: Peers remembered one by one; what further ones gave is summed up.
PEERS_KEPT = 1000

#: Speeds are sampled once a tick; when there are this many, every second one is forgotten and they are taken
#: half as often.
SAMPLES_KEPT = 512


class Share(Struct):
    """What one peer gave."""

    peer_id: bytes
    host: str
    was_seeder: bool
    size: int = 0  # verified bytes
    pieces: float = 0.0  # a piece of several givers counts in parts


class Shares:
    """The book of one download."""

    __slots__ = ("_others", "_sampled_at", "_samples", "_shares", "_skip", "_skipped", "size")

    def __init__(self) -> None:
        self.size = 0  # verified bytes of all
        self._shares: dict[tuple[str, bytes], Share] = {}
        self._others = Share(b"", "", False)
        self._samples: list[float] = []
        self._sampled_at: tuple[float, int] | None = None
        self._skip = 0  # ticks between two samples
        self._skipped = 0

    def credit(self, givers: dict[Peer, int], blocks: int, size: int) -> None:
        """A piece of `size` bytes in `blocks` blocks is verified; `givers` counts the blocks of each."""
        self.size += size
        for peer, count in givers.items():
            share = self._share(peer)
            share.size += size * count // blocks
            share.pieces += count / blocks

    def sample(self, down_bytes: int, *, began_at: float, now: float) -> None:
        """About a second has passed, and so many bytes came in all since it began."""
        if self._sampled_at is None:
            self._sampled_at = (began_at, 0)
        if self._skipped < self._skip:
            self._skipped += 1
            return
        before, had = self._sampled_at
        if now <= before:
            return
        self._samples.append((down_bytes - had) / (now - before))
        self._sampled_at, self._skipped = (now, down_bytes), 0
        if len(self._samples) >= SAMPLES_KEPT:
            del self._samples[::2]
            self._skip = self._skip * 2 + 1

    def summary(self, *, began_at: float | None, now: float) -> dict[str, Any]:
        """The figures as facts of the `completed` note."""
        elapsed_s = 0.0 if began_at is None else max(now - began_at, 0.0)
        average = self.size / elapsed_s if elapsed_s else 0.0
        shares = sorted(self._shares.values(), key=lambda share: -share.size)
        if self._others.size:
            shares.append(self._others)
        from_seeders = sum(share.size for share in shares if share.was_seeder)
        return {
            "elapsed_s": elapsed_s,
            "fetched_bytes": self.size,
            "average_bytes_per_s": average,
            "median_bytes_per_s": median(self._samples) if self._samples else average,
            "from_seeders": from_seeders / self.size if self.size else 0.0,
            "shares": [
                {
                    "peer_id": share.peer_id.hex(),
                    "host": share.host,
                    "bytes": share.size,
                    "pieces": round(share.pieces, 3),
                    "share": share.size / self.size if self.size else 0.0,
                    "was_seeder": share.was_seeder,
                }
                for share in shares
            ],
        }

    def _share(self, peer: Peer) -> Share:
        key = (peer.host, peer.peer_id)
        share = self._shares.get(key)
        if share is None:
            if len(self._shares) >= PEERS_KEPT:
                return self._others
            share = self._shares[key] = Share(peer.peer_id, peer.host, peer.joined_as_seed)
        return share


def median(values: Sequence[float]) -> float:
    """The middle one of these, or what lies between the two in the middle."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2
