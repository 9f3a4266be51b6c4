"""A network of hosts with addresses of their own on this one machine: namespaces around a bridge.

Some clients ignore peers on 127.0.0.0/8, and all take peers of one address for one peer. The bridge lies in a
namespace too, so nothing of the machine's own network is touched, there is no way out, and any number of such
networks can stand side by side with the same addresses. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess

from bench.places import Place

_numbers = itertools.count(1)


class Network:
    """Use it in a `with`: at its end all namespaces are gone, and with them the links between them."""

    def __init__(self) -> None:
        self.name = f"mtt{os.getpid()}-{next(_numbers)}"
        self._namespaces: list[str] = []

    def __enter__(self) -> Network:
        try:
            self._add_namespace(self.name)
            _ip("-netns", self.name, "link", "add", "bridge", "type", "bridge")
            _ip("-netns", self.name, "link", "set", "bridge", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as deletions:  # each is tried, whatever becomes of the others
            while self._namespaces:
                deletions.callback(_ip, "netns", "delete", self._namespaces.pop(0))

    def add_host(self) -> Place:
        """One more host, reachable by all others: 10.77.0.1, 10.77.0.2, …"""
        number = len(self._namespaces)
        namespace, port = f"{self.name}-{number}", f"port{number}"
        address = f"10.77.0.{number}"
        self._add_namespace(namespace)
        _ip("-netns", self.name, "link", "add", port, "type", "veth", "peer", "eth0", "netns", namespace)
        _ip("-netns", self.name, "link", "set", port, "master", "bridge", "up")
        _ip("-netns", namespace, "address", "add", f"{address}/24", "dev", "eth0")
        _ip("-netns", namespace, "link", "set", "eth0", "up")
        # Transmission's local discovery leaves it to the routes where a group is.
        _ip("-netns", namespace, "route", "add", "224.0.0.0/4", "dev", "eth0")
        return Place(address, ("ip", "netns", "exec", namespace))

    def _add_namespace(self, namespace: str) -> None:
        _ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        _ip("-netns", namespace, "link", "set", "lo", "up")


def are_possible() -> bool:
    """Whether this user may make them here."""
    return (
        os.geteuid() == 0
        and subprocess.run(["ip", "netns", "list"], capture_output=True, check=False).returncode == 0
    )


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
