"""What the session lends to each of its torrents: disk, memory, limits, trackers, notes. One per session.

It holds what all torrents share and nothing of a single one; `active` is how a torrent says that it wants to
be ticked. The configuration is replaced whole when it is reloaded.
"""

from __future__ import annotations

import random
import secrets
import string
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from microtorrd import __version__
from microtorrd.config import Config
from microtorrd.core.events import MemoryFreed, MemoryWanted
from microtorrd.core.ourselves import OwnAddresses
from microtorrd.core.settings import SwarmSettings
from microtorrd.disk.buffers import BufferPool
from microtorrd.disk.descriptors import DescriptorCache
from microtorrd.disk.pool import DiskPool
from microtorrd.disk.space import FreeSpaceFloor
from microtorrd.greenlets import Crew
from microtorrd.ledger import Ledger
from microtorrd.net.announcer import Announcer, AnnounceScheduler, Identity, TrackerClient
from microtorrd.net.announcer import Listener as AnnounceListener
from microtorrd.net.dialer import Dialer
from microtorrd.net.greeting import Joined
from microtorrd.net.interfaces import interface_addresses
from microtorrd.net.listener import Listener
from microtorrd.net.peerwire import WireMemory
from microtorrd.net.routes import Routes
from microtorrd.net.web_connector import WebConnector
from microtorrd.net.web_landing import WebMemory
from microtorrd.notes import NoteBoard
from microtorrd.rate import TokenBucket

if TYPE_CHECKING:
    from microtorrd.life import Life
    from microtorrd.resolver import Resolver

#: Hosts banned for sending bad data; beyond it the oldest ban is forgotten.
BANS_MAX = 10_000

#: The name of the state database in the state directory.
DATABASE = "state.sqlite"


