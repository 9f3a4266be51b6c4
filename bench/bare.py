"""What moving one GiB costs at the least: CPU seconds of each step alone, without a daemon around it, and of
other ways to do the same that were tried.

    python -m bench.bare [ROUNDS]

Reading and sending, receiving, hashing and writing are what a seeder and a leecher cannot do without; what a
pair needs beyond their sum (`python -m bench.pair`) is ours. A sender's figure has the kernel's work on the
receiving side in it, which loopback does at once.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import resource
import socket
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from bench.measure import GIB, MIB, make_content, warm_up, workplace
from microtorrd.disk import syscalls

#: Sent and received at once; so much piece memory is received into in turns, and written from.
STEP = MIB
TURNS = 40

_MADV_POPULATE_READ = 22

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def read_and_send(sock: socket.socket, file: int) -> None:
    """Into memory, and from there into the socket."""
    memory = memoryview(bytearray(STEP))
    for at in range(0, GIB, STEP):
        os.preadv(file, [memory], at)
        sock.sendall(memory)


def send_mapped(sock: socket.socket, file: int) -> None:
    """Straight out of a mapping of the file, 16 MiB at a time, whose pages are made present first."""
    window = 16 * MIB
    for at in range(0, GIB, window):
        address = _libc.mmap(None, window, mmap.PROT_READ, mmap.MAP_SHARED, file, at)
        if _libc.madvise(address, window, _MADV_POPULATE_READ) != 0:
            raise OSError(ctypes.get_errno(), "madvise")
        view = memoryview((ctypes.c_char * window).from_address(address)).cast("B")
        for begin in range(0, window, STEP):
            sock.sendall(view[begin : begin + STEP])
        view.release()
        _libc.munmap(address, window)


def send_file(sock: socket.socket, file: int) -> None:
    """With `sendfile`."""
    at = 0
    while at < GIB:
        at += os.sendfile(sock.fileno(), file, at, STEP)


def transfer(send: Callable[[socket.socket, int], None], source: Path) -> tuple[float, float]:
    """CPU seconds of who sends, and of who receives."""
    with socket.create_server(("127.0.0.1", 0)) as listener, source.open("rb") as file:
        child = os.fork()
        if not child:
            receive(listener.getsockname())
            os._exit(0)
        sock, _ = listener.accept()
        with sock:
            spent = cpu_s(lambda: send(sock, file.fileno()))
        usage = os.wait4(child, 0)[2]
    return spent, usage.ru_utime + usage.ru_stime


def receive(address: tuple[str, int]) -> None:
    """Into piece memory, in turns."""
    memory = [memoryview(mmap.mmap(-1, STEP)) for _ in range(TURNS)]
    with socket.create_connection(address) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, STEP)
        turn = 0
        while sock.recv_into(memory[turn % TURNS]):
            turn += 1


def hash_all(memory: list[memoryview]) -> None:
    """The SHA-1 of each piece."""
    for turn in range(GIB // STEP):
        hashlib.sha1(memory[turn % TURNS]).digest()


def write_all(memory: list[memoryview], target: Path, *, reserve: bool) -> None:
    """Every piece into a new file, whose size is made before, or its blocks, too."""
    with target.open("xb", buffering=0) as file:
        if reserve:
            syscalls.allocate(file.fileno(), GIB)
        else:
            file.truncate(GIB)
        for turn in range(GIB // STEP):
            os.pwritev(file.fileno(), [memory[turn % TURNS]], turn * STEP)


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of this process, user and system."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Measure all in turns, and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    figures: dict[str, list[float]] = {}
    with workplace() as home:
        source, target = home / "source", home / "target"
        make_content(source, GIB)
        memory = [memoryview(bytearray(os.urandom(STEP))) for _ in range(TURNS)]
        for _ in range(rounds):
            for name, send in (
                ("read and send", read_and_send),
                ("send mapped", send_mapped),
                ("sendfile", send_file),
            ):
                sent, received = transfer(send, source)
                figures.setdefault(name, []).append(sent)
                figures.setdefault(f"{name}: receive", []).append(received)
            for name, work in (
                ("hash", lambda: hash_all(memory)),
                ("write", lambda: write_all(memory, target, reserve=False)),
                ("reserve and write", lambda: write_all(memory, target, reserve=True)),
            ):
                warm_up()
                figures.setdefault(name, []).append(cpu_s(work))
                target.unlink(missing_ok=True)
    for name, seconds in figures.items():
        spread = f"{min(seconds):.2f}–{max(seconds):.2f}"
        print(f"{name:24} {statistics.median(seconds):.2f} ({spread}) s of CPU a GiB")


if __name__ == "__main__":
    main()
