"""A small torrent for the tests of this folder: files of uneven sizes, its pieces and their hashes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import sha1
from typing import Any

from microtorrd.disk.files import DescriptorCache, FileSet
from microtorrd.proto.geometry import Geometry

#: A piece of 16 KiB and a bit covers one, two or many of them.
UNEVEN = (
    (("show", "a.bin"), 40_000),
    (("show", "empty"), 0),
    (("show", "deep", "one"), 1),
    (("show", "deep", "b.bin"), 100_000),
    (("show", "deep", "er", "c.bin"), 16_384),
    (("show", "last"), 0),
)


class Sample:
    """Content made from a seed, cut into pieces."""

    def __init__(
        self,
        files: Sequence[tuple[Sequence[str], int]] = UNEVEN,
        piece_length: int = 16_384,
        seed: int = 1,
    ) -> None:
        self.files = tuple((tuple(path), length) for path, length in files)
        self.lengths = tuple(length for _, length in self.files)
        self.content = random.Random(seed).randbytes(sum(self.lengths))
        self.geometry = Geometry(len(self.content), piece_length)
        self.hashes = b"".join(sha1(self.piece(number)).digest() for number in self.all_pieces)
        self.descriptors = DescriptorCache(64)

    @property
    def all_pieces(self) -> range:
        return range(self.geometry.piece_count)

    def piece(self, number: int) -> bytes:
        begin = self.geometry.piece_offset(number)
        return self.content[begin : begin + self.geometry.piece_size(number)]

    def hash_of(self, number: int) -> bytes:
        return self.hashes[20 * number : 20 * number + 20]

    def at(self, root: object, **options: Any) -> FileSet:
        """The files below `root`, not made yet."""
        return FileSet(str(root), self.files, descriptors=self.descriptors, **options)

    def whole_at(self, root: object, **options: Any) -> FileSet:
        """The files below `root` with all their content."""
        files = self.at(root, **options)
        files.create("sparse")
        files.write(0, memoryview(self.content))
        return files