@dataclass(eq=False)
class Facilities:
    """The shared means of all torrents."""

    config: Config
    crew: Crew
    pool: DiskPool
    buffers: BufferPool
    descriptors: DescriptorCache
    floor: FreeSpaceFloor
    ledger: Ledger
    scheduler: AnnounceScheduler
    notes: NoteBoard
    wire_memory: WireMemory
    up: TokenBucket  # the limits of the whole daemon
    down: TokenBucket
    peer_id: bytes
    clock: Callable[[], float] = time.monotonic
    chance: random.Random = field(default_factory=random.Random)  # one for all: its state is 2.5 KiB
    key: int = field(default_factory=lambda: secrets.randbits(32))
    connections: int = 0  # open now, over all torrents, but those of web seeds
    web_connections: int = 0
    active: set[Life | Resolver] = field(default_factory=set)  # to be ticked
    starving: set[Life] = field(default_factory=set)  # waiting for piece memory
    up_of_peers: WeakSet[TokenBucket] = field(default_factory=WeakSet)  # the limits of each connection
    down_of_peers: WeakSet[TokenBucket] = field(default_factory=WeakSet)
    banned: dict[str, str] = field(default_factory=dict)  # host: reason
    ourselves: OwnAddresses = field(default_factory=OwnAddresses)  # where peers see us

    @classmethod
    def make(cls, config: Config, *, crew: Crew, clock: Callable[[], float]) -> Facilities:
        """Open the database and start the disk threads. Raises StorageError."""
        pool = DiskPool(config.storage.disk_threads)
        interface = config.listen.interface
        sources = partial(interface_addresses, interface) if interface else None
        return cls(
            config=config,
            crew=crew,
            pool=pool,
            buffers=BufferPool(config.storage.piece_memory),
            descriptors=DescriptorCache(config.storage.open_files),
            floor=FreeSpaceFloor(config.storage.min_free),
            ledger=Ledger(f"{config.daemon.state_dir}/{DATABASE}", pool=pool, crew=crew),
            scheduler=AnnounceScheduler(crew, client=TrackerClient(sources=sources)),
            notes=NoteBoard(),
            wire_memory=WireMemory(),
            up=TokenBucket(config.limits.up),
            down=TokenBucket(config.limits.down),
            peer_id=new_peer_id(),
            clock=clock,
        )

    def __post_init__(self) -> None:
        self.swarm = swarm_settings(self.config)
        self.listen_port = 0
        self._identity = Identity(self.peer_id, self.listen_port, self.key)
        interface = self.config.listen.interface
        sources = partial(interface_addresses, interface) if interface else None
        self.web_connector = WebConnector(Routes(sources))
        self.web_memory = WebMemory()
        self.scheduler.client.on_external_ip = self.ourselves.told
        self.dialer = Dialer(
            peer_id=self.peer_id,
            interface=self.config.listen.interface,
            half_open=self.config.limits.half_open,
            is_banned=self.is_banned,
        )

    # -------------------------------------------------------------------------------------- the network

    def listen(self, resolve: Callable[[bytes], Any], accept: Callable[[Joined], None]) -> Listener:
        """Open the listeners. Raises ConfigError where an address or interface cannot be used."""
        listen = self.config.listen
        listener = Listener(
            addresses=listen.addresses,
            port=listen.port,
            interface=listen.interface,
            resolve=resolve,
            accept=accept,
            peer_id=self.peer_id,
            crew=self.crew.child("listener"),
            is_banned=self.is_banned,
            gate=self.wire_memory.gate,
        )
        listener.start()
        self.listen_port = listener.port
        self._identity = Identity(self.peer_id, self.listen_port, self.key)
        return listener

    def make_announcer(
        self,
        trackers: Sequence[Sequence[str]],
        *,
        info_hash: bytes,
        id_hash: bytes | None,
        listener: AnnounceListener,
    ) -> Announcer:
        """The announcer of one torrent."""
        return Announcer(
            scheduler=self.scheduler,
            trackers=trackers,
            info_hash=info_hash,
            id_hash=id_hash,
            announce_as=self.config.swarm.announce_as,
            identity=self._identity,
            listener=listener,
        )

    def retune(self, announcer: Announcer, *, info_hash: bytes, id_hash: bytes | None) -> None:
        """Let it speak the dialects that the configuration wants now."""
        announcer.speak(info_hash=info_hash, id_hash=id_hash, announce_as=self.config.swarm.announce_as)

    def up_of_a_peer(self) -> TokenBucket:
        """The upload limit of one connection, also after a reload."""
        bucket = TokenBucket(self.config.limits.up_per_peer)
        self.up_of_peers.add(bucket)
        return bucket

    def down_of_a_peer(self) -> TokenBucket:
        """And its download limit."""
        bucket = TokenBucket(self.config.limits.down_per_peer)
        self.down_of_peers.add(bucket)
        return bucket

    def ban(self, host: str, reason: str) -> None:
        """Refuse this host from now on, until the daemon is restarted."""
        if len(self.banned) >= BANS_MAX:
            del self.banned[next(iter(self.banned))]
        self.banned[host] = reason

    def is_banned(self, host: str) -> bool:
        """Whether connections from and to this host are refused."""
        return host in self.banned

    # ------------------------------------------------------------------------------- limits and settings

    def apply(self, config: Config) -> None:
        """Adopt a reloaded configuration."""
        before, self.config = self.config.limits, config
        self.swarm = swarm_settings(config)
        self.floor.floor_bytes = config.storage.min_free
        self.dialer.half_open = config.limits.half_open
        # Limits that were set at run time stay, unless the file says something new.
        self.set_limits(
            down=config.limits.down if config.limits.down != before.down else None,
            up=config.limits.up if config.limits.up != before.up else None,
        )
        now = self.clock()
        for buckets, rate in (
            (self.up_of_peers, config.limits.up_per_peer),
            (self.down_of_peers, config.limits.down_per_peer),
        ):
            for bucket in list(buckets):
                bucket.set_rate(rate, now)

    def set_limits(self, *, down: int | None, up: int | None) -> None:
        """Change the limits of the whole daemon, bytes a second; None leaves one as it is, 0 lifts it."""
        now = self.clock()
        if down is not None:
            self.down.set_rate(down, now)
        if up is not None:
            self.up.set_rate(up, now)

    def lend(self, size: int, hungry: Life) -> memoryview | None:
        """Memory for a piece; None while there is none: the torrent is told when some has come back."""
        memory = self.buffers.lend(size)
        if memory is None:
            self.starving.add(hungry)
            # Whoever holds some without using it gives it back.
            for torrent in self.active:
                if torrent is not hungry:
                    torrent.post((MemoryWanted(),))
        return memory

    def give_back(self, memory: memoryview) -> None:
        """Memory of a piece comes back; those who wait for some may try again."""
        self.buffers.give_back(memory)
        starving, self.starving = self.starving, set()
        for torrent in starving:
            torrent.post((MemoryFreed(),))


def new_peer_id() -> bytes:
    """Ours until the daemon ends: client and version as BEP 20 has it, then chance, all of it printable."""
    version = "".join(part[:1] for part in (*__version__.split("."), "0"))[:4]
    letters = string.ascii_letters + string.digits
    return f"-MD{version:0<4}-{''.join(secrets.choice(letters) for _ in range(12))}".encode()


def swarm_settings(config: Config) -> SwarmSettings:
    """What the cores need of the configuration."""
    swarm, limits = config.swarm, config.limits
    return SwarmSettings(
        random_peer_share=swarm.random_peer_share,
        always_unchoke=swarm.always_unchoke,
        upload_slots=swarm.upload_slots,
        connections_per_torrent=limits.connections_per_torrent,
        dials_at_once=limits.half_open_per_torrent,
        pipeline_max_bytes=swarm.pipeline,
        request_timeout_s=swarm.request_timeout,
        idle_timeout_s=swarm.idle_timeout,
        ban_after=swarm.ban_after,
        peer_exchange=swarm.peer_exchange,
    )
