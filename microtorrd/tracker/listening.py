"""The sockets that the tracker listens on: one for HTTP, one for datagrams at the same address and port."""

from __future__ import annotations

import errno
import socket as constants
from typing import Any

from gevent.monkey import get_original
from gevent.socket import getaddrinfo

from microtorrd.errors import ConfigError
from microtorrd.tracker.settings import parse_bind

#: How many datagrams may wait: some five thousand, a tenth of a second or two of work. The kernel gives no
#: more than `net.core.rmem_max`. What does not fit is lost, and its sender asks again after 15 s.
_WAITING_BYTES = 4 << 20

#: Replies on their way; more of them than one turn of the server makes.
_LEAVING_BYTES = 1 << 20

#: Free ports of TCP that are tried until one is free for UDP, too.
_TRIES = 32

#: `<linux/in.h>`: with each datagram comes the address that it was sent to. (Python names it from 3.14 on.)
IP_PKTINFO = 8

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


def listen_on_both(bind: str) -> tuple[Any, Any]:
    """Return a listening socket and one for datagrams beside it, with the same number. Raises ConfigError."""
    for tries_left in reversed(range(_TRIES)):
        listener = listen(bind)
        try:
            return listener, _listen_beside(listener)
        except OSError as error:
            listener.close()
            in_use = error.errno == errno.EADDRINUSE
            if in_use and tries_left and parse_bind(bind)[1] == 0:
                continue  # another free port is free for both, perhaps
            reason = "the address is already in use" if in_use else error.strerror
            raise ConfigError(
                f"tracker.bind: {bind}: UDP: {reason} (tracker.udp = false serves HTTP alone)",
                key="tracker.bind",
            ) from error
    raise AssertionError("the last try returns or raises")


def _listen_beside(listener: Any) -> Any:
    """Return a socket for datagrams at this socket's address; raises OSError.

    It shares its address with nobody: SO_REUSEADDR would let another program take our datagrams. Where it is
    bound to all addresses, each datagram says to which of them it was sent, so that the answer can leave from
    there: a client takes it from nowhere else.
    """
    address = listener.getsockname()
    datagrams = _Socket(listener.family, constants.SOCK_DGRAM)
    try:
        datagrams.setblocking(False)
        datagrams.setsockopt(constants.SOL_SOCKET, constants.SO_RCVBUF, _WAITING_BYTES)
        datagrams.setsockopt(constants.SOL_SOCKET, constants.SO_SNDBUF, _LEAVING_BYTES)
        if listener.family == constants.AF_INET6:
            only = listener.getsockopt(constants.IPPROTO_IPV6, constants.IPV6_V6ONLY)
            datagrams.setsockopt(constants.IPPROTO_IPV6, constants.IPV6_V6ONLY, only)
        if address[0] == "::":
            datagrams.setsockopt(constants.IPPROTO_IPV6, constants.IPV6_RECVPKTINFO, 1)
        elif address[0] == "0.0.0.0":
            datagrams.setsockopt(constants.IPPROTO_IP, IP_PKTINFO, 1)
        datagrams.bind(address)
    except OSError:
        datagrams.close()
        raise
    return datagrams
