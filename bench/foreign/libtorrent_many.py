"""A libtorrent session with all torrents of a directory, as a program: TORRENTS SAVE_TO.

Each is said to be complete, as resume data would say it, so nothing is checked. Says `ready` when all seed,
and ends with SIGTERM: the session tells the trackers, for at most as long as it does by itself.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import libtorrent

LOOK_S = 0.05


def main(torrents: str, save_to: str) -> None:
    """Seed until somebody ends it."""
    settings: Any = {
        "listen_interfaces": "127.0.0.1:0",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "alert_mask": libtorrent.alert.category_t.error_notification,
    }
    session = libtorrent.session(settings)
    flags = libtorrent.torrent_flags
    count = 0
    for path in sorted(Path(torrents).glob("*.torrent")):
        params = libtorrent.add_torrent_params()
        params.ti = libtorrent.torrent_info(str(path))
        params.save_path = save_to
        params.flags = (params.flags | flags.seed_mode) & ~(flags.auto_managed | flags.paused)
        session.async_add_torrent(params)
        count += 1
    while (
        sum(handle.status(0).state == libtorrent.torrent_status.seeding for handle in handles(session))
        < count
    ):
        time.sleep(LOOK_S)
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})


def handles(session: Any) -> list[Any]:
    """The torrents that are there already."""
    found: list[Any] = session.get_torrents()
    return found


if __name__ == "__main__":
    # To be waited for, and not to be died of.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main(*sys.argv[1:])
