"""How a torrent behaves: what the configuration says of all of them, and what was chosen for one."""

from __future__ import annotations

from msgspec import Struct


class SwarmSettings(Struct, frozen=True):
    """How every torrent of the daemon behaves (section `[swarm]` and `[limits]` of the configuration)."""

    random_peer_share: float = 0.1  # of the choices of a peer to fetch from, how many are by lot
    always_unchoke: bool = False  # free-for-all, for closed LANs
    upload_slots: int = 0  # regular unchoke slots a torrent, besides the optimistic one; 0: by capacity
    connections_per_torrent: int = 100
    dials_at_once: int = 16  # half-open connections a torrent
    pipeline_max_bytes: int = 8 << 20  # asked and not yet received, a peer
    request_timeout_s: float = 60.0  # nothing comes although asked: the peer is snubbed, others are asked
    idle_timeout_s: float = 240.0
    ban_after: int = 3  # corrupt pieces with this peer proven the culprit
    peer_exchange: bool = True  # BEP 11; never in a private torrent


class TorrentSettings(Struct, frozen=True):
    """Run-time choices of one torrent; they live in the state database."""

    wait_seeders: int = 0
    wait_leechers: int = 0  # counts ourselves
    sequential: bool = False
    seed_after_download: bool = True
    super_seed: bool = False  # when we have everything, show each peer a few pieces at a time (BEP 16)
