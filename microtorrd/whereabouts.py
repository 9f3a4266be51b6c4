"""Where the files of one torrent lie: its record as it stands, its file set, and the places of single files.

Rules:
- the record in memory is what is on the disk, or will be soon: `update` has it written down, `change` waits;
- files lie where the marks on record say (`proto/selection.py`): an order to arrange them comes first, and
  where they were found to be is put on record after that;
- a file that nobody wants and somebody else changed is not ours any more: it is let go, and never mended.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from microtorrd.disk.files import FileSet, FileStat
from microtorrd.disk.reach import Link
from microtorrd.disk.records import TorrentRecord
from microtorrd.facilities import Facilities
from microtorrd.gist import Words
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.links import text_of
from microtorrd.proto.metainfo import FileEntry
from microtorrd.proto.metainfo_model import padding
from microtorrd.proto.selection import KEPT, NORMAL, OFF, piece_priorities


class Whereabouts:
    """The record and the files of one torrent. `entries` are there once its metainfo is known."""

    def __init__(self, record: TorrentRecord, facilities: Facilities) -> None:
        self.record = record
        self.facilities = facilities
        self.words: Words | None = None  # of its metainfo, once that is known
        # Made when they are wanted: at rest nobody does.
        self._geometry: Geometry | None = None
        self._entries: tuple[FileEntry, ...] = ()
        self._files: FileSet | None = None
        self._committed: TorrentRecord | None = None  # the record, where all of it is on the disk for certain
        self._marks_found: tuple[bytes, bytearray] | None = None  # what was arranged, and what came of it
        self._reckoned: tuple[bytes, bytes | None] = (b"", None)  # marks, and what follows for the pieces
        self._is_deleted = False

    # ----------------------------------------------------------------------------------- the shape

    @property
    def geometry(self) -> Geometry:
        """Pieces and blocks; without padding while the metainfo is not known."""
        if self._geometry is None:
            words = self.words
            zeros = () if words is None else padding(words.files)
            geometry = Geometry(self.record.length, self.record.piece_length, zeros)
            if words is None:
                return geometry  # not to be kept: who asks so early must not decide for those who come later
            self._geometry = geometry
        return self._geometry

    @property
    def piece_count(self) -> int:
        """How many pieces there are."""
        return -(-self.record.length // self.record.piece_length)

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        """The files in words; none while the metainfo is not known."""
        if not self._entries and self.words is not None:
            record = self.record
            self._entries = self.words.files or (FileEntry((record.name,), record.length),)
        return self._entries

    # ----------------------------------------------------------------------------------- the files

    @property
    def files(self) -> FileSet:
        """The files; there once `open` has begun. Of a torrent at rest they are made again when wanted."""
        if self._files is None:
            assert self.entries, "the content is opened before its files are used"
            self._files = self._make_files()
        return self._files

    @property
    def disk_name(self) -> str:
        """What the single file, or the directory of several, is called where it lies."""
        return self.record.disk_name or self.record.name

    @property
    def path(self) -> str:
        """Where the content lies: the single file, or the directory of several."""
        return os.path.join(self.record.save_to, self.disk_name)

    @property
    def place(self) -> int | str:
        """What tells its disk from others, for the disk threads."""
        device = self.record.root_device
        return self.record.save_to if device is None else device

    def _make_files(self) -> FileSet:
        record = self.record
        return FileSet(
            record.save_to,
            [(entry.path, entry.length) for entry in self.entries],
            descriptors=self.facilities.descriptors,
            rename_first=record.disk_name,
            root_device=record.root_device,
            floor=self.facilities.floor,
            virtual={number for number, entry in enumerate(self.entries) if not entry.is_on_disk},
            links={
                number: Link(text_of(entry.path[1:], entry.link), entry.link)
                for number, entry in enumerate(self.entries)
                if entry.link
            },
            executable={number for number, entry in enumerate(self.entries) if "x" in entry.attributes},
            aside={
                number
                for number, mark in enumerate(record.selection)
                if mark == OFF and self.entries[number].is_on_disk
            },
            tag=record.info_hash.hex(),
        )

    def release_files(self) -> None:
        """Keep none of the files open, so that their filesystem can be unmounted."""
        if self._files is not None:
            self._files.close()

    def arrive(self, files: FileSet, stats: list[FileStat | None]) -> None:
        """From now on the content is here."""
        old, self._files = self.files, files
        old.close()
        self.change(
            save_to=files.root, root_device=files.root_device, file_stats=tuple(stats), moving_to=None
        )
        self.facilities.ledger.follow(self.record.info_hash, files)

    # -------------------------------------------------------------------------------- single files

    @property
    def marks(self) -> bytes:
        """What is wished of each file (`proto/selection.py`), also where nothing was ever chosen."""
        return self.record.selection or bytes([NORMAL]) * len(self.entries)

    def priorities(self) -> bytes | None:
        """The priority of each piece, as the core takes it."""
        if not self.entries:
            return None  # the files could not be looked at
        if self._reckoned[0] != self.record.selection:
            self._reckon(self.record.selection)
        return self._reckoned[1]

    def _reckon(self, marks: bytes) -> None:
        """See what the marks mean for pieces: of hundreds of thousands of files better in a thread."""
        self._reckoned = (marks, piece_priorities(marks, self.entries, self.geometry))

    def pieces_of(self, number: int) -> range:
        """The pieces with bytes of this file."""
        return self.geometry.pieces_within(self.files.starts[number], self.entries[number].length)

    def _arrange(self) -> list[int]:
        """In a disk thread: bring the files to where their marks say. Returns pieces that have to be read
        again, because something else has taken the place of their file."""
        files, marks = self.files, self.marks
        hidden = os.path.join(files.root, files.hidden)
        if not self.record.selection and not files.aside and not os.path.lexists(hidden):
            return []
        with files.placing:
            if self._is_deleted:
                return []
            arranged = files.arrange(marks)
        self._marks_found = (marks, bytearray(arranged.marks))
        self._reckon(arranged.marks)
        return [piece for number in arranged.replaced for piece in self.pieces_of(number)]

    def _disown(self, number: int) -> None:
        """In a disk thread: somebody changed this file. Where nobody wants it, it is not ours any more, and
        not to be mended."""
        if self._marks_found is not None and self._marks_found[1][number] == KEPT:
            self._marks_found[1][number] = OFF
            self.files.let_go(number)

    def _note_marks(self) -> None:
        """Put on record where the files were found to be, unless something newer was wished meanwhile."""
        found, self._marks_found = self._marks_found, None
        if found is not None and found[0] != found[1] and self.marks == found[0]:
            self.update(selection=bytes(found[1]))

    def give_up(self, bad: Sequence[int]) -> list[int]:
        """A file that nobody wants is never written to in the tree: where one of its pieces turned out bad,
        it is not ours any more, and none of its pieces is there."""
        given_up: list[int] = []
        found, marks = set(bad), bytearray(self.record.selection)
        for number, mark in enumerate(self.record.selection):
            if mark == KEPT and not found.isdisjoint(self.pieces_of(number)):
                marks[number] = OFF
                self.files.let_go(number)
                given_up += self.pieces_of(number)
        if given_up:
            self.update(selection=bytes(marks))
        return given_up

    # -------------------------------------------------------------------------------------- record

    def update(self, **fields: Any) -> None:
        """Change the record and have the change written down soon."""
        self.record = replace(self.record, **fields)
        self.facilities.ledger.update(self.record.info_hash, **fields)

    def change(self, **fields: Any) -> None:
        """Change the record by the operator's wish. Waits for the commit. Raises StorageError."""
        committed = self.record is self._committed
        if not committed or any(getattr(self.record, name) != value for name, value in fields.items()):
            self.facilities.ledger.change(self.record.info_hash, **fields)
            self.adopt_change(**fields)

    def adopt_change(self, **fields: Any) -> None:
        """This change is on record already: somebody had it committed together with others."""
        self.record = self._committed = replace(self.record, **fields)
