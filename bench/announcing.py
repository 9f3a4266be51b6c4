"""A process that does nothing but announce, and prints the CPU time of one announce in µs:
`python -m bench.announcing URL DIALECT TIMES`

The same client as the daemon's, in a greenlet; connections stay open. Its first announces do not count.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import sys
import time

from microtorrd.core.tiers import place_of
from microtorrd.net.tracker_client import Question, TrackerClient
from microtorrd.proto.announce import AnnounceRequest

#: Announces before it counts: connections are made, ways are found.
WARM_UP = 50


def main() -> None:
    """Announce, and print."""
    url, dialect, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
    place = place_of(url)
    if place is None or dialect not in ("microtorr", "bittorrent"):
        sys.exit("usage: python -m bench.announcing URL microtorr|bittorrent TIMES")
    request = AnnounceRequest(
        swarm_id=b"s" * 20, peer_id=b"-MD0001-abcdefghijkl", port=7777, event="alive", left=0, numwant=50
    )
    if dialect == "bittorrent":
        question = Question(url, place, "bittorrent", request._replace(event="", no_peer_id=True, key="0123"))
    else:
        question = Question(url, place, "microtorr", request)
    client = TrackerClient()
    for _ in range(WARM_UP):
        client.announce(question)
    began = time.process_time()
    for _ in range(times):
        client.announce(question)
    print((time.process_time() - began) / times * 1e6)


if __name__ == "__main__":
    main()
