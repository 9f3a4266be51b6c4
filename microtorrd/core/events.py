"""The vocabulary of a torrent: facts in (past tense), orders out (imperative).

This list is the engine: new behaviour begins with a new word here. Facts are posted to a torrent's inbox in
batches and handed to `Core.handle` one by one; what the core wants done it appends to `Core.orders`, and the
torrent's host carries it out. `peer` is everywhere the small integer that the host gave the connection; it is
never used twice within a torrent. Times are seconds of a monotonic clock, handed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from microtorrd.core.settings import SwarmSettings, TorrentSettings
from microtorrd.core.slots import PieceBuffer, Slot
from microtorrd.errors import StorageError
from microtorrd.proto.messages import Message

#: Where a peer listens: a numeric IPv4 or IPv6 address and a port.
Address = tuple[str, int]

#: A block that a peer asks us for: piece, begin, length in bytes.
BlockRequest = tuple[int, int, int]

#: How we came to know an address.
Source = Literal["tracker", "incoming", "operator", "pex", "lsd", "dht", "resume"]


# ---------------------------------------------------------------------------------------------------- facts


class Started(NamedTuple):
    """The operator or the start of the daemon wants the torrent to run."""

    recheck: bool = False  # check all content first


class Stopped(NamedTuple):
    """The operator paused it, or the daemon is stopping."""


class Ticked(NamedTuple):
    """About a second has passed. Posted only to torrents that are not stopped."""


class PeerJoined(NamedTuple):
    """A handshake is done in both directions and the wire is ready for messages."""

    peer: int
    address: Address | None  # where it listens, None when unknown (an incoming one before it says so)
    peer_id: bytes  # 20 bytes, attacker-controlled
    incoming: bool
    fast: bool  # both sides speak BEP 6
    extended: bool  # both sides speak BEP 10
    host: str = ""  # numeric address of the other end, as the socket says
    web_seed: str = ""  # the URL where it is an HTTP server (BEP 19); one may have several connections
    whole_pieces: bool = False  # it runs the original: no smaller unit, no keep-alives, no word of choking


class PeerLeft(NamedTuple):
    """The connection is closed, whoever closed it. Slots it still had are free again."""

    peer: int
    reason: str  # for people
    fault: bool = False  # it broke the protocol


class MessagesReceived(NamedTuple):
    """Messages of one socket read in their order, but blocks and requests (those have their own facts)."""

    peer: int
    messages: Sequence[Message]


class BlocksReceived(NamedTuple):
    """Blocks that were asked for, each now in its slot (`filled_by == peer`)."""

    peer: int
    slots: Sequence[Slot]
    wasted_bytes: int = 0  # blocks nobody asked for, or that another peer brought first …
    wasted_blocks: int = 0  # … and how many


class RequestsReceived(NamedTuple):
    """Blocks that the peer asks for. Not yet admitted: the numbers are attacker-controlled."""

    peer: int
    requests: Sequence[BlockRequest]


class BlocksSent(NamedTuple):
    """Blocks of `Serve` orders left through the socket."""

    peer: int
    blocks: int
    payload_bytes: int


class AddressesFound(NamedTuple):
    """Somebody told us where peers listen."""

    addresses: Sequence[Address]
    source: Source


class DialFailed(NamedTuple):
    """A `Dial` order came to nothing: refused, timed out, wrong torrent, ourselves."""

    address: Address
    reason: str
    ourselves: bool = False  # the other end was this daemon: never dial it again
    twin: bytes = b""  # the peer id of the other end, which is connected already by another way


class PieceStored(NamedTuple):
    """The piece matched its hash and lies in the page cache of the disk; it may be offered to others."""

    piece: int
    digests: Sequence[bytes] = ()  # per block, only where `Store` asked for them


class PieceCorrupt(NamedTuple):
    """The piece did not match its hash; nothing was written."""

    piece: int
    digests: Sequence[bytes]  # of each of its blocks, to find the culprit when the good piece is there


class RecheckWanted(NamedTuple):
    """These pieces may not be what they were: check them before anything is fetched or served.

    Of a torrent that is stopped or failed it is remembered until it runs, unless `at_once`: then a stopped
    one is checked now, and stays stopped.
    """

    pieces: Sequence[int]
    at_once: bool = False


class StorageFailed(NamedTuple):
    """A disk job failed: the torrent is parked with a named cause. `piece` where the job was a `Store`."""

    error: StorageError
    piece: int | None = None


class StorageRecovered(NamedTuple):
    """The cause of the failure seems gone; the torrent may go on without a re-check."""


class PiecesChecked(NamedTuple):
    """Part of a check: these pieces were read and compared."""

    good: Sequence[int]
    bad: Sequence[int]
    done: bool  # the check ordered with `Check` is finished


class ContentConfirmed(NamedTuple):
    """The whole content was hashed after `Confirm`: does it match `id_hash`?"""

    matches: bool


class MemoryFreed(NamedTuple):
    """Piece memory that was short is there again: fetching may go on."""


class MemoryWanted(NamedTuple):
    """Another torrent waits for piece memory: give back what lies in pieces that have no source."""


class SettingsChanged(NamedTuple):
    """Run-time choices of this torrent changed, or those of the daemon (None: they did not)."""

    settings: TorrentSettings
    swarm: SwarmSettings | None = None


class WishesChanged(NamedTuple):
    """Other pieces are wanted, or others first: a byte for each, 0 for not at all; None: all alike.

    The host has seen to it that there are files for what is wanted now.
    """

    priorities: bytes | None


Fact = (
    Started
    | Stopped
    | Ticked
    | PeerJoined
    | PeerLeft
    | MessagesReceived
    | BlocksReceived
    | RequestsReceived
    | BlocksSent
    | AddressesFound
    | DialFailed
    | PieceStored
    | PieceCorrupt
    | StorageFailed
    | StorageRecovered
    | PiecesChecked
    | RecheckWanted
    | ContentConfirmed
    | MemoryFreed
    | MemoryWanted
    | SettingsChanged
    | WishesChanged
)


# --------------------------------------------------------------------------------------------------- orders


class Fetch(NamedTuple):
    """Ask the peer for these blocks, in this order, and lend it their slots."""

    peer: int
    slots: Sequence[Slot]


class Recall(NamedTuple):
    """Take these slots back from the peer; send it a cancel for each. Blocks that still come are waste.

    After it nothing is written to these slots by that peer's wire: their memory may be given away next.
    """

    peer: int
    slots: Sequence[Slot]
    cancel: bool = True  # False: the peer has forgotten these requests anyway (it choked us)


class Serve(NamedTuple):
    """Send these blocks, all admitted: we have the pieces and the numbers fit."""

    peer: int
    requests: Sequence[BlockRequest]


class Withdraw(NamedTuple):
    """Do not send these blocks if they are still queued (the peer cancelled, or we choked it).

    None means all that are queued. `reject` where the fast extension wants each refused aloud.
    """

    peer: int
    requests: Sequence[BlockRequest] | None
    reject: bool


class Tell(NamedTuple):
    """Send these messages to the peer, in order, ahead of queued blocks."""

    peer: int
    messages: Sequence[Message]


class GiveMetadata(NamedTuple):
    """Send the peer this piece of the info dictionary (BEP 9), as its extended message of this number."""

    peer: int
    number: int
    piece: int


class Drop(NamedTuple):
    """Close the connection. The host answers with `PeerLeft`."""

    peer: int
    reason: str
    fault: bool = False  # the peer's: what is still on its way to it is thrown away


class Dial(NamedTuple):
    """Connect to this address; the answer is `PeerJoined` or `DialFailed`."""

    address: Address


class Ban(NamedTuple):
    """Refuse this host for the whole daemon: it sent bad data again and again.

    The URL of a web seed stands for itself: this torrent asks nothing more of it, and its host is not to
    blame.
    """

    host: str
    reason: str


class Store(NamedTuple):
    """Hash the piece, compare, write. The buffer goes back to the lender when the job ends, good or bad."""

    buffer: PieceBuffer
    want_digests: bool  # of each block, also when the piece is good


class Release(NamedTuple):
    """Give a piece's memory back unused."""

    buffer: PieceBuffer


class Check(NamedTuple):
    """Read these pieces and compare; None means all. Answered by one or more `PiecesChecked`."""

    pieces: Sequence[int] | None


class Confirm(NamedTuple):
    """Hash the whole content and compare with `id_hash`; answered by `ContentConfirmed`."""


class Announce(NamedTuple):
    """Tell the trackers. `started` when the torrent begins to run, `completed` once, when it became whole."""

    event: Literal["started", "completed", "stopped", "update"]


class Cease(NamedTuple):
    """Stop all disk work of this torrent that has not begun (checks); it is stopping."""


class Emit(NamedTuple):
    """A note for readers outside: kind and facts."""

    kind: str
    facts: dict[str, Any]


Order = (
    Fetch
    | Recall
    | Serve
    | Withdraw
    | Tell
    | GiveMetadata
    | Drop
    | Dial
    | Ban
    | Store
    | Release
    | Check
    | Confirm
    | Announce
    | Cease
    | Emit
)
