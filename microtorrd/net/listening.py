"""Opening the sockets that peers connect to: several addresses of both families, one port for all of them."""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Sequence

from gevent import socket

from microtorrd.errors import ConfigError
from microtorrd.net.interfaces import require_interface
from microtorrd.net.stream import tune

#: Handshakes are answered in about a millisecond: this many may arrive within one pause.
BACKLOG = 256

#: A free port of one address is nearly always free on the others, too.
TRIES = 20

#: What a machine without the family, or with the family switched off, says.
_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

WILDCARDS = ("0.0.0.0", "::")


def open_sockets(addresses: Sequence[str], port: int, interface: str) -> list[socket.socket]:
    """Listening sockets on these numeric addresses, or on those of `interface`; port 0 takes a free one.

    A wildcard of a family that the machine lacks is left out, as long as anything remains. ConfigError, which
    names the setting, where it cannot be.
    """
    hosts = _hosts(addresses, interface)
    for _ in range(TRIES):
        try:
            return _open_all(hosts, port)
        except ConfigError as error:
            if port or not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EADDRINUSE:
                raise
    raise ConfigError(f"no port is free on all of {', '.join(hosts)}", key="listen.port")


def name_of(sock: socket.socket) -> str:
    """Where it listens, for people."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _hosts(addresses: Sequence[str], interface: str) -> list[str]:
    """The numeric addresses to bind, each once."""
    hosts = []
    of_interface = require_interface(interface) if interface else None
    for text in addresses:
        try:
            host = str(ipaddress.ip_address(text))
        except ValueError:
            raise ConfigError(f"{text!r} is not a numeric address", key="listen.addresses") from None
        if of_interface is None:
            hosts.append(host)
        elif host in WILDCARDS:
            hosts += [own for own in of_interface if (":" in own) == (":" in host)]
        elif host in of_interface:
            hosts.append(host)
        else:
            raise ConfigError(
                f"{text} is no address of the interface {interface!r}, which has {', '.join(of_interface)}",
                key="listen.addresses",
            )
    if addresses and not hosts:
        raise ConfigError(
            f"the interface {interface!r} has no address of the families listened on", key="listen.interface"
        )
    return list(dict.fromkeys(hosts))


def _open_all(hosts: Sequence[str], port: int) -> list[socket.socket]:
    opened: list[socket.socket] = []
    left_out: ConfigError | None = None
    try:
        for host in hosts:
            try:
                sock = _open(host, port)
            except OSError as error:
                refusal = _refusal(error, host, port)
                if host not in WILDCARDS or error.errno not in _NO_FAMILY:
                    raise refusal from error
                left_out = refusal
                continue
            opened.append(sock)
            port = port or sock.getsockname()[1]
        if left_out is not None and not opened:
            raise left_out
    except ConfigError:
        for sock in opened:
            sock.close()
        raise
    return opened


def _open(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in host:
            # IPv4 has sockets of its own: addresses would else come mapped into IPv6, and the ports collide.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        tune(sock)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _refusal(error: OSError, host: str, port: int) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        why = f"port {port} of {host} is in use by another program, or by another microtorrd"
        return ConfigError(why, key="listen.port")
    if error.errno == errno.EACCES:
        return ConfigError(f"port {port} may not be used without privileges", key="listen.port")
    if error.errno in _NO_FAMILY:
        return ConfigError(f"{host} is not an address of this machine", key="listen.addresses")
    why = os.strerror(error.errno or 0)
    return ConfigError(f"cannot listen on port {port} of {host}: {why}", key="listen.addresses")
