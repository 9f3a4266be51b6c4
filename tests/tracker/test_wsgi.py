"""Calling WSGI applications: what they see, and what their answers look like on the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from microtorrd.tracker import wsgi
from microtorrd.tracker.head import Headers, RequestLine, read_headers

DATE = "Sun, 22 Nov 2026 12:00:00 GMT"


def environ_of(method: bytes = b"GET", block: bytes = b"Host: x") -> dict[str, Any]:
    headers = read_headers(block)
    assert isinstance(headers, Headers)
    line = RequestLine(method, b"/a%20b/%C3%A9", b"q=%20", 1)
    return wsgi.make_environ(line, headers, client=("192.0.2.1", 4711), server=("192.0.2.2", 8888))


class Application:
    """Answers with these parts and remembers whether it was closed."""

    def __init__(self, status: str, headers: list[tuple[str, str]], parts: list[bytes | Exception]) -> None:
        self.status, self.headers, self.parts = status, headers, parts
        self.closed = False

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Application:
        start_response(self.status, self.headers)
        return self

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part

    def close(self) -> None:
        self.closed = True


def answer(application: Application, method: bytes = b"GET", *, keep_alive: bool = True) -> list[bytes]:
    return list(wsgi.answer(application, environ_of(method), date=DATE, keep_alive=keep_alive))


def test_the_environment() -> None:
    environ = environ_of(b"POST", b"Host: x\r\nX-A: 1\r\nX_A: 2\r\nContent-Type: t/t\r\nContent-Length: 5")
    assert environ["REQUEST_METHOD"] == "POST"
    assert environ["PATH_INFO"] == "/a b/\xc3\xa9"
    assert environ["QUERY_STRING"] == "q=%20"
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("192.0.2.1", "4711")
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("192.0.2.2", "8888")
    assert (environ["HTTP_HOST"], environ["HTTP_X_A"], environ["CONTENT_TYPE"]) == ("x", "1", "t/t")
    assert "CONTENT_LENGTH" not in environ
    assert "HTTP_CONTENT_LENGTH" not in environ
    assert environ["wsgi.input"].read() == b""


def test_a_body_of_known_length_goes_out_with_its_head() -> None:
    application = Application("200 OK", [("Content-Length", "2")], [b"ok"])
    head = f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: {DATE}\r\nConnection: keep-alive\r\n\r\n"
    assert answer(application) == [head.encode() + b"ok"]
    assert application.closed


def test_a_stream_is_sent_in_chunks_as_they_come() -> None:
    first, second, last = answer(
        Application("200 OK", [("Date", "x")], [b"", b"one", b"", b"twotwotwotwotwo!"])
    )
    assert first.endswith(
        b"Date: x\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n3\r\none\r\n"
    )
    assert second == b"10\r\ntwotwotwotwotwo!\r\n"
    assert last == b"0\r\n\r\n"
    empty = b"".join(answer(Application("200 OK", [], [])))
    assert empty.endswith(b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n")


def test_an_application_may_say_its_head_with_its_first_part() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterator[bytes]:
        start_response("202 Accepted", [("X-A", "1"), ("Content-Length", "3")])
        yield b"one"

    (only,) = wsgi.answer(application, environ_of(), date=DATE, keep_alive=True)
    assert only.startswith(b"HTTP/1.1 202 Accepted\r\nX-A: 1\r\nContent-Length: 3\r\n")


def test_a_stream_to_a_connection_that_ends_has_no_chunks() -> None:
    first, second = answer(Application("200 OK", [], [b"one", b"two"]), keep_alive=False)
    assert b"chunked" not in first
    assert first.endswith(b"Connection: close\r\n\r\none")
    assert second == b"two"


@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", "200 OK"), (b"GET", "204 No Content"), (b"GET", "304 N")]
)
def test_what_has_no_body_gets_none(method: bytes, status: str) -> None:
    (only,) = answer(Application(status, [], [b"body"]), method)
    assert only.endswith(b"Connection: keep-alive\r\n\r\n")
    assert b"chunked" not in only


def test_an_application_that_breaks_off_is_closed_all_the_same() -> None:
    application = Application("200 OK", [], [b"one", ValueError("broken")])
    with pytest.raises(ValueError, match="broken"):
        answer(application)
    assert application.closed
