"""Clients of all kinds in a network of namespaces, each with an address of its own, around a tracker of ours.

A kind shares only with its like: each has its own name for the same content, and so its own swarm. Whoever is
measured is measured by `bench.arrival`, from outside, the same way.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import arrival, namespaces
from bench.arrival import Arrival, Counters, NotArrived
from bench.daemons import Daemon
from bench.foreign import Foreign
from bench.measure import build_torrent, cpu_s, hash_pieces, make_content, warm_up
from bench.namespaces import Network
from bench.ours import Microtorrd
from bench.places import Place

#: For a client to start, check 1 GiB and tell the tracker so; Transmission's clock ticks slowly.
READY_S = 60.0
#: From joining until the first byte: Transmission takes a dozen seconds, aria2 waits for its choker's round.
BEGIN_S = 60.0
#: How long a process may take to get into its namespace.
MOVE_S = 10.0


def missing(kind: type[Foreign]) -> str:
    """What keeps this kind of client from being measured here; empty where nothing does."""
    if not namespaces.are_possible():
        return "network namespaces need root and iproute2"
    absent = [program for program in kind.programs if shutil.which(program) is None]
    return f"{absent[0]} is not installed" if absent else ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One transfer, from the first byte of payload until all files are whole."""

    took_s: float
    #: CPU seconds of the seeder and of all leechers together.
    cpu_s: float
    #: What left the seeder's network interface, in copies of the content.
    copies: float


@dataclass(frozen=True, slots=True)
class Swarm:
    """Of one kind of clients: how its seeder is limited, its name for the content, its metainfo."""

    kind: type[Foreign]
    upload_bytes_per_s: int
    torrent: Path

    @property
    def name(self) -> str:
        """What the file is called."""
        return self.torrent.stem


