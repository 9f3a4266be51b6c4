"""Times as people and programs read them: RFC 3339 text in UTC, to the second."""

from __future__ import annotations

import time

#: The last second of the year 9999, where four digits end.
_LATEST = 253_402_300_799


def rfc3339(at: float) -> str:
    """A time since the epoch as text; what lies beyond the calendar becomes its nearest end."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(max(at, 0), _LATEST)))
