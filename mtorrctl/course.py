"""A torrent of a private daemon, from its adding to its end: what is heard of it, and what people hear.

The daemon does the work and sends notes; here they become lines, a bar and figures. A torrent is followed
until it is whole, or has failed; where it is to be seeded, until a signal comes.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from microtorrd.errors import MicrotorrError
from mtorrctl import render, statistics
from mtorrctl.client import Client, Note
from mtorrctl.exits import Failure
from mtorrctl.interrupts import Interrupts
from mtorrctl.private import PrivateDaemon
from mtorrctl.progress import TorrentProgress
from mtorrctl.voice import Voice

#: Before the daemon leaves a swarm it gives what others ask for, for a few seconds. It says when it has left.
LEAVE_S = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be downloaded or seeded, and how."""

    metainfo: bytes
    save_to: str  # absolute
    seed_path: str | None = None  # absolute: it is there already
    port: int = 7777
    interface: str = ""
    keeps_seeding: bool = False  # when it is whole
    wait_seeders: int = 1
    wait_leechers: int = 0
    down: int = 0  # bytes a second, 0: no limit
    up: int = 0

    def settings(self) -> dict[str, str]:
        """The settings of the daemon."""
        return {
            "listen.port": str(self.port),
            "listen.interface": self.interface,
            "limits.down": str(self.down),
            "limits.up": str(self.up),
        }


def next_note(client: Client, interrupts: Interrupts, timeout_s: float | None = None) -> Note | None:
    """The next note, None when none came in time. Raises Interrupted, Unreachable."""
    with interrupts.heeded():
        return client.next_note(timeout_s)


