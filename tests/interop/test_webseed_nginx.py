"""Web seeds served by nginx, as Debian has it: what a real server does with our requests."""

from __future__ import annotations

import filecmp
import os
import random
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from bench.daemons import Daemon
from mtorrctl.create import Recipe, create
from tests.lacking import lacking
from tests.net.trackers import closed_port
from tests.swarm.conftest import MakeDaemon, make_daemon, mtorrctl, wait_until
from tests.swarm.test_sharing import make_tree, same_trees

__all__ = ["make_daemon"]

MIB = 1 << 20
START_S = 10.0

CONFIG = """
daemon off; pid {place}/pid; error_log {place}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  log_format ours '$status $request_method "$http_range" $body_bytes_sent $connection $uri';
  access_log {place}/access.log ours;
  gzip on; gzip_types *;
  client_body_temp_path {place}/t; proxy_temp_path {place}/t; fastcgi_temp_path {place}/t;
  uwsgi_temp_path {place}/t; scgi_temp_path {place}/t;
  server {{
    listen 127.0.0.1:{port}; root {place}/www;
    location /whole/ {{ alias {place}/www/; max_ranges 0; }}
    location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
    location /busy/ {{ add_header Retry-After 120 always; return 503; }}
    location /loop/ {{ return 302 $uri; }}
    location /wrong/ {{ alias {place}/wrong/; }}
    location /hang/ {{ proxy_pass http://127.0.0.1:{silent}; proxy_read_timeout 600s; }}
    location /gone/ {{ return 410; }}
  }}
}}
"""


