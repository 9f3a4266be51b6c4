"""Connection ids of the UDP tracker: they show that who asks is where he seems to be (BEP 15).

Anybody can write any sender on a datagram. So a client gets a number at the address that it claims, and only
who brings that number back is believed. Nothing is kept of whom it was given to, as with SYN cookies: an
id is a keyed hash of the host, and a table that strangers could fill is not needed.

The key changes every `EPOCH_S`, and an old one is forgotten when its ids are: whoever learns or guesses
something has it for two minutes. The last bits of an id say which key it is of, the other 61 are the hash.
The port is no part of it: routers change it between two datagrams, and clients use a socket for each.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from hmac import compare_digest

#: How long one key is in use.
EPOCH_S = 20.0

#: So many keys before the present one are still good: an id is taken for at least two minutes after it was
#: sent, as BEP 15 asks, and for 140 s at most. (A client uses it for one minute.)
EPOCHS_BACK = 6

_EPOCH_BITS = 0b111  # enough to tell the present key and those before it from each other


class ConnectionIds:
    """Gives ids and knows them again. `draw` gives bytes that nobody can foresee, so many as it is asked for;
    times are seconds of one clock that never goes back."""

    def __init__(self, draw: Callable[[int], bytes]) -> None:
        self._draw = draw
        self._keys: dict[int, bytes] = {}  # by the number of their epoch; those that are good, no others

    def give(self, host: bytes, now: float) -> int:
        """Return the id of this host (4 or 16 bytes) at this time."""
        epoch = int(now // EPOCH_S)
        key = self._keys.get(epoch)
        if key is None:
            self._keys = {old: key for old, key in self._keys.items() if epoch - old <= EPOCHS_BACK}
            key = self._keys[epoch] = self._draw(blake2b.MAX_KEY_SIZE)
        return int.from_bytes(_hash(key, host, epoch), "big")

    def is_good(self, connection: int, host: bytes, now: float) -> bool:
        """Whether this id was given to this host not long ago. `connection` has 64 bits, and any value."""
        present = int(now // EPOCH_S)
        epoch = present - ((present - connection) & _EPOCH_BITS)
        key = self._keys.get(epoch) if present - epoch <= EPOCHS_BACK else None
        return key is not None and compare_digest(_hash(key, host, epoch), connection.to_bytes(8, "big"))


def _hash(key: bytes, host: bytes, epoch: int) -> bytes:
    raw = blake2b(host, digest_size=8, key=key).digest()
    return raw[:7] + bytes(((raw[7] & ~_EPOCH_BITS) | (epoch & _EPOCH_BITS),))
