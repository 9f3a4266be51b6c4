"""A peer by hand: raw sockets that say to a real daemon whatever a test wants, and how the daemon bears it.

`RawPeer` is one connection, `Trap` listens for those that the daemon makes, `Health` compares the daemon with
itself before: log, descriptors, memory, processor time. Everything is on loopback.
"""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Callable
from typing import Any

import gevent
import psutil
from gevent import socket
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer

from bench.daemons import Daemon
from microtorrd.proto.handshake import PROTOCOL, reserved_bits

PLAIN = bytes(8)
FAST = reserved_bits(fast=True, extended=False)
EXTENDED = reserved_bits(fast=True, extended=True)

#: Far more than anything takes that goes well.
PATIENCE_S = 8.0

CHOKE, UNCHOKE, INTERESTED, NOT_INTERESTED, HAVE, BITFIELD, REQUEST, PIECE, CANCEL, PORT = range(10)
SUGGEST, HAVE_ALL, HAVE_NONE, REJECT, ALLOWED_FAST = range(13, 18)
EXTENSION = 20


def frame(number: int, body: bytes = b"", *, length: int | None = None) -> bytes:
    """A message; `length` is what its length field says where that is a lie."""
    return struct.pack(">IB", 1 + len(body) if length is None else length, number) + body


def words(*numbers: int) -> bytes:
    """Numbers of four bytes."""
    return struct.pack(f">{len(numbers)}I", *numbers)


def request(piece: int, begin: int, length: int) -> bytes:
    """The frame that asks for a block."""
    return frame(REQUEST, words(piece, begin, length))


