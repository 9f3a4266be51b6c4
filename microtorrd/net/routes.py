"""How a host is reached: its addresses, and for each family our own address that faces it.

Owns the only name look-ups of announcing, and the rule for a configured interface: where source addresses are
given, nothing leaves from any other, and a host that they cannot reach is unreachable (fail closed).

Look-ups wait in gevent's thread pool; a route is remembered for a while, because keep-alives are frequent.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from gevent import socket

from microtorrd.errors import TrackerUnreachable

#: A host far away must not send us to one that is near: what only our own machine or network can reach is
#: reached only by those who are there themselves.
Scope = Literal["loopback", "private", "global"]

_NEARNESS: dict[Scope, int] = {"loopback": 0, "private": 1, "global": 2}
#: More hosts than this are not remembered.
_MOST_REMEMBERED = 512


class Route(NamedTuple):
    """One way to a host."""

    remote: str  # numeric
    local: str  # numeric: the source address of what we send there
    pinned: bool  # `local` must be bound, since the operator chose it

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.remote

    @property
    def scope(self) -> Scope:
        return scope_of(self.remote)


@lru_cache(maxsize=1024)  # announces ask again and again about the same few
def scope_of(host: str) -> Scope:
    """How far away a numeric address is."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    # Connecting to the unspecified address reaches our own machine.
    if address.is_loopback or address.is_unspecified:
        return "loopback"
    return "private" if address.is_private or address.is_link_local else "global"


def is_numeric(host: str) -> bool:
    """Whether it is an address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_nearer(scope: Scope, than: Scope) -> bool:
    """Whether `scope` is what somebody at `than` could not reach by himself."""
    return _NEARNESS[scope] < _NEARNESS[than]


class Routes:
    """Ways to hosts. `sources` gives the addresses of the configured interface, asked anew each time.

    An interface that has none at the moment (a VPN that is down) makes every host unreachable.
    """

    def __init__(
        self,
        sources: Callable[[], Sequence[str]] | None = None,
        *,
        remember_s: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = sources
        self._remember_s = remember_s
        self._clock = clock
        self._known: dict[tuple[str, int], tuple[float, tuple[Route, ...]]] = {}

    def find(self, host: str, port: int) -> tuple[Route, ...]:
        """The ways to a host, at most one a family, the best one first; raises TrackerUnreachable.

        Waits for the name servers.
        """
        now = self._clock()
        known = self._known.get((host, port))
        if known is not None and known[0] > now:
            return known[1]
        routes = self._look_up(host, port)
        while len(self._known) >= _MOST_REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[host, port] = (now + self._remember_s, routes)
        return routes

    def forget(self, host: str, port: int) -> None:
        """It did not work: look again next time."""
        self._known.pop((host, port), None)

    def _look_up(self, host: str, port: int) -> tuple[Route, ...]:
        sources = None if self._sources is None else list(self._sources())
        found: dict[bool, Route] = {}
        reason = "no address"
        for remote in _addresses(host, port):
            is_ipv6 = ":" in remote
            if is_ipv6 in found:
                continue
            pinned = None
            if sources is not None:
                pinned = next((source for source in sources if (":" in source) == is_ipv6), None)
                if pinned is None:
                    reason = "the interface has no address that can reach it"
                    continue
            try:
                local = pinned or _facing(remote, port)
            except OSError as error:
                reason = error.strerror or str(error)
                continue
            found[is_ipv6] = Route(remote, local, pinned is not None)
        if not found:
            raise TrackerUnreachable(f"no way to {host}: {reason}")
        return tuple(found.values())


def _addresses(host: str, port: int) -> list[str]:
    if is_numeric(host):
        return [str(ipaddress.ip_address(host))]
    try:
        # IDNA here: a label that is too long would raise UnicodeError from within the resolver.
        found = socket.getaddrinfo(host.encode("idna").decode("ascii"), port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise TrackerUnreachable(f"{host!r} is not a host name") from error
    except OSError as error:
        raise TrackerUnreachable(f"cannot resolve {host}: {error.strerror or error}") from error
    return [str(address[0]) for *_, address in found]


def _facing(remote: str, port: int) -> str:
    """Our address on the way to `remote`: connecting a UDP socket picks it and sends nothing."""
    family = socket.AF_INET6 if ":" in remote else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((remote, port))
        return str(probe.getsockname()[0])
