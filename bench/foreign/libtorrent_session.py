"""A libtorrent session with one torrent, as a program: ADDRESS SOURCE SAVE_TO UPLOAD_BYTES_PER_S HOW.

SOURCE is a metainfo file or a magnet link. HOW is `watched`: all that libtorrent reports goes to standard
output; `neighbourly`: it looks for its neighbours, too; or `measured`: only what an application asks for is
reported, and it speaks TCP only. Ends with SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import libtorrent

CATEGORIES = libtorrent.alert.category_t
ALL: Any = CATEGORIES.all_categories & ~(CATEGORIES.stats_notification | CATEGORIES.picker_log_notification)
HOW: dict[str, Any] = {
    "watched": {"alert_mask": ALL},
    "neighbourly": {"alert_mask": ALL, "enable_lsd": True},
    "measured": {
        "alert_mask": CATEGORIES.error_notification | CATEGORIES.status_notification,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
    },
}


def main(address: str, source: str, save_to: str, upload_bytes_per_s: str, how: str) -> None:
    """Share until somebody ends it."""
    settings: Any = {
        "listen_interfaces": f"{address}:0",
        "outgoing_interfaces": address,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        # On loopback, all peers have one address.
        "allow_multiple_connections_per_ip": True,
        **HOW[how],
    }
    session = libtorrent.session(settings)
    if source.startswith("magnet:"):
        params = libtorrent.parse_magnet_uri(source)
    else:
        params = libtorrent.add_torrent_params()
        params.ti = libtorrent.torrent_info(source)
    params.save_path = save_to
    params.flags &= ~(libtorrent.torrent_flags.auto_managed | libtorrent.torrent_flags.paused)
    # The session's own limit spares peers of private networks; that of a torrent spares nobody.
    session.add_torrent(params).set_upload_limit(int(upload_bytes_per_s))
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    while not ended:
        session.wait_for_alert(200)
        for alert in session.pop_alerts():
            print(f"{type(alert).__name__}: {alert.message()}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
