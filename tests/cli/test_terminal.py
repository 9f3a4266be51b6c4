"""On a terminal: colours, bars, a live table, questions. And none of them with NO_COLOR or a dumb one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import gevent
import gevent.os
import pytest

from microtorrd.terms import Terms
from tests.cli.program import PROGRAM, Shell
from tests.rpc.fake import mtorrent
from tests.rpc.house import House
from tests.waiting import until


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, shell: Shell, *arguments: str, **environ: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
        self.process = subprocess.Popen(
            [PROGRAM, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=shell.directory,
            env={**shell.environ, "TERM": "xterm-256color", **environ},
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""
        gevent.os.make_nonblocking(self.master)

    def read_until(self, words: str) -> str:
        """All that was seen so far, once these words are in it."""
        with gevent.Timeout(15):
            while words not in self.seen:
                assert self._read(), f"{words!r} never came:\n{self.seen}"
        return self.seen

    def end(self) -> int:
        """Read on to the end; the exit code."""
        with gevent.Timeout(15):
            while self._read():
                continue
        return self.process.wait(timeout=10)

    def interrupt(self) -> None:
        """Press Ctrl-C until it is felt: one that comes just before a blocking read waits for a key."""
        with gevent.Timeout(15):
            while self.process.poll() is None:
                self.process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(timeout=0.2)

    def _read(self) -> bool:
        try:
            chunk = gevent.os.nb_read(self.master, 4096)
        except OSError:  # the last one on the other side has closed it
            return False
        self.seen += chunk.decode()
        return bool(chunk)


@contextlib.contextmanager
def terminal(shell: Shell, *arguments: str, **environ: str) -> Iterator[Terminal]:
    """Closed at the end, whatever happened."""
    terminal = Terminal(shell, *arguments, **environ)
    try:
        yield terminal
    finally:
        os.close(terminal.master)
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.process.wait(timeout=10)


@pytest.fixture
def stocked(house: House, shell: Shell) -> Shell:
    house.session.add(
        mtorrent("ubuntu.iso", length=1000),
        Terms(),
    )
    (shell.directory / "fresh.mtorrent").write_bytes(mtorrent("fresh", length=1000))
    return shell


def test_a_list_has_colours_where_they_are_wanted(stocked: Shell) -> None:
    with terminal(stocked, "list") as colourful:
        assert colourful.end() == 0
        assert "\x1b[36mdownloading" in colourful.seen
    with terminal(stocked, "list", NO_COLOR="1") as plain:
        assert plain.end() == 0
        assert "\x1b" not in plain.seen
    with terminal(stocked, "list", TERM="dumb") as dumb:
        assert dumb.end() == 0
        assert "\x1b" not in dumb.seen


def test_waiting_has_a_bar(stocked: Shell, house: House) -> None:
    with terminal(stocked, "add", "fresh.mtorrent", "--wait") as shown:
        shown.read_until("0.0% downloading")
        until(lambda: house.server.subscriber_count == 1)
        house.session.grow("fresh", 500)
        assert "━" in shown.read_until("50.0% downloading")
        house.session.grow("fresh", 1000)
        assert shown.end() == 0
        assert "100% seeding" in shown.seen
        assert shown.seen.endswith("seeding fresh in /srv/torrents\r\n")
        assert shown.seen.count("\x1b[?25h") >= 1  # the cursor is shown again


def test_an_interrupted_bar_leaves_the_terminal_whole(stocked: Shell, house: House) -> None:
    with terminal(stocked, "add", "fresh.mtorrent", "--wait") as shown:
        shown.read_until("0.0% downloading")
        until(lambda: house.server.subscriber_count == 1)
        shown.process.send_signal(signal.SIGINT)
        assert shown.end() == 130
        assert "Traceback" not in shown.seen
        assert shown.seen.rfind("\x1b[?25h") > shown.seen.rfind("\x1b[?25l")


def test_hashing_has_a_bar(stocked: Shell) -> None:
    with open(stocked.directory / "content", "wb") as file:
        file.truncate(64 << 20)
    with terminal(stocked, "create", "content") as shown:
        assert shown.end() == 0
        assert "━" in shown.seen
        assert "100%" in shown.seen
        assert "64 of" not in shown.seen
        assert "pieces" in shown.seen


def test_watch_is_a_live_table(stocked: Shell, house: House) -> None:
    with terminal(stocked, "watch", "--interval", "0.1") as shown:
        shown.read_until("1 torrents, down -")
        house.session.grow("ubuntu.iso", 250)
        assert "ubuntu.iso" in shown.read_until("25.0%")
        assert "\x1b[1A" in shown.seen  # drawn over itself
        shown.process.send_signal(signal.SIGINT)
        assert shown.end() == 130
        assert "Traceback" not in shown.seen


def test_deleting_data_is_asked_about_on_a_terminal(stocked: Shell, house: House) -> None:
    for answer, code, left in ((b"n\n", 0, 1), (b"", 130, 1), (b"y\n", 0, 0)):
        with terminal(stocked, "remove", "--data", "ubuntu.iso") as shown:
            shown.read_until("[y/N]")
            if answer:
                os.write(shown.master, answer)
            else:
                shown.interrupt()
            assert shown.end() == code
            assert len(house.session.rows) == left
    assert house.session.calls == [("remove", "ubuntu.iso", True)]


def test_errors_are_marked(lone_shell: Shell, tmp_path: Path) -> None:
    with terminal(lone_shell, "ping") as shown:
        assert shown.end() == 3
        assert shown.seen.startswith("\x1b[31mmtorrctl:\x1b[0m no microtorrd answers")
