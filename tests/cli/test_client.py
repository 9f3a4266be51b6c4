"""The client's connection: calls, batches, notes, and daemons that answer badly or not at all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from microtorrd.errors import Duplicate, NotFound
from microtorrd.greenlets import Crew
from microtorrd.proto import jsonrpc
from mtorrctl import sockets
from mtorrctl.client import Client
from mtorrctl.exits import Failure, OutOfTime, Unreachable, WrongUsage, code_of, code_of_several
from mtorrctl.waiting import wait_until_whole
from tests.cli.program import PROGRAM
from tests.rpc.fake import mtorrent
from tests.rpc.house import House, open_house


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    with Client.open(house.path) as client:
        yield client


# ------------------------------------------------------------------------------------------------ good ones


def test_a_call_returns_the_result_or_raises_what_the_daemon_raised(client: Client) -> None:
    row = client.call("torrent.add", metainfo=mtorrent())
    assert row["name"] == "ubuntu.iso"
    with pytest.raises(Duplicate) as caught:
        client.call("torrent.add", metainfo=mtorrent())
    assert caught.value.data["info_hash"] == row["info_hash"]


def test_a_batch_has_each_outcome_in_its_place(client: Client) -> None:
    client.call("torrent.add", metainfo=mtorrent())
    good, bad = client.batch([("torrent.pause", {"id": "ubuntu.iso"}), ("torrent.pause", {"id": "nobody"})])
    assert good["torrents"][0]["state"] == "stopped"
    assert isinstance(bad, NotFound)
    assert client.batch([]) == []


def test_a_batch_may_be_longer_than_one_line_allows(client: Client) -> None:
    outcomes = client.batch([("daemon.ping", {})] * (jsonrpc.MAX_BATCH + 5))
    assert len(outcomes) == jsonrpc.MAX_BATCH + 5
    assert all(outcome["pong"] for outcome in outcomes)


def test_notes_and_calls_share_a_connection(client: Client, house: House) -> None:
    client.subscribe(kinds=["torrent_added", "limits_changed"])
    client.call("torrent.add", metainfo=mtorrent())
    house.session.note("limits_changed", down=1)
    kinds = [client.next_note(5), client.next_note(5)]
    assert [note and note["kind"] for note in kinds] == ["torrent_added", "limits_changed"]
    assert client.next_note(0.01) is None
    house.session.note("limits_changed", down=2)
    house.server.stop()
    assert [note["kind"] for note in client.notes()] == ["limits_changed", "daemon_stopping"]
    with pytest.raises(Unreachable, match="closed the connection"):
        client.next_note()


def test_a_metainfo_of_many_mebibytes_arrives(client: Client, house: House) -> None:
    big = mtorrent(length=20 * 10**6, piece_length=16)
    assert len(big) > 20 << 20
    assert client.call("torrent.add", metainfo=big)["piece_count"] == 1_250_000


def test_waiting_ends_at_once_when_nothing_is_missing(client: Client, house: House) -> None:
    row = client.call("torrent.add", metainfo=mtorrent(), seed_path="/srv/ubuntu.iso")
    assert wait_until_whole(client, row, shows=False)["state"] == "seeding"


def test_waiting_in_vain(client: Client) -> None:
    row = client.call("torrent.add", metainfo=mtorrent())
    with pytest.raises(OutOfTime):
        wait_until_whole(client, row, timeout_s=0.05, shows=False)


# ------------------------------------------------------------------------------------------------- bad ones

Behaviour = Callable[[socket.socket], None]


@pytest.fixture
def impostor(tmp_path: Path, crew: Crew) -> Callable[[Behaviour], Client]:
    """A server that behaves as it likes to one client."""

    def serve(behaviour: Behaviour) -> Client:
        path = str(tmp_path / "impostor.sock")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen()

        def work() -> None:
            with listener, listener.accept()[0] as sock:
                behaviour(sock)

        crew.spawn("impostor", work)
        return Client.open(path, answer_s=0.2)

    return serve


def _silent(sock: socket.socket) -> None:
    sock.recv(10_000)
    sock.recv(1)


def _leaver(sock: socket.socket) -> None:
    sock.recv(10_000)


def _says(answer: bytes) -> Behaviour:
    def behaviour(sock: socket.socket) -> None:
        sock.recv(10_000)
        sock.sendall(answer)
        sock.recv(1)

    return behaviour


@pytest.mark.parametrize(
    ("behaviour", "error", "words"),
    [
        (_silent, Unreachable, "did not answer within 0.2 s"),
        (_leaver, Unreachable, "closed the connection"),
        (_says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Failure, "does not speak as microtorrd does"),
        (_says(b'{"jsonrpc":"2.0","id":99,"result":1}\n'), Failure, "answered call 99"),
        (_says(b'{"jsonrpc":"2.0","id":1}\n'), Failure, "neither a result nor an error"),
        (_says(b"\xff\xfe\n"), Failure, "does not speak"),
    ],
)
def test_servers_that_are_none(
    impostor: Callable[[Behaviour], Client], behaviour: Behaviour, error: type[Exception], words: str
) -> None:
    with impostor(behaviour) as client, pytest.raises(error, match=words):
        client.call("daemon.ping")


def test_last_words_count_more_than_a_broken_pipe(impostor: Callable[[Behaviour], Client]) -> None:
    def refuse(sock: socket.socket) -> None:
        sock.sendall(b'{"jsonrpc":"2.0","id":null,"error":{"code":1029,"message":"too many of you"}}\n')

    with impostor(refuse) as client, pytest.raises(Exception, match="too many of you"):
        client.call("torrent.add", metainfo=b"x" * 10_000_000)


def test_what_the_daemon_would_not_take_is_not_sent(client: Client) -> None:
    with pytest.raises(Failure, match="the daemon takes"):
        client.call("torrent.add", metainfo=b"x" * (70 << 20))
    with pytest.raises(WrongUsage, match="not valid UTF-8"):
        client.call("torrent.show", id="\udcff")
    assert client.call("daemon.ping")["pong"]


# ------------------------------------------------------------------------------------------------- sockets


def test_which_sockets_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    runtime = {"XDG_RUNTIME_DIR": "/run/user/1000"}
    assert sockets.candidates("/a", {"MTORRCTL_SOCKET": "/b"}) == ["/a"]
    assert sockets.candidates(None, {"MTORRCTL_SOCKET": "/b", **runtime}) == ["/b"]
    assert sockets.candidates(None, runtime) == [
        "/run/user/1000/microtorrd/control.sock",
        "/run/microtorrd/control.sock",
    ]
    assert sockets.candidates(None, {})[0] == "/home/alice/.local/state/microtorrd/control.sock"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("shut", ["socket", "directory"])
def test_who_may_not_is_told_which_group_may(shut: str) -> None:
    nobody = 65534
    with tempfile.TemporaryDirectory() as place, open_house(Path(place, "run")) as house:
        os.chmod(place, 0o755)
        os.chmod(Path(place, "run"), 0o750 if shut == "directory" else 0o755)
        program = f"""
