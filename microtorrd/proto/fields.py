"""Typed values out of decoded metainfo, each refusal naming the key at fault and what is wrong with it.

Everything here is attacker-controlled: a key may be missing, of another type, or out of all proportion.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from microtorrd.errors import InvalidMetainfo
from microtorrd.proto.bencode import Value

#: More than any tracker or web seed needs, and few enough that a listing stays readable.
MAX_URL_BYTES = 4096
MAX_TEXT = 65536  # characters of a comment

_KINDS = {int: "a number", bytes: "a string", list: "a list", dict: "a dictionary"}
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f-\x9f]")


def invalid(key: str, what: str) -> InvalidMetainfo:
    """The refusal of one key, to be raised."""
    return InvalidMetainfo(f"{key}: {what}", key=key)


class Fields:
    """One dictionary of the metainfo. `where` is what to put before a key when naming it, such as `info.`."""

    __slots__ = ("_values", "where")

    def __init__(self, values: Mapping[bytes, Value], where: str = "") -> None:
        self._values = values
        self.where = where

    def __contains__(self, key: str) -> bool:
        return key.encode() in self._values

    def get(self, key: str) -> Value | None:
        """The value as it is."""
        return self._values.get(key.encode())

    def integer(self, key: str, *, low: int, high: int) -> int:
        """A number that must be there, within bounds."""
        value = self._values.get(key.encode())
        if not isinstance(value, int):
            raise self._wrong(key, value, int)
        if not low <= value <= high:
            raise invalid(self.where + key, f"{value} is not between {low} and {high}")
        return value

    def raw(self, key: str) -> bytes:
        """A string that must be there."""
        value = self._values.get(key.encode())
        if not isinstance(value, bytes):
            raise self._wrong(key, value, bytes)
        return value

    def items(self, key: str) -> list[Value]:
        """A list that must be there."""
        value = self._values.get(key.encode())
        if not isinstance(value, list):
            raise self._wrong(key, value, list)
        return value

    def table(self, key: str) -> Fields:
        """A dictionary that must be there."""
        value = self._values.get(key.encode())
        if not isinstance(value, dict):
            raise self._wrong(key, value, dict)
        return Fields(value, f"{self.where}{key}.")

    def text(self, key: str) -> str:
        """An ornament for people (a comment): empty where it is missing or no text, safe on a terminal."""
        value = self._values.get(f"{key}.utf-8".encode(), self._values.get(key.encode()))
        if not isinstance(value, bytes):
            return ""
        return _UNPRINTABLE.sub("\ufffd", value[: 4 * MAX_TEXT].decode("utf-8", "replace"))[:MAX_TEXT]

    def _wrong(self, key: str, value: Value | None, wanted: type) -> InvalidMetainfo:
        if value is None:
            return invalid(self.where + key, "missing")
        return invalid(self.where + key, f"{kind(value)}, where {_KINDS[wanted]} belongs")


def kind(value: Value) -> str:
    """What a value is, for people."""
    return _KINDS[type(value)]


def url(value: Value, key: str) -> str | None:
    """A URL of a tracker or web seed; None where it is blank. Its scheme is the affair of who uses it."""
    if not isinstance(value, bytes):
        raise invalid(key, f"{kind(value)}, where a URL belongs")
    if len(value) > MAX_URL_BYTES:
        raise invalid(key, f"a URL of {len(value)} bytes, where at most {MAX_URL_BYTES} are allowed")
    try:
        text = value.strip().decode()
    except UnicodeDecodeError:
        raise invalid(key, "a URL that is not UTF-8") from None
    # It will stand in a request line and on terminals.
    if _NOT_IN_URLS.search(text):
        raise invalid(key, "a URL with blanks or control characters")
    return text or None
