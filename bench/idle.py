"""Thousands of torrents in one daemon, beside libtorrent and Transmission with the same ones.

Memory, CPU while nothing happens, start, list, and the stop when the tracker of all of them has just died.

python -m bench.idle [TORRENTS [ROUNDS]]: with ROUNDS nothing but starts, so often and in turns
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import hubwatch
from bench.daemons import Daemon
from bench.foreign.many import ALL, LOOK_S, Many, Torrent
from bench.measure import Row, cpu_s, for_rpc, make_torrent, resident_mib, stall_row, workplace
from bench.silent_tracker import SilentTracker
from microtorrd.proto import metainfo

IDLE_S = 60.0
CONTENT_BYTES = 64 << 10

#: How long all may take to announce themselves, 50 a second to one host: then they are idle.
ANNOUNCE_S = 150.0

#: What others do in the first seconds with so many torrents is no rest.
SETTLE_S = 15.0

#: What a client without torrents does at first, before its memory is looked at: ours imports what it did not
#: wait for.
FIRST_S = 1.0

#: The middle of this many lists.
LISTS = 10


def rows(count: int) -> list[Row]:
    """Everything, over `count` small torrents that seed."""
    with workplace() as home, ExitStack() as stack:
        tracker = stack.enter_context(SilentTracker())
        tracker.fall_silent()  # until those that it answers are to be counted
        torrents = make_many(home / "content", count, tracker.url)
        daemon = Daemon(home / "daemon", probed=True, daemon__log_level="warning").start()
        stack.callback(daemon.kill)
        empty_mib = fill(daemon, torrents, home / "content")
        said(f"{count:,} torrents were added")
        watched = with_a_watch(daemon, count)
        tracker.answer_again()
        daemon = Daemon(home / "daemon", daemon__log_level="warning")
        stack.callback(daemon.kill)
        start = start_ours(daemon, count)
        said(f"started: all seed after {start[-1]:.2f} s")
        announced = wait_for_announces(daemon, tracker, count)
        said(f"{announced:,} announced themselves")
        others = [Beside.start(kind, home, torrents, stack) for kind in ALL if kind.is_here()]
        said(f"beside {', '.join(other.client.name for other in others) or 'nobody'}, while nothing happens")
        beside = beside_others(daemon, start[-1], empty_mib, others, count)
        listing = lists(daemon, count)
        tracker.fall_silent()
        stop = Row(f"stop with a tracker that died, {announced:,} farewells due", "s", "≤ 10 s")
        stop.add(stop_s(daemon))
        return [start[0], *beside, *listing, stop, *watched]


def said(what: str) -> None:
    """A line for who watches."""
    print(f"  {what}", flush=True)


def starts(count: int, rounds: int) -> list[Row]:
    """Starts alone, ours and the others' in turns."""
    with workplace() as home, ExitStack() as stack:
        tracker = stack.enter_context(SilentTracker())
        torrents = make_many(home / "content", count, tracker.url)
        daemon = Daemon(home / "daemon", daemon__log_level="warning").start()
        stack.callback(daemon.kill)
        fill(daemon, torrents, home / "content")
        others = [kind(home / kind.name, torrents, home / "content") for kind in ALL if kind.is_here()]
        for other in others:
            stack.callback(other.stop)
        answers = Row("the socket answers after a start", "s", "< 1 s")
        stands = [Row("… until all seed", "s", "≤ 1.0, at most 20 s", other=other.name) for other in others]
        for _ in range(rounds):
            answered, stood_s = start_ours(daemon, count)
            daemon.stop()
            answers.add(answered.ours[0])
            for other, row in zip(others, stands, strict=True):
                other.prepare()
                row.add(stood_s, other.start_s())
                other.kill()
            said(
                ", ".join(f"{row.other}: {row.theirs[-1]:.2f} s" for row in stands)
                + f", ours: {stood_s:.2f} s"
            )
        return [answers, *stands]


