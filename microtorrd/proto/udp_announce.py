"""The UDP tracker protocol in bytes, requests and replies, both directions (BEP 15, URL data of BEP 41).

A client first asks for a connection id (16 bytes each way), which shows the tracker that the client's address
is its own, and then announces or scrapes with it. Every request carries a transaction id of the client's
choice and its reply repeats it. Packets may be longer than what is known here: the rest is for extensions.

Whether a reply holds IPv4 or IPv6 addresses is said by the socket that it came through, not by its bytes. All
of it is attacker-controlled, more than elsewhere: anybody can send a datagram. Only ProtocolError is raised.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple

from microtorrd.errors import ProtocolError
from microtorrd.proto import compact

#: What a connect request carries in the place of a connection id.
PROTOCOL_ID = 0x41727101980
CONNECT, ANNOUNCE, SCRAPE, ERROR = 0, 1, 2, 3

#: A client may use a connection id for this long, a tracker takes it twice as long.
CONNECTION_ID_S = 60.0

#: How many torrents fit one scrape request.
MAX_SCRAPE = 74

#: The largest datagram there is; a receive buffer of this size never cuts a reply.
MAX_DATAGRAM_BYTES = 65_535

#: What fits into one packet on every way that there is: the least packet of IPv6, 1,280 bytes, less its
#: header and that of UDP. A reply in two fragments is lost when either is, and many firewalls drop all.
UNFRAGMENTED_BYTES = 1232

Event = Literal["", "completed", "started", "stopped"]
_EVENTS: tuple[Event, ...] = ("", "completed", "started", "stopped")  # by their numbers

_HEAD = struct.Struct(">QII")  # of every request: connection id, action, transaction
_ANNOUNCE = struct.Struct(">20s20sQQQIIIiH")
_REPLY_HEAD = struct.Struct(">II")  # of every reply: action, transaction
_CONNECTED = struct.Struct(">Q")
_ANNOUNCED = struct.Struct(">III")
_SCRAPED = struct.Struct(">III")

#: Of every request. Nothing shorter is one.
HEAD_BYTES = _HEAD.size

#: What the requests that need a connection id have at least: a scrape asks for one torrent.
LEAST_BYTES = {ANNOUNCE: _HEAD.size + _ANNOUNCE.size, SCRAPE: _HEAD.size + 20}

#: How many bytes of peers fit into a reply.
PEERS_BYTES = UNFRAGMENTED_BYTES - _REPLY_HEAD.size - _ANNOUNCED.size

_END_OF_OPTIONS, _NOP, _URL_DATA = 0, 1, 2
_OPTION_BYTES = 255


class ConnectRequest(NamedTuple):
    """Ask for a connection id."""

    transaction: int


class AnnounceRequest(NamedTuple):
    """Announce; `url_data` is path and query of the tracker's URL (BEP 41), "" sends none."""

    connection: int
    transaction: int
    info_hash: bytes
    peer_id: bytes
    downloaded: int
    left: int
    uploaded: int
    event: Event
    key: int
    numwant: int  # -1: as many as the tracker likes
    port: int
    ip: int = 0  # IPv4 as a number; 0: the sender's. Most trackers ignore it
    url_data: str = ""


class ScrapeRequest(NamedTuple):
    """Ask for the figures of up to `MAX_SCRAPE` torrents."""

    connection: int
    transaction: int
    info_hashes: tuple[bytes, ...]


class ConnectReply(NamedTuple):
    """The connection id to use."""

    transaction: int
    connection: int


class AnnounceReply(NamedTuple):
    """Where the peers are."""

    transaction: int
    interval_s: int
    leechers: int
    seeders: int
    addresses: tuple[tuple[str, int], ...]


class ScrapeReply(NamedTuple):
    """Seeders, downloads ever completed and leechers of each torrent, in the order of the request."""

    transaction: int
    figures: tuple[tuple[int, int, int], ...]


class ErrorReply(NamedTuple):
    """The tracker says no, and why."""

    transaction: int
    message: str


Request = ConnectRequest | AnnounceRequest | ScrapeRequest
Reply = ConnectReply | AnnounceReply | ScrapeReply | ErrorReply


def encode_request(request: Request) -> bytes:
    """The datagram of a request."""
    match request:
        case ConnectRequest(transaction):
            return _HEAD.pack(PROTOCOL_ID, CONNECT, transaction)
        case AnnounceRequest():
            head = _HEAD.pack(request.connection, ANNOUNCE, request.transaction)
            body = _ANNOUNCE.pack(
                request.info_hash,
                request.peer_id,
                request.downloaded,
                request.left,
                request.uploaded,
                _EVENTS.index(request.event),
                request.ip,
                request.key,
                request.numwant,
                request.port,
            )
            return head + body + _url_options(request.url_data)
        case ScrapeRequest(connection, transaction, info_hashes):
            return _HEAD.pack(connection, SCRAPE, transaction) + b"".join(info_hashes)


def read_head(raw: bytes) -> tuple[int, int, int]:
    """Connection id, action and transaction of a client's datagram, which a tracker looks at first."""
    if len(raw) < _HEAD.size:
        raise ProtocolError(f"a request of {len(raw)} bytes is too short")
    connection, action, transaction = _HEAD.unpack_from(raw)
    return connection, action, transaction


