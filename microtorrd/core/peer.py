"""One connected peer as the core knows it: flags, what it has, what we ask of it and it of us, its rates.

`Pipeline` decides how much to have asked at a time. Rule of both: plain state and arithmetic; what follows
from a change (orders, other peers' blocks) is the business of the rooms that change it.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from bitarray import bitarray

from microtorrd.core.events import Address, BlockRequest, PeerJoined, Source
from microtorrd.core.snapshot import PeerView
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.geometry import BLOCK_BYTES
from microtorrd.rate import RateMeter

if TYPE_CHECKING:
    from microtorrd.core.partial import Partial

#: Blocks asked of a peer that was never measured, and the least asked of one that is not snubbed. Few: what a
#: slow peer was asked for nobody else is asked for, and in a new swarm all are slow, with few pieces to ask
#: for. A quick one makes it twice as many from each round trip to the next.
START_BLOCKS = 4
LEAST_BLOCKS = 4

#: The same for a web seed, whose answers come one after the other.
WEB_SEED_START_BLOCKS = 16

#: A pipeline holds what the peer sends in this time (and in one round trip): deep enough that it never runs
#: dry, shallow enough that the choice of pieces stays late when the peer is slow.
AHEAD_S = 1.0

#: A peer that serves larger blocks than the usual ones is asked for these while it sends this fast: then they
#: are worth while, and the largest takes 8 ms. Slower ones stay with small blocks, so that limits, cancels
#: and the end game stay as fine as ever.
LARGE_BLOCKS_RATE = 16e6

#: A round that is under way tells something after this time.
IMPRESSION_S = 0.25

#: Shorter times than this say nothing: what one read of a socket brings was sent before. A round that follows
#: another one lasts as long at least: it does not hold the time in which its first blocks were under way, and
#: what came in a burst would pass for the rate of the line.
SHORTEST_ROUND_S = 0.001

#: Requests that a peer takes at a time as long as it does not say (`reqq`, BEP 10): what most clients allow.
DEFAULT_REQQ = 250

#: The same for the original, which takes more in at once than is good for it, and sends whole pieces: this
#: was tried with it, and in larger pieces it is one or two.
ORIGINAL_REQQ = 16

#: While asked, a peer that sends nothing for this long (or for as long as four of its blocks take) is
#: stalled: its blocks are no longer counted on when the end is near.
STALL_S = 1.5


class Pipeline:
    """How many blocks to have asked of one peer at a time, by how fast it answers. A large block counts as
    many of the usual size.

    Time is cut into rounds: what is asked at the beginning of a round has come at its end, and how long that
    took is the measure. From round to round the depth follows rate x (`AHEAD_S` + latency), at most doubling
    or halving: a slow start that begins with `START_BLOCKS`.
    """

    __slots__ = (
        "_round_at",
        "_round_bytes",
        "_round_ends",
        "_round_got",
        "depth",
        "latency_s",
        "limit",
        "out",
        "rate",
    )

    def __init__(self, limit: int, start: int = START_BLOCKS) -> None:
        self.limit = limit  # blocks at most
        self.depth = min(start, limit)
        self.out = 0  # blocks asked and not received
        self.rate = 0.0  # measured bytes per second; 0.0: never measured
        self.latency_s = 0.0
        self._round_at = 0.0
        self._round_bytes = 0
        self._round_ends = 0.0  # not before this time
        self._round_got = 0

    def asked(self, blocks: int, now: float) -> None:
        """So many blocks more are asked."""
        if not self.out:
            self._begin_round(now, blocks, least_s=0.0)
        self.out += blocks

    def received(self, blocks: int, size: int, now: float) -> None:
        """So many of the asked blocks are here."""
        self.out -= blocks
        if not self._round_got and now > self._round_at:
            waited = now - self._round_at
            self.latency_s = min(self.latency_s, waited) if self.latency_s else waited
        self._round_got += size
        if self._round_got >= self._round_bytes and now >= self._round_ends:
            self._end_round(now)
        elif not self.out and not self.rate:  # too little was asked for a measure; a first impression, though
            self.rate = self._round_got / max(now - self._round_at, SHORTEST_ROUND_S)

    def lost(self, blocks: int) -> None:
        """So many of the asked blocks will not come."""
        self.out -= blocks

    def pace(self, now: float) -> float:
        """The rate to reckon with, 0.0 unknown: the measured one, or less when this round drags on."""
        if not self.out or now - self._round_at < IMPRESSION_S:
            return self.rate
        pace = (self._round_got + BLOCK_BYTES) / (now - self._round_at)
        return min(pace, self.rate) if self.rate else pace

    def shrink(self) -> None:
        """The peer is snubbed: ask one block at a time until it has proven itself again."""
        self.depth = 1
        self.rate = 0.0

    def cut(self) -> None:
        """The peer would not take a request: no more at a time than it has now."""
        self.depth = min(self.depth, max(self.out, LEAST_BLOCKS))

    def set_limit(self, limit: int) -> None:
        """The peer says how many requests it takes."""
        self.limit = max(1, limit)
        self.depth = min(self.depth, self.limit)

    def _begin_round(self, now: float, blocks: int, *, least_s: float) -> None:
        self._round_at = now
        self._round_ends = now + least_s
        self._round_bytes = max(blocks, self.depth // 2, 1) * BLOCK_BYTES
        self._round_got = 0

    def _end_round(self, now: float) -> None:
        rate = self._round_got / max(now - self._round_at, SHORTEST_ROUND_S)
        self.rate = rate if not self.rate else (self.rate + rate) / 2
        wanted = int(self.rate * (AHEAD_S + min(self.latency_s, AHEAD_S))) // BLOCK_BYTES + 1
        depth = max(self.depth // 2, min(wanted, self.depth * 2))
        self.depth = min(max(depth, LEAST_BLOCKS), self.limit)
        self._begin_round(now, self.out, least_s=SHORTEST_ROUND_S)


class Peer:
    """One connection whose handshake is done."""

    __slots__ = (
        "_down_marks",
        "_up_marks",
        "address",
        "allowed",
        "am_choking",
        "am_interested",
        "choked_at",
        "client",
        "condemned",
        "current",
        "down",
        "elsewhere",
        "extended",
        "fast",
        "fast_given",
        "fetched_at",
        "handed",
        "handing",
        "have",
        "heard_at",
        "hinted_at",
        "hints",
        "host",
        "incoming",
        "is_kin",
        "is_seed",
        "is_told",
        "joined_as_seed",
        "joined_at",
        "known",
        "largest_block",
        "metadata_given",
        "metadata_number",
        "noise",
        "number",
        "offered",
        "offered_at",
        "offers",
        "optimistic",
        "partials",
        "peer_choking",
        "peer_id",
        "peer_interested",
        "pipeline",
        "queue",
        "queue_bytes",
        "refused",
        "served_at",
        "shown",
        "snubbed",
        "source",
        "suggested",
        "told_of",
        "unchoked_at",
        "up",
        "upload_only",
        "web_seed",
        "whole_pieces",
    )

    def __init__(self, fact: PeerJoined, *, pipeline_blocks: int, now: float) -> None:
        self.number = fact.peer
        self.host = fact.host or (fact.address[0] if fact.address else "")
        self.address: Address | None = fact.address
        self.peer_id = fact.peer_id
        self.incoming = fact.incoming
        self.fast = fact.fast
        self.extended = fact.extended
        self.whole_pieces = fact.whole_pieces
        self.web_seed = fact.web_seed  # its URL; "" for everybody else
        self.joined_at = now
        self.heard_at = now  # anything at all
        self.condemned: str | None = None  # it is about to be dropped, and why
        self.noise = 0  # messages that changed nothing, lately

        self.known = False  # it has said what it has, or anything else that must come after that
        self.have: Bitfield | None = None  # None: nothing
        self.is_seed = False
        self.joined_as_seed = False
        self.is_kin = False  # another microtorrd, says its extended handshake
        self.client = ""
        # How we came to know it; a web seed is named in the metainfo.
        self.source: Source = "operator" if fact.web_seed else "incoming"
        self.upload_only = False  # it says that it wants nothing more (BEP 21)
        self.elsewhere: Address | None = None  # where it listens in the other family, says it itself
        self.metadata_number = 0  # of its messages about metadata; 0: it knows none
        self.metadata_given = 0  # pieces of metadata that it was given
        self.offers = 0  # pieces we need and it has; not kept for those that have everything

        self.am_choking = True
        self.am_interested = False
        self.peer_choking = True
        self.peer_interested = False
        self.optimistic = False
        self.snubbed = False
        self.unchoked_at = 0.0  # when we last unchoked it, 0.0 never
        self.choked_at = now  # when we last choked it, or it joined

        # What we ask of it.
        reqq, start = DEFAULT_REQQ, START_BLOCKS
        if fact.whole_pieces:
            reqq = start = ORIGINAL_REQQ
        elif fact.web_seed:
            start = WEB_SEED_START_BLOCKS
        self.pipeline = Pipeline(min(pipeline_blocks, reqq), start)
        self.partials: dict[Partial, None] = {}  # pieces with blocks asked of it, oldest first
        self.largest_block = BLOCK_BYTES  # what it serves at a time, in bytes
        self.current: Partial | None = None  # the one it was last given blocks of
        self.fetched_at = 0.0  # its last block, or when it was asked again after a pause
        self.allowed: set[int] = set()  # pieces it serves us although it chokes us (BEP 6)
        self.refused: set[int] = set()  # pieces it would not serve, or served wrong
        self.hints: dict[int, None] = {}  # pieces it suggests
        self.hinted_at = 0.0
        self.handing = False  # it hands its pieces out: ask for what it suggests
        self.is_told = True  # it hears of each piece that we gain; not so a seeder that need not know
        self.told_of = 0  # such a seeder has heard of so many of `Swarm.gained`

        # What it asks of us.
        self.queue: dict[BlockRequest, None] = {}  # ordered to be served and not yet sent, oldest first
        self.queue_bytes = 0  # of all these
        self.served_at = 0.0  # when a block last left for it
        self.fast_given: frozenset[int] = frozenset()  # pieces we serve it although we choke it
        self.suggested: dict[int, None] = {}  # pieces we suggested and it has not asked for
        self.shown: bitarray | None = None  # pieces we told it of, None: all that we have (BEP 16)
        self.offered: dict[
            int, float | None
        ] = {}  # of these, what it has not passed on; since when it has it
        self.offered_at = 0.0  # when it was last shown one
        self.handed: dict[int, None] = {}  # pieces it has from nobody but us as yet, begun

        self.down = RateMeter()
        self.up = RateMeter()
        self._down_marks = self._up_marks = (0, 0)  # the totals before the last round of the choker, and now

    @property
    def gave_lately(self) -> int:
        """Bytes that it sent us since the round before the last one."""
        return self.down.total - self._down_marks[0]

    @property
    def took_lately(self) -> int:
        """Bytes that we sent it since the round before the last one."""
        return self.up.total - self._up_marks[0]

    @property
    def only_takes(self) -> bool:
        """It took, has something that we need, and never gave us any of it."""
        return self.up.total > 0 and not self.down.total and self.am_interested

    def end_round(self) -> None:
        """The choker has chosen: what follows belongs to the next round."""
        self._down_marks = (self._down_marks[1], self.down.total)
        self._up_marks = (self._up_marks[1], self.up.total)

    def has(self, piece: int) -> bool:
        """Whether the peer has this piece."""
        return self.have is not None and bool(self.have.bits[piece])

    @property
    def wants_nothing(self) -> bool:
        """It has everything, or all that it wants: nothing will ever be asked of us."""
        return self.is_seed or self.upload_only

    def would_serve(self, piece: int) -> bool:
        """Whether it has this piece and would send it to us now."""
        return (not self.peer_choking or piece in self.allowed) and self.has(piece)

    def room(self) -> int:
        """How many more blocks it may be asked for, choking aside."""
        return self.pipeline.depth - self.pipeline.out

    def block_bytes(self) -> int:
        """The size of the blocks that it is asked for now, at most."""
        return self.largest_block if self.pipeline.rate >= LARGE_BLOCKS_RATE else BLOCK_BYTES

    def is_stalled(self, now: float) -> bool:
        """Whether what is asked of it is not to be waited for."""
        if self.snubbed:
            return True
        silent_s = now - self.fetched_at
        pipeline = self.pipeline
        if silent_s <= STALL_S or not pipeline.out:
            return False
        return not pipeline.rate or silent_s > 4 * BLOCK_BYTES / pipeline.rate

    def due_s(self, now: float) -> float:
        """In how many seconds all that is asked of it should be here; inf: do not wait for it."""
        if self.is_stalled(now):
            return inf
        pipeline = self.pipeline
        pace = pipeline.pace(now) if pipeline.out else 0.0
        return pipeline.out * BLOCK_BYTES / pace if pace else 0.0

    def view(self, pieces: int, now: float) -> PeerView:
        """What people may know of it."""
        count = 0 if self.have is None else self.have.count
        return PeerView(
            peer=self.number,
            host=self.host,
            port=self.address[1] if self.address else None,
            peer_id=self.peer_id,
            incoming=self.incoming,
            progress=count / pieces if pieces else 1.0,
            is_seeder=self.is_seed,
            am_choking=self.am_choking,
            am_interested=self.am_interested,
            peer_choking=self.peer_choking,
            peer_interested=self.peer_interested,
            optimistic=self.optimistic,
            snubbed=self.snubbed,
            down_bytes=self.down.total,
            up_bytes=self.up.total,
            down_bytes_per_s=self.down.rate(now),
            up_bytes_per_s=self.up.rate(now),
            requests_out=self.pipeline.out,
            client=self.client,
            source=self.source,
            upload_only=self.upload_only,
        )
