"""Web servers to fetch content from: real sockets on the loopback, behaved as well or badly as wanted."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from microtorrd.core.slots import Slot
from microtorrd.greenlets import Crew
from microtorrd.net.routes import Routes
from microtorrd.net.web_connector import WebConnector
from microtorrd.net.web_landing import WebMemory
from microtorrd.net.webseed import WebSeedWire
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.metainfo import FileEntry
from microtorrd.proto.web_files import WebFiles
from microtorrd.rate import Limiter
from tests.net.peers import PIECE_BYTES, Facts, content
from tests.net.trackers import FakeTracker, Seen, http

Answer = Callable[[Seen], bytes | None]


class WebServer(FakeTracker):
    """Serves ranges of these files; `answer` may do something else, and call `well` for what it does well."""

    def __init__(
        self,
        files: Mapping[str, bytes],
        answer: Answer | None = None,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.files = dict(files)
        self.came_from: set[str] = set()
        self._tls = tls
        super().__init__(answer or self.well, host=host)
        self.url = self.url.removesuffix("announce")
        if tls is not None:
            self.url = self.url.replace("http:", "https:")

    def _serve(self, sock: Any, address: Any) -> None:
        self.came_from.add(address[0])
        if self._tls is not None:
            try:
                sock = self._tls.wrap_socket(sock, server_side=True)
            except OSError:  # the client did not like the certificate
                sock.close()
                return
        super()._serve(sock, address)

    def well(self, seen: Seen) -> bytes:
        """What a good server answers."""
        raw = self.files.get(unquote(seen.path))
        if raw is None:
            return http(b"nothing here", "404 Not Found")
        first, end = asked(seen)
        return part(raw[first:end], first, len(raw))

    @property
    def ranges(self) -> list[tuple[str, int, int]]:
        """What was asked for: path, first and end."""
        return [(seen.path, *asked(seen)) for seen in self.seen]


def asked(seen: Seen) -> tuple[int, int]:
    """The range of a request: its first byte and its end."""
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", seen.headers["range"])
    assert found is not None
    return int(found[1]), int(found[2]) + 1


def part(raw: bytes, first: int, total: int, *headers: str) -> bytes:
    """A reply with a part of a file."""
    says = f"Content-Range: bytes {first}-{first + len(raw) - 1}/{total}"
    return http(raw, "206 Partial Content", says, *headers)


class WebBench:
    """Content, and wires that fetch it from web seeds."""

    def __init__(
        self, crew: Crew, lengths: Sequence[int] = (4 * PIECE_BYTES + 1000,), *, padding: Sequence[int] = ()
    ) -> None:
        """`padding`: the numbers of files that are padding."""
        self.crew = crew
        self.connector = WebConnector(Routes())
        self.memory = WebMemory()
        self.is_single_file = len(lengths) == 1
        self.entries = [
            FileEntry(
                ("a name",) if self.is_single_file else ("a name", "sub", f"file {number}"),
                length,
                is_padding=number in padding,
            )
            for number, length in enumerate(lengths)
        ]
        self.raw = b"".join(
            bytes(entry.length) if entry.is_padding else content(entry.length) for entry in self.entries
        )
        self.geometry = Geometry(len(self.raw), PIECE_BYTES)
        self.wires: list[WebSeedWire] = []

    @property
    def files(self) -> dict[str, bytes]:
        """The content as a server that has it below `/` holds it."""
        found, offset = {}, 0
        for entry in self.entries:
            if not entry.is_padding:
                found["/" + "/".join(entry.path)] = self.raw[offset : offset + entry.length]
            offset += entry.length
        return found

    def connect(self, url: str, **options: Any) -> tuple[WebSeedWire, Facts]:
        """A wire to there, and its facts."""
        facts = Facts()
        wire = WebSeedWire(
            peer=len(self.wires) + 1,
            files=WebFiles(url, "a name", self.entries, is_single_file=self.is_single_file),
            geometry=self.geometry,
            post=facts.post,
            crew=self.crew,
            memory=self.memory,
            **{"down": Limiter(), "connector": self.connector, **options},
        )
        self.wires.append(wire)
        wire.start()
        return wire, facts

    def slots(self, first: int = 0, end: int | None = None) -> list[Slot]:
        """Slots for all blocks of these pieces."""
        return [
            Slot(piece, begin, length, memoryview(bytearray(length)))
            for piece in range(first, self.geometry.piece_count if end is None else end)
            for begin, length in self.geometry.blocks(piece)
        ]

    def right(self, slots: Sequence[Slot]) -> bool:
        """All of them hold what they should."""
        return all(
            bytes(slot.view) == self.raw[offset : offset + slot.length]
            for slot in slots
            for offset in (self.geometry.piece_offset(slot.piece) + slot.begin,)
        )
