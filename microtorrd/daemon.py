"""The process: settings, lock, log, session, control socket, tracker, signals, systemd, and the way out.

Knows the order of starting and stopping, and nothing of how the rooms do their work. Signals set an event and
nothing else; the main greenlet does what they ask for.
"""

from __future__ import annotations

import errno
import faulthandler
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from microtorrd import __version__, config, libraries, logs
from microtorrd.config import Config
from microtorrd.cycles import resume_collections
from microtorrd.errors import ConfigError, MicrotorrError, Stopping
from microtorrd.greenlets import Crew, breathe
from microtorrd.invocation import FAILED, LOCKED, MISCONFIGURED, OK, Invocation
from microtorrd.lock import AlreadyRunning, StateLock
from microtorrd.rpc.api import Services
from microtorrd.rpc.listening import ControlSocket, adopt_control_socket, open_control_socket
from microtorrd.rpc.server import ControlServer
from microtorrd.service_manager import ServiceManager, passed_descriptors
from microtorrd.session import Session
from microtorrd.tracker.settings import TrackerSettings

if TYPE_CHECKING:
    from microtorrd.tracker.server import TrackerServer

#: How long each part of the stop may take. A stop takes seconds, whatever hangs.
STOP_SESSION_S = 8.0
STOP_EDGE_S = 2.0

#: While it stops, systemd is told this often that it goes on, and for how long after the last word to wait.
EXTEND_EVERY_S = 2.0
EXTEND_BY_S = 10.0

#: A thread that wants the GIL lets its holder go on for this long before it insists. With Python's 5 ms the
#: hub wakes several times as late while a disk thread reads a large metainfo.
SWITCH_INTERVAL_S = 0.0005

#: Collections are put off until all torrents stand, and no longer than this: on a disk that hangs one may
#: never do.
COLLECTIONS_WAIT_S = 30.0

#: Descriptors asked for at most: some systems allow a thousand million, and tables grow with the number.
DESCRIPTORS_MAX = 1 << 20

#: What the machine refuses at the moment and may grant later: a supervisor should try again, so it is not 78.
PASSING = {
    errno.EADDRINUSE,
    errno.EADDRNOTAVAIL,
    errno.ENODEV,
    errno.ENETDOWN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EDQUOT,
}

_log = logs.get(room="daemon")


