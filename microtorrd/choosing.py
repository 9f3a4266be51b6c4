"""What operators say about files, and what it means for the files of one torrent.

A choice is said in words (numbers and patterns, `proto/selection.py`) and becomes marks as soon as the files
are known: at once of a torrent, later of a magnet link, for which the words are on record until then. The
files may be hundreds of thousands: they are looked through in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import gevent

from microtorrd.proto import selection
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.selection import KEPT, LEAVING, MARKS, OFF, Choice, Priority, Range, is_wanted

if TYPE_CHECKING:
    from microtorrd.content import Content
    from microtorrd.proto.metainfo import FileEntry

T = TypeVar("T")

#: Files times words that are looked through at once: a millisecond's worth. More is done in a thread.
LOOKS_INLINE = 1000


def marks_of(entries: Sequence[FileEntry], choice: Choice, ranges: Sequence[Range] = ()) -> bytes:
    """The marks of a new torrent's files. `ranges` are those of a magnet link, and count unless the operator
    chose others. Waits where there are many files or words. Raises InvalidParams."""
    if not choice.to_json() and not ranges:
        return b""
    words = len(choice.only) + len(ranges) + sum(len(named) for _, named in choice.priorities)
    return _apart(len(entries) * words, lambda: selection.choose(entries, choice, ranges))


def rechosen(content: Content, have: Bitfield, words: Sequence[str], priority: Priority) -> bytes:
    """The marks once these files have this priority. Waits where there are many. Raises InvalidParams."""
    entries = content.entries
    numbers = _apart(len(entries) * len(words), lambda: selection.find_files(words, entries))
    marks, wanted = bytearray(content.marks), MARKS[priority]
    for number in numbers:
        if wanted != OFF:
            marks[number] = wanted
        elif is_wanted(marks[number]):
            length = entries[number].length
            start = content.files.starts[number]
            whole = bool(length) and content.verified_bytes(have, start, length) == length
            marks[number] = KEPT if whole else LEAVING
    return selection.plain(marks, entries)


def _apart(looks: int, work: Callable[[], T]) -> T:
    if looks <= LOOKS_INLINE:
        return work()
    done: T = gevent.get_hub().threadpool.apply(work)
    return done
