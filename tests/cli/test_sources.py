"""Metainfo from web servers: good ones, and all that a server can do wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from mtorrctl import sources
from mtorrctl.exits import Failure
from tests.cli.program import Shell
from tests.rpc.fake import mtorrent
from tests.rpc.house import House

StartResponse = Callable[[str, list[tuple[str, str]]], object]

RAW = mtorrent()


class Web:
    """A web server with a page for each mistake."""

    def __init__(self) -> None:
        self.enough = Event()
        self.agents: list[str] = []
        self.server = WSGIServer(("127.0.0.1", 0), self.answer, log=None, error_log=None)
        self.server.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{path}"

    def answer(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        self.agents.append(environ.get("HTTP_USER_AGENT", ""))
        pages: dict[str, tuple[str, dict[str, str], Iterable[bytes]]] = {
            "/good": ("200 OK", {}, [RAW]),
            "/moved": ("302 Found", {"Location": "/good"}, []),
            "/loop": ("302 Found", {"Location": "/loop"}, []),
            "/to-file": ("302 Found", {"Location": "file:///etc/passwd"}, []),
            "/to-ftp": ("302 Found", {"Location": "ftp://127.0.0.1/x"}, []),
            "/page": ("200 OK", {"Content-Type": "text/html"}, [b"\n <!doctype html>"]),
            "/empty": ("200 OK", {}, []),
            "/500": ("500 Internal Server Error", {}, [b"oh no"]),
            "/big": ("200 OK", {"Content-Length": str(80 << 20)}, self.slowly(b"x")),
            "/endless": ("200 OK", {}, iter(lambda: b"x" * 1_000_000, b"")),
            "/slow": ("200 OK", {}, self.slowly(RAW)),
            "/short": ("200 OK", {"Content-Length": str(len(RAW) + 10)}, [RAW]),
        }
        status, headers, body = pages.get(path, ("404 Not Found", {}, [b"nothing here"]))
        start(status, list(headers.items()))
        return body

    def slowly(self, raw: bytes) -> Iterator[bytes]:
        yield raw[:1]
        self.enough.wait()


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.enough.set()
    web.server.stop(timeout=1)


def test_a_url_is_fetched_and_added(shell: Shell, house: House, web: Web) -> None:
    ran = shell.run("add", web.url("moved"))
    assert ran.code == 0, ran.err
    assert [row["name"] for row in house.session.rows.values()] == ["ubuntu.iso"]
    assert web.agents[0].startswith("mtorrctl/")
    assert shell.run("show", web.url("good"), "--json").json["name"] == "ubuntu.iso"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere", "the server answered 404 Not Found"),
        ("500", "the server answered 500"),
        ("loop", "redirect"),
        ("to-file", "not allowed"),
        ("to-ftp", "unknown url type"),
        ("page", "is a web page, not a .mtorrent"),
        ("empty", "the answer is empty"),
        ("big", "more than"),
        ("endless", "more than"),
        ("short", "the answer ended after"),
    ],
)
def test_what_servers_do_wrong(web: Web, path: str, words: str) -> None:
    with gevent.Timeout(20), pytest.raises(Failure, match=words) as caught:
        sources.read_metainfo(web.url(path))
    assert web.url(path) in str(caught.value)


def test_a_server_that_says_nothing_more(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "READ_S", 0.1)
    with pytest.raises(Failure, match=r"no answer within 0\.1 s"):
        sources.read_metainfo(web.url("slow"))


def test_a_server_that_takes_its_time(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FETCH_S", 0.0)
    with pytest.raises(Failure, match="not done within 0 s"):
        sources.read_metainfo(web.url("good"))


def test_a_server_that_is_not_there_is_told_in_words() -> None:
    with pytest.raises(Failure) as caught:
        sources.read_metainfo("http://127.0.0.1:1/x.torrent")
    assert str(caught.value) == "http://127.0.0.1:1/x.torrent: Connection refused"


def test_of_several_files_the_wrong_ones_are_named(shell: Shell, house: House, tmp_path: Path) -> None:
    (tmp_path / "good.torrent").write_bytes(RAW)
    (tmp_path / "short.torrent").write_bytes(RAW[:50])
    (tmp_path / "film.mkv").write_bytes(b"\x1aE\xdf\xa3")
    ran = shell.run("add", "short.torrent", "good.torrent", "film.mkv")
    assert ran.code == 5
    assert [row["name"] for row in house.session.rows.values()] == ["ubuntu.iso"]
    assert "mtorrctl: short.torrent: metainfo: " in ran.err
    assert "mtorrctl: film.mkv: metainfo: " in ran.err
    assert "to share it: mtorrctl seed film.mkv" in ran.err
    assert "seed short.torrent" not in ran.err
    shown = shell.run("show", "film.mkv")
    assert (shown.code, shown.err) == (1, ran.err[ran.err.index("mtorrctl: film.mkv") :])
