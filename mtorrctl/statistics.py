"""The figures at the end of a download, in the words of the original program.

They come from the note `completed` (core/shares.py); of a download that was interrupted, from its connected
peers, as far as they tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtorrctl.render import clean

HEAD = "---------------- DOWNLOAD STATS ----------------"
FOOT = "---------------- END ----------------"

#: Letters of a peer id that tell peers apart, as many as the original shows.
SHOWN = 5

Facts = Mapping[str, Any]


def block(facts: Facts) -> list[str]:
    """The lines of the block."""
    lines = [HEAD, f"Average speed: {facts['average_bytes_per_s'] / 1e6:.3f} MB/s"]
    for name, share in _by_name(facts["shares"]).items():
        lines.append(f"Peer {name}: {_percent(share)} of pieces downloaded")
    return [*lines, f"Downloaded from Seeders: {_percent(facts['from_seeders'])}", FOOT]


def of_peers(peers: Sequence[Mapping[str, Any]], elapsed_s: float) -> dict[str, Any]:
    """Facts of a download that is not over, from rows of `torrent.peers`."""
    total = sum(peer["down_bytes"] for peer in peers)
    shares = [
        {
            "peer_id": peer["peer_id"],
            "host": peer["host"],
            "share": peer["down_bytes"] / total,
            "was_seeder": peer["is_seeder"],
        }
        for peer in sorted(peers, key=lambda peer: -peer["down_bytes"])
        if peer["down_bytes"]
    ]
    return {
        "average_bytes_per_s": total / elapsed_s if elapsed_s > 0 else 0.0,
        "shares": shares,
        "from_seeders": sum(share["share"] for share in shares if share["was_seeder"]),
    }


def peer_name(peer_id: str, host: str = "") -> str:
    """What a peer is called: letters of its id (given in hexadecimal) that another one will not have."""
    raw = bytes.fromhex(peer_id)
    if len(raw) >= 8 + SHOWN and raw[:1] == b"-" and raw[7:8] == b"-":
        raw = raw[8:]  # client and version stand before what is by chance (BEP 20)
    shown = "".join(chr(byte) if chr(byte).isascii() and chr(byte).isalnum() else "." for byte in raw[:SHOWN])
    return shown or clean(host) or "others"


def _by_name(shares: Sequence[Facts]) -> dict[str, float]:
    """Each peer's share by its name, the largest first; with its host where two have the same name."""
    names = [peer_name(share["peer_id"], share["host"]) for share in shares]
    named: dict[str, float] = {}
    for name, share in zip(names, shares, strict=True):
        told = f"{name} ({clean(share['host'])})" if names.count(name) > 1 else name
        named[told] = named.get(told, 0.0) + share["share"]
    return named


def _percent(share: float) -> str:
    return f"{share * 100:.0f}%"