class Course:
    """One torrent from its adding to its end."""

    def __init__(self, plan: Plan, voice: Voice, daemon: PrivateDaemon, interrupts: Interrupts) -> None:
        self.is_whole = False
        self._plan = plan
        self._voice = voice
        self._daemon = daemon
        self._interrupts = interrupts
        self._client: Client | None = None
        self._row: dict[str, Any] = {}
        self._progress: TorrentProgress | None = None
        self._began_at: float | None = None  # to download
        self._told_figures = False
        self._trouble: dict[object, object] = {}  # what was said of each tracker that failed
        self._leave_by: float | None = None
        self._is_over = False

    def run(self) -> None:
        """Until it is over. Raises Failure, Interrupted, Unreachable."""
        plan = self._plan
        client = self._client = self._daemon.start()
        client.subscribe()
        self._row = client.call(
            "torrent.add",
            metainfo=plan.metainfo,
            save_to=None if plan.seed_path else plan.save_to,
            seed_path=plan.seed_path,
            wait_seeders=plan.wait_seeders,
            wait_leechers=plan.wait_leechers,
            seed_after_download=plan.keeps_seeding,
        )
        self._progress = TorrentProgress(self._row)
        self._say_what_we_are(client)
        while not self._is_over:
            timeout_s = None if self._leave_by is None else max(0.0, self._leave_by - time.monotonic())
            note = next_note(client, self._interrupts, timeout_s)
            if note is None:
                return  # those who still want something of us have had their time
            self._hear(note)

    def sum_up(self) -> None:
        """After an interruption: say how far it came."""
        self._close_progress()
        if self._plan.seed_path is None and not self._told_figures:
            self._tell_figures(self._figures_so_far())
        if self._plan.seed_path is not None or self._plan.keeps_seeding:
            self._voice.say("VERBOSE", f"uploaded {render.size(self._uploaded())}")

    def close(self) -> None:
        """Take the bar away."""
        self._close_progress()

    # --------------------------------------------------------------------------------------- what it hears

    def _hear(self, note: Note) -> None:
        kind = str(note.get("kind"))
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, note)
        elif kind not in _UNTOLD:
            words = " ".join(f"{key}={value}" for key, value in note.items() if key not in _FRAME)
            self._voice.say("DEBUG", f"{kind} {words}".rstrip())

    def _on_state_changed(self, note: Note) -> None:
        state = str(note["state"])
        if self._progress is not None and state != "seeding":
            self._progress.update(self._look() | {"state": state})
        if state == "downloading" and self._began_at is None:
            self._began_at = time.monotonic()
        if state == "failed":
            self._fail()
        elif state == "seeding":
            self._became_whole()
        elif state == "stopped" and self.is_whole:
            self._is_over = True
        elif state == "checking" and self._began_at is not None:
            self._voice.say("VERBOSE", f"Checking {self._name()} as a whole")
        elif state in _SAID:
            self._voice.say("VERBOSE", _SAID[state].format(**self._wishes()))

    def _on_progress(self, note: Note) -> None:
        if self._progress is not None:
            done, size, rate = note["done_bytes"], note["size_bytes"], note["down_bytes_per_s"]
            to_check = note.get("to_check") or 0
            self._progress.update(
                {
                    **note,
                    "checked": note["checked_pieces"] / to_check if to_check else None,
                    "eta_s": (size - done) / rate if rate and note["state"] == "downloading" else None,
                }
            )
        share = note["done_bytes"] / note["size_bytes"] if note["size_bytes"] else 1.0
        self._voice.say(
            "INFORMATION" if note["state"] == "downloading" else "DEBUG",
            f"{render.percent(share)} of the pieces, {note['peers']} peers, {note['seeders']} of them seed,"
            f" down {render.rate(note['down_bytes_per_s'])}, up {render.rate(note['up_bytes_per_s'])}",
        )

    def _on_completed(self, note: Note) -> None:
        self.is_whole = True
        self._close_progress()
        self._voice.say("VERBOSE", f"{self._name()} is whole and checked")
        self._tell_figures(note)
        if not self._plan.keeps_seeding:
            self._leave_by = time.monotonic() + LEAVE_S

    def _on_storage_failed(self, note: Note) -> None:
        self._raise_failure(note)

    def _on_peer_joined(self, note: Note) -> None:
        if "peer_id" in note:
            how = "came to us" if note["incoming"] else "connected"
            self._voice.say("INFORMATION", f"{_peer(note)} {how}")

    def _on_peer_left(self, note: Note) -> None:
        if "peer_id" in note:
            self._voice.say("INFORMATION", f"{_peer(note)} left: {note['reason']}")

    def _on_tracker_announced(self, note: Note) -> None:
        self._trouble.pop(note.get("url"), None)
        self._voice.say(
            "INFORMATION",
            f"Tracker {note.get('url')} ({note.get('dialect')}) knows {note.get('peers')} peers"
            f" after {note.get('event') or 'our announce'}",
        )

    def _on_tracker_failed(self, note: Note) -> None:
        # Nothing ends by it, and yet it can be why nothing comes. Both dialects have the same trouble.
        url, message = note.get("url"), note.get("message")
        if self._trouble.get(url) != message:
            self._trouble[url] = message
            self._voice.say("CRITICAL", f"Tracker {url}: {message}; trying again")

    # ------------------------------------------------------------------------------------------- its parts

    def _say_what_we_are(self, client: Client) -> None:
        if self._voice.hears("VERBOSE"):
            port = client.call("session.stats")["listen_port"]
            verb = "Seeding" if self._plan.seed_path else "Downloading"
            where = self._plan.seed_path or os.path.join(self._plan.save_to, self._row["name"])
            self._voice.say("VERBOSE", f"{verb} {where}, reachable at port {port}")

    def _became_whole(self) -> None:
        self._close_progress()
        was_there = not self.is_whole
        self.is_whole = True
        if self._plan.seed_path is not None:
            self._voice.tell(f"Seeding {self._name()} until interrupted")
        elif self._plan.keeps_seeding:
            self._voice.tell(f"{self._name()} is whole; seeding it until interrupted")
        elif was_there:
            # Checked, and nothing was missing.
            self._voice.tell(f"{self._name()} is here already, whole and checked")
            self._tell_figures(statistics.of_peers([], 0.0))
            self._is_over = True

    def _fail(self) -> None:
        self._raise_failure(self._look().get("error") or {"message": "unknown cause"})

    def _look(self) -> dict[str, Any]:
        """The row of the torrent as it is now. Raises Unreachable."""
        assert self._client is not None, "it was added"
        row: dict[str, Any] = self._client.call("torrent.list", ids=[self._row["info_hash"]])["torrents"][0]
        return row

    def _raise_failure(self, facts: dict[str, Any]) -> None:
        self._close_progress()
        hint = ""
        if self._plan.seed_path is None:
            hint = "what is here is kept: the same command goes on with it when the cause is gone"
        elif not self.is_whole:
            hint = "nothing was changed, and no tracker was told"
        raise Failure(str(facts.get("message")), hint)

    def _figures_so_far(self) -> dict[str, Any]:
        elapsed_s = 0.0 if self._began_at is None else time.monotonic() - self._began_at
        peers: list[dict[str, Any]] = []
        if self._client is not None and self._row:
            with suppress(MicrotorrError):  # these are the last words: a daemon that is gone has none
                peers = self._client.call("torrent.peers", id=self._row["info_hash"])["peers"]
        return statistics.of_peers(peers, elapsed_s)

    def _uploaded(self) -> int:
        if self._row:
            with suppress(MicrotorrError):
                return int(self._look()["uploaded_bytes"])
        return 0

    def _tell_figures(self, facts: dict[str, Any]) -> None:
        self._told_figures = True
        self._voice.tell(*statistics.block(facts))

    def _close_progress(self) -> None:
        if self._progress is not None:
            self._progress.close()
            self._progress = None

    def _name(self) -> str:
        return str(self._row.get("name", ""))

    def _wishes(self) -> dict[str, Any]:
        return {
            "seeders": self._plan.wait_seeders,
            "leechers": self._plan.wait_leechers,
            "name": self._name(),
        }


def _peer(note: Note) -> str:
    return f"Peer {statistics.peer_name(note['peer_id'])} at {note['host']}"


#: What is said of a state that begins.
_SAID = {
    "checking": "Checking what is there of {name}",
    "waiting": "Waiting for seeders ({seeders}) and leechers ({leechers}, ourselves included)",
    "downloading": "Downloading {name}",
}

_HANDLERS = {
    "state_changed": Course._on_state_changed,
    "progress": Course._on_progress,
    "completed": Course._on_completed,
    "storage_failed": Course._on_storage_failed,
    "peer_joined": Course._on_peer_joined,
    "peer_left": Course._on_peer_left,
    "tracker_announced": Course._on_tracker_announced,
    "tracker_failed": Course._on_tracker_failed,
}

#: Notes that say nothing that is not known here.
_UNTOLD = frozenset({"torrent_added"})

#: What every note has.
_FRAME = frozenset({"kind", "time", "info_hash", "name"})
