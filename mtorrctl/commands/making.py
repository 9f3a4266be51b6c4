"""Commands about `.mtorrent` files, which need no daemon: `create` and `show`."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from typing import Any

import click

from microtorrd.proto.metainfo import Metainfo
from mtorrctl import render
from mtorrctl.commands.common import PATH, json_option, tell
from mtorrctl.commands.recipes import read_recipe, recipe_options, warn_of_skipped
from mtorrctl.create import create as create_file
from mtorrctl.exits import Failure
from mtorrctl.sources import parse_named, read_metainfo


@click.command(short_help="Make a .mtorrent of a file or directory.")
@click.argument("path", metavar="PATH", type=PATH)
@recipe_options
@json_option
def create(path: str, output: str | None, as_json: bool, **recipe: Any) -> None:
    """Make the .mtorrent of a file, or of a directory with all below it, and print its path.

    The name inside is the last part of PATH. The content is read once. An older .mtorrent or .torrent at the
    same place is replaced, in one step; no other file is ever overwritten. Symbolic links and whatever is no
    plain file are left out, and said so; with --links those that end in a file of PATH, or in a directory of
    it, are in it as links (BEP 47), and are made where it is fetched. Files that their owner may execute are
    marked, so that they are made executable elsewhere, too; marks and links are part of the info hash, not of
    the content's own.

    With --json it prints an object: path, name, info_hash, id_hash, size_bytes, piece_length, piece_count,
    file_count, skipped (path and reason).

    \b
    Examples:
      mtorrctl create ubuntu.iso
      mtorrctl create dataset/ -t http://a.example/announce -t udp://b.example:6969
      mtorrctl create ubuntu.iso -l '256 KiB' --no-date -o /srv/ubuntu.mtorrent
    """
    made = create_file(path, output, read_recipe(recipe))
    warn_of_skipped(made)
    if as_json:
        tell(render.as_json(made.facts))
        return
    tell(made.path)
    if render.is_terminal(sys.stdout):
        facts = made.facts
        pieces = f"{facts['piece_count']} of {render.piece_size(facts['piece_length'])}"
        rows = [
            ("size", render.exact_size(facts["size_bytes"])),
            ("pieces", pieces),
            ("files", str(facts["file_count"])),
            ("info hash", facts["info_hash"]),
            ("id hash", facts["id_hash"] or render.NOTHING),
        ]
        tell(render.pairs(rows, "  "))


@click.command(short_help="What a .mtorrent or .torrent file says.")
@click.argument("file", metavar="FILE", type=PATH)
@json_option
def show(file: str, as_json: bool) -> None:
    """Show what a .mtorrent or .torrent file says: name, size, pieces, ids, trackers, files.

    FILE may be an http or https URL, or `-` for standard input. No daemon is asked; what a daemon knows of a
    torrent tells `mtorrctl inspect`.

    With --json it prints an object: name, size_bytes, piece_length, piece_count, info_hash, id_hash, private,
    trackers (a list of tiers), web_seeds, comment, created_by, creation_date, dialect (microtorr, bittorrent,
    original), is_single_file, files (index, path, size_bytes, attributes, link). Padding is left out of them.

    \b
    Example:
      mtorrctl show ubuntu.iso.mtorrent
    """
    try:
        found = parse_named(read_metainfo(file), file)
    except Failure as error:
        if not error.hint and re.fullmatch(r"[0-9a-fA-F]{4,40}", file):
            error.hint = f"a torrent of the daemon is shown by: mtorrctl inspect {file}"
        raise
    facts = describe(found)
    if as_json:
        tell(render.as_json(facts))
        return
    pieces = f"{found.piece_count} of {render.piece_size(found.piece_length)}"
    rows = [
        ("name", found.name),
        ("size", render.exact_size(found.length)),
        ("pieces", pieces),
        ("info hash", facts["info_hash"]),
        ("id hash", facts["id_hash"] or render.NOTHING),
        ("private", render.by_name("private", found.private)),
        *((f"tracker {number}", ", ".join(tier)) for number, tier in enumerate(found.trackers, 1)),
        *(("web seed", url) for url in found.web_seeds),
        ("comment", found.comment or render.NOTHING),
        ("created by", found.created_by or render.NOTHING),
        ("created", render.moment(facts["creation_date"])),
        ("dialect", found.dialect),
    ]
    tell(render.pairs(rows))
    tell(f"\nfiles ({len(facts['files'])})")
    tell(render.table(_FILES, facts["files"]))


def _path(row: render.Row) -> str:
    return f"{row['path']} -> {row['link']}" if row["link"] else str(row["path"])


_FILES = (
    render.Column("#", lambda row: str(row["index"]), right=True),
    render.Column("SIZE", lambda row: render.size(row["size_bytes"]), right=True),
    render.Column("PATH", _path),
)


def describe(found: Metainfo) -> dict[str, Any]:
    """A metainfo as `show --json` prints it."""
    return {
        "name": found.name,
        "size_bytes": found.length,
        "piece_length": found.piece_length,
        "piece_count": found.piece_count,
        "info_hash": found.info_hash.hex(),
        "id_hash": None if found.id_hash is None else found.id_hash.hex(),
        "private": found.private,
        "trackers": [list(tier) for tier in found.trackers],
        "web_seeds": list(found.web_seeds),
        "comment": found.comment,
        "created_by": found.created_by,
        "creation_date": _date(found.creation_date),
        "dialect": found.dialect,
        "is_single_file": found.is_single_file,
        "files": [
            {
                "index": index,
                "path": "/".join(entry.path),
                "size_bytes": entry.length,
                "attributes": entry.attributes,
                "link": "/".join(entry.link) or None,
            }
            for index, entry in enumerate(found.files)
            if not entry.is_padding
        ],
    }


def _date(seconds: int | None) -> str | None:
    """RFC 3339; None also for a date that no calendar has (the file may say anything)."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return None
