"""Which files of a torrent are wanted, and which first: priorities, names of files, what follows for pieces.

A file is `off`, `low`, `normal` or `high`. On record each has a mark of one byte: its priority, or one of two
kinds of `off` more, which say what is to become of a file that is there (`disk/aside.py`). No marks at all
mean that everything is `normal`.

Files are named by their numbers (from 0, in the order of the content, also as ranges: `0,2,4-6`, as magnet
links do, BEP 53) or by patterns (`*`, `?`, `[abc]`), which are held against the path below the torrent's
name, against that path with the name before it, and, where there is no `/` in them, against the last part of
it. What names a directory means all that is below it. Upper and lower case differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate
from typing import Literal, NamedTuple

from microtorrd.errors import InvalidParams
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.metainfo_model import FileEntry

Priority = Literal["off", "low", "normal", "high"]

OFF, LOW, NORMAL, HIGH = 0, 1, 4, 7

#: Off, and its file stays in the tree.
KEPT = 16
#: Off, and its file is to be put aside.
LEAVING = 17

MARKS: dict[Priority, int] = {"off": OFF, "low": LOW, "normal": NORMAL, "high": HIGH}
_NAMES: dict[int, Priority] = {mark: name for name, mark in MARKS.items()}

#: First and last number, both included.
Range = tuple[int, int]

#: What may be on record of the choices for one magnet link, in characters.
MAX_CHOICE = 1 << 20

#: Beyond the number of files that any torrent has.
MAX_DIGITS = 9

_RANGES = re.compile(
    rf"\d{{1,{MAX_DIGITS}}}(-\d{{1,{MAX_DIGITS}}})?(,\d{{1,{MAX_DIGITS}}}(-\d{{1,{MAX_DIGITS}}})?)*",
    re.ASCII,
)


class Choice(NamedTuple):
    """Which files of a torrent are wanted as soon as they are known."""

    only: tuple[str, ...] = ()  # these and no others; empty: all
    priorities: tuple[tuple[Priority, tuple[str, ...]], ...] = ()  # after that, one after the other

    @classmethod
    def from_json(cls, text: str) -> Choice:
        """As it is on record."""
        if not text:
            return cls()
        only, priorities = json.loads(text)
        return cls(tuple(only), tuple((name, tuple(words)) for name, words in priorities))

    def to_json(self) -> str:
        """To be put on record; empty where nothing was chosen."""
        return json.dumps([self.only, self.priorities]) if self.only or self.priorities else ""

    def then(self, priority: Priority, words: Sequence[str]) -> Choice:
        """And after all that these. The word `*` makes what was chosen before void. InvalidParams for ranges
        that are none, and for more than can be kept."""
        for word in words:
            for first, last in parse_ranges(word) or ():
                if first > last:
                    raise _unmatched(word, f"{first}-{last} is no range")
        wish = (priority, tuple(words))
        if "*" in words:
            return Choice(("*",), () if priority == "normal" else ((priority, ("*",)),))
        said = Choice(self.only, (*(old for old in self.priorities if old[1] != wish[1]), wish))
        if len(said.to_json()) > MAX_CHOICE:
            raise _unmatched(words[0], "too much is chosen already; `*` makes all of it void")
        return said


def is_wanted(mark: int) -> bool:
    """Whether a file with this mark is to be fetched."""
    return 0 < mark < KEPT


def name_of(mark: int) -> Priority:
    """The priority as people know it."""
    return _NAMES.get(mark, "off")


def parse_ranges(text: str) -> tuple[Range, ...] | None:
    """The ranges of numbers that this is; None where it is something else."""
    if _RANGES.fullmatch(text) is None:
        return None
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.append((int(first), int(last or first)))
    return tuple(found)


def find_files(words: Iterable[str], entries: Sequence[FileEntry]) -> list[int]:
    """The numbers of the files that these words name, ascending. InvalidParams names what matches nothing."""
    found: set[int] = set()
    for word in words:
        ranges = parse_ranges(word)
        if ranges is None:
            named = _matching(word, entries)
        else:
            named = [number for first, last in ranges for number in range(first, min(last + 1, len(entries)))]
            beyond = next((last for _, last in ranges if last >= len(entries)), None)
            if beyond is not None:
                raise _unmatched(word, f"there is no file {beyond}; the last one is {len(entries) - 1}")
            backwards = next((f"{first}-{last}" for first, last in ranges if first > last), None)
            if backwards is not None:
                raise _unmatched(word, f"{backwards} is no range")
        if not named:
            raise _unmatched(word, f"no file matches {word[:100]!r}")
        found.update(named)
    return sorted(number for number in found if not entries[number].is_padding)


def choose(entries: Sequence[FileEntry], choice: Choice, ranges: Sequence[Range] = ()) -> bytes:
    """The marks of a torrent's files. Empty where everything is `normal`. InvalidParams. `ranges` are what a
    magnet link names, which counts as long as nobody says `only`."""
    if ranges and not choice.only:
        marks = bytearray(choose_ranges(entries, ranges) or [NORMAL] * len(entries))
    else:
        marks = bytearray([OFF if choice.only else NORMAL]) * len(entries)
    for number in find_files(choice.only, entries):
        marks[number] = NORMAL
    for priority, words in choice.priorities:
        for number in find_files(words, entries):
            marks[number] = MARKS[priority]
    return plain(marks, entries)


def choose_ranges(entries: Sequence[FileEntry], ranges: Iterable[Range]) -> bytes:
    """The marks where a magnet link names these files. Numbers beyond the last file are passed over, as
    deployed clients do; InvalidParams where no file is left."""
    marks = bytearray(len(entries))
    for first, last in ranges:
        for number in range(first, min(last + 1, len(entries))):
            marks[number] = NORMAL
    if not any(marks[number] for number, entry in enumerate(entries) if not entry.is_padding):
        raise _unmatched("so", "the link names none of the torrent's files")
    return plain(marks, entries)


def plain(marks: bytearray, entries: Sequence[FileEntry]) -> bytes:
    """The marks as they go on record: padding is nobody's choice, and none at all where all are alike."""
    for number, entry in enumerate(entries):
        if entry.is_padding:
            marks[number] = NORMAL
    return b"" if marks.count(NORMAL) == len(marks) else bytes(marks)


