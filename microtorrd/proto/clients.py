"""Which client a peer id is of (BEP 20), in words: for people, and for nothing else.

The styles are Azureus' (`-TR3000-` and chance), Shadow's (`S587---`), Mainline's (`M7-2-0--`) and aria2's
(`A2-1-36-0-`). Ids are attacker-controlled: whatever they hold, what comes out is short, printable ASCII.
"""

from __future__ import annotations

import re

_AZUREUS = re.compile(rb"-([A-Za-z0-9~]{2})([0-9A-Za-z.]{4})-")
_SHADOW = re.compile(rb"([A-Z])([0-9A-Za-z.]{3,5})-{2}")
_MAINLINE = re.compile(rb"([MQ])(\d{1,2})-(\d{1,2})-(\d{1,2})-")
_ARIA2 = re.compile(rb"A2-(\d{1,3})-(\d{1,3})-(\d{1,3})-")

#: By the two letters of Azureus' style: those that one meets, and the best known of those that are gone.
_NAMES = {
    "7T": "aTorrent",
    "AG": "Ares",
    "AZ": "Vuze",
    "BC": "BitComet",
    "BI": "BiglyBT",
    "BT": "BitTorrent",
    "BW": "BitTorrent Web",
    "DE": "Deluge",
    "FD": "Free Download Manager",
    "FL": "Flud",
    "FW": "FrostWire",
    "GT": "anacrolix/torrent",
    "HL": "Halite",
    "KG": "KGet",
    "KT": "KTorrent",
    "LP": "Lphant",
    "LT": "libtorrent",
    "MD": "microtorrd",
    "PI": "PicoTorrent",
    "SD": "Xunlei",
    "SZ": "Shareaza",
    "TL": "Tribler",
    "TR": "Transmission",
    "TX": "Tixati",
    "UM": "uTorrent Mac",
    "UT": "uTorrent",
    "UW": "uTorrent Web",
    "WD": "WebTorrent Desktop",
    "WW": "WebTorrent",
    "XL": "Xunlei",
    "lt": "rTorrent",
    "qB": "qBittorrent",
    "rN": "rain",
    "rQ": "rqbit",
}

#: By the letter of Shadow's style.
_SHADOWS = {
    "A": "ABC",
    "O": "Osprey Permaseed",
    "Q": "BTQueue",
    "R": "Tribler",
    "S": "Shadow's client",
    "T": "BitTornado",
    "U": "UPnP NAT Bit Torrent",
}

#: Characters of an id that nobody understands.
_SHOWN = 8


def client_name(peer_id: bytes) -> str:
    """Name and version of the client, or the printable start of the id where it says neither."""
    if match := _AZUREUS.match(peer_id):
        code, version = match[1].decode(), match[2].decode()
        return f"{_NAMES.get(code, code)} {_azureus_version(code, version)}".rstrip()
    if match := _ARIA2.match(peer_id):
        return "aria2 " + b".".join(match.groups()).decode()
    if match := _MAINLINE.match(peer_id):
        name = "Mainline" if match[1] == b"M" else "Queen Bee"
        return f"{name} {b'.'.join(match.groups()[1:]).decode()}"
    if (match := _SHADOW.match(peer_id)) and (name := _SHADOWS.get(match[1].decode(), "")):
        return f"{name} {'.'.join(str(_digit(char)) for char in match[2].decode() if char.isalnum())}"
    return "".join(chr(byte) if 0x20 < byte < 0x7F else "." for byte in peer_id[:_SHOWN])


def _azureus_version(code: str, version: str) -> str:
    """Four digits, as that client means them."""
    if code == "BC":
        return f"{int(version[:2])}.{version[2:]}" if version.isdigit() else version
    if code == "TR" and version.isdigit() and version[0] < "4":
        return f"{version[0]}.{version[1:3]}"  # 3000 is 3.00, and 2940 is 2.94
    # A lower-case letter at the end is no digit: it says that this is a beta, or stable.
    parts = [str(_digit(char)) for char in version if char.isdigit() or char.isupper()]
    if len(parts) == 4 and parts[3] == "0":
        parts.pop()
    return ".".join(parts)


def _digit(char: str) -> int:
    """0 to 9, then A is 10 and a is 36."""
    if char.isdigit():
        return int(char)
    return ord(char) - ord("A") + 10 if char.isupper() else ord(char) - ord("a") + 36
