"""What the methods take: a struct a method, with types, defaults, bounds and a sentence for each parameter.

This is the only description of the parameters: decoding, error messages and the OpenRPC document come from
it. Paths are absolute because the daemon has no idea where its caller stands.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

MAX_IDS = 10_000

Id = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=1024,
        description="A torrent: its name, a prefix of an id (4 hexadecimal digits or more), or `all`.",
    ),
]
Ids = Annotated[list[Id], Meta(max_length=MAX_IDS)]
Words = Annotated[list[str], Meta(max_length=100)]
Token = Annotated[str, Meta(max_length=64)]
Path = Annotated[str, Meta(pattern=r"^/[^\x00]*$", max_length=4096)]
Rate = Annotated[int, Meta(ge=0, le=1 << 50)]
NewRate = Annotated[
    Rate | None, Meta(extra_json_schema={"$comment": "bytes a second; 0: none; null: as it is"})
]
Files = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=4096)]],
    Meta(
        max_length=1000,
        description="Files, each word a list of numbers from 0 (`0,2,4-6`), a path, or a pattern (`*.iso`).",
    ),
]
Priority = Literal["off", "low", "normal", "high"]
Count = Annotated[int, Meta(ge=0, le=100_000)]


class NoParams(Struct, kw_only=True, forbid_unknown_fields=True):
    """No parameters."""


class Add(Struct, kw_only=True, forbid_unknown_fields=True):
    """A torrent to add."""

    metainfo: Annotated[
        bytes, Meta(description="The content of the .mtorrent or .torrent file. This or `magnet` is needed.")
    ] = b""
    magnet: Annotated[
        str, Meta(description="A magnet link: the metainfo is fetched from the peers it leads to.")
    ] = ""
    save_to: Annotated[
        Path | None, Meta(description="The directory to save in; the daemon's own default if null.")
    ] = None
    seed_path: Annotated[
        Path | None,
        Meta(description="The file or directory that is there already: it is checked, then seeded."),
    ] = None
    paused: Annotated[bool, Meta(description="Add it without starting it.")] = False
    wait_seeders: Annotated[
        Count, Meta(description="Ask for no data before this many seeders are there.")
    ] = 0
    wait_leechers: Annotated[
        Count, Meta(description="Ask for no data before this many leechers are there, ourselves included.")
    ] = 0
    down: Annotated[Rate, Meta(description="Download limit in bytes a second; 0: none.")] = 0
    up: Annotated[Rate, Meta(description="Upload limit in bytes a second; 0: none.")] = 0
    label: Annotated[str, Meta(max_length=200, description="A word of the operator's own.")] = ""
    sequential: Annotated[bool, Meta(description="Fetch the pieces in their order.")] = False
    files: Annotated[
        Files, Meta(description="Fetch these files and no others, named as in `torrent.select`; none: all.")
    ] = []
    priorities: Annotated[
        dict[Priority, Files],
        Meta(description="After that, the files of each priority: `off`, `low`, `normal`, `high`."),
    ] = {}
    seed_after_download: Annotated[
        bool | None, Meta(description="Seed when it is whole, or stop; null: as the daemon is configured.")
    ] = None
    super_seed: Annotated[
        bool | None,
        Meta(
            description="Show each peer a few pieces at a time while seeding (BEP 16); null: as the daemon "
            "is configured for data that is there already, else not."
        ),
    ] = None


class ListTorrents(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which torrents, and what of them."""

    ids: Annotated[Ids | None, Meta(description="Only these; null: all.")] = None
    fields: Annotated[Words | None, Meta(description="Only these; null: all.")] = None
    since: Annotated[
        Token | None,
        Meta(
            description=(
                "Only torrents that have changed since the answer that this `token` is from; an empty or "
                "outdated one brings all of them. null: all, and no token. Not together with `ids`."
            )
        ),
    ] = None


class One(Struct, kw_only=True, forbid_unknown_fields=True):
    """The torrent that is meant."""

    id: Id


class Seed(Struct, kw_only=True, forbid_unknown_fields=True):
    """The torrent that is to seed, and how."""

    id: Id
    super_seed: Annotated[
        bool | None,
        Meta(description="Show each peer a few pieces at a time (BEP 16), or everything; null: as it is."),
    ] = None


class Select(Struct, kw_only=True, forbid_unknown_fields=True):
    """Files of one torrent, and how much they are wanted."""

    id: Id
    files: Annotated[Files, Meta(min_length=1)]
    priority: Annotated[Priority, Meta(description="`off`: not at all.")]


class Order(Struct, kw_only=True, forbid_unknown_fields=True):
    """In which order pieces are fetched."""

    id: Id
    sequential: Annotated[bool, Meta(description="In their order; false: the rarest first.")]


class Remove(Struct, kw_only=True, forbid_unknown_fields=True):
    """The torrent to forget."""

    id: Id
    data: Annotated[bool, Meta(description="Delete its files too.")] = False


class Move(Struct, kw_only=True, forbid_unknown_fields=True):
    """The torrent to move, and where to."""

    id: Id
    save_to: Annotated[Path, Meta(description="The directory to save in from now on.")]


class TorrentLimit(Struct, kw_only=True, forbid_unknown_fields=True):
    """Limits of one torrent."""

    id: Id
    down: Annotated[NewRate, Meta(description="Download limit.")] = None
    up: Annotated[NewRate, Meta(description="Upload limit.")] = None


class SessionLimit(Struct, kw_only=True, forbid_unknown_fields=True):
    """Limits of the whole daemon."""

    down: Annotated[NewRate, Meta(description="Download limit.")] = None
    up: Annotated[NewRate, Meta(description="Upload limit.")] = None


class Subscribe(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which notes to stream."""

    kinds: Annotated[
        Words | None, Meta(description="Only notes of these kinds; null: all but the quiet ones.")
    ] = None
    ids: Annotated[Ids | None, Meta(description="Only notes of these torrents; null: all.")] = None
