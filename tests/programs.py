"""The programs of the foreground as processes beside a test, and a stage for several of them.

Output is read as it comes, so that a test can wait for a line of it. Each stage has a directory for temporary
files of its own, and says at its end whether anything was left there.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from hashlib import sha1
from pathlib import Path
from typing import Any

import gevent
import psutil
from gevent.event import Event
from gevent.os import make_nonblocking, nb_read

from mtorrctl.client import Client
from mtorrctl.create import Recipe, create
from mtorrctl.microtorr import complete_tracker

BIN = Path(sys.executable).parent

#: A tracker that does not answer: who asks it waits for a seeder until he is interrupted.
NOBODY = "http://127.0.0.1:9"

#: What a command may take that has nothing to wait for, on a machine that is busy with other things.
PATIENCE_S = 30.0


class Run:
    """One program, running. What it says on both streams is in `text`."""

    def __init__(
        self, *command: str | Path, cwd: Path, environ: Mapping[str, str], pty: bool = False
    ) -> None:
        self.text = ""
        self.name = " ".join(str(word) for word in command)[:100]
        self._news = Event()
        ours, theirs = os.openpty() if pty else os.pipe()
        self.process = subprocess.Popen(
            command, cwd=cwd, env=dict(environ), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        make_nonblocking(ours)
        self._out = ours
        self._reader = gevent.spawn(self._read)

    def _read(self) -> None:
        try:
            while chunk := nb_read(self._out, 1 << 16):
                self.text += chunk.decode("utf-8", "replace")
                self._news.set()
        except OSError:
            self.text += ""  # a terminal ends with EIO
        finally:
            os.close(self._out)
            self._news.set()

    def wait_for(self, pattern: str, timeout_s: float = PATIENCE_S) -> re.Match[str]:
        """The first match in what it has said, or says within that time."""
        with gevent.Timeout(timeout_s, AssertionError(f"{self.name}: no {pattern!r} in {timeout_s:g} s")):
            while True:
                self._news.clear()
                found = re.search(pattern, self.text)
                if found is not None:
                    return found
                assert not self._reader.dead, f"{self.name} ended without {pattern!r}:\n{self.text}"
                self._news.wait()

    def wait_for_more(self) -> None:
        """Return when it has said more, or has ended."""
        self._news.clear()
        if not self._reader.dead:
            self._news.wait()

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Its exit code, when it has ended and all of its output is read. A traceback is never right."""
        try:
            code: int = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} goes on after {timeout_s:g} s:\n{self.text}") from None
        self._reader.join(PATIENCE_S)
        assert "Traceback" not in self.text, self.text
        return code

    def signal(self, number: int) -> Run:
        """Send it a signal."""
        self.process.send_signal(number)
        return self

    def interrupt(self) -> int:
        """Press Ctrl-C, and wait for its end."""
        return self.signal(signal.SIGINT).wait()

    @property
    def daemon(self) -> psutil.Process:
        """Its private daemon."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def client(self) -> Client:
        """A connection to its private daemon."""
        return Client.open(f"{self.daemon.cwd()}/control.sock")

    def row(self) -> dict[str, Any]:
        """The row of its torrent."""
        with self.client() as client:
            row: dict[str, Any] = client.call("torrent.list")["torrents"][0]
            return row

    def wait_until_done(self, done_bytes: int, timeout_s: float = PATIENCE_S) -> None:
        """Return when so many bytes of its torrent are verified."""
        self.wait_for(r"% (waiting|downloading)")
        with self.client() as client:
            client.subscribe(kinds=["piece_verified", "progress"])
            with gevent.Timeout(timeout_s, AssertionError(f"{self.name} has not {done_bytes} bytes")):
                while client.call("torrent.list")["torrents"][0]["done_bytes"] < done_bytes:
                    client.next_note()

    def kill(self) -> None:
        """End it and its daemon at once, and without a word to anybody."""
        if self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.kill()
            self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE_S)


class Stage:
    """Programs that share a tracker, each in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # Not in the test's directory: the path of a socket must be short.
        self.temporary = Path(tempfile.mkdtemp(prefix="mt-"))
        self.environ = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.temporary),
        }
        self.url = ""  # of the tracker
        self.runs: list[Run] = []

    def run(self, *command: str | Path, cwd: Path | None = None, pty: bool = False, **environ: str) -> Run:
        """Start a program."""
        place = cwd or self.directory
        place.mkdir(exist_ok=True)
        run = Run(*command, cwd=place, environ={**self.environ, **environ}, pty=pty)
        self.runs.append(run)
        return run

    def microtorr(self, *arguments: str | Path, **options: Any) -> Run:
        """Start MicroTorr."""
        return self.run("MicroTorr", *arguments, **options)

    def tracker(self, *options: str, bind: str = "127.0.0.1:0") -> Run:
        """Start a tracker, and wait until it serves; `url` is where."""
        run = self.microtorr("tracker", "-b", bind, *options)
        self.url = f"http://{run.wait_for(r'Tracker serving on: (.*)')[1].strip()}"
        return run

    def share(
        self, content: bytes, *, name: str = "freeware", url: str = NOBODY, piece_length: int | None = None
    ) -> Path:
        """Write a file and make its .mtorrent, which is returned. `url` is for a stage without a tracker."""
        path = self.directory / name
        path.write_bytes(content)
        tracker = complete_tracker(self.url or url)
        return Path(create(str(path), None, Recipe(trackers=((tracker,),), piece_length=piece_length)).path)

    def leech(self, mtorrent: Path, name: str, *options: str, **more: Any) -> Run:
        """Start a download into a directory of that name."""
        place = self.directory / name
        return self.microtorr("download", mtorrent, "-i", "lo", "-p", "0", *options, cwd=place, **more)

    def seed(self, mtorrent: Path, *options: str, ready: bool = True) -> Run:
        """Start a seeder of the file beside the .mtorrent; wait until it seeds."""
        content = mtorrent.with_suffix("")
        run = self.microtorr("download", mtorrent, "-i", "lo", "-p", "0", "-s", content, *options)
        if ready:
            run.wait_for("Seeding .* until interrupted")
        return run

    def leftovers(self) -> list[str]:
        """What lies among the temporary files."""
        return os.listdir(self.temporary)

    def close(self) -> None:
        """End everything. Programs that are asked to end do so, and leave nothing behind."""
        for run in self.runs:
            if run.process.poll() is None:
                for child in psutil.Process(run.process.pid).children():
                    child.resume()
                run.signal(signal.SIGTERM)
        try:
            for run in self.runs:
                run.wait()
        finally:
            for run in self.runs:
                run.kill()
            left = self.leftovers()
            shutil.rmtree(self.temporary)
        assert left == [], f"left behind: {left}"


def digest(path: Path) -> str:
    """The SHA-1 of a file."""
    return sha1(path.read_bytes()).hexdigest()
