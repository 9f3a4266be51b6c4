"""Hands the metadata of one torrent to peers that ask for it (BEP 9), at the pace at which they read.

The info dictionary is loaded from the record when somebody asks, and kept as long as somebody does; nothing
runs for a torrent whose metadata nobody wants.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from gevent.event import Event

from microtorrd import logs
from microtorrd.content import Content
from microtorrd.core.events import GiveMetadata
from microtorrd.errors import NotFound, StorageError
from microtorrd.greenlets import Crew
from microtorrd.proto import metadata
from microtorrd.proto.messages import Extended
from microtorrd.proto.metadata import MetadataData, MetadataReject

#: How long the info dictionary is kept after the last piece of it was given.
KEEP_S = 20.0

#: A peer that has so much unsent gets no more until it has read; and how often that is looked at.
UNSENT_MAX_BYTES = 256 << 10
LOOK_S = 0.05

_log = logs.get(room="giving")


class Receiver(Protocol):
    """A peer wire, as far as it matters here."""

    @property
    def closed(self) -> bool:
        """Nothing can be sent any more."""

    @property
    def unsent_bytes(self) -> int:
        """What waits to be sent."""

    def tell(self, messages: list[Extended]) -> None:
        """Send these."""


class MetadataGiver:
    """The metadata of one torrent, and who waits for pieces of it."""

    def __init__(self, content: Content, crew: Crew) -> None:
        self._content = content
        self._crew = crew
        self._waiting: dict[Receiver, deque[GiveMetadata]] = {}
        self._wake = Event()
        self._running = False

    def give(self, receiver: Receiver, order: GiveMetadata) -> None:
        """Have this piece sent, soon."""
        self._waiting.setdefault(receiver, deque()).append(order)
        self._wake.set()
        if not self._running and not self._crew.stopped:
            self._running = True
            self._crew.spawn("metadata", self._run)

    def _run(self) -> None:
        try:
            try:
                raw = self._content.raw_info()
            except (StorageError, NotFound) as error:
                _log.warning("metadata_not_loaded", reason=str(error))
                raw = b""
            while True:
                self._wake.clear()
                self._serve(raw)
                # Somebody who does not read is looked at again soon; nobody at all for a while: done.
                if not self._wake.wait(LOOK_S if self._waiting else KEEP_S) and not self._waiting:
                    return
        finally:
            self._running = False

    def _serve(self, raw: bytes) -> None:
        """Give to each what it has room for."""
        for receiver, orders in list(self._waiting.items()):
            while orders and not receiver.closed and receiver.unsent_bytes < UNSENT_MAX_BYTES:
                receiver.tell([_answer(orders.popleft(), raw)])
            if not orders or receiver.closed:
                del self._waiting[receiver]


def _answer(order: GiveMetadata, raw: bytes) -> Extended:
    start = order.piece * metadata.PIECE_BYTES
    piece = raw[start : start + metadata.PIECE_BYTES]
    message = MetadataData(order.piece, len(raw), piece) if piece else MetadataReject(order.piece)
    return Extended(order.number, metadata.encode_metadata(message))