def piece_priorities(marks: bytes, entries: Sequence[FileEntry], geometry: Geometry) -> bytes | None:
    """The priority of each piece, a byte each: the highest of the files in it, 0 where none is wanted. None:
    all pieces alike. Padding wants nothing."""
    if not marks:
        return None
    pieces = bytearray(geometry.piece_count)
    offset = 0
    for mark, entry in zip(marks, entries, strict=True):
        within = geometry.pieces_within(offset, entry.length)
        offset += entry.length
        if entry.is_padding or not is_wanted(mark) or not within:
            continue
        for border in {within.start, within.stop - 1}:
            pieces[border] = max(pieces[border], mark)
        inside = len(within) - 2
        if inside > 0:  # no other file has a part of these
            pieces[within.start + 1 : within.stop - 1] = bytes([mark]) * inside
    return bytes(pieces)


def _matching(word: str, entries: Sequence[FileEntry]) -> list[int]:
    matches = _matcher(word)
    below = _matcher(f"{word.rstrip('/')}/*")
    by_name = "/" not in word
    found = []
    for number, entry in enumerate(entries):
        whole, inside = "/".join(entry.path), "/".join(entry.path[1:])
        if (
            matches(whole)
            or below(whole)
            or (inside and (matches(inside) or below(inside)))
            or (by_name and matches(entry.path[-1]))
        ):
            found.append(number)
    return found


def _matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(translate(pattern)).match


def _unmatched(word: str, why: str) -> InvalidParams:
    return InvalidParams(f"files: {why}", parameter="files", word=word[:1000])
