"""How a log line looks: structlog's processors and renderers, and a form of our own for the journal.

Values may come from the network or from file names: control characters are written as escapes, bytes as hex.
"""

from __future__ import annotations

import json
from collections.abc import Callable, MutableMapping
from functools import cache
from typing import Any

from microtorrd.libraries import without

# structlog draws tracebacks with these two where they are installed, and has loggers to be awaited. We use
# none of that, and it costs several times what the rest does.
with without("rich", "better_exceptions", unless_used=("asyncio",)):
    import structlog
    from structlog.typing import EventDict, Processor, WrappedLogger

#: syslog priorities, as the journal reads them at the head of a line (sd-daemon(3)).
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}


def render(
    level: str, event: str, bound: dict[str, Any], fields: dict[str, Any], *, form: str, colors: bool
) -> str:
    """The line, several where there is a traceback; without the break at the end."""
    said: EventDict = {**bound, **fields, "event": event}
    for process in _PROCESSORS:
        said = process(None, level, said)  # type: ignore[assignment]
    return _renderer(form, colors)(said)


@cache
def _renderer(form: str, colors: bool) -> Callable[[EventDict], str]:
    return _as_console(colors) if form == "console" else _as_json if form == "json" else _as_journal


# ------------------------------------------------------------------------------------------- the processors


def _readable(value: Any) -> Any:
    """The value with nothing in it that could steer a terminal or break a line."""
    if isinstance(value, str) and not value.isprintable():
        return value.encode("unicode_escape").decode("ascii")
    return value


def _spell_bytes(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, bytes | bytearray | memoryview):
            event[key] = value.hex()
    return event


_PROCESSORS: tuple[Processor, ...] = (
    structlog.processors.add_log_level,
    _spell_bytes,
    structlog.processors.format_exc_info,
)


# ---------------------------------------------------------------------------------------------- the formats


def _as_console(colors: bool) -> Callable[[EventDict], str]:
    renderer = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=28, sort_keys=False)
    stamp = structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False)

    def render(event: EventDict) -> str:
        exception = event.pop("exception", None)
        line = renderer(None, "", stamp(None, "", {key: _readable(value) for key, value in event.items()}))
        return line if exception is None else "\n".join([line, *_readable_lines(exception)])

    return render


_utc = structlog.processors.TimeStamper(fmt="iso", utc=True)


def _as_json(event: EventDict) -> str:
    stamped = _utc(None, "", event)
    ordered: MutableMapping[str, Any] = {key: stamped.pop(key) for key in ("timestamp", "level", "event")}
    return json.dumps({**ordered, **stamped}, default=str)


def _as_journal(event: EventDict) -> str:
    """`<6>event key=value …`; a traceback follows with the same priority. The journal knows the time."""
    prefix = f"<{_PRIORITIES[event.pop('level')]}>"
    exception = event.pop("exception", None)
    words = [str(event.pop("event")), *(f"{key}={_quoted(value)}" for key, value in event.items())]
    lines = [" ".join(words), *([] if exception is None else _readable_lines(exception))]
    return "\n".join(prefix + line for line in lines)


def _quoted(value: Any) -> str:
    text = str(_readable(str(value)))
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "=') else text


def _readable_lines(exception: str) -> list[str]:
    return [_readable(line) for line in exception.splitlines()]
