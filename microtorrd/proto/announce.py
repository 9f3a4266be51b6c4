"""Announcing to a tracker over HTTP: request and reply, in both dialects and both directions.

The MicroTorr dialect is what the original Go program speaks: five parameters, JSON back. The BitTorrent
dialect is BEP 3 with 7, 23 and 24, 31: bencoding back. What is read of a request raises nothing but
ClientError, which names the parameter as the client spelled it; what is read of a reply raises nothing but
TrackerError. This room knows what the bytes mean, not who is in a swarm: that is tracker/'s, and net/'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, NamedTuple
from urllib.parse import quote_from_bytes

from microtorrd.errors import ClientError, TrackerError
from microtorrd.proto import compact, joint
from microtorrd.proto.go_json import go_string
from microtorrd.proto.query import Params, read_number, read_swarm_id, unescape
from microtorrd.proto.tracker_reply import LONGEST_SILENCE_S, for_people, read_fields

Dialect = Literal["microtorr", "bittorrent"]
#: "" is the regular announce of the BitTorrent dialect, `alive` that of MicroTorr's.
Event = Literal["", "started", "stopped", "completed", "alive"]

#: How often a client of the MicroTorr dialect says `alive`, and after what silence it is forgotten: the
#: original's figures, fixed because its replies carry none.
ALIVE_INTERVAL_S = 15
ALIVE_LIFETIME_S = 30

#: What the original answers to `completed` and `stopped`.
GOODBYE = b"Peer exited the swarm"

#: The largest reply that is read: 1,000 peers with their ids take about 70 kB.
MAX_REPLY_BYTES = 256 << 10
#: Peers kept of one reply. A tracker that lists a million is wrong or hostile; nobody dials so many.
MAX_REPLY_PEERS = 1000

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
    # empty then; and, with `started`, the question whether the tracker takes such a request.
    swarm_ids: tuple[bytes, ...] = ()
    asks_joint: bool = False


@dataclass(frozen=True, slots=True)
class AnnounceReply:
    """What a tracker answered. None and "" where it did not say; `peers` may have ourselves among them."""

    interval: int | None = None  # seconds
    min_interval: int | None = None
    complete: int | None = None
    incomplete: int | None = None
    peers: tuple[tuple[str, int, bytes | None], ...] = ()  # host (numeric), port, peer id if told
    warning: str = ""
    tracker_id: bytes = b""
    external_ip: str = ""  # BEP 24
    joint: int = 0  # so many swarms can be kept alive by one request; 0: only one
    unknown: tuple[bytes, ...] = ()  # of those of a joint keep-alive, where we are unknown


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
    peer_id = quote_from_bytes(request.peer_id, safe="")
    if dialect == "microtorr":
        # The spellings and the order of the original, which its own tracker needs.
        ip = f"&ip={quote_from_bytes(request.ip.encode(), safe=':')}" if request.ip else ""
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
        words.append(f"ip={quote_from_bytes(request.ip.encode(), safe=':')}")
    return "&".join(words)


# ---------------------------------------------------------------------------------- the reply, tracker's side


def encode_compact_reply(
    *,
    interval: int,
    min_interval: int,
    complete: int,
    incomplete: int,
    peers: bytes,
    peers6: bytes,
    external_ip: bytes,
) -> bytes:
    """Return a bencoded reply with compact peers (BEP 23); `peers6` (BEP 7) is there only when not empty.

    `external_ip` is where the request came from, 4 or 16 bytes (BEP 24).
    """
    head = (
        b"d8:completei%de11:external ip%d:%b10:incompletei%de8:intervali%de12:min intervali%de5:peers%d:%b"
        % (
            complete,
            len(external_ip),
            external_ip,
            incomplete,
            interval,
            min_interval,
            len(peers),
            peers,
        )
    )
    return b"%b6:peers6%d:%be" % (head, len(peers6), peers6) if peers6 else head + b"e"


def encode_list_reply(
    *,
    interval: int,
    min_interval: int,
    complete: int,
    incomplete: int,
    peers: Iterable[tuple[bytes | None, str, int]],
    external_ip: bytes,
) -> bytes:
    """Return a bencoded reply with a list of dictionaries (BEP 3): peer id (None: left out), host, port."""
    items = []
    for peer_id, host, port in peers:
        named = b"" if peer_id is None else b"7:peer id%d:%b" % (len(peer_id), peer_id)
        items.append(b"d2:ip%d:%b%b4:porti%dee" % (len(host), host.encode("ascii"), named, port))
    return (
        b"d8:completei%de11:external ip%d:%b10:incompletei%de8:intervali%de12:min intervali%de5:peersl%bee"
        % (
            complete,
            len(external_ip),
            external_ip,
            incomplete,
            interval,
            min_interval,
            b"".join(items),
        )
    )


def encode_json_reply(
    swarm_id: bytes, peers: Iterable[tuple[bytes, str, int]], *, joint_most: int = 0
) -> bytes:
    """Return the JSON reply of the MicroTorr dialect, byte for byte as the Go program's tracker writes it.

    `peers` are peer id, host, port; of two with the same id the later one is told. Keys are sorted.
    `joint_most` is for who asked about joint keep-alives: how many swarms they may have.
    """
    by_id = {peer_id: (host, port) for peer_id, host, port in peers}
    items = []
    for peer_id, (host, port) in sorted(by_id.items()):
        name = go_string(peer_id)
        items.append(f'{name}:{{"Ip":"{host}","Port":{port},"Id":{name}}}')
    offer = f',"Joint":{joint_most}' if joint_most else ""
    return f'{{"IdHash":"{swarm_id.hex()}","Peers":{{{",".join(items)}}}{offer}}}'.encode()


def encode_failure(reason: str, dialect: Dialect, retry_in: int | Literal["never"] | None = None) -> bytes:
    """Return a failure reason in the dialect; `retry_in` minutes, or never (BEP 31)."""
    if dialect == "microtorr":
        return json.dumps({"failure reason": reason}).encode()
    raw = reason.encode()
    retry = b"" if retry_in is None else b"8:retry in" + _bencoded(retry_in)
    return b"d14:failure reason%d:%b%be" % (len(raw), raw, retry)


def _bencoded(retry_in: int | Literal["never"]) -> bytes:
    return b"5:never" if retry_in == "never" else b"i%de" % retry_in


# ----------------------------------------------------------------------------------- the reply, client's side


def parse_reply(raw: bytes, dialect: Dialect, *, status: int = 200) -> AnnounceReply:
    """Read what a tracker answered to an announce in this dialect, with this HTTP status.

    Raises TrackerError with a short reason, and PeerForgotten where the tracker wants `started` again. The
    form is told by the first byte, since some trackers answer in the other dialect when they refuse.
    """
    if len(raw) > MAX_REPLY_BYTES:
        raise TrackerError(f"the reply is longer than {MAX_REPLY_BYTES} bytes")
    text = raw.strip()
    if dialect == "microtorr" and status == 200 and text in (b"", GOODBYE):
        return AnnounceReply()
    fields = read_fields(text, status)
    if text[:1] == b"{":
        if "Unknown" in fields:
            return AnnounceReply(unknown=joint.read_unknown(fields["Unknown"]))
        return AnnounceReply(peers=_json_peers(fields), joint=joint.read_offer(fields.get("Joint")))
    return AnnounceReply(
        interval=_interval(fields.get("interval")),
        min_interval=_interval(fields.get("min interval")),
        complete=_count(fields.get("complete")),
        incomplete=_count(fields.get("incomplete")),
        peers=_bencoded_peers(fields),
        warning=for_people(fields.get("warning message", "")),
        tracker_id=_tracker_id(fields.get("tracker id")),
        external_ip=_external_ip(fields.get("external ip")),
    )


def _interval(value: object) -> int | None:
    return min(value, LONGEST_SILENCE_S) if isinstance(value, int) and value > 0 else None


def _count(value: object) -> int | None:
    return min(value, 2**31) if isinstance(value, int) and value >= 0 else None


def _tracker_id(value: object) -> bytes:
    return value if isinstance(value, bytes) and len(value) <= 256 else b""


def _external_ip(value: object) -> str:
    return compact.host_text(value) if isinstance(value, bytes) and len(value) in (4, 16) else ""


def _bencoded_peers(fields: dict[str, Any]) -> tuple[tuple[str, int, bytes | None], ...]:
    peers: list[tuple[str, int, bytes | None]] = []
    listed = fields.get("peers")
    if isinstance(listed, bytes):
        found = compact.unpack_many(listed, compact.ENTRY_BYTES, MAX_REPLY_PEERS)
        peers.extend((host, port, None) for host, port in found)
    elif isinstance(listed, list):
        for item in listed[:MAX_REPLY_PEERS]:
            if isinstance(item, dict):
                _add_peer(peers, item.get(b"ip"), item.get(b"port"), item.get(b"peer id"))
    listed6 = fields.get("peers6")
    if isinstance(listed6, bytes):
        room = MAX_REPLY_PEERS - len(peers)
        found = compact.unpack_many(listed6, compact.ENTRY6_BYTES, room)
        peers.extend((host, port, None) for host, port in found)
    return tuple(peers)


def _json_peers(fields: dict[str, Any]) -> tuple[tuple[str, int, bytes | None], ...]:
    listed = fields.get("Peers")
    if not isinstance(listed, dict):
        raise TrackerError("the reply has no Peers")
    peers: list[tuple[str, int, bytes | None]] = []
    for item in islice(listed.values(), MAX_REPLY_PEERS):
        if isinstance(item, dict):
            _add_peer(peers, item.get("Ip"), item.get("Port"), item.get("Id"))
    return tuple(peers)


def _add_peer(
    peers: list[tuple[str, int, bytes | None]], host: object, port: object, peer_id: object
) -> None:
    """Append a peer that can be dialled; names are never looked up, so peers known by one are left out."""
    text = host.decode("latin-1") if isinstance(host, bytes) else host
    name = peer_id.encode("utf-8", "replace") if isinstance(peer_id, str) else peer_id
    if isinstance(text, str) and isinstance(port, int) and 0 < port <= 65535:
        packed = compact.read_host(text)
        if packed is not None:
            known = name if isinstance(name, bytes) and len(name) == 20 else None
            peers.append((compact.host_text(packed), port, known))
