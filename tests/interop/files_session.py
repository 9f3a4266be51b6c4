"""A libtorrent session in a process of its own: `TORRENT SAVE_TO PEER WANTED`.

PEER is HOST:PORT or empty; WANTED are numbers of files, separated by commas, or empty for all. Each line on
standard input is answered with a JSON object on a line of standard output; the session ends with its input.
"""

from __future__ import annotations

import json
import sys

import libtorrent as lt

torrent, save_to, peer, wanted = sys.argv[1:5]
session = lt.session(
    {
        "listen_interfaces": "127.0.0.1:0",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "alert_mask": 0,
    }
)
params = lt.add_torrent_params()
params.ti = lt.torrent_info(torrent)
params.save_path = save_to
if wanted:
    chosen = {int(number) for number in wanted.split(",")}
    params.file_priorities = [4 * (number in chosen) for number in range(params.ti.num_files())]
handle = session.add_torrent(params)
if peer:
    host, _, port = peer.rpartition(":")
    handle.connect_peer((host, int(port)))
for _ in sys.stdin:
    status = handle.status()
    answer = {
        "port": session.listen_port(),
        "state": str(status.state),
        "finished": bool(status.is_finished),
        "pieces": [int(bit) for bit in status.pieces],
        "peers": [
            {
                "client": str(peer.client),
            }
            for peer in handle.get_peer_info()
        ],
    }
    print(json.dumps(answer), flush=True)
