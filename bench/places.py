"""Where a process of a test runs: an address, and what goes before its command line."""

from __future__ import annotations

import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """`prefix` moves a command there; a place without one is this machine itself."""

    address: str
    prefix: tuple[str, ...] = ()

    def free_port(self) -> int:
        """A port for those who cannot ask the kernel for one. In a namespace of its own any will do."""
        if self.prefix:
            return 6881
        with socket.socket() as sock:
            sock.bind((self.address, 0))
            port: int = sock.getsockname()[1]
            return port


LOOPBACK = Place("127.0.0.1")
