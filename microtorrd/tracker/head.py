"""The head of an HTTP/1.x request: what the bytes mean, strictly. Knows no socket.

Strict, because two programs that read the same head differently (a proxy in front of us, and us) are a hole:
names are tokens, nothing is folded, nothing has control characters, what must be there once is there once.
A head that is refused is a value with the status to answer; after it the connection is closed, since nobody
knows where the next request begins.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from microtorrd.tracker.answer import accepts_json
from microtorrd.tracker.source import forwarded_for

#: Request line and headers together. An announce has 300 to 500 bytes.
MAX_HEAD_BYTES = 8192

#: Method, target, minor version. Clients that escape nothing send bytes above 127: they are let through.
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([!-~\x80-\xff]+) HTTP/1\.([01])")
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([ -~\t\x80-\xff]*)")

_ONCE = frozenset(("host", "content-length", "transfer-encoding"))


class Refusal(NamedTuple):
    """An HTTP status and what is wrong."""

    status: int
    reason: str


class RequestLine(NamedTuple):
    """The first line. `path` and `query` as they stand there, escaped."""

    method: bytes
    path: bytes
    query: bytes
    minor: int  # of HTTP/1.x


class Headers(NamedTuple):
    """A block of headers: all of them by their lower-case names, and what the server must know of each."""

    fields: dict[str, str]
    accepts_json: bool
    forwarded_for: str
    closes: bool  # Connection: close
    keeps_alive: bool  # Connection: keep-alive, which HTTP/1.0 says aloud
    has_host: bool
    has_body: bool


def read_request_line(raw: bytes, start: int, end: int) -> RequestLine | Refusal:
    """Read the request line that lies in `raw` from `start` to `end`."""
    match = _REQUEST_LINE.fullmatch(raw, start, end)
    if match is None:
        version = raw[start:end].rpartition(b" ")[2]
        if re.fullmatch(rb"HTTP/\d\.\d", version) and version[:7] != b"HTTP/1.":
            return Refusal(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        return Refusal(400, "the request line is malformed")
    method, target, minor = match.groups()
    if target[:1] != b"/":
        # A client that takes us for a proxy names the host too; there is no other here.
        if target[:7].lower() != b"http://":
            return Refusal(400, "the request target must begin with /")
        target = b"/" + target[7:].partition(b"/")[2]
    path, _, query = target.partition(b"?")
    return RequestLine(method, path, query, minor == b"1")


def read_headers(block: bytes) -> Headers | Refusal:
    """Read the lines between the request line and the empty line; `block` has no line end at its own end."""
    fields: dict[str, str] = {}
    for line in block.split(b"\r\n") if block else ():
        match = _HEADER.fullmatch(line)
        if match is None:
            return Refusal(400, "a header is malformed")
        name, value = match[1].decode("ascii").lower(), match[2].decode("latin-1").rstrip(" \t")
        if name not in fields:
            fields[name] = value
        elif name in _ONCE:
            return Refusal(400, f"{name} is given twice")
        else:
            fields[name] = f"{fields[name]}, {value}"
    length = fields.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        return Refusal(400, "content-length is not a number")
    connection = {word.strip() for word in fields.get("connection", "").lower().split(",")}
    return Headers(
        fields=fields,
        accepts_json=accepts_json(fields.get("accept", "")),
        forwarded_for=forwarded_for(fields.get),
        closes="close" in connection,
        keeps_alive="keep-alive" in connection,
        has_host="host" in fields,
        has_body=length.strip("0") != "" or "transfer-encoding" in fields,
    )
