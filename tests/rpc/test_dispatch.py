"""From a line to its answer: every method and every error; and what is logged of who called what."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import microtorrd
from microtorrd.errors import Busy, ConfigError, NotAllowed
from microtorrd.proto import jsonrpc
from microtorrd.proto.selection import Choice
from microtorrd.rpc.api import Caller, Note, Subscription
from microtorrd.rpc.dispatch import Dispatcher
from microtorrd.rpc.methods import METHODS
from microtorrd.rpc.subscribing import NOTE_KINDS, QUIET_KINDS
from microtorrd.terms import Terms
from tests.rpc.fake import FakeDaemon, FakeSession, mtorrent, services

Logs = Callable[[], list[dict[str, Any]]]


class Desk:
    """A dispatcher with a fake session behind it, asked in Python values."""

    def __init__(self, max_answer: int = jsonrpc.MAX_LINE_BYTES) -> None:
        self.session = FakeSession()
        self.daemon = FakeDaemon()
        self.attached: list[tuple[Subscription, Callable[[Note], bool]]] = []
        self.breaths = 0
        self.caller = Caller(pid=11, uid=22, gid=33, attach=self._attach)
        self.dispatcher = Dispatcher(
            services(self.session, self.daemon), breathe=self._breathe, max_answer=max_answer
        )

    def line(self, raw: bytes) -> Any:
        """The answer to a line, None when there is none."""
        answer = self.dispatcher.answer(raw, self.caller)
        if answer is None:
            return None
        assert answer.endswith(b"\n")
        assert answer.count(b"\n") == 1
        return json.loads(answer)

    def ask(self, method: str, **params: Any) -> Any:
        """The reply object of a call."""
        reply = self.line(jsonrpc.encode_call(method, params, 5))
        assert reply["id"] == 5
        assert reply["jsonrpc"] == "2.0"
        return reply

    def ok(self, method: str, **params: Any) -> Any:
        """The result of a call that goes well."""
        reply = self.ask(method, **params)
        assert "error" not in reply, reply
        return reply["result"]

    def bad(self, method: str, **params: Any) -> Any:
        """The error of a call that does not."""
        reply = self.ask(method, **params)
        assert "result" not in reply, reply
        return reply["error"]

    def _attach(self, subscription: Subscription, wanted: Callable[[Note], bool]) -> None:
        self.attached.append((subscription, wanted))

    def _breathe(self) -> None:
        self.breaths += 1


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    for name in ("ubuntu.iso", "debian.iso"):
        desk.ok("torrent.add", metainfo=mtorrent(name))
    return desk


# --------------------------------------------------------------------------------------------- the methods


def test_every_method_of_the_specification_is_there() -> None:
    verbs = "add list show pause resume seed verify remove move limit peers files trackers reannounce magnet"
    verbs += " select order"
    named = {f"torrent.{verb}" for verb in verbs.split()}
    named |= {"session.stats", "session.limit", "daemon.version", "daemon.reload", "daemon.shutdown"}
    named |= {"daemon.ping", "events.subscribe", "rpc.discover"}
    assert set(METHODS) == named


CALLS: dict[str, dict[str, Any]] = {
    "torrent.add": {"metainfo": mtorrent("new")},
    "torrent.list": {},
    "torrent.show": {"id": "ubuntu.iso"},
    "torrent.pause": {"id": "all"},
    "torrent.resume": {"id": "ubuntu.iso"},
    "torrent.seed": {"id": "ubuntu.iso"},
    "torrent.verify": {"id": "ubuntu.iso"},
    "torrent.remove": {"id": "ubuntu.iso", "data": True},
    "torrent.move": {"id": "ubuntu.iso", "save_to": "/elsewhere"},
    "torrent.limit": {"id": "ubuntu.iso", "down": 5},
    "torrent.peers": {"id": "ubuntu.iso"},
    "torrent.files": {"id": "ubuntu.iso"},
    "torrent.trackers": {"id": "ubuntu.iso"},
    "torrent.reannounce": {"id": "ubuntu.iso"},
    "torrent.magnet": {"id": "ubuntu.iso"},
    "torrent.select": {"id": "ubuntu.iso", "files": ["0"], "priority": "high"},
    "torrent.order": {"id": "ubuntu.iso", "sequential": True},
    "session.stats": {},
    "session.limit": {"up": 7},
    "daemon.version": {},
    "daemon.ping": {},
    "daemon.reload": {},
    "daemon.shutdown": {},
    "events.subscribe": {"kinds": ["completed"]},
    "rpc.discover": {},
}


@pytest.mark.parametrize("method", METHODS)
def test_the_answer_of_every_method_is_what_the_document_says(desk: Desk, method: str) -> None:
    result = desk.ok(method, **CALLS[method])
    msgspec.convert(result, METHODS[method].result)  # ValidationError when a field is missing or differs


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_parameter_is_named_with_the_nearest_valid_one(desk: Desk, method: str) -> None:
    error = desk.bad(method, **CALLS[method], sav_to=1)
    assert error["code"] == -32602
    assert "'sav_to'" in error["message"]
    assert error["data"]["parameter"] == "sav_to"
    if method in ("torrent.add", "torrent.move"):
        assert "did you mean 'save_to'?" in error["message"]
        assert error["data"]["nearest"] == "save_to"


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("torrent.add", {}, "torrent.add needs the parameter 'metainfo'"),
        ("torrent.add", {"metainfo": "", "magnet": ""}, "torrent.add needs the parameter 'metainfo'"),
        ("torrent.add", {"magnet": "magnet:?dn=x"}, "magnet: xt: missing"),
        ("torrent.add", {"magnet": "magnet:?x", "metainfo": b"x"}, "magnet and metainfo exclude each other"),
        (
            "torrent.add",
            {"magnet": "magnet:?x", "seed_path": "/x"},
            "magnet and seed_path exclude each other",
        ),
        ("torrent.add", {"metainfo": "not base64!"}, "metainfo: invalid base64 encoded string"),
        ("torrent.add", {"metainfo": 5}, "metainfo: expected `bytes`, got `int`"),
        ("torrent.add", {"metainfo": b"x", "save_to": "here"}, "save_to: expected an absolute path"),
        ("torrent.add", {"metainfo": b"x", "down": -1}, "down: expected `int` >= 0"),
        ("torrent.add", {"metainfo": b"x", "down": 1.5}, "down: expected `int`, got `float`"),
        ("torrent.add", {"metainfo": b"x", "paused": "yes"}, "paused: expected `bool`, got `str`"),
        ("torrent.add", {"metainfo": b"x", "wait_seeders": 10**9}, "wait_seeders: expected `int` <= 100000"),
        ("torrent.show", {}, "torrent.show needs the parameter 'id'"),
        ("torrent.show", {"id": ""}, "id: expected `str` of length >= 1"),
        ("torrent.list", {"ids": ["x", 5]}, "ids[1]: expected `str`, got `int`"),
        ("torrent.list", {"fields": ["nam"]}, "fields: there is no field 'nam'; did you mean 'name'?"),
        (
            "events.subscribe",
            {"kinds": ["complete"]},
            "kinds: there is no kind 'complete'; did you mean 'completed'?",
        ),
        ("torrent.move", {"id": "x", "save_to": "/a\0b"}, "save_to: expected an absolute path"),
    ],
)
def test_wrong_parameters_are_named(desk: Desk, method: str, params: dict[str, Any], message: str) -> None:
    error = desk.bad(method, **params)
    assert error["code"] == -32602
    assert message in error["message"]
    assert error["data"]["parameter"] in message


def test_both_paths_at_once_exclude_each_other(desk: Desk) -> None:
    error = desk.bad("torrent.add", metainfo=mtorrent("new"), save_to="/a", seed_path="/b")
    assert (error["code"], error["data"]["parameter"]) == (-32602, "seed_path")


def test_add_hands_everything_on(desk: Desk) -> None:
    options = {
        "save_to": "/srv/x",
        "seed_path": None,
        "paused": True,
        "wait_seeders": 1,
        "wait_leechers": 2,
        "down": 3,
        "up": 4,
        "label": "os",
        "sequential": True,
        "seed_after_download": False,
        "super_seed": True,
    }
    chosen = {"files": ["*.iso"], "priorities": {"high": ["0", "1-2"], "off": ["x"]}}
    row = desk.ok("torrent.add", metainfo=mtorrent("new"), **options, **chosen)
    choice = Choice(("*.iso",), (("high", ("0", "1-2")), ("off", ("x",))))
    assert desk.session.added[-1] == Terms(**options, choice=choice)
    assert (row["name"], row["state"], row["save_to"]) == ("new", "stopped", "/srv/x")


def test_errors_of_the_session_come_with_their_codes_and_facts(desk: Desk) -> None:
    assert desk.bad("torrent.add", metainfo=mtorrent())["code"] == 1009
    broken = desk.bad("torrent.add", metainfo=b"d4:infoi1ee")
    assert broken["code"] == 1022
    assert broken["data"]["key"] == "info"
    assert desk.bad("torrent.pause", id="nobody")["code"] == 1004
    desk.ok("torrent.pause", id="ubuntu.iso")
    assert desk.bad("torrent.verify", id="ubuntu.iso")["code"] == NotAllowed.code


def test_list_takes_ids_and_fields(desk: Desk) -> None:
    assert [row["name"] for row in desk.ok("torrent.list")["torrents"]] == ["ubuntu.iso", "debian.iso"]
    rows = desk.ok("torrent.list", ids=["debian.iso"], fields=["name", "state"])["torrents"]
    assert rows == [{"name": "debian.iso", "state": "downloading"}]
    assert desk.bad("torrent.list", ids=["debian.iso", "nobody"])["code"] == 1004


def test_limits_are_set_and_asked(desk: Desk) -> None:
    assert desk.ok("session.limit", down=5) == {"down": 5, "up": 0}
    assert desk.ok("session.limit") == {"down": 5, "up": 0}
    assert desk.ok("torrent.limit", id="ubuntu.iso", up=0, down=9) == {"down": 9, "up": 0}
    assert desk.session.calls[-1] == ("limit", "ubuntu.iso", {"down": 9, "up": 0})


def test_a_configuration_that_is_not_taken_is_told_with_its_place(desk: Desk) -> None:
    desk.daemon.config_error = ConfigError("listen.port: no", key="listen.port", file="/etc/m.toml", line=3)
    error = desk.bad("daemon.reload")
    assert error["code"] == 1003
    assert error["data"] == {"key": "listen.port", "file": "/etc/m.toml", "line": 3}
    desk.daemon.config_error = None
    assert desk.ok("daemon.reload") == {"ok": True}
    assert desk.daemon.reloads == 1


# ---------------------------------------------------------------------------------------------------- events


def test_a_subscription_filters_by_kind_and_torrent(desk: Desk) -> None:
    ubuntu, debian = desk.ok("torrent.list")["torrents"]
    result = desk.ok("events.subscribe", kinds=["completed", "progress"], ids=["debian.iso"])
    assert result["info_hashes"] == [debian["info_hash"]]
    ((subscription, wanted),) = desk.attached
    assert wanted({"kind": "completed", "info_hash": debian["info_hash"]})
    assert not wanted({"kind": "completed", "info_hash": ubuntu["info_hash"]})
    assert not wanted({"kind": "peer_joined", "info_hash": debian["info_hash"]})
    assert not wanted({"kind": "completed"})
    subscription.close()


def test_without_a_filter_all_but_the_quiet_kinds_come(desk: Desk) -> None:
    desk.ok("events.subscribe", ids=["all"])
    ((subscription, wanted),) = desk.attached
    assert {kind for kind in NOTE_KINDS if not wanted({"kind": kind, "info_hash": "x"})} == QUIET_KINDS
    subscription.close()


def _noted(tree: ast.Module) -> set[str]:
    """The kinds of notes that a module makes: what `Emit`, `note`, `on_note`, `publish` are called with."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    return {
        str(call.args[0].value)
        for call in calls
        if ast.unparse(call.func).rpartition(".")[2] in ("Emit", "note", "on_note", "publish")
        and isinstance(call.args[0], ast.Constant)
    }


def test_every_kind_of_note_that_the_daemon_makes_is_known_here() -> None:
    root = Path(microtorrd.__file__).parent
    made = {kind for path in root.rglob("*.py") for kind in _noted(ast.parse(path.read_text()))}
    assert made
    assert made <= set(NOTE_KINDS)


def test_subscribing_to_a_torrent_that_is_not_there(desk: Desk) -> None:
    assert desk.bad("events.subscribe", ids=["nobody"])["code"] == 1004
    assert desk.attached == []
    assert not desk.session.board.has_readers


# ------------------------------------------------------------------------------------------ the standard


def test_an_unknown_method_is_named_with_the_nearest(desk: Desk) -> None:
    error = desk.bad("torrent.pauze")
    assert error["code"] == -32601
    assert "did you mean torrent.pause?" in error["message"]
    assert error["data"] == {"nearest": "torrent.pause"}


def test_notifications_get_no_answer_even_when_they_fail(desk: Desk) -> None:
    assert desk.line(b'{"jsonrpc":"2.0","method":"torrent.pause","params":{"id":"ubuntu.iso"}}') is None
    assert desk.session.calls == [("pause", "ubuntu.iso")]
    assert desk.line(b'{"jsonrpc":"2.0","method":"no.such"}') is None
    assert desk.line(b'[{"jsonrpc":"2.0","method":"daemon.ping"}]') is None


