"""Heads of HTTP replies: what is read of them, and that nothing but ProtocolError comes of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.errors import ProtocolError
from microtorrd.proto.http_head import (
    MAX_HEAD_BYTES,
    ContentRange,
    ReplyHead,
    head_length,
    parse_head,
    request_head,
)


def head(*lines: str, status: str = "HTTP/1.1 206 Partial Content") -> ReplyHead:
    return parse_head("\r\n".join([status, *lines, "", ""]).encode("latin-1"))


def test_a_request() -> None:
    raw = request_head("/a%20b?c", host="h:81", first=5, end=10, agent="me/1", authorization="Basic eA==")
    assert raw == (
        b"GET /a%20b?c HTTP/1.1\r\nHost: h:81\r\nUser-Agent: me/1\r\nAccept: */*\r\n"
        b"Accept-Encoding: identity\r\nRange: bytes=5-9\r\nAuthorization: Basic eA==\r\n\r\n"
    )


def test_a_reply() -> None:
    found = head("Content-LENGTH: 5 ", "content-range: Bytes 0-4/10", "X:", "Content-Type: Text/HTML; a=b")
    assert (found.status, found.content_length, found.content_range) == (206, 5, ContentRange(0, 4, 10))
    assert (found.stays_open, found.is_coded, found.content_type) == (True, False, "text/html")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("bytes 0-0/*", ContentRange(0, 0, None)),
        ("bytes 7-9/10", ContentRange(7, 9, 10)),
        ("bytes 7-10/10", None),
        ("bytes 9-7/10", None),
        ("bytes */10", None),
        ("bytes 0-123456789012345678/*", None),
        ("items 0-1/2", None),
        ("", None),
    ],
)
def test_content_range(value: str, found: ContentRange | None) -> None:
    assert head(f"Content-Range: {value}").content_range == found


@pytest.mark.parametrize(
    ("status", "lines", "stays"),
    [
        ("HTTP/1.1 200 OK", [], True),
        ("HTTP/1.1 200", ["Connection: Close"], False),
        ("HTTP/1.0 200 OK", [], False),
        ("HTTP/1.0 200 OK", ["Connection: keep-alive"], True),
    ],
)
def test_whether_the_connection_stays_open(status: str, lines: list[str], stays: bool) -> None:
    assert head(*lines, status=status).stays_open is stays


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("999999999", 86_400.0), ("-1", None), ("soon", None), ("\u0661", None), ("", None)],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert ReplyHead(503, True, {"retry-after": value}).retry_after_s == seconds


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: line\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_heads_that_make_no_sense(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_head(raw)


def test_where_the_body_begins() -> None:
    raw = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody"
    assert [head_length(raw[:end]) for end in range(1, len(raw) + 1)] == [None] * 24 + [25] * 5
    with pytest.raises(ProtocolError, match="does not speak HTTP"):
        head_length(b"SSH-")
    assert head_length(b"HTTP/1.1 200 OK\r\n" + b"x" * (MAX_HEAD_BYTES - 18)) is None
    with pytest.raises(ProtocolError, match="longer than"):
        head_length(b"HTTP/1.1 200 OK\r\n" + b"x" * MAX_HEAD_BYTES)


fields = st.lists(
    st.tuples(
        st.sampled_from(
            ["Content-Length", "Content-Range", "Retry-After", "Connection", "Transfer-Encoding", "X", ""]
        ),
        st.one_of(st.text(max_size=30), st.from_regex(r"(bytes )?\d{0,20}(-\d{0,20}/\d{0,20})?")),
    ),
    max_size=6,
)


@given(st.sampled_from(["HTTP/1.1 206 OK", "HTTP/1.0 503 ", "HTTP/1.1 99"]), fields, st.binary(max_size=20))
def test_only_protocol_errors_come_out(status: str, lines: list[tuple[str, str]], tail: bytes) -> None:
    raw = "\r\n".join([status, *(f"{name}: {value}" for name, value in lines)]).encode("utf-8", "replace")
    try:
        if head_length(raw + tail + b"\r\n\r\n") is None:
            return
        found = parse_head(raw + tail + b"\r\n\r\n")
    except ProtocolError:
        return
    assert found.content_length is None or found.content_length >= 0
    assert found.retry_after_s is None or 0 <= found.retry_after_s <= 86_400
    part = found.content_range
    assert part is None or 0 <= part.first <= part.last
    assert isinstance(found.stays_open, bool) and isinstance(found.is_coded, bool)
    assert found.content_type.isprintable()
