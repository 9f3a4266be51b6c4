"""Times as people and programs read them: RFC 3339 text in UTC, to the second."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(at: float) -> str:
    """A time since the epoch as text; what lies beyond the calendar becomes its nearest end."""
    latest = datetime.max.replace(tzinfo=UTC).timestamp()
    return (
        datetime.fromtimestamp(min(max(at, 0), latest), UTC)
        .isoformat(timespec="seconds")
        .replace("+00:00", "Z")
    )
