"""What happened, for the operator: structlog, set up once.

Event names are snake_case facts, values are fields; a logger is bound once per object with `get(...)`.
Nothing is logged per block. A logger may be made before `setup`: level, format and stream are looked up when
it speaks, so a reload changes them for all. What other libraries log through the standard library comes out
here too, from `warning` upwards.

How a line looks, and all that takes structlog, is in `log_lines.py`, which is imported with the first line:
a logger by itself is two words of memory, and one that keeps silent costs a comparison.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Literal, TextIO

Level = Literal["debug", "info", "warning", "error"]
#: `auto` is `journal` where the journal reads our standard error, and `console` elsewhere.
Format = Literal["auto", "console", "json", "journal"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _Output:
    """Where the lines go and how they look. One for the process: it has one standard error."""

    def __init__(self) -> None:
        self.threshold = logging.INFO
        self.form = "console"
        self.colors = False
        self.stream: TextIO | None = None  # None: whatever sys.stderr is at the moment
        self.lost_lines = 0

    def say(self, level: str, event: str, bound: dict[str, Any], fields: dict[str, Any]) -> None:
        from microtorrd import log_lines

        line = log_lines.render(level, event, bound, fields, form=self.form, colors=self.colors)
        stream = self.stream or sys.stderr
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):
            # The reader of our log has gone (or the stream is closed); the daemon goes on without it.
            self.lost_lines += 1


class Log:
    """A logger with bound fields."""

    __slots__ = ("_bound",)

    def __init__(self, bound: dict[str, Any]) -> None:
        self._bound = bound

    def debug(self, event: str, **fields: Any) -> None:
        """For those who hunt a fault: a peer came, a peer was dropped."""
        if _output.threshold <= logging.DEBUG:
            _output.say("debug", event, self._bound, fields)

    def info(self, event: str, **fields: Any) -> None:
        """What an operator wants to find in the log of a healthy daemon."""
        if _output.threshold <= logging.INFO:
            _output.say("info", event, self._bound, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Something is not as it should be; the daemon copes."""
        if _output.threshold <= logging.WARNING:
            _output.say("warning", event, self._bound, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Somebody has to act, or it is a bug. `exc_info=error` adds the traceback."""
        _output.say("error", event, self._bound, fields)


def get(**bound: Any) -> Log:
    """A logger with these fields on every line."""
    return Log(bound)


def setup(level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:
    """Choose level, format and stream (standard error unless given). Again at any time, for a reload."""
    chosen = stream or sys.stderr
    if format == "auto":
        format = "journal" if _journal_reads(chosen) else "console"
    _output.threshold = _LEVELS[level]
    _output.stream = stream
    _output.form = format
    _output.colors = _wants_colors(chosen)
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


_output = _Output()
