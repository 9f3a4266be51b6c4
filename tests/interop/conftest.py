"""What the interop tests need, and the matrix. One with holes would look like one without, so that a client
that is not installed is a failure in CI (`tests/lacking.py`)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from bench import namespaces
from bench.foreign import Foreign
from bench.namespaces import Network
from bench.places import LOOPBACK
from tests.interop import matrix, race
from tests.interop.meeting import Meeting
from tests.lacking import lacking

MEETING = pytest.StashKey[Meeting]()

#: Debian has some of the programs where an ordinary user's PATH does not look.
os.environ["PATH"] += ":/usr/sbin:/sbin"


def require(kind: type[Foreign]) -> None:
    """This client must be here."""
    require_programs(*kind.programs)


def require_programs(*programs: str) -> None:
    """These programs must be here."""
    for program in programs:
        if shutil.which(program) is None:
            lacking(f"{program} is not installed")


@pytest.fixture
def loopback_meeting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Meeting]:
    """Everybody on 127.0.0.1."""
    with Meeting(tmp_path, lambda: LOOPBACK) as meeting:
        request.node.stash[MEETING] = meeting
        yield meeting


@pytest.fixture
def network() -> Iterator[Network]:
    """A network of its own for this test."""
    if not namespaces.are_possible():
        lacking("network namespaces need root and iproute2")
    with Network() as network:
        yield network


@pytest.fixture
def network_meeting(request: pytest.FixtureRequest, tmp_path: Path, network: Network) -> Iterator[Meeting]:
    """Everybody with an address of their own."""
    with Meeting(tmp_path, network.add_host) as meeting:
        request.node.stash[MEETING] = meeting
        yield meeting


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows what everybody said."""
    report = yield
    if report.failed and report.when == "call" and MEETING in item.stash:
        report.sections.append(("what everybody said", item.stash[MEETING].logs()))
    return report


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the matrix, where any cell of it was tried."""
    reports = [
        report
        for outcome in ("passed", "failed", "skipped", "error")
        for report in terminalreporter.getreports(outcome)
        if isinstance(report, pytest.TestReport)
    ]
    for report in reports:
        figures = dict(report.user_properties).get(race.PROPERTY)
        if figures and report.when == "call":
            terminalreporter.section(report.nodeid.rpartition("::")[2])
            terminalreporter.write_line(str(figures))
    lines = matrix.table(reports)
    if lines:
        terminalreporter.section("interoperation")
        for line in lines:
            terminalreporter.write_line(line)
