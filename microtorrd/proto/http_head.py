"""The heads of HTTP/1.1 requests and replies, as far as fetching ranges of files needs them (RFC 9110, 9112).

Pure: bytes in, values out. A reply's head is attacker-controlled; what cannot be read unambiguously is a
ProtocolError, because where a body ends must never be a matter of opinion.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from microtorrd.errors import ProtocolError

#: Real ones have a few hundred bytes; cookies and policies make some of them a few thousand.
MAX_HEAD_BYTES = 32768
#: 17 digits hold every length that a torrent may have.
_RANGE = re.compile(r"bytes +(\d{1,17})-(\d{1,17})/(\d{1,17}|\*)", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: [^\r\n]*)?")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: A server may ask for a longer pause; nobody waits longer than a day for it.
MAX_RETRY_S = 86_400.0


class ContentRange(NamedTuple):
    """Which bytes of the file a reply brings."""

    first: int
    last: int  # inclusive
    total: int | None  # length of the file, None where the server does not say


class ReplyHead(NamedTuple):
    """Status and header fields of one reply; the names are lower case."""

    status: int
    is_1_1: bool
    fields: dict[str, str]

    @property
    def stays_open(self) -> bool:
        """The connection can take another request after the body."""
        wish = self.fields.get("connection", "").lower()
        return "close" not in wish and (self.is_1_1 or "keep-alive" in wish)

    @property
    def content_length(self) -> int | None:
        """The length of the body, None where it is not said."""
        text = self.fields.get("content-length")
        return None if text is None else int(text)

    @property
    def content_range(self) -> ContentRange | None:
        """What part of the file it is; None for what names no such part, or one that makes no sense."""
        found = _RANGE.fullmatch(self.fields.get("content-range", ""))
        if found is None:
            return None
        first, last = int(found[1]), int(found[2])
        total = None if found[3] == "*" else int(found[3])
        if first > last or (total is not None and last >= total):
            return None
        return ContentRange(first, last, total)

    @property
    def is_coded(self) -> bool:
        """The body is not the bytes of the file: it is packed, or comes in chunks."""
        return any(
            self.fields.get(name, "identity").lower() not in ("identity", "")
            for name in ("transfer-encoding", "content-encoding")
        )

    @property
    def content_type(self) -> str:
        """What kind of thing the server takes it for, without parameters; safe on a terminal."""
        kind = self.fields.get("content-type", "").partition(";")[0].strip().lower()
        return kind if re.fullmatch(r"[a-z0-9.+-]{1,40}/[a-z0-9.+-]{1,40}", kind) else "something"

    @property
    def retry_after_s(self) -> float | None:
        """The pause that the server wishes. The other form of the field, a date, is not worth its clock."""
        text = self.fields.get("retry-after", "")
        return min(float(text), MAX_RETRY_S) if re.fullmatch(r"[0-9]{1,9}", text) else None


def request_head(
    target: str, *, host: str, first: int, end: int, agent: str, authorization: str = ""
) -> bytes:
    """A GET of the bytes from `first` to before `end` of what lies at `target` (path and query)."""
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        f"User-Agent: {agent}",
        "Accept: */*",
        "Accept-Encoding: identity",
        f"Range: bytes={first}-{end - 1}",
    ]
    if authorization:
        lines.append(f"Authorization: {authorization}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def head_length(raw: bytes | bytearray) -> int | None:
    """Where the body begins; None while the head is not whole. ProtocolError when it is too long, or none."""
    at = raw.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
    if at >= 0:
        return at + 4
    if len(raw) >= MAX_HEAD_BYTES:
        raise ProtocolError(f"the head of its reply is longer than {MAX_HEAD_BYTES} bytes")
    if not raw.startswith(b"HTTP/1."[: len(raw)]):
        raise ProtocolError("it does not speak HTTP")
    return None


def parse_head(raw: bytes) -> ReplyHead:
    """A whole head, with or without the empty line at its end."""
    first, *lines = raw.rstrip(b"\r\n").split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise ProtocolError("it does not speak HTTP")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise ProtocolError("a header field of its reply makes no sense")
        name, value = name.lower(), value.strip()
        if name == "content-length":
            if not re.fullmatch(r"[0-9]{1,17}", value):
                raise ProtocolError("it says no sensible length")
            if fields.get(name, value) != value:
                raise ProtocolError("it says two different lengths")
        fields[name] = value
    return ReplyHead(int(status[2]), status[1] == b"1", fields)
