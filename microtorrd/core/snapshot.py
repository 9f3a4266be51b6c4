"""What everybody outside reads of a core: frozen values, made when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field

from microtorrd.core.events import Source
from microtorrd.errors import StorageError

if TYPE_CHECKING:
    from microtorrd.core.core import Core

#: The states a torrent shows to people.
State = Literal["stopped", "checking", "resolving", "waiting", "downloading", "seeding", "failed"]


class PeerView(Struct, frozen=True):
    """What people may know of one connection."""

    peer: int
    host: str
    port: int | None  # where it listens, if known
    peer_id: bytes
    incoming: bool
    progress: float  # 0 to 1
    is_seeder: bool
    am_choking: bool
    am_interested: bool
    peer_choking: bool
    peer_interested: bool
    optimistic: bool
    snubbed: bool
    down_bytes: int  # payload this session
    up_bytes: int
    down_bytes_per_s: float
    up_bytes_per_s: float
    requests_out: int  # blocks of 16 KiB asked and not received
    client: str = ""  # what it calls itself in the extended handshake, "" when it did not say
    source: Source = "incoming"  # how we came to know it
    upload_only: bool = False  # it wants nothing more, though it may not have everything (BEP 21)


class Snapshot(Struct, frozen=True):
    """The frozen picture of a torrent's core that everybody outside reads."""

    state: State
    failure: StorageError | None
    have_count: int
    done_bytes: int  # of the wanted pieces
    wanted_bytes: int  # all of them; the size of the content where everything is wanted
    have_bytes: int  # of all pieces, wanted or not
    down_bytes: int  # payload this run of the daemon
    up_bytes: int
    wasted_bytes: int
    corrupt_pieces: int
    down_bytes_per_s: float
    up_bytes_per_s: float
    seeders: int  # connected peers that have everything
    leechers: int
    checked_pieces: int = 0  # while checking: how many are done
    to_check: int = 0
    peers: tuple[PeerView, ...] = field(default=())


def snapshot_of(core: Core, now: float, *, with_peers: bool) -> Snapshot:
    """The picture of this moment."""
    swarm, have, geometry = core.swarm, core.have, core.swarm.geometry
    state, failure = core.state_shown()
    wishes = swarm.wishes
    have_bytes = wishes.weigh(have.bits)
    return Snapshot(
        state=state,
        failure=failure,
        have_count=have.count,
        done_bytes=have_bytes if wishes.bits is None else wishes.done_bytes(have.bits),
        wanted_bytes=wishes.size,
        have_bytes=have_bytes,
        down_bytes=swarm.down.total,
        up_bytes=swarm.up.total,
        wasted_bytes=swarm.wasted_bytes,
        corrupt_pieces=swarm.corrupt_pieces,
        down_bytes_per_s=swarm.down.rate(now),
        up_bytes_per_s=swarm.up.rate(now),
        seeders=swarm.seeder_count,
        leechers=len(swarm.peers) - swarm.availability.seeds,
        checked_pieces=core.checking.checked,
        to_check=core.checking.total,
        peers=tuple(peer.view(geometry.piece_count, now) for peer in swarm.peers.values())
        if with_peers
        else (),
    )
