"""One HTTP exchange with a tracker, by requests: bounded in time, in bytes and in where it may lead.

Rules:
- waits: for the connection, for each read, and (by whoever calls, who knows the whole) for everything;
- a reply is cut off at its bound, whatever the headers say and however well it was packed;
- redirects are followed by hand: five, to http and https only, from https to https only, and never from a
  host far away to one that is near (our own machine, our own network);
- the environment has no say (proxies, netrc, certificate bundles); cookies are not kept;
- keep-alives, which come by hundreds a second, may go by a line of our own (tracker_line) to a tracker whose
  answers leave nothing for a library to do.

Raises TrackerUnreachable where nothing came back and TrackerError where what came back is of no use. What the
bytes of a reply mean is not known here.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar

from microtorrd import __version__
from microtorrd.core.tiers import DEFAULT_PORTS, Place, place_of
from microtorrd.errors import TrackerError, TrackerUnreachable
from microtorrd.net.redirects import next_hop
from microtorrd.net.routes import Route, Routes, is_nearer
from microtorrd.net.tracker_line import Far, Lines, is_plain
from microtorrd.proto.announce_reply import MAX_REPLY_BYTES

USER_AGENT = f"microtorrd/{__version__}"

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK_BYTES = 16 << 10
#: Source addresses that say "any, but of this family".
_ANY = {False: "0.0.0.0", True: "::"}
_MOST_SESSIONS = 8
#: The other side closed the connection instead of answering.
_CUT = (ConnectionResetError, BrokenPipeError)  # RemoteDisconnected is one of the former

#: What requests leaves as it is in the path and the query of a URL; and host names without anything odd.
_UNESCAPED = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")

# What a tracker does wrong is told once, by us, and not in a line of the library's for each time.
logging.getLogger("urllib3").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of one exchange."""

    connect_s: float = 5.0
    read_s: float = 10.0  # between two reads
    reply_bytes: int = MAX_REPLY_BYTES
    redirects: int = 5
    hosts: int = 32  # whose connections are kept open
    connections: int = 16  # kept open to one host


class HttpReply(NamedTuple):
    """What came back: any status but a redirect."""

    status: int
    body: bytes
    retry_after_s: float | None


def with_query(url: str, query: str) -> str:
    """The URL with these parameters added to those it has (passkeys live there); a fragment is left out."""
    parts = urlsplit(url)
    joined = f"{parts.query}&{query}" if parts.query else query
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", joined, ""))


@lru_cache(maxsize=256)
def _plain_head(url: str, accept: str) -> tuple[bytes, bytes] | None:
    """What comes before a query and behind it in a request for `url`, as requests would write it; None for a
    URL with something in it that is to be escaped, or with a name and a password."""
    parts, place = urlsplit(url), place_of(url)
    if place is None or "@" in parts.netloc or not _UNESCAPED.fullmatch(f"{parts.path}?{parts.query}"):
        return None
    host = f"[{place.host}]" if ":" in place.host else place.host
    if not _HOST.fullmatch(host):
        return None
    named = host if place.port == DEFAULT_PORTS["http"] else f"{host}:{place.port}"
    start = f"{parts.path or '/'}?{parts.query}{'&' if parts.query else ''}"
    rest = (
        f" HTTP/1.1\r\nHost: {named}\r\nUser-Agent: {USER_AGENT}\r\nAccept-Encoding: gzip\r\n"
        f"Accept: {accept}\r\nConnection: keep-alive\r\n\r\n"
    )
    return f"GET {start}".encode("ascii"), rest.encode("ascii")