import os, sys
sys.argv = ["mtorrctl", "--socket", {house.path!r}, "ping"]
from mtorrctl.__main__ import main
import mtorrctl.cli, mtorrctl.commands.process, mtorrctl.commands.common
os.setgroups([]); os.setgid({nobody}); os.setuid({nobody})
sys.exit(main())
"""
        result = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
        )
    assert result.returncode == 3
    assert f"permission denied on {house.path}" in result.stderr
    assert "you are not in the group root" in result.stderr
    assert "sudo usermod -aG root" in result.stderr


# --------------------------------------------------------------------------------------------- exit codes


def test_exit_codes_of_errors() -> None:
    assert [code_of(error) for error in (Failure(""), WrongUsage(""), Unreachable(""), OutOfTime(""))] == [
        1,
        2,
        3,
        124,
    ]
    assert code_of(NotFound("")) == 4
    assert code_of(Duplicate("")) == 1
    assert code_of_several([], 3) == 0
    assert code_of_several([NotFound("")], 3) == 5
    assert code_of_several([NotFound(""), NotFound("")], 2) == 4
    assert code_of_several([NotFound(""), Duplicate("")], 2) == 1


# ---------------------------------------------------------------------------------------------- lightness


def test_a_ping_imports_nothing_heavy(house: House) -> None:
    program = f"""
import sys
sys.argv = ["mtorrctl", "--socket", {house.path!r}, "ping"]
from mtorrctl.__main__ import main
assert main() == 0
print(*sorted(sys.modules))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    imported = {name.partition(".")[0] for name in result.stdout.splitlines()[-1].split()}
    heavy = {
        "gevent",
        "flask",
        "requests",
        "structlog",
        "rich",
        "bencodepy",
        "hashlib",
        "urllib",
        "tempfile",
        "http",
    }
    assert imported & heavy <= {"urllib"}  # click.types brings urllib.parse by way of pathlib
    assert "urllib.request" not in result.stdout


def test_a_ping_is_quick(house: House) -> None:
    """Under 150 ms on a quiet machine; here, where others work too, a bound on what it adds to Python."""
    gevent.sleep(0)
    best = min(_cpu_seconds([str(PROGRAM), "--socket", house.path, "ping"]) for _ in range(3))
    bare = min(_cpu_seconds([sys.executable, "-c", "pass"]) for _ in range(3))
    assert best < bare + 0.25


def _cpu_seconds(command: list[str]) -> float:
    before = os.times()
    subprocess.run(command, capture_output=True, timeout=30, check=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system
