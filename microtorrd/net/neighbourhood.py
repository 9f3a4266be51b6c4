"""By which interfaces the neighbours are spoken to (BEP 14): those that peers may reach us by, and no others.

With `listen.interface` set that one alone counts; a loopback interface has no neighbours. An address of ours
that is not listened on is no way either: what is announced there could not be reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import NamedTuple

from microtorrd.net.interfaces import adapters
from microtorrd.net.listening import WILDCARDS
from microtorrd.proto.compact import is_near, read_host, same_bits

#: More interfaces than any machine has in earnest.
WAYS_MAX = 64


class Way(NamedTuple):
    """One address of ours on one interface."""

    host: str  # numeric
    interface: int  # its number
    prefix: int  # bits of the network

    @property
    def ipv6(self) -> bool:
        """Its family."""
        return ":" in self.host


def ways(interface: str, listened: Sequence[str]) -> list[Way]:
    """The ways there are now; `listened` are the numeric addresses that peers may connect to."""
    found: list[Way] = []
    for adapter in adapters():
        # The addresses of `eth0:1` are labelled ones of `eth0`.
        if interface and interface not in (adapter.name, str(adapter.name).partition(":")[0]):
            continue
        for ip in adapter.ips:
            host = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            address = ip_address(host)
            # Of a link-local IPv6 address nobody could tell another host.
            if address.is_loopback or (address.version == 6 and address.is_link_local):
                continue
            if host not in listened and WILDCARDS[address.version == 6] not in listened:
                continue
            found.append(Way(host, adapter.index or 0, ip.network_prefix))
    return found[:WAYS_MAX]


def is_neighbour(host: str, known: Sequence[Way]) -> bool:
    """Whether a datagram of this address may come from a neighbour: it is in one of our networks, or private.

    Groups reach further than one network, and source addresses of UDP can be anything.
    """
    packed = read_host(host)
    if packed is None:
        return False
    if is_near(host):
        return not ip_address(host).is_loopback or any(ip_address(way.host).is_loopback for way in known)
    networks = [(read_host(way.host), way.prefix) for way in known]
    return any(
        own is not None and len(own) == len(packed) and same_bits(own, packed, prefix)
        for own, prefix in networks
    )
