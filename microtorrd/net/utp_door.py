"""The door for those who knock over UDP, at the port where we listen: it sends them to TCP (`proto/utp.py`).

Nothing depends on it: where its sockets cannot be opened, such peers come a few seconds later, or not at all.
What it answers is bounded, and never more than it was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from gevent import socket

from microtorrd import logs
from microtorrd.greenlets import Crew, breathe
from microtorrd.proto.utp import decline
from microtorrd.rate import Allowance

#: Answers a second; and after how many datagrams others have a turn.
ANSWERS_PER_S = 500
AT_A_TIME = 16

#: More than the first packet of anybody has.
DATAGRAM_MAX = 2048

_log = logs.get(room="utp")


class UtpDoor:
    """One UDP socket for each address that is listened on."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._sockets: list[socket.socket] = []
        self._budget = Allowance(ANSWERS_PER_S, ANSWERS_PER_S, monotonic())
        self._closed = False

    def open(self, places: Sequence[tuple[str, int]]) -> None:
        """Begin to answer at these numeric addresses and ports."""
        for host, port in places:
            try:
                sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
            except OSError as error:
                _log.debug("utp_not_declined", host=host, port=port, reason=str(error))
                continue
            try:
                if ":" in host:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((host, port))
            except OSError as error:
                sock.close()
                _log.debug("utp_not_declined", host=host, port=port, reason=str(error))
                continue
            self._sockets.append(sock)
            self._crew.spawn(f"utp {host}", self._answer, sock)

    def close(self) -> None:
        """Answer no more."""
        self._closed = True
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    def _answer(self, sock: socket.socket) -> None:
        count = 0
        while not self._closed:
            count += 1
            if count % AT_A_TIME == 0:  # while datagrams wait, `recvfrom` does not
                breathe()
            try:
                datagram, source = sock.recvfrom(DATAGRAM_MAX)
                answer = decline(datagram)
                if answer is not None and self._budget.take(monotonic()):
                    sock.sendto(answer, source)
            except OSError:  # of an earlier answer, or because it was closed
                continue
