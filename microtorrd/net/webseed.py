"""A web seed as a peer: the wire of one connection to an HTTP server that has the whole content (BEP 19).

It has the interface of `PeerWire` and posts the same facts, so the core sees a seeder that never chokes.
Blocks that are neighbours are asked for as one range of a file, and their payload is read straight into their
slots. Padding is filled in here.

Whatever is wrong with the server ends the wire with a reason; `failure` says for how long to leave it alone.
`PeerLeft` is posted exactly once, also where the connection never stood; `PeerJoined` as soon as it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha1
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import gevent
from gevent.event import Event

from microtorrd.core.events import BlockRequest, BlocksReceived, Fact, MessagesReceived, PeerJoined, PeerLeft
from microtorrd.core.slots import Slot
from microtorrd.errors import WebSeedError
from microtorrd.greenlets import Crew
from microtorrd.net.connection import LIMITED_READ_BYTES, STOPPED, TURN_BYTES
from microtorrd.net.web_connector import WebConnector
from microtorrd.net.web_exchange import SILENCE_S, Body, WebExchange
from microtorrd.net.web_landing import Landing, WebMemory
from microtorrd.net.web_stream import why
from microtorrd.proto.extended import ExtendedHandshake
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.messages import Extended, HaveAll, Message, Unchoke
from microtorrd.proto.web_files import WebFiles, WebSpan
from microtorrd.rate import MAX_NAP_S, Limiter

#: What `mtorrctl peers` calls it.
CLIENT = "web seed"

#: The most that is asked for at once: more is worth nothing, and is in the way of what becomes urgent.
RANGE_BYTES = 8 << 20

#: Requests cost nothing before they are made: the core's own bounds hold.
QUEUE_BLOCKS = 1 << 16

#: What comes after the last block that somebody still waits for: up to this it is read and thrown away, and
#: for more the connection is closed and a new one made.
WASTE_BYTES = 1 << 18


class WebSeedWire:
    """One connection to one web seed."""

    __slots__ = (
        "_crew",
        "_down",
        "_exchange",
        "_files",
        "_geometry",
        "_greenlet",
        "_landing",
        "_memory",
        "_post",
        "_queue",
        "_wake",
        "blocks",
        "closed",
        "failure",
        "has_joined",
        "peer",
    )

    def __init__(
        self,
        *,
        peer: int,
        files: WebFiles,
        geometry: Geometry,
        post: Callable[[Sequence[Fact]], None],
        crew: Crew,
        connector: WebConnector,
        down: Limiter,
        memory: WebMemory,
    ) -> None:
        self.peer = peer
        self.closed = False
        self.has_joined = False  # the connection stood once
        self.failure: WebSeedError | None = None  # why it ended, where the server is to blame
        self.blocks = 0  # that it has brought
        self._files = files
        self._geometry = geometry
        self._post = post
        self._crew = crew
        self._down = down
        self._memory = memory
        self._exchange = WebExchange(files.url, connector, memory.scrap)
        self._queue: dict[int, Slot] = {}  # by offset in the content, in the order asked
        self._landing: Landing | None = None
        self._wake = Event()
        self._greenlet: Any = None

    @property
    def url(self) -> str:
        """The web seed."""
        return self._files.url

    def start(self) -> None:
        """Begin to connect."""
        try:
            self._greenlet = self._crew.spawn(f"web seed {self.peer}", self._work)
            # Not at the end of `_work`: a greenlet that is killed before its first turn never gets there.
            self._greenlet.rawlink(self._ended)
        finally:
            if self._greenlet is None:  # the crew was stopped
                self._end(STOPPED)

    # ---- orders

    @property
    def outstanding(self) -> int:
        """How many blocks wait to be asked for."""
        return len(self._queue)

    def fetch(self, slots: Sequence[Slot]) -> None:
        """Get these blocks; the slots are lent until filled, recalled, or the end."""
        if not self.closed:
            for slot in slots:
                self._queue[self._offset(slot)] = slot
            self._wake.set()

    def recall(self, slots: Sequence[Slot], *, cancel: bool = True) -> None:
        """Take slots back; from here on nothing is written to them."""
        for slot in slots:
            offset = self._offset(slot)
            if self._queue.get(offset) is slot:
                del self._queue[offset]
        if self._landing is not None:
            self._landing.recall(slots)

    def serve(self, requests: Sequence[BlockRequest]) -> None:
        """It asks for nothing, so there is nothing to serve."""

    def withdraw(self, requests: Sequence[BlockRequest] | None, reject: bool) -> None:
        """Nothing is ever queued to be served."""

    def tell(self, messages: Sequence[Message]) -> None:
        """A web server is not interested in what peers say."""

    def drop(self, reason: str, *, fault: bool = False) -> None:
        """End the connection. `fault`: what it sent was wrong."""
        self._end(reason, fault=fault)

    # ---- the greenlet

    def _work(self) -> None:
        reason = "an error of our own"
        try:
            self._exchange.connect()
            if not self.closed:
                self._join()
            while not self.closed:
                if self._queue:
                    self._fetch_run()
                else:
                    self._wake.clear()
                    self._wake.wait()
        except gevent.GreenletExit:
            reason = STOPPED
        except WebSeedError as error:
            reason, self.failure = str(error), error
        except OSError as error:
            reason = why(error)
            self.failure = WebSeedError(reason)
        finally:
            self._end(reason)

    def _join(self) -> None:
        """The connection stands: to the core it is a seeder that unchokes us at once."""
        self.has_joined = True
        parts = urlsplit(self.url)
        words = ExtendedHandshake(client=CLIENT, reqq=QUEUE_BLOCKS, upload_only=True)
        self._post(
            [
                PeerJoined(
                    peer=self.peer,
                    address=None,
                    peer_id=b"-WS0000-" + sha1(self.url.encode()).hexdigest()[:12].encode(),
                    incoming=False,
                    fast=True,
                    extended=True,
                    host=parts.hostname or "",
                    web_seed=self.url,
                ),
                MessagesReceived(self.peer, [Extended(0, words.encode()), HaveAll(), Unchoke()]),
            ]
        )

    def _fetch_run(self) -> None:
        """Get the first block of the queue and as many of its neighbours as there are."""
        offset, slots = self._next_run()
        self._landing = landing = Landing(self.peer, slots, self._memory)
        try:
            for span in self._files.spans(offset, landing.left):
                if not landing.is_wanted or not self._fetch_span(span, landing):
                    break
        finally:
            self._landing = None
            # Of a run that was cut short because nobody waits for the rest nothing is left but waste.
            landing.release()

    def _next_run(self) -> tuple[int, list[Slot]]:
        queue = self._queue
        first = end = next(iter(queue))
        slots: list[Slot] = []
        while end - first < RANGE_BYTES and (slot := queue.pop(end, None)) is not None:
            slots.append(slot)
            end += slot.length
        return first, slots

    def _fetch_span(self, span: WebSpan, landing: Landing) -> bool:
        """Get what lies in one file. False: nobody waits for the rest."""
        if not span.url:
            self._fill_with_zeros(landing, span.length)
            return True
        body = self._exchange.get(span)
        try:
            return self._read(body, landing, span.length)
        finally:
            self._exchange.done(body)

    def _read(self, body: Body, landing: Landing, left: int) -> bool:
        """Read the body into slots as the limits allow."""
        down, since_turn = self._down, 0
        while left:
            if left > WASTE_BYTES and not landing.is_wanted:
                return False
            limited = not down.unlimited
            most = min(left, down.chunk(LIMITED_READ_BYTES, monotonic()) if limited else left)
            n = body.read(landing.views(most))
            if not n:
                since_turn = 0
                continue
            left -= n
            self._deliver(landing, n)
            if limited:
                self._wait_for_limits(n)
                continue
            since_turn += n
            if since_turn >= TURN_BYTES and left:
                since_turn = 0
                body.stream.give_turn(SILENCE_S)
        return True

    def _fill_with_zeros(self, landing: Landing, left: int) -> None:
        while left:
            views = landing.views(left)
            for view in views:
                view[:] = bytes(len(view))
            n = sum(map(len, views))
            left -= n
            self._deliver(landing, n)

    def _deliver(self, landing: Landing, n: int) -> None:
        filled = landing.landed(n)
        wasted, landing.wasted_bytes = landing.wasted_bytes, 0
        self.blocks += len(filled)
        if (filled or wasted) and not self.closed:
            self._post([BlocksReceived(self.peer, filled, wasted)])

    def _wait_for_limits(self, n: int) -> None:
        wait_s = self._down.take(n, monotonic())
        while wait_s > 0 and not self.closed:
            # A drop ends this wait by ending the greenlet.
            gevent.sleep(min(wait_s, MAX_NAP_S))
            wait_s = self._down.remaining(monotonic())

    # ---- ending

    def _offset(self, slot: Slot) -> int:
        return self._geometry.piece_offset(slot.piece) + slot.begin

    def _end(self, reason: str, *, fault: bool = False) -> None:
        if self.closed:
            return
        self.closed = True
        self._queue.clear()
        if self._landing is not None:
            self._landing.release()
        greenlet = self._greenlet
        if greenlet is not None and greenlet is not gevent.getcurrent():
            greenlet.kill(block=False)  # whatever it waits for: a name, a connection, bytes, a limit
        self._post([PeerLeft(self.peer, reason, fault)])

    def _ended(self, greenlet: object) -> None:
        """Nobody waits on its sockets any more."""
        self._end(STOPPED)
        self._exchange.close()
