"""The metainfo of a torrent as the database has it, whole. What is kept of it in memory is in `gist.py`.

What the database hands back was ours when it was written, and may be damaged since: that is an error of our
disk's, with the database as its path. The functions that wait say so.
"""

from __future__ import annotations

from functools import partial

from gevent import get_hub

from microtorrd.disk.records import TorrentRecord
from microtorrd.errors import CallerError, InvalidMetainfo, NotFound, StorageError
from microtorrd.facilities import Facilities
from microtorrd.proto import metainfo as metainfo_room
from microtorrd.proto.metainfo import Metainfo


def read(record: TorrentRecord, facilities: Facilities) -> Metainfo:
    """The metainfo of this torrent. Waits. Raises StorageError, also where it makes no sense."""
    database = facilities.ledger.path
    try:
        raw = facilities.ledger.metainfo(record.info_hash)
    except NotFound as error:
        raise _damaged(error, database) from None
    return facilities.pool.call(partial(parse, raw, record, database), lane="bulk")


def parse(raw: bytes, record: TorrentRecord, database: str) -> Metainfo:
    """What is on record in words. Raises StorageError where it makes no sense."""
    try:
        meta = metainfo_room.parse(raw)
        said = (record.info_hash, record.length, record.piece_length)
        if (meta.info_hash, meta.length, meta.piece_length) != said:
            raise InvalidMetainfo("it is that of another torrent")
    except CallerError as error:
        raise _damaged(error, database) from None
    return meta


def raw_info(record: TorrentRecord, facilities: Facilities) -> bytes:
    """The info dictionary, byte for byte. Waits. Raises StorageError, NotFound."""
    raw = facilities.ledger.metainfo(record.info_hash)
    # Not in a disk thread: a peer should not wait behind a check of terabytes.
    info: bytes = get_hub().threadpool.apply(lambda: metainfo_room.parse(raw).raw_info)
    return info


def _damaged(error: CallerError, database: str) -> StorageError:
    message = f"{database}: the metainfo on record is damaged ({error}); add the torrent anew"
    return StorageError(message, path=database, cause="corrupt")
