"""A start imports what it needs before the torrents stand, and no more; and what comes later comes whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: 100 ms and 20 MB altogether. `ssl` is to be patched when it is imported, so that must not happen unseen.
HEAVY = {
    "_ssl",
    "asyncio",
    "certifi",
    "charset_normalizer",
    "email",
    "flask",
    "http",
    "idna",
    "ifaddr",
    "importlib.metadata",
    "requests",
    "rich",
    "ssl",
    "structlog",
    "urllib3",
    "werkzeug",
}


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def imported(program: str) -> set[str]:
    done = run(f"{program}\nimport sys; print('imported', *sys.modules)")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("imported ")[2].split())


def test_a_start_imports_nothing_that_can_wait() -> None:
    names = imported("import microtorrd.__main__, microtorrd.daemon, microtorrd.logs")
    assert names & HEAVY == set()
    assert not any(name.startswith("microtorrd.tracker.") for name in names - {"microtorrd.tracker.settings"})


def test_a_line_is_logged_without_what_structlog_offers_besides() -> None:
    names = imported(
        "import microtorrd.__main__, microtorrd.daemon\n"
        "from microtorrd import logs\n"
        "logs.setup('info', 'console')\n"
        "logs.get(room='x').info('said')\n"
        "import structlog.stdlib, structlog.dev\n"
        "assert structlog.dev.rich is None\n"
    )
    assert "structlog" in names
    assert names & {"asyncio", "rich", "requests", "ssl"} == set()


def test_what_was_left_out_is_there_for_others_afterwards() -> None:
    done = run(
        "import microtorrd.log_lines, structlog.stdlib, sys\n"
        "assert structlog.stdlib.asyncio.sleep.__module__ == 'asyncio.tasks'\n"
        "import asyncio, rich\n"
        "assert asyncio.run(asyncio.sleep(0, 'slept')) == 'slept'\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_rest_comes_bit_by_bit_and_waits_politely() -> None:
    names = imported(
        "import microtorrd.__main__, microtorrd.daemon, sys\n"
        "from gevent import monkey\n"
        "from microtorrd import libraries\n"
        "breaths = []\n"
        "libraries.warm_up(lambda: breaths.append(len(sys.modules)))\n"
        "assert len(set(breaths)) == len(libraries.STEPS), breaths\n"
        "assert monkey.is_module_patched('ssl')\n"
        "import gevent.ssl, urllib3.util.ssl_\n"
        "assert urllib3.util.ssl_.SSLContext is gevent.ssl.SSLContext\n"
        "libraries.warm_up(lambda: breaths.append(0))\n"
        "assert 0 not in breaths\n"
    )
    assert {"requests", "urllib3", "structlog", "microtorrd.net.tracker_http"} <= names
    assert "rich" not in names


def test_a_tracker_does_not_import_tls_before_it_is_patched() -> None:
    names = imported(
        "import microtorrd.__main__, microtorrd.daemon, warnings\n"
        "warnings.simplefilter('error')\n"
        "from microtorrd import libraries\n"
        "libraries.prepare_tls()\n"
        "import microtorrd.tracker.server, ssl, gevent.ssl\n"
        "assert ssl.SSLContext is gevent.ssl.SSLContext\n"
    )
    assert "flask" in names


def test_a_library_that_is_missing_stops_the_start() -> None:
    done = run(
        "import sys\n"
        "sys.modules['requests'] = None\n"
        "from microtorrd.__main__ import main\n"
        "sys.exit(main(['--set=daemon.state_dir=/nowhere']))"
    )
    assert (done.returncode, done.stderr) == (1, "microtorrd: not installed: requests\n")


@pytest.mark.parametrize("level", ["info", "error"])
@pytest.mark.parametrize("broken", ["structlog", "urllib3"])
def test_a_library_that_is_broken_ends_the_daemon_with_a_word(
    broken: str, level: str, tmp_path: Path
) -> None:
    """One that is there, and cannot be imported."""
    package = tmp_path / "site" / broken
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from somewhere_else import what_is_gone\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "microtorrd",
            f"--log-level={level}",
            f"--set=daemon.state_dir={tmp_path / 'state'}",
            f"--set=rpc.socket={tmp_path / 'control.sock'}",
            f"--set=storage.save_to={tmp_path}",
            "--set=listen.port=0",
            "--set=listen.addresses=127.0.0.1",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path / "site"), *sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = "microtorrd: a library is of no use: No module named 'somewhere_else'"
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == said
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "control.sock").exists()
