"""One peer's connection after the handshake, in any dialect: a reader and a writer greenlet, and their end.

What the bytes mean is known to the two that build on this: `peerwire.py` and `gob_peerwire.py`.

Facts are posted in the order of the stream, one batch a socket read; the last fact of a connection, exactly
once and whoever ended it, is `PeerLeft`, and from then on no slot is written to. Orders never wait.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

import gevent
from gevent.event import Event

from microtorrd.core.events import (
    BlocksReceived,
    Fact,
    MessagesReceived,
    PeerLeft,
    RequestsReceived,
    StorageFailed,
)
from microtorrd.core.slots import Slot
from microtorrd.disk.pool import PoolClosed
from microtorrd.errors import ProtocolError, StorageError
from microtorrd.greenlets import Crew
from microtorrd.net.outgoing import Outgoing
from microtorrd.net.stream import Stream
from microtorrd.proto.received import Blocks, Messages, Requests
from microtorrd.rate import MAX_NAP_S, Limiter

#: After reading this much without waiting, others get a turn: about a millisecond's worth.
TURN_BYTES = 1 << 20

#: The most that is read at once under a limit; the limiter usually says less.
LIMITED_READ_BYTES = 1 << 18

#: Why connections end that did nothing wrong.
GONE = "the other side closed the connection"
STOPPED = "the torrent stops"


class Receiving(Protocol):
    """The receiving side of a dialect."""

    @property
    def expecting(self) -> int:
        """How many blocks are expected, without the one that is arriving."""
        ...

    def close(self) -> None:
        """From now on nothing is written to any slot."""
        ...


class Connection(ABC):
    """What the wires of all dialects have in common."""

    __slots__ = (
        "_crew",
        "_down",
        "_ended",
        "_post",
        "_running",
        "_sender",
        "_stream",
        "_wire",
        "closed",
        "peer",
    )

    _wire: Receiving
    _sender: Outgoing

    def __init__(
        self,
        stream: Stream,
        *,
        peer: int,
        post: Callable[[Sequence[Fact]], None],
        crew: Crew,
        down: Limiter,
    ) -> None:
        self.peer = peer
        self.closed = False
        self._stream = stream
        self._crew = crew
        self._post = post
        self._down = down
        self._ended = Event()
        self._running = 0

    def start(self) -> None:
        """Begin to read and write."""
        self._running = 1  # ourselves, until both are on their way
        try:
            for name, work in (("read", self._read), ("write", self._sender.run)):
                greenlet = self._crew.spawn(f"peer {self.peer} {name}", self._work, work)
                self._running += 1
                # Not at the end of `_work`: a greenlet that is killed before its first turn never gets there.
                greenlet.rawlink(self._left)
        finally:
            self._running -= 1
            if self._running < 2:  # the crew was stopped
                self._left()

    # ---- orders

    @property
    def unsent_bytes(self) -> int:
        """How much of what we tell the peer waits for its socket."""
        return self._sender.unsent_bytes

    @property
    def outstanding(self) -> int:
        """How many blocks we wait for, without the one that is arriving."""
        return self._wire.expecting

    def drop(self, reason: str, *, fault: bool = False) -> None:
        """Close the connection; where that is the peer's own `fault`, without another word."""
        self._end(reason, fault=fault)

    # ---- the reader greenlet

    @abstractmethod
    def _read(self) -> None:
        """Read until the end."""

    def _deliver(self, groups: Sequence[Blocks[Slot] | Requests | Messages]) -> int:
        """Post what was read; how many blocks and messages it was."""
        peer = self.peer
        facts: list[Fact] = []
        count = 0
        for group in groups:
            if isinstance(group, Blocks):
                facts.append(BlocksReceived(peer, group.slots, group.wasted_bytes, group.wasted_blocks))
                count += len(group.slots) + group.wasted_blocks
            elif isinstance(group, Messages):
                facts.append(MessagesReceived(peer, group.messages))
                count += len(group.messages)
            else:
                facts.append(RequestsReceived(peer, group.requests))
                count += len(group.requests)
        self._post(facts)
        return count

    def _wait_for_limits(self, n: int) -> None:
        """`n` bytes have come: book them, and read no more before they are paid for."""
        wait_s = self._down.take(n, monotonic())
        while wait_s > 0 and not self._ended.wait(min(wait_s, MAX_NAP_S)):
            wait_s = self._down.remaining(monotonic())

    # ---- telling, ending

    def _tell(self, raw: bytes) -> None:
        if raw and not self.closed and not self._sender.tell(raw):
            self._end("it does not read what we send", abort=True)

    def _work(self, work: Callable[[], None]) -> None:
        """The frame of both greenlets: whatever ends one ends the connection."""
        reason, fault = "an error of our own", False
        try:
            work()
            reason = STOPPED  # only of use where `close` alone has ended the writer
        except gevent.GreenletExit:
            reason = STOPPED
        except ProtocolError as error:
            reason, fault = str(error), True
        except StorageError as error:
            reason = str(error)
            if not self.closed:
                self._post([StorageFailed(error)])
        except PoolClosed as error:
            reason = str(error)
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
        finally:
            self._end(reason, fault=fault)

    def _left(self, greenlet: object = None) -> None:
        """A greenlet has ended; the last one closes the socket, on which nobody waits any more."""
        self._end(STOPPED)
        self._running -= greenlet is not None
        if not self._running:
            self._stream.close()
            self._sender.cut_loose()

    def _end(self, reason: str, *, fault: bool = False, abort: bool = False) -> None:
        if self.closed:
            return
        self.closed = True
        self._wire.close()
        self._sender.close()
        self._stream.end(abort=abort or fault)
        self._ended.set()
        self._post([PeerLeft(self.peer, reason, fault)])
