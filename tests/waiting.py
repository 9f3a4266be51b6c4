"""Waiting for what tells nobody when it happens."""

from __future__ import annotations

from collections.abc import Callable

import gevent

#: On a machine that is busy with other things.
PATIENCE_S = 60.0


def until(happened: Callable[[], bool]) -> None:
    """Let the hub turn until it is so."""
    with gevent.Timeout(PATIENCE_S, AssertionError(f"that never happened: {happened}")):
        while not happened():
            gevent.sleep(0.001)
