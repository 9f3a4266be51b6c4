"""The lines between hosts: how blocks leave one and come to another.

- an uplink of so many bytes per second serves the connections that have something to send in turns, a block
  each (as sockets do, and as `Serve` orders it within a connection);
- a downlink takes one block after the other;
- the latency one way is the sum of both ends' shares, rounded up to ticks; nothing is faster than a tick;
- loss is as TCP shows it to its users: a lost block costs the uplink twice and comes two latencies later.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from bench.sim.clock import TICK_S, Clock
from bench.sim.hosts import Host, Link
from microtorrd.core import events
from microtorrd.core.events import BlockRequest, Fact
from microtorrd.core.slots import Slot


class Lines:
    """All uplinks and downlinks. `post`: have a host hear a fact in this tick or the next one."""

    def __init__(self, clock: Clock, chance: random.Random, post: Callable[[Host, Fact], None]) -> None:
        self._clock = clock
        self._chance = chance
        self._post = post
        self._sending: dict[Host, None] = {}

    def serve(self, link: Link, requests: Sequence[BlockRequest]) -> None:
        """These blocks are to leave through this end."""
        host = link.host
        link.outbox.extend(requests)
        if not link.waiting:
            link.waiting = True
            host.turn.append(link)
        if host not in self._sending:
            self._sending[host] = None
            host.credit = 0.0

    def forget(self, host: Host) -> None:
        """It is gone."""
        self._sending.pop(host, None)

    def carry(self) -> None:
        """One tick: each uplink that has something to send sends it."""
        for host in list(self._sending):
            self._send(host)

    def _send(self, host: Host) -> None:
        """What the uplink carries in one tick: a block of each connection in turn."""
        line = host.line
        turn = host.turn
        credit = host.credit + line.up * TICK_S  # what is left is less than a block: nobody saves up
        sent: dict[Link, list[BlockRequest]] = {}
        while turn:
            link = turn[0]
            if not link.outbox:  # it has sent all, or was closed
                link.waiting = False
                turn.popleft()
                continue
            request = link.outbox[0]
            cost = request[2]
            if credit < cost:
                break
            credit -= cost
            del link.outbox[0]
            turn.rotate(-1)
            if link in sent:
                sent[link].append(request)
            else:
                sent[link] = [request]
        host.credit = credit
        for link, requests in sent.items():
            self._put_on_the_way(host, link, requests)
        if not turn:
            del self._sending[host]

    def _put_on_the_way(self, host: Host, link: Link, requests: list[BlockRequest]) -> None:
        size = sum(request[2] for request in requests)
        host.sent_bytes += size
        if host.copies is not None:
            for piece, _, _ in requests:
                host.copies[piece] += 1
        self._post(host, events.BlocksSent(link.number, len(requests), size))
        loss = 1 - (1 - host.line.loss) * (1 - link.far.host.line.loss)
        if loss:
            lost = [request for request in requests if self._chance.random() < loss]
            if lost:
                host.credit -= sum(request[2] for request in lost)
                self._to_downlink(link.far, lost, link.latency * 3)
                requests = [request for request in requests if request not in lost]
        if requests:
            self._to_downlink(link.far, requests, link.latency)

    def _to_downlink(self, link: Link, requests: list[BlockRequest], latency: int) -> None:
        """Here the blocks come after the latency, when those before them are through."""
        host, clock = link.host, self._clock
        ready = max((clock.tick + latency) * TICK_S, host.down_free_at)
        ready += sum(request[2] for request in requests) / host.line.down
        host.down_free_at = ready
        # Half a tick early is as good as half a tick late: on the average the rate is right.
        clock.in_ticks(max(latency, round(ready / TICK_S) - clock.tick), self._receive, link, requests)

    def _receive(self, link: Link, requests: list[BlockRequest]) -> None:
        if not link.open:
            return
        slots: list[Slot] = []
        wasted_bytes = wasted_blocks = 0
        for request in requests:
            slot = link.lent.pop(request, None)
            if slot is None or slot.filled_by is not None:
                wasted_bytes += request[2]
                wasted_blocks += 1
            else:
                slot.filled_by = link.number
                slots.append(slot)
        host = link.host
        host.received_bytes += sum(request[2] for request in requests)
        self._post(host, events.BlocksReceived(link.number, slots, wasted_bytes, wasted_blocks))
