"""Moving the content of one torrent to another directory, and going on after a crash in the middle of it.

`disk/move.py` moves bytes; here is the order around it: nothing is being written, the wish is on record, one
whole copy is at the new place, that place is on record, and only then the old files go. Whatever goes wrong
before, the content is whole where it was. Everything here waits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from microtorrd.disk import jobs, move
from microtorrd.errors import MicrotorrError, NotAllowed
from microtorrd.proto.bitfield import Bitfield

if TYPE_CHECKING:
    from microtorrd.content import Content


class Move:
    """A move under way, for who looks on."""

    __slots__ = ("done_bytes", "save_to", "size_bytes")

    def __init__(self, save_to: str) -> None:
        self.save_to = save_to
        self.done_bytes = 0
        self.size_bytes = 0  # that have to be copied; 0: none so far

    def progressed(self, done_bytes: int, size_bytes: int) -> None:
        """So much is copied. Called in a disk thread."""
        self.done_bytes, self.size_bytes = done_bytes, size_bytes


def relocate(content: Content, save_to: str, have: Bitfield, on_progress: Callable[[int, int], None]) -> None:
    """Bring the files to another directory. `on_progress` gets the bytes done and to do, in a disk thread.

    Raises NotAllowed or StorageError; the content is whole at the old place then.
    """
    facilities, info_hash, old = content.facilities, content.record.info_hash, content.files
    content.wait_for_stores()
    work = content.begin()
    if old.root_device is None and not facilities.pool.call(
        partial(os.path.isdir, old.root), place=content.place
    ):
        content.arrive(old.at(save_to), [None] * len(old.lengths))  # nothing was made there yet
        return
    facilities.ledger.settle(info_hash)
    hashes = content.hashes()
    content.change(moving_to=save_to)
    try:
        moved = facilities.pool.call(
            partial(
                move.relocate,
                old,
                save_to,
                tag=info_hash.hex(),
                geometry=content.geometry,
                hashes=hashes,
                have=list(have.present()),
                on_progress=on_progress,
                cancelled=work.is_cancelled,
            ),
            lane="bulk",
            place=content.place,
        )
    except MicrotorrError:
        content.change(moving_to=None)
        raise
    if moved is None:
        content.change(moving_to=None)
        raise NotAllowed(f"the move to {save_to} was stopped", path=save_to)
    content.arrive(moved.files, moved.stats)
    if moved.way != "rename":
        facilities.pool.call(partial(jobs.delete, old), lane="bulk", place=old.root_device)


def recover(content: Content, save_to: str) -> None:
    """A crash ended a move: go on from where one whole copy is. Raises StorageError."""
    pool = content.facilities.pool
    tag = content.record.info_hash.hex()
    recovery = partial(move.recover, content.files, save_to, tag=tag)
    there = pool.call(recovery, lane="bulk", place=content.place)
    if there is None:
        content.change(moving_to=None)
    else:
        content.arrive(there, pool.call(there.stat, lane="bulk", place=there.root_device))