def decode_request(raw: bytes) -> Request:
    """Read a client's datagram. Whether its connection id is good is for the tracker to say."""
    connection, action, transaction = read_head(raw)
    if action == CONNECT:
        if connection != PROTOCOL_ID:
            raise ProtocolError("a connect request without the protocol id")
        return ConnectRequest(transaction)
    if action == ANNOUNCE:
        return _decode_announce(raw, connection, transaction)
    if action == SCRAPE:
        hashes = raw[_HEAD.size :]
        count = len(hashes) // 20
        if not 0 < count <= MAX_SCRAPE:
            raise ProtocolError(f"a scrape of {count} torrents")
        return ScrapeRequest(
            connection, transaction, tuple(hashes[i * 20 : i * 20 + 20] for i in range(count))
        )
    raise ProtocolError(f"action {action} is unknown")


def encode_reply(reply: Reply) -> bytes:
    """The datagram of a reply; the addresses of an announce must be of one family."""
    match reply:
        case ConnectReply(transaction, connection):
            return _REPLY_HEAD.pack(CONNECT, transaction) + _CONNECTED.pack(connection)
        case AnnounceReply(transaction, interval_s, leechers, seeders, addresses):
            peers = b"".join(_entry(host, port) for host, port in addresses)
            return encode_announced(transaction, interval_s, leechers, seeders, peers)
        case ScrapeReply(transaction, figures):
            return _REPLY_HEAD.pack(SCRAPE, transaction) + b"".join(_SCRAPED.pack(*row) for row in figures)
        case ErrorReply(transaction, message):
            return _REPLY_HEAD.pack(ERROR, transaction) + message.encode()


def encode_announced(transaction: int, interval_s: int, leechers: int, seeders: int, peers: bytes) -> bytes:
    """The datagram of an AnnounceReply whose peers are compact already, all of one family."""
    head = _REPLY_HEAD.pack(ANNOUNCE, transaction)
    return head + _ANNOUNCED.pack(interval_s, leechers, seeders) + peers


def decode_reply(raw: bytes, *, ipv6: bool, max_addresses: int = 1000) -> Reply:
    """Read a tracker's datagram; `ipv6` as the socket is. At most `max_addresses` are read of it.

    Addresses that no peer can have are left out, as is a fragment of one at the end.
    """
    if len(raw) < _REPLY_HEAD.size:
        raise ProtocolError(f"a reply of {len(raw)} bytes is too short")
    action, transaction = _REPLY_HEAD.unpack_from(raw)
    body = raw[_REPLY_HEAD.size :]
    if action == CONNECT:
        if len(body) < _CONNECTED.size:
            raise ProtocolError("a connect reply without a connection id")
        return ConnectReply(transaction, _CONNECTED.unpack_from(body)[0])
    if action == ANNOUNCE:
        if len(body) < _ANNOUNCED.size:
            raise ProtocolError("an announce reply that is too short")
        interval_s, leechers, seeders = _ANNOUNCED.unpack_from(body)
        entry_bytes = compact.ENTRY6_BYTES if ipv6 else compact.ENTRY_BYTES
        addresses = compact.unpack_many(body[_ANNOUNCED.size :], entry_bytes, max_addresses)
        return AnnounceReply(transaction, interval_s, leechers, seeders, tuple(addresses))
    if action == SCRAPE:
        whole = len(body) - len(body) % _SCRAPED.size
        return ScrapeReply(transaction, tuple(_SCRAPED.iter_unpack(body[:whole])))
    if action == ERROR:
        return ErrorReply(transaction, body.rstrip(b"\0").decode("utf-8", "replace"))
    raise ProtocolError(f"action {action} is unknown")


def _decode_announce(raw: bytes, connection: int, transaction: int) -> AnnounceRequest:
    if len(raw) < _HEAD.size + _ANNOUNCE.size:
        raise ProtocolError("an announce that is too short")
    info_hash, peer_id, downloaded, left, uploaded, event, ip, key, numwant, port = _ANNOUNCE.unpack_from(
        raw, _HEAD.size
    )
    return AnnounceRequest(
        connection=connection,
        transaction=transaction,
        info_hash=info_hash,
        peer_id=peer_id,
        downloaded=downloaded,
        left=left,
        uploaded=uploaded,
        # An event nobody knows is an announce like any other.
        event=_EVENTS[event] if event < len(_EVENTS) else "",
        key=key,
        numwant=numwant,
        port=port,
        ip=ip,
        url_data=_read_url_data(raw[_HEAD.size + _ANNOUNCE.size :]),
    )


def _entry(host: str, port: int) -> bytes:
    packed = compact.read_host(host)
    if packed is None:
        raise ValueError(f"{host!r} is no peer's address")
    return compact.pack(packed, port)


def _url_options(url_data: str) -> bytes:
    raw = url_data.encode()
    chunks: Sequence[bytes] = [raw[at : at + _OPTION_BYTES] for at in range(0, len(raw), _OPTION_BYTES)]
    return b"".join(bytes((_URL_DATA, len(chunk))) + chunk for chunk in chunks)


def _read_url_data(options: bytes) -> str:
    """The URL data among the options; what is cut or unknown is passed over (BEP 41)."""
    parts = []
    at = 0
    while at < len(options) and options[at] != _END_OF_OPTIONS:
        if options[at] == _NOP:
            at += 1
            continue
        if at + 1 >= len(options):
            break
        end = at + 2 + options[at + 1]
        if options[at] == _URL_DATA:
            parts.append(options[at + 2 : end])
        at = end
    return b"".join(parts).decode("utf-8", "replace")
