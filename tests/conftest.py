"""Hygiene for every test: no greenlet, descriptor or thread survives one, and the hub can be watched.

What a test leaves behind fails that test, by name, and only that one. What lives as long as the process on
purpose is not counted: the descriptors and threads of gevent's own loop and thread pool.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import _thread
import gc
import io
import json
import os
import resource
import signal
import sys
import time
import traceback
import weakref
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import Greenlet, get_hub

from microtorrd import libraries, logs
from microtorrd.greenlets import Crew

# Descriptors of directories are closed when the hub turns next (gevent.os.close); property tests let it not:
# more are open than an ordinary user has at first. The daemon, too, takes all that it may have.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if 0 <= _soft < 1 << 14:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 14 if _hard < 0 else min(_hard, 1 << 14), _hard))

#: How long the hub may stand still, and how often it is looked at.
STALL_S = 0.1
LOOK_S = 0.01

#: How long what a test has ended may take to be gone: sockets and greenlets need a turn of the hub.
SETTLE_S = 2.0

HERE = Path(__file__).parent
#: Rooms that cannot start a greenlet: their many small tests are not searched for any.
PURE = ("proto", "core")


def undo_ignored_signals() -> None:
    """Programs that tests start are to be interrupted, also where a shell started us with signals ignored
    (`nohup make test &`): what we hear with a handler, they hear by default, and what is ignored they ignore.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # we ourselves go on as we were told


undo_ignored_signals()

_real_sleep = monkey.get_original("time", "sleep")
_start_thread = monkey.get_original("_thread", "start_new_thread")


# --------------------------------------------------------------------------------------------- what survives


def pytest_collection_finish(session: pytest.Session) -> None:
    """Set aside all that the imports made, so that the search for greenlets after each test is short."""
    # The resolver's first use starts a thread of gevent's pool and may leave a descriptor of the C library.
    gevent.socket.getaddrinfo("localhost", 0)
    # As in a daemon whose torrents stand: none of it is imported in the middle of a test.
    libraries.warm_up(lambda: None)
    gc.collect()
    gc.freeze()


_known: weakref.WeakSet[Greenlet] = weakref.WeakSet()  # survivors that failed their own test already


def _greenlets() -> list[str]:
    return [
        f"greenlet {thing.name}: {thing}"
        for thing in gc.get_objects()
        if isinstance(thing, Greenlet)
        and thing.started
        and not thing.dead
        and thing not in _known
        and thing is not gevent.getcurrent()
    ]


def open_descriptors() -> dict[int, str]:
    """What this process has open."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the descriptor of this very listing
            continue
    return found


def _threads() -> set[int]:
    """The kernel's thread numbers, without the workers of gevent's own pool, which stay."""
    return {int(name) for name in os.listdir("/proc/self/task")}


def _what_survived(
    descriptors: dict[int, str], threads: set[int], pool_size: int, *, pure: bool
) -> list[str]:
    survivors = [] if pure else _greenlets()
    survivors += [
        f"descriptor {number} -> {target}"
        for number, target in open_descriptors().items()
        if descriptors.get(number) != target
    ]
    # By number, not by name: an idle worker of gevent's pool may end and another take its place.
    extra = (len(_threads()) - get_hub().threadpool.size) - (len(threads) - pool_size)
    if extra > 0:
        survivors.append(f"{extra} threads")
    return survivors


@pytest.fixture(autouse=True)
def hygiene(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing survives a test."""
    folder = Path(request.node.path).parent
    pure = folder.parent == HERE and folder.name in PURE
    before = (open_descriptors(), _threads(), get_hub().threadpool.size)
    yield
    give_up = time.monotonic() + SETTLE_S
    survivors = _what_survived(*before, pure=pure)
    while survivors and time.monotonic() < give_up:
        gevent.sleep(0.01)
        gc.collect()
        survivors = _what_survived(*before, pure=pure)
    if survivors:
        _known.update(thing for thing in gc.get_objects() if isinstance(thing, Greenlet))
        pytest.fail("left behind: " + "; ".join(survivors), pytrace=False)


# --------------------------------------------------------------------------------------- several at a time


class Awake:
    """Keeps the hub of a worker of pytest-xdist in its loop while it waits for its next test.

    That wait is for a thread of xdist, of which gevent knows nothing: to a hub with nothing of its own to
    watch it looks like the end of everything. During a test the hub is as it would be without workers, so
    that a test that waits for what cannot come fails at once.
    """

    def __init__(self) -> None:
        self._watcher = get_hub().loop.async_()
        self._watcher.start(lambda: None)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        """Around a test with its fixtures."""
        self._watcher.stop()
        try:
            return (yield)
        finally:
            self._watcher.start(lambda: None)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Is this process a worker? Its directories have short names: the paths of sockets must be short."""
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(Awake())
        config.option.basetemp = config.option.basetemp.replace("/popen-gw", "/")


# ------------------------------------------------------------------------------------------------- the hub


class HubWatch:
    """Counts the beats of the hub from a thread, and keeps the stack of who holds it up for too long.

    Only what the watching thread saw while it ran itself is counted, so a machine that is busy with other
    things does not look like a hub that stands still.
    """

    def __init__(self) -> None:
        self.stalls: list[str] = []
        self._beats = 0
        self._watching = True
        self._ended = False
        self._hub_thread = _thread.get_ident()
        self._timer = get_hub().loop.timer(LOOK_S / 2, LOOK_S / 2)

    def start(self) -> None:
        """Begin to watch."""
        self._timer.start(self._beat)
        _start_thread(self._watch, ())

    def stop(self) -> None:
        """End the watch; its thread is gone afterwards."""
        self._watching = False
        while not self._ended:
            gevent.sleep(LOOK_S)
        self._timer.stop()
        self._timer.close()

    def _beat(self) -> None:
        self._beats += 1

    def _watch(self) -> None:
        looks, seen, stack = 0, self._beats, ""
        while self._watching:
            _real_sleep(LOOK_S)
            if self._beats != seen:
                if looks * LOOK_S >= STALL_S:
                    self.stalls.append(f"the hub stood still for {looks * LOOK_S:.2f} s in\n{stack}")
                looks, seen = 0, self._beats
                continue
            looks += 1
            if looks * LOOK_S <= STALL_S:
                frame = sys._current_frames().get(self._hub_thread)
                stack = "".join(traceback.format_stack(frame)[-8:]) if frame else ""
        self._ended = True


@pytest.fixture
def hub_watch() -> Iterator[HubWatch]:
    """Fails the test when the hub stood still for more than `STALL_S` at a time."""
    gevent.sleep(0)
    watch = HubWatch()
    watch.start()
    yield watch
    watch.stop()
    if watch.stalls:
        pytest.fail("\n".join(watch.stalls), pytrace=False)


# ------------------------------------------------------------------------------------------- what tests need


@pytest.fixture
def crew() -> Iterator[Crew]:
    """A crew that is stopped when the test is over."""
    crew = Crew("test")
    yield crew
    assert crew.stop(SETTLE_S) == []


@pytest.fixture
def log_lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Everything logged during the test, from `debug` upwards, as one dict a line."""
    stream = io.StringIO()
    logs.setup("debug", "json", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logs.setup()
