"""Text for people: sizes, rates, times, tables; and JSON for programs.

Names, comments and messages come from strangers: whatever is shown goes through `clean` first, so that
nothing in them can steer a terminal or break a line. Colours appear only on a terminal, and not with
NO_COLOR. Nothing here draws over itself: that is `progress`.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal, TextIO

import msgspec

Row = Mapping[str, Any]
Color = Literal["red", "green", "yellow", "blue", "cyan", "dim", "bold"]

#: SGR parameters of ECMA-48.
_SGR: dict[Color, str] = {
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
    "dim": "2",
    "bold": "1",
}

STATE_COLORS: dict[str, Color] = {
    "downloading": "cyan",
    "seeding": "green",
    "checking": "yellow",
    "resolving": "yellow",
    "waiting": "yellow",
    "stopped": "dim",
    "failed": "red",
}

NOTHING = "-"

#: Columns of characters that a shortened name keeps as long as something else can go; and in any case.
LEGIBLE = 20
CRAMPED = 12

# ------------------------------------------------------------------------------------------------ terminals


def is_terminal(stream: TextIO) -> bool:
    """Whether people look at this stream, on something that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def wants_color(stream: TextIO) -> bool:
    """Whether to colour what goes there (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def paint(text: str, color: Color | None, stream: TextIO | None = None) -> str:
    """The text in this colour where the stream (standard output) takes colours."""
    if color is None or not wants_color(stream or sys.stdout):
        return text
    return f"\x1b[{_SGR[color]}m{text}\x1b[0m"


def clean(text: object) -> str:
    """The text on one line, with nothing in it that a terminal would obey."""
    string = str(text)
    if string.isprintable():
        return string
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in string
    )


# -------------------------------------------------------------------------------------------------- numbers


def size(value: float) -> str:
    """Bytes with three digits that matter: `512 B`, `1.46 MB`, `20.4 GB`; powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 999.5 or unit == "PB":
            break
        value /= 1000
    if unit == "B" or value >= 99.95:
        return f"{value:.0f} {unit}"
    return f"{value:.1f} {unit}" if value >= 9.995 else f"{value:.2f} {unit}"


def exact_size(value: int) -> str:
    """Bytes for people, and all digits too where the short form hides some."""
    return size(value) if value < 1000 else f"{size(value)} ({value:,} bytes)"


def piece_size(value: int) -> str:
    """A piece length: those of powers of two are spelled in KiB and MiB."""
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value and value % factor == 0:
            return f"{value // factor} {unit}"
    return f"{value} B"


def rate(value: float) -> str:
    """Bytes a second; a dash for none."""
    return f"{size(value)}/s" if value >= 0.5 else NOTHING


def limit(value: int | None) -> str:
    """A limit in bytes a second, where 0 is none."""
    return f"{size(value)}/s" if value else "none"


def percent(share: float | None) -> str:
    """A share of 0 to 1. It says 100% only when nothing is missing."""
    if share is None:
        return NOTHING
    if share >= 1:
        return "100%"
    return f"{int(share * 1000) / 10:.1f}%"


def duration(seconds: float | None) -> str:
    """A time span by its two largest units: `0.4s`, `45s`, `2m 05s`, `3h 20m`, `12d 4h`."""
    if seconds is None:
        return NOTHING
    if 0 < seconds < 9.95:
        return f"{seconds:.1f}s".replace(".0s", "s")
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def moment(text: str | None) -> str:
    """An RFC 3339 time in the local zone, to the second."""
    if text is None:
        return NOTHING
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return clean(text)


def clock(text: object) -> str:
    """The time of day of an RFC 3339 time, in the local zone."""
    return moment(str(text))[-8:]


# --------------------------------------------------------------------------------------------------- tables


def columns_of(text: str) -> int:
    """How many columns the text takes on a terminal: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.combining(char) or unicodedata.category(char) in ("Cf", "Me", "Mn")
        else 2
        if unicodedata.east_asian_width(char) in "WF"
        else 1
        for char in text
    )


def cut(text: str, columns: int) -> str:
    """The text shortened to this many columns, with an ellipsis."""
    if columns_of(text) <= columns:
        return text
    kept = ""
    for char in text:
        if columns_of(kept + char) > columns - 1:
            break
        kept += char
    return kept + "…"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its head, what it shows of a row, how it lies and looks."""

    head: str
    value: Callable[[Row], str]
    right: bool = False
    color: Callable[[Row], Color | None] | None = None
    gives_way: bool = False  # shortened when the terminal is too narrow
    leaves: int = 0  # and left out when that is not enough, the lowest number first; 0: never