def test_the_examples_of_the_standard(desk: Desk) -> None:
    assert (
        desk.line(b'{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]')["error"]["code"] == -32700
    )
    assert desk.line(b'{"jsonrpc": "2.0", "method": 1, "params": "bar"}')["error"]["code"] == -32600
    assert desk.line(b"[]")["error"]["code"] == -32600
    replies = desk.line(b"[1,2,3]")
    assert [(reply["id"], reply["error"]["code"]) for reply in replies] == [(None, -32600)] * 3
    batch = b"""[
        {"jsonrpc": "2.0", "method": "daemon.ping", "id": "1"},
        {"jsonrpc": "2.0", "method": "daemon.ping"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "session.limit", "id": "9"}
    ]""".replace(b"\n", b"")
    replies = desk.line(batch)
    assert [reply["id"] for reply in replies] == ["1", None, "5", "9"]
    assert [reply.get("error", {}).get("code") for reply in replies] == [None, -32600, -32601, None]
    assert desk.breaths >= 5


def test_ids_come_back_as_they_were_written(desk: Desk) -> None:
    for raw_id in (b"12345678901234567890123", b"1.10", b'"\\u00fc"', b"null"):
        line = b'{"jsonrpc":"2.0","method":"daemon.ping","id":' + raw_id + b"}"
        answer = desk.dispatcher.answer(line, desk.caller)
        assert answer is not None
        assert b'"id":' + raw_id + b"," in answer


