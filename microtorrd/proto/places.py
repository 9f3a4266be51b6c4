"""Where a daemon's control socket lies when nobody says otherwise: the daemon and its client must agree.

Names only; nothing here looks whether they exist.
"""

from __future__ import annotations

from collections.abc import Mapping

#: The socket of the system's daemon.
SYSTEM_SOCKET = "/run/microtorrd/control.sock"


def user_state_dir(environ: Mapping[str, str], home: str) -> str:
    """Where the daemon of a user keeps its state (XDG base directories)."""
    return _directory(environ.get("XDG_STATE_HOME"), f"{home}/.local/state") + "/microtorrd"


def user_socket(environ: Mapping[str, str], home: str) -> str:
    """The socket of a user's own daemon: in the run-time directory, or with its state where there is none."""
    runtime = _directory(environ.get("XDG_RUNTIME_DIR"), "")
    return (f"{runtime}/microtorrd" if runtime else user_state_dir(environ, home)) + "/control.sock"


def _directory(named: str | None, otherwise: str) -> str:
    # The base directory specification: a relative path in these variables is to be ignored.
    return named.rstrip("/") if named and named.startswith("/") else otherwise
