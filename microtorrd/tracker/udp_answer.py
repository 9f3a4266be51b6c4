"""From one datagram to the one that answers it, or to silence. Knows no socket.

Who asks is believed only with a connection id that we gave to his address (`connection_ids.py`). Before that
nothing that we send is larger than what came, or we would be a weapon against whoever is named as its sender:

- a connect request has 16 bytes, and so has its reply;
- an announce or scrape with an id that is unknown or too old gets an error of 29 bytes, less than it has, and
  so many a second at most. After a restart of the tracker its clients have such ids: one that is told so asks
  for a new one at once, one that hears nothing waits for 15 s or more;
- all else that is odd is met with silence. None of these replies is a request that a tracker would answer, so
  that two of them cannot be set on each other.

With a good id the rules are those of the service, as over HTTP, and mistakes are answered with their reason.
The peers of a reply are of the sender's own family, and as many as go into one packet.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from microtorrd import logs
from microtorrd.errors import ClientError, ProtocolError
from microtorrd.proto import udp_announce as udp
from microtorrd.proto.announce import AnnounceRequest, encode_query
from microtorrd.proto.compact import ENTRY6_BYTES, ENTRY_BYTES, host_text, read_host
from microtorrd.rate import Allowance
from microtorrd.tracker.answer import IsWatched, OnRequest, always, request_note
from microtorrd.tracker.connection_ids import ConnectionIds
from microtorrd.tracker.counters import INTERNAL, UNKNOWN_CONNECTION
from microtorrd.tracker.passkeys import split_path
from microtorrd.tracker.service import TrackerService
from microtorrd.tracker.settings import TrackerSettings
from microtorrd.tracker.source import Source, SourceRule

#: Errors a second for connection ids that are none: so many clients that find us restarted are told at once.
ERRORS_PER_S = 1000

_CONNECT = udp.CONNECT.to_bytes(4, "big")

_NOT_CONNECTED = "unknown connection id"

#: How many peers go into one packet: 202 of IPv4, 67 of IPv6.
MOST_PEERS = udp.PEERS_BYTES // ENTRY_BYTES
MOST_PEERS6 = udp.PEERS_BYTES // ENTRY6_BYTES


class UdpAnswerer:
    """Answers datagrams. `clock` is the time of the service, `steady` one that never goes back (None: `clock`
    is such a one), `ids` gives connection ids, and `on_request` (None: nobody) is told of announces while
    `is_watched`, as `answer.Answerer` tells it."""

    def __init__(
        self,
        settings: TrackerSettings,
        service: TrackerService,
        ids: ConnectionIds,
        *,
        clock: Callable[[], float],
        steady: Callable[[], float] | None = None,
        on_request: OnRequest | None,
        is_watched: IsWatched = always,
    ) -> None:
        self._interval_s = settings.interval
        self._service = service
        self._counters = service.counters
        self._ids = ids
        self._clock = clock
        self._steady = steady = steady or clock
        self._on_request = on_request
        self._is_watched = is_watched
        self._sources = SourceRule(settings.ip_parameter, ())  # no proxy says for whom it passes datagrams on
        self._errors = Allowance(ERRORS_PER_S, ERRORS_PER_S, steady())
        self._read_host = lru_cache(maxsize=4096)(read_host)
        self._log = logs.get(room="tracker")

    def waits(self, raw: bytes) -> bool:
        """Whether the answer to this datagram waits for the store: a connection id never does."""
        return self._service.waits and raw[8:12] != _CONNECT

    def answer(self, raw: bytes, socket_host: str) -> bytes | None:
        """Answer a datagram that came from this numeric host; None: with silence. Never raises."""
        try:
            return self._answer(raw, socket_host)
        except Exception as error:
            self._counters.fail("bittorrent", INTERNAL)
            # Without the path behind it, which may have a passkey.
            datagram = raw[: udp.LEAST_BYTES[udp.ANNOUNCE]]
            self._log.error("datagram_failed", datagram=datagram, host=socket_host, exc_info=error)
            return None

    def _answer(self, raw: bytes, socket_host: str) -> bytes | None:
        host = self._read_host(socket_host.partition("%")[0])
        if host is None or len(raw) < udp.HEAD_BYTES:
            return None
        connection, action, transaction = udp.read_head(raw)
        now = self._steady()
        if action == udp.CONNECT:
            if connection != udp.PROTOCOL_ID:
                return None
            return udp.encode_reply(udp.ConnectReply(transaction, self._ids.give(host, now)))
        if not self._ids.is_good(connection, host, now):
            return self._unknown(raw, action, transaction, now)
        try:
            request = udp.decode_request(raw)
            if isinstance(request, udp.AnnounceRequest):
                return self._announce(request, self._sources.source(socket_host, ""), socket_host)
            assert isinstance(request, udp.ScrapeRequest)
            return self._scrape(request)
        except (ProtocolError, ClientError) as error:
            self._count(error)
            return udp.encode_reply(udp.ErrorReply(transaction, str(error)))

    def _unknown(self, raw: bytes, action: int, transaction: int, now: float) -> bytes | None:
        """What somebody gets whose address may be a lie."""
        self._counters.fail("bittorrent", UNKNOWN_CONNECTION)
        least_bytes = udp.LEAST_BYTES.get(action)
        if least_bytes is None or len(raw) < least_bytes or not self._errors.take(now):
            return None
        return udp.encode_reply(udp.ErrorReply(transaction, _NOT_CONNECTED))

    def _announce(self, said: udp.AnnounceRequest, source: Source, socket_host: str) -> bytes:
        is_ipv6 = len(source.host) != 4
        request = AnnounceRequest(
            said.info_hash,
            said.peer_id,
            said.port,
            said.event,
            # Four bytes are not for IPv6 addresses: over IPv6 the field means nothing (BEP 15).
            host_text(said.ip.to_bytes(4, "big")) if said.ip and not is_ipv6 else "",
            said.uploaded,
            said.downloaded,
            said.left,
            None if said.numwant < 0 else min(said.numwant, MOST_PEERS6 if is_ipv6 else MOST_PEERS),
            key=f"{said.key:08x}",
        )
        passkey = self._passkey(said.url_data) if said.url_data else None
        failure = ""
        try:
            answer = self._announced(request, source, passkey, said.transaction)
        except ClientError as error:
            self._count(error)
            failure = str(error)
            answer = udp.encode_reply(udp.ErrorReply(said.transaction, failure))
        if self._on_request is not None and self._is_watched():
            query = encode_query(request, "bittorrent")
            self._on_request(
                request_note(
                    query,
                    socket_host,
                    transport="udp",
                    dialect="bittorrent",
                    request=request,
                    failure=failure,
                    user=self._service.user_of(passkey),
                )
            )
        return answer

    def _passkey(self, url_data: str) -> str | None:
        """The passkey in the path of the tracker's URL, where this tracker has users (BEP 41)."""
        if not self._service.takes_passkeys:
            return None
        path, passkey = split_path(url_data.partition("?")[0].encode())
        return passkey if path == b"/announce" else None

    def _announced(
        self, request: AnnounceRequest, source: Source, passkey: str | None, transaction: int
    ) -> bytes:
        if not request.port:
            raise ClientError("port must be a number from 1 to 65535", parameter="port")
        sample = self._service.announce(request, "bittorrent", source, self._clock(), passkey=passkey)
        # The sender's family came first into it: whoever is of the other one has taken nobody's place.
        if len(source.host) == 4:
            peers = sample.entries[: MOST_PEERS * ENTRY_BYTES]
        else:
            peers = sample.entries6[: MOST_PEERS6 * ENTRY6_BYTES]
        return udp.encode_announced(transaction, self._interval_s, sample.incomplete, sample.complete, peers)

    def _count(self, error: ProtocolError | ClientError) -> None:
        self._counters.fail("bittorrent", error.kind if isinstance(error, ClientError) else ClientError.kind)

    def _scrape(self, said: udp.ScrapeRequest) -> bytes:
        found = self._service.scrape(list(said.info_hashes))
        figures = []
        for info_hash in said.info_hashes:
            counts = found.get(info_hash)
            # Each swarm has its place in the reply, also one that nobody is in.
            figures.append((counts.complete, counts.downloaded, counts.incomplete) if counts else (0, 0, 0))
        return udp.encode_reply(udp.ScrapeReply(said.transaction, tuple(figures)))
