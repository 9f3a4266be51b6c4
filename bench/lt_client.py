"""libtorrent (the wheel) as a process of its own, to measure beside: seeds or fetches one torrent.

    python -m bench.lt_client seed|fetch TORRENT DIRECTORY PORT [PEER_PORT]

Prints `ready PORT` when it listens (a seeder: when it has checked its files), `done` when everything is here,
and ends when its standard input does. No encryption, no uTP and no discovery; otherwise its own defaults.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import libtorrent as lt

SETTINGS = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "allow_multiple_connections_per_ip": True,
    "out_enc_policy": int(lt.enc_policy.disabled),
    "in_enc_policy": int(lt.enc_policy.disabled),
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "alert_mask": int(lt.alert.category_t.status_notification),
}


def main() -> int:
    """Run one client."""
    role, torrent, directory, port = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4]
    settings: Any = {**SETTINGS, "listen_interfaces": f"127.0.0.1:{port}"}
    session = lt.session(settings)
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(torrent)
    params.save_path = directory
    params.flags &= ~lt.torrent_flags.auto_managed
    params.flags &= ~lt.torrent_flags.paused
    if role == "fetch":  # nothing before the word is given: its tracker would find the seeder, too
        print("ready", session.listen_port(), flush=True)
        sys.stdin.readline()
    handle = session.add_torrent(params)
    if len(sys.argv) > 5:
        handle.connect_peer(("127.0.0.1", int(sys.argv[5])))
    while not handle.status().is_seeding:
        session.wait_for_alert(20)
        session.pop_alerts()
        time.sleep(0.002)
    print("done" if role == "fetch" else f"ready {session.listen_port()}", flush=True)
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
