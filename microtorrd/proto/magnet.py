"""Magnet links (BEP 9) as text: what one says, and how ours are written. Nothing here resolves one.

Understood are `xt=urn:btih:` (40 hexadecimal digits or 32 of base32), `xt=urn:mtid:` (40 hexadecimal digits:
the SHA-1 of the whole content, by which MicroTorr names its swarms; beside the other id it is written as
`x.mtid=`, because rTorrent refuses a link with two `xt`), `dn` (a name), `tr` (a tracker), `ws` (a web seed)
and `x.pe` (a peer). All but the ids may stand there several times, with a number behind a dot or without.
`so` chooses files by their numbers (BEP 53). Other parameters are passed over, as every client does. Whatever
the text, nothing but InvalidParams comes out, whose `data["key"]` is the one at fault.
"""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import quote, unquote_plus, unquote_to_bytes

from msgspec import Struct

from microtorrd.errors import InvalidMetainfo, InvalidParams
from microtorrd.proto.fields import url
from microtorrd.proto.selection import Range, parse_ranges

#: A link with fifty trackers has 4,000 characters.
MAX_CHARACTERS = 65536
MAX_PARAMETERS = 1000
MAX_NAME = 255

#: Of trackers, of web seeds and of peers, each.
MAX_OF_A_KIND = 200

_HEX = re.compile(r"[0-9a-fA-F]{40}")
_BASE32 = re.compile(r"[a-zA-Z2-7]{32}")
_PEER = re.compile(r"(?:\[([0-9a-fA-F:.]{2,45})\]|([0-9a-zA-Z_.-]{1,253})):([0-9]{1,5})")
_NUMBERED = re.compile(r"(.+)\.[0-9]+")


class Magnet(Struct, frozen=True):
    """What a magnet link says. One of the two ids is there at least."""

    info_hash: bytes | None
    id_hash: bytes | None = None
    name: str = ""  # safe on a terminal; not to be used as a path
    trackers: tuple[str, ...] = ()
    web_seeds: tuple[str, ...] = ()
    peers: tuple[tuple[str, int], ...] = ()  # a host's name or numeric address, and its port
    files: tuple[Range, ...] = ()  # first and last numbers of the files that are wanted; empty: all

    @property
    def swarm_id(self) -> bytes:
        """What a handshake names: the info_hash where it is known."""
        swarm_id = self.info_hash or self.id_hash
        assert swarm_id is not None, "a magnet link has an id"
        return swarm_id

    @property
    def shown_name(self) -> str:
        """What to call it as long as nothing better is known."""
        return self.name or self.swarm_id.hex()

    @property
    def tiers(self) -> tuple[tuple[str, ...], ...]:
        """The trackers, each a tier of its own: a link says nothing of tiers, and all may be asked."""
        return tuple((tracker,) for tracker in self.trackers)


def parse_magnet(link: str) -> Magnet:
    """Read a link. InvalidParams names the parameter at fault."""
    if len(link) > MAX_CHARACTERS:
        raise _invalid("magnet", f"{len(link)} characters, where at most {MAX_CHARACTERS} are allowed")
    try:
        link.encode()
    except UnicodeEncodeError:
        raise _invalid("magnet", "not UTF-8") from None
    scheme, mark, query = link.strip().partition("?")
    if scheme.lower() != "magnet:" or not mark:
        raise _invalid("magnet", "a magnet link begins with magnet:?")
    given = [part.partition("=") for part in query.split("&") if part]
    if len(given) > MAX_PARAMETERS:
        raise _invalid("magnet", f"{len(given)} parameters, where at most {MAX_PARAMETERS} are allowed")
    values: dict[str, list[str]] = {
        "xt": [],
        "x.mtid": [],
        "dn": [],
        "tr": [],
        "ws": [],
        "x.pe": [],
        "so": [],
    }
    for key, _, value in given:
        name = key.lower()
        numbered = _NUMBERED.fullmatch(name)
        found = values.get(numbered[1] if numbered else name)
        if found is not None and value:
            found.append(value)
    info_hash, id_hash = _topics(values["xt"])
    for text in values["x.mtid"]:
        raw = _id("x.mtid", _text("x.mtid", text), may_be_base32=False)
        if id_hash not in (None, raw):
            raise _invalid("x.mtid", "two different ids of the content")
        id_hash = raw
    return Magnet(
        info_hash=info_hash,
        id_hash=id_hash,
        name=_name(values["dn"]),
        trackers=_urls("tr", values["tr"]),
        web_seeds=_urls("ws", values["ws"]),
        peers=_peers(values["x.pe"]),
        files=_ranges(values["so"]),
    )


