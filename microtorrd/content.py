"""The bytes of one torrent: what of them is trusted, and how pieces get to the disk.

Where its files lie is in `whereabouts.py`, on which this builds. What reads or moves all of the content has
rooms of its own (`checks.py`, `relocation.py`), and so has the metainfo on record (`on_record.py`). The piece
hashes are kept while something needs them. Jobs run in the disk pool; their outcomes come back as facts
through `post`. Methods that say so wait, and are for greenlets that may; the others return at once.

A torrent whose data the operator brought along (`seed_only`) is never written to: what does not match is an
error that is shown, and not something to be fetched over the operator's own files.
"""

from __future__ import annotations

import os
from enum import Enum, auto
from functools import partial
from typing import Any, Final, NamedTuple

from gevent.event import Event
from msgspec.structs import replace

from microtorrd import gist, on_record, relocation
from microtorrd.checks import Post, Work, failure_of
from microtorrd.core.events import PieceCorrupt, PieceStored, StorageFailed
from microtorrd.core.slots import PieceBuffer
from microtorrd.disk import jobs, trust
from microtorrd.disk.glance import Glance
from microtorrd.disk.reach import hidden_name
from microtorrd.disk.records import Kept, TorrentRecord
from microtorrd.errors import ProtocolError, StorageError
from microtorrd.facilities import Facilities
from microtorrd.gist import Words
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.metainfo import Metainfo
from microtorrd.times import rfc3339
from microtorrd.whereabouts import Whereabouts

#: After a disk was full: go on when so much fits, or all that is missing.
ROOM_BYTES = 64 << 20


class Trusted(NamedTuple):
    """What is known of the pieces when a torrent is opened."""

    have: Bitfield
    recheck: tuple[int, ...] = ()  # to be read before they are offered to anybody
    recheck_all: bool = False
    sync_first: bool = False  # sync everything before `have` is recorded as durable


class AsLeft(Enum):
    """All is there, and looks as it did when it was last synced: most of thousands."""

    AS_LEFT = auto()


AS_LEFT: Final = AsLeft.AS_LEFT


