"""libtorrent (the wheel) as a process that knows magnet links.

    python -m tests.swarm.magnet_client seed TORRENT DIRECTORY      prints `ready PORT`
    python -m tests.swarm.magnet_client fetch LINK DIRECTORY PORT   prints `resolved INFO_HASH`, then `done`

It ends when its standard input does. `PORT` is that of a peer to connect to.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import libtorrent as lt

from bench.lt_client import SETTINGS


def main() -> int:
    """Run one client."""
    role, source, directory = sys.argv[1:4]
    mask = int(lt.alert.category_t.status_notification | lt.alert.category_t.storage_notification)
    settings: Any = {**SETTINGS, "listen_interfaces": "127.0.0.1:0", "alert_mask": mask}
    session = lt.session(settings)
    if role == "seed":
        params = lt.add_torrent_params()
        params.ti = lt.torrent_info(source)
    else:
        params = lt.parse_magnet_uri(source)
    params.save_path = directory
    params.flags &= ~lt.torrent_flags.auto_managed
    params.flags &= ~lt.torrent_flags.paused
    handle = session.add_torrent(params)
    if role == "fetch":
        handle.connect_peer(("127.0.0.1", int(sys.argv[4])))
        until(session, lambda: handle.status().has_metadata)
        print("resolved", handle.info_hash(), flush=True)
    until(session, lambda: handle.status().is_seeding)
    if role == "fetch":  # a piece counts when its hash is right; its bytes are written a little later
        handle.flush_cache()
        until_flushed(session)
    print("done" if role == "fetch" else f"ready {session.listen_port()}", flush=True)
    sys.stdin.read()
    return 0


def until(session: lt.session, wanted: Callable[[], bool]) -> None:
    """Return when it is so."""
    while not wanted():
        session.wait_for_alert(20)
        session.pop_alerts()


def until_flushed(session: lt.session) -> None:
    """Return when it says that all it had to write is written."""
    while not any(isinstance(alert, lt.cache_flushed_alert) for alert in session.pop_alerts()):
        session.wait_for_alert(1000)


if __name__ == "__main__":
    sys.exit(main())
