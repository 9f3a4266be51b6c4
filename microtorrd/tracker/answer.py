"""From a request's raw query to the answer's bytes, for every HTTP server of the tracker.

Flask and the fast front both call this, so that they cannot differ. What a client did wrong goes back to it,
in its dialect, naming the parameter; anything else that goes wrong is a bug of ours: it is logged with its
traceback and answered as "internal error". That makes this the dispatcher of the tracker, one of the few
places where `except Exception` stands.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from microtorrd import logs
from microtorrd.errors import ClientError, StoreUnreachable
from microtorrd.proto.announce import AnnounceRequest, Dialect, choose_dialect, parse_query
from microtorrd.proto.announce_reply import (
    GOODBYE,
    encode_compact_reply,
    encode_failure,
    encode_json_reply,
    encode_list_reply,
)
from microtorrd.proto.compact import host_text, unpack
from microtorrd.proto.joint import MOST_SWARMS, encode_joint_reply
from microtorrd.proto.query import Params, split_query
from microtorrd.proto.scrape import encode_scrape_reply, parse_scrape_query
from microtorrd.tracker.counters import INTERNAL
from microtorrd.tracker.service import TrackerService
from microtorrd.tracker.settings import TrackerSettings
from microtorrd.tracker.source import Source, SourceRule
from microtorrd.tracker.store import Sample

#: Told of every announce: a note of kind `tracker_request`, with what it asked and what came of it. It is
#: called on the hub and must not wait.
OnRequest = Callable[[dict[str, Any]], None]

#: Does anybody read those notes? Making one costs a quarter of an announce.
IsWatched = Callable[[], bool]

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
#: Bencoding has no type of its own; this is what trackers send.
BENCODED = "text/plain"

_INTERNAL = "internal error"


class Answer(NamedTuple):
    """An HTTP answer; `content_type` "" where there is no body."""

    status: int
    content_type: str
    body: bytes


class Origin(NamedTuple):
    """What an HTTP server knows of a request besides its path and query."""

    socket_host: str  # numeric
    accepts_json: bool
    forwarded_for: str  # see `source.forwarded_for`
    host: str = ""  # the header, for pages; "" where there is none


_ALIVE = Answer(200, "", b"")
_GONE = Answer(200, TEXT, GOODBYE)


def accepts_json(accept: str) -> bool:
    """Tell whether an Accept header asks for JSON by name."""
    return JSON in accept.lower()


def always() -> bool:
    """For `is_watched`: make every note."""
    return True


def request_note(
    query: str,
    host: str,
    *,
    transport: Literal["http", "udp"],
    dialect: Dialect,
    request: AnnounceRequest | None,
    failure: str,
    user: str | None,
) -> dict[str, Any]:
    """The facts of one announce, for people: `query` as it came (or would have come over HTTP), `failure` ""
    where all went well.

    The passkey is not among them, but whose it is.
    """
    note: dict[str, Any] = {
        "kind": "tracker_request",
        "query": query,
        "host": host,
        "transport": transport,
        "dialect": dialect,
        "failure": failure,
    }
    if user is not None:
        note["user"] = user
    if request is not None:
        if request.swarm_ids:
            note["swarm_ids"] = [swarm_id.hex() for swarm_id in request.swarm_ids]
        else:
            note["swarm_id"] = request.swarm_id.hex()
        note["peer_id"] = request.peer_id.decode("latin-1")
        note["event"] = request.event
        note["port"] = request.port
    return note


class Answerer:
    """Answers announces and scrapes. `clock` is the time of the service; `on_request` may be None, and is
    told only while `is_watched`."""

    def __init__(
        self,
        settings: TrackerSettings,
        service: TrackerService,
        clock: Callable[[], float],
        on_request: OnRequest | None,
        is_watched: IsWatched = always,
    ) -> None:
        self._settings = settings
        self._service = service
        self.sources = SourceRule(settings.ip_parameter, settings.trusted_proxies)
        self._clock = clock
        self._on_request = on_request
        self._is_watched = is_watched
        self._log = logs.get(room="tracker")

    @property
    def waits(self) -> bool:
        """Whether `announce`, `scrape` and `health` wait for a store: they are for greenlets then."""
        return self._service.waits

    @property
    def takes_passkeys(self) -> bool:
        """Whether `/announce/PASSKEY` and `/scrape/PASSKEY` are answered, too."""
        return self._service.takes_passkeys

    def announce(self, raw_query: bytes, origin: Origin, passkey: str | None = None) -> Answer:
        """Answer `/announce?raw_query`, or `/announce/PASSKEY?raw_query`. Never raises."""
        params = split_query(raw_query)
        dialect = choose_dialect(params, origin.accepts_json)
        try:
            return self._announce(params, dialect, raw_query, origin, passkey)
        except Exception as error:
            self._service.counters.fail(dialect, INTERNAL)
            self._log.error("announce_failed", query=raw_query, host=origin.socket_host, exc_info=error)
            return _failure(_INTERNAL, dialect, status=500)

    def scrape(self, raw_query: bytes, origin: Origin, passkey: str | None = None) -> Answer:
        """Answer `/scrape?raw_query`, or `/scrape/PASSKEY?raw_query`. Never raises."""
        try:
            swarms = self._service.scrape(parse_scrape_query(raw_query), passkey=passkey)
            return Answer(200, BENCODED, encode_scrape_reply(swarms))
        except ClientError as error:
            self._service.counters.fail("bittorrent", error.kind)
            return _failure(str(error), "bittorrent", retry_in=error.retry_in)
        except Exception as error:
            self._service.counters.fail("bittorrent", INTERNAL)
            self._log.error("scrape_failed", query=raw_query, host=origin.socket_host, exc_info=error)
            return _failure(_INTERNAL, "bittorrent")

    def health(self) -> Answer:
        """Answer `/health`: we are here, and this is how much we know."""
        try:
            size = self._service.size()
        except StoreUnreachable as error:
            return Answer(503, JSON, json.dumps({"status": str(error)}).encode())
        facts = {"status": "ok", "swarms": size.swarms, "peers": size.peers}
        return Answer(200, JSON, json.dumps(facts).encode())

    def _announce(
        self, params: Params, dialect: Dialect, raw_query: bytes, origin: Origin, passkey: str | None
    ) -> Answer:
        request: AnnounceRequest | None = None
        failure = ""
        try:
            request = parse_query(params, dialect)
            source = self.sources.source(origin.socket_host, origin.forwarded_for)
            if request.swarm_ids:
                answer = _joint(self._service.keep_alive(request, source, self._clock(), passkey=passkey))
            else:
                sample = self._service.announce(request, dialect, source, self._clock(), passkey=passkey)
                if dialect == "bittorrent":
                    answer = Answer(200, BENCODED, self._bencoded(request, sample, source.host))
                else:
                    answer = self._microtorr(request, source, sample)
        except ClientError as error:
            self._service.counters.fail(dialect, error.kind)
            failure = str(error)
            status = 503 if isinstance(error, StoreUnreachable) else 400
            answer = _failure(failure, dialect, status=status, retry_in=error.retry_in)
        if self._on_request is not None and self._is_watched():
            query = raw_query.decode("latin-1")
            self._on_request(
                request_note(
                    query,
                    origin.socket_host,
                    transport="http",
                    dialect=dialect,
                    request=request,
                    failure=failure,
                    user=self._service.user_of(passkey),
                )
            )
        return answer

    def _bencoded(self, request: AnnounceRequest, sample: Sample, external_ip: bytes) -> bytes:
        if request.compact:
            return encode_compact_reply(
                interval=self._settings.interval,
                min_interval=self._settings.min_interval,
                complete=sample.complete,
                incomplete=sample.incomplete,
                peers=sample.entries,
                peers6=sample.entries6,
                external_ip=external_ip,
            )
        return encode_list_reply(
            interval=self._settings.interval,
            min_interval=self._settings.min_interval,
            complete=sample.complete,
            incomplete=sample.incomplete,
            peers=[
                (None if request.no_peer_id else peer.peer_id, *unpack(peer.entry)) for peer in sample.named
            ],
            external_ip=external_ip,
        )

    def _microtorr(self, request: AnnounceRequest, source: Source, sample: Sample) -> Answer:
        joint_most = MOST_SWARMS if request.asks_joint else 0
        if request.event == "alive":
            if not joint_most:
                return _ALIVE
            return Answer(200, JSON, encode_json_reply(request.swarm_id, (), joint_most=joint_most))
        if request.event != "started":
            return _GONE
        peers = [(peer.peer_id, *unpack(peer.entry)) for peer in sample.named]
        # The original's clients read their own address from the reply.
        peers.append((request.peer_id, host_text(self._service.host_of(request, source)), request.port))
        return Answer(200, JSON, encode_json_reply(request.swarm_id, peers, joint_most=joint_most))


def _joint(unknown: list[bytes]) -> Answer:
    """The answer to a joint keep-alive: as to a single one, unless it must say where the peer is unknown."""
    return Answer(200, JSON, encode_joint_reply(unknown)) if unknown else _ALIVE


def _failure(
    reason: str, dialect: Dialect, *, status: int = 400, retry_in: int | Literal["never"] | None = None
) -> Answer:
    """A refusal: the MicroTorr dialect has the status besides, BitTorrent's clients read 200 only."""
    body = encode_failure(reason, dialect, retry_in)
    return Answer(status, JSON, body) if dialect == "microtorr" else Answer(200, BENCODED, body)
