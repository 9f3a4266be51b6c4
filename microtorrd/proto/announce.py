"""Announcing to a tracker over HTTP: the request, in both dialects and both directions.

The MicroTorr dialect is what the original Go program speaks: five parameters. The BitTorrent dialect is BEP 3
with 7 and 21. What is read of a request raises nothing but ClientError, which names the parameter as the
client spelled it. This room knows what the bytes mean, not who is in a swarm: that is tracker/'s, and net/'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple
from urllib.parse import quote_from_bytes

from microtorrd.errors import ClientError
from microtorrd.proto import joint
from microtorrd.proto.query import Params, read_number, read_swarm_id, unescape

Dialect = Literal["microtorr", "bittorrent"]
#: "" is the regular announce of the BitTorrent dialect, `alive` that of MicroTorr's.
Event = Literal["", "started", "stopped", "completed", "alive"]

#: After what silence a client of the MicroTorr dialect is forgotten, who says `alive` every 15 s: the
#: original's figures, fixed because its replies carry none.
ALIVE_LIFETIME_S = 30

_EVENTS: dict[Dialect, dict[bytes, Event]] = {
    "microtorr": {b"started": "started", b"stopped": "stopped", b"completed": "completed", b"alive": "alive"},
    # BEP 21 adds `paused`, a partial seed's regular announce; `empty` is BEP 3's other word for none.
    "bittorrent": {
        b"": "",
        b"empty": "",
        b"paused": "",
        b"started": "started",
        b"stopped": "stopped",
        b"completed": "completed",
    },
}


class AnnounceRequest(NamedTuple):
    """What a client tells its tracker. Sizes in bytes; `left` None means that it does not say."""

    swarm_id: bytes  # 20
    peer_id: bytes  # 20
    port: int  # where it listens, 1 to 65535
    event: Event = ""
    ip: str = ""  # the address it says it has, "" for the one it comes from
    uploaded: int = 0
    downloaded: int = 0
    left: int | None = None
    numwant: int | None = None  # None: as many as the tracker likes
    compact: bool = True
    no_peer_id: bool = False
    key: str = ""
    tracker_id: bytes = b""
    paused: bool = (
        False  # a partial seed, which wants nothing though something is left (BEP 21); said over HTTP
    )
    # Of the MicroTorr dialect, see proto.joint: `alive` in all of these instead of in `swarm_id`, which is
    # empty then; and, with `started` or `alive`, the question whether the tracker takes such a request.
    swarm_ids: tuple[bytes, ...] = ()
    asks_joint: bool = False


# -------------------------------------------------------------------------------- the request, tracker's side


def choose_dialect(params: Mapping[bytes, bytes], accepts_json: bool) -> Dialect:
    """Tell the dialect by what the request carries; `accepts_json`: it has `Accept: application/json`."""
    if accepts_json or (b"left" not in params and b"compact" not in params):
        return "microtorr"
    return "bittorrent"


def parse_query(params: Params, dialect: Dialect) -> AnnounceRequest:
    """Read the parameters of an announce; raises ClientError."""
    if dialect == "microtorr" and b"swarmIds" in params:
        return _parse_joint(params)
    numwant = params.get(b"numwant")
    ip, key, tracker_id = params.get(b"ip"), params.get(b"key"), params.get(b"trackerid")
    return AnnounceRequest(
        swarm_id=_read_swarm_id(params),
        peer_id=_read_peer_id(params),
        port=_read_port(params),
        event=_read_event(params, dialect),
        ip=unescape(ip).decode("latin-1") if ip else "",
        uploaded=read_number(params, b"uploaded") or 0,
        downloaded=read_number(params, b"downloaded") or 0,
        left=read_number(params, b"left"),
        # Clients that have no wish send -1.
        numwant=None if numwant is None or numwant[:1] == b"-" else read_number(params, b"numwant"),
        compact=params.get(b"compact") != b"0",
        no_peer_id=params.get(b"no_peer_id", b"0") != b"0",
        key=unescape(key).decode("latin-1") if key else "",
        tracker_id=unescape(tracker_id) if tracker_id else b"",
        asks_joint=dialect == "microtorr" and params.get(b"joint") == b"1",
    )


def _parse_joint(params: Params) -> AnnounceRequest:
    event, ip = params.get(b"event", b""), params.get(b"ip")
    if event != b"alive":
        raise ClientError("swarmIds go with event=alive only", parameter="swarmIds")
    return AnnounceRequest(
        swarm_id=b"",
        swarm_ids=joint.read_swarm_ids(params[b"swarmIds"]),
        peer_id=_read_peer_id(params),
        port=_read_port(params),
        event="alive",
        ip=unescape(ip).decode("latin-1") if ip else "",
    )


def _read_swarm_id(params: Params) -> bytes:
    name, raw = "info_hash", params.get(b"info_hash")
    if raw is None and (raw := params.get(b"swarmId")) is not None:
        name = "swarmId"
    if not raw:
        raise ClientError(f"{name} is missing", parameter=name)
    return _swarm_id(raw, name)


@lru_cache(maxsize=4096)  # the peers of a swarm all send the same
def _swarm_id(raw: bytes, name: str) -> bytes:
    return read_swarm_id(unescape(raw), name)


def _read_peer_id(params: Params) -> bytes:
    name, raw = "peer_id", params.get(b"peer_id")
    if raw is None and (raw := params.get(b"peerId")) is not None:
        name = "peerId"
    if not raw:
        raise ClientError(f"{name} is missing", parameter=name)
    value = unescape(raw)
    if len(value) != 20:
        raise ClientError(f"{name} must be 20 bytes, not {len(value)}", parameter=name)
    return value


def _read_port(params: Params) -> int:
    value = params.get(b"port")
    if not value:
        raise ClientError("port is missing", parameter="port")
    if value.isdigit() and len(value) <= 5 and 0 < (port := int(value)) <= 65535:
        return port
    raise ClientError("port must be a number from 1 to 65535", parameter="port")


def _read_event(params: Params, dialect: Dialect) -> Event:
    value = params.get(b"event", b"")
    event = _EVENTS[dialect].get(value)
    if event is not None:
        return event
    if not value:
        raise ClientError("event is missing", parameter="event")
    known = "started, stopped, completed" + (" or alive" if dialect == "microtorr" else " or none")
    raise ClientError(f"event must be {known}", parameter="event")


# --------------------------------------------------------------------------------- the request, client's side


def encode_query(request: AnnounceRequest, dialect: Dialect) -> str:
    """Return the query string (without `?`) that says this in the dialect."""
    peer_id = _quoted(request.peer_id)
    if dialect == "microtorr":
        # The spellings and the order of the original, which its own tracker needs.
        ip = f"&ip={_quoted(request.ip.encode(), ':')}" if request.ip else ""
        if request.swarm_ids:
            swarm = f"swarmIds={joint.pack_ids(request.swarm_ids)}"
        else:
            swarm = f"swarmId={request.swarm_id.hex()}"
        asks = "&joint=1" if request.asks_joint else ""
        return f"peerId={peer_id}&{swarm}{ip}&port={request.port}&event={request.event}{asks}"
    words = [
        f"info_hash={quote_from_bytes(request.swarm_id, safe='')}",
        f"peer_id={peer_id}",
        f"port={request.port}",
        f"uploaded={request.uploaded}",
        f"downloaded={request.downloaded}",
    ]
    if request.left is not None:
        words.append(f"left={request.left}")
    words.append(f"compact={int(request.compact)}")
    if request.event:
        words.append(f"event={request.event}")
    elif request.paused:
        words.append("event=paused")
    if request.numwant is not None:
        words.append(f"numwant={request.numwant}")
    if request.no_peer_id:
        words.append("no_peer_id=1")
    if request.key:
        words.append(f"key={quote_from_bytes(request.key.encode('latin-1', 'replace'), safe='')}")
    if request.tracker_id:
        words.append(f"trackerid={quote_from_bytes(request.tracker_id, safe='')}")
    if request.ip:
        words.append(f"ip={_quoted(request.ip.encode(), ':')}")
    return "&".join(words)


@lru_cache(maxsize=64)  # it is always the same peer, and its few addresses
def _quoted(raw: bytes, safe: str = "") -> str:
    return quote_from_bytes(raw, safe=safe)
