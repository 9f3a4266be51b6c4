"""logs.py: three formats, levels that follow a reload, and nothing that could steer a terminal."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Callable, Iterator

import pytest

from microtorrd import logs

Speak = Callable[[], str]


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    yield
    logs.setup()


def written(level: str, form: str, speak: Callable[[logs.Log], None], **bound: object) -> str:
    stream = io.StringIO()
    logger = logs.get(**bound)
    logs.setup(level, form, stream)
    speak(logger)
    return stream.getvalue()


def test_json_is_one_object_a_line_with_the_bound_fields() -> None:
    text = written("info", "json", lambda log: log.info("peer_joined", n=1, id=b"\x01\xff"), torrent="x y")
    line = json.loads(text)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "info", "event": "peer_joined", "torrent": "x y", "n": 1, "id": "01ff"}


def test_the_journal_gets_priorities_and_quoted_values() -> None:
    def speak(log: logs.Log) -> None:
        log.debug("a")
        log.info("b", text="two words", empty="", number=5, quote='"')
        log.warning("c")
        log.error("d")

    assert written("debug", "journal", speak).splitlines() == [
        "<7>a",
        '<6>b text="two words" empty="" number=5 quote="\\""',
        "<4>c",
        "<3>d",
    ]


def test_every_line_of_a_traceback_has_the_priority() -> None:
    def speak(log: logs.Log) -> None:
        try:
            raise LookupError("evil \x1b[31m\nname")
        except LookupError as error:
            log.error("crashed", exc_info=error)

    lines = written("info", "journal", speak).splitlines()
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)
    assert lines[0] == "<3>crashed"
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize("form", ["console", "journal"])
@pytest.mark.parametrize(
    "hostile", ["\x1b]0;owned\x07", "two\nlines", "\r", "\x9b31m", "\u202egpj.exe", "\udcff"]
)
def test_what_comes_from_outside_cannot_steer_a_terminal_or_break_a_line(form: str, hostile: str) -> None:
    text = written("info", form, lambda log: log.info("torrent_added", name=f"a{hostile}b"))
    assert text.count("\n") == 1
    assert text.strip().isprintable()


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(level: str, heard: list[str]) -> None:
    def speak(log: logs.Log) -> None:
        for name in ("debug", "info", "warning", "error"):
            getattr(log, name)("said")

    text = written(level, "json", speak)
    assert [json.loads(line)["level"] for line in text.splitlines()] == heard


def test_a_logger_made_earlier_follows_a_later_setup() -> None:
    logger = logs.get(room="x")
    first, second = io.StringIO(), io.StringIO()
    logs.setup("error", "json", first)
    logger.info("unheard")
    logs.setup("info", "journal", second)
    logger.info("heard")
    assert first.getvalue() == ""
    assert second.getvalue() == "<6>heard room=x\n"


def test_other_libraries_are_heard_from_warning_upwards() -> None:
    def speak(log: logs.Log) -> None:
        logging.getLogger("requests.sessions").info("unheard")
        logging.getLogger("requests.sessions").warning("retrying %s", "http://x")
        logging.getLogger("flask").error("oops")

    lines = [json.loads(line) for line in written("debug", "json", speak).splitlines()]
    assert [(line["level"], line["library"], line["message"]) for line in lines] == [
        ("warning", "requests.sessions", "retrying http://x"),
        ("error", "flask", "oops"),
    ]


def test_setting_up_twice_does_not_say_things_twice() -> None:
    logs.setup()
    text = written("info", "journal", lambda log: logging.getLogger("x").warning("once"))
    assert text.count("once") == 1


def test_no_colour_where_there_is_no_terminal() -> None:
    assert "\x1b" not in written("info", "console", lambda log: log.error("x", a=1))


def test_auto_is_the_journal_where_systemd_connected_us_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    status = os.fstat(writer)
    with os.fdopen(reader) as far, os.fdopen(writer, "w") as near:
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        logs.setup("info", "auto", near)
        logs.get().info("to_the_journal")
        assert far.readline() == "<6>to_the_journal\n"
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
        logs.setup("info", "auto", near)
        logs.get().info("elsewhere")
        assert not far.readline().startswith("<6>")


def test_a_reader_that_went_away_does_not_stop_the_daemon() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(os.dup(writer), "w") as near:
        os.close(writer)
        logs.setup("info", "json", near)
        logs.get().info("into_the_void")
        logs.setup()
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, near.fileno())  # so that closing can flush
        os.close(devnull)