class RawPeer:
    """One connection to a daemon, byte for byte."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self._read = b""
        sock.settimeout(PATIENCE_S)

    @classmethod
    def dial(cls, port: int, *, source: str = "127.0.0.1") -> RawPeer:
        """Connect, and say nothing."""
        return cls(socket.create_connection(("127.0.0.1", port), PATIENCE_S, (source, 0)))

    @classmethod
    def join(
        cls, port: int, swarm_id: bytes, *, reserved: bytes = PLAIN, peer_id: bytes | None = None
    ) -> RawPeer:
        """Connect and shake hands."""
        peer = cls.dial(port)
        peer.shake(swarm_id, reserved=reserved, peer_id=peer_id)
        peer.take(68)
        return peer

    def shake(self, swarm_id: bytes, *, reserved: bytes = PLAIN, peer_id: bytes | None = None) -> None:
        """Send a handshake."""
        self.send(PROTOCOL + reserved + swarm_id + (peer_id or os.urandom(20)))

    def send(self, *raw: bytes) -> None:
        """Send these bytes."""
        self.sock.sendall(b"".join(raw))

    def take(self, size: int) -> bytes:
        """The next bytes. EOFError where the daemon closed before."""
        while len(self._read) < size:
            part = self.sock.recv(1 << 18)
            if not part:
                raise EOFError
            self._read += part
        taken, self._read = self._read[:size], self._read[size:]
        return taken

    def message(self) -> tuple[int, bytes]:
        """The next message that is no keep-alive: number and body."""
        while not (length := int.from_bytes(self.take(4), "big")):
            continue
        raw = self.take(length)
        return raw[0], raw[1:]

    def wait_for(self, *numbers: int) -> tuple[int, bytes]:
        """The next message of one of these numbers; others are passed over."""
        while (message := self.message())[0] not in numbers:
            continue
        return message

    def is_closed(self, within_s: float = PATIENCE_S) -> bool:
        """Whether the daemon closes the connection; what it still says is swallowed."""
        end = time.monotonic() + within_s
        try:
            while (left_s := end - time.monotonic()) > 0:
                self.sock.settimeout(left_s)
                if not self.sock.recv(1 << 18):
                    return True
        except TimeoutError:
            return False
        except OSError:
            return True
        return False

    def flood(self, chunk: bytes, *, for_s: float = PATIENCE_S) -> bool:
        """Send this again and again, and read what comes back; whether the daemon put an end to it."""
        reader = gevent.spawn(self.is_closed, for_s)
        end = time.monotonic() + for_s
        try:
            while time.monotonic() < end and not reader.ready():
                self.sock.sendall(chunk)
        except TimeoutError:
            return False
        except OSError:
            return True
        finally:
            ended = reader.value is True
            reader.kill()
        return ended

    def close(self) -> None:
        """End it."""
        self.sock.close()

    def reset(self) -> None:
        """End it with a reset instead of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Trap:
    """Listens, and does to every daemon that calls what `behave` says. `sprung` is set when one was done."""

    def __init__(self, behave: Callable[[RawPeer], object]) -> None:
        self.sprung = Event()
        self.calls = 0
        self._behave = behave
        self._callers = Pool()
        self._server = StreamServer(("127.0.0.1", 0), self._serve, spawn=self._callers)
        self._server.start()
        self.port = int(self._server.server_port)

    def _serve(self, sock: Any, address: object) -> None:
        self.calls += 1
        try:
            self._behave(RawPeer(sock))
        except (OSError, EOFError):
            return  # the daemon had enough: most of them are to
        finally:
            sock.close()
            self.sprung.set()

    def close(self) -> None:
        """Listen no more, and end what still goes on."""
        self._server.stop(timeout=0)
        self._callers.kill()

    def __enter__(self) -> Trap:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Health:
    """How a daemon is now, to be compared with how it is after a test."""

    #: What an attack may cost in memory at its worst, beside the piece memory of the settings.
    MEMORY_BYTES = 24 << 20

    #: While nobody wants anything: the share of a core that the daemon may use, over this time.
    IDLE_SHARE, IDLE_S = 0.4, 0.25

    def __init__(self, daemon: Daemon, *, spare_descriptors: int = 0) -> None:
        """`spare_descriptors`: so many more may be open in the end, as those of content added since."""
        assert daemon.process is not None
        self._daemon = daemon
        self._process = psutil.Process(daemon.process.pid)
        self._log_at = len(daemon.log())
        self._descriptors = self._process.num_fds() + spare_descriptors
        self._memory = self._process.memory_info().rss
        with open(f"/proc/{self._process.pid}/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # begin to count the peak anew (proc(5))

    def log(self) -> str:
        """What was logged since, without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self._daemon.log()[self._log_at :])

    def wait_for_log(self, text: str) -> None:
        """Return when this was logged."""
        wait(lambda: text in self.log(), lambda: f"{text!r} is not in:\n{self.log()[-3000:]}")

    def check(self) -> None:
        """All is as before."""
        assert self._process.is_running(), self.log()[-3000:]
        wait(lambda: self._process.num_fds() <= self._descriptors, self._what_is_open)
        used = _cpu_s(self._process)
        gevent.sleep(self.IDLE_S)
        used = _cpu_s(self._process) - used
        assert used < self.IDLE_SHARE * self.IDLE_S, f"{used:.2f} s of processor time in {self.IDLE_S} s"
        assert "Traceback" not in self.log(), self.log()[-6000:]
        grown = _peak_bytes(self._process.pid) - self._memory
        assert grown < self.MEMORY_BYTES, f"it grew by {grown} bytes"

    def _what_is_open(self) -> str:
        folder = f"/proc/{self._process.pid}/fd"
        links = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
        return f"more than {self._descriptors} descriptors: {sorted(links)}"


def wait(is_so: Callable[[], bool], why_not: Callable[[], str], *, for_s: float = PATIENCE_S) -> None:
    """Look again and again, for a thing that tells nobody when it happens."""
    end = time.monotonic() + for_s
    while not is_so():
        assert time.monotonic() < end, why_not()
        gevent.sleep(0.02)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _peak_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        found = re.search(r"VmHWM:\s+(\d+) kB", file.read())
    assert found is not None
    return int(found[1]) * 1024
