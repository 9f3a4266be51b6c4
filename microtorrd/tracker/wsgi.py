"""Calling a WSGI application for a request whose head has been read, and what it answers as bytes (PEP 3333).

Requests with a body are passed on without it: nothing here takes any, and the connection ends after them.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIApplication

from microtorrd.tracker.head import Headers, RequestLine


class _Start:
    """What the application hands to start_response."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []

    def __call__(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        self.status, self.headers = status, headers
        return self._write

    def _write(self, data: bytes) -> None:
        raise NotImplementedError("write() of WSGI is for frameworks older than this program")


def make_environ(
    line: RequestLine, headers: Headers, *, client: tuple[str, int], server: tuple[str, int]
) -> dict[str, Any]:
    """Return the environment of a request; `client` and `server` are the two ends of the connection."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": line.method.decode("ascii"),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(line.path).decode("latin-1"),
        "QUERY_STRING": line.query.decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/1.{int(line.minor)}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in headers.fields.items():
        # `x_real_ip` and `x-real-ip` would be one name here: only the latter is anybody's.
        if "_" not in name and name not in ("content-length", "transfer-encoding"):
            key = name.upper().replace("-", "_")
            environ["CONTENT_TYPE" if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    return environ


def answer(
    application: WSGIApplication, environ: dict[str, Any], *, date: str, keep_alive: bool
) -> Iterator[bytes]:
    """Call the application and yield the bytes of its answer, the head together with the first of its body.

    A body whose length the application does not tell is sent in chunks where the connection goes on, and up
    to its end where it does not. So `keep_alive` must be False for HTTP/1.0, which has no chunks.
    """
    start = _Start()
    body = application(environ, start)
    try:
        parts = (part for part in body if part)
        # An application that is a generator says its head when it is asked for its first part.
        first = next(parts, b"")
        names = {name.lower() for name, _ in start.headers}
        bodiless = environ["REQUEST_METHOD"] == "HEAD" or start.status[:3] in ("204", "304")
        chunked = not bodiless and "content-length" not in names and keep_alive
        lines = [f"HTTP/1.1 {start.status}", *(f"{name}: {value}" for name, value in start.headers)]
        if "date" not in names:
            lines.append(f"Date: {date}")
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        lines.append(f"Connection: {'keep-alive' if keep_alive else 'close'}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if bodiless or not first:
            yield head
        else:
            yield head + _framed(first, chunked)
            for part in parts:
                yield _framed(part, chunked)
        if chunked:
            yield b"0\r\n\r\n"
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()


def _framed(part: bytes, chunked: bool) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part) if chunked else part
