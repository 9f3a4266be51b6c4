"""A tracker that knows nobody and can die, as a program of its own beside the benchmark.

It prints its port, and then takes orders on its standard input, a word a line: `silent` (from now on it takes
requests and never answers), `answering`, `count` (prints how many swarms were announced so far), `alive` (how
many keep-alives of the MicroTorr dialect, which it takes one by one). It ends with its input.
"""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
from types import TracebackType

#: Everybody may come again in half an hour.
REPLY = b"d8:intervali1800e12:min intervali1800e5:peers0:e"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(REPLY), REPLY)

#: The same in the MicroTorr dialect, to `started` and to `alive`.
JSON = b'{"IdHash":"","Peers":{}}'
STARTED = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(JSON), JSON)
ALIVE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class SilentTracker:
    """The program, for who starts it. Use it in a `with`."""

    def __enter__(self) -> SilentTracker:
        command = [sys.executable, "-m", "bench.silent_tracker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{self._read()}/announce"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def fall_silent(self) -> None:
        """Answer nobody from now on."""
        self._say("silent")

    def answer_again(self) -> None:
        """Answer everybody from now on."""
        self._say("answering")

    def count(self) -> int:
        """How many swarms were announced and answered so far."""
        self._say("count")
        return self._read()

    def count_alive(self) -> int:
        """How many keep-alives came so far."""
        self._say("alive")
        return self._read()

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def _read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def main() -> None:
    """Serve until the input ends."""
    silent, swarms, alive = False, set(), 0
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1024) as server,
        selectors.DefaultSelector() as selector,
    ):
        print(server.getsockname()[1], flush=True)
        selector.register(server, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is server:
                    selector.register(server.accept()[0], selectors.EVENT_READ)
                elif not isinstance(key.fileobj, socket.socket):
                    word = sys.stdin.readline().strip()
                    if not word:
                        return
                    if word in ("count", "alive"):
                        print(len(swarms) if word == "count" else alive, flush=True)
                    else:
                        silent = word == "silent"
                elif (request := received(key.fileobj)) is None:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                elif silent:
                    continue
                elif b"&event=alive" in request:
                    alive += 1
                    key.fileobj.send(ALIVE)
                elif b"swarmId=" in request:
                    swarms.add(request.partition(b"swarmId=")[2].partition(b"&")[0])
                    key.fileobj.send(STARTED)
                else:
                    swarms.add(request.partition(b"info_hash=")[2].partition(b"&")[0])
                    key.fileobj.send(ANSWER)


def received(sock: socket.socket) -> bytes | None:
    """One announce in one read; None where the client has gone."""
    try:
        return sock.recv(1 << 16) or None
    except OSError:
        return None


if __name__ == "__main__":
    main()
