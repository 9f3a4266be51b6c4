"""The addresses of a network interface by its name, for those who may speak through that one only.

A name that is set and an interface that is gone, or has no address, must never mean "any interface".
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from microtorrd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ifaddr import Adapter


def interface_addresses(name: str) -> list[str]:
    """Its numeric addresses now, IPv4 first; none while it is down or does not exist.

    Link-local IPv6 addresses are left out: they mean something only together with the interface.
    """
    found = []
    for adapter in adapters():
        # The addresses of `eth0:1` are labelled ones of `eth0`.
        if name in (adapter.name, str(adapter.name).partition(":")[0]):
            for ip in adapter.ips:
                host = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
                if not host.lower().startswith("fe80:"):
                    found.append(str(host))
    return sorted(found, key=lambda host: ":" in host)


def require_interface(name: str) -> list[str]:
    """The same at start, where an interface that cannot be used is the operator's to mend: ConfigError."""
    addresses = interface_addresses(name)
    if addresses:
        return addresses
    names = sorted({str(adapter.name) for adapter in adapters(include_unconfigured=True)})
    if name in names:
        raise ConfigError(f"the interface {name!r} has no address", key="listen.interface")
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
    raise ConfigError(f"there is no interface {name!r}: {hint}", key="listen.interface")


def adapters(*, include_unconfigured: bool = False) -> Iterable[Adapter]:
    """All interfaces of the machine."""
    import ifaddr  # not before: it runs a program to find the C library

    found: Iterable[Adapter] = ifaddr.get_adapters(include_unconfigured=include_unconfigured)
    return found
