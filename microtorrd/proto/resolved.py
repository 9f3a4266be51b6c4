"""What peers handed over for a magnet link: is it the metadata that the link names? attacker-controlled

Hashing and parsing take long for large metadata: who must not wait calls `examined` in a thread.
"""

from __future__ import annotations

from hashlib import sha1

from microtorrd.errors import InvalidMetainfo
from microtorrd.proto import metainfo as metainfo_room
from microtorrd.proto.magnet import Magnet
from microtorrd.proto.metainfo import Metainfo


class Unfit:
    """Why metadata cannot be taken. `for_good`: it is the right one, and there is no other."""

    __slots__ = ("for_good", "problem")

    def __init__(self, problem: str, *, for_good: bool) -> None:
        self.problem = problem
        self.for_good = for_good


def examined(link: Magnet, raw_info: bytes) -> tuple[bytes, Metainfo] | Unfit:
    """Compare metadata with what the link names: the metainfo file and what it says, or what is wrong.

    Of a link by `mtid` the info dictionary is taken at its word; the content is compared with the `id_hash`
    in it when it is whole, as that of every torrent.
    """
    wanted = link.info_hash
    if wanted is not None and sha1(raw_info).digest() != wanted:
        return Unfit("its SHA-1 is not the info_hash", for_good=False)
    try:
        raw = metainfo_room.wrap(raw_info, trackers=link.tiers, web_seeds=link.web_seeds)
        meta = metainfo_room.parse(raw)
    except InvalidMetainfo as error:
        return Unfit(f"the metainfo is not taken: {error}", for_good=wanted is not None)
    if wanted is None and meta.id_hash != link.id_hash:
        return Unfit("its id_hash is not the one of the link", for_good=False)
    return raw, meta