def test_the_answers_to_a_batch_are_bounded() -> None:
    desk = Desk(max_answer=2000)
    desk.ok("torrent.add", metainfo=mtorrent())
    line = jsonrpc.encode_calls([("torrent.list", {}, number) for number in range(100)])
    replies = desk.line(line)
    assert len(replies) == 100
    assert "result" in replies[0]
    assert replies[-1]["error"]["code"] == Busy.code
    assert len(json.dumps(replies)) < 20_000


def test_an_empty_line_is_nothing(desk: Desk) -> None:
    assert desk.line(b"") is None
    assert desk.line(b" \r") is None


# ------------------------------------------------------------------------------------------------- faults


def test_a_bug_of_ours_is_logged_with_its_traceback_and_told_as_nothing_more(
    desk: Desk, log_lines: Logs
) -> None:
    desk.session.crash = ZeroDivisionError("secret detail")
    error = desk.bad("torrent.list")
    assert error["code"] == -32603
    assert "secret" not in json.dumps(error)
    (line,) = [line for line in log_lines() if line["event"] == "rpc_method_crashed"]
    assert line["method"] == "torrent.list"
    assert "ZeroDivisionError" in line["exception"]
    desk.session.crash = None
    assert len(desk.ok("torrent.list")["torrents"]) == 2


