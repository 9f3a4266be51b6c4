"""A tracker, daemons of ours, clients of others, and content that goes from one to another.

Everybody has a place of their own: on loopback, or in a network made for the test. The tracker is a
microtorrd too, and its notes of every announce are how a meeting knows who has come. Whether content arrived
is read from the disk, byte by byte, never believed.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs

from bench.daemons import Daemon
from bench.foreign import Foreign
from bench.places import Place
from tests.interop.content import difference

#: For a swarm of a few MiB: Transmission alone takes a dozen seconds before its first byte.
PATIENCE_S = 90.0
#: How often the disk is looked at: nobody tells when a foreign client has written something.
LOOK_S = 0.2
#: How often our daemons are asked for their peers.
LOOK_AT_PEERS_S = 1.0
OUR_PEER_ID_START = "-MD"
LOG_LINES = 40


def _last_words(log: str) -> str:
    # Each look at a daemon is a call, and a line about it.
    lines = [line for line in log.splitlines() if line and "rpc_call" not in line]
    return "\n".join(line[:300] for line in lines[-LOG_LINES:])


class Meeting:
    """Use it in a `with`. `new_place` gives each process its place."""

    def __init__(self, directory: Path, new_place: Callable[[], Place]) -> None:
        self.directory = directory
        self._new_place = new_place
        self._stack = contextlib.ExitStack()
        self.foreigners: list[Foreign] = []
        self.daemons: list[Daemon] = []
        #: What our daemons call the others, as their peers are listed.
        self.seen_clients: set[str] = set()
        #: The notes of the tracker that were looked at so far.
        self.announces: list[dict[str, Any]] = []

    def __enter__(self) -> Meeting:
        place = self._new_place()
        self.tracker = self.daemon(
            "tracker",
            place,
            tracker__enabled="true",
            tracker__bind=f"{place.address}:0",
            # rTorrent keeps to it even when it has something to tell.
            tracker__min_interval=1,
        )
        port = self.tracker.call("session.stats")["tracker_port"]
        self.url = f"http://{place.address}:{port}/announce"
        self._notes = self._stack.enter_context(self.tracker.client())
        self._notes.subscribe(kinds=["tracker_request"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        for foreign in self.foreigners:
            foreign.close()
        with contextlib.ExitStack() as kills:
            for daemon in self.daemons:
                kills.callback(daemon.kill)
            for daemon in reversed(self.daemons):
                daemon.stop()

    def logs(self) -> str:
        """The last words of everybody."""
        parts = [(daemon.directory.name, daemon.log()) for daemon in self.daemons]
        parts += [(foreign.name, foreign.log()) for foreign in self.foreigners]
        return "\n".join(f"{name}:\n{_last_words(text)}\n" for name, text in parts)

    # ---------------------------------------------------------------------------------------- who takes part

    def daemon(self, name: str, place: Place | None = None, **settings: Any) -> Daemon:
        """Start a microtorrd in a place of its own."""
        place = place or self._new_place()
        daemon = Daemon(
            self.directory / name, prefix=place.prefix, **{"listen__addresses": place.address, **settings}
        )
        self.daemons.append(daemon)
        return daemon.start()

    def foreign(self, kind: type[Foreign], source: Path | str, save_to: Path) -> Foreign:
        """Start a client of others on this torrent."""
        foreign = kind(self.directory / kind.name, self._new_place())
        self.foreigners.append(foreign)
        save_to.mkdir(exist_ok=True)
        foreign.join(source, save_to)
        return foreign

    def share(self, content: Path, *, piece_length: int | None = None) -> Path:
        """Write the `.mtorrent` of some content as an operator would."""
        metainfo = self.directory / "shared.mtorrent"
        options = () if piece_length is None else ("-l", str(piece_length))
        mtorrctl("create", str(content), "-t", self.url, "-o", str(metainfo), *options)
        return metainfo

    def add(self, daemon: Daemon, source: Path | str, *options: str) -> None:
        """`mtorrctl add`."""
        mtorrctl("--socket", str(daemon.socket), "add", str(source), *options)

    # ------------------------------------------------------------------------------------- what is waited for

    def wait_for_announce(self, peer_id_start: str, *, holding: str = "", timeout_s: float = 30.0) -> None:
        """Until somebody whose peer id begins so has announced with these words in the query; none of our
        tracker's answers was a failure."""
        end = time.monotonic() + timeout_s
        while not any(
            note.get("peer_id", "").startswith(peer_id_start) and holding in note["query"]
            for note in self.announces
        ):
            left_s = end - time.monotonic()
            assert left_s > 0, f"no announce of {peer_id_start!r} with {holding!r}: {self.announces}"
            self._note(left_s)

    def address_of(self, peer_id_start: str) -> tuple[str, int]:
        """Where somebody listens who has announced with such a peer id."""
        query = next(
            note["query"] for note in self.announces if note.get("peer_id", "").startswith(peer_id_start)
        )
        place = next(foreign.place for foreign in self.foreigners if foreign.peer_id_start == peer_id_start)
        return place.address, int(parse_qs(query)["port"][0])

    def _note(self, timeout_s: float) -> None:
        note = self._notes.next_note(timeout_s)
        if note is not None and note["kind"] == "tracker_request":
            assert not note["failure"], note
            self.announces.append(note)

    def wait_for_content(
        self,
        wanted: Path,
        found: Path,
        *,
        who: str,
        empty_too: bool = True,
        timeout_s: float = PATIENCE_S,
    ) -> None:
        """Until `found` is `wanted`, byte by byte."""
        next_look = time.monotonic()
        end = next_look + timeout_s
        while (what := difference(wanted, found, empty_too=empty_too)) is not None:
            assert time.monotonic() < end, f"{who} has not everything after {timeout_s:g} s: {what}"
            for foreign in self.foreigners:
                assert foreign.is_alive(), f"{foreign.name} has ended"
            if (now := time.monotonic()) >= next_look:
                next_look = now + LOOK_AT_PEERS_S
                for daemon in self.daemons:
                    self._look_at(daemon)
            self._note(LOOK_S)

    def _look_at(self, daemon: Daemon) -> None:
        with daemon.client() as client:
            for row in client.call("torrent.list")["torrents"]:
                assert row["state"] != "failed", row["error"]
                peers = client.call("torrent.peers", id=row["info_hash"])["peers"]
                self.seen_clients |= {peer["client"] for peer in peers if peer["client"]}


def mtorrctl(*words: str) -> None:
    """Run the real client; it has to go well."""
    done = subprocess.run(
        [sys.executable, "-m", "mtorrctl", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
