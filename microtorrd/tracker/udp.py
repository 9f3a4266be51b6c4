"""The tracker's UDP server: datagrams in and out, in the loop's own callback.

There is no greenlet to a datagram, unless its answer waits for a store that lies elsewhere: one that comes is
answered before the next is looked at, and nothing waits. Whatever comes, the loop is held up for `TURN_S` and
one datagram at a time; then everybody else has a turn, and the rest waits in the socket's buffer, where what
is too much is lost. A reply that the socket does not take at once is lost, too: its client asks again, as
with every datagram.
"""

from __future__ import annotations

import socket as constants
import struct
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import gevent

from microtorrd import logs
from microtorrd.greenlets import Crew
from microtorrd.tracker.counters import Counters
from microtorrd.tracker.listening import IP_PKTINFO

#: From a datagram and the numeric host that it came from to the datagram that answers it; None: silence.
Answer = Callable[[bytes, str], bytes | None]

#: How long the loop is held up in one go: some thirty announces. Short, because a flood takes such a turn for
#: each round of all the others; long enough that the rounds themselves cost little.
TURN_S = 0.0005

#: Longer than any request: a scrape of 74 torrents has 1,496 bytes. What is longer is cut.
_RECEIVE_BYTES = 2048

#: Datagrams whose answers wait at a time; what comes beyond that, and would wait, is lost.
MOST_WAITING = 256

_AT_ONCE = constants.MSG_DONTWAIT
_READABLE = 1  # to libev

#: What comes with a datagram, and goes with its answer: interface and address, as IPv4 and IPv6 have them.
_PKTINFO4 = struct.Struct("=i4s4s")
_PKTINFO6 = struct.Struct("=16si")
_ANCILLARY_BYTES = constants.CMSG_SPACE(_PKTINFO6.size)

_Ancillary = tuple[int, int, bytes]


class UdpServer:
    """Answers the datagrams of one socket, and counts them. `clock` tells the time that a turn takes. With
    `waits_in` answers to those that `waits` picks wait for somebody (a store that lies elsewhere), and each
    has a greenlet of that crew."""

    def __init__(
        self,
        answer: Answer,
        *,
        clock: Callable[[], float] = time.perf_counter,
        counters: Counters | None = None,
        waits: Callable[[bytes], bool] = lambda _: True,
        waits_in: Crew | None = None,
    ) -> None:
        self._answer = answer
        self._clock = clock
        self._counters = counters or Counters()
        self._waits = waits
        self._waits_in = waits_in
        self._waiting = 0
        self._log = logs.get(room="tracker")
        self._datagrams: Any = None
        self._door: Any = None  # its watcher

    def start(self, datagrams: Any) -> None:
        """Serve on this socket (`tracker.listening`), which is ours from now on."""
        self._datagrams = datagrams
        self._door = gevent.get_hub().loop.io(datagrams.fileno(), _READABLE)
        self._door.start(self.take_turn)

    def close(self) -> None:
        """Answer no more. Idempotent."""
        if self._datagrams is not None:
            self._door.stop()
            self._door.close()
            self._datagrams.close()
            self._datagrams = None

    def take_turn(self) -> int:
        """Answer what has come, for `TURN_S` at most; how many datagrams that were."""
        count = 0
        ends_at = self._clock() + TURN_S
        while True:
            try:
                datagram, ancillary, _, address = self._datagrams.recvmsg(
                    _RECEIVE_BYTES, _ANCILLARY_BYTES, _AT_ONCE
                )
            except BlockingIOError:
                return count
            except OSError as error:
                self._log.debug("datagram_not_received", error=str(error))
                return count
            count += 1
            self._counters.datagrams += 1
            if self._waits_in is None or not self._waits(datagram):
                self._reply(datagram, ancillary, address)
            elif self._waiting < MOST_WAITING:
                self._waiting += 1
                self._waits_in.spawn("datagram", self._reply_later, datagram, ancillary, address)
            if self._clock() >= ends_at:
                return count

    def _reply_later(self, datagram: bytes, ancillary: list[_Ancillary], address: Any) -> None:
        try:
            self._reply(datagram, ancillary, address)
        finally:
            self._waiting -= 1

    def _reply(self, datagram: bytes, ancillary: list[_Ancillary], address: Any) -> None:
        answer = self._answer(datagram, address[0])
        if answer is not None and self._datagrams is not None:
            self._send(answer, ancillary, address)

    def _send(self, answer: bytes, ancillary: list[_Ancillary], address: Any) -> None:
        try:
            if ancillary:
                self._datagrams.sendmsg((answer,), (_from_there(ancillary[0]),), _AT_ONCE, address)
            else:
                self._datagrams.sendto(answer, _AT_ONCE, address)
        except OSError as error:  # a full buffer, a firewall of ours, or a sender that nothing can be sent to
            self._log.debug("datagram_not_sent", host=address[0], error=str(error))


@lru_cache(maxsize=64)  # one for each address of this machine
def _from_there(ancillary: _Ancillary) -> _Ancillary:
    """By which way a datagram came, turned round: from the address that it was sent to, by whatever interface
    leads back."""
    level, kind, data = ancillary
    if level == constants.IPPROTO_IP:
        _, local, _ = _PKTINFO4.unpack(data)
        return level, IP_PKTINFO, _PKTINFO4.pack(0, local, bytes(4))
    to, _ = _PKTINFO6.unpack(data)
    return level, kind, _PKTINFO6.pack(to, 0)
