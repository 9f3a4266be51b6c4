"""The socket that the tracker listens on."""

from __future__ import annotations

import errno
import socket as constants
from typing import Any

from gevent.monkey import get_original
from gevent.socket import getaddrinfo

from microtorrd.errors import ConfigError
from microtorrd.tracker.settings import parse_bind

#: The socket of the standard library: the server's loop never waits in one, so none of gevent's is needed.
_Socket = get_original("socket", "socket")


def listen(bind: str) -> Any:
    """Return a listening socket that never blocks; `[::]` is for both families. Raises ConfigError."""
    host, port = parse_bind(bind)
    try:
        family, kind, protocol, _, address = getaddrinfo(
            host, port, type=constants.SOCK_STREAM, flags=constants.AI_PASSIVE
        )[0]
        listener = _Socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"tracker.bind: {bind}: {error.strerror}", key="tracker.bind") from error
    try:
        listener.setblocking(False)
        listener.setsockopt(constants.SOL_SOCKET, constants.SO_REUSEADDR, 1)
        # Linux hands it on to the connections that are accepted.
        listener.setsockopt(constants.IPPROTO_TCP, constants.TCP_NODELAY, 1)
        if family == constants.AF_INET6:
            listener.setsockopt(constants.IPPROTO_IPV6, constants.IPV6_V6ONLY, int(host != "::"))
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        in_use = error.errno == errno.EADDRINUSE
        reason = "the address is already in use" if in_use else error.strerror
        raise ConfigError(f"tracker.bind: {bind}: {reason}", key="tracker.bind") from error
    return listener
