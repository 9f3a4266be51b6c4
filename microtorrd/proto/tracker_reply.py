"""What any HTTP tracker's reply is, to announces and scrapes alike: a dictionary, a refusal, or junk.

All of it is attacker-controlled, and read on the hub: sizes, depths and items are bounded, and what goes into
an error or a table for people is short, on one line and printable. Nothing but TrackerError is raised.
"""

from __future__ import annotations

import json
from typing import Any, cast

from microtorrd.errors import PeerForgotten, TrackerError
from microtorrd.proto import bencode

#: What the original's tracker says to `alive` from a peer that it does not know; ours says the same.
NOT_IN_SWARM = "Peer is not in this swarm"

#: A tracker that asks for more silence than a day would have forgotten us.
LONGEST_SILENCE_S = 86_400

#: 1,000 peers with their ids are 7,000 items; an item costs about a microsecond to read.
_MOST_ITEMS = 30_000
_DEEPEST = 8
_LONGEST_REASON = 200


def read_fields(text: bytes, status: int) -> dict[str, Any]:
    """Return the dictionary that a tracker's reply (stripped of white space) is; raises TrackerError.

    A failure reason is raised, and so is any status but 200.
    """
    if text[:1] == b"d":
        fields = _from_bencoding(text)
    elif text[:1] == b"{":
        fields = _from_json(text)
    else:
        raise _no_reply(text, status)
    if "failure reason" in fields:
        raise _refusal(for_people(fields["failure reason"]), _retry_s(fields.get("retry in")))
    if status != 200:
        raise TrackerError(f"HTTP status {status}")
    return fields


def for_people(value: object) -> str:
    """Return the tracker's words on one line, short, and without anything that steers a terminal."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)[:_LONGEST_REASON]
    return " ".join("".join(c if c.isprintable() else " " for c in text[:_LONGEST_REASON]).split())


def _from_bencoding(text: bytes) -> dict[str, Any]:
    try:
        value = bencode.decode(text, max_depth=_DEEPEST, max_items=_MOST_ITEMS)
    except bencode.BencodeError as error:
        raise TrackerError(f"the reply is not bencoded: {error}") from error
    assert isinstance(value, dict)  # it began with d
    return {key.decode("latin-1"): item for key, item in value.items()}


def _from_json(text: bytes) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], json.loads(text))  # it began with {
    except (ValueError, RecursionError) as error:
        raise TrackerError("the reply is not JSON") from error


def _no_reply(text: bytes, status: int) -> TrackerError:
    """Name what came instead of a reply."""
    plain = for_people(text[:1000])
    if status != 200:
        brief = bool(plain) and len(text) <= _LONGEST_REASON and "<" not in plain
        return _refusal(plain, None) if brief else TrackerError(f"HTTP status {status}")
    if not text:
        return TrackerError("the reply is empty")
    what = "a web page" if text[:1] == b"<" else "neither bencoding nor JSON"
    return TrackerError(f"the reply is {what}")


def _refusal(reason: str, retry_s: float | None) -> TrackerError:
    if reason == NOT_IN_SWARM:
        return PeerForgotten(reason)
    return TrackerError(reason or "refused without a reason", retry_s=retry_s)


def _retry_s(value: object) -> float | None:
    """BEP 31: minutes, or `never`, which we take for the longest silence that we keep."""
    if value == b"never":
        return LONGEST_SILENCE_S
    minutes = value.decode("latin-1") if isinstance(value, bytes) else value
    if isinstance(minutes, str) and minutes.isascii() and minutes.isdigit() and len(minutes) <= 6:
        minutes = int(minutes)
    return min(minutes * 60, LONGEST_SILENCE_S) if isinstance(minutes, int) and minutes > 0 else None
