"""What happened, for the operator: structlog, set up once.

Event names are snake_case facts, values are fields; a logger is bound once per object with `get(...)`.
Nothing is logged per block. A logger may be made before `setup`: level, format and stream are looked up when
it speaks, so a reload changes them for all. What other libraries log through the standard library comes out
here too, from `warning` upwards.

Values may come from the network or from file names: control characters are written as escapes, bytes as hex.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Level = Literal["debug", "info", "warning", "error"]
#: `auto` is `journal` where the journal reads our standard error, and `console` elsewhere.
Format = Literal["auto", "console", "json", "journal"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

#: syslog priorities, as the journal reads them at the head of a line (sd-daemon(3)).
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}


class _Output:
    """Where the lines go and how they look. One for the process: it has one standard error."""

    def __init__(self) -> None:
        self.threshold = logging.INFO
        self.render: Callable[[EventDict], str] = _as_console(colors=False)
        self.stream: TextIO | None = None  # None: whatever sys.stderr is at the moment
        self.lost_lines = 0

    def write(self, line: str) -> None:
        stream = self.stream or sys.stderr
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):
            # The reader of our log has gone (or the stream is closed); the daemon goes on without it.
            self.lost_lines += 1


class Log(structlog.BoundLoggerBase):
    """A logger with bound fields. `debug` below the level costs a comparison."""

    def debug(self, event: str, **fields: Any) -> None:
        """For those who hunt a fault: a peer came, a peer was dropped."""
        if _output.threshold <= logging.DEBUG:
            self._proxy_to_logger("debug", event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        """What an operator wants to find in the log of a healthy daemon."""
        if _output.threshold <= logging.INFO:
            self._proxy_to_logger("info", event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Something is not as it should be; the daemon copes."""
        if _output.threshold <= logging.WARNING:
            self._proxy_to_logger("warning", event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """Somebody has to act, or it is a bug. `exc_info=error` adds the traceback."""
        self._proxy_to_logger("error", event, **fields)


def get(**bound: Any) -> Log:
    """A logger with these fields on every line."""
    return cast(Log, structlog.wrap_logger(None, _PROCESSORS, Log).bind(**bound))


def setup(level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:
    """Choose level, format and stream (standard error unless given). Again at any time, for a reload."""
    chosen = stream or sys.stderr
    if format == "auto":
        format = "journal" if _journal_reads(chosen) else "console"
    _output.threshold = _LEVELS[level]
    _output.stream = stream
    _output.render = {
        "console": _as_console(colors=_wants_colors(chosen)),
        "json": _as_json,
        "journal": _as_journal,
    }[format]
    root = logging.getLogger()
    if not any(isinstance(handler, _FromStandardLibrary) for handler in root.handlers):
        root.addHandler(_FromStandardLibrary())
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _wants_colors(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _journal_reads(stream: TextIO) -> bool:
    """systemd names device and inode of what it gave us (JOURNAL_STREAM in systemd.exec(5))."""
    named = os.environ.get("JOURNAL_STREAM")
    if named is None:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{status.st_dev}:{status.st_ino}"


class _FromStandardLibrary(logging.Handler):
    """What flask, requests, urllib3 and gevent have to say."""

    def __init__(self) -> None:
        super().__init__()
        self._log = get()

    def emit(self, record: logging.LogRecord) -> None:
        speak = {"ERROR": self._log.error, "CRITICAL": self._log.error}.get(
            record.levelname, self._log.warning
        )
        speak("library_message", library=record.name, message=record.getMessage(), exc_info=record.exc_info)


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


def _emit(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    _output.write(_output.render(event))
    raise structlog.DropEvent  # the line is out: there is no logger of structlog's behind this


_PROCESSORS: list[Processor] = [
    structlog.processors.add_log_level,
    _spell_bytes,
    structlog.processors.format_exc_info,
    _emit,
]


# ---------------------------------------------------------------------------------------------- the formats


def _as_console(*, colors: bool) -> Callable[[EventDict], str]:
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


_output = _Output()