def table(columns: Sequence[Column], rows: Sequence[Row], stream: TextIO | None = None) -> str:
    """The rows under their heads, aligned with spaces. Only a terminal gets shortened names and colours."""
    out = stream or sys.stdout
    cells = [[clean(column.value(row)) for column in columns] for row in rows]
    widths = [
        max(columns_of(text) for text in [column.head, *(line[at] for line in cells)])
        for at, column in enumerate(columns)
    ]
    if is_terminal(out):
        kept = _fit(columns, widths, terminal_columns(out))
        columns, widths = [columns[at] for at in kept], [widths[at] for at in kept]
        cells = [[line[at] for at in kept] for line in cells]
    heads = [_lay(column.head, column, width) for column, width in zip(columns, widths, strict=True)]
    lines = [paint("  ".join(heads).rstrip(), "bold", out)]
    for row, texts in zip(rows, cells, strict=True):
        laid = [
            _lay(text, column, width, None if column.color is None else column.color(row), out)
            for text, column, width in zip(texts, columns, widths, strict=True)
        ]
        lines.append("  ".join(laid).rstrip())
    return "\n".join(lines)


def terminal_columns(stream: TextIO) -> int:
    """How wide the terminal is: COLUMNS, or what the kernel says."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _fit(columns: Sequence[Column], widths: list[int], available: int) -> list[int]:
    """Which of the columns are shown where so many characters fit in a line; makes `widths` narrower."""
    kept = list(range(len(columns)))
    least = [
        min(widths[at], max(len(column.head), LEGIBLE)) if column.gives_way else widths[at]
        for at, column in enumerate(columns)
    ]
    for at in sorted((at for at in kept if columns[at].leaves), key=lambda at: columns[at].leaves):
        if _together(least, kept) <= available:
            break
        kept.remove(at)
    excess = _together(widths, kept) - available
    for at in kept:
        column = columns[at]
        if column.gives_way and excess > 0:
            narrower = max(len(column.head), CRAMPED, widths[at] - excess)
            excess -= max(0, widths[at] - narrower)
            widths[at] = min(widths[at], narrower)
    return kept


def _together(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[at] for at in kept) + 2 * (len(kept) - 1)


def _lay(
    text: str, column: Column, width: int, color: Color | None = None, stream: TextIO | None = None
) -> str:
    shown = cut(text, width)
    space = " " * (width - columns_of(shown))
    drawn = paint(shown, color, stream)
    return space + drawn if column.right else drawn + space


# ------------------------------------------------------------------------------------------------- details


def pairs(items: Iterable[tuple[str, str]], indent: str = "") -> str:
    """Lines of `name  value`, the values aligned."""
    kept = [(clean(name), clean(value)) for name, value in items]
    width = max((columns_of(name) for name, _ in kept), default=0)
    return "\n".join(f"{indent}{name}{' ' * (width - columns_of(name))}  {value}" for name, value in kept)


def by_name(name: str, value: Any) -> str:
    """A value of any answer, spelled as the unit in its name says."""
    if value in (None, "", []):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if name.endswith("_per_s"):
            return rate(value)
        if name in ("down", "up"):
            return limit(int(value))
        if name.endswith("_bytes"):
            return exact_size(int(value))
        if name.endswith("_s"):
            return duration(value)
        if name in ("share", "progress", "checked", "from_seeders"):
            return percent(value)
        if name == "piece_length":
            return piece_size(int(value))
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, list | tuple):
        return ", ".join(clean(item) for item in value) if _is_plain(value) else f"{len(value)} of them"
    if name.endswith(("_at", "_date")):
        return moment(str(value))
    return clean(value)


def _is_plain(values: Sequence[Any]) -> bool:
    return not any(isinstance(value, list | dict) for value in values)


def facts(answer: Mapping[str, Any], indent: str = "") -> str:
    """Any answer of the daemon, whatever is in it: plain values first, then groups, then lists as tables."""
    groups = {name: value for name, value in answer.items() if isinstance(value, Mapping)}
    tables = {name: value for name, value in answer.items() if _is_table(value)}
    plain = [name for name in answer if name not in groups and name not in tables]
    parts = [pairs([(label(name), by_name(name, answer[name])) for name in plain], indent)]
    parts += [
        f"{indent}{label(name)}\n{facts(group, indent + '  ')}" for name, group in groups.items() if group
    ]
    parts += [f"{indent}{label(name)}\n{_any_table(rows, indent + '  ')}" for name, rows in tables.items()]
    return ("\n" if indent else "\n\n").join(part for part in parts if part)


def label(name: str) -> str:
    """The name of a key for people; the unit in it shows in the value."""
    for suffix in ("_bytes_per_s", "_bytes", "_per_s", "_s"):
        name = name.removesuffix(suffix)
    return clean(name.replace("_", " "))


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _any_table(rows: Sequence[Row], indent: str) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = [Column(label(name).upper(), partial(_value_of, name)) for name in names]
    return "\n".join(indent + line for line in table(columns, rows).split("\n"))


def _value_of(name: str, row: Row) -> str:
    value = row.get(name)
    if name.endswith("_bytes") or name == "bytes":
        return NOTHING if value is None else size(value)
    return by_name(name, value)


# ----------------------------------------------------------------------------------------------------- JSON


def as_json(value: Any) -> str:
    """The value as JSON over several lines."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def as_json_line(value: Any) -> str:
    """The value as JSON on one line, for streams."""
    return msgspec.json.encode(value).decode()