class Daemon:
    """One daemon. `run` does everything and returns the exit code; the RPC calls the rest."""

    def __init__(self, settings: Config, invocation: Invocation) -> None:
        self.config = settings
        self._invocation = invocation
        self._started_at = time.monotonic()
        self._crew = Crew("daemon")
        self._rpc_crew = self._crew.child("rpc")
        self._wake = Event()  # somebody wants something of the main greenlet
        self._stop_wanted = ""  # by whom
        self._reload_wanted = False
        self._taking_settings = BoundedSemaphore()
        self._loaded = Event()  # all torrents stand
        self._unusable: ImportError | None = None  # a library that a running daemon cannot do without
        self._manager = ServiceManager(invocation.environ)
        self._lock: StateLock | None = None
        self._session: Session | None = None
        self._tracker: TrackerServer | None = None
        self._server: ControlServer | None = None

    def run(self) -> int:
        """Serve until somebody wants a stop. Raises ImportError where a library is of no use."""
        logs.setup(self.config.daemon.log_level, self.config.daemon.log_format)
        prepare_process()
        code = FAILED
        handlers = self._listen_to_signals()
        try:
            self._start()
            code = OK
            while not self._stop_wanted:
                self._wake.wait()
                self._wake.clear()
                if self._reload_wanted and not self._stop_wanted:
                    self._reload_on_signal()
            if self._unusable is not None:
                raise self._unusable
        except AlreadyRunning as error:
            _log.error("start_failed", error=str(error), holder=error.pid)
            code = LOCKED
        except MicrotorrError as error:
            _log.error("start_failed", error=str(error), key=getattr(error, "key", None))
            code = exit_code(error)
        finally:
            self._stop()
            for handler in handlers:
                handler.cancel()
        return code

    # ------------------------------------------------------------------------------------- what the RPC calls

    def version(self) -> dict[str, Any]:
        """Which daemon this is."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "python": ".".join(map(str, sys.version_info[:3])),
            "uptime_s": round(time.monotonic() - self._started_at, 3),
            "state_dir": self.config.daemon.state_dir,
            "config_file": self._invocation.config_file(),
        }

    def reload(self) -> None:
        """Read the settings again and apply those that can change while it runs. Raises ConfigError."""
        with self._reloading():
            self._take_settings()

    def shutdown(self) -> None:
        """Stop soon; returns at once."""
        self._want_stop("rpc")

    # --------------------------------------------------------------------------------------- start and stop

    def _start(self) -> None:
        settings = self.config
        self._lock = StateLock(settings.daemon.state_dir)
        _log.info(
            "starting",
            version=__version__,
            pid=os.getpid(),
            state_dir=settings.daemon.state_dir,
            config_file=self._invocation.config_file(),
        )
        if os.geteuid() == 0:
            _log.warning(
                "running_as_root", advice="a user of its own is safer; see systemd/microtorrd.service"
            )
        session = self._session = Session(settings, crew=self._crew.child("session"))
        self._crew.spawn("collections", self._let_collect)
        session.start(on_loaded=self._loaded.set, warm_up=self._warm_up)
        if settings.tracker.enabled:
            # Before anybody can ask for its port.
            self._tracker = self._make_tracker(settings)
            self._tracker.start()
            session.tracker_port = self._tracker.port
            session.tracker_udp_port = self._tracker.udp_port
        control = self._open_control()
        services = Services(session=session, daemon=self)
        self._server = ControlServer(control, services, self._rpc_crew)
        self._server.start()
        if self._manager.watchdog_s is not None:
            self._crew.spawn("watchdog", self._feed_watchdog, self._manager.watchdog_s / 2)
        _log.info(
            "ready",
            socket=control.path,
            listen_port=session.facilities.listen_port,
            tracker_port=session.tracker_port,
            tracker_udp_port=session.tracker_udp_port,
            took_s=round(time.monotonic() - self._started_at, 3),
        )
        self._manager.ready(self._summary())

    def _let_collect(self) -> None:
        self._loaded.wait(COLLECTIONS_WAIT_S)
        resume_collections()

    def _warm_up(self) -> None:
        """Import what the start did not wait for. Without it nobody could be told of our torrents: where that
        fails, the daemon ends."""
        try:
            libraries.warm_up(breathe)
        except ImportError as error:
            self._unusable = error
            self._want_stop("a library that is of no use")
            raise Stopping(str(error)) from None

    def _make_tracker(self, settings: Config) -> TrackerServer:
        libraries.prepare_tls()
        from microtorrd.tracker.server import TrackerServer  # flask: 7 MB that only a tracker needs

        return TrackerServer(
            tracker_settings(settings),
            self._crew,
            time.monotonic,
            self._note_tracker_request,
            lambda: self._session is not None and self._session.facilities.notes.has_readers,
            name_of=self._name_of,
        )

    def _name_of(self, swarm_id: bytes) -> str | None:
        return None if self._session is None else self._session.roster.name_of(swarm_id)

    def _open_control(self) -> ControlSocket:
        passed = passed_descriptors(self._invocation.environ)
        if passed:
            return adopt_control_socket(passed[0])
        rpc = self.config.rpc
        return open_control_socket(rpc.socket, mode=rpc.socket_mode, group=rpc.socket_group)

    def _stop(self) -> None:
        """The session first, with its listeners, announcers, peers, torrents, disk and state; then the edge.

        Each part has its time; what has not ended by then is left to the end of the process.
        """
        began = time.monotonic()
        if self._stop_wanted:
            _log.info("stopping", wanted_by=self._stop_wanted)
        self._manager.stopping()
        patience = Crew("patience")
        patience.spawn("extend", self._ask_for_patience)
        if self._session is not None:
            self._session.stop(STOP_SESSION_S)
        if self._tracker is not None:
            self._tracker.close(STOP_EDGE_S)
        if self._server is not None:
            self._server.stop(STOP_EDGE_S)
        self._crew.stop(STOP_EDGE_S)
        patience.stop(STOP_EDGE_S)
        self._manager.close()
        if self._lock is not None:
            self._lock.release()
        if self._stop_wanted:
            _log.info("stopped", took_s=round(time.monotonic() - began, 3))

    def _ask_for_patience(self) -> None:
        for _ in range(int((STOP_SESSION_S + 3 * STOP_EDGE_S) / EXTEND_EVERY_S) + 1):
            self._manager.extend(EXTEND_BY_S)
            gevent.sleep(EXTEND_EVERY_S)

    # ------------------------------------------------------------------------------- signals and supervision

    def _listen_to_signals(self) -> list[Any]:
        return [
            gevent.signal_handler(signal.SIGTERM, self._on_stop_signal, "SIGTERM"),
            gevent.signal_handler(signal.SIGINT, self._on_stop_signal, "SIGINT"),
            gevent.signal_handler(signal.SIGHUP, self._on_reload_signal),
        ]

    def _on_stop_signal(self, name: str) -> None:
        if self._stop_wanted:
            os._exit(FAILED)  # the second one: at once, whatever hangs; state on disk is always whole
        self._want_stop(name)

    def _on_reload_signal(self) -> None:
        self._reload_wanted = True
        self._wake.set()

    def _want_stop(self, who: str) -> None:
        self._stop_wanted = self._stop_wanted or who
        self._wake.set()

    def _reload_on_signal(self) -> None:
        self._reload_wanted = False
        with self._reloading():
            try:
                self._take_settings()
            except ConfigError as error:
                _log.error("reload_failed", error=str(error), key=error.key)

    @contextmanager
    def _reloading(self) -> Iterator[None]:
        self._manager.reloading()
        try:
            yield
        finally:
            self._manager.ready(self._summary())

    def _take_settings(self) -> None:
        # One at a time: what is read waits for a disk, and who read first must not be the last to be heard.
        with self._taking_settings:
            wanted = self._invocation.load()
            changes = config.diff(self.config, wanted)
            adopted = config.adopt(self.config, wanted)
            tracker = self._tracker
            open_doors = None if tracker is None else tracker.prepare(tracker_settings(adopted))
            self.config = adopted
            logs.setup(adopted.daemon.log_level, adopted.daemon.log_format)
            if self._session is not None:
                self._session.apply(adopted)
            if open_doors is not None:
                open_doors()
            _log.info("reloaded", applied=list(changes.live), need_restart=list(changes.restart))

    def _feed_watchdog(self, every_s: float) -> None:
        """Only while the hub turns, the disk threads answer and clients are let in."""
        while True:
            assert self._session is not None
            if self._session.heartbeat() and "daemon.rpc/accept" in self._rpc_crew.alive():
                self._manager.alive()
            else:
                _log.error("heartbeat_missed")
            gevent.sleep(every_s)

    def _note_tracker_request(self, note: dict[str, Any]) -> None:
        assert self._session is not None
        self._session.facilities.notes.publish(**note)

    def _summary(self) -> str:
        return f"microtorrd {__version__}, control socket {self.config.rpc.socket}"


def tracker_settings(settings: Config) -> TrackerSettings:
    """What the tracker's room wants to know."""
    tracker = settings.tracker
    return TrackerSettings(
        enabled=tracker.enabled,
        bind=tracker.bind,
        udp=tracker.udp,
        interval=int(tracker.interval),
        min_interval=int(tracker.min_interval),
        ip_parameter=tracker.ip_parameter,
        trusted_proxies=tracker.trusted_proxies,
        access=tracker.access,
        allow_file=tracker.allow_file,
        deny_file=tracker.deny_file,
        passkeys_file=tracker.passkeys_file,
        store=tracker.store,
        pages=tracker.pages,
        max_peers=tracker.max_peers,
    )


def exit_code(error: MicrotorrError) -> int:
    """78 for what only an edit of the settings mends; 1 for what may pass by itself."""
    cause = error.__cause__
    passing = isinstance(cause, OSError) and cause.errno in PASSING
    return MISCONFIGURED if isinstance(error, ConfigError) and not passing else FAILED


def prepare_process() -> None:
    """Settings of the process that suit a hub with disk threads and many sockets."""
    # systemd's watchdog ends a process with SIGABRT: the journal then shows where every thread stood.
    faulthandler.enable()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # An error of known cause that comes out of a thread is told to whoever asked: gevent need not print it.
    gevent.get_hub().NOT_ERROR += (MicrotorrError,)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:  # a sandbox may forbid it
            _log.warning("descriptor_limit_kept", limit=soft, wanted=wanted, error=str(error))
