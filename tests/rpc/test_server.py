"""The control server on a real socket: clients that call, stream, flood, say nothing, or do not read."""

from __future__ import annotations

import errno
import gc
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event

from microtorrd.greenlets import Crew
from microtorrd.proto import jsonrpc
from microtorrd.rpc.connection import TURN_S, Connection
from microtorrd.rpc.server import Bounds
from microtorrd.terms import Terms
from tests.conftest import HubWatch
from tests.rpc.fake import mtorrent
from tests.rpc.house import House, open_house
from tests.waiting import until

Logs = Callable[[], list[dict[str, Any]]]


class Client:
    """A client that writes and reads bare lines."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(path)
        self.reader = self.sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.reader.close()
        self.sock.close()

    def say(self, raw: bytes) -> None:
        self.sock.sendall(raw)

    def hear(self) -> Any:
        """The next line as a value; None at the end of the connection."""
        line = self.reader.readline()
        return json.loads(line) if line else None

    def ask(self, method: str, **params: Any) -> Any:
        self.say(jsonrpc.encode_call(method, params, 1))
        return self.hear()

    def subscribe(self, **params: Any) -> None:
        assert self.ask("events.subscribe", **params)["result"]["subscribed"]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path) as house:
        yield house


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    with Client(house.path) as client:
        yield client


# ----------------------------------------------------------------------------------------------- answering


def test_calls_are_answered_in_their_order_over_one_connection(client: Client) -> None:
    lines = [jsonrpc.encode_call("daemon.ping", {}, number) for number in range(50)]
    client.say(b"".join(lines))
    assert [client.hear()["id"] for _ in range(50)] == list(range(50))


def test_a_line_may_come_in_any_pieces(client: Client) -> None:
    line = jsonrpc.encode_call("torrent.add", {"metainfo": mtorrent()}, 1)
    for at in range(0, len(line), 7):
        client.say(line[at : at + 7])
        gevent.sleep(0)
    assert client.hear()["result"]["name"] == "ubuntu.iso"


def test_who_closes_the_writing_half_still_gets_the_answers(client: Client) -> None:
    client.say(jsonrpc.encode_call("daemon.ping", {}, 1) + jsonrpc.encode_call("daemon.ping", {}, 2))
    client.sock.shutdown(socket.SHUT_WR)
    assert [client.hear()["id"], client.hear()["id"], client.hear()] == [1, 2, None]


def test_garbage_is_answered_and_the_connection_goes_on(client: Client) -> None:
    client.say(b"hello\n\n\xff\xfe\n")
    assert client.hear()["error"]["code"] == -32700
    assert client.hear()["error"]["code"] == -32700
    assert client.ask("daemon.ping")["result"]["pong"] is True


def test_the_credentials_of_the_caller_are_logged(client: Client, log_lines: Logs) -> None:
    client.ask("torrent.pause", id="all")
    (line,) = [line for line in log_lines() if line["event"] == "rpc_call"]
    assert (line["pid"], line["uid"], line["gid"]) == (os.getpid(), os.getuid(), os.getgid())


def test_a_bug_in_a_method_ends_nothing(house: House, client: Client, log_lines: Logs) -> None:
    house.session.crash = RuntimeError("a bug")
    assert client.ask("torrent.list")["error"]["code"] == -32603
    house.session.crash = None
    assert client.ask("torrent.list")["result"] == {"torrents": []}
    assert "RuntimeError" in json.dumps(log_lines())


# ------------------------------------------------------------------------------------------------- bounds


def test_a_line_of_a_hundred_mebibytes_gets_a_clear_error_and_ends_the_connection(
    house: House, client: Client, hub_watch: HubWatch
) -> None:
    chunk = b"x" * (1 << 20)
    for _ in range(100):
        client.say(chunk)
    answer = client.hear()
    assert answer["error"]["code"] == jsonrpc.LINE_TOO_LONG
    assert "longer than" in answer["error"]["message"]
    assert client.hear() is None
    client.sock.close()
    client.reader.close()
    until(lambda: house.server.client_count == 0)
    assert house.server.budget.used_bytes == 0


def test_what_all_clients_hold_together_is_bounded(tmp_path: Path) -> None:
    bounds = Bounds(line_bytes=1 << 20, buffered_bytes=3 << 19)
    half_sent = b"x" * ((1 << 20) - 100)
    with open_house(tmp_path, bounds) as house, Client(house.path) as first, Client(house.path) as second:
        first.say(half_sent)
        until(lambda: house.server.budget.used_bytes > 900_000)
        second.say(half_sent)
        assert second.hear()["error"]["code"] == 1029
        assert house.server.budget.used_bytes <= bounds.buffered_bytes
        first.say(b"\n")
        assert first.hear()["error"]["code"] == -32700
        until(lambda: house.server.budget.used_bytes == 0)
        assert first.ask("daemon.ping")["result"]["pong"] is True


def test_five_hundred_silent_connections_do_not_keep_others_out(tmp_path: Path) -> None:
    with open_house(tmp_path) as house, Client(house.path) as talker:
        assert talker.ask("daemon.ping")["result"]["pong"] is True
        silent = []
        for _ in range(500):
            silent.append(Client(house.path))
            gevent.sleep(0)
        with Client(house.path) as late:
            assert late.ask("daemon.ping")["result"]["pong"] is True
        assert house.server.client_count <= house.server.bounds.clients
        # Who has called before stays; the first silent one was told why it had to go.
        assert talker.ask("daemon.ping")["result"]["pong"] is True
        assert silent[0].hear()["error"]["code"] == 1029
        assert silent[0].hear() is None
        for client in silent:
            client.__exit__()


def test_subscribers_are_not_pushed_out(tmp_path: Path) -> None:
    with open_house(tmp_path, Bounds(clients=2, subscribers=2)) as house:
        with Client(house.path) as one, Client(house.path) as two:
            one.subscribe()
            two.subscribe()
            with Client(house.path) as third:
                assert third.hear()["error"]["code"] == 1029
                assert third.hear() is None
            assert one.ask("daemon.ping")["result"]["pong"] is True
        until(lambda: house.server.client_count == 0)


def test_the_number_of_subscribers_is_bounded(tmp_path: Path) -> None:
    with open_house(tmp_path, Bounds(subscribers=1)) as house:
        with Client(house.path) as one, Client(house.path) as two:
            one.subscribe()
            assert one.ask("events.subscribe")["error"]["code"] == 1003
            assert two.ask("events.subscribe")["error"]["code"] == 1029
            assert len(house.session.board._subscriptions) == 1
        until(lambda: not house.session.board.has_readers)


def test_a_client_that_does_not_read_its_answers_is_dropped(tmp_path: Path, log_lines: Logs) -> None:
    with open_house(tmp_path, Bounds(answer_s=0.05)) as house, Client(house.path) as client:
        for number in range(100):
            house.session.add(
                mtorrent(f"torrent {number} {'x' * 150}"),
                Terms(),
            )
        until(lambda: house.server.client_count == 1)
        client.say(jsonrpc.encode_call("torrent.list", {}, 1) * 200)
        until(lambda: house.server.client_count == 0)
        assert [line for line in log_lines() if line["event"] == "rpc_client_lost"]


def test_a_greedy_client_lets_others_speak(house: House, client: Client, crew: Crew) -> None:
    enough = Event()

    def flood() -> None:
        with Client(house.path) as greedy:
            while not enough.is_set():
                greedy.say(b'{"jsonrpc":"2.0","method":"daemon.ping"}\n' * 200)

    crew.spawn("flood", flood)
    for _ in range(20):
        assert client.ask("daemon.ping")["result"]["pong"] is True
    enough.set()
    until(lambda: not crew.alive())


def test_many_calls_in_one_write_leave_others_their_turn(house: House, client: Client, crew: Crew) -> None:
    """Sockets and timers, too, not only other clients that are ready."""
    beats: list[float] = []
    timer = gevent.get_hub().loop.timer(0.001, 0.001)
    timer.start(lambda: beats.append(time.thread_time()))

    def flood() -> None:
        with Client(house.path) as greedy:
            greedy.say(b'{"jsonrpc":"2.0","method":"daemon.ping","id":1}\n' * 4000)
            for _ in range(4000):
                greedy.hear()

    crew.spawn("flood", flood)
    until(lambda: not crew.alive())
    timer.stop()
    timer.close()
    assert max(later - before for before, later in pairwise(beats)) < 3 * TURN_S


def test_a_client_that_left_leaves_nothing_for_the_search_for_cycles(house: House, crew: Crew) -> None:
    gc.collect()
    gc.disable()
    try:
        with Client(house.path) as client:
            client.subscribe()
            client.ask("daemon.ping")
        until(lambda: not [thing for thing in gc.get_objects() if isinstance(thing, Connection)])
    finally:
        gc.enable()


def test_running_out_of_descriptors_is_survived(house: House, client: Client, log_lines: Logs) -> None:
    assert client.ask("daemon.ping")["result"]["pong"] is True
    listening = house.server._control.sock
    failures = iter(
        [OSError(errno.EMFILE, "Too many open files"), ConnectionAbortedError(errno.ECONNABORTED, "")]
    )

    class Exhausted:
        """Fails as the kernel would, then does its work again."""

        def accept(self) -> Any:
            error = next(failures, None)
            if error is not None:
                raise error
            return listening.accept()

        def close(self) -> None:
            listening.close()

    house.server._control.sock = Exhausted()
    with Client(house.path) as one, Client(house.path) as two:
        assert one.ask("daemon.ping")["result"]["pong"] is True
        assert two.ask("daemon.ping")["result"]["pong"] is True
    assert [line["event"] for line in log_lines() if line["level"] == "warning"] == ["rpc_accept_failed"]


# ------------------------------------------------------------------------------------------------- streams


def test_notes_are_streamed_after_the_answer_with_readable_times(house: House, client: Client) -> None:
    client.subscribe()
    house.session.add(mtorrent(), Terms())
    note = client.hear()
    assert (note["jsonrpc"], note["method"], "id" in note) == ("2.0", "event", False)
    assert note["params"]["kind"] == "torrent_added"
    assert note["params"]["name"] == "ubuntu.iso"
    assert note["params"]["time"].endswith("Z")


def test_a_streaming_connection_still_takes_calls(house: House, client: Client) -> None:
    client.subscribe(kinds=["limits_changed"])
    house.session.note("limits_changed", down=1)
    assert client.hear()["params"]["down"] == 1
    assert client.ask("daemon.ping")["result"]["pong"] is True
    house.session.note("progress")
    house.session.note("limits_changed", down=2)
    assert client.hear()["params"]["down"] == 2


def test_a_subscriber_that_closed_its_writing_half_still_gets_notes(house: House, client: Client) -> None:
    client.subscribe()
    client.sock.shutdown(socket.SHUT_WR)
    gevent.sleep(0.01)
    house.session.note("limits_changed", down=1)
    assert client.hear()["params"]["kind"] == "limits_changed"


def test_the_subscription_ends_with_its_reader(house: House) -> None:
    with Client(house.path) as client:
        client.subscribe()
        assert house.session.board.has_readers
    until(lambda: not house.session.board.has_readers)
    until(lambda: house.server.client_count == 0)


def test_a_slow_subscriber_loses_its_oldest_notes_and_is_told(tmp_path: Path) -> None:
    with open_house(tmp_path, note_bound=100) as house, Client(house.path) as slow:
        slow.subscribe()
        payload = "x" * 1000
        for number in range(2000):
            house.session.note("limits_changed", number=number, payload=payload)
            gevent.sleep(0)
        house.session.note("limits_changed", number=-1)
        seen: list[int] = []
        lost = 0
        while not seen or seen[-1] != -1:
            note = slow.hear()["params"]
            if note["kind"] == "notes_lost":
                lost = note["lost"]
            else:
                seen.append(note["number"])
        assert lost > 0
        assert lost + len(seen) == 2001
        assert seen[:-1] == sorted(seen[:-1])


def test_a_stop_tells_subscribers_and_ends_their_streams(tmp_path: Path) -> None:
    with open_house(tmp_path) as house, Client(house.path) as client:
        client.subscribe()
        house.session.note("limits_changed", down=1)
        house.server.stop()
        assert [client.hear()["params"]["kind"], client.hear()["params"]["kind"]] == [
            "limits_changed",
            "daemon_stopping",
        ]
        assert client.hear() is None
        assert not os.path.exists(house.path)


def test_a_stop_waits_for_nobody_who_does_not_read(tmp_path: Path) -> None:
    with open_house(tmp_path) as house, Client(house.path) as stuck, Client(house.path) as silent:
        stuck.subscribe()
        for _ in range(2000):
            house.session.note("limits_changed", payload="x" * 1000)
        gevent.sleep(0.01)
        with gevent.Timeout(5):
            house.server.stop(timeout_s=0.1)
        assert house.server.client_count == 0
        assert silent.hear() is None
