"""Where a request comes from, and whether it may say that its peer is elsewhere.

A tracker that believes the `ip` of anybody is a weapon: whoever is named there gets dialled by a whole swarm.
So `ip` is honoured by rule only (`never`, from `private` addresses, `always`). Behind a reverse proxy every
request comes from the proxy: `X-Forwarded-For` is believed as far as it was written by proxies that are
trusted by setting, read from the right. A request that somebody untrusted passed on is not taken for a
private one, whatever its address: else an undeclared proxy on this host would open the door to all. Neither
is one of which a trusted proxy does not say, in words that can be read, where it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from microtorrd.errors import ClientError
from microtorrd.proto.compact import read_host
from microtorrd.tracker.settings import IpParameter, Network, parse_networks

#: Loopback, private, link-local and unique local: addresses of one's own house. Spelled out, since what
#: `is_private` of ipaddress means has changed with Python's versions.
_PRIVATE = [
    ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
]


#: What a proxy that has not been told to say for whom it asks may still have written.
_TRACES_OF_PROXIES = ("forwarded", "via", "x-real-ip")

#: "Unknown" in the words of RFC 7239: somebody passed the request on, and did not say for whom.
_UNKNOWN = "unknown"


def forwarded_for(header: Callable[[str], str | None]) -> str:
    """Return for whom a request was passed on: X-Forwarded-For, `unknown` where other headers show that a
    proxy had it, "" where nothing does. `header` finds one by its lower-case name.
    """
    told = header("x-forwarded-for")
    if told:
        return told
    return _UNKNOWN if any(header(name) is not None for name in _TRACES_OF_PROXIES) else ""


def is_rebindable(host: str) -> bool:
    """Tell whether a Host header has a name that whoever owns it can let lead to us: any but `localhost`.

    No header ("") is no browser.
    """
    name = _without_port(host)
    return bool(host) and name.lower() != "localhost" and read_host(name.partition("%")[0]) is None


class Source(NamedTuple):
    """Who asks."""

    host: bytes  # 4 or 16
    may_name_host: bool  # its `ip` parameter is honoured


class _Address(NamedTuple):
    host: bytes
    is_private: bool
    is_trusted: bool  # a reverse proxy of ours


class SourceRule:
    """Tells the source of a request by the address of its connection and its `forwarded_for`."""

    def __init__(self, ip_parameter: IpParameter, trusted_proxies: Sequence[str]) -> None:
        self._ip_parameter = ip_parameter
        self._trusted = parse_networks(trusted_proxies)
        # A client asks again and again, and reading an address costs more than all the rest here.
        self._read = lru_cache(maxsize=4096)(self._read_address)

    def source(self, socket_host: str, forwarded_for: str) -> Source:
        """Return who asks. `socket_host` is numeric, `forwarded_for` what the function says."""
        address = self._read(socket_host)
        if address is None:
            raise ClientError(f"the tracker cannot use the address {socket_host}")
        passed_on = bool(forwarded_for) and not address.is_trusted
        if forwarded_for and address.is_trusted:
            address = self._behind_proxies(address, forwarded_for)
        if self._ip_parameter == "private":
            return Source(address.host, address.is_private and not passed_on)
        return Source(address.host, self._ip_parameter == "always")

    def is_private(self, socket_host: str, forwarded_for: str) -> bool:
        """Tell whether the request comes from a loopback or private address; see `source`."""
        address = self._read(socket_host)
        if address is None:
            return False
        if forwarded_for:
            if not address.is_trusted:
                return False
            address = self._behind_proxies(address, forwarded_for)
        return address.is_private

    def _behind_proxies(self, proxy: _Address, forwarded_for: str) -> _Address:
        """Return the first address from the right that is no proxy of ours, or the last that can be read.

        Behind one that cannot be read, the client may be anywhere: that is not private.
        """
        for entry in reversed(forwarded_for.split(",")):
            address = self._read(_without_port(entry.strip()))
            if address is None:
                return proxy._replace(is_private=False)
            proxy = address
            if not address.is_trusted:
                break
        return proxy

    def _read_address(self, text: str) -> _Address | None:
        host = read_host(text.partition("%")[0])  # a link-local peer's has the name of our interface
        if host is None:
            return None
        return _Address(host, _is_in(host, _PRIVATE), _is_in(host, self._trusted))


def _is_in(host: bytes, networks: Sequence[Network]) -> bool:
    address = ip_address(host)
    return any(address in network for network in networks)


def _without_port(entry: str) -> str:
    """Some proxies write `192.0.2.1:4711` or `[2001:db8::1]:4711`."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry
