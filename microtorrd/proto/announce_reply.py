"""What a tracker answers to an announce over HTTP, in both dialects and both directions.

JSON in the MicroTorr dialect, as the original's tracker writes it; bencoding in the BitTorrent dialect: BEP 3
with 7, 23, 24 and 31. What is read of a reply is attacker-controlled and raises nothing but TrackerError.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any, Literal

from msgspec import Struct

from microtorrd.errors import TrackerError
from microtorrd.proto import compact, joint
from microtorrd.proto.announce import Dialect
from microtorrd.proto.go_json import go_string
from microtorrd.proto.tracker_reply import LONGEST_SILENCE_S, for_people, read_fields

#: What the original answers to `completed` and `stopped`.
GOODBYE = b"Peer exited the swarm"

#: The largest reply that is read: 1,000 peers with their ids take about 70 kB.
MAX_REPLY_BYTES = 256 << 10
#: Peers kept of one reply. A tracker that lists a million is wrong or hostile; nobody dials so many.
MAX_REPLY_PEERS = 1000


class AnnounceReply(Struct, frozen=True):
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


def parse_reply(raw: bytes, dialect: Dialect, *, status: int = 200, is_joint: bool = False) -> AnnounceReply:
    """Read what a tracker answered to an announce in this dialect, with this HTTP status. `is_joint`: to a
    joint keep-alive, about which nothing is said by what would do for a single one.

    Raises TrackerError with a short reason, and PeerForgotten where the tracker wants `started` again. The
    form is told by the first byte, since some trackers answer in the other dialect when they refuse.
    """
    if len(raw) > MAX_REPLY_BYTES:
        raise TrackerError(f"the reply is longer than {MAX_REPLY_BYTES} bytes")
    text = raw.strip()
    if dialect == "microtorr" and status == 200 and (not text or (text == GOODBYE and not is_joint)):
        return AnnounceReply()
    fields = read_fields(text, status)
    if is_joint:
        return AnnounceReply(unknown=joint.read_unknown(fields.get("Unknown")))
    if text[:1] == b"{":
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
