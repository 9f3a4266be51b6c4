"""How much is taken in of what neighbours say (BEP 14). Pure: who hears them asks here, with the time.

Rules:
- a datagram may come so often of one host, and so often in all; those beyond it are not looked at;
- one host may name so many ports at a time, because whoever is named gets dialed: a few clients may run on
  it, but who names one port after another wants something to be knocked at. A port that was not named for a
  while makes room;
- source addresses of datagrams can be anything, so there is a bound on new addresses in all, too.
"""

from __future__ import annotations

from microtorrd.rate import Allowance

#: Datagrams heard: at once, and a second; in all, and of one host. A host with many torrents sends many.
HEARD_BURST, HEARD_PER_S = 200, 50
OF_A_HOST_BURST, OF_A_HOST_PER_S = 40, 5

#: Hosts of which we know what they said; who was silent for longest is forgotten first.
HOSTS_MAX = 1024

#: Ports that are believed of one host at a time, and how long one counts that is not named again. Who shares
#: something says so every five minutes.
PORTS_OF_A_HOST = 8
PORT_KEPT_S = 1800.0

#: Addresses never heard before, or forgotten: at once, and a second. What is passed over is said again.
NEW_BURST, NEW_PER_S = 256, 4


class _Voice:
    """One host that was heard."""

    __slots__ = ("allowance", "ports")

    def __init__(self, now: float) -> None:
        self.allowance = Allowance(OF_A_HOST_BURST, OF_A_HOST_PER_S, now)
        self.ports: dict[int, float] = {}  # when each was last named, that of the longest silence first


class Earshot:
    """What one daemon takes in of its neighbours."""

    __slots__ = ("_all", "_new", "_voices")

    def __init__(self, now: float) -> None:
        self._all = Allowance(HEARD_BURST, HEARD_PER_S, now)
        self._new = Allowance(NEW_BURST, NEW_PER_S, now)
        self._voices: dict[str, _Voice] = {}

    def may_speak(self, host: str, now: float) -> bool:
        """A datagram of this host is here. False: it is passed over unread."""
        voice = self._voices.pop(host, None) or _Voice(now)
        if len(self._voices) >= HOSTS_MAX:
            del self._voices[next(iter(self._voices))]
        self._voices[host] = voice
        return voice.allowance.take(now) and self._all.take(now)

    def is_believed(self, host: str, port: int, now: float) -> bool:
        """That host, which spoke just now, says that it listens at this port. False: it names too many."""
        ports = self._voices[host].ports
        known = ports.pop(port, None) is not None
        if not known:
            if len(ports) >= PORTS_OF_A_HOST:
                oldest = next(iter(ports))
                if now - ports[oldest] < PORT_KEPT_S:
                    return False
                del ports[oldest]
            if not self._new.take(now):
                return False
        ports[port] = now
        return True
