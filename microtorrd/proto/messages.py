"""The messages of the peer wire as values (BEP 3, 5, 6 and 10); `wire.py` knows how they look in bytes.

Numbers in a message that came from the network are attacker-controlled until `geometry` has admitted them.
"""

from __future__ import annotations

from typing import NamedTuple


class KeepAlive(NamedTuple):
    """Nothing but a sign of life (BEP 3)."""


class Choke(NamedTuple):
    """The sender will not answer requests (BEP 3)."""


class Unchoke(NamedTuple):
    """The sender will answer requests (BEP 3)."""


class Interested(NamedTuple):
    """The sender would request if it were unchoked (BEP 3)."""


class NotInterested(NamedTuple):
    """The receiver has nothing that the sender wants (BEP 3)."""


class Have(NamedTuple):
    """The sender has this piece now (BEP 3)."""

    piece: int


class BitfieldMessage(NamedTuple):
    """What the sender has: a bit a piece, the highest bit of the first byte first (BEP 3)."""

    raw: bytes


class Request(NamedTuple):
    """The sender wants this block; begin and length in bytes (BEP 3)."""

    piece: int
    begin: int
    length: int


class Cancel(NamedTuple):
    """The sender no longer wants this block (BEP 3)."""

    piece: int
    begin: int
    length: int


class Port(NamedTuple):
    """The sender's DHT port (BEP 5)."""

    port: int


class Suggest(NamedTuple):
    """The sender would find it cheap to send this piece (BEP 6)."""

    piece: int


class HaveAll(NamedTuple):
    """The sender has every piece (BEP 6)."""


class HaveNone(NamedTuple):
    """The sender has no piece (BEP 6)."""


class Reject(NamedTuple):
    """The sender will not answer this request (BEP 6)."""

    piece: int
    begin: int
    length: int


class AllowedFast(NamedTuple):
    """The receiver may request this piece even while it is choked (BEP 6)."""

    piece: int


class Extended(NamedTuple):
    """A message of the extension protocol (BEP 10): 0 is its handshake, which names the others."""

    number: int
    payload: bytes


class Unknown(NamedTuple):
    """A message of a number that means nothing to us; its body was skipped. Only ever received."""

    number: int


Message = (
    KeepAlive
    | Choke
    | Unchoke
    | Interested
    | NotInterested
    | Have
    | BitfieldMessage
    | Request
    | Cancel
    | Port
    | Suggest
    | HaveAll
    | HaveNone
    | Reject
    | AllowedFast
    | Extended
    | Unknown
)
