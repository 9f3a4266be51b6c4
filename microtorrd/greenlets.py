"""Who runs: crews of named greenlets, with one way to start, one way to crash and one way to stop.

Only `Crew.spawn` starts greenlets. What goes wrong in one without being expected is a bug: it is logged here,
once, with its traceback, and told to the crew's owner. This is one of the few places where `except Exception`
stands; the layers test lists them.

gevent counts a killed greenlet as a successful one: nobody should conclude from a greenlet's end that its
work was done.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import gevent
from gevent import Greenlet

from microtorrd import logs
from microtorrd.errors import Stopping

#: Told of a crash: the name of the greenlet, and the error.
OnCrash = Callable[[str, BaseException], None]

#: Too short for anybody to notice, and not 0: the loop runs up to 50 turns of `sleep(0)` in a row before it
#: looks at sockets and timers again.
TURN_S = 1e-9

_log = logs.get(room="greenlets")


def breathe() -> None:
    """Let everybody have a turn in the middle of something long: greenlets, sockets and timers."""
    gevent.sleep(TURN_S)


class Crew:
    """Greenlets with one owner. A crew may have child crews, which stop with it.

    `on_crash` is called in the crashing greenlet, after the log line; a child without one of its own uses its
    parent's.
    """

    def __init__(self, name: str, on_crash: OnCrash | None = None) -> None:
        self.name = name
        self.stopped = False
        self._on_crash = on_crash
        self._members: set[Greenlet] = set()
        # Weak, because torrents and peers come and go for years. A crew with a living member is held by it.
        # Made with the first child, because most crews have none and there are thousands.
        self._children: weakref.WeakSet[Crew] | None = None

    def spawn(self, name: str, work: Callable[..., object], *args: Any) -> Greenlet:
        """Start `work(*args)`; the greenlet is called `crew/name`.

        After `stop` it raises GreenletExit: who spawns then is on its way out itself, and ends without noise.
        """
        if self.stopped:
            raise gevent.GreenletExit(f"{self.name} was stopped: {name} is not started")
        member = Greenlet(self._run, name, work, args)
        member.name = f"{self.name}/{name}"
        self._members.add(member)
        member.rawlink(self._members.discard)
        member.start()
        return member

    def child(self, name: str, on_crash: OnCrash | None = None) -> Crew:
        """A crew within this one, called `crew.name`."""
        child = Crew(f"{self.name}.{name}", on_crash or self._on_crash)
        child.stopped = self.stopped
        if self._children is None:
            self._children = weakref.WeakSet()
        self._children.add(child)
        return child

    def alive(self) -> list[str]:
        """The names of all that run, children's included."""
        return sorted(member.name for member in self._everybody())

    def stop(self, timeout_s: float) -> list[str]:
        """Kill all members, children's included, and wait for their ends.

        The names of those that have not ended within `timeout_s` are logged and returned. A member may call
        this: it is left alone itself.
        """
        self._close()
        current = gevent.getcurrent()
        members = [member for member in self._everybody() if member is not current]
        gevent.killall(members, block=False)
        gevent.joinall(members, timeout=timeout_s)
        survivors = sorted(member.name for member in members if not member.dead)
        if survivors:
            _log.warning("greenlets_survived", crew=self.name, count=len(survivors), names=survivors[:10])
        return survivors

    def _close(self) -> None:
        self.stopped = True
        for child in list(self._children or ()):
            child._close()

    def _everybody(self) -> list[Greenlet]:
        everybody = [member for member in self._members if not member.dead]
        for child in list(self._children or ()):
            everybody.extend(child._everybody())
        return everybody

    def _run(self, name: str, work: Callable[..., object], args: tuple[Any, ...]) -> None:
        try:
            work(*args)
        except Stopping as error:
            _log.debug("greenlet_ended", greenlet=f"{self.name}/{name}", reason=str(error))
        except (Exception, gevent.Timeout) as error:
            _log.error("greenlet_crashed", greenlet=f"{self.name}/{name}", error=str(error), exc_info=error)
            if self._on_crash is not None:
                self._on_crash(f"{self.name}/{name}", error)
