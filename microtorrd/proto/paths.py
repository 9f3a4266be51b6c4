"""Names of files out of metainfo: which are safe, and how the unsafe look after cleaning.

The rules, for every part of a path alike:
- refused: empty, `.`, `..`, anything with `/` or NUL, and what is longer than 255 bytes after cleaning;
- a byte that is not UTF-8, and every control character (C0, C1, line and paragraph separators, the
  invisible characters that reverse the reading direction), becomes `%` and two hexadecimal digits for each
  of its bytes: so a name is always printable, valid in JSON, and the same on every run;
- everything else stays as it is. A backslash is an ordinary character on Linux; upper and lower case
  differ; no Unicode normalisation is done, because the file systems do none.

And for all paths of a torrent together, after cleaning: no two are equal, and none is a directory on the
way to another (`check_distinct`). This room never touches a file system; that a path stays inside the save
directory although there are symbolic links is the disk's affair.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise

from microtorrd.proto.fields import invalid

#: NAME_MAX of every common Linux file system.
MAX_PART_BYTES = 255
#: Of PATH_MAX (4096) the rest is left for the save directory.
MAX_PATH_BYTES = 3072

_DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_CONTROL_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


def clean_part(raw: bytes, key: str) -> str:
    """One part of a path, clean. InvalidMetainfo naming `key` where it is unsafe."""
    if not raw:
        raise invalid(key, "an empty name")
    if raw in (b".", b".."):
        raise invalid(key, f"{raw.decode()!r} is no name")
    if b"/" in raw:
        raise invalid(key, f"{_shown(raw)} is absolute or has several parts, where one plain name belongs")
    if b"\0" in raw:
        raise invalid(key, f"{_shown(raw)} contains a NUL byte")
    # Not UTF-8 becomes lone surrogates here, which `_escape` then turns into hexadecimal.
    text = raw.decode("utf-8", "surrogateescape")
    if not text.isprintable():
        text = "".join(map(_escape, text))
    if len(text) * 4 > MAX_PART_BYTES and len(text.encode()) > MAX_PART_BYTES:
        raise invalid(
            key, f"a name of {len(text.encode())} bytes, where at most {MAX_PART_BYTES} are allowed"
        )
    return text


def clean_path(parts: Sequence[bytes], key: str) -> tuple[str, ...]:
    """A path below the torrent's name, clean. InvalidMetainfo naming `key` where it is unsafe."""
    if not parts:
        raise invalid(key, "an empty path")
    if sum(map(len, parts)) + len(parts) > MAX_PATH_BYTES:
        raise invalid(key, f"a path of more than {MAX_PATH_BYTES} bytes")
    return tuple([clean_part(part, key) for part in parts])


def last_part(raw: bytes, key: str) -> str:
    """The name in a path as typed: `./sub/name` gives `name`. Absolute ones and `..` are refused."""
    if raw.startswith(b"/"):
        raise invalid(key, f"{_shown(raw)} is absolute, where a plain name belongs")
    parts = raw.split(b"/")
    if b".." in parts:
        raise invalid(key, f"{_shown(raw)} leads out of its directory")
    return clean_part(parts[-1], key)


def check_distinct(paths: Sequence[tuple[str, ...]], key: Callable[[int], str]) -> None:
    """Refuse paths that cannot all exist at once; `key` names the one at an index.

    Sorted, a path stands right before whatever lies below it or equals it, so neighbours are all there is to
    compare: hostile input costs no memory here.
    """
    order = sorted(range(len(paths)), key=paths.__getitem__)
    for first, second in pairwise(order):
        above, below = paths[first], paths[second]
        if below[: len(above)] != above:
            continue
        shown = "/".join(above)[:200]
        if len(above) == len(below):
            raise invalid(key(max(first, second)), f"{shown!r} stands there twice")
        raise invalid(key(first), f"{shown!r} is both a file and a directory with files in it")


def is_clean(name: str) -> bool:
    """Would this name of a file on disk come back from metainfo as it is?"""
    return name.isprintable() or all(_escape(character) == character for character in name)


def _escape(character: str) -> str:
    if unicodedata.category(character) not in _CONTROL_CATEGORIES and character not in _DIRECTION_MARKS:
        return character
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))


def _shown(raw: bytes) -> str:
    """Attacker-controlled bytes in an error message: printable, and not a page of it."""
    return repr(raw[:80])[1:] + ("…" if len(raw) > 80 else "")
