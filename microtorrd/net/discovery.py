"""Finding the neighbours that share what we share (BEP 14), and being found by them.

One socket a family hears the group, and one a way (`neighbourhood.py`) speaks to it. Interfaces come and go,
so the ways are looked at again now and then.

Rules:
- at most a datagram a second and a way leaves; what to say is `core/beacon.py`'s affair;
- what is heard is bounded (`core/earshot.py`), and believed of neighbours only;
- nothing depends on it: a socket that cannot be opened is tried again, with one line in the log.
"""

from __future__ import annotations

import errno
import random
import struct
from collections.abc import Callable, Iterable, Sequence
from time import monotonic

import gevent
from gevent import socket

from microtorrd import logs
from microtorrd.core.beacon import Beacon
from microtorrd.core.earshot import Earshot
from microtorrd.core.events import Address
from microtorrd.errors import ProtocolError
from microtorrd.greenlets import Crew, breathe
from microtorrd.net.neighbourhood import Way, is_neighbour
from microtorrd.proto import lsd

#: Between two datagrams of ours, and between two looks at the interfaces.
PACE_S = 1.0
LOOK_AT_WAYS_S = 60.0

#: Datagrams read before others have their turn.
AT_A_TIME = 16

#: Troubles of which is known that they were told.
TROUBLES_MAX = 256

#: Neighbours are one hop away.
HOPS = 1

#: Linux: hear only what was joined by this very socket. Python has no names for these.
_IP_MULTICAST_ALL = 49
_IPV6_MULTICAST_ALL = 29

_log = logs.get(room="discovery")


