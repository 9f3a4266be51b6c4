"""A daemon of our own for one command in the foreground: started, watched, and gone with it.

It keeps state, socket and settings in a directory of its own (`scratch`), sees neither the user's
configuration nor his environment variables for it, and takes nothing from the current directory. It is tied
to us (`tether`): when we die, it stops. It says on its standard error, in JSON, what it does; we listen.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import msgspec

from mtorrctl import tether
from mtorrctl.client import Client
from mtorrctl.exits import Failure
from mtorrctl.interrupts import Interrupts
from mtorrctl.scratch import Scratch

#: One line of the daemon's log: `level`, `event`, and the fields of the event.
Record = dict[str, Any]

#: A clean stop is bounded by the daemon itself and takes less. After this it is killed.
STOP_S = 20.0

#: What would make the daemon another one than we ask for, or tell somebody else of it.
_VARIABLES = (
    "CONFIGURATION_DIRECTORY",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
)

#: Lines kept to explain an unexpected end.
_LAST_WORDS = 20


class PrivateDaemon:
    """A daemon with these settings (`section.key`: text). Use it in a `with`; afterwards nothing is left.

    `on_record` hears its log, `debug` lines among them if so wished, from a thread of its own.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        interrupts: Interrupts,
        *,
        debug: bool = False,
        on_record: Callable[[Record], None] | None = None,
    ) -> None:
        self.ready: Record = {}  # its line about being ready: `socket`, `tracker_port`
        self._settings = settings
        self._interrupts = interrupts
        self._debug = debug
        self._on_record = on_record
        self._scratch: Scratch | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None
        self._client: Client | None = None
        self._errors: deque[str] = deque(maxlen=_LAST_WORDS)
        self._failure = ""

    def __enter__(self) -> PrivateDaemon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Client:
        """Start it and wait until it is ready. Raises Failure where it cannot be, and Interrupted."""
        self._scratch = Scratch()
        self._process = self._spawn(self._scratch)
        # A signal that wants us to hurry wants it of the daemon: its second one ends it at once.
        self._interrupts.hurry = self._process.terminate
        with self._interrupts.heeded():
            while not self.ready:
                if not self._hear_line():
                    raise self.explain_end()
        self._listener = threading.Thread(target=self._listen, name="log of the daemon", daemon=True)
        self._listener.start()
        self._client = Client.open(self._path("control.sock"))
        return self._client

    def stop(self) -> None:
        """Stop it cleanly, by force if that takes too long, and remove what it had. Any number of times."""
        if self._client is not None:
            self._client.close()
        if self._process is not None:
            self._end(self._process)
            self._process = None
        if self._scratch is not None:
            self._scratch.remove()
            self._scratch = None

    def explain_end(self) -> Failure:
        """The error for people when the daemon has ended though nobody asked it to."""
        assert self._process is not None, "it was started"
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return Failure("the private daemon does not answer any more")
        if self._listener is not None:
            self._listener.join(STOP_S)
        if self._failure:
            return Failure(self._failure)
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return Failure(f"the private daemon {how}", "\n".join(self._errors))

    # --------------------------------------------------------------------------------------- its process

    def _spawn(self, scratch: Scratch) -> subprocess.Popen[bytes]:
        config = self._path("microtorrd.toml")  # so that no other is read
        with open(config, "x", encoding="ascii") as file:
            file.write("# All settings are on the command line.\n")
        settings = {
            "daemon.state_dir": self._path("state"),
            "rpc.socket": self._path("control.sock"),
            "rpc.socket_mode": "0600",
            **self._settings,
        }
        command = [sys.executable, "-P", "-m", "microtorrd", "--config", config]
        command += ["--log-format", "json", "--log-level", "debug" if self._debug else "info"]
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        return subprocess.Popen(
            [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=scratch.path,
            env=_environment(),
            pass_fds=(scratch.descriptor,),
            start_new_session=True,  # Ctrl-C is for us; we tell it in time
        )

    def _path(self, name: str) -> str:
        assert self._scratch is not None
        return os.path.join(self._scratch.path, name)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._listener is not None:
            self._listener.join()
        assert process.stderr is not None
        process.stderr.close()

    # ------------------------------------------------------------------------------------------- its log

    def _listen(self) -> None:
        while self._hear_line():
            pass

    def _hear_line(self) -> bool:
        """Take in one line of its log; False at the end."""
        assert self._process is not None
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        try:
            record = msgspec.json.decode(line, type=Record) if line else None
        except msgspec.DecodeError:
            # Not from its log: Python's own last words, or those of what went before it.
            self._errors.append(line.decode("utf-8", "replace").rstrip())
            return True
        if record is not None:
            self._hear(record)
        return record is not None

    def _hear(self, record: Record) -> None:
        event = record.get("event")
        if event == "ready":
            self.ready = record
        elif event == "start_failed":
            self._failure = str(record.get("error"))
        elif record.get("level") == "error":
            why = record.get("reason") or record.get("error") or record.get("exception") or ""
            self._errors.append(f"{event}: {why}")
        if self._on_record is not None:
            try:
                self._on_record(record)
            except OSError:
                self._on_record = None  # nobody reads us any more; what the daemon writes must be read still


def _environment() -> dict[str, str]:
    """Ours, without what would change the daemon's settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _VARIABLES and not name.startswith("MICROTORRD_")
    }
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if os.path.basename(root) not in ("site-packages", "dist-packages"):
        # Run from a checkout: it may be on our path only because we were started there.
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (kept.get("PYTHONPATH"), root)))
    return kept
