"""Giving the metadata to peers that came by a magnet link (BEP 9): which requests are met, and how many.

Rules:
- the metadata of a private torrent is not given away, as with other clients: who is to have it has the file;
- a peer may take `COPIES` of it and `SPARE_PIECES`, and beyond that `PIECES_PER_S`: more is refused aloud;
- the bytes are not here: the host has them loaded for a `GiveMetadata`.
"""

from __future__ import annotations

from microtorrd.core.events import GiveMetadata
from microtorrd.core.peer import Peer
from microtorrd.core.swarm import Swarm
from microtorrd.proto import metadata
from microtorrd.proto.messages import Extended
from microtorrd.proto.metadata import MetadataReject, MetadataRequest

#: An honest peer takes one copy, and perhaps another one when somebody else gave it a wrong piece.
COPIES = 3
SPARE_PIECES = 64
PIECES_PER_S = 4


class Handout:
    """The metadata of one torrent, for those who ask. `size` is 0 where there is none to give."""

    __slots__ = ("_count", "_swarm", "size")

    def __init__(self, swarm: Swarm, size: int) -> None:
        self.size = size
        self._swarm = swarm
        self._count = metadata.piece_count(size)

    def hear(self, peer: Peer, payload: bytes, now: float) -> None:
        """A message of `ut_metadata`. ProtocolError where it is none."""
        said = metadata.decode_metadata(payload)
        if not isinstance(said, MetadataRequest) or not peer.metadata_number:
            self._swarm.hear_noise(peer)
        elif said.piece < self._count and self._may_have_more(peer, now):
            self._swarm.orders.append(GiveMetadata(peer.number, peer.metadata_number, said.piece))
        else:
            self._swarm.hear_noise(peer)
            refusal = metadata.encode_metadata(MetadataReject(said.piece))
            self._swarm.tell(peer, Extended(peer.metadata_number, refusal))

    def _may_have_more(self, peer: Peer, now: float) -> bool:
        allowed = COPIES * self._count + SPARE_PIECES + int((now - peer.joined_at) * PIECES_PER_S)
        if peer.metadata_given >= allowed:
            return False
        peer.metadata_given += 1
        return True
