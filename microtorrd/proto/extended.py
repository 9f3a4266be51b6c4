"""The handshake of the extension protocol (BEP 10): what a peer says of itself beyond 68 bytes.

Everything in it is attacker-controlled. A value of a wrong type or out of range counts as not said, as
deployed clients do; only what is no bencoded dictionary at all is a ProtocolError.

Two keys are our own. `mt_info_hash`: a swarm may be found by the id of its content, and two metainfos of the
same content (with other piece lengths) then meet in it; peers that name different info hashes part.
`mt_block`: the largest block that the sender serves at a time; who does not say it is asked for 16 KiB.

A later handshake tells what has changed and nothing else, so what it leaves out is None here, not a default.
Two small extensions are here as well, because a number is all that their messages say: `lt_donthave` (BEP 54)
takes a *have* back, and `upload_only` is how libtorrent tells that it has begun, or ceased, to want nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from microtorrd.errors import ProtocolError
from microtorrd.proto.bencode import BencodeError, Value, decode_document, encode
from microtorrd.proto.geometry import BLOCK_BYTES

#: Real ones have 100 to 500 bytes. The bounds keep a hostile one from costing more than any other message.
MAX_BYTES = 16384
MAX_ITEMS = 512
MAX_DEPTH = 8

#: Extensions and the length of their names that we remember of a peer.
MAX_EXTENSIONS = 64
MAX_NAME = 64

#: Names of clients are shown to people.
MAX_CLIENT = 64

#: Metadata beyond this is no info dictionary that anybody made in earnest.
MAX_METADATA_BYTES = 64 << 20

_MAX_REQQ = 1 << 20
_MAX_BLOCK = 1 << 24

#: What the small extensions are called, and the numbers we want their messages to have.
DONT_HAVE, DONT_HAVE_NUMBER = "lt_donthave", 3
UPLOAD_ONLY, UPLOAD_ONLY_NUMBER = "upload_only", 4


class ExtendedHandshake(Struct, frozen=True):
    """What one side says; None or empty for what it does not say."""

    m: Mapping[str, int] = field(default_factory=dict)  # extensions and the numbers of their messages; 0: off
    client: str = ""  # name and version, without control characters
    listen_port: int | None = None
    reqq: int | None = None  # how many requests it queues
    yourip: bytes | None = None  # how it sees the other's address: 4 or 16 bytes
    ipv4: bytes | None = None  # where else it can be reached, at the same port
    ipv6: bytes | None = None
    upload_only: bool | None = None  # it will not request anything (BEP 21)
    metadata_size: int | None = None  # bytes of the info dictionary (BEP 9)
    largest_block: int | None = None  # bytes that it serves with one request (`mt_block`)
    info_hash: bytes | None = None  # of the metainfo it works by (`mt_info_hash`)

    def encode(self) -> bytes:
        """The payload of extended message 0."""
        said: dict[bytes, object] = {
            b"m": {name.encode(): number for name, number in self.m.items()},
            b"v": self.client.encode(),
            b"p": self.listen_port,
            b"reqq": self.reqq,
            b"yourip": self.yourip,
            b"ipv4": self.ipv4,
            b"ipv6": self.ipv6,
            b"upload_only": None if self.upload_only is None else int(self.upload_only),
            b"metadata_size": self.metadata_size,
            b"mt_block": self.largest_block,
            b"mt_info_hash": self.info_hash,
        }
        unsaid = (None, b"")
        return encode({key: value for key, value in said.items() if value not in unsaid})

    @classmethod
    def decode(cls, raw: bytes) -> ExtendedHandshake:
        """Read the payload of extended message 0; ProtocolError where it is no bencoded dictionary.

        What follows the dictionary is not looked at: some clients pad.
        """
        try:
            document = decode_document(raw, max_depth=MAX_DEPTH, max_bytes=MAX_BYTES, max_items=MAX_ITEMS)
        except BencodeError as error:
            raise ProtocolError(f"its extended handshake: {error}") from error
        said = document.value
        if not isinstance(said, dict):
            raise ProtocolError("its extended handshake is no dictionary")
        return cls(
            m=_extensions(said.get(b"m")),
            client=_text(said.get(b"v")),
            listen_port=_number(said.get(b"p"), 1, 65535),
            reqq=_number(said.get(b"reqq"), 1, _MAX_REQQ),
            yourip=_bytes(said.get(b"yourip"), 4, 16),
            ipv4=_bytes(said.get(b"ipv4"), 4),
            ipv6=_bytes(said.get(b"ipv6"), 16),
            upload_only=_flag(said.get(b"upload_only")),
            metadata_size=_number(said.get(b"metadata_size"), 1, MAX_METADATA_BYTES),
            largest_block=_number(said.get(b"mt_block"), BLOCK_BYTES, _MAX_BLOCK),
            info_hash=_bytes(said.get(b"mt_info_hash"), 20),
        )


def decode_dont_have(raw: bytes) -> int:
    """The piece that a message of `lt_donthave` names; it is still to be admitted."""
    if len(raw) != 4:
        raise ProtocolError(f"a message of lt_donthave of {len(raw)} bytes")
    return int.from_bytes(raw, "big")


def decode_upload_only(raw: bytes) -> bool:
    """What a message of libtorrent's `upload_only` says."""
    if len(raw) != 1:
        raise ProtocolError(f"a message of upload_only of {len(raw)} bytes")
    return raw != b"\0"


def _extensions(value: Value | None) -> dict[str, int]:
    if not isinstance(value, dict):
        return {}
    extensions: dict[str, int] = {}
    for raw, said in value.items():
        number = _number(said, 0, 255)
        if number is None or not raw.isascii() or len(raw) > MAX_NAME:
            continue
        if len(extensions) == MAX_EXTENSIONS:
            break
        extensions[raw.decode("ascii")] = number
    return extensions


def _text(value: Value | None) -> str:
    if not isinstance(value, bytes):
        return ""
    # At most four bytes a character: the rest of a long one need not be decoded to be cut.
    text = value[: 4 * MAX_CLIENT].decode("utf-8", "replace")
    return "".join(char for char in text if char.isprintable())[:MAX_CLIENT]


def _number(value: Value | None, low: int, high: int) -> int | None:
    return value if isinstance(value, int) and low <= value <= high else None


def _flag(value: Value | None) -> bool | None:
    return bool(value) if isinstance(value, int) else None


def _bytes(value: Value | None, *sizes: int) -> bytes | None:
    return value if isinstance(value, bytes) and len(value) in sizes else None