class Discovery:
    """Speaks and hears while it is started. `present` says what is shared, `heard` gets who shares what."""

    def __init__(
        self,
        *,
        crew: Crew,
        port: int,
        ways: Callable[[], Sequence[Way]],
        present: Callable[[], Iterable[bytes]],
        heard: Callable[[bytes, Address], None],
        group_port: int = lsd.PORT,
    ) -> None:
        self._crew = crew
        self._port = port  # where we listen for peers
        self._find_ways = ways
        self._present = present
        self._heard = heard
        self._group_port = group_port
        self._cookie = lsd.cookie_of(random.SystemRandom().getrandbits(31))
        self._beacon = Beacon()
        self._ears: dict[bool, socket.socket] = {}  # by family: is it IPv6?
        self._joined: dict[bool, set[Way]] = {False: set(), True: set()}
        self._mouths: dict[Way, socket.socket] = {}
        self._ways: Sequence[Way] = ()
        self._troubles: set[str] = set()  # that were told of
        self._earshot = Earshot(monotonic())
        self._closed = False

    def start(self) -> None:
        """Begin."""
        self._look_at_ways()
        self._crew.spawn("speaker", self._speak)

    def close(self) -> None:
        """Fall silent, and deaf."""
        self._closed = True
        for sock in (*self._ears.values(), *self._mouths.values()):
            sock.close()
        self._ears.clear()
        self._mouths.clear()
        self._crew.stop(1.0)

    # ------------------------------------------------------------------------------------- speaking

    def _speak(self) -> None:
        look_at = monotonic() + LOOK_AT_WAYS_S
        while not self._closed:
            now = monotonic()
            if now >= look_at:
                look_at = now + LOOK_AT_WAYS_S
                self._look_at_ways()
            if self._mouths:
                if self._beacon.wants_look(now):
                    self._beacon.look(self._present(), now)
                swarm_ids = self._beacon.next(now)
                if swarm_ids:
                    self._tell(swarm_ids)
            gevent.sleep(PACE_S)

    def _tell(self, swarm_ids: tuple[bytes, ...]) -> None:
        presence = lsd.Presence(self._port, swarm_ids, self._cookie)
        for way, sock in list(self._mouths.items()):
            group = lsd.GROUP6 if way.ipv6 else lsd.GROUP4
            try:
                sock.sendto(lsd.encode(presence, ipv6=way.ipv6), (group, self._group_port))
            except OSError as error:
                self._trouble(f"cannot speak to the neighbours from {way.host}", error)

    # -------------------------------------------------------------------------------------- hearing

    def _hear(self, sock: socket.socket) -> None:
        count = 0
        while not self._closed:
            count += 1
            if count % AT_A_TIME == 0:  # while datagrams wait, `recvfrom` does not
                breathe()
            try:
                datagram, source = sock.recvfrom(lsd.READ_MAX_BYTES + 1)
            except OSError as error:
                if self._closed:
                    return
                _log.debug("not_heard", reason=str(error))
                gevent.sleep(PACE_S)
                continue
            self._take_in(datagram, str(source[0]))

    def _take_in(self, datagram: bytes, host: str) -> None:
        """attacker-controlled: by whoever can send a datagram into this network"""
        now = monotonic()
        if not self._earshot.may_speak(host, now):
            return
        try:
            presence = lsd.decode(datagram)
        except ProtocolError as error:
            _log.debug("neighbour_not_understood", host=host, reason=str(error))
            return
        if presence.cookie == self._cookie or not is_neighbour(host, self._ways):
            return
        if not self._earshot.is_believed(host, presence.port, now):
            return
        for swarm_id in presence.swarm_ids:
            self._heard(swarm_id, (host, presence.port))

    # ------------------------------------------------------------------------------------------ ways

    def _look_at_ways(self) -> None:
        """Join the group where we are now, and leave it where we are no more."""
        try:
            self._ways = ways = self._find_ways()
        except OSError as error:  # no descriptor is left to ask by, or that is forbidden
            self._trouble("cannot look at the interfaces", error)
            return
        for way in [way for way in self._mouths if way not in ways]:
            self._mouths.pop(way).close()
        for joined in self._joined.values():
            joined.intersection_update(ways)  # who went down has left the group by itself
        for way in ways:
            try:
                self._join(way)
                if way not in self._mouths:
                    self._mouths[way] = self._make_mouth(way)
            except OSError as error:
                self._trouble(f"cannot speak to the neighbours from {way.host}", error)

    def _join(self, way: Way) -> None:
        if way in self._joined[way.ipv6]:
            return
        ear = self._ears.get(way.ipv6)
        if ear is None:
            ear = self._ears[way.ipv6] = self._make_ear(way.ipv6)
            self._crew.spawn("hearer", self._hear, ear)
        group = socket.inet_pton(
            socket.AF_INET6 if way.ipv6 else socket.AF_INET, lsd.GROUP6 if way.ipv6 else lsd.GROUP4
        )
        try:
            if way.ipv6:
                ear.setsockopt(
                    socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("@I", way.interface)
                )
            else:
                ear.setsockopt(
                    socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + socket.inet_aton(way.host)
                )
        except OSError as error:
            if error.errno != errno.EADDRINUSE:  # a member already, by another address of that interface
                raise
        self._joined[way.ipv6].add(way)

    def _make_ear(self, ipv6: bool) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            # Other clients on this machine hear the same group at the same port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if ipv6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            # To the group and nothing else: what is sent to this host alone is not for us.
            sock.bind((lsd.GROUP6 if ipv6 else lsd.GROUP4, self._group_port))
        except OSError:
            sock.close()
            raise
        return sock

    def _make_mouth(self, way: Way) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if way.ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            if way.ipv6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, way.interface)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOPS)
            else:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(way.host))
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, HOPS)
            sock.bind((way.host, 0))
        except OSError:
            sock.close()
            raise
        return sock

    def _trouble(self, what: str, error: OSError) -> None:
        """Told once, until something else is the matter."""
        reason = f"{what}: {error.strerror or error}"
        if reason not in self._troubles:
            if len(self._troubles) >= TROUBLES_MAX:
                self._troubles.clear()
            self._troubles.add(reason)
            _log.info("local_discovery_hindered", reason=reason)
