"""Text for people: what sizes, times and tables look like, and that nothing in them steers a terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtorrctl import render
from mtorrctl.commands.torrents import TORRENT_COLUMNS
from mtorrctl.render import Column


class Terminal(io.StringIO):
    """A stream that people look at."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (1005, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_996, "10.0 kB"),
        (99_949, "99.9 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_600, "1.00 MB"),
        (1_460_000, "1.46 MB"),
        (20_400_000_000, "20.4 GB"),
        (8 * 10**15, "8.00 PB"),
        (5 * 10**18, "5000 PB"),
    ],
)
def test_sizes_have_three_digits(value: int, text: str) -> None:
    assert render.size(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0.0%"), (0.5, "50.0%"), (0.9999, "99.9%"), (1, "100%"), (None, "-"), (1 - 1e-12, "99.9%")],
)
def test_only_what_is_whole_is_a_hundred_percent(share: float | None, text: str) -> None:
    assert render.percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0s"),
        (0.42, "0.4s"),
        (3, "3s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (125, "2m 05s"),
        (3599.9, "1h 00m"),
        (12_000, "3h 20m"),
        (86_400 * 12 + 4 * 3600, "12d 4h"),
    ],
)
def test_durations_have_two_units(seconds: float | None, text: str) -> None:
    assert render.duration(seconds) == text


def test_values_are_spelled_by_their_names() -> None:
    assert render.by_name("down_bytes_per_s", 1_500_000) == "1.50 MB/s"
    assert render.by_name("up_bytes_per_s", 0.0) == "-"
    assert render.by_name("size_bytes", 1234) == "1.23 kB (1,234 bytes)"
    assert render.by_name("uptime_s", 61) == "1m 01s"
    assert render.by_name("down", 0) == "none"
    assert render.by_name("private", False) == "no"
    assert render.by_name("label", "") == "-"
    assert render.by_name("ratio", 0.25) == "0.25"
    assert render.by_name("added_at", "no time at all\x1b") == "no time at all\\x1b"


def test_piece_lengths() -> None:
    assert [render.piece_size(value) for value in (16384, 16000, 1 << 22, 1)] == [
        "16 KiB",
        "16000 B",
        "4 MiB",
        "1 B",
    ]


@settings(deadline=None)
@given(st.text())
def test_nothing_that_is_cleaned_steers_a_terminal(text: str) -> None:
    shown = render.clean(text)
    assert shown.isprintable()
    assert render.clean(shown) == shown
    shown.encode()


def test_what_is_cleaned_is_still_recognised() -> None:
    assert render.clean("Ωμέγα データ.iso") == "Ωμέγα データ.iso"
    assert render.clean("a\x1b[2J\nb\u202ec\udcff") == "a\\x1b[2J\\nb\\u202ec\\udcff"


COLUMNS = (
    Column("NAME", lambda row: str(row["name"]), gives_way=True),
    Column("SIZE", lambda row: render.size(row["size"]), right=True),
    Column("STATE", lambda row: str(row["state"]), color=lambda row: "green"),
)
ROWS = [
    {"name": "データ集.tar", "size": 5, "state": "seeding"},
    {"name": "a-rather-long-name-" * 4, "size": 123_456_789, "state": "stopped"},
]


def test_a_table_elsewhere_is_whole_and_aligned_and_plain() -> None:
    lines = render.table(COLUMNS, ROWS, io.StringIO()).split("\n")
    assert "\x1b" not in "".join(lines)
    assert lines[2].startswith("a-rather-long-name-" * 4)
    widths = {
        render.columns_of(line[: line.index(word)])
        for line, word in zip(lines, ("STATE", "seeding", "stopped"), strict=True)
    }
    assert len(widths) == 1
    assert all(line == line.rstrip() for line in lines)


def test_a_table_on_a_terminal_fits_and_has_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = render.table(COLUMNS, ROWS, Terminal()).split("\n")
    assert "\x1b[32mseeding\x1b[0m" in lines[1]
    assert "…" in lines[2]
    monkeypatch.setenv("NO_COLOR", "1")
    plain = render.table(COLUMNS, ROWS, Terminal()).split("\n")
    assert "\x1b" not in "".join(plain)
    assert max(render.columns_of(line) for line in plain) <= 60


@pytest.mark.parametrize(
    ("columns", "heads"),
    [
        (100, "ID NAME STATE DONE SIZE DOWN UP PEERS LEFT"),
        (80, "NAME STATE DONE DOWN UP PEERS LEFT"),
        (60, "NAME STATE DONE DOWN"),
        (40, "NAME STATE DONE"),
    ],
)
def test_on_a_narrow_terminal_what_matters_least_is_left_out(
    columns: int, heads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    row = {
        "info_hash": "ab" * 20,
        "name": "a-rather-long-name-" * 4,
        "state": "downloading",
        "progress": 0.5,
        "checked": None,
        "size_bytes": 104_000_000,
        "down_bytes_per_s": 12_300_000,
        "up_bytes_per_s": 12_300_000,
        "peers": 100,
        "eta_s": 3700.0,
    }
    lines = render.table(TORRENT_COLUMNS, [row], Terminal()).split("\n")
    assert lines[0].split() == heads.split()
    assert max(render.columns_of(line) for line in lines) <= columns
    assert "a-rather-lo" in lines[1]


def test_a_dumb_terminal_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert not render.is_terminal(Terminal())
    assert render.paint("x", "red", Terminal()) == "x"


@settings(deadline=None)
@given(st.text(), st.integers(1, 30))
def test_cut_never_takes_more_columns_than_it_may(text: str, columns: int) -> None:
    shown = render.cut(render.clean(text), columns)
    assert render.columns_of(shown) <= columns


def test_any_answer_can_be_shown() -> None:
    answer = {
        "port": 7777,
        "share": 0.25,
        "addresses": ["a", "b"],
        "limits": {"down": 0, "up": 1_000_000},
        "nothing": {},
        "shares": [{"host": "h\x1b", "sent_bytes": 5}, {"host": "longer", "pieces": 2}],
    }
    assert render.facts(answer).split("\n") == [
        "port       7777",
        "share      25.0%",
        "addresses  a, b",
        "",
        "limits",
        "  down  none",
        "  up    1.00 MB/s",
        "",
        "shares",
        "  HOST    SENT  PIECES",
        "  h\\x1b   5 B   -",
        "  longer  -     2",
    ]


def test_pairs_are_aligned() -> None:
    assert render.pairs([("a", "1"), ("long name", "2\n3")], "  ") == "  a          1\n  long name  2\\n3"
