"""Waiting for a torrent to be whole, or for what comes of it at first: on notes, not by asking all the time.

Subscribe first and look afterwards, so nothing that happens between is missed. Notes say when to look; the
row of the torrent says what is so.
"""

from __future__ import annotations

import time
from typing import Any

from microtorrd.errors import Busy, NotFound
from mtorrctl.client import Client, Note
from mtorrctl.exits import Failure, OutOfTime
from mtorrctl.progress import TorrentProgress
from mtorrctl.render import clean

#: Notes of busy torrents come often; people do not look more often than this.
LOOK_EVERY_S = 0.2

#: While nothing is heard we look all the same: rates and the time left change without notes.
LOOK_AT_LEAST_EVERY_S = 2.0

#: How long we look what comes of a new torrent at first. Its files are looked at within some milliseconds; a
#: disk that takes longer is not waited for.
FIRST_S = 1.0
FIRST_LOOKS_EVERY_S = 0.05

#: Causes of failures that do not go away by themselves.
LASTING = frozenset({"changed", "mismatch", "id_hash_mismatch", "corrupt", "not_allowed"})

#: After these there is something to see at once.
DECISIVE = ("completed", "resolved", "state_changed", "storage_failed", "torrent_removed", "daemon_stopping")


def wait_until_whole(
    client: Client, row: dict[str, Any], *, timeout_s: float | None = None, shows: bool = True
) -> dict[str, Any]:
    """The row of the torrent once it is whole, and progress on the way there.

    Raises Failure when it failed or was removed, OutOfTime after `timeout_s` seconds. Only one torrent can be
    waited for on one client.
    """
    info_hash = row["info_hash"]
    name = clean(row["name"])
    end = None if timeout_s is None else time.monotonic() + timeout_s
    client.subscribe(ids=[info_hash])
    if not shows:
        return _wait(client, info_hash, name, end, None)
    with TorrentProgress(row) as progress:
        return _wait(client, info_hash, name, end, progress)


def first_outcome(client: Client, row: dict[str, Any]) -> dict[str, Any]:
    """The row of a new torrent as soon as it shows whether the daemon has its files, or after FIRST_S."""
    if not _is_undecided(row):
        return row
    end = time.monotonic() + FIRST_S
    subscribe_if_possible(client, kinds=["state_changed", "torrent_removed"], ids=[row["info_hash"]])
    while _is_undecided(row) and (left_s := end - time.monotonic()) > 0:
        client.next_note(min(left_s, FIRST_LOOKS_EVERY_S))
        try:
            row = client.call("torrent.list", ids=[row["info_hash"]])["torrents"][0]
        except NotFound:  # somebody removed it: how it came in was well
            break
    return row


def subscribe_if_possible(client: Client, *, kinds: list[str], ids: list[str] | None = None) -> bool:
    """Hear of these, unless the daemon has all the subscribers it may have: False then."""
    try:
        client.subscribe(kinds=kinds, ids=ids)
    except Busy:
        return False
    return True


def first_ends(client: Client, info_hashes: list[str]) -> dict[str, Note]:
    """The note about each of these torrents that comes first, as far as some come within FIRST_S."""
    ends: dict[str, Note] = {}
    end = time.monotonic() + FIRST_S
    while len(ends) < len(info_hashes) and (left_s := end - time.monotonic()) > 0:
        note = client.next_note(left_s)
        if note is not None and note.get("info_hash") in info_hashes:
            ends.setdefault(note["info_hash"], note)
    return ends


def refuse_failed(row: dict[str, Any]) -> None:
    """Raises Failure for the row of a torrent that has failed."""
    if row["state"] != "failed":
        return
    error = row.get("error") or {}
    if error.get("cause") in LASTING:
        hint = "it stays on record: `mtorrctl resume` looks again, `mtorrctl remove` forgets it"
    else:
        hint = "it stays on record, and goes on by itself when the cause is gone"
    raise Failure(f"{clean(row['name'])} failed: {clean(error.get('message', 'unknown cause'))}", hint)


def _is_undecided(row: dict[str, Any]) -> bool:
    return row["state"] == "checking" and not row["checked"]


def is_whole(row: dict[str, Any]) -> bool:
    """Whether all its content is here and was checked."""
    return row["state"] == "seeding" or bool(row["state"] == "stopped" and row["progress"] >= 1)


def _wait(
    client: Client, info_hash: str, name: str, end: float | None, progress: TorrentProgress | None
) -> dict[str, Any]:
    while True:
        try:
            row: dict[str, Any] = client.call("torrent.list", ids=[info_hash])["torrents"][0]
        except NotFound:
            raise Failure(f"{name} was removed") from None
        if progress is not None:
            progress.update(row)
        if is_whole(row):
            return row
        refuse_failed(row)
        looked_at = time.monotonic()
        if end is not None and looked_at >= end:
            raise OutOfTime(f"{name} is not done in time; the daemon goes on with it")
        _sleep_until_news(client, looked_at, end)


def _sleep_until_news(client: Client, looked_at: float, end: float | None) -> None:
    """Return at a note, but not sooner than people look; at the latest when rates are old, or at the end."""
    latest = looked_at + LOOK_AT_LEAST_EVERY_S
    soonest = looked_at + LOOK_EVERY_S
    if end is not None:
        latest, soonest = min(latest, end), min(soonest, end)
    heard = client.next_note(max(0.0, latest - time.monotonic()))
    while heard is not None and (left_s := soonest - time.monotonic()) > 0:
        # More of the same are swallowed until it is time to look; a decisive one is looked at at once.
        if heard.get("kind") in DECISIVE:
            return
        heard = client.next_note(left_s) or heard
