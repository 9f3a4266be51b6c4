"""The head of an HTTP request: what is read, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.tracker.head import Headers, Refusal, RequestLine, read_headers, read_request_line


def line(raw: bytes) -> RequestLine | Refusal:
    return read_request_line(b"xx" + raw + b"\r\nyy", 2, 2 + len(raw))


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        (b"GET / HTTP/1.1", RequestLine(b"GET", b"/", b"", 1)),
        (b"HEAD /announce?a=b?c HTTP/1.0", RequestLine(b"HEAD", b"/announce", b"a=b?c", 0)),
        (b"GET //announce HTTP/1.1", RequestLine(b"GET", b"//announce", b"", 1)),
        (b"GET http://tracker:80/announce?a HTTP/1.1", RequestLine(b"GET", b"/announce", b"a", 1)),
        (b"GET HTTP://tracker HTTP/1.1", RequestLine(b"GET", b"/", b"", 1)),
        (b"GET /\xff?\xe9 HTTP/1.1", RequestLine(b"GET", b"/\xff", b"\xe9", 1)),
    ],
)
def test_a_request_line(raw: bytes, read: RequestLine) -> None:
    assert line(raw) == read


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"GET", 400),
        (b"GET /", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b" GET / HTTP/1.1", 400),
        (b"get / HTTP/1.1", 400),
        (b"GET /\t HTTP/1.1", 400),
        (b"GET /\x00 HTTP/1.1", 400),
        (b"GET /a\nb HTTP/1.1", 400),
        (b"GET announce HTTP/1.1", 400),
        (b"CONNECT tracker:80 HTTP/1.1", 400),
        (b"GET / HTTP/1.2", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/0.9", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    ],
)
def test_what_is_no_request_line(raw: bytes, status: int) -> None:
    refusal = line(raw)
    assert isinstance(refusal, Refusal)
    assert refusal.status == status


def read(block: bytes) -> Headers:
    headers = read_headers(block)
    assert isinstance(headers, Headers), headers
    return headers


def test_headers_by_their_names_in_lower_case() -> None:
    headers = read(b'Host: tracker:80\r\nX-A:1\r\nx-a:\t 2 \r\nEmpty:\r\nUser-Agent: \xe9(x; y) "z"')
    assert headers.fields == {
        "host": "tracker:80",
        "x-a": "1, 2",
        "empty": "",
        "user-agent": 'é(x; y) "z"',
    }
    assert headers.has_host
    assert not (headers.closes or headers.keeps_alive or headers.has_body or headers.accepts_json)
    assert read(b"").fields == {}


def test_what_the_server_must_know() -> None:
    assert read(b"Connection: Close").closes
    assert read(b"Connection: foo, close").closes
    assert read(b"Connection: Keep-Alive").keeps_alive
    assert not read(b"Connection: closed").closes
    assert read(b"Content-Length: 5").has_body
    assert not read(b"Content-Length: 0").has_body
    assert read(b"Transfer-Encoding: chunked").has_body
    assert read(b"Accept: text/html, Application/JSON;q=0.9").accepts_json
    assert not read(b"Accept: */*").accepts_json
    assert read(b"X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2").forwarded_for == "1.1.1.1, 2.2.2.2"


@pytest.mark.parametrize(
    "block",
    [
        b"Host",
        b": x",
        b"Ho st: x",
        b"Host : x",
        b"Host: x\r\n folded",
        b"Host: x\r\n\tfolded",
        b"Host: a\x00b",
        b"Host: a\nX: b",
        b"Host: a\rX: b",
        b"Host: a\r\nHost: a",
        b"Content-Length: 1\r\nContent-Length: 1",
        b"Content-Length: -1",
        b"Content-Length: 1, 1",
        b"Content-Length: \xb2",
        b"Content-Length:",
        b"H\xc3\xb6st: x",
        b"Host: x\r\n\r\nX: y",
    ],
)
def test_headers_that_two_readers_could_read_differently_are_refused(block: bytes) -> None:
    refusal = read_headers(block)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 400


@given(st.binary(max_size=80) | st.text("GET /:HTP1.0aé\t\r\n ", max_size=60).map(str.encode))
def test_nothing_breaks_it(raw: bytes) -> None:
    assert isinstance(line(raw), RequestLine | Refusal)
    assert isinstance(read_headers(raw), Headers | Refusal)
