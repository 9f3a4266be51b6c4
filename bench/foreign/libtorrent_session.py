"""A libtorrent session with one torrent, as a program: ADDRESS SOURCE SAVE_TO. Ends with SIGTERM.

SOURCE is a metainfo file or a magnet link. What libtorrent reports goes to standard output.
"""

from __future__ import annotations

import signal
import sys

import libtorrent


def main(address: str, source: str, save_to: str) -> None:
    """Share until somebody ends it."""
    session = libtorrent.session(
        {
            "listen_interfaces": f"{address}:0",
            "outgoing_interfaces": address,
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            # On loopback, all peers have one address.
            "allow_multiple_connections_per_ip": True,
            "alert_mask": libtorrent.alert.category_t.all_categories
            & ~(
                libtorrent.alert.category_t.stats_notification
                | libtorrent.alert.category_t.picker_log_notification
            ),
        }
    )
    if source.startswith("magnet:"):
        params = libtorrent.parse_magnet_uri(source)
    else:
        params = libtorrent.add_torrent_params()
        params.ti = libtorrent.torrent_info(source)
    params.save_path = save_to
    params.flags &= ~(libtorrent.torrent_flags.auto_managed | libtorrent.torrent_flags.paused)
    session.add_torrent(params)
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
