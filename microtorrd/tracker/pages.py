"""What the tracker shows to people and programs: its swarms as a page and as JSON, and its metrics.

Figures only: whose peers they are is told to peers, one swarm at a time. Who may read them is a setting
(`tracker.pages`): those at loopback and private addresses, anybody, nobody. The names of the daemon's
torrents are for the former alone, and only where they ask by address or as `localhost`: others see ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from microtorrd.errors import StoreUnreachable
from microtorrd.proto.query import all_values
from microtorrd.tracker import metrics
from microtorrd.tracker.admission import NameOf, nobody
from microtorrd.tracker.answer import JSON, TEXT, Answer, Origin
from microtorrd.tracker.census import LARGEST, Census, Count, SwarmRow
from microtorrd.tracker.metrics import Held, ServerFigures
from microtorrd.tracker.service import TrackerService
from microtorrd.tracker.settings import Readers
from microtorrd.tracker.source import SourceRule, is_rebindable
from microtorrd.tracker.store import StoreBounds

#: Swarms in one reply, and where nobody says how many.
MOST_SWARMS = LARGEST
USUAL_SWARMS = 100

NOT_FOR_STRANGERS = Answer(403, TEXT, b"this page is for private addresses\n")
NOT_FOUND = Answer(404, TEXT, b"404 page not found\n")

_ID = re.compile(r"[0-9a-fA-F]{40}")


class Front(NamedTuple):
    """What stands on the page for people."""

    totals: dict[str, int]
    swarms: list[dict[str, Any]]  # the largest, as in the JSON
    takes_passkeys: bool


class Pages:
    """The pages of one tracker. `readers` may be changed while it runs."""

    def __init__(
        self,
        service: TrackerService,
        census: Census,
        sources: SourceRule,
        bounds: StoreBounds,
        *,
        readers: Readers,
        name_of: NameOf,
    ) -> None:
        self.readers: Readers = readers
        #: What the server has counted, asked for with the metrics.
        self.figures: Callable[[], ServerFigures] = ServerFigures
        self._service = service
        self._census = census
        self._sources = sources
        self._bounds = bounds
        self._name_of = name_of

    def refusal(self, origin: Origin) -> Answer | None:
        """Return the answer to who may not read any page; None for others."""
        if self.readers == "never":
            return NOT_FOUND
        if self.readers == "private" and not self._is_near(origin):
            return NOT_FOR_STRANGERS
        return None

    def front(self, origin: Origin) -> Front:
        """Return what the page for people shows."""
        names = self._names_for(origin)
        count = self._census.take()
        rows = [_row(row, names) for row in count.largest[:USUAL_SWARMS]]
        return Front(self._totals(), rows, self._service.takes_passkeys)

    def swarms(self, raw_query: bytes, origin: Origin) -> Answer:
        """Answer `/api/swarms?raw_query`."""
        try:
            wanted = _read(raw_query)
        except ValueError as error:
            return _json({"error": str(error)}, status=400)
        names = self._names_for(origin)
        count = self._census.take()
        rows, following = _chosen(count, wanted)
        return _json(
            {
                "swarms": [_row(row, names) for row in rows],
                "next": following,
                "totals": self._totals(),
                "age_s": round(self._census.age_s(count), 3),
            }
        )

    def swarm(self, text: str, origin: Origin) -> Answer:
        """Answer `/api/swarms/text`: the figures of one swarm, as they are now."""
        if _ID.fullmatch(text):
            swarm_id = bytes.fromhex(text)
            counts = self._service.counts(swarm_id)
            if counts is not None:
                row = SwarmRow(swarm_id, counts.complete, counts.incomplete, counts.downloaded)
                return _json(_row(row, self._names_for(origin)))
        return _json({"error": "no swarm here has this id"}, status=404)

    def metrics(self) -> Answer:
        """Answer `/metrics`."""
        service = self._service
        try:
            held = Held(service.size(), service.complete_peers())
        except StoreUnreachable:  # which is among the figures, and just then they are wanted
            held = None
        found = metrics.families(service.counters, held, self._bounds, self.figures())
        return Answer(200, metrics.CONTENT_TYPE, metrics.render(found))

    def _totals(self) -> dict[str, int]:
        size, complete = self._service.size(), self._service.complete_peers()
        return {
            "swarms": size.swarms,
            "peers": size.peers,
            "complete": complete,
            "incomplete": size.peers - complete,
        }

    def _is_near(self, origin: Origin) -> bool:
        return self._sources.is_private(origin.socket_host, origin.forwarded_for)

    def _names_for(self, origin: Origin) -> NameOf:
        # A web site that lets its own name lead here reads what its visitor may read, through his browser.
        shown = self._is_near(origin) and not is_rebindable(origin.host)
        return self._name_of if shown else nobody


class _Wanted(NamedTuple):
    """What a reader of `/api/swarms` asks for."""

    by_size: bool
    limit: int
    after: bytes  # b"": from the beginning


def _read(raw_query: bytes) -> _Wanted:
    """Read the parameters; ValueError says what is wrong with them."""
    given = {name: _last(raw_query, name) for name in ("order", "limit", "after")}
    order, limit, after = given["order"] or "id", given["limit"] or str(USUAL_SWARMS), given["after"] or ""
    if order not in ("id", "peers"):
        raise ValueError("order must be id or peers")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 6 and 0 < int(limit) <= MOST_SWARMS):
        raise ValueError(f"limit must be a number from 1 to {MOST_SWARMS}")
    if after and order == "peers":
        raise ValueError(f"after goes with order=id only; the largest {MOST_SWARMS} are one page")
    if after and not _ID.fullmatch(after):
        raise ValueError("after must be the id of a swarm, 40 hex digits: what next said")
    return _Wanted(order == "peers", int(limit), bytes.fromhex(after))


def _last(raw_query: bytes, name: str) -> str | None:
    values = all_values(raw_query, name.encode())
    return values[-1].decode("latin-1") if values else None


def _chosen(count: Count, wanted: _Wanted) -> tuple[list[SwarmRow], str | None]:
    """The rows that are wanted, and what to ask for those after them."""
    if wanted.by_size:
        return count.largest[: wanted.limit], None
    start = count.after(wanted.after) if wanted.after else 0
    rows = count.rows(start, wanted.limit)
    has_more = start + wanted.limit < len(count)
    return rows, rows[-1].swarm_id.hex() if has_more else None


def _row(row: SwarmRow, name_of: NameOf) -> dict[str, Any]:
    return {
        "id": row.swarm_id.hex(),
        "name": name_of(row.swarm_id),
        "complete": row.complete,
        "incomplete": row.incomplete,
        "downloaded": row.downloaded,
    }


def _json(value: object, *, status: int = 200) -> Answer:
    return Answer(status, JSON, json.dumps(value).encode() + b"\n")
