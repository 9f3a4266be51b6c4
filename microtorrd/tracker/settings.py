"""What can be chosen about the tracker, as plain values, and how `bind` is read.

Knows no configuration file.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Literal

from msgspec import Struct

from microtorrd.errors import ConfigError

IpParameter = Literal["never", "private", "always"]
Readers = Literal["never", "private", "always"]
Access = Literal["open", "listed", "own"]
Network = IPv4Network | IPv6Network


class TrackerSettings(Struct, frozen=True):
    """One record a setting: name with unit, default, and what high and low favour. Times in seconds."""

    enabled: bool = False
    bind: str = "0.0.0.0:8888"  # HOST:PORT; `[::]:8888` serves both families, port 0 takes a free one
    udp: bool = True  # answers over UDP, too, on the same port number
    interval: int = (
        900  # between two announces of a BitTorrent client; low: fresher lists, high: less traffic
    )
    min_interval: int = 60  # that a BitTorrent client must let pass even when somebody is impatient
    store: str = "memory"  # or the URL of a Redis server, which several trackers may share
    ip_parameter: IpParameter = "private"  # whose `ip` is believed; `always` lets anybody name any victim
    trusted_proxies: tuple[str, ...] = ()  # networks whose X-Forwarded-For is believed
    access: Access = "open"  # which swarms are served; see tracker.admission
    allow_file: str = ""  # lists, see tracker.lists; "" is none
    deny_file: str = ""
    passkeys_file: str = ""  # "": nobody needs a passkey
    pages: Readers = "private"  # who may read what tracker.pages shows
    default_peers: int = 50  # told to a BitTorrent client that names no number
    max_peers: int = 200  # told to anybody at once
    max_swarms: int = 100_000
    max_swarm_peers: int = 50_000  # remembered of one swarm
    max_total_peers: int = 500_000  # remembered in all; 400 bytes of memory each
    max_connections: int = 1_000  # at once; over it the one that was idle longest is closed


def parse_bind(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` or `[IPV6]:PORT`; no host means all of IPv4. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host or "[" in host:
        raise ConfigError(
            f"tracker.bind: {text!r}: an IPv6 address stands in brackets, as in [::]:8888", key="tracker.bind"
        )
    if not colon or not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > 65535:
        raise ConfigError(
            f"tracker.bind: {text!r} is not HOST:PORT with a port from 0 to 65535", key="tracker.bind"
        )
    return host or "0.0.0.0", int(port)


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Return the networks (or single addresses) of `trusted_proxies`; raises ConfigError."""
    networks = []
    for text in texts:
        try:
            networks.append(ip_network(text))
        except ValueError as error:
            raise ConfigError(f"tracker.trusted_proxies: {error}", key="tracker.trusted_proxies") from error
    return tuple(networks)
