"""Every setting of the daemon, one record each: name, type, default, range, and what high and low favour.

`conf/microtorrd.toml` is these records written down (a test keeps them equal, `settings_text.py` writes it);
`config.py` reads them from files, environment and command line. The values are frozen: a reload makes a new
`Config`.

A record's `kind` says how text becomes its value: `size` and `rate` in bytes, `duration` in seconds, `mode`
in octal, `path` absolute. A `live` setting applies when the daemon is told to reload; the others need a
restart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

Kind = Literal["size", "rate", "duration", "mode", "path", "text", "number", "switch", "list"]


def setting(
    sentence: str,
    *,
    kind: Kind,
    live: bool = False,
    ge: float | None = None,
    le: float | None = None,
    user_default: str = "",
) -> Meta:
    """The record of one setting. `user_default` says what holds for a user's own daemon where it differs."""
    return Meta(
        description=sentence, ge=ge, le=le, extra={"kind": kind, "live": live, "user_default": user_default}
    )


class Daemon(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The process."""

    state_dir: Annotated[
        str,
        setting(
            "Where the daemon keeps its database of torrents and its lock; on a local disk, never shared by "
            "two daemons.",
            kind="path",
            user_default="$XDG_STATE_HOME/microtorrd",
        ),
    ] = "/var/lib/microtorrd"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        setting(
            "How much is logged: `debug` tells of every peer that comes and goes, `error` only of what "
            "needs a hand.",
            kind="text",
            live=True,
        ),
    ] = "info"
    log_format: Annotated[
        Literal["auto", "console", "json", "journal"],
        setting(
            "How a line looks; `auto` is `journal` where systemd's journal reads it, and `console` "
            "elsewhere.",
            kind="text",
            live=True,
        ),
    ] = "auto"


class Rpc(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The control socket."""

    socket: Annotated[
        str,
        setting(
            "The Unix socket that `mtorrctl` talks to; at most 107 bytes long.",
            kind="path",
            user_default="$XDG_RUNTIME_DIR/microtorrd/control.sock, or control.sock in the state directory",
        ),
    ] = "/run/microtorrd/control.sock"
    socket_mode: Annotated[
        int,
        setting(
            "Its permissions, in octal; who may write to it may do everything with the daemon.",
            kind="mode",
            ge=0,
            le=0o777,
        ),
    ] = 0o660
    socket_group: Annotated[
        str,
        setting(
            "The group that the socket is given to, by name; empty leaves it with the daemon's own.",
            kind="text",
        ),
    ] = ""


class Listen(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where peers reach us."""

    port: Annotated[
        int,
        setting(
            "TCP port for peers; 0 takes a free one, and `mtorrctl stats --json` says which.",
            kind="number",
            ge=0,
            le=65535,
        ),
    ] = 7777
    addresses: Annotated[
        tuple[str, ...],
        setting(
            "Numeric addresses to listen on; an empty list takes no connections in, which makes a swarm "
            "slower to find us.",
            kind="list",
        ),
    ] = ("0.0.0.0", "::")
    interface: Annotated[
        str,
        setting(
            "Network interface that peers are spoken to through, and no other (as for a VPN); empty leaves "
            "it to the routes.",
            kind="text",
        ),
    ] = ""


class Storage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is written where."""

    save_to: Annotated[
        str,
        setting(
            "Where content is put when `mtorrctl add` names no directory.",
            kind="path",
            live=True,
            user_default="~/Downloads",
        ),
    ] = "/var/lib/microtorrd/downloads"
    preallocate: Annotated[
        Literal["none", "sparse", "full"],
        setting(
            "How files begin: `full` reserves all space at once and avoids fragments, `sparse` sets the "
            "length only, `none` lets them grow.",
            kind="text",
            live=True,
        ),
    ] = "sparse"
    piece_memory: Annotated[
        int,
        setting(
            "Memory for pieces that are being fetched, over all torrents: more keeps more fast peers busy "
            "with large pieces, less keeps the daemon small.",
            kind="size",
            ge=MIB,
            le=64 * GIB,
        ),
    ] = 64 * MIB
    min_free: Annotated[
        int,
        setting(
            "Space that downloads leave free on every filesystem: higher protects what else lives there, 0 "
            "fills it up.",
            kind="size",
            live=True,
            ge=0,
            le=1 << 50,
        ),
    ] = 64 * MIB
    disk_threads: Annotated[
        int,
        setting(
            "Threads that hash, write and read: more suits many disks or cores, fewer a single spinning "
            "disk.",
            kind="number",
            ge=1,
            le=64,
        ),
    ] = 2
    open_files: Annotated[
        int,
        setting(
            "Files kept open between uses, over all torrents: more saves opening them again, fewer saves "
            "descriptors.",
            kind="number",
            ge=8,
            le=100_000,
        ),
    ] = 512


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of the machine and the line may be used."""

    down: Annotated[
        int,
        setting(
            "Download limit of the whole daemon; 0 is none, lower leaves more of the line to others.",
            kind="rate",
            live=True,
            ge=0,
        ),
    ] = 0
    up: Annotated[
        int,
        setting(
            "Upload limit of the whole daemon; 0 is none, lower leaves more of the line to others and of "
            "the swarm to itself.",
            kind="rate",
            live=True,
            ge=0,
        ),
    ] = 0
    down_per_peer: Annotated[
        int,
        setting(
            "Download limit of each connection; 0 is none, lower makes many sources carry equal loads.",
            kind="rate",
            live=True,
            ge=0,
        ),
    ] = 0
    up_per_peer: Annotated[
        int,
        setting(
            "Upload limit of each connection; 0 is none, lower keeps one fast peer from taking everything.",
            kind="rate",
            live=True,
            ge=0,
        ),
    ] = 0
    connections: Annotated[
        int,
        setting(
            "Peers connected at a time, over all torrents: more finds faster ones, fewer saves memory and "
            "descriptors.",
            kind="number",
            live=True,
            ge=1,
            le=100_000,
        ),
    ] = 1000
    connections_per_torrent: Annotated[
        int,
        setting(
            "Peers connected at a time for one torrent: more spreads pieces faster, fewer is fair to other "
            "torrents.",
            kind="number",
            live=True,
            ge=1,
            le=10_000,
        ),
    ] = 100
    half_open: Annotated[
        int,
        setting(
            "Connections being made at a time, over all torrents: more finds peers sooner, fewer is kind to "
            "small routers.",
            kind="number",
            live=True,
            ge=1,
            le=1000,
        ),
    ] = 64
    half_open_per_torrent: Annotated[
        int,
        setting(
            "Connections being made at a time for one torrent: more finds peers sooner, fewer lets other "
            "torrents go first.",
            kind="number",
            live=True,
            ge=1,
            le=1000,
        ),
    ] = 16


class Swarm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How we behave among peers."""

    announce_as: Annotated[
        Literal["both", "microtorr", "bittorrent"],
        setting(
            "Which dialects a `.mtorrent` is announced in: `both` finds most peers, one alone halves the "
            "requests.",
            kind="text",
            live=True,
        ),
    ] = "both"
    seed_after_download: Annotated[
        bool,
        setting(
            "Whether a torrent goes on to seed when it is complete; each can be told otherwise when it is "
            "added.",
            kind="switch",
            live=True,
        ),
    ] = True
    random_peer_share: Annotated[
        float,
        setting(
            "Share of requests that go to a random peer instead of the fastest known: more finds fast "
            "newcomers sooner, less trusts what was measured.",
            kind="number",
            live=True,
            ge=0,
            le=1,
        ),
    ] = 0.1
    always_unchoke: Annotated[
        bool,
        setting(
            "Serve everybody who asks, without slots or tit for tat: for closed networks where all are "
            "friends.",
            kind="switch",
            live=True,
        ),
    ] = False
    upload_slots: Annotated[
        int,
        setting(
            "Peers served at a time, for each torrent, besides one by lot: more shares wider, fewer gives "
            "each one more. 0: by what the line carries, from 3 to 20 (8 at 1 MiB/s, one more for each "
            "doubling).",
            kind="number",
            live=True,
            ge=0,
            le=1000,
        ),
    ] = 0
    peer_exchange: Annotated[
        bool,
        setting(
            "Tell connected peers of each other and hear of others from them (BEP 11): finds more peers and "
            "spares trackers; never done in private torrents.",
            kind="switch",
            live=True,
        ),
    ] = True
    super_seed: Annotated[
        bool,
        setting(
            "Super-seed (BEP 16) content that is shared from here, by `mtorrctl seed PATH` or `add --seed`, "
            "where nothing else is said: for a first seeder with little upload whose takers are foreign "
            "clients. Our own need nothing of the kind.",
            kind="switch",
            live=True,
        ),
    ] = False
    local_discovery: Annotated[
        bool,
        setting(
            "Tell neighbours in the same network by multicast what is shared here, and hear it from them "
            "(BEP 14): finds peers without a tracker; never done for private torrents, nor on loopback.",
            kind="switch",
            live=True,
        ),
    ] = True
    ban_after: Annotated[
        int,
        setting(
            "Corrupt pieces proven against a peer until it is banned: more forgives a flaky line, fewer "
            "stops liars sooner.",
            kind="number",
            live=True,
            ge=1,
            le=1000,
        ),
    ] = 3
    pipeline: Annotated[
        int,
        setting(
            "Data asked of one peer in advance, at most: more fills long and fast lines, less wastes less "
            "when it leaves. A reload changes it for new connections.",
            kind="size",
            live=True,
            ge=64 * KIB,
            le=GIB,
        ),
    ] = 8 * MIB
    request_timeout: Annotated[
        float,
        setting(
            "How long a peer may send nothing although asked, before its blocks are asked of others: longer "
            "suits slow lines, shorter finishes sooner.",
            kind="duration",
            live=True,
            ge=1,
            le=3600,
        ),
    ] = 60.0
    idle_timeout: Annotated[
        float,
        setting(
            "How long a connection may be silent before it is closed: longer keeps peers, shorter frees "
            "descriptors.",
            kind="duration",
            live=True,
            ge=30,
            le=3600,
        ),
    ] = 240.0


class Tracker(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tracker that this daemon serves."""

    enabled: Annotated[bool, setting("Whether this daemon serves a tracker.", kind="switch")] = False
    bind: Annotated[
        str,
        setting("Address and port it answers on; IPv6 in brackets, as `[::]:8888`.", kind="text"),
    ] = "0.0.0.0:8888"
    udp: Annotated[
        bool,
        setting(
            "Whether it answers over UDP, too (BEP 15), on the same port number: less traffic than over "
            "HTTP, and what most public trackers speak.",
            kind="switch",
        ),
    ] = True
    interval: Annotated[
        float,
        setting(
            "Time that BitTorrent clients are asked to leave between announces: longer is less load, "
            "shorter forgets the dead sooner (after twice this time).",
            kind="duration",
            ge=10,
            le=86400,
        ),
    ] = 900.0
    min_interval: Annotated[
        float,
        setting(
            "Time below which clients must not announce again: longer is less load, shorter lets the "
            "impatient look.",
            kind="duration",
            ge=1,
            le=86400,
        ),
    ] = 60.0
    ip_parameter: Annotated[
        Literal["never", "private", "always"],
        setting(
            "Whose `ip` parameter is believed: `private` that of loopback and private addresses; `always` "
            "lets anybody name any victim.",
            kind="text",
        ),
    ] = "private"
    trusted_proxies: Annotated[
        tuple[str, ...],
        setting(
            "Addresses or networks of reverse proxies whose `X-Forwarded-For` is believed; an empty list "
            "believes none.",
            kind="list",
        ),
    ] = ()
    access: Annotated[
        Literal["open", "listed", "own"],
        setting(
            "Which swarms it serves: `open` any, `listed` those of `allow_file`, `own` those of the torrents "
            "of this daemon, and of `allow_file` where there is one.",
            kind="text",
            live=True,
        ),
    ] = "open"
    allow_file: Annotated[
        str,
        setting(
            "A file of swarms that `access` may admit: an info hash or id hash a line, as 40 hex digits; `#` "
            "begins a comment. Read again on every reload.",
            kind="path",
            live=True,
        ),
    ] = ""
    deny_file: Annotated[
        str,
        setting(
            "A file of swarms that are never served, whatever else admits them; it looks like `allow_file`.",
            kind="path",
            live=True,
        ),
    ] = ""
    passkeys_file: Annotated[
        str,
        setting(
            "A file of users, a line each: a passkey of 16 to 64 letters, digits, - and _, then a name. Who "
            "announces or scrapes must have one, as in `/announce/PASSKEY`; empty asks for none.",
            kind="path",
            live=True,
        ),
    ] = ""
    store: Annotated[
        str,
        setting(
            "Where it remembers its swarms: `memory`; or a Redis server that several trackers share, as "
            "`redis://host:6379/0`, `rediss://` with TLS, or `unix:///path`.",
            kind="text",
        ),
    ] = "memory"
    pages: Annotated[
        Literal["never", "private", "always"],
        setting(
            "Who may read the pages `/`, `/api/swarms` and `/metrics`: `private` those at loopback and "
            "private addresses, `always` anybody; names of torrents are for the former alone.",
            kind="text",
            live=True,
        ),
    ] = "private"
    max_peers: Annotated[
        int,
        setting(
            "Peers in one reply, at most: more makes swarms tighter, fewer keeps replies small.",
            kind="number",
            ge=1,
            le=1000,
        ),
    ] = 200


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings."""

    daemon: Daemon = msgspec.field(default_factory=Daemon)
    rpc: Rpc = msgspec.field(default_factory=Rpc)
    listen: Listen = msgspec.field(default_factory=Listen)
    storage: Storage = msgspec.field(default_factory=Storage)
    limits: Limits = msgspec.field(default_factory=Limits)
    swarm: Swarm = msgspec.field(default_factory=Swarm)
    tracker: Tracker = msgspec.field(default_factory=Tracker)


class Record(Struct, frozen=True, kw_only=True):
    """What is known of one setting."""

    section: str
    key: str
    default: Any
    sentence: str
    kind: Kind
    live: bool
    user_default: str
    choices: tuple[str, ...]  # of a text with fixed values, else empty
    ge: float | None
    le: float | None

    @property
    def name(self) -> str:
        """`section.key`."""
        return f"{self.section}.{self.key}"


def records() -> Iterator[Record]:
    """All settings, in the order of the documentation."""
    for section in msgspec.structs.fields(Config):
        for field in msgspec.structs.fields(section.type):
            bare, meta = get_args(field.type)
            extra = meta.extra
            yield Record(
                section=section.name,
                key=field.name,
                default=field.default,
                sentence=meta.description,
                kind=extra["kind"],
                live=extra["live"],
                user_default=extra["user_default"],
                choices=get_args(bare) if get_origin(bare) is Literal else (),
                ge=meta.ge,
                le=meta.le,
            )
