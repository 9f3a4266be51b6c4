"""How Go programs write text in JSON: what the original's tracker sends, byte for byte."""

from __future__ import annotations

import re

# What encoding/json of Go writes differently from the character itself. The lone surrogates stand for bytes
# that are not utf-8.
_ESCAPED = re.compile('["\\\\<>&\x00-\x1f\u2028\u2029\udc80-\udcff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def go_string(raw: bytes) -> str:
    """Return these bytes as a string of JSON, with quotes; what is not utf-8 becomes U+FFFD."""
    return f'"{_ESCAPED.sub(_escape, raw.decode("utf-8", "surrogateescape"))}"'


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if "\udc80" <= character <= "\udcff":
        return "\\ufffd"
    return _SHORT.get(character) or f"\\u{ord(character):04x}"
