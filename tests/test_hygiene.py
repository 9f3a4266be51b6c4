"""The hygiene of conftest.py catches what it is there for, tried in a pytest of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import undo_ignored_signals

ROOT = Path(__file__).parents[1]

LEAVERS = {
    "greenlet": """
        import gevent
        from gevent.event import Event
        def test_it():
            gevent.spawn(Event().wait)
            gevent.sleep(0)
    """,
    "descriptor": """
        import socket
        kept = []
        def test_it():
            kept.append(socket.socket())
    """,
    "threads": """
        from gevent.threadpool import ThreadPool
        kept = []
        def test_it():
            kept.append(ThreadPool(1))
            kept[0].apply(len, ("x",))
    """,
    "stood still": """
        from gevent import monkey
        def test_it(hub_watch):
            monkey.get_original("time", "sleep")(0.4)
    """,
}

TIDY = """
    import gevent, socket, threading
    from gevent.threadpool import ThreadPool
    def test_one_that_ends_what_it_began(hub_watch, crew):
        crew.spawn("forever", gevent.event.Event().wait)
        thread = threading.Thread(target=gevent.sleep, args=(0.01,))
        thread.start()
        pool = ThreadPool(2)
        pool.apply(len, ("x",))
        pool.kill()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
        socket.getaddrinfo("localhost", 80)
        thread.join()
"""


BLOCKED = """
    from gevent.event import Event
    def test_it():
        Event().wait()
"""


def run(tmp_path: Path, *bodies: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    conftest = (ROOT / "tests/conftest.py").read_text().replace("SETTLE_S = 2.0", "SETTLE_S = 0.1")
    (tmp_path / "conftest.py").write_text(conftest)
    for number, body in enumerate(bodies):
        (tmp_path / f"test_{number}.py").write_text(textwrap.dedent(body))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    command += options
    return subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_what_a_test_leaves_behind_fails_it_and_no_other(tmp_path: Path, options: tuple[str, ...]) -> None:
    """And who waits for what cannot come fails at once, whatever else the process waits for between tests."""
    result = run(tmp_path, *LEAVERS.values(), BLOCKED, TIDY, options=(*options, "--timeout", "20"))
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"1 failed, {len(LEAVERS) + 1} passed, {len(LEAVERS)} errors" in result.stdout
    assert all(kind in result.stdout for kind in LEAVERS)
    assert "LoopExit" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_programs_are_interrupted_also_where_the_signal_was_ignored_before(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        undo_ignored_signals()
        ended = subprocess.run(["sh", "-c", f"kill -{number.value} $$; exit 0"], check=False)
    finally:
        signal.signal(number, before)
    assert ended.returncode == -number.value
