"""One seeder and two thousand peers that are connected and ask for nothing: what each of them costs.

They are interested, and wait for a slot; they exchange addresses, and are told of each other.

    python -m bench.resting [PEERS]
"""

from __future__ import annotations

import sys
import time

from bench.connections import begin, crowd_at, longest_stall_ms, result, seeder, some_content
from bench.measure import Row, cpu_s, resident_mib, workplace

PEERS = 2000

#: How long they are watched: until everybody was told of others, which comes once a minute.
REST_S = 62.0

#: How long all may take to connect.
CONNECT_S = 30.0


def rows(peers: int = PEERS) -> list[Row]:
    """With the usual upload slots: nearly all are choked."""
    memory = Row(f"memory of a connection, {peers:,} at rest", "KiB", "≤ 42 KiB")
    cpu = Row("… CPU of all of them", "% of a core", "≤ 2 %")
    stalls = Row("… longest stall of the hub", "ms", "≤ 50 ms")
    with workplace() as home:
        content, metainfo = some_content(home)
        with (
            seeder(home / "seeder", content, metainfo, peers=peers, always_unchoke=False) as daemon,
            crowd_at(daemon, metainfo) as crowd,
        ):
            assert daemon.process is not None
            pid = daemon.process.pid
            before_mib, began_s = resident_mib(pid), time.monotonic()
            begin(crowd, peers, 0, REST_S)
            while daemon.call("session.stats")["connections"] < peers:
                if time.monotonic() > began_s + CONNECT_S:
                    raise RuntimeError(f"not all were let in\n{daemon.log()}")
                time.sleep(0.2)
            used_s, since_s = cpu_s(pid), time.monotonic()
            result(crowd)
            cpu.add(100 * (cpu_s(pid) - used_s) / (time.monotonic() - since_s))
            memory.add((resident_mib(pid) - before_mib) * 1024 / peers)
            stalls.add(longest_stall_ms(daemon, began_s))
    print(f"  {memory.ours[0]:.0f} KiB each, {cpu.ours[0]:.1f} %, stalls {stalls.ours[0]:.0f} ms", flush=True)
    return [memory, cpu, stalls]


if __name__ == "__main__":
    for row in rows(*(int(argument) for argument in sys.argv[1:2])):
        print(" | ".join(row.cells()))
