"""Keep-alives of many swarms in one request: an addition of ours to the MicroTorr dialect.

A client that adds `joint=1` to `started`, or to `alive`, is told in the reply, as `Joint`, of how many swarms
one request may be (other trackers pass over the word, and no other client sends it). From then on it may say
`event=alive` for so many of its swarms at once, with `swarmIds` in the place of `swarmId`: the ids, 20 bytes
each, one behind the other, in base64 as URLs take it (RFC 4648, section 5), without padding. The answer is
empty where the peer lives on in all of them, else it is JSON and names the others as `Unknown`, in the same
form. Who answers with anything else has not understood.

Such a request is a GET like any other, so a head of 8 KiB bounds it. It can do what single ones can and
nothing more: nobody enters a swarm by it.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from binascii import Error as NotBase64
from binascii import a2b_base64
from collections.abc import Collection, Iterable

from microtorrd.errors import ClientError, TrackerError

#: Swarms of one request: 6,827 characters of ids, which with the rest of a head fit into the 8 KiB that
#: servers and proxies allow one.
MOST_SWARMS = 256

_ID_BYTES = 20
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def pack_ids(swarm_ids: Iterable[bytes]) -> str:
    """Return the ids as one word of base64."""
    return urlsafe_b64encode(b"".join(swarm_ids)).rstrip(b"=").decode("ascii")


def ids_that_fit(room: int) -> int:
    """Return how many ids `pack_ids` gets into so many characters."""
    return max(0, room) * 3 // 4 // _ID_BYTES


def read_swarm_ids(value: bytes) -> tuple[bytes, ...]:
    """Return the ids in `swarmIds`; raises ClientError."""
    raw = _unpacked(value)
    if raw is None:
        raise ClientError("swarmIds is not base64", parameter="swarmIds")
    count, rest = divmod(len(raw), _ID_BYTES)
    if rest or not 0 < count <= MOST_SWARMS:
        raise ClientError(
            f"swarmIds must be 1 to {MOST_SWARMS} ids of {_ID_BYTES} bytes, not {len(raw)} bytes",
            parameter="swarmIds",
        )
    return _split(raw)


def encode_joint_reply(unknown: Collection[bytes]) -> bytes:
    """Return the body of the answer to a joint keep-alive: nothing, or the ids that need `started`."""
    return json.dumps({"Unknown": pack_ids(unknown)}).encode() if unknown else b""


def read_unknown(value: object) -> tuple[bytes, ...]:
    """Return the ids that a tracker's `Unknown` (attacker-controlled) names.

    Raises TrackerError for what is no such list: somebody is unknown, and nobody may take it for himself
    alone that he is not.
    """
    if isinstance(value, str) and value.isascii() and len(value) <= 2 * MOST_SWARMS * _ID_BYTES:
        raw = _unpacked(value.encode("ascii"))
        if raw is not None and not len(raw) % _ID_BYTES:
            return _split(raw)
    raise TrackerError("what it says of unknown swarms is no list of ids")


def read_offer(value: object) -> int:
    """Return of how many swarms a request may be by a tracker's `Joint` (attacker-controlled); 0: of one."""
    return min(value, MOST_SWARMS) if type(value) is int and value > 1 else 0


def _unpacked(value: bytes) -> bytes | None:
    """Undo `pack_ids`; None for what is no base64."""
    if b"+" in value or b"/" in value:
        return None  # of another alphabet, and `+` means something else in a query
    try:
        return a2b_base64(value.translate(_TO_STANDARD) + b"=" * (-len(value) % 4), strict_mode=True)
    except NotBase64:
        return None


def _split(raw: bytes) -> tuple[bytes, ...]:
    return tuple(raw[at : at + _ID_BYTES] for at in range(0, len(raw), _ID_BYTES))
