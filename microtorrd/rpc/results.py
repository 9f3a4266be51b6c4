"""What the methods answer, as types: the source of the result schemas in the OpenRPC document.

The values themselves are plain dictionaries that the session makes; a test holds them against these types.
Sizes are bytes, rates bytes a second, times RFC 3339, ids lower-case hexadecimal text.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

State = Literal["stopped", "checking", "resolving", "waiting", "downloading", "seeding", "failed"]
Share = Annotated[float, Meta(ge=0, le=1)]


class Failure(TypedDict):
    """Why a torrent is parked in the state `failed`."""

    cause: Annotated[str, Meta(description="no_space, not_found, not_permitted, read_only, missing_root, …")]
    path: str
    message: str


class Torrent(TypedDict):
    """One torrent, as lists show it."""

    name: str
    info_hash: Annotated[
        str,
        Meta(description="40 hexadecimal digits; of a link by mtid that is still resolving: the id_hash"),
    ]
    id_hash: Annotated[
        str | None, Meta(description="SHA-1 of the whole content; null where the file has none")
    ]
    state: State
    progress: Share
    size_bytes: int
    wanted_bytes: Annotated[
        int, Meta(description="of the pieces that are wanted: size_bytes where all files are")
    ]
    done_bytes: Annotated[int, Meta(description="of the wanted pieces")]
    down_bytes_per_s: float
    up_bytes_per_s: float
    peers: int
    seeders: int
    eta_s: Annotated[float | None, Meta(description="null: not downloading, or no end in sight")]
    save_to: str
    label: str
    error: Failure | None
    added_at: str
    uploaded_bytes: int
    downloaded_bytes: int
    ratio: float | None
    piece_length: int
    piece_count: int
    completed_at: str | None
    sequential: Annotated[bool, Meta(description="its pieces are fetched in their order")]
    checked: Annotated[Share | None, Meta(description="how far a running check is; null: none runs")]


#: The names that `torrent.list` takes in `fields`.
TORRENT_FIELDS: tuple[str, ...] = tuple(Torrent.__annotations__)


class Torrents(TypedDict):
    """The torrents that the call was about, as they are now."""

    torrents: list[Torrent]


class Settings(TypedDict):
    """Run-time choices of one torrent; limits in bytes a second, 0: none."""

    wait_seeders: int
    wait_leechers: int
    sequential: bool
    seed_after_download: bool
    super_seed: bool
    down: int
    up: int


class Move(TypedDict):
    """A move under way."""

    save_to: Annotated[str, Meta(description="the directory that the content is moved to")]
    done_bytes: Annotated[int, Meta(description="copied so far")]
    size_bytes: Annotated[int, Meta(description="to copy; 0 within a filesystem, where nothing is copied")]


class TorrentDetails(Torrent):
    """Everything known of one torrent: its row, and more beside."""

    private: bool
    comment: str
    created_by: str
    created_at: Annotated[str | None, Meta(description="what the file says")]
    dialect: Literal["microtorr", "bittorrent", "original"]
    file_count: int
    content_path: Annotated[str, Meta(description="where its file or directory lies")]
    move: Annotated[Move | None, Meta(description="the move that is under way; null: none is")]
    pieces_done: int
    leechers: int
    wasted_bytes: Annotated[int, Meta(description="received although nobody asked, or twice")]
    corrupt_pieces: int
    settings: Settings
    confirmed: Annotated[bool, Meta(description="the whole content was compared with id_hash")]
    trackers: list[Tracker]
    web_seeds: list[WebSeed]
    last_download: Annotated[
        dict[str, Any] | None, Meta(description="how it went; null: not downloaded while this daemon ran")
    ]


class MagnetLink(TypedDict):
    """A torrent as a link."""

    magnet: Annotated[str, Meta(description="of one that is still resolving: the link as it was given")]


class SomeTorrents(TypedDict):
    """Rows of torrents, with the fields that were asked for. Those below it come with `since` only."""

    torrents: Annotated[list[dict[str, Any]], Meta(description="with `since`: those that changed")]
    removed: NotRequired[
        Annotated[list[str], Meta(description="the `info_hash` of each torrent that is here no more")]
    ]
    token: NotRequired[Annotated[str, Meta(description="what to give as `since` the next time")]]
    full: NotRequired[
        Annotated[bool, Meta(description="these are all torrents: forget what was listed before")]
    ]


class Peer(TypedDict):
    """One connection. `am_*` is what we do to the peer, `peer_*` what it does to us."""

    host: str
    port: Annotated[int | None, Meta(description="where it listens, if known")]
    peer_id: Annotated[str, Meta(description="40 hexadecimal digits")]
    client: Annotated[str, Meta(description="what it calls itself, else what its peer id says")]
    incoming: bool
    source: Annotated[
        Literal["tracker", "incoming", "operator", "pex", "lsd", "dht", "resume"],
        Meta(description="how its address came to be known"),
    ]
    progress: Share
    is_seeder: bool
    upload_only: Annotated[bool, Meta(description="it says that it wants nothing more")]
    am_choking: bool
    am_interested: bool
    peer_choking: bool
    peer_interested: bool
    optimistic: bool
    snubbed: bool
    down_bytes: int
    up_bytes: int
    down_bytes_per_s: float
    up_bytes_per_s: float
    requests_out: Annotated[int, Meta(description="blocks of 16 KiB asked for and not yet received")]


class Peers(TypedDict):
    """The connected peers of one torrent."""

    peers: list[Peer]


class File(TypedDict):
    """One file of a torrent."""

    index: Annotated[int, Meta(description="its number, from 0; padding has numbers too, and is left out")]
    path: Annotated[str, Meta(description="relative to the directory where the torrent is saved")]
    size_bytes: int
    done_bytes: int
    progress: Share
    priority: Literal["off", "low", "normal", "high"]
    attributes: Annotated[str, Meta(description="x: executable, h: hidden, l: a symbolic link; empty: none")]


class Files(TypedDict):
    """The files of one torrent, in their order."""

    files: list[File]


class Tracker(TypedDict):
    """One tracker of a torrent and how it answered last."""

    url: str
    tier: int
    dialect: str
    state: str
    last_announce_at: str | None
    next_announce_at: str | None
    interval_s: float | None
    peers_received: int | None
    seeders: int | None
    leechers: int | None
    downloaded: Annotated[int | None, Meta(description="how often somebody finished, as it was scraped")]
    message: str | None


class WebSeed(TypedDict):
    """One HTTP server that has the content (BEP 19)."""

    url: Annotated[str, Meta(description="without name and password")]
    state: Literal["idle", "connecting", "working", "resting", "banned"]
    connections: int
    retry_in_s: Annotated[float | None, Meta(description="null: it does not rest")]
    message: Annotated[str, Meta(description="what went wrong last, empty where nothing did")]


class Trackers(TypedDict):
    """The trackers of one torrent."""

    trackers: list[Tracker]


class Limits(TypedDict):
    """Limits in bytes a second; 0: none."""

    down: int
    up: int


class Stats(TypedDict):
    """Figures of the whole daemon."""

    torrents: int
    states: Annotated[dict[str, int], Meta(description="how many torrents are in each state")]
    down_bytes_per_s: float
    up_bytes_per_s: float
    downloaded_bytes: int
    uploaded_bytes: int
    connections: int
    limits: Limits
    listen_port: Annotated[int | None, Meta(description="where peers reach it")]
    listen_addresses: list[Any]
    external_addresses: Annotated[
        list[str], Meta(description="where peers and trackers say that they see us")
    ]
    tracker_port: Annotated[int | None, Meta(description="null: the tracker is not enabled")]
    tracker_udp_port: Annotated[
        int | None, Meta(description="the same number; null: it does not answer over UDP")
    ]
    started_at: str
    uptime_s: float
    memory_bytes: int
    cpu_s: float
    piece_memory_bytes: int
    disk_backlog: int
    banned_hosts: int
    pid: int


class Version(TypedDict):
    """Which daemon answers."""

    version: str
    python: str
    pid: int
    uptime_s: float
    state_dir: str
    config_file: str | None


class Pong(TypedDict):
    """A sign of life."""

    pong: bool
    version: str


class Done(TypedDict):
    """The work has begun."""

    ok: bool


class Subscribed(TypedDict):
    """From now on notifications named `event` come on this connection, beside answers to further calls."""

    subscribed: bool
    kinds: Annotated[list[str] | None, Meta(description="null: all but the quiet ones")]
    info_hashes: Annotated[list[str] | None, Meta(description="null: all torrents and the daemon itself")]
