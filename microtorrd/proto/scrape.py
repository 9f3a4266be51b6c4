"""Scraping a tracker (BEP 48): how many have a torrent, fetch it, have fetched it; both directions.

A request names its swarms one by one: "all of them" is not answered, since that is
everything a tracker knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote_from_bytes, urlsplit, urlunsplit

from microtorrd.errors import ClientError, TrackerError
from microtorrd.proto.announce_reply import MAX_REPLY_BYTES
from microtorrd.proto.query import all_values, read_swarm_id
from microtorrd.proto.tracker_reply import read_fields

#: Swarms of one request: with every byte escaped, more do not fit into a request of 8 KiB.
MAX_SCRAPED = 100


class SwarmCounts(NamedTuple):
    """The figures of one swarm."""

    complete: int  # peers that have everything
    downloaded: int  # how often somebody finished, as long as the tracker remembers
    incomplete: int


def parse_scrape_query(raw: bytes) -> list[bytes]:
    """Return the swarm ids asked for; raises ClientError."""
    values = all_values(raw, b"info_hash") or all_values(raw, b"swarmId")
    if not values:
        raise ClientError("info_hash is missing", parameter="info_hash")
    if len(values) > MAX_SCRAPED:
        raise ClientError(f"info_hash is given more than {MAX_SCRAPED} times", parameter="info_hash")
    return [read_swarm_id(value, "info_hash") for value in values]


def scrape_url(announce_url: str) -> str | None:
    """Return where a tracker with this HTTP URL is scraped: the last part of its path says `scrape` where it
    said `announce`, or the part before it does, if the last one is a passkey. None where neither begins with
    that: such a tracker knows no scrapes."""
    parts = urlsplit(announce_url)
    where, slash, last = parts.path.rpartition("/")
    if last.startswith("announce"):
        path = f"{where}{slash}scrape{last.removeprefix('announce')}"
    elif last and where.endswith("/announce"):
        path = f"{where.removesuffix('announce')}scrape/{last}"
    else:
        return None
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def encode_scrape_query(swarm_ids: Iterable[bytes]) -> str:
    """Return the query string (without `?`) that asks for these swarms."""
    return "&".join(f"info_hash={quote_from_bytes(swarm_id, safe='')}" for swarm_id in swarm_ids)


def encode_scrape_reply(swarms: Mapping[bytes, SwarmCounts]) -> bytes:
    """Return the bencoded figures of the swarms that are known."""
    files = [
        b"20:%bd8:completei%de10:downloadedi%de10:incompletei%dee"
        % (swarm_id, counts.complete, counts.downloaded, counts.incomplete)
        for swarm_id, counts in sorted(swarms.items())
    ]
    return b"d5:filesd%bee" % b"".join(files)


def parse_scrape_reply(raw: bytes, *, status: int = 200) -> dict[bytes, SwarmCounts]:
    """Read the figures of a tracker's reply, by swarm id; raises TrackerError.

    Swarms whose figures make no sense are left out, as are those that the tracker does not know.
    """
    if len(raw) > MAX_REPLY_BYTES:
        raise TrackerError(f"the reply is longer than {MAX_REPLY_BYTES} bytes")
    files = read_fields(raw.strip(), status).get("files")
    if not isinstance(files, dict):
        raise TrackerError("the reply has no files")
    found: dict[bytes, SwarmCounts] = {}
    for swarm_id, figures in files.items():
        if isinstance(swarm_id, bytes) and len(swarm_id) == 20 and isinstance(figures, dict):
            counts = [figures.get(name, 0) for name in (b"complete", b"downloaded", b"incomplete")]
            if all(isinstance(count, int) and 0 <= count < 2**63 for count in counts):
                found[swarm_id] = SwarmCounts(*counts)
    return found
