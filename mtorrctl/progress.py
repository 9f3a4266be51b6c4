"""How far something is, while it goes on: a bar on a terminal, a line now and then elsewhere.

Everything goes to standard error, so that standard output holds the result alone. rich is imported when
something is drawn, and only then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from mtorrctl import render
from mtorrctl.render import Row

if TYPE_CHECKING:
    from rich.progress import Progress

#: Without a terminal there is a line at each tenth of the way, and none more often than this.
LINE_EVERY_S = 1.0

NAME_COLUMNS = 40
BAR_COLUMNS = 30


class TorrentProgress:
    """Shows one torrent on its way. Use it in a `with`, or close it."""

    def __init__(self, row: Row, stream: TextIO | None = None) -> None:
        """`row` is a row of `torrent.list`; the stream is standard error unless given."""
        out = stream or sys.stderr
        self._row: dict[str, Any] = dict(row)
        self._face: _Face = _Bar(row, out) if render.is_terminal(out) else _Lines(out)
        self._face.show(self._row)

    def update(self, row: Row) -> None:
        """What is known now: any keys of a row; what is missing stays as it was."""
        self._row.update(row)
        if "progress" not in row and "done_bytes" in row:
            total = self._row.get("wanted_bytes") or 0
            self._row["progress"] = row["done_bytes"] / total if total else 1.0
        self._face.show(self._row)

    def close(self) -> None:
        """Nothing more is to come."""
        self._face.close()

    def __enter__(self) -> TorrentProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ContentProgress:
    """How much of the content is read, for the making of a `.mtorrent`; silent without a terminal."""

    def __init__(self, name: str, total_bytes: int, stream: TextIO | None = None) -> None:
        out = stream or sys.stderr
        self._total = total_bytes
        self._began = time.monotonic()
        self._bar: Progress | None = _draw_bar(name, total_bytes, out) if render.is_terminal(out) else None

    @property
    def report(self) -> Callable[[int], None] | None:
        """To be called with the bytes read so far; None when nobody looks."""
        return None if self._bar is None else self._report

    def _report(self, done_bytes: int) -> None:
        assert self._bar is not None
        speed = done_bytes / max(time.monotonic() - self._began, 0.001)
        left_s = (self._total - done_bytes) / speed if speed else None
        share = done_bytes / self._total if self._total else 1.0
        words = f"{render.percent(share)} {render.rate(speed)}, {render.duration(left_s)} left"
        self._bar.update(self._bar.task_ids[0], completed=done_bytes, words=words)

    def __enter__(self) -> ContentProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


class _Face(Protocol):
    """How a torrent's progress looks."""

    def show(self, row: Row) -> None: ...

    def close(self) -> None: ...


class _Lines:
    """A line at each tenth of the way and at each change of state."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._said_state: object = None
        self._said_tenth = -1
        self._said_at = float("-inf")

    def show(self, row: Row) -> None:
        now, state, share = time.monotonic(), row.get("state"), row.get("progress") or 0.0
        tenth = int(share * 10)
        is_due = tenth != self._said_tenth and now - self._said_at >= LINE_EVERY_S
        if state != self._said_state or is_due:
            self._said_state, self._said_tenth, self._said_at = state, tenth, now
            self._stream.write(f"{render.clean(row.get('name', ''))}: {_words(row)}\n")
            self._stream.flush()

    def close(self) -> None:
        """Each line was whole."""


class _Bar:
    """One line of rich's, redrawn."""

    def __init__(self, row: Row, stream: TextIO) -> None:
        self._bar = _draw_bar(str(row.get("name", "")), row.get("wanted_bytes") or 0, stream)

    def show(self, row: Row) -> None:
        total = row.get("wanted_bytes") or 1
        done = (row.get("progress") or 0.0) * total
        self._bar.update(self._bar.task_ids[0], total=total, completed=done, words=_words(row))

    def close(self) -> None:
        self._bar.stop()


def _words(row: Row) -> str:
    state, share = str(row.get("state", "")), row.get("progress")
    if state == "checking" and row.get("checked") is not None:
        share = row["checked"]
    words = [f"{render.percent(share)} {state}".strip()]
    if row.get("down_bytes_per_s"):
        words.append(render.rate(row["down_bytes_per_s"]))
    if row.get("eta_s") is not None:
        words.append(f"{render.duration(row['eta_s'])} left")
    if row.get("peers"):
        words.append("1 peer" if row["peers"] == 1 else f"{row['peers']} peers")
    return ", ".join(words)


def _draw_bar(name: str, total_bytes: int, stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=BAR_COLUMNS),
        TextColumn("{task.fields[words]}", markup=False),
        console=Console(file=stream, highlight=False),
    )
    bar.add_task(render.cut(render.clean(name), NAME_COLUMNS), total=total_bytes or 1, words="")
    bar.start()
    return bar