class Nginx:
    """nginx with a directory of its own, `www` in it for the content."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.www = place / "www"
        self.www.mkdir(parents=True)
        self.port = closed_port()
        #: What is behind it takes connections and says nothing.
        self._silent = socket.create_server(("127.0.0.1", 0))
        silent = self._silent.getsockname()[1]
        config = place / "nginx.conf"
        config.write_text(CONFIG.format(place=place, port=self.port, silent=silent))
        # Its own user may not read a test's directory: the worker runs as whoever runs the tests.
        if os.geteuid() == 0:
            config.write_text(f"user root;{config.read_text()}")
        self._process = subprocess.Popen(
            ["nginx", "-c", config, "-e", place / "error.log"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.url = f"http://127.0.0.1:{self.port}/"
        with gevent.Timeout(START_S, AssertionError("nginx does not start")):
            while not self._answers():
                assert self._process.poll() is None, (place / "error.log").read_text()

    def _answers(self) -> bool:
        try:
            with gevent.socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            gevent.sleep(0.02)
            return False

    def requests(self) -> list[tuple[int, str, int, int, str]]:
        """What it has served: status, range, bytes, number of the connection, path."""
        lines = (self.place / "access.log").read_text().splitlines()
        found = [re.fullmatch(r'(\d+) GET "(.*?)" (\d+) (\d+) (.*)', line) for line in lines]
        return [(int(m[1]), m[2], int(m[3]), int(m[4]), m[5]) for m in found if m is not None]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(START_S)
        self._silent.close()


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    """A real web server."""
    if shutil.which("nginx") is None:
        lacking("nginx is not installed")
    nginx = Nginx(tmp_path / "nginx")
    yield nginx
    nginx.close()


def add(daemon: Daemon, content: Path, *urls: str) -> None:
    recipe = Recipe(trackers=(("http://127.0.0.1:9/announce",),), web_seeds=urls, piece_length=256 << 10)
    metainfo = create(str(content), str(daemon.directory / f"{content.name}.mtorrent"), recipe).path
    added = mtorrctl(daemon, "add", metainfo)
    assert added.returncode == 0, added.stderr


def test_a_file(nginx: Nginx, make_daemon: MakeDaemon) -> None:
    content = nginx.www / "file.bin"
    content.write_bytes(random.Random(1).randbytes(40 * MIB + 1))
    leecher = make_daemon("leecher")
    add(leecher, content, nginx.url)
    wait_until(leecher, lambda row: row["state"] == "seeding")
    assert filecmp.cmp(content, leecher.save_to / "file.bin", shallow=False)
    served = nginx.requests()
    assert {status for status, *_ in served} == {206}
    assert sum(size for _, _, size, *_ in served) == content.stat().st_size
    assert len(served) < 80, "neighbouring blocks are one range"
    assert len({connection for *_, connection, _ in served}) <= 3


def test_a_directory(nginx: Nginx, make_daemon: MakeDaemon) -> None:
    source = make_tree(nginx.www / "tree", 8 * MIB)
    (source / "sub" / "räksmörgås 100% & more?.txt").write_bytes(b"text " * 9999)
    leecher = make_daemon("leecher")
    add(leecher, source, nginx.url)
    wait_until(leecher, lambda row: row["state"] == "seeding")
    assert same_trees(source, leecher.save_to / "tree")
    assert {status for status, *_ in nginx.requests()} == {206}


def test_redirects(nginx: Nginx, make_daemon: MakeDaemon) -> None:
    source = make_tree(nginx.www / "tree", 2 * MIB)
    leecher = make_daemon("leecher")
    add(leecher, source, f"{nginx.url}moved")
    wait_until(leecher, lambda row: row["state"] == "seeding")
    assert same_trees(source, leecher.save_to / "tree")


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("nowhere/", "it has no such file (status 404)"),
        ("gone/", "it has no such file (status 410)"),
        ("busy/", "it is busy (status 503)"),
        ("whole/", "it knows no ranges, and sends all 9437184 bytes of the file"),
    ],
)
def test_what_it_will_not_do(nginx: Nginx, make_daemon: MakeDaemon, where: str, reason: str) -> None:
    content = nginx.www / "file.bin"
    content.write_bytes(random.Random(1).randbytes(9 * MIB))
    leecher = make_daemon("leecher")
    add(leecher, content, f"{nginx.url}{where}")
    row = wait_until(leecher, lambda row: reason in leecher.log())
    assert (row["state"], row["error"]) == ("downloading", None)
    assert len(nginx.requests()) == 1
    assert leecher.stop() == 0


def test_a_small_file_without_ranges(nginx: Nginx, make_daemon: MakeDaemon) -> None:
    content = nginx.www / "file.bin"
    content.write_bytes(random.Random(1).randbytes(2 * MIB))
    leecher = make_daemon("leecher")
    add(leecher, content, f"{nginx.url}whole/")
    wait_until(leecher, lambda row: row["state"] == "seeding")
    assert filecmp.cmp(content, leecher.save_to / "file.bin", shallow=False)


@pytest.mark.parametrize(
    ("where", "state", "retry_s"),
    [
        ("nowhere/", "resting", 3500),
        ("busy/", "resting", 110),
        ("loop/", "resting", 1700),
        ("wrong/", "banned", 0),
        ("hang/", "idle", 0),
    ],
)
def test_a_bad_place_beside_a_good_one(
    nginx: Nginx, make_daemon: MakeDaemon, where: str, state: str, retry_s: int
) -> None:
    content = nginx.www / "file.bin"
    content.write_bytes(random.Random(1).randbytes(9 * MIB))
    wrong = nginx.place / "wrong" / "file.bin"
    wrong.parent.mkdir()
    wrong.write_bytes(random.Random(2).randbytes(9 * MIB))
    leecher = make_daemon("leecher")
    add(leecher, content, f"{nginx.url}{where}", nginx.url)
    wait_until(leecher, lambda row: row["state"] == "seeding")
    assert filecmp.cmp(content, leecher.save_to / "file.bin", shallow=False)
    bad, good = leecher.call("torrent.show", id="all")["web_seeds"]
    assert (bad["state"], good["state"]) == (state, "idle")
    assert (bad["retry_in_s"] or 0) >= retry_s
    assert leisurely(nginx, where) <= 6


def leisurely(nginx: Nginx, where: str) -> int:
    """How often that place was asked; one whose bytes had to be seen to be wrong does not count."""
    return 0 if where == "wrong/" else sum(path.startswith(f"/{where}") for *_, path in nginx.requests())