class Host:
    """A place in the network, and a process there that does nothing: through it the place's counters can be
    read before anybody else is there."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._anchor = subprocess.Popen([*place.prefix, "sleep", "infinity"], stdin=subprocess.DEVNULL)
        self.pid = self._anchor.pid
        end = time.monotonic() + MOVE_S
        while os.readlink(f"/proc/{self.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            if time.monotonic() > end:
                self.close()
                raise RuntimeError(f"{place.prefix} leads nowhere")
            time.sleep(arrival.LOOK_S)

    def counters(self) -> Counters:
        """What went in and out."""
        return arrival.counters(self.pid)

    def close(self) -> None:
        """End the process."""
        self._anchor.kill()
        self._anchor.wait()


class Arena:
    """Use it in a `with`. One content of `size` bytes, which every kind may seed and fetch."""

    def __init__(self, home: Path, *, size: int, piece_length: int) -> None:
        self._home = home
        self._size = size
        self._piece_length = piece_length
        self._stack = ExitStack()
        self._hosts: list[Host] = []
        self._numbers = itertools.count()
        self._seeders: dict[Swarm, tuple[Host, Foreign]] = {}

    def __enter__(self) -> Arena:
        with self._stack:
            self._home.mkdir(parents=True)
            self._network = self._stack.enter_context(Network())
            self._content = self._home / "content"
            make_content(self._content, self._size)
            self._pieces = hash_pieces(self._content, self._piece_length)
            place = self._network.add_host()
            self._tracker = self._stack.enter_context(
                Daemon(
                    self._home / "tracker",
                    prefix=place.prefix,
                    listen__addresses=place.address,
                    tracker__enabled="true",
                    tracker__bind=f"{place.address}:0",
                    # rTorrent keeps to it even when it has something to tell.
                    tracker__min_interval=1,
                    daemon__log_level="warning",
                )
            )
            port = self._tracker.call("session.stats")["tracker_port"]
            self._url = f"http://{place.address}:{port}/announce"
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        shutil.rmtree(self._home, ignore_errors=True)

    # ------------------------------------------------------------------------------------ who takes part

    def _swarm(self, kind: type[Foreign], upload_bytes_per_s: int) -> Swarm:
        path = self._home / f"payload-{kind.name}-{upload_bytes_per_s}.torrent"
        if not path.exists():
            path.write_bytes(
                build_torrent(path.stem, self._size, self._piece_length, self._pieces, [self._url])
            )
        return Swarm(kind, upload_bytes_per_s, path)

    def _seeder(self, swarm: Swarm) -> tuple[Host, Foreign]:
        """The one seeder of this swarm: started when it is first asked for, and again should it have died."""
        found = self._seeders.get(swarm)
        if found is None or not found[1].is_alive():
            host = self._add_host()
            self._seeders[swarm] = found = host, self._start_seeder(swarm, host)
        return found

    def _add_host(self) -> Host:
        host = Host(self._network.add_host())
        self._stack.callback(host.close)
        return host

    def _start_seeder(self, swarm: Swarm, host: Host) -> Foreign:
        seeder = self._client(swarm.kind, host, swarm.upload_bytes_per_s)
        shared = seeder.home / "shared"
        shared.mkdir()
        os.link(self._content, shared / swarm.name)
        with self._tracker.client() as notes:
            notes.subscribe(kinds=["tracker_request"])
            seeder.join(swarm.torrent, shared)
            end = time.monotonic() + READY_S
            while time.monotonic() < end:
                _check([seeder])
                note = notes.next_note(1.0) or {}
                if note.get("peer_id", "").startswith(swarm.kind.peer_id_start) and "left=0" in note["query"]:
                    return seeder
        raise NotArrived(f"{swarm.kind.name} did not begin to seed: {seeder.log()[-300:]}")

    def _client(self, kind: type[Foreign], host: Host, upload_bytes_per_s: int = 0) -> Foreign:
        home = self._home / f"{kind.name}-{next(self._numbers)}"
        client = kind(home, host.place, measured=True, upload_bytes_per_s=upload_bytes_per_s)
        self._stack.callback(client.kill)
        client.prepare()
        return client

    @contextmanager
    def _leechers(self, kind: type[Foreign], count: int) -> Iterator[list[Foreign]]:
        while len(self._hosts) < count:
            self._hosts.append(self._add_host())
        with ExitStack() as stack:
            clients = []
            for host in self._hosts[:count]:
                clients.append(self._client(kind, host))
                stack.callback(shutil.rmtree, clients[-1].home, ignore_errors=True)
                stack.callback(clients[-1].kill)
            yield clients

    # ---------------------------------------------------------------------------------- what is measured

    def transfer(
        self,
        kind: type[Foreign],
        *,
        leechers: int = 1,
        upload_bytes_per_s: int = 0,
        timeout_s: float = 120.0,
        stalls_s: list[float] | None = None,
    ) -> Outcome:
        """Fresh leechers of this kind fetch the content from its seeder. `stalls_s` gets how long each stall
        of a hub was, where the kind is ours. NotArrived, RuntimeError, OSError when it does not work."""
        swarm = self._swarm(kind, upload_bytes_per_s)
        source, seeder = self._seeder(swarm)
        with self._leechers(kind, leechers) as clients, ExitStack() as stack:
            warm_up()
            began_s = time.monotonic()
            sent_before = source.counters().sent
            received_before = {host.pid: host.counters().received for host in self._hosts[:leechers]}
            arrivals = []
            for client in clients:
                save_to = client.home / "saved"
                save_to.mkdir()
                client.join(swarm.torrent, save_to)
                arrivals.append(Arrival(self._content, save_to / swarm.name))
                stack.callback(arrivals[-1].close)
            processes = [seeder, *clients]
            check = partial(_check, processes)
            begun = arrival.wait_for_first_bytes(received_before, check, timeout_s=BEGIN_S)
            cpu_before = _cpu_s(processes)
            ended = arrival.wait_for_all(arrivals, check, timeout_s=timeout_s)
            used_s = _cpu_s(processes) - cpu_before
            sent = source.counters().sent - sent_before
            arrival.confirm(arrivals)
            if stalls_s is not None:
                for process in processes:
                    if isinstance(process, Microtorrd):
                        stalls_s += [stall.stood_s for stall in process.stalls(since_s=began_s)]
        return Outcome(ended - begun, used_s, sent / self._size)


def _check(clients: Sequence[Foreign]) -> None:
    for client in clients:
        if not client.is_alive():
            raise NotArrived(f"{client.name} has ended: {client.log()[-300:]}")


def _pid(client: Foreign) -> int:
    assert client.process is not None
    return client.process.pid


def _cpu_s(clients: Sequence[Foreign]) -> float:
    return sum(cpu_s(_pid(client)) for client in clients)