class HttpTracker:
    """The HTTP client of all announces: keeps connections to trackers open between them."""

    def __init__(
        self, routes: Routes, limits: HttpLimits | None = None, *, verify: bool | str = True
    ) -> None:
        """`verify`: how certificates are checked, as requests takes it (True, or the path of a bundle)."""
        self._routes = routes
        self._limits = limits or HttpLimits()
        self._verify = verify
        self._sessions: dict[str | None, requests.Session] = {}
        self._lines = Lines(
            connect_s=self._limits.connect_s,
            read_s=self._limits.read_s,
            reply_bytes=self._limits.reply_bytes,
            connections=self._limits.connections,
        )

    def get(
        self,
        url: str,
        *,
        accept: str,
        query: str = "",
        ipv6: bool | None = None,
        is_keep_alive: bool = False,
    ) -> HttpReply:
        """GET `url` with `query` added, following redirects. `ipv6` binds it to one family, None takes any.

        `is_keep_alive`: it is one of many and does no harm when it is said twice.
        """
        place, origin = self._place(url), None
        for hop in range(self._limits.redirects + 1):
            route = self._route(place, ipv6)
            origin = origin or route
            if hop and is_nearer(route.scope, origin.scope):
                raise TrackerError("it redirects to a host of our own network")
            source = route.local if route.pinned else None if ipv6 is None else _ANY[route.is_ipv6]
            line = None
            if is_keep_alive and not hop and place.scheme == "http":
                line = Far(route.remote, place.port, source)
                if (reply := self._by_line(line, url, query, accept)) is not None:
                    return reply
            full = with_query(url, query) if query else url
            told = self._exchange(self._session(source), full, accept, line)
            if isinstance(told, HttpReply):
                return told
            url, query = next_hop(full, told), ""
            place = self._place(url)
        raise TrackerError(f"more than {self._limits.redirects} redirects")

    def close_idle(self) -> None:
        """Close the connections that nobody uses at the moment."""
        self._lines.close_idle()
        for session in self._sessions.values():
            for adapter in session.adapters.values():
                adapter.close()

    def _place(self, url: str) -> Place:
        place = place_of(url)
        if place is None:
            raise TrackerError("not an HTTP address")
        return place

    def _by_line(self, line: Far, url: str, query: str, accept: str) -> HttpReply | None:
        head = _plain_head(url, accept)
        told = None if head is None else self._lines.ask(line, head[0] + query.encode("ascii") + head[1])
        return None if told is None else HttpReply(*told)

    def _route(self, place: Place, ipv6: bool | None) -> Route:
        for route in self._routes.find(place.host, place.port):
            if ipv6 is None or route.is_ipv6 == ipv6:
                return route
        raise TrackerUnreachable(f"no way to {place.host} by {'IPv6' if ipv6 else 'IPv4'}")

    def _exchange(
        self, session: requests.Session, url: str, accept: str, line: Far | None
    ) -> HttpReply | str:
        """One request and its reply, or where that redirects to. `line`: by which it may go next time."""
        try:
            request = session.prepare_request(requests.Request("GET", url, headers={"Accept": accept}))
            with self._send(session, request) as response:
                location = response.headers.get("Location")
                if response.status_code in _REDIRECTS and location:
                    return location
                body = self._read(response)
                if line is not None:
                    plain = is_plain(
                        response.status_code, response.headers, is_1_1=response.raw.version == 11
                    )
                    self._lines.heard(line, is_plain=plain)
                return HttpReply(response.status_code, body, _retry_after_s(response))
        except (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError) as error:
            raise _told(error, self._limits) from error

    def _send(self, session: requests.Session, request: requests.PreparedRequest) -> requests.Response:
        for attempt in (1, 2):
            try:
                return session.send(
                    request,
                    stream=True,
                    allow_redirects=False,
                    verify=self._verify,
                    timeout=(self._limits.connect_s, self._limits.read_s),
                )
            except requests.ConnectionError as error:
                # A connection kept open may have been closed by the other side just when we used it again.
                if attempt == 2 or _find(error, _CUT) is None:
                    raise
        raise AssertionError("the second attempt returns or raises")

    def _read(self, response: requests.Response) -> bytes:
        most = self._limits.reply_bytes
        body = bytearray()
        for chunk in response.iter_content(_CHUNK_BYTES):
            body += chunk
            if len(body) > most:
                raise TrackerError(f"the reply is longer than {most} bytes")
        return bytes(body)

    def _session(self, source: str | None) -> requests.Session:
        session = self._sessions.get(source)
        if session is None:
            if len(self._sessions) >= _MOST_SESSIONS:  # the interface's address changes again and again
                self._sessions.pop(next(iter(self._sessions))).close()
            session = self._sessions[source] = requests.Session()
            session.trust_env = False
            session.cookies = RequestsCookieJar(DefaultCookiePolicy(allowed_domains=[]))
            session.headers["User-Agent"] = USER_AGENT
            session.headers["Accept-Encoding"] = "gzip"
            adapter = _BoundAdapter(source, self._limits)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
        return session


class _BoundAdapter(HTTPAdapter):
    """Connects from one source address."""

    def __init__(self, source: str | None, limits: HttpLimits) -> None:
        self._source_address = None if source is None else (source, 0)
        super().__init__(pool_connections=limits.hosts, pool_maxsize=limits.connections)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, source_address=self._source_address, **options)


def _retry_after_s(response: requests.Response) -> float | None:
    """What a tracker that is busy wishes. The other form of the header, a date, is not worth its clock."""
    value = response.headers.get("Retry-After", "").strip()
    busy = response.status_code in (429, 503)
    return float(value) if busy and value.isascii() and value.isdigit() and len(value) <= 6 else None


def _told(error: Exception, limits: HttpLimits) -> TrackerError:
    """Say in a few words what went wrong, and whether anything came back at all."""
    if isinstance(error, requests.ConnectTimeout):
        return TrackerUnreachable(f"no connection within {limits.connect_s:g} s")
    if isinstance(error, requests.ReadTimeout) or _find(error, (urllib3.exceptions.ReadTimeoutError,)):
        return TrackerUnreachable(f"no answer within {limits.read_s:g} s")
    if isinstance(error, requests.exceptions.SSLError):
        return TrackerError(f"TLS failed: {_find(error, (OSError,), deepest=True) or error}")
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return TrackerError("the reply cannot be unpacked")
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return TrackerError("the reply broke off")
    if _find(error, _CUT) is not None:
        return TrackerUnreachable("it closed the connection without an answer")
    if _find(error, (HTTPException,)) is not None:
        return TrackerError("it does not speak HTTP")
    cause = _find(error, (OSError,), deepest=True)
    if cause is not None and cause.strerror:
        return TrackerUnreachable(cause.strerror)
    return TrackerError(f"the request failed: {type(error).__name__}")


_E = TypeVar("_E", bound=BaseException)


def _find(error: BaseException, kinds: tuple[type[_E], ...], *, deepest: bool = False) -> _E | None:
    """The first (or the last) error of these kinds among those that requests wrapped in one another."""
    found = None
    inside: BaseException | None = error
    for _ in range(10):
        if inside is None:
            break
        if isinstance(inside, kinds):
            found = inside
            if not deepest:
                break
        wrapped = [
            thing
            for thing in (getattr(inside, "reason", None), *inside.args)
            if isinstance(thing, BaseException)
        ]
        inside = wrapped[0] if wrapped else inside.__cause__ or inside.__context__
    return found