class Content(Whereabouts):
    """The bytes of one torrent and its record. `open` before anything else of the disk."""

    def __init__(self, record: TorrentRecord, facilities: Facilities) -> None:
        super().__init__(record, facilities)
        self.failure: StorageError | None = None
        self.info_bytes = 0  # the size of the info dictionary; 0 while it is not known
        self.creation_date: int | None = None  # as the metainfo has it
        self.last_download: dict[str, Any] | None = None  # the figures of the download that completed it
        self.confirmed_share = 0.0
        self._hashes: bytes | None = None
        self._work: Work | None = None  # what is under way, if anything ever was
        self._ready_to_write = False
        self._doubtful: list[int] = []
        self._stores = 0  # under way
        self._quiet: Event | None = None  # for who waits for their end

    # --------------------------------------------------------------------------------- what it is

    @property
    def about(self) -> dict[str, Any]:
        """What else the metainfo says, for people."""
        words, date = self.words or Words(), self.creation_date
        return {
            "comment": words.comment,
            "created_by": words.created_by,
            "created_at": None if date is None else rfc3339(date),
            "dialect": words.dialect,
        }

    @property
    def private(self) -> bool:
        """Only trackers may lead peers to it (BEP 27)."""
        return self.words is not None and self.words.private

    @property
    def trackers(self) -> tuple[tuple[str, ...], ...]:
        """The tiers (BEP 12)."""
        return () if self.words is None else self.words.trackers

    @property
    def web_seeds(self) -> tuple[str, ...]:
        """Where its content can be had besides (BEP 19)."""
        return () if self.words is None else self.words.web_seeds

    @property
    def web_name(self) -> str:
        """The name of the content there: the torrent's own, whatever it is called here."""
        return self.entries[0].path[0] if self.entries else self.record.name

    @property
    def is_single_file(self) -> bool:
        """One file, and no directory of some."""
        return self.words is None or self.words.is_single_file

    @property
    def claimed(self) -> Bitfield:
        """The verified pieces as the record has them, before anybody looked at the files."""
        raw = self.record.written or self.record.durable
        count = self.geometry.piece_count
        try:
            return Bitfield(count) if raw is None else Bitfield.from_bytes(raw, count)
        except ProtocolError:  # a record that does not fit claims nothing
            return Bitfield(count)

    @property
    def done_on_record(self) -> int:
        """The verified bytes as the record has them."""
        return self.verified_bytes(self.claimed, 0, self.record.length)

    def verified_bytes(self, have: Bitfield, start: int, length: int) -> int:
        """How many bytes from `start` on lie in verified pieces."""
        if not length:
            return 0
        pieces = self.geometry.pieces_within(start, length)
        done = have.bits.count(1, pieces.start, pieces.stop) * self.geometry.piece_length
        first, last = pieces.start, pieces.stop - 1
        if have[first]:
            done -= start - self.geometry.piece_offset(first)
        if have[last]:
            spare = self.geometry.piece_offset(last) + self.geometry.piece_length - (start + length)
            done -= spare
        return done

    # ------------------------------------------------------------------------------------- opening

    def open(self, metainfo: Metainfo | None) -> Trusted:
        """Look at metainfo and files and decide what to trust. Waits. Raises StorageError; what does not need
        the files is known then all the same."""
        facilities = self.facilities
        self.adopt(metainfo or on_record.read(self.record, facilities))
        if self.record.moving_to is not None:
            relocation.recover(self, self.record.moving_to)
        return self.opened(facilities.pool.call(self.examine, lane="bulk", place=self.place))

    def recall(self, kept: Kept) -> bool:
        """Take from the gist what the metainfo says, but for the hashes; False where that has to be read."""
        # Where the database is damaged it may be anything.
        packed = kept.gist if isinstance(kept.gist, bytes) else b""
        known = gist.unpack(packed, kept.raw, self.record.name)
        if known is None:
            return False
        self.words, self.info_bytes, self.creation_date = known
        return True

    def learn(self, raw: bytes) -> bytes | None:
        """In a disk thread: take all from the metainfo file on record. Returns its gist. Raises
        StorageError."""
        meta = on_record.parse(raw, self.record, self.facilities.ledger.path)
        self.adopt(meta)
        return gist.pack(meta, raw, self.record.name)

    def adopt(self, metainfo: Metainfo) -> None:
        """Take from the metainfo what is needed as long as the torrent lives, and the hashes for now."""
        self.words = Words.of(metainfo, self.record.name)
        self.info_bytes = len(metainfo.raw_info)
        self.creation_date = metainfo.creation_date
        self._geometry, self._entries = metainfo.geometry, metainfo.files
        self._hashes = metainfo.pieces
        self._files = self._make_files()

    def is_as_left(self, glance: Glance) -> bool:
        """In a disk thread, with what `recall` knows: whether nothing is to be decided or done, because all
        is there and nobody touched it since. `trust.decide` would come to the same."""
        record = self.record
        if record.dirty or record.selection or record.then_verify or record.moving_to is not None:
            return False
        if record.root_device != glance.device or not _is_full(record.durable, self.piece_count):
            return False
        if not record.seed_only and glance.holds(hidden_name(record.info_hash.hex())):
            return False
        stats, name = record.file_stats, record.disk_name
        if self.words is not None and not self.words.files:  # most of thousands
            now = glance.stat((name or record.name,))
            return stats == (now,) and now is not None and now[0] == record.length
        if len(stats) != len(self.entries):
            return False
        for entry, before in zip(self.entries, stats, strict=True):
            path = entry.path if name is None else (name, *entry.path[1:])
            now = glance.stat(path) if entry.is_on_disk else (entry.length, 0)
            if now is None or now != before or now[0] != entry.length:
                return False
        return True

    def opened(self, trusted: Trusted) -> Trusted:
        """The files were looked at."""
        self._note_marks()
        if self.files.root_device != self.record.root_device:
            self.update(root_device=self.files.root_device)
        if trusted.have.complete and not trusted.recheck_all:
            self.forget_hashes()
        return trusted

    def examine(self) -> Trusted:
        """In a disk thread: look at the files and decide."""
        record, files, count = self.record, self.files, self.geometry.piece_count
        is_new = record.durable is None and record.written is None
        if record.seed_only and is_new:
            self._require_kind(self.is_single_file)
        elif record.root_device is None and not os.path.isdir(record.save_to):
            return Trusted(Bitfield(count))  # a new torrent in a directory that is yet to be made
        doubtful: set[int] = set()
        if not is_new and not record.seed_only:
            doubtful.update(self._arrange())
        stats = files.stat()
        if is_new:
            found = any(stat and stat[0] for number, stat in enumerate(stats) if number not in files.virtual)
            return Trusted(Bitfield(count), recheck_all=found or record.seed_only)
        decision = trust.decide(
            record,
            self.geometry,
            files.lengths,
            stats,
            boot_id=self.facilities.ledger.boot_id,
            remounted=files.remounted,
        )
        for number in decision.changed_files:
            self._disown(number)
        for piece in doubtful:
            decision.have.clear(piece)
        recheck = tuple(sorted(doubtful.union(decision.recheck)))
        return Trusted(decision.have, recheck, sync_first=decision.sync_first)

    def _require_kind(self, is_single_file: bool) -> None:
        """What the operator says is there already must be there, and be of the right kind."""
        path = self.path
        if not os.path.exists(path):
            raise StorageError(f"{path}: there is no such file or directory", path=path, cause="not_found")
        if is_single_file != os.path.isfile(path):
            wanted = "a file" if is_single_file else "a directory"
            raise StorageError(
                f"{path}: the torrent is of {wanted}, and this is none", path=path, cause="mismatch"
            )

    @property
    def is_ready_to_write(self) -> bool:
        """Files and directories were made."""
        return self._ready_to_write

    def doubt_files(self) -> None:
        """Something failed: whether files and directories are there is to be seen to again."""
        self._ready_to_write = False

    def prepare(self) -> None:
        """Make files and directories before the first write. Waits. Raises StorageError."""
        if self._ready_to_write or self.record.seed_only:
            return
        self._doubtful += self.facilities.pool.call(self._make, place=self.place)
        self._note_marks()
        self._ready_to_write = True
        if self.files.root_device != self.record.root_device:
            self.update(root_device=self.files.root_device)

    def _make(self) -> list[int]:
        """In a disk thread: what `prepare` does."""
        files, preallocate = self.files, self.facilities.config.storage.preallocate
        with files.placing:
            if self._is_deleted:
                return []
            fresh = files.root_device is None
            doubtful = [] if fresh else self._arrange()
            files.create(preallocate)
        return doubtful

    def rearrange(self) -> None:
        """Other files are wanted: see to their places, without making any. Waits. Raises StorageError."""
        if self.files.root_device is not None and not self.record.seed_only:
            self._doubtful += self.facilities.pool.call(self._arrange, place=self.place)
            self._note_marks()

    def take_doubtful(self) -> list[int]:
        """The pieces that have to be read again since the files were last arranged; asked once."""
        doubtful, self._doubtful = self._doubtful, []
        return doubtful

    def probe(self, missing_bytes: int) -> None:
        """See whether the cause of a failure is gone, for content of which so much is still to be written.
        Waits. Raises StorageError where it is not."""
        self._ready_to_write = False
        look = partial(self._look, self.failure, min(missing_bytes, ROOM_BYTES))
        self.facilities.pool.call(look, place=self.place)
        self.prepare()

    def _look(self, failure: StorageError | None, room_bytes: int) -> None:
        """In a disk thread: is what was missing there again?"""
        if failure is not None and failure.cause == "not_found" and not os.path.exists(failure.path):
            raise failure
        if self.files.root_device is None and not self.record.seed_only:
            return  # a directory that never was: whether it can be made, `prepare` finds out
        self.files.stat()
        if failure is not None and failure.cause == "no_space":
            self.files.require_room(room_bytes)

    @property
    def has_hashes(self) -> bool:
        """They are in memory."""
        return self._hashes is not None

    def hashes(self) -> bytes:
        """The SHA-1 of every piece, 20 bytes each. Waits where they are not in memory."""
        if self._hashes is None:
            self._hashes = on_record.read(self.record, self.facilities).pieces
        return self._hashes

    def raw_info(self) -> bytes:
        """The info dictionary, byte for byte. Waits. Raises StorageError, NotFound."""
        return on_record.raw_info(self.record, self.facilities)

    def forget_hashes(self) -> None:
        """The content is whole: its hashes are needed only for a check, and can be had again."""
        self._hashes = None

    # ---------------------------------------------------------------------------------------- jobs

    def store(self, buffer: PieceBuffer, *, want_digests: bool, post: Post) -> None:
        """Hash, compare and write one piece; answered by PieceStored, PieceCorrupt or StorageFailed."""
        piece, facilities = buffer.piece, self.facilities
        hashes = self._hashes
        assert hashes is not None, "hashes are in memory while pieces are fetched"
        expected = hashes[20 * piece : 20 * piece + 20]

        def done(outcome: jobs.Stored | jobs.Corrupt | BaseException) -> None:
            facilities.give_back(buffer.memory)
            facilities.ledger.wrote(self.record.info_hash)
            self._stores -= 1
            if not self._stores and self._quiet is not None:
                self._quiet.set()
            if isinstance(outcome, jobs.Stored):
                post((PieceStored(piece, outcome.digests),))
                facilities.ledger.progressed(self.record.info_hash, piece)
            elif isinstance(outcome, jobs.Corrupt):
                post((PieceCorrupt(piece, outcome.digests),))
            else:
                post((StorageFailed(failure_of(outcome, self.path), piece),))

        self._stores += 1
        facilities.ledger.will_write(self.record.info_hash)
        offset = self.geometry.piece_offset(piece)
        facilities.pool.submit(
            partial(jobs.store, self.files, offset, buffer.view, expected, want_digests),
            done,
            place=self.place,
        )

    def begin(self) -> Work:
        """Something long begins: whatever was under way ends, and this from now on is what `cease` ends."""
        self.cease()
        work = self._work = Work()
        return work

    def cease(self) -> None:
        """Stop checks and confirmations that are under way; no answer comes from them."""
        if self._work is not None:
            self._work.cancel()

    @property
    def is_busy(self) -> bool:
        """Pieces are on their way to the disk."""
        return self._stores > 0

    def require_entries(self) -> None:
        """Know the files. Waits where nobody looked at the metainfo yet. Raises StorageError."""
        if not self.entries:
            self.adopt(on_record.read(self.record, self.facilities))

    def rest(self) -> None:
        """All is whole and on record, and nobody wants it: keep no more than it takes to begin again."""
        self.release_files()
        self._files = self._hashes = self._work = self._quiet = self._geometry = None
        self._entries = ()
        # These are read at the start only.
        self.record = replace(self.record, durable=None, written=None, file_stats=(), dirty=False)

    def close(self) -> None:
        """Let go of descriptors and of what is under way."""
        self.cease()
        if self._files is not None:
            self._files.close()

    def delete(self) -> None:
        """Remove the files of this torrent, and of its directories those that are empty then. Waits."""
        self.wait_for_stores()
        self.require_entries()
        # Who makes files now, or brings them aside, is waited for; nobody does so after that.
        self._is_deleted = True
        self.facilities.pool.call(partial(jobs.delete, self.files), lane="bulk", place=self.place)

    def wait_for_stores(self) -> None:
        """Until no piece is on its way to the disk. Waits."""
        while self._stores:
            self._quiet = self._quiet or Event()
            self._quiet.clear()
            self._quiet.wait()


def _is_full(bitfield: bytes | None, piece_count: int) -> bool:
    """All pieces, and there are some."""
    if not bitfield or len(bitfield) != (piece_count + 7) // 8:
        return False
    spare = -piece_count % 8
    return bitfield[-1] == 0xFF << spare & 0xFF and not bitfield[:-1].strip(b"\xff")