def make_many(content: Path, count: int, tracker: str) -> list[Torrent]:
    """The files, and a torrent of each."""
    content.mkdir()
    torrents = []
    for number in range(count):
        path = content / f"file-{number:05}"
        path.write_bytes(os.urandom(16) * (CONTENT_BYTES // 16))
        raw = make_torrent(path, 16 << 10, [tracker])
        torrents.append(Torrent(path.name, metainfo.parse(raw).info_hash.hex(), raw))
    return torrents


def fill(daemon: Daemon, torrents: Sequence[Torrent], content: Path) -> float:
    """Add all of them and stop when they seed. The memory of the daemon before, in MiB."""
    assert daemon.process is not None
    time.sleep(FIRST_S)
    empty_mib = resident_mib(daemon.process.pid)
    with daemon.client() as client:
        for torrent in torrents:
            path = str(content / torrent.name)
            client.call("torrent.add", metainfo=for_rpc(torrent.metainfo), seed_path=path)
    wait_for_all(daemon, len(torrents))
    daemon.stop()
    return empty_mib


def with_a_watch(daemon: Daemon, count: int) -> list[Row]:
    """A life in which the hub is watched: a start, lists, and a stop with a tracker that never answered."""
    daemon.start()
    since_s = time.monotonic()  # nobody can be held up before its socket answers
    wait_for_all(daemon, count)
    with daemon.client() as client:
        for _ in range(LISTS):
            client.call("torrent.list")
            client.call("torrent.list", since="")
        client.next_note(10.0)  # of announces to a host that does not answer
    stop = Row("stop with a tracker that never answered", "s", "≤ 10 s")
    stop.add(stop_s(daemon))
    stalls = hubwatch.read(daemon.probe_path, since_s=since_s)
    name = "longest stall of its hub: start, lists, announces, stop"
    return [stop, stall_row(name, [stall.stood_s for stall in stalls])]


def stop_s(daemon: Daemon) -> float:
    """How long it takes to stop, well."""
    began = time.perf_counter()
    code = daemon.stop()
    if code != 0:
        raise RuntimeError(f"it stopped with exit code {code}:\n{daemon.log()[-2000:]}")
    return time.perf_counter() - began


def start_ours(daemon: Daemon, count: int) -> tuple[Row, float]:
    """Start it with all torrents on record: how soon the socket answers, and in how many s all seed."""
    answers = Row("the socket answers after a start", "s", "< 1 s")
    began = time.perf_counter()
    daemon.start()
    answers.add(time.perf_counter() - began)
    wait_for_all(daemon, count)
    return answers, time.perf_counter() - began


def wait_for_announces(daemon: Daemon, tracker: SilentTracker, count: int) -> int:
    """Until all have announced themselves, or their time is over. How many did."""
    end = time.monotonic() + ANNOUNCE_S
    with daemon.client() as client:
        while tracker.count() < count and time.monotonic() < end:
            client.next_note(0.5)  # nothing comes: it is a pause
    return tracker.count()


@dataclass(frozen=True, slots=True)
class Beside:
    """Another client with the same torrents, how long it took until all seeded, its memory without any."""

    client: Many
    start_s: float
    empty_mib: float

    @classmethod
    def start(cls, kind: type[Many], home: Path, torrents: Sequence[Torrent], stack: ExitStack) -> Beside:
        """Start it, twice: without torrents, and with."""
        empty = kind(home / f"{kind.name} without torrents", (), home / "content")
        stack.callback(empty.stop)
        empty.prepare()
        empty.start()
        time.sleep(FIRST_S)
        empty_mib = resident_mib(empty.pid)
        empty.stop()
        client = kind(home / kind.name, torrents, home / "content")
        stack.callback(client.stop)
        client.prepare()
        return cls(client, client.start_s(), empty_mib)


def beside_others(
    daemon: Daemon, start_s: float, empty_mib: float, others: Sequence[Beside], count: int
) -> list[Row]:
    """The same minute for all, in which nothing happens."""
    assert daemon.process is not None
    pid = daemon.process.pid
    time.sleep(SETTLE_S)
    pids = [pid, *(other.client.pid for other in others)]
    before = [cpu_s(one) for one in pids]
    time.sleep(IDLE_S)
    percent = [(cpu_s(one) - used) / IDLE_S * 100 for one, used in zip(pids, before, strict=True)]
    our_kib = (resident_mib(pid) - empty_mib) * 1024 / count
    rows = []
    for number, other in enumerate(others, 1):
        its_kib = (resident_mib(other.client.pid) - other.empty_mib) * 1024 / count
        name = other.client.name
        memory = Row(f"memory a torrent, {count:,} seeding", "KiB", "≤ 1.0, at most 20 KiB", other=name)
        memory.add(our_kib, its_kib)
        idle = Row("… CPU in a minute in which nothing happens", "% of a core", "< 1 %", other=name)
        idle.add(percent[0])
        idle.note = f"{name}: {percent[number]:.2f} %"
        start = Row("… until all seed after a start", "s", "≤ 1.0, at most 20 s", other=name)
        start.add(start_s, other.start_s)
        rows += [memory, idle, start]
        other.client.stop()
    for kind in ALL:
        if not kind.is_here():
            rows.append(Row(f"the same beside {kind.name}", "KiB", "", other="it is not installed"))
    return rows


def lists(daemon: Daemon, count: int) -> list[Row]:
    """How long lists take, and how long they are."""
    assert daemon.process is not None
    pid = daemon.process.pid
    listing = Row("list of all, CPU in the daemon", "ms", "≤ 50 ms")
    waiting = Row("… until it is read", "ms", "")
    size = Row("… bytes a torrent", "bytes", "≤ 1024 bytes")
    changes = Row("… with `since`, when nothing has changed", "ms", "")
    with daemon.client() as client:
        token = client.call("torrent.list", since="")["token"]
        used = cpu_s(pid)
        for _ in range(LISTS):
            began = time.perf_counter()
            client.call("torrent.list")
            waiting.add((time.perf_counter() - began) * 1000)
        listing.add((cpu_s(pid) - used) / LISTS * 1000)
        for _ in range(LISTS):
            began = time.perf_counter()
            client.call("torrent.list", since=token)
            changes.add((time.perf_counter() - began) * 1000)
    size.add(answer_bytes(daemon) / count)
    return [listing, waiting, size, changes]


def answer_bytes(daemon: Daemon) -> int:
    """The length of the answer on the wire."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.socket))
        sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"torrent.list"}\n')
        size = 0
        while chunk := sock.recv(1 << 20):
            size += len(chunk)
            if chunk.endswith(b"\n"):
                break
        return size


def wait_for_all(daemon: Daemon, count: int) -> None:
    """Until every torrent seeds."""
    with daemon.client() as client:
        client.subscribe(kinds=["moved"])
        for _ in range(4000):
            states = client.call("session.stats")["states"]
            if states.get("seeding") == count:
                return
            client.next_note(LOOK_S)  # nothing comes: asking itself costs the daemon time
    raise RuntimeError(f"not all seed: {states}\n{daemon.log()[-2000:]}")


if __name__ == "__main__":
    count, *rounds = [int(word) for word in sys.argv[1:]] or [5000]
    for row in starts(count, rounds[0]) if rounds else rows(count):
        print(" | ".join(row.cells()), row.note)
