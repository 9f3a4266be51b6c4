"""What the commands `download` and `tracker` do: a private daemon in the foreground, from start to end.

Signals become its clean end, and what it cannot do becomes a Failure that says why. Here is also what such a
command makes of the words that were typed.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from mtorrctl.client import Note
from mtorrctl.course import Course, Plan, next_note
from mtorrctl.exits import Failure, Unreachable
from mtorrctl.interrupts import Interrupted, Interrupts
from mtorrctl.private import PrivateDaemon, Record
from mtorrctl.sources import parse_named, read_metainfo
from mtorrctl.voice import Voice

__all__ = ["Ending", "Plan", "download", "serve_tracker"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How it ended."""

    is_whole: bool
    signal: int | None = None  # that ended it


def download(plan: Plan, voice: Voice) -> Ending:
    """Fetch the content, or seed it. Raises Failure for what cannot be done."""
    with Interrupts() as interrupts, _daemon(plan.settings(), interrupts, voice) as daemon:
        course = Course(plan, voice, daemon, interrupts)
        try:
            course.run()
        except Interrupted as interrupted:
            course.sum_up()
            return Ending(course.is_whole, interrupted.number)
        except Unreachable as error:
            raise daemon.explain_end() from error
        finally:
            course.close()
        return Ending(True)


def serve_tracker(bind: str, voice: Voice, *, udp: bool = True) -> None:
    """Serve a tracker until a signal comes, over HTTP and `udp`. Raises Failure where that cannot be."""
    settings = {
        "listen.addresses": "[]",
        "tracker.enabled": "true",
        "tracker.bind": numeric_bind(bind),
        "tracker.udp": "true" if udp else "false",
    }
    with Interrupts() as interrupts, _daemon(settings, interrupts, voice) as daemon:
        try:
            client = daemon.start()
            client.subscribe(kinds=["tracker_request"])
            host = bind.rpartition(":")[0]
            voice.tell(f"Tracker serving on: {host}:{daemon.ready['tracker_port']}")
            voice.tell("Clients announce over HTTP and UDP" if udp else "Clients announce over HTTP")
            while True:
                _tell_request(next_note(client, interrupts), voice)
        except Interrupted as interrupted:
            voice.say("VERBOSE", f"{interrupted}: stopping")
        except Unreachable as error:
            raise daemon.explain_end() from error


def read_checked(source: str) -> bytes:
    """The bytes of a metainfo file that is right. Raises Failure."""
    raw = read_metainfo(source)
    parse_named(raw, source)
    return raw


def current_directory() -> str:
    """Where we are. Raises Failure where that is nowhere any more."""
    try:
        return os.getcwd()
    except OSError as error:
        raise Failure(f"the current directory: {error.strerror}") from None


def existing(path: str) -> str:
    """The absolute path of something that is there. Raises Failure."""
    if not os.path.exists(path):
        raise Failure(f"{path}: there is no such file or directory")
    return os.path.join(current_directory(), path)


def numeric_bind(bind: str) -> str:
    """HOST:PORT with a numeric address, for a host that is a name or left out. Raises Failure."""
    host, colon, port = bind.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise Failure(f"{bind!r} is not HOST:PORT, as 0.0.0.0:8888 or [::]:8888")
    if not host:
        return f"0.0.0.0:{port}"
    if host.startswith("["):
        return bind
    try:
        address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
    except (OSError, UnicodeError) as error:
        raise Failure(f"{host}: {getattr(error, 'strerror', None) or error}") from None
    return f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"


def _daemon(settings: dict[str, str], interrupts: Interrupts, voice: Voice) -> PrivateDaemon:
    def hear(record: Record) -> None:
        words = {key: value for key, value in record.items() if key not in ("timestamp", "level", "event")}
        text = " ".join(f"{key}={value}" for key, value in words.items())
        voice.say("DEBUG", f"{record.get('event')} {text}")

    debug = voice.hears("DEBUG")
    return PrivateDaemon(settings, interrupts, debug=debug, on_record=hear if debug else None)


def _tell_request(note: Note | None, voice: Voice) -> None:
    """One announce that the tracker answered."""
    if note is None:
        return
    voice.say("VERBOSE", f"Announce /announce?{note['query']}")
    over = ", UDP" if note["transport"] == "udp" else ""
    outcome = f"refused: {note['failure']}" if note["failure"] else "answered"
    voice.say(
        "INFORMATION",
        f"{note.get('event') or 'announce'} from {note['host']} ({note['dialect']}{over}): {outcome}",
    )
