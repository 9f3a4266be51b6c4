"""uTP (BEP 29), as far as one must know it to decline: peers that would rather come over UDP hear so at once.

Most clients try uTP first, and take up to four seconds of silence until they try TCP; Transmission, when it
hears nothing by UDP at all, never does. A reset in answer to their first packet sends them to TCP at once.
"""

from __future__ import annotations

import struct

#: Type and version, extension, connection id, two timestamps, window, sequence and acknowledged number.
_HEADER = struct.Struct(">BBHIIIHH")
HEADER_BYTES = _HEADER.size

_VERSION = 1
_RESET, _SYN = 3, 4


def decline(datagram: bytes) -> bytes | None:
    """The answer to a datagram that asks for a connection: no. None: it asks for none.

    It is never longer than what it answers.
    """
    if len(datagram) < HEADER_BYTES:
        return None
    kind, _, connection, sent_at, _, _, sequence, _ = _HEADER.unpack_from(datagram)
    if kind != _SYN << 4 | _VERSION:
        return None
    return _HEADER.pack(_RESET << 4 | _VERSION, 0, connection, sent_at, 0, 0, 0, sequence)
