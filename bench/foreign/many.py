"""Clients with thousands of torrents that seed, to have their memory, CPU and start-up beside ours.

What makes them start without a check is what each of them keeps for that: libtorrent is told so when a
torrent is added, Transmission finds its own resume files.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.foreign.transmission_rpc import call

SESSION = Path(__file__).with_name("libtorrent_many.py")

START_S = 120.0
STOP_S = 60.0
LOOK_S = 0.05

#: Of Transmission's states.
SEEDS = 6


@dataclass(frozen=True, slots=True)
class Torrent:
    """One torrent that somebody is to seed."""

    name: str
    info_hash: str
    metainfo: bytes


class Many:
    """A client with these torrents, whose content lies in `save_to`. `prepare` before the first `start`, and
    after a `kill`; `start` returns when all seed."""

    name: str

    def __init__(self, home: Path, torrents: Sequence[Torrent], save_to: Path) -> None:
        self.home = home
        self.torrents = torrents
        self.save_to = save_to
        self.process: subprocess.Popen[bytes] | None = None
        home.mkdir()

    @classmethod
    def is_here(cls) -> bool:
        """Whether it is installed."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Write down what it finds when it starts."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, and wait until all seed. RuntimeError where they do not."""
        raise NotImplementedError

    def start_s(self) -> float:
        """Start it; how long that took."""
        began = time.perf_counter()
        self.start()
        return time.perf_counter() - began

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    def stop(self) -> None:
        """End it as a service manager would, and by force when it takes very long."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        """End it at once: it says goodbye to no tracker."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def _run(self, *command: str | Path) -> subprocess.Popen[bytes]:
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8"},
            )
        return self.process


class LibtorrentMany(Many):
    """A session of the wheel, in a process of its own."""

    name = "libtorrent"

    @classmethod
    def is_here(cls) -> bool:
        return True

    def prepare(self) -> None:
        files = self.home / "torrents"
        files.mkdir(exist_ok=True)
        for torrent in self.torrents:
            (files / f"{torrent.name}.torrent").write_bytes(torrent.metainfo)

    def start(self) -> None:
        process = self._run(sys.executable, SESSION, self.home / "torrents", self.save_to)
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError((self.home / "log").read_text(errors="replace")[-2000:])


class TransmissionMany(Many):
    """Its daemon, on its own configuration directory."""

    name = "Transmission"

    @classmethod
    def is_here(cls) -> bool:
        return shutil.which("transmission-daemon") is not None

    def start(self) -> None:
        process = self._run("transmission-daemon", "--foreground", "--config-dir", self.home)
        end = time.monotonic() + START_S
        while time.monotonic() < end and process.poll() is None:
            states = self._states(self._port)
            if states is not None and states.total() == states[SEEDS] == len(self.torrents):
                return
            time.sleep(LOOK_S)  # it has no word for this that could be waited for
        raise RuntimeError(f"not all seed: {states}")

    def _states(self, port: int) -> Counter[int] | None:
        request = {"method": "torrent-get", "arguments": {"fields": ["status"]}}
        try:
            reply = json.loads(call(port, json.dumps(request).encode()))
        except ConnectionRefusedError:
            return None
        return Counter(torrent["status"] for torrent in reply["arguments"]["torrents"])

    def prepare(self) -> None:
        self._port = free_port()
        settings = {
            "bind-address-ipv4": "127.0.0.1",
            "dht-enabled": False,
            "download-dir": str(self.save_to),
            "lpd-enabled": False,
            "message-level": 1,
            "peer-port": free_port(),
            "port-forwarding-enabled": False,
            "rpc-bind-address": "127.0.0.1",
            "rpc-port": self._port,
            "utp-enabled": False,
        }
        (self.home / "settings.json").write_text(json.dumps(settings))
        for folder in ("torrents", "resume"):
            (self.home / folder).mkdir(exist_ok=True)
        for torrent in self.torrents:
            stem = f"{torrent.name}.{torrent.info_hash[:16]}"
            (self.home / "torrents" / f"{stem}.torrent").write_bytes(torrent.metainfo)
            (self.home / "resume" / f"{stem}.resume").write_bytes(self._resume(torrent))

    def _resume(self, torrent: Torrent) -> bytes:
        """Its note that all was checked, later than the file was written."""
        where, name = os.fsencode(self.save_to), torrent.name.encode()
        checked_at = int(time.time()) + 60
        return (
            b"d11:destination%d:%s4:name%d:%s6:pausedi0e" % (len(where), where, len(name), name)
            + b"8:progressd6:blocks3:all4:have3:all12:time-checkedli%deeee" % checked_at
        )


def free_port() -> int:
    """A port of loopback that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


ALL: tuple[type[Many], ...] = (LibtorrentMany, TransmissionMany)
