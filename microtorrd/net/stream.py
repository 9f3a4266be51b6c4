"""A connected socket as four calls: read or write without waiting, and wait until one of the two may succeed.

The seam where another transport (encryption, uTP) takes the socket's place: whoever reads or writes keeps the
memory to itself between a wait and the next call, because nothing is written to it while it waits.

One greenlet may wait for reading and one for writing. `end` wakes both, and is what anybody may call; `close`
belongs to who knows that nobody waits any more.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Sequence
from typing import Any, Protocol

from gevent import get_hub, monkey
from gevent import socket as gsocket

#: Who waits for many bytes reads what there is after this time.
PATIENCE_S = 0.01

#: The kernel's limit of buffers in one call.
IOV_MAX: int = os.sysconf("SC_IOV_MAX")

_READ, _WRITE = 1, 2  # event masks of the loop's io watchers

#: The kernel's own, which can be asked without waiting; gevent's would ask by way of the loop.
_Poll: Any = monkey.get_original("select", "poll")


class Stream(Protocol):
    """What a peer wire needs of a connection."""

    def read(self, buffers: Sequence[memoryview]) -> int | None:
        """Read into the buffers what is there: how many bytes, 0 at the end, None when nothing has come."""

    def write(self, buffers: Sequence[Any]) -> int | None:
        """Send of the buffers what fits now: how many bytes, None for nothing. At most `IOV_MAX` buffers."""

    def wait_readable(self, least_bytes: int = 1) -> None:
        """Return when a read will not say None; where more than a byte is wanted, when so much is there or it
        takes too long."""

    def is_writable(self) -> bool:
        """Whether `wait_writable` would return at once."""

    def wait_writable(self, timeout_s: float) -> bool:
        """Return when a write will not say None; False when that took too long."""

    def keep_room(self, room_bytes: int) -> None:
        """Let `wait_writable` mean that a write takes this much, and keep little more than that unsent."""

    def end(self, *, abort: bool) -> None:
        """End the connection and wake who waits. `abort` throws away what is still to be sent."""

    def close(self) -> None:
        """Give the descriptor back."""


class TcpStream:
    """A connected TCP socket as a `Stream`. What goes wrong raises OSError, calls on a closed one too."""

    __slots__ = ("_fd", "_poll", "_readable", "_sock", "_wakes_at", "_writable")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._fd = sock.fileno()
        self._wakes_at = 1
        self._poll: Any = None  # made when first needed, as are the watchers of the loop
        self._readable: Any = None
        self._writable: Any = None

    def read(self, buffers: Sequence[memoryview]) -> int | None:
        # Not the socket's own recvmsg_into: gevent's would wait inside with the memory in its hands, and this
        # is the shorter way, too.
        try:
            return os.readv(self._fd, buffers)
        except BlockingIOError:
            return None

    def write(self, buffers: Sequence[Any]) -> int | None:
        try:
            return os.writev(self._fd, buffers)
        except BlockingIOError:
            return None

    def wait_readable(self, least_bytes: int = 1) -> None:
        self._wake_at(least_bytes)
        if least_bytes > 1:
            if not self.wait_readable_for(PATIENCE_S):
                self._wake_at(1)
            return
        if self._readable is None:
            self._readable = self._watcher(_READ)
        get_hub().wait(self._readable)

    def _wake_at(self, least_bytes: int) -> None:
        """The socket counts as readable when so much has come (or the stream has ended)."""
        if least_bytes != self._wakes_at:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least_bytes)
            self._wakes_at = least_bytes

    def wait_readable_for(self, timeout_s: float) -> bool:
        """The same as `wait_readable`, but not for ever; False when it took too long."""
        if self._readable is None:
            self._readable = self._watcher(_READ)
        try:
            gsocket.wait(self._readable, timeout=timeout_s)
        except TimeoutError:
            return False
        return True

    def is_writable(self) -> bool:
        if self._poll is None:
            self._poll = _Poll()
            self._poll.register(self._open_fd(), select.POLLOUT)
        return bool(self._poll.poll(0))

    def wait_writable(self, timeout_s: float) -> bool:
        if self._writable is None:
            self._writable = self._watcher(_WRITE)
        try:
            gsocket.wait(self._writable, timeout=timeout_s)
        except TimeoutError:
            return False
        return True

    def keep_room(self, room_bytes: int) -> None:
        # With this option a socket is full when so much is unsent, and writable when half of that is.
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 2 * room_bytes)

    def end(self, *, abort: bool) -> None:
        if self._fd < 0:
            return
        try:
            if abort:
                # Else the kernel keeps what a peer that never reads was sent, for minutes.
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            # The other side was faster: whoever waits is woken by that.
            if error.errno not in (errno.ENOTCONN, errno.EINVAL):
                raise

    def close(self) -> None:
        for watcher in (self._readable, self._writable):
            if watcher is not None:
                watcher.close()
        self._readable = self._writable = self._poll = None
        self._fd = -1
        self._sock.close()

    def _watcher(self, mask: int) -> Any:
        return get_hub().loop.io(self._open_fd(), mask)

    def _open_fd(self) -> int:
        if self._fd < 0:
            raise OSError(errno.EBADF, "the connection is closed")
        return self._fd


def tune(sock: socket.socket) -> None:
    """Prepare a TCP socket for the peer wire. The sizes of its buffers are the kernel's business: one that is
    asked for stays as it is, and the kernel's own grow with the line, further than most may ask for."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
