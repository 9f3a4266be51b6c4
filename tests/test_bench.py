"""What the benchmarks say is what they measured: ratios, verdicts, tables, arrivals, stalls."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import arrival, connections, hubwatch, pictures, tables
from bench.__main__ import Overdue, at_most
from bench.arrival import Arrival, NotArrived
from bench.daemons import Daemon
from bench.measure import Row, make_content, make_torrent, percentile, stall_row


def row(
    ours: list[float],
    theirs: list[float] | None = None,
    *,
    name: str = "speed",
    unit: str = "MB/s",
    aim: str = "",
    note: str = "",
) -> Row:
    return Row(name, unit, aim, ours, theirs or [], "other" if theirs else "", note)


def test_the_ratio_is_the_median_of_the_pairs_with_its_range() -> None:
    # The median of the ratios, not the ratio of the medians (which would be 300/300 = 1).
    assert row([100, 300, 900], [50, 300, 300]).ratio() == (2.0, 1.0, 3.0)
    assert row([100]).ratio() is None


def test_a_row_shows_medians_and_ranges() -> None:
    assert row([100, 300, 200], [50, 50, 50], aim="≥ 2").cells() == [
        "speed",
        "200 MB/s (100–300)",
        "other: 50.0 MB/s (50.0–50.0)",
        "4.00 (2.00–6.00)",
        "≥ 2",
    ]
    assert row([], name="gone").cells()[1:4] == ["–", "–", "–"]


@pytest.mark.parametrize(
    ("ours", "theirs", "aim", "verdict"),
    [
        ([300.0], [100.0], "≥ 3.0", "met"),
        ([299.0], [100.0], "≥ 3.0 (try for 4.0)", "**not met**"),
        ([9.0], [10.0], "< 1.0", "met"),
        ([10.0], [10.0], "< 1.0", "**not met**"),
        # With the row's own unit it is our figure that counts, whatever the other's is.
        ([9.0], [1.0], "≤ 10 MB/s", "met"),
        ([11.0], None, "≤ 10", "**not met**"),
        ([11.0], None, "faster", ""),
        ([], None, "≤ 10", ""),
    ],
)
def test_a_verdict_is_about_the_ratio_or_about_our_own_figure(
    ours: list[float], theirs: list[float] | None, aim: str, verdict: str
) -> None:
    assert tables.verdict(row(ours, theirs, aim=aim)) == verdict


def test_percentiles_and_longest_stalls() -> None:
    values = [float(number) for number in range(1, 201)]
    assert percentile(values, 99) == 198
    assert percentile([5.0], 99) == 5
    assert stall_row("hub", [0.01, 0.07, 0.02]).ours == [pytest.approx(70)]
    assert tables.verdict(stall_row("hub", [0.01, 0.07])) == "**not met**"
    assert tables.verdict(stall_row("hub", [])) == "met"


def test_a_section_has_a_row_each_and_says_what_could_not_be_measured() -> None:
    rows = [row([200], [100], aim="≥ 1.0"), row([], name="… there", note="not measured: no client")]
    section = tables.section("Pairs", rows, {"bars.png": "Bars"})
    assert section.startswith("### Pairs\n\nMeasured ")
    assert "| speed | 200 MB/s | other: 100 MB/s | 2.00 (2.00–2.00) | ≥ 1.0 | met |\n" in section
    assert "\n- there: not measured: no client\n" in section
    assert section.endswith("![Bars](images/bars.png)")
    widths = {line.count("|") for line in section.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_one_suite_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(f"before\n\n{tables.BEGIN}\n\nold remarks\n\n{tables.END}\n\nafter ½\n")
    tables.write({"two": "second", "one": "first"}, ["one", "two", "three"], document)
    tables.write({"two": "second\n\nagain"}, ["one", "two", "three"], document)
    assert document.read_text() == (
        f"before\n\n{tables.BEGIN}\n\n<!-- suite: one -->\n\nfirst\n\n"
        f"<!-- suite: two -->\n\nsecond\n\nagain\n\n{tables.END}\n\nafter ½\n"
    )


def test_the_document_has_places_for_tables() -> None:
    text = tables.DOCUMENT.read_text(encoding="utf-8")
    assert text.count(tables.BEGIN) == text.count(tables.END) == 1


def test_bars_show_each_figure_once() -> None:
    rows = [
        row([8.4], [8.3], name="fan-out", unit="s"),
        row([8.4], [19.0], name="… time", unit="s"),
        row([1.0], name="… copies", unit="copies"),
    ]
    rows[0].other, rows[1].other = "fluid limit", "libtorrent"
    assert pictures.bars(rows, "s") == {
        "microtorrd: fan-out": [8.4],
        "fluid limit": [8.3],
        "libtorrent": [19.0],
    }


def test_pictures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    # In a process of its own: matplotlib keeps its fonts open.
    program = (
        "import sys; from pathlib import Path\n"
        "from bench.measure import Row; from bench.pictures import draw\n"
        "measured = Row('pair', 'MB/s', '', [500, 600], [400, 300], 'other')\n"
        "print(draw('pair', [measured], Path(sys.argv[1])), draw('pair', [], Path()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == f"{ {'bench-pair.png': pictures.PICTURES['pair'][0].title} } {{}}\n"
    assert (tmp_path / "bench-pair.png").read_bytes().startswith(b"\x89PNG")


def test_a_suite_that_takes_too_long_is_ended_wherever_it_waits() -> None:
    # In a process of its own: it is about signals.
    program = (
        "from bench.__main__ import *\nimport subprocess\n"
        "try:\n with at_most(1):\n  subprocess.run(['sleep', '60'])\n"
        "except Overdue as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "not done after 1 s\n"
    assert not issubclass(Overdue, Exception) and at_most(1)


# ------------------------------------------------------------------------------------------------- arrivals


def test_content_has_arrived_when_every_block_has(tmp_path: Path) -> None:
    wanted, found = tmp_path / "wanted", tmp_path / "found"
    content = bytes(range(1, 251)) * 300
    wanted.write_bytes(content)
    looked = Arrival(wanted, found)
    assert not looked.is_whole() and not looked.is_equal()  # no file yet
    found.write_bytes(bytes(len(content)))
    assert not looked.is_whole()
    with found.open("r+b") as file:
        file.write(content[: arrival.BLOCK * 2])
        assert not looked.is_whole()
        file.seek(arrival.BLOCK * 3)
        file.write(content[arrival.BLOCK * 3 :])
        file.flush()
        assert not looked.is_whole()
        file.seek(arrival.BLOCK * 2)
        file.write(content[arrival.BLOCK * 2 : arrival.BLOCK * 3])
        file.flush()
        assert looked.is_whole() and looked.is_equal()
        file.seek(5)
        file.write(b"\x00")
    assert looked.is_whole() and not looked.is_equal()
    looked.close()


def test_waiting_for_what_does_not_come_ends(tmp_path: Path) -> None:
    (tmp_path / "wanted").write_bytes(b"content!")
    looked = Arrival(tmp_path / "wanted", tmp_path / "found")
    with pytest.raises(NotArrived, match="1 of 1 did not finish"):
        arrival.wait_for_all([looked], lambda: None, timeout_s=0.02)
    # A file that is still called `.part` counts.
    (tmp_path / "found.part").write_bytes(b"content!")
    arrival.wait_for_all([looked], lambda: None, timeout_s=1)
    arrival.confirm([looked])
    looked.close()


# --------------------------------------------------------------------------------------------------- stalls


def test_a_probed_daemon_works_and_its_stalls_can_be_read(tmp_path: Path) -> None:
    began_s = time.monotonic()
    with Daemon(tmp_path, probed=True) as daemon:
        assert daemon.call("daemon.ping")
        # Reading all the settings and opening the database holds the hub up before anybody can ask.
        stalls = hubwatch.read(daemon.probe_path, since_s=began_s)
    assert all(stall.stood_s > hubwatch.NOTED_S and stall.at_s > began_s for stall in stalls)
    assert hubwatch.read(daemon.probe_path, since_s=time.monotonic()) == []


def test_a_line_of_stalls_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "stalls"
    assert hubwatch.read(path, since_s=0) == []
    path.write_text("5.0 0.020000 0.001000\n9.0 0.060000 0.000000\n11.0 0.0")
    assert hubwatch.read(path, since_s=6.0) == [hubwatch.Stall(9.0, 0.06, 0.0)]


# ---------------------------------------------------------------------------------------------- connections


def test_the_crowd_is_served_by_a_real_seeder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SIZE", 2 << 20)
    monkeypatch.setattr(connections, "RUN_S", 0.05)
    monkeypatch.setattr(connections, "warm_up", lambda size: None)
    content = tmp_path / "payload"
    make_content(content, connections.SIZE)
    metainfo = make_torrent(content, connections.PIECE, [])
    speed, memory = row([]), row([])
    with connections.seeder(tmp_path / "seeder", content, metainfo, peers=12) as daemon:
        # RuntimeError where one of them gets nothing.
        connections.measure(daemon, metainfo, 12, speed=speed, memory=memory)
    assert min(speed.ours + speed.theirs) > 0 and len(memory.ours) == 1


def test_who_measures_is_not_turned_into_greenlets() -> None:
    program = "import bench.__main__, select, gevent.monkey as m; assert select.epoll and not m.saved"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[1], timeout=60)
