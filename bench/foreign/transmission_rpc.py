"""One call of Transmission's RPC on loopback, as a program: PORT METHOD NAME VALUE. Exits with 1 if refused.

A program, so that it can be run where the daemon's loopback is.
"""

from __future__ import annotations

import http.client
import json
import sys
import time

SESSION = "X-Transmission-Session-Id"
START_S = 20.0
LOOK_S = 0.1


def call(port: int, body: bytes) -> bytes:
    """The reply. The first answer names the session that a call must name."""
    headers: dict[str, str] = {}
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
        connection.request("POST", "/transmission/rpc", body, headers)
        response = connection.getresponse()
        if response.status != 409:
            return response.read()
        headers = {SESSION: response.headers[SESSION]}


def main(port: str, method: str, name: str, value: str) -> None:
    """Call as soon as somebody answers."""
    body = json.dumps({"method": method, "arguments": {name: value}}).encode()
    end = time.monotonic() + START_S
    while True:
        try:
            reply = call(int(port), body)
            break
        except ConnectionRefusedError:
            # It has only just been started; nobody tells when it listens.
            if time.monotonic() > end:
                raise
            time.sleep(LOOK_S)
    if json.loads(reply).get("result") != "success":
        sys.exit(reply.decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