def test_an_answer_that_is_no_json_is_a_bug_of_ours(desk: Desk, log_lines: Logs) -> None:
    desk.session.peer_rows = [{"host": object()}]
    assert desk.bad("torrent.peers", id="ubuntu.iso")["code"] == -32603
    desk.session.crash = NotAllowed("no \udcff", what=object())
    assert desk.bad("torrent.list") == {"code": 1003, "message": "no \\udcff"}
    assert {line["event"] for line in log_lines()} >= {"rpc_method_crashed", "rpc_error_not_json"}


def test_every_changing_call_is_logged_with_its_caller(desk: Desk, log_lines: Logs) -> None:
    desk.ok("torrent.add", metainfo=mtorrent("secret-content"), label="os")
    desk.bad("torrent.pause", id="nobody")
    desk.ok("torrent.list")
    calls = [line for line in log_lines() if line["event"] == "rpc_call"]
    added, paused, listed = calls
    assert (added["uid"], added["gid"], added["pid"], added["level"]) == (22, 33, 11, "info")
    assert (added["method"], added["outcome"], added["params"]) == (
        "torrent.add",
        "ok",
        {"label": "os"},
    )
    assert paused["outcome"].startswith("NotFound: ")
    assert (listed["method"], listed["level"]) == ("torrent.list", "debug")


def test_what_lifts_a_limit_or_says_no_is_logged_as_well(desk: Desk, log_lines: Logs) -> None:
    desk.ok("session.limit", up=0)
    desk.ok("session.limit")
    desk.ok("torrent.order", id="ubuntu.iso", sequential=False)
    lifted, asked, ordered = [line for line in log_lines() if line["event"] == "rpc_call"]
    assert (lifted["level"], lifted["params"]) == ("info", {"up": 0})
    assert (asked["level"], asked["params"]) == ("debug", {})
    assert ordered["params"] == {"id": "ubuntu.iso", "sequential": False}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.sampled_from(sorted(METHODS)), st.data())
def test_no_parameters_whatever_make_an_internal_error(method: str, data: st.DataObject) -> None:
    desk = Desk()
    desk.ok("torrent.add", metainfo=mtorrent())
    names = [*METHODS[method].params.__struct_fields__, "other"]
    params = data.draw(st.dictionaries(st.sampled_from(names), json_values | st.just("all"), max_size=4))
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    reply = desk.line(line)
    assert "result" in reply or reply["error"]["code"] != -32603, reply
    for subscription, _ in desk.attached:
        subscription.close()


# ------------------------------------------------------------------------------------------------ OpenRPC


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for inner in value.values() for found in _references(inner)]
    if isinstance(value, list):
        return [found for inner in value for found in _references(inner)]
    return []


def test_the_document_describes_every_method_and_refers_to_what_is_there(desk: Desk) -> None:
    document = desk.ok("rpc.discover")
    assert document["openrpc"].startswith("1.")
    assert {method["name"] for method in document["methods"]} == set(METHODS)
    for reference in _references(document):
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    codes = [error["code"] for error in document["components"]["errors"].values()]
    assert codes == [row.code for row in jsonrpc.ERROR_CODES]


def test_the_document_gives_every_parameter_its_type_and_default(desk: Desk) -> None:
    document = desk.ok("rpc.discover")
    (add,) = [method for method in document["methods"] if method["name"] == "torrent.add"]
    assert add["paramStructure"] == "by-name"
    assert add["params"][0]["name"] == "metainfo"
    assert not any(part["required"] for part in add["params"])  # a link can take its place
    (move,) = [method for method in document["methods"] if method["name"] == "torrent.move"]
    assert [part["name"] for part in move["params"] if part["required"]] == ["id", "save_to"]
    by_name = {part["name"]: part for part in add["params"]}
    assert by_name["metainfo"]["schema"]["contentEncoding"] == "base64"
    assert by_name["down"]["schema"]["default"] == 0
    assert all(part["summary"] for method in document["methods"] for part in method["params"])
    assert all(method["summary"] for method in document["methods"])