def format_magnet(magnet: Magnet) -> str:
    """The link that says this."""
    parts = []
    if magnet.info_hash is not None:
        parts.append(f"xt=urn:btih:{magnet.info_hash.hex()}")
        if magnet.id_hash is not None:
            parts.append(f"x.mtid={magnet.id_hash.hex()}")
    elif magnet.id_hash is not None:
        parts.append(f"xt=urn:mtid:{magnet.id_hash.hex()}")
    if magnet.name:
        parts.append(f"dn={_quoted(magnet.name)}")
    parts += [f"tr={_quoted(tracker)}" for tracker in magnet.trackers]
    parts += [f"ws={_quoted(seed)}" for seed in magnet.web_seeds]
    for host, port in magnet.peers:
        parts.append(f"x.pe=[{host}]:{port}" if ":" in host else f"x.pe={host}:{port}")
    if magnet.files:
        words = (f"{first}-{last}" if first != last else str(first) for first, last in magnet.files)
        parts.append(f"so={','.join(words)}")
    return "magnet:?" + "&".join(parts)


def _topics(values: list[str]) -> tuple[bytes | None, bytes | None]:
    """info_hash and id_hash. Topics of other networks may stand beside them."""
    ids: dict[str, bytes] = {}
    others: list[str] = []
    for value in values:
        urn, _, text = _text("xt", value).rpartition(":")
        kind = urn.lower()
        if kind not in ("urn:btih", "urn:mtid"):
            others.append(kind)
            continue
        raw = _id("xt", text, may_be_base32=kind == "urn:btih")
        if ids.setdefault(kind, raw) != raw:
            raise _invalid("xt", f"two different ids of the kind {kind}")
    if not ids:
        if "urn:btmh" in others:
            raise _invalid("xt", "a BitTorrent v2 link (urn:btmh) without a v1 id (urn:btih)")
        raise _invalid("xt", "no urn:btih: or urn:mtid: in it" if others else "missing")
    return ids.get("urn:btih"), ids.get("urn:mtid")


def _id(key: str, text: str, *, may_be_base32: bool) -> bytes:
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    if may_be_base32 and _BASE32.fullmatch(text):
        try:
            return base64.b32decode(text.upper())
        except binascii.Error:
            raise _invalid(key, "no base32") from None
    wanted = "40 hexadecimal digits, or 32 of base32" if may_be_base32 else "40 hexadecimal digits"
    raise _invalid(key, f"{len(text)} characters, where {wanted} belong")


def _name(values: list[str]) -> str:
    if not values:
        return ""
    text = unquote_plus(values[0][: 12 * MAX_NAME], errors="replace")
    return "".join(char if char.isprintable() else "\ufffd" for char in text)[:MAX_NAME].strip()


def _urls(key: str, values: list[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for value in values:
        try:
            text = url(unquote_to_bytes(value), key)
        except InvalidMetainfo as error:
            raise InvalidParams(f"magnet: {error}", parameter="magnet", key=key) from None
        if text is not None:
            found[text] = None
    _bound(key, len(found))
    return tuple(found)


def _peers(values: list[str]) -> tuple[tuple[str, int], ...]:
    found: dict[tuple[str, int], None] = {}
    for value in values:
        match = _PEER.fullmatch(_text("x.pe", value))
        if match is None or not 0 < int(match[3]) < 65536:
            raise _invalid("x.pe", "a peer is written as HOST:PORT or [IPv6 address]:PORT")
        found[match[1] or match[2], int(match[3])] = None
    _bound("x.pe", len(found))
    return tuple(found)


def _ranges(values: list[str]) -> tuple[Range, ...]:
    found: list[Range] = []
    for value in values:
        ranges = parse_ranges(_text("so", value))
        if ranges is None or any(first > last for first, last in ranges):
            raise _invalid("so", "files are written as numbers from 0 and ranges of them: 0,2,4-6")
        found += ranges
    _bound("so", len(found))
    return tuple(found)


def _bound(key: str, count: int) -> None:
    if count > MAX_OF_A_KIND:
        raise _invalid(key, f"{count} of them, where at most {MAX_OF_A_KIND} are allowed")


def _text(key: str, value: str) -> str:
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise _invalid(key, "not UTF-8") from None


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="replace")


def _invalid(key: str, what: str) -> InvalidParams:
    where = "magnet" if key == "magnet" else f"magnet: {key}"
    return InvalidParams(f"{where}: {what}", parameter="magnet", key=key)
