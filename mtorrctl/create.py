"""From a file or directory to its `.mtorrent`: list, hash in a pipeline, build, write atomically.

Rules: everything that can be refused is refused before the content is read; the output is written beside its
final name and renamed, so there is never half a file; an existing metainfo file is replaced, anything else is
never overwritten, and least of all a part of the content.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from typing import Any

from microtorrd.disk.digest import Listing, aligned, hash_content, scan
from microtorrd.errors import InvalidMetainfo
from microtorrd.proto import metainfo
from microtorrd.proto.metainfo import DEFAULT_TRACKER
from mtorrctl.exits import Failure, WrongUsage
from mtorrctl.progress import ContentProgress
from mtorrctl.render import clean

SUFFIX = ".mtorrent"
METAINFO_SUFFIXES = (SUFFIX, ".torrent")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is asked of a new `.mtorrent`, besides its content."""

    trackers: tuple[tuple[str, ...], ...] = ((DEFAULT_TRACKER,),)
    piece_length: int | None = None  # None: by the size of the content
    private: bool = False
    web_seeds: tuple[str, ...] = ()
    comment: str = ""
    creation_date: int | None = None  # None: none is written
    align: bool = False  # let each file begin with a piece (BEP 47)
    links: bool = False  # keep symbolic links that end in the content (BEP 47)


@dataclass(frozen=True, slots=True)
class Created:
    """A `.mtorrent` that was made."""

    path: str  # absolute
    raw: bytes
    facts: dict[str, Any]  # for `--json`
    skipped: list[tuple[str, str]]  # what is not in it, and why


def create(content: str, output: str | None, recipe: Recipe, *, keep_same: bool = False) -> Created:
    """Make the `.mtorrent` of a path. Raises the errors of scan and hash_content, and Failure.

    With `keep_same` a file that is there already and has the same info_hash is left as it is, with its own
    trackers and date.
    """
    listing = scan(content, links=recipe.links)
    target = os.path.abspath(output or os.path.abspath(content) + SUFFIX)
    _check_output(target, os.path.abspath(content), listing)
    piece_length = recipe.piece_length or metainfo.choose_piece_length(listing.length)
    if recipe.align:
        listing = aligned(listing, piece_length)
    metainfo.check_shape(listing.length, piece_length, key="piece length")
    with ContentProgress(listing.name, listing.length) as progress:
        digests = hash_content(listing.sources, piece_length, on_progress=progress.report)
    raw = metainfo.build(
        name=listing.name,
        piece_length=piece_length,
        files=listing.files,
        is_single_file=listing.is_single_file,
        pieces=digests.pieces,
        id_hash=digests.id_hash,
        trackers=recipe.trackers,
        private=recipe.private,
        web_seeds=recipe.web_seeds,
        comment=recipe.comment,
        creation_date=recipe.creation_date,
    )
    made = metainfo.parse(raw)
    same = _same_at(target, made.info_hash) if keep_same else None
    if same is None:
        write_atomically(target, raw)
    else:
        raw = same
    facts = {
        "path": target,
        "name": made.name,
        "info_hash": made.info_hash.hex(),
        "id_hash": None if made.id_hash is None else made.id_hash.hex(),
        "size_bytes": made.length,
        "piece_length": made.piece_length,
        "piece_count": made.piece_count,
        "file_count": len(made.files),
        "skipped": [{"path": path, "reason": reason} for path, reason in listing.skipped],
    }
    return Created(target, raw, facts, listing.skipped)


def parse_trackers(options: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Each option is a tier; commas part the trackers of one tier (BEP 12). WrongUsage for what is no URL."""
    tiers = []
    for option in options:
        tier = tuple(url.strip() for url in option.split(",") if url.strip())
        if not tier:
            raise WrongUsage("--tracker: the URL is empty")
        for url in tier:
            check_url(url, ("http", "https", "udp"), "--tracker")
        tiers.append(tier)
    return tuple(tiers)


def check_url(url: str, schemes: tuple[str, ...], option: str) -> None:
    """WrongUsage unless it is a URL of one of these schemes with a host."""
    found = re.fullmatch(r"([a-zA-Z][a-zA-Z0-9+.-]*)://([^/?#\s]+)([^\s]*)", url)
    if found is None or found[1].lower() not in schemes or not url.isprintable():
        raise WrongUsage(f"{option}: {clean(url)!r} is not a URL of {', '.join(schemes)}")


def write_atomically(path: str, raw: bytes) -> None:
    """Write the bytes durably, all or none. Raises Failure."""
    directory = os.path.dirname(path)
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".mtorrent-", dir=directory)
        with os.fdopen(descriptor, "wb") as file:
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(file.fileno(), 0o666 & ~umask)
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = ""
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        if temporary:
            os.unlink(temporary)


def _check_output(target: str, content: str, listing: Listing) -> None:
    """Refuse what would overwrite or change the content, or could not be written after all the work."""
    inside = os.path.realpath(target).startswith(os.path.realpath(content) + os.sep)
    if not listing.is_single_file and inside:
        raise WrongUsage(f"{clean(target)} would lie inside the content", "name another place with --output")
    if os.path.exists(target):
        if os.path.isdir(target):
            raise WrongUsage(f"{clean(target)} is a directory", "--output names the file to write")
        if any(os.path.samefile(target, path) for path in listing.paths if path):
            raise WrongUsage(f"{clean(target)} is part of the content", "name another file with --output")
        if not target.lower().endswith(METAINFO_SUFFIXES):
            raise Failure(
                f"{clean(target)} is there already",
                f"only files whose name ends in {' or '.join(METAINFO_SUFFIXES)} are replaced",
            )
    directory = os.path.dirname(target)
    if not os.path.isdir(directory):
        raise Failure(f"{clean(directory)}: no such directory", "name another place with --output")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise Failure(f"{clean(directory)}: not writable", "name another place with --output")


def _same_at(target: str, info_hash: bytes) -> bytes | None:
    """The bytes of the metainfo file that is there, if it is one of the same torrent."""
    try:
        if os.path.getsize(target) > metainfo.MAX_METAINFO_BYTES:
            return None
        with open(target, "rb") as file:
            raw = file.read()
        return raw if metainfo.parse(raw).info_hash == info_hash else None
    except (OSError, InvalidMetainfo):
        return None


def _unwritable(path: str, error: OSError) -> Failure:
    return Failure(f"{clean(path)}: {error.strerror or error}", "name another place with --output")
