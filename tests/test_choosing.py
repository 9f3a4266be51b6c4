"""How choices of files are followed up beside everything else that the hub does."""

from __future__ import annotations

import gevent

from microtorrd.choosing import marks_of
from microtorrd.proto.metainfo_model import FileEntry
from microtorrd.proto.selection import NORMAL, OFF, Choice


def test_many_words_hold_up_nobody() -> None:
    entries = [FileEntry(("t", f"file {number}"), 1) for number in range(500)]
    turns = 0

    def count() -> None:
        nonlocal turns
        while True:
            gevent.sleep(0.001)
            turns += 1

    counter = gevent.spawn(count)
    marks = marks_of(entries, Choice(only=tuple(f"*e {number}" for number in range(0, 500, 2))))
    counter.kill()
    assert marks == bytes([NORMAL, OFF]) * 250
    assert turns > 1
