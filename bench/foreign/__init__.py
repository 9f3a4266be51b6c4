"""Other people's clients, each as a process that is told to join the swarm of one metainfo file.

Each runs with its own defaults as far as a test can bear: what is switched off is what would find peers other
than by the tracker (DHT, local discovery, port mapping), so that a meeting always goes through the tracker.
"""

from __future__ import annotations

from bench.foreign.aria2 import Aria2
from bench.foreign.client import Foreign
from bench.foreign.deluge import Deluge
from bench.foreign.libtorrent_wheel import Libtorrent
from bench.foreign.qbittorrent import Qbittorrent
from bench.foreign.rtorrent import Rtorrent
from bench.foreign.transmission import Transmission

ALL: tuple[type[Foreign], ...] = (Libtorrent, Aria2, Transmission, Rtorrent, Qbittorrent, Deluge)

__all__ = ["ALL", "Aria2", "Deluge", "Foreign", "Libtorrent", "Qbittorrent", "Rtorrent", "Transmission"]
